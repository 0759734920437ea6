"""A model's scores for the next token, and the best continuations of many rows without sorting a vocabulary."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64
"""Tokens whose maximum is taken first. The k best tokens lie in the k chunks with the greatest maxima."""

_ROWS_AT_ONCE = 32
"""Rows whose exponentials fit the second-level cache with a vocabulary of some ten thousand tokens."""

_SAFE = 75.0
"""Between -this and this, exp and the sum of a vocabulary of them neither overflow nor vanish in float32."""


class Scores(ABC):
    """What a model says of the next token of every row."""

    device: torch.device

    @abstractmethod
    def best(self) -> tuple[Tensor, Tensor]:
        """The likeliest token of every row and its log-probability, (N,) each."""

    @abstractmethod
    def top(self, log_p_N: Tensor, n_groups: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k likeliest continuations of each group's rows, whose log-probabilities so far are log_p_N, best first.

        Rows of one group are neighbours, equally many in every group. Returns log-probabilities, row within the group
        and token, each (n_groups, K) with K <= k; -inf where there is none.
        """


class Logits(Scores):
    """The logits of the whole vocabulary (N, V), which may be changed before the choice; padding is never chosen."""

    def __init__(self, logits_NV: Tensor, pad_id: int) -> None:
        logits_NV[:, pad_id] = -math.inf
        self.logits_NV, self.device = logits_NV, logits_NV.device
        self._normaliser_N: Tensor | None = None

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

    def best(self) -> tuple[Tensor, Tensor]:
        best_N, tokens_N = best_token(self.logits_NV)
        return tokens_N, best_N - self.normaliser()

    def top(self, log_p_N: Tensor, n_groups: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
        return top_candidates(self.logits_NV, log_p_N - self.normaliser(), n_groups, k)


class Shortlist(Scores):
    """The K greatest logits of every row, best first, their tokens, and log sum exp of all."""

    def __init__(self, values_NK: Tensor, tokens_NK: Tensor, normaliser_N: Tensor) -> None:
        self.values_NK, self.tokens_NK, self.normaliser_N = values_NK, tokens_NK, normaliser_N
        self.device = values_NK.device

    def best(self) -> tuple[Tensor, Tensor]:
        return self.tokens_NK[:, 0].long(), self.values_NK[:, 0] - self.normaliser_N

    def top(self, log_p_N: Tensor, n_groups: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
        K = self.values_NK.shape[1]
        log_p_BW = (self.values_NK + (log_p_N - self.normaliser_N)[:, None]).view(n_groups, -1)
        values_BK, place_BK = log_p_BW.topk(min(k, log_p_BW.shape[1]))
        row_BK = torch.div(place_BK, K, rounding_mode="floor")
        return values_BK, row_BK, self.tokens_NK.view(n_groups, -1).gather(1, place_BK)


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
