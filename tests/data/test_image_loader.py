"""Batches of pictures: every picture once an epoch, the same for any number of processes, resumable."""

import numpy as np
import pytest
import torch

from tripel.data.augment import AugmentConfig
from tripel.data.image_loader import ImageLoader, class_weights

PLAIN, MIXING = AugmentConfig(), AugmentConfig(flip=True, shift=1, mixup=0.5)


class Numbered:
    """Pictures whose pixels say their number."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def pixels(self, rows):
        return np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (len(rows), 1, 4, 4)).copy()


def loader(n=23, augmenting=PLAIN, rows=6, micro=4, **settings):
    classes = np.arange(n) % 3
    return ImageLoader(
        Numbered(n), classes, augmenting, size=4, statistics=((0.0,), (1 / 255,)), rows_per_step=rows, micro_rows=micro,
        seed=5, **settings,
    )  # fmt: skip


def taken(loading, n):
    steps = iter(loading)
    try:
        return [next(steps) for _ in range(n)]
    finally:
        steps.close()


def test_an_epoch_has_every_picture_at_most_once_and_other_epochs_another_order():
    epochs = [
        [row for step in steps for batch in step for row in batch.rows]
        for steps in (taken(loader(), 3), taken(loader(), 6)[3:])
    ]
    for rows in epochs:
        assert len(rows) == len(set(rows)) == 18
    assert epochs[0] != epochs[1]


def test_pictures_stay_with_their_classes():
    for step in taken(loader(), 3):
        assert [len(batch.rows) for batch in step] == [4, 2]
        for batch in step:
            assert torch.equal(batch.inputs["pixels_BCHW"][:, 0, 0, 0].round().long(), torch.tensor(batch.rows))
            assert torch.equal(batch.targets_BT, torch.tensor(batch.rows) % 3) and batch.weights is None
            assert batch.count == batch.tokens == len(batch.rows)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_any_number_of_processes_sees_the_same_step(world_size):
    alone = taken(loader(augmenting=MIXING, rows=8, micro=100), 4)
    together = [
        taken(loader(augmenting=MIXING, rows=8, micro=100, rank=r, world_size=world_size), 4) for r in range(world_size)
    ]
    for number, (whole,) in enumerate(alone):
        parts = [batch for rank in together for batch in rank[number]]
        assert sum((part.rows for part in parts), ()) == whole.rows
        for name in ("targets_BT", "weights"):
            torch.testing.assert_close(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        torch.testing.assert_close(
            torch.cat([part.inputs["pixels_BCHW"] for part in parts]), whole.inputs["pixels_BCHW"]
        )


def test_a_stored_place_goes_on_with_the_very_pictures_that_would_have_come():
    first = loader(augmenting=MIXING)
    taken(first, 4)
    second = loader(augmenting=MIXING)
    second.load_state_dict(first.state_dict())
    for there, here in zip(taken(loader(augmenting=MIXING), 7)[4:], taken(second, 3), strict=True):
        for one, other in zip(there, here, strict=True):
            assert one.rows == other.rows
            assert torch.equal(one.inputs["pixels_BCHW"], other.inputs["pixels_BCHW"])


def test_a_set_smaller_than_a_step_is_one_step():
    assert [len(batch.rows) for batch in taken(loader(n=5, rows=64, micro=64), 1)[0]] == [5]


def test_balanced_classes_count_alike_together_and_a_picture_counts_one_on_average():
    classes = np.array([0] * 6 + [1] * 3 + [3] * 1)
    weights = class_weights(classes, 4)
    totals = [weights[c] * (classes == c).sum() for c in (0, 1, 3)]
    np.testing.assert_allclose(totals, [10 / 3] * 3)
    assert weights[2] == 0


def test_weights_of_classes_and_shares_of_mixed_pictures_multiply():
    weights_C = np.array([1.0, 2.0, 4.0])
    (plain,) = taken(loader(rows=8, micro=8, augmenting=MIXING), 1)[0]
    (weighted,) = taken(loader(rows=8, micro=8, augmenting=MIXING, weights_C=weights_C), 1)[0]
    of_classes = torch.from_numpy(weights_C).float()[plain.targets_BT]
    torch.testing.assert_close(weighted.weights, plain.weights * of_classes)
    (unmixed,) = taken(loader(rows=8, micro=8, weights_C=weights_C), 1)[0]
    assert unmixed.weights.shape == unmixed.targets_BT.shape == (8,)
