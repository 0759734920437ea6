"""Filters on logits before a draw, and the draw itself. Each works on rows (N, V) and returns new or given logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LIKELIEST = 512
"""Tokens that nearly always reach any top_p: found in less than half the time that sorting GPT-2's vocabulary takes."""


def filter_logits(logits_NV: Tensor, *, temperature: float, top_k: int, top_p: float, min_p: float) -> Tensor:
    """All filters in the order temperature, top-k, top-p, min-p. Tokens ruled out become -inf."""
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    if top_k:
        logits_NV = keep_top_k(logits_NV, top_k)
    if top_p < 1.0:
        logits_NV = keep_top_p(logits_NV, top_p)
    if min_p > 0.0:
        logits_NV = keep_min_p(logits_NV, min_p)
    return logits_NV


def keep_top_k(logits_NV: Tensor, k: int) -> Tensor:
    """Only the k likeliest tokens (Fan et al. 2018), and those that tie with the last of them."""
    lowest_N1 = logits_NV.topk(min(k, logits_NV.shape[-1])).values[:, -1:]
    return logits_NV.masked_fill(logits_NV < lowest_N1, -math.inf)


def keep_top_p(logits_NV: Tensor, p: float) -> Tensor:
    """The fewest likeliest tokens whose probabilities reach p (Holtzman et al. 2020); at least one."""
    n = min(_LIKELIEST, logits_NV.shape[-1])
    sorted_NK, order_NK = logits_NV.topk(n)
    reached_NK = (sorted_NK - logits_NV.logsumexp(-1, keepdim=True)).exp().cumsum(-1)
    if n < logits_NV.shape[-1] and not bool((reached_NK[:, -1] >= p).all()):
        sorted_NK, order_NK = logits_NV.sort(descending=True, stable=True)
        reached_NK = sorted_NK.softmax(-1).cumsum(-1)
    before_NK = reached_NK.roll(1, -1)
    before_NK[:, 0] = 0.0
    kept_NK = sorted_NK.masked_fill(before_NK >= p, -math.inf)
    return torch.full_like(logits_NV, -math.inf).scatter_(1, order_NK, kept_NK)


def keep_min_p(logits_NV: Tensor, p: float) -> Tensor:
    """Tokens at least p times as likely as the likeliest (Nguyen et al. 2024)."""
    return logits_NV.masked_fill(logits_NV < logits_NV.amax(-1, keepdim=True) + math.log(p), -math.inf)


def draw(logits_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """One token per row by inverting the distribution function at uniform_N in [0, 1): the draw of a row depends on
    its own logits and number only, hence not on the batch."""
    cumulative_NV = logits_NV.double().softmax(-1).cumsum(-1)
    point_N1 = (uniform_N.to(cumulative_NV) * cumulative_NV[:, -1])[:, None]
    tokens_N = torch.searchsorted(cumulative_NV, point_N1, right=True)[:, 0]
    # Rounding can leave the point on the total: the last token that has any probability is meant.
    return torch.minimum(tokens_N, _last_possible(logits_NV))


def _last_possible(logits_NV: Tensor) -> Tensor:
    possible_NV = logits_NV > -math.inf
    return logits_NV.shape[-1] - 1 - possible_NV.flip(-1).to(torch.uint8).argmax(-1)
