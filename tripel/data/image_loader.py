"""Batches of pictures for the trainer: every picture once an epoch in random order, changed at random."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from tripel.data.augment import AugmentConfig, Draws, augment, draw, mixed
from tripel.data.batch import Batch
from tripel.data.steps import EpochSteps, StepLoader
from tripel.errors import DataError


class Pictures(Protocol):
    """What is read from a set of pictures: see tripel.data.images.ImageSet."""

    def __len__(self) -> int: ...

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, channels, side, side]."""
        ...


class ImageLoader(StepLoader[Batch]):
    """Micro-batches of changed pictures with the model's argument pixels_BCHW; Batch.rows are the pictures' numbers.

    classes: int64, of each picture. size: of the pictures that the model sees. statistics: mean and std of the channels.
    weights_C: of each class, or None. rows_per_step, micro_rows: pictures of an update, and of a micro-batch at most.
    A step's pictures and what is done to them do not depend on the number of processes: each takes its share, pairs whole.
    """

    def __init__(
        self,
        images: Pictures,
        classes: np.ndarray,
        augmenting: AugmentConfig,
        *,
        size: int,
        statistics: tuple[tuple[float, ...], tuple[float, ...]],
        weights_C: np.ndarray | None = None,
        rows_per_step: int,
        micro_rows: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert 0 <= rank < world_size
        super().__init__()
        if not len(images):
            raise DataError("there is no training picture", given="0", expected="some", mend="name another set")
        self._images, self._classes, self._augmenting = images, torch.from_numpy(classes), augmenting
        self._size, self._statistics, self._seed = size, statistics, seed
        self._weights_C = None if weights_C is None else torch.from_numpy(weights_C).float()
        self._rows = min(rows_per_step, len(images))
        self._micro_rows = max(micro_rows // 2 * 2, 1)  # even, so that no pair is parted, unless pictures come singly
        self._rank, self._world_size = rank, world_size

    def steps_of(self, epoch: int) -> EpochSteps[Batch]:
        """An epoch: what does not fill a step is left out, other pictures each time."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._images))

        def batches(step: int) -> list[Batch]:
            rows = order[step * self._rows : (step + 1) * self._rows]
            rng = np.random.default_rng([self._seed, epoch, step])
            draws = draw(self._augmenting, len(rows), self._size, rng)
            mine = _share(len(rows), self._rank, self._world_size)
            starts = range(mine.start, mine.stop, self._micro_rows)
            parts = [slice(start, min(start + self._micro_rows, mine.stop)) for start in starts]
            return [self._batch(rows[part], draws[part]) for part in parts]

        return EpochSteps(len(order) // self._rows, batches)

    def _batch(self, rows: np.ndarray, draws: Draws) -> Batch:
        pixels_BCHW = augment(torch.from_numpy(self._images.pixels(rows)), draws, self._size, *self._statistics)
        targets, weights = self._classes[torch.from_numpy(rows)], None
        if self._augmenting.mixes:
            pixels_BCHW, targets, weights = mixed(pixels_BCHW, targets, draws)
        if self._weights_C is not None:
            of_classes = self._weights_C[targets]
            weights = of_classes if weights is None else weights * of_classes
        return Batch(
            inputs={"pixels_BCHW": pixels_BCHW},
            targets_BT=targets,
            count=len(rows),
            tokens=len(rows),
            rows=tuple(rows.tolist()),
            weights=weights,
        )


def class_weights(classes: np.ndarray, n_classes: int) -> np.ndarray:
    """What each class counts so that all count alike together and a picture counts 1 on average, float64 [C]: N / (C n_c)
    (King & Zeng 2001, as scikit-learn's `balanced`). 0 for a class without pictures."""
    counts = np.bincount(classes, minlength=n_classes)
    return np.where(counts, len(classes) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)


def _share(n: int, rank: int, world_size: int) -> slice:
    """The pictures of a step that fall to a process: as many pairs to each, the first ones one more."""
    pairs = -(-n // 2)
    edges = [2 * (pairs * r // world_size) for r in (rank, rank + 1)]
    return slice(min(edges[0], n), min(edges[1], n))
