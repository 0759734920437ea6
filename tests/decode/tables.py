"""A model whose probabilities come from a table, and the exhaustive search that beam search is compared with."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tripel.decode import DecodeConfig
from tripel.models.config import EncoderDecoderConfig, Vocabulary

PAD, EOS, START = 0, 1, 2


@dataclass
class History:
    """The state of a table model: the ids that every row has read."""

    rows: list[tuple[tuple[int, ...], tuple[int, ...]]]  # source, ids read

    def select(self, rows_N: Tensor) -> None:
        self.rows = [self.rows[i] for i in rows_N.tolist()]

    reorder = select


class TableModel:
    """p(next | source, ids read) drawn once and for all from a generator seeded by the whole past."""

    def __init__(self, vocab_size: int, seed: int, *, spread: float = 2.0, max_len: int = 64) -> None:
        self.vocabulary = Vocabulary(
            source_size=vocab_size, target_size=vocab_size, pad_id=PAD, eos_id=EOS, start_id=START
        )
        self.config = EncoderDecoderConfig(max_len=max_len)
        self.seed, self.spread, self.vocab_size = seed, spread, vocab_size

    def start(self, source_BS: Tensor, valid_BS: Tensor | None = None, *, max_len: int) -> History:
        valid_BS = torch.ones_like(source_BS, dtype=torch.bool) if valid_BS is None else valid_BS
        sources = [tuple(ids[valid].tolist()) for ids, valid in zip(source_BS, valid_BS, strict=True)]
        return History([(source, ()) for source in sources])

    def step(self, ids_NT: Tensor, state: History) -> Tensor:
        state.rows = [(source, (*read, *ids)) for (source, read), ids in zip(state.rows, ids_NT.tolist(), strict=True)]
        return torch.tensor([self.logits(source, read) for source, read in state.rows])

    def logits(self, source: Sequence[int], read: Sequence[int]) -> list[float]:
        generator = random.Random(f"{self.seed}/{list(source)}/{list(read)}")
        return [generator.gauss(0, self.spread) for _ in range(self.vocab_size)]

    def log_p(self, source: Sequence[int], read: Sequence[int]) -> list[float]:
        """Log-probabilities over all tokens but padding, which is never said."""
        logits = self.logits(source, read)
        logits[PAD] = -math.inf
        total = math.log(sum(map(math.exp, logits)))
        return [value - total for value in logits]

    def score(
        self, source: Sequence[int], chosen: Sequence[int], length_penalty: float, prefix: Sequence[int] = ()
    ) -> float:
        """sum(log p) / length^length_penalty of chosen, the end token included."""
        total, read = 0.0, [START, *prefix]
        for token in chosen:
            total += self.log_p(source, read)[token]
            read.append(token)
        return total / len(chosen) ** length_penalty


def exhaustive(model: TableModel, source: Sequence[int], config: DecodeConfig) -> list[tuple[float, list[int], str]]:
    """Every answer there is, best first: (score, ids without the end token, finish reason)."""
    limit = config.limit(len(source))
    said = [token for token in range(model.vocab_size) if token not in (PAD, EOS)]
    answers = []
    for length in range(limit + 1):
        for ids in itertools.product(said, repeat=length):
            if length < limit:
                answers.append((model.score(source, [*ids, EOS], config.length_penalty), list(ids), "stop"))
            else:
                answers.append((model.score(source, ids, config.length_penalty), list(ids), "length"))
    return sorted(answers, key=lambda answer: -answer[0])
