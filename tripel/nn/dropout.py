"""Dropout (Srivastava et al. 2014) whose mask costs one random byte per element.

`torch.nn.functional.dropout` on CPU draws one Bernoulli number per element from a serial generator and is the dearest
element-wise operation of a small model. Here one 64-bit draw gives eight mask bytes. The rate is therefore rounded to
1/256 and the kept elements are scaled by the exact keep probability, so the expectation is unchanged. All randomness is
of PyTorch's default generator.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dropout(x: Tensor, rate: float) -> Tensor:
    """x with a share `rate` of its elements set to zero and the rest scaled up; x itself when rate is 0."""
    if rate == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    return _ByteDropout.apply(x, rate)  # type: ignore[no-any-return]


def add_dropout(x: Tensor, y: Tensor, rate: float) -> Tensor:
    """x + dropout(y, rate), for two tensors of one shape and dtype."""
    if rate == 0.0:
        return x + y
    if x.device.type != "cpu" or x.dtype != y.dtype or x.shape != y.shape:
        return x + dropout(y, rate)
    return _AddByteDropout.apply(x, y, rate)  # type: ignore[no-any-return]


def variational_dropout(x_BTD: Tensor, rate: float) -> Tensor:
    """x with the same coordinates dropped at every position of a row (Gal & Ghahramani 2016)."""
    if rate == 0.0:
        return x_BTD
    kept_B1D, scale = keep_mask(x_BTD[:, :1], rate)
    return x_BTD * (kept_B1D * scale)


class Dropout(nn.Module):
    """Dropout while training, the identity otherwise. variational: see variational_dropout."""

    def __init__(self, rate: float, *, variational: bool = False) -> None:
        super().__init__()
        self.rate, self.variational = rate, variational

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return variational_dropout(x, self.rate) if self.variational else dropout(x, self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        kept, ctx.scale = keep_mask(x, rate)
        ctx.save_for_backward(kept)
        return torch.mul(x, kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (kept,) = ctx.saved_tensors
        return torch.mul(grad, kept).mul_(ctx.scale), None


class _AddByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, rate: float) -> Tensor:
        kept, ctx.scale = keep_mask(y, rate)
        ctx.save_for_backward(kept)
        return torch.addcmul(x, y, kept, value=ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        (kept,) = ctx.saved_tensors
        return grad, torch.mul(grad, kept).mul_(ctx.scale), None


def keep_mask(x: Tensor, rate: float) -> tuple[Tensor, float]:
    """1 where an element of x is kept and 0 where it is dropped, in x's dtype; and what to multiply the kept ones by.

    The comparison writes over the drawn bytes: with a result of another dtype (bool) it is not vectorised and takes 25
    times as long, as does turning bools into floats. For the same reason the mask has the dtype of what it multiplies.
    """
    n_dropped = min(max(round(rate * 256), 1), 255)
    draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    kept = draws.view(torch.uint8)[: x.numel()].ge_(n_dropped)
    return kept.view(x.shape).to(x.dtype), 256 / (256 - n_dropped)
