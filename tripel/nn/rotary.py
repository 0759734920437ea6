"""Rotary positions (Su et al. 2021): queries and keys are turned by an angle that grows with their position, so that a
score depends on how far apart they are."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

_STEP = 256


def rotate(x_BHTE: Tensor, start: int | Tensor, base: float) -> Tensor:
    """x with coordinate pairs (i, i + E/2) turned by position / base^(2i/E) (the "halves" order of Hugging Face's Llama).

    start: the position of x[:, :, 0], one number for all rows or one per row (B,).
    """
    T, E = x_BHTE.shape[2:]
    longest = T + (start if isinstance(start, int) else int(start.max()) if len(start) else 0)
    cosines_SE, sines_SE = _table(-(-longest // _STEP) * _STEP, E, base, x_BHTE.dtype, x_BHTE.device)
    if isinstance(start, int):
        cosines, sines = cosines_SE[start : start + T], sines_SE[start : start + T]
    else:
        where_BT = start[:, None] + torch.arange(T, device=x_BHTE.device)
        cosines, sines = cosines_SE[where_BT][:, None], sines_SE[where_BT][:, None]
    first, second = x_BHTE.chunk(2, dim=-1)
    # sines already carry the sign of the half that they multiply
    return torch.addcmul(x_BHTE * cosines, torch.cat([second, first], dim=-1), sines)


@lru_cache(maxsize=16)
def _table(length: int, d_head: int, base: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines (length, E), computed in float64: a constant, hence made once."""
    with torch.inference_mode(False):
        position_S1 = torch.arange(length, dtype=torch.float64, device="cpu")[:, None]
        angle_SE = position_S1 / base ** (torch.arange(0, d_head, 2, dtype=torch.float64, device="cpu") / d_head)
        cosines_SE = torch.cat([angle_SE.cos()] * 2, dim=1)
        sines_SE = torch.cat([-angle_SE.sin(), angle_SE.sin()], dim=1)
        return cosines_SE.to(device, dtype), sines_SE.to(device, dtype)
