"""The convolutional branch: residual networks (He et al. 2016), openly off the grid of skeletons and mixers.

A residual stream of constant width it is not: each stage halves the picture and widens the channels. All tensors are
channels-last in memory, which oneDNN's kernels want. Shapes: B pictures, C channels, H and W rows and columns.

    pixels -> stem -> stage 1 -> ... -> stage n -> one vector for every place, (B, places, D)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripel.nn.mixer import Taps, scoped

NormOf = Callable[[int], nn.Module]

# What they are given is not needed again, by nobody's backward pass: ReLU writes over it.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "gelu": F.gelu, "silu": F.silu}


class BatchNorm(nn.Module):
    """Batch normalisation over pictures and places (Ioffe & Szegedy 2015).

    The running statistics stay float32 whatever the weights are, and are of the batch that is read at once: this alone among
    our layers sees the other examples of its batch while training.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, n_channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(n_channels)), nn.Parameter(torch.zeros(n_channels))
        self.register_buffer("running_mean", torch.zeros(n_channels))
        self.register_buffer("running_var", torch.ones(n_channels))
        self.eps, self.momentum = eps, momentum

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight_C, bias_C = (p.to(self.running_mean.dtype) for p in (self.weight, self.bias))
        return F.batch_norm(
            x_BCHW, self.running_mean, self.running_var, weight_C, bias_C, self.training, self.momentum, self.eps
        )


def norm_of(kind: Literal["batch", "group"], eps: float, n_groups: int) -> NormOf:
    """What makes a norm for a number of channels."""
    if kind == "group":
        return lambda n_channels: nn.GroupNorm(n_groups, n_channels, eps=eps)
    return lambda n_channels: BatchNorm(n_channels, eps=eps)


class ConvNorm(nn.Module):
    """norm(W * x), a convolution of odd kernel, padded so that stride 1 keeps the size; no bias: the norm has one."""

    def __init__(self, n_in: int, n_out: int, kernel: int, norm: NormOf, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = norm(n_out)

    @property
    def dtype(self) -> torch.dtype:
        """That of its weight and of pictures."""
        return self.conv.weight.dtype

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.norm(self.conv(x_BCHW))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """activation(x + f(x)), f convolutions with norms; x through a 1x1 convolution where its shape changes.

    basic: 3x3, 3x3 (He et al. 2016, figure 2). bottleneck: 1x1 to a quarter of the width, 3x3, 1x1 (figure 5). stride: of
    the 3x3 convolution, or with stride_in_1x1 of the first one as the paper has it.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        stride: int,
        kind: Literal["basic", "bottleneck"],
        activation: str,
        norm: NormOf,
        *,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        if kind == "basic":
            layers = [ConvNorm(n_in, n_out, 3, norm, stride=stride), ConvNorm(n_out, n_out, 3, norm)]
        else:
            inner, strides = n_out // 4, (stride, 1) if stride_in_1x1 else (1, stride)
            layers = [
                ConvNorm(n_in, inner, 1, norm, stride=strides[0]),
                ConvNorm(inner, inner, 3, norm, stride=strides[1]),
                ConvNorm(inner, n_out, 1, norm),
            ]
        self.layers = nn.ModuleList(layers)
        same = stride == 1 and n_in == n_out
        self.shortcut = None if same else ConvNorm(n_in, n_out, 1, norm, stride=stride)
        self.activation = _ACTIVATIONS[activation]

    def forward(self, x_BCHW: Tensor, taps: Taps | None = None) -> Tensor:
        """taps: resid_pre, resid_post."""
        if taps is not None:
            taps("resid_pre", x_BCHW)
        y_BCHW = x_BCHW
        for layer in self.layers[:-1]:
            y_BCHW = self.activation(layer(y_BCHW))
        y_BCHW = self.layers[-1](y_BCHW)
        y_BCHW = self.activation(y_BCHW.add_(x_BCHW if self.shortcut is None else self.shortcut(x_BCHW)))
        if taps is not None:
            taps("resid_post", y_BCHW)
        return y_BCHW


class ResidualStages(nn.Module):
    """Stem and stages: pixels (B, C, H, W) -> (B, D, h, w). See models.config.ResNetConfig for the arguments' meaning."""

    def __init__(
        self,
        channels: int,
        stem: ConvNorm,
        stages: Sequence[Sequence[ResidualBlock]],
        activation: str,
        *,
        pooled_stem: bool,
    ) -> None:
        super().__init__()
        self.channels, self.stem, self.pooled_stem = channels, stem, pooled_stem
        self.stages = nn.ModuleList(nn.ModuleList(blocks) for blocks in stages)
        self.activation = _ACTIVATIONS[activation]

    def forward(self, pixels_BCHW: Tensor, taps: Taps | None = None) -> Tensor:
        """taps: embed (after the stem), and each block's as stage.block.name."""
        x_BCHW = pixels_BCHW.to(self.stem.dtype, memory_format=torch.channels_last)
        x_BCHW = self.activation(self.stem(x_BCHW))
        if self.pooled_stem:
            x_BCHW = F.max_pool2d(x_BCHW, 3, stride=2, padding=1)
        if taps is not None:
            taps("embed", x_BCHW)
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            for j, block in enumerate(stage):
                x_BCHW = block(x_BCHW, taps=scoped(scoped(taps, i), j))
        return x_BCHW


class ConvStem(nn.Module):
    """Pixels -> patches by convolutions: 3x3 of stride 2 with norm and ReLU until a place is a patch, each twice as wide as
    the one before it, then a 1x1 convolution to d_model (Xiao et al. 2021)."""

    def __init__(self, channels: int, width: int, n_halvings: int, d_model: int, norm: NormOf) -> None:
        super().__init__()
        widths = [width << i for i in range(n_halvings)]
        pairs = zip([channels, *widths], widths, strict=False)
        self.layers = nn.ModuleList(ConvNorm(n_in, n_out, 3, norm, stride=2) for n_in, n_out in pairs)
        self.output = nn.Linear(widths[-1] if widths else channels, d_model)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """pixels (B, C, H, W) -> (B, h, w, D)."""
        x_BCHW = pixels_BCHW.to(self.output.weight.dtype, memory_format=torch.channels_last)
        for layer in self.layers:
            x_BCHW = torch.relu_(layer(x_BCHW))
        return self.output(x_BCHW.permute(0, 2, 3, 1))  # type: ignore[no-any-return]
