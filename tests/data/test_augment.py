"""Random changes of pictures: what each does, and that it is drawn example by example from the generator alone."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tripel.data.augment import AugmentConfig, augment, draw, mixed

PLAIN = ((0.0,), (1.0,))
EVERYTHING = AugmentConfig(
    flip=True, shift=2, scale=(0.5, 1.0), rotate=10, erase=0.5, operations=2, magnitude=7, mixup=0.4, cutmix=1.0
)


def rng(seed=0):
    return np.random.default_rng(seed)


def pictures(n=8, channels=1, size=12, seed=0):
    return torch.from_numpy(rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8))


def changed(config, x, seed=0, size=None):
    size = size or x.shape[-1]
    statistics = ((0.0,) * x.shape[1], (1.0,) * x.shape[1])
    return augment(x, draw(config, len(x), size, rng(seed)), size, *statistics) * 255


def test_without_options_pictures_stay_as_they_are():
    torch.testing.assert_close(changed(AugmentConfig(), pictures()), pictures().float())


def test_flip_turns_about_half_of_the_pictures_exactly_around():
    x = pictures(64)
    y = changed(AugmentConfig(flip=True), x)
    same = [torch.allclose(a, b.float(), atol=1e-2) for a, b in zip(y, x, strict=True)]
    turned = [torch.allclose(a, b.float().flip(-1), atol=1e-2) for a, b in zip(y, x, strict=True)]
    assert all(a != b for a, b in zip(same, turned, strict=True)) and 16 < sum(turned) < 48


def test_shift_moves_whole_pixels_and_black_moves_in():
    x = pictures(64)
    y = changed(AugmentConfig(shift=2), x)
    padded = torch.nn.functional.pad(x.float(), (2, 2, 2, 2))
    offsets = [
        [
            (dy, dx)
            for dy in range(5)
            for dx in range(5)
            if torch.allclose(a, b[:, dy : dy + 12, dx : dx + 12], atol=0.1)
        ]
        for a, b in zip(y, padded, strict=True)
    ]
    assert all(len(found) == 1 for found in offsets) and len({tuple(found) for found in offsets}) > 12


def test_scale_cuts_out_a_part_and_enlarges_it():
    ramp = torch.arange(12).mul(20).to(torch.uint8).expand(32, 1, 12, 12)
    y = changed(AugmentConfig(scale=(0.2, 0.5)), ramp)
    spread = y[:, 0, 6, -1] - y[:, 0, 6, 0]
    assert (spread < 200).all() and (spread > 40).all()


def test_rotation_keeps_what_is_round_and_moves_what_is_not():
    size = 25
    places = torch.arange(size) - size // 2
    disc = ((places[:, None] ** 2 + places**2) < 64).to(torch.uint8) * 200
    y = changed(AugmentConfig(rotate=180), disc.expand(16, 1, size, size))
    assert (y - disc.float()).abs().mean() < 6
    bar = torch.zeros(size, size, dtype=torch.uint8)
    bar[:, 12] = 200
    assert (changed(AugmentConfig(rotate=90), bar.expand(16, 1, size, size)) - bar.float()).abs().mean() > 6


def test_erase_makes_rectangles_the_mean_grey():
    x = torch.full((64, 1, 12, 12), 255, dtype=torch.uint8)
    y = augment(x, draw(AugmentConfig(erase=0.5), 64, 12, rng()), 12, (0.5,), (0.5,))
    erased = (y == 0).flatten(1).sum(1)
    assert 16 < (erased > 0).sum() < 48 and erased.max() < 0.4 * 144
    for picture in y[erased > 0]:
        rows, columns = (picture[0] == 0).nonzero(as_tuple=True)
        assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_operations_keep_pixels_in_range_and_change_most_pictures(channels):
    x = pictures(200, channels)
    y = changed(AugmentConfig(operations=2, magnitude=10), x)
    assert y.min() >= 0 and y.max() <= 255.01
    assert sum(not torch.allclose(a, b.float(), atol=1e-2) for a, b in zip(y, x, strict=True)) > 120


def test_a_larger_picture_is_brought_to_the_models_size():
    assert changed(AugmentConfig(), pictures(size=16), size=12).shape == (8, 1, 12, 12)


@pytest.mark.parametrize(
    "config", [AugmentConfig(mixup=0.4), AugmentConfig(cutmix=1.0), AugmentConfig(mixup=1.0, cutmix=1.0)]
)
def test_mixed_pictures_have_the_share_of_each_that_their_labels_say(config):
    ones = torch.arange(16) % 2 == 0
    x = ones[:, None, None, None].float().expand(16, 1, 20, 20)  # 1 for the first of each pair, 0 for the second
    y, targets, shares = mixed(x, torch.arange(16), draw(config, 16, 20, rng()))
    assert torch.equal(targets[:, 0], torch.arange(16)) and torch.equal(targets[:, 1], torch.arange(16) ^ 1)
    torch.testing.assert_close(shares.sum(1), torch.ones(16))
    of_ones = torch.where(ones, shares[:, 0], shares[:, 1])
    torch.testing.assert_close(y.mean((1, 2, 3)), of_ones, atol=1e-5, rtol=0)
    assert (shares[:, 1] > 0).sum() > 6


def test_an_example_without_a_partner_stays_as_it_is():
    x = pictures(5).float()
    y, targets, shares = mixed(x, torch.arange(5), draw(AugmentConfig(mixup=0.4), 5, 12, rng()))
    torch.testing.assert_close(y[4], x[4])
    assert targets[4].tolist() == [4, 4]
    torch.testing.assert_close(shares[4].sum(), torch.tensor(1.0))


def test_mix_share_is_the_share_of_pairs_that_are_mixed():
    _, _, shares = mixed(
        torch.zeros(400, 1, 4, 4), torch.arange(400), draw(AugmentConfig(mixup=1.0, mix_share=0.25), 400, 4, rng())
    )
    assert 0.15 < (shares[:, 1] > 0).float().mean() < 0.35


@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_generator_gives_the_same_pictures_and_a_part_of_the_draws_the_same_part(channels):
    x, statistics = pictures(8, channels), ((0.2,) * channels, (0.5,) * channels)
    whole = augment(x, draw(EVERYTHING, 8, 12, rng(3)), 12, *statistics)
    draws = draw(EVERYTHING, 8, 12, rng(3))
    parts = [augment(x[part], draws[part], 12, *statistics) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(torch.cat(parts), whole)
    classes = torch.arange(8)
    for both, one, other in zip(
        mixed(whole, classes, draws),
        mixed(parts[0], classes[:4], draws[slice(0, 4)]),
        mixed(parts[1], classes[4:], draws[slice(4, 8)]),
        strict=True,
    ):
        torch.testing.assert_close(both, torch.cat([one, other]))


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.9, 0.5), (0.5, 1.5)])
def test_impossible_shares_of_the_area_are_refused(scale):
    with pytest.raises(ValidationError, match="shares of the area"):
        AugmentConfig(scale=scale)
