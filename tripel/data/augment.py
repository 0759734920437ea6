"""Other pictures from the same pictures: random changes that do not change the class, as operations on whole batches.

What is drawn for a step follows from the run's seed, the epoch and the step alone, example by example: resuming sees the
same pictures again, and so does any number of processes. All that moves pixels (flip, shift, crop, rotation, shear) is one
resampling, so that a picture is blurred once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from tripel.config import Config

# Magnitude 10 of each operation, as in RandAugment (Cubuk et al. 2020, section 4; the ranges of AutoAugment).
_GEOMETRIC = {"rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.45, "translate_y": 0.45}
_COLOUR = ("brightness", "contrast", "saturation", "sharpness", "solarize", "posterize", "autocontrast")
_OPERATIONS = ("identity", *_GEOMETRIC, *_COLOUR)
_MOST_ASPECT = math.log(4 / 3)
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601: the luma that Pillow's conversion to grey uses


class AugmentConfig(Config):
    """What is changed at random in training pictures. Everything is off by default.

    flip: left and right change places in half of them. shift: up to so many pixels to each side, black moving in (the
    padded crop of He et al. 2016). scale: the least and the largest share of the area that is cut out and enlarged, its
    sides as 3:4 to 4:3 (Szegedy et al. 2015). rotate: up to so many degrees. erase: the share of pictures of which a
    rectangle is made mean grey (Zhong et al. 2020). operations: so many of RandAugment's, at `magnitude` of 10 (Cubuk et
    al. 2020). mixup, cutmix: the Beta distribution's parameter by which pairs of pictures and their labels are mixed (Zhang
    et al. 2018), or parts of them exchanged (Yun et al. 2019); 0 does not, and with both each pair has one of them.
    mix_share: the share of pairs that are.
    """

    flip: bool = False
    shift: int = Field(default=0, ge=0, le=1024)
    scale: tuple[float, float] = (1.0, 1.0)
    rotate: float = Field(default=0.0, ge=0, le=180)
    erase: float = Field(default=0.0, ge=0, le=1)
    operations: int = Field(default=0, ge=0, le=8)
    magnitude: float = Field(default=5.0, ge=0, le=10)
    mixup: float = Field(default=0.0, ge=0, le=100)
    cutmix: float = Field(default=0.0, ge=0, le=100)
    mix_share: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _shares_are_ordered(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {list(self.scale)} must be two shares of the area, 0 < least <= largest <= 1")
        return self

    @property
    def mixes(self) -> bool:
        """Whether pictures are made of two."""
        return bool((self.mixup or self.cutmix) and self.mix_share)


@dataclass(frozen=True)
class Draws:
    """What was drawn for n examples. matrices: float64 [n, 2, 3], from places in the output to places in the input, both
    from -1 to 1. operations: int [n, k] into the colour operations (-1: none) and their strengths, float [n, k], -1 to 1.
    boxes: float [n, 4], rows and columns as shares, of what is erased. mix, mix_boxes: the share of itself that each
    example keeps under mixup, and what it exchanges under cutmix; both are equal for the two of a pair."""

    matrices: np.ndarray
    operations: np.ndarray
    strengths: np.ndarray
    boxes: np.ndarray
    mix: np.ndarray
    mix_boxes: np.ndarray

    def __getitem__(self, rows: slice) -> Draws:
        """Those of some examples; of whole pairs where pictures are mixed."""
        return Draws(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def draw(config: AugmentConfig, n: int, size: int, rng: np.random.Generator) -> Draws:
    """The random numbers of n examples of size x size pixels."""
    n_even = n + n % 2
    matrices = _matrices(config, n_even, size, rng)
    operations, strengths = np.full((n_even, config.operations), -1), np.zeros((n_even, config.operations))
    if config.operations:
        chosen = rng.integers(0, len(_OPERATIONS), size=operations.shape)
        strengths = rng.choice((-1.0, 1.0), size=chosen.shape) * config.magnitude / 10
        for k in range(config.operations):
            matrices = _compose(matrices, _of_operations(chosen[:, k], strengths[:, k]))
        operations = np.where(chosen > len(_GEOMETRIC), chosen - len(_GEOMETRIC) - 1, -1)
    erased = rng.random(n_even) < config.erase
    boxes = np.where(erased[:, None], _boxes(rng.uniform(0.02, 0.25, n_even), rng, aspect=True), 0.0)
    mix, mix_boxes = _mixing(config, n_even // 2, rng)
    return Draws(matrices, operations, strengths, boxes, mix, mix_boxes)[:n]


def augment(pixels_NCHW: Tensor, draws: Draws, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The changed pictures, size x size, as the model wants them: (pixel / 255 - mean) / std, float32; not mixed yet.

    pixels_NCHW: uint8 or float of 0 to 255.
    """
    x_NCHW = pixels_NCHW.float()
    if x_NCHW.shape[-1] != size or (draws.matrices != _IDENTITY).any():
        matrices = torch.from_numpy(draws.matrices).float()
        grid = F.affine_grid(matrices, [*x_NCHW.shape[:2], size, size], align_corners=False)
        x_NCHW = F.grid_sample(x_NCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    for k in range(draws.operations.shape[1]):
        x_NCHW = _coloured(x_NCHW, draws.operations[:, k], draws.strengths[:, k])
    shift, scale = (torch.tensor(v)[:, None, None] for v in (mean, std))
    x_NCHW = (x_NCHW / 255).sub_(shift).div_(scale)
    return x_NCHW.masked_fill_(_inside(draws.boxes, size)[:, None], 0.0) if draws.boxes.any() else x_NCHW


def mixed(x_NCHW: Tensor, targets_N: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbouring examples mixed in pairs: the pictures, the two classes of each, int64 (N, 2), and their shares,
    float32 (N, 2). An example without a partner stays as it is."""
    partner = torch.arange(len(x_NCHW)) ^ 1
    partner[partner == len(x_NCHW)] -= 1
    other_NCHW = x_NCHW[partner]
    keep_N = torch.from_numpy(draws.mix).float()
    inside = _inside(draws.mix_boxes, x_NCHW.shape[-1])
    y_NCHW = torch.where(inside[:, None], other_NCHW, torch.lerp(other_NCHW, x_NCHW, keep_N[:, None, None, None]))
    share_N = keep_N * (1 - inside.float().mean((1, 2)))
    return y_NCHW, torch.stack([targets_N, targets_N[partner]], 1), torch.stack([share_N, 1 - share_N], 1)


_IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def _matrices(config: AugmentConfig, n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    matrices = np.broadcast_to(_IDENTITY, (n, 2, 3)).copy()
    if config.scale != (1.0, 1.0):
        area, aspect = rng.uniform(*config.scale, n), np.exp(rng.uniform(-_MOST_ASPECT, _MOST_ASPECT, n))
        sides = np.minimum(np.sqrt(area[:, None] * np.stack([aspect, 1 / aspect], 1)), 1.0)
        matrices[:, 0, 0], matrices[:, 1, 1] = sides.T
        matrices[:, :, 2] = rng.uniform(-1, 1, (n, 2)) * (1 - sides)
    if config.shift:
        matrices[:, :, 2] += rng.integers(-config.shift, config.shift + 1, (n, 2)) * 2 / size
    if config.rotate:
        matrices = _compose(matrices, _rotations(np.radians(rng.uniform(-config.rotate, config.rotate, n))))
    if config.flip:
        matrices[:, :, 0] *= rng.choice((-1.0, 1.0), n)[:, None]
    return matrices


def _rotations(angles: np.ndarray) -> np.ndarray:
    cosines, sines, zeros = np.cos(angles), np.sin(angles), np.zeros_like(angles)
    return np.stack([np.stack([cosines, -sines, zeros], 1), np.stack([sines, cosines, zeros], 1)], 1)


def _compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The maps x -> first(second(x))."""
    product = first[:, :, :2] @ second
    product[:, :, 2] += first[:, :, 2]
    return product


def _of_operations(chosen: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """The maps of geometric operations, the identity for others. Index 0 is the identity itself."""
    matrices = np.broadcast_to(_IDENTITY, (len(chosen), 2, 3)).copy()
    for index, (name, most) in enumerate(_GEOMETRIC.items(), start=1):
        rows = chosen == index
        amounts = strengths[rows] * most
        if name == "rotate":
            matrices[rows] = _rotations(np.radians(amounts))
        else:
            row = 0 if name.endswith("_x") else 1
            matrices[rows, row, 2 if name.startswith("translate") else 1 - row] = amounts
    return matrices


def _boxes(areas: np.ndarray, rng: np.random.Generator, *, aspect: bool) -> np.ndarray:
    """Rectangles of these shares of the area somewhere inside: top, bottom, left, right as shares, [n, 4]."""
    stretch = np.exp(rng.uniform(-1.2, 1.2, len(areas))) if aspect else np.ones(len(areas))
    sides = np.minimum(np.sqrt(areas[:, None] * np.stack([stretch, 1 / stretch], 1)), 1.0)
    starts = rng.random((len(areas), 2)) * (1 - sides)
    return np.stack([starts[:, 0], starts[:, 0] + sides[:, 0], starts[:, 1], starts[:, 1] + sides[:, 1]], 1)


def _inside(boxes: np.ndarray, size: int) -> Tensor:
    """Which pixels are inside, bool [n, size, size]."""
    edges = torch.from_numpy(np.round(boxes * size)).float()
    places = torch.arange(size)
    rows = (places >= edges[:, 0:1]) & (places < edges[:, 1:2])
    columns = (places >= edges[:, 2:3]) & (places < edges[:, 3:4])
    return rows[:, :, None] & columns[:, None]


def _mixing(config: AugmentConfig, n_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    keep, boxes = np.ones(n_pairs), np.zeros((n_pairs, 4))
    if config.mixes:
        mixes = rng.random(n_pairs) < config.mix_share
        cuts = (rng.random(n_pairs) < 0.5) if config.mixup and config.cutmix else np.full(n_pairs, bool(config.cutmix))
        if config.mixup:
            keep = np.where(mixes & ~cuts, rng.beta(config.mixup, config.mixup, n_pairs), 1.0)
        if config.cutmix:
            cut = _boxes(1 - rng.beta(config.cutmix, config.cutmix, n_pairs), rng, aspect=False)
            boxes = np.where((mixes & cuts)[:, None], cut, 0.0)
    return keep.repeat(2), boxes.repeat(2, axis=0)


def _coloured(x_NCHW: Tensor, operations: np.ndarray, strengths: np.ndarray) -> Tensor:
    """One colour operation for each example that has one, each on all of its examples at once."""
    for index, name in enumerate(_COLOUR):
        rows = torch.from_numpy(np.flatnonzero(operations == index))
        if len(rows):
            amounts = torch.from_numpy(strengths).float()[rows][:, None, None, None]
            x_NCHW = x_NCHW.index_copy(0, rows, _operation(name, x_NCHW[rows], amounts).clamp_(0, 255))
    return x_NCHW


def _operation(name: str, x_NCHW: Tensor, strength_N111: Tensor) -> Tensor:
    """strength: -1 to 1; where an operation has no direction its absolute value counts."""
    blend = 1 + 0.9 * strength_N111  # from 0.1 to 1.9: 1 leaves a picture as it is
    if name == "brightness":
        return x_NCHW * blend
    if name == "contrast":
        return torch.lerp(_grey(x_NCHW).mean((1, 2, 3), keepdim=True).expand_as(x_NCHW), x_NCHW, blend)
    if name == "saturation":
        return torch.lerp(_grey(x_NCHW).expand_as(x_NCHW), x_NCHW, blend)
    if name == "sharpness":
        return torch.lerp(F.avg_pool2d(x_NCHW, 3, stride=1, padding=1, count_include_pad=False), x_NCHW, blend)
    if name == "solarize":
        return torch.where(x_NCHW >= 256 * (1 - strength_N111.abs()), 255 - x_NCHW, x_NCHW)
    if name == "posterize":
        step = torch.exp2((4 * strength_N111.abs()).round())
        return (x_NCHW / step).floor() * step
    least, most = x_NCHW.amin((2, 3), keepdim=True), x_NCHW.amax((2, 3), keepdim=True)
    return torch.where(most > least, (x_NCHW - least) * 255 / (most - least).clamp_min(1), x_NCHW)


def _grey(x_NCHW: Tensor) -> Tensor:
    if x_NCHW.shape[1] == 1:
        return x_NCHW
    return (x_NCHW * torch.tensor(_GREY)[:, None, None]).sum(1, keepdim=True)
