"""A model's scores for the next token, and the best continuations of many rows without sorting a vocabulary."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64
"""Tokens whose maximum is taken first. The k best tokens lie in the k chunks with the greatest maxima."""

_ROWS_AT_ONCE = 32
"""Rows whose exponentials fit the second-level cache with a vocabulary of some ten thousand tokens."""

_SAFE = 75.0
"""Between -this and this, exp and the sum of a vocabulary of them neither overflow nor vanish in float32."""


class Wish(NamedTuple):
    """What a search asks for: the n likeliest continuations of each group of rows.

    log_p: the log-probability of every row so far. Rows of one group are neighbours, equally many in every group.
    """

    n: int
    log_p: list[float]
    n_groups: int


class Candidates(NamedTuple):
    """For each group its likeliest continuations, best first: log-probability, row within the group, token.

    Where a group has fewer than were asked for, log_p is -inf.
    """

    log_p: list[list[float]]
    rows: list[list[int]]
    tokens: list[list[int]]


class Logits:
    """The logits of the whole vocabulary (N, V), which may be changed before the choice; padding is never chosen.

    pad_id: None where no token is for padding alone. normaliser_N: log sum exp of every row, where it is known.
    """

    def __init__(self, logits_NV: Tensor, pad_id: int | None, *, normaliser_N: Tensor | None = None) -> None:
        if pad_id is not None:
            logits_NV[:, pad_id] = -math.inf
        self.logits_NV = logits_NV
        self._normaliser_N = normaliser_N

    def repeat(self, n: int) -> Logits:
        """n copies of every row, side by side."""
        repeated = copy.copy(self)
        repeated.logits_NV, repeated._normaliser_N = self.logits_NV.repeat_interleave(n, 0), None
        return repeated

    def normaliser(self) -> Tensor:
        """log sum exp of every row when first asked: bans that follow do not make other tokens likelier."""
        if self._normaliser_N is None:
            self._normaliser_N = log_normaliser(self.logits_NV)
        return self._normaliser_N

    def likeliest(self, n: int) -> list[list[tuple[int, float]]]:
        """For every row its n likeliest tokens (of those that may be chosen) and their log-probabilities."""
        values_NK, tokens_NK = self.logits_NV.topk(min(n, self.logits_NV.shape[1]))
        log_p_NK = values_NK - self.normaliser()[:, None]
        rows = zip(tokens_NK.tolist(), log_p_NK.tolist(), strict=True)
        return [[pair for pair in zip(*row, strict=True) if pair[1] > -math.inf] for row in rows]

    def candidates(self, wish: Wish) -> Candidates:
        """What the wish asks for."""
        log_p_N = torch.tensor(wish.log_p, device=self.logits_NV.device)
        if wish.n == 1 and wish.n_groups == len(log_p_N):
            best_N, tokens_N = best_token(self.logits_NV)
            best_N = best_N + (log_p_N - self.normaliser())
            return Candidates(best_N[:, None].tolist(), [[0]] * len(log_p_N), tokens_N[:, None].tolist())
        found = top_candidates(self.logits_NV, log_p_N - self.normaliser(), wish.n_groups, wish.n)
        return Candidates(*(tensor_BK.tolist() for tensor_BK in found))


def log_normaliser(logits_NV: Tensor) -> Tensor:
    """log sum exp of every row (N,), float32."""
    logits_NV = logits_NV.float()
    best_N = logits_NV.amax(-1)
    if logits_NV.device.type != "cpu" or float(best_N.max()) > _SAFE or float(best_N.min()) < -_SAFE:
        return logits_NV.logsumexp(-1)
    # The usual logits need no shift, which saves two passes and memory the size of the logits.
    buffer = torch.empty(min(_ROWS_AT_ONCE, len(logits_NV)), logits_NV.shape[1])
    sums = [torch.exp(rows, out=buffer[: len(rows)]).sum(-1) for rows in logits_NV.split(_ROWS_AT_ONCE)]
    return torch.cat(sums).log_()


def best_token(logits_NV: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest logit of every row and its token: max over the vocabulary, several times as fast on CPU."""
    chunks_NGC = _chunks(logits_NV)
    best_N, chunk_N = chunks_NGC.amax(-1).max(-1)
    within_N = chunks_NGC[torch.arange(len(chunk_N), device=chunk_N.device), chunk_N].argmax(-1)
    return best_N, chunk_N * CHUNK + within_N


def top_candidates(logits_NV: Tensor, offset_N: Tensor, n_groups: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k greatest of logits + offset among the rows of each group, best first.

    Rows of one group are neighbours, equally many in every group. Returns values, row within the group and token, each
    (n_groups, K) with K = min(k, rows of a group * V).
    """
    (N, V), B = logits_NV.shape, n_groups
    chunks_NGC = _chunks(logits_NV)
    n_chunks = chunks_NGC.shape[1]
    maxima_BR = (chunks_NGC.amax(-1).float() + offset_N[:, None]).view(B, -1)
    chosen_BQ = maxima_BR.topk(min(k, maxima_BR.shape[1]), sorted=False).indices
    values_BQC = chunks_NGC.reshape(B, -1, CHUNK).gather(1, chosen_BQ[:, :, None].expand(-1, -1, CHUNK)).float()
    row_BQ = torch.div(chosen_BQ, n_chunks, rounding_mode="floor")
    values_BQC += offset_N.view(B, -1).gather(1, row_BQ)[:, :, None]
    values_BK, place_BK = values_BQC.flatten(1).topk(min(k, N // B * V))
    place_in_BK = torch.div(place_BK, CHUNK, rounding_mode="floor")
    token_BQ = (chosen_BQ - row_BQ * n_chunks) * CHUNK
    return values_BK, row_BQ.gather(1, place_in_BK), token_BQ.gather(1, place_in_BK) + place_BK % CHUNK


def _chunks(logits_NV: Tensor) -> Tensor:
    """The logits (N, G, CHUNK), a view when the vocabulary is a multiple of CHUNK; else filled up with -inf."""
    N, V = logits_NV.shape
    if V % CHUNK:
        logits_NV = F.pad(logits_NV, (0, -V % CHUNK), value=-math.inf)
    return logits_NV.view(N, -1, CHUNK)
