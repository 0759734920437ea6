"""Heads: from the last hidden states to scores over classes or the vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripel.nn.dropout import Dropout


class VocabularyHead(nn.Module):
    """logits = h W^T (+ b). Tied, W is the embedding's matrix, which the head uses but does not own (Press & Wolf 2017)."""

    def __init__(self, vocab_size: int, d_model: int, *, tied: bool, bias: bool) -> None:
        super().__init__()
        self.weight = None if tied else nn.Parameter(torch.empty(vocab_size, d_model))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None

    def matrix(self, embedding_VD: Tensor) -> Tensor:
        """The matrix in use: the head's own, or the embedding's when tied."""
        return embedding_VD if self.weight is None else self.weight

    def forward(self, h_BTD: Tensor, embedding_VD: Tensor) -> Tensor:
        return F.linear(h_BTD, self.matrix(embedding_VD), self.bias)


class MaskedTokenHead(nn.Module):
    """norm(activation(W h + b)), then a vocabulary head (Devlin et al. 2019's code). norm None: no transform before it."""

    def __init__(
        self, d_model: int, activation: Callable[[Tensor], Tensor], norm: nn.Module | None, vocabulary: VocabularyHead
    ) -> None:
        super().__init__()
        self.transform = None if norm is None else nn.Linear(d_model, d_model)
        self.activation, self.norm, self.vocabulary = activation, norm, vocabulary

    def transformed(self, h_ND: Tensor) -> Tensor:
        """What the vocabulary's matrix is multiplied with."""
        if self.transform is None or self.norm is None:
            return h_ND
        return self.norm(self.activation(self.transform(h_ND)))  # type: ignore[no-any-return]

    def forward(self, h_ND: Tensor, embedding_VD: Tensor) -> Tensor:
        return self.vocabulary(self.transformed(h_ND), embedding_VD)


class ClassHead(nn.Module):
    """logits of C classes from the vector of a whole input: dropout, then a linear map."""

    def __init__(self, d_model: int, n_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout, self.linear = Dropout(dropout), nn.Linear(d_model, n_classes)

    def forward(self, h_BD: Tensor) -> Tensor:
        return self.linear(self.dropout(h_BD))  # type: ignore[no-any-return]


def positions(h_BTD: Tensor, rows_N: Tensor | None) -> Tensor:
    """The hidden states of some positions, (N, D). rows: their places among all B * T; None for all."""
    h_ND = h_BTD.flatten(0, -2)
    return h_ND if rows_N is None else h_ND.index_select(0, rows_N)


def pooled(h_BTD: Tensor, valid_BT: Tensor | None, pool: str) -> Tensor:
    """One vector per row, (B, D): the first position's (`cls`), or the `mean` or `max` over valid positions."""
    if pool == "cls":
        return h_BTD[:, 0]
    if valid_BT is None:
        return h_BTD.mean(1) if pool == "mean" else h_BTD.amax(1)
    if pool == "max":
        return h_BTD.masked_fill(~valid_BT[..., None], -torch.inf).amax(1)
    weights_BT = valid_BT.to(h_BTD.dtype) / valid_BT.sum(1, keepdim=True).to(h_BTD.dtype)
    return torch.einsum("bt,btd->bd", weights_BT, h_BTD)
