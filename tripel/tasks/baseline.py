"""What one would score by counting alone: the first thing a model must beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Of a longer text a part of this many tokens, in blocks from all over it, tells the frequencies well enough.
_MOST_COUNTED = 1 << 26
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Baseline:
    """The score of always giving every target the probability it has in the training data.

    name: what was counted, such as `word frequency`. loss: nats per target. accuracy: of always saying the commonest.
    """

    name: str
    loss: float
    accuracy: float

    def __str__(self) -> str:
        return f"{self.name} alone scores loss {self.loss:.3f}, accuracy {self.accuracy:.1%}"


def frequency_baseline(name: str, counts: np.ndarray, targets: np.ndarray) -> Baseline:
    """counts: [V] of the training data, each raised by one (Laplace), so that nothing is impossible. targets: int [N]."""
    likely = np.log((counts + 1.0) / (counts.sum() + len(counts)))
    if not len(targets):
        return Baseline(name, math.nan, math.nan)
    hits = np.bincount(targets, minlength=len(counts))
    return Baseline(name, float(-(hits * likely).sum() / len(targets)), float(hits[counts.argmax()] / len(targets)))


def token_counts(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """How often each token occurs in a stream, int64 [V]; of a very long one, in blocks spread over it."""
    n_blocks = -(-len(ids) // _BLOCK)
    step = max(1, -(-len(ids) // _MOST_COUNTED))
    counts = np.zeros(vocab_size, np.int64)
    for block in range(0, n_blocks, step):
        counts += np.bincount(ids[block * _BLOCK : (block + 1) * _BLOCK], minlength=vocab_size)
    return counts
