"""Translation: pairs of sentences become (source, shifted target) and next-token targets; BLEU and chrF as metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tripel.config import Config
from tripel.data.batch import IGNORE, Batch
from tripel.models.config import Vocabulary
from tripel.text.pair import TokenizerPair


class TranslationTask(Config):
    """Translate `source` into `target` (language codes, as in the data's file names)."""

    kind: Literal["translation"] = "translation"
    source: str = Field(min_length=1, max_length=35)
    target: str = Field(min_length=1, max_length=35)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)


class PairCorpus(Protocol):
    """Encoded pairs: ids without begin and end tokens."""

    def source(self, index: int) -> np.ndarray: ...

    def target(self, index: int) -> np.ndarray: ...


def vocabulary_of(tokenizers: TokenizerPair) -> Vocabulary:
    """What a translation model must know of its tokenizers; targets begin with the target side's begin token."""
    target = tokenizers.target
    return Vocabulary(
        source_size=tokenizers.source.vocab_size,
        target_size=target.vocab_size,
        pad_id=target.pad_id,
        eos_id=target.eos_id,
        start_id=target.bos_id,
    )


def collate(corpus: PairCorpus, rows: Sequence[int] | np.ndarray, vocabulary: Vocabulary) -> Batch:
    """Pairs -> a Batch: source + eos, start + target as decoder input, target + eos as targets; right padding."""
    sources = [corpus.source(int(i)) for i in rows]
    targets = [corpus.target(int(i)) for i in rows]
    source_BS, source_lengths = pad_right(sources, vocabulary.pad_id, last=vocabulary.eos_id)
    targets_BT, target_lengths = pad_right(targets, IGNORE, last=vocabulary.eos_id)
    B, T = targets_BT.shape
    input_BT = torch.full((B, T), vocabulary.pad_id, dtype=torch.int64)
    input_BT[:, 0] = vocabulary.start_id
    input_BT[:, 1:] = targets_BT[:, :-1]
    # Beyond a target's end stands IGNORE or the end token itself: neither is ever an input that counts.
    input_BT.masked_fill_((input_BT == IGNORE) | (torch.arange(T) >= target_lengths[:, None]), vocabulary.pad_id)
    all_valid = bool((source_lengths == source_BS.shape[1]).all())
    valid_BS = None if all_valid else torch.arange(source_BS.shape[1]) < source_lengths[:, None]
    count = int(target_lengths.sum())
    return Batch(
        inputs={"source_BS": source_BS, "target_BT": input_BT, "source_valid_BS": valid_BS},
        targets_BT=targets_BT,
        count=count,
        tokens=count + int(source_lengths.sum()),
        rows=tuple(int(i) for i in rows),
    )


def pad_right(rows: Sequence[np.ndarray], fill: int, *, last: int) -> tuple[Tensor, Tensor]:
    """Rows of ids, each with `last` appended, as one int64 tensor filled up on the right; and their lengths."""
    lengths = np.array([len(row) + 1 for row in rows], dtype=np.int64)
    table = np.full((len(rows), int(lengths.max(initial=1))), fill, dtype=np.int64)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
        line[len(row)] = last
    return torch.from_numpy(table), torch.from_numpy(lengths)


BatchLoss = Callable[[Batch], float]


def mean_loss(loss_sum: BatchLoss, corpus: PairCorpus, lengths: np.ndarray, vocabulary: Vocabulary) -> float:
    """Cross-entropy per predicted token in nats, without smoothing, over a whole corpus. lengths: of the targets."""
    order = np.argsort(lengths, kind="stable")
    total, count = 0.0, 0
    for start in range(0, len(order), 128):
        batch = collate(corpus, order[start : start + 128], vocabulary)
        total += loss_sum(batch)
        count += batch.count
    return total / max(count, 1)
