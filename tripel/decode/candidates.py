"""The best continuations of many rows without sorting a vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64
"""Tokens whose maximum is taken first. The k best tokens lie in the k chunks with the greatest maxima."""


def log_normaliser(logits_NV: Tensor) -> Tensor:
    """log sum exp of every row (N,), float32."""
    return logits_NV.logsumexp(-1).float()


def top_candidates(logits_NV: Tensor, offset_N: Tensor, n_groups: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k greatest of logits + offset among the rows of each group, best first.

    Rows of one group are neighbours, equally many in every group. Returns values, row within the group and token, each
    (n_groups, K) with K = min(k, rows of a group * V).
    """
    N, V = logits_NV.shape
    scores_BW = (logits_NV + offset_N[:, None]).view(n_groups, -1)
    values_BK, index_BK = scores_BW.topk(min(k, scores_BW.shape[1]))
    return values_BK, torch.div(index_BK, V, rounding_mode="floor"), index_BK % V
