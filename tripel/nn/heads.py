"""Heads: from the last hidden states to scores over classes or the vocabulary."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
