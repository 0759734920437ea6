"""Encoded pairs: what batches are made from. Tokenized once, then read from the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripel.data.cache import cache_key, cached
from tripel.data.checks import DataConfig, DataReport, check_unknown
from tripel.data.parallel import ParallelText
from tripel.files import cache_folder
from tripel.text.pair import TokenizerPair
from tripel.text.rows import IdRows
from tripel.text.segmentation import SegmentationSampler
from tripel.text.tokenizer import Tokenizer

# Part of every key: to be raised when the same input would give other arrays.
_VERSION = "1"
_TEXTS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Corpus:
    """Pairs of id sequences, without special tokens."""

    sources: IdRows
    targets: IdRows

    def __len__(self) -> int:
        return len(self.targets)

    def source(self, index: int) -> np.ndarray:
        """The ids of a source, int32 [length]."""
        return self.sources[index]

    def target(self, index: int) -> np.ndarray:
        """The ids of a target, int32 [length]."""
        return self.targets[index]

    @property
    def source_lengths(self) -> np.ndarray:
        """int64 [pairs], special tokens not counted."""
        return self.sources.lengths

    @property
    def target_lengths(self) -> np.ndarray:
        """int64 [pairs], special tokens not counted."""
        return self.targets.lengths

    def fitted(self, plain: Corpus, limit: int) -> Corpus:
        """This corpus with the rows of plain, another encoding of the same pairs, where its own have more than limit
        ids."""
        sides = ((self.sources, plain.sources), (self.targets, plain.targets))
        if all(own is other or bool((own.lengths <= limit).all()) for own, other in sides):
            return self
        return Corpus(*(own.replaced(other, own.lengths > limit) for own, other in sides))


def encode_corpus(text: ParallelText, tokenizers: TokenizerPair, *, cache_dir: Path | None = None) -> Corpus:
    """The pairs' ids, as the tokenizers encode them. cache_dir: where they are kept; the user's cache by default."""
    folder = cache_dir or encoded_folder()
    path = folder / f"{cache_key('plain', *_identity(text, tokenizers))}.npz"

    def compute() -> dict[str, np.ndarray]:
        sources, targets = _encode(tokenizers.source, text.sources), _encode(tokenizers.target, text.targets)
        return _arrays("source", sources) | _arrays("target", targets)

    def valid(arrays: Mapping[str, np.ndarray]) -> bool:
        return all(
            _valid_rows(arrays, side, len(text), tokenizer.vocab_size)
            for side, tokenizer in (("source", tokenizers.source), ("target", tokenizers.target))
        )

    arrays = cached(path, compute, valid)
    return Corpus(_rows(arrays, "source"), _rows(arrays, "target"))


def encode_texts(
    texts: Sequence[str], fingerprint: str, tokenizer: Tokenizer, *, cache_dir: Path | None = None
) -> IdRows:
    """The ids of texts by themselves. fingerprint: a hash of them. cache_dir: as of encode_corpus."""
    folder = cache_dir or encoded_folder()
    path = folder / f"{cache_key('texts', _VERSION, fingerprint, tokenizer.to_json())}.npz"
    arrays = cached(
        path,
        lambda: _arrays("text", _encode(tokenizer, texts)),
        lambda arrays: _valid_rows(arrays, "text", len(texts), tokenizer.vocab_size),
    )
    return _rows(arrays, "text")


def sampled_corpus(
    text: ParallelText, tokenizers: TokenizerPair, *, dropout: float, seed: int, cache_dir: Path | None = None
) -> Callable[[int], Corpus]:
    """Epoch to corpus, each a new draw of BPE dropout on both sides. With dropout 0 always encode_corpus's.

    Deterministic in seed and epoch. The pools of segmentations are kept in the cache like encodings.
    """
    if dropout == 0:
        corpus = encode_corpus(text, tokenizers, cache_dir=cache_dir)
        return lambda epoch: corpus
    folder = cache_dir or encoded_folder()
    samplers = []
    for number, (texts, tokenizer) in enumerate(((text.sources, tokenizers.source), (text.targets, tokenizers.target))):
        key = cache_key("dropout", dropout, seed, number, *_identity(text, tokenizers))
        samplers.append(_sampler(folder / f"{key}.npz", tokenizer, texts, dropout, [seed, number]))
    return lambda epoch: Corpus(samplers[0].sample(epoch), samplers[1].sample(epoch))


def report_unknown(
    report: DataReport, text: ParallelText, corpus: Corpus, tokenizers: TokenizerPair, config: DataConfig
) -> None:
    """Add the share of unknown tokens on each side to a report. Raises DataError when it is above the threshold."""
    for side, rows, tokenizer in (
        ("source", corpus.sources, tokenizers.source),
        ("target", corpus.targets, tokenizers.target),
    ):
        findings = check_unknown(text.name, rows, text.place, tokenizer.unk_id, config.max_unknown_share, side=side)
        report.add(DataReport(findings))
    report.refuse()


def encoded_folder() -> Path:
    """Where encodings are kept: the folder encoded in the user's cache. May be deleted at any time."""
    return cache_folder() / "encoded"


def _identity(text: ParallelText, tokenizers: TokenizerPair) -> Sequence[str]:
    sides = {tokenizers.source.to_json(): None, tokenizers.target.to_json(): None}
    return [_VERSION, text.fingerprint, *sides]


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> IdRows:
    parts = [
        IdRows.from_lists(tokenizer.encode_batch(texts[first : first + _TEXTS_AT_ONCE]))
        for first in range(0, len(texts), _TEXTS_AT_ONCE)
    ]
    lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
    return IdRows(np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]), np.cumsum(lengths))


def _sampler(
    path: Path, tokenizer: Tokenizer, texts: Sequence[str], dropout: float, seed: Sequence[int]
) -> SegmentationSampler:
    def compute() -> dict[str, np.ndarray]:
        sampler = SegmentationSampler.build(tokenizer, texts, dropout=dropout, seed=seed)
        return sampler.to_arrays()

    def valid(arrays: Mapping[str, np.ndarray]) -> bool:
        return SegmentationSampler.fits(arrays, n_texts=len(texts), vocab_size=tokenizer.vocab_size)

    return SegmentationSampler.from_arrays(cached(path, compute, valid), seed)


def _arrays(side: str, rows: IdRows) -> dict[str, np.ndarray]:
    return {f"{side}_ids": rows.ids, f"{side}_offsets": rows.offsets}


def _rows(arrays: Mapping[str, np.ndarray], side: str) -> IdRows:
    return IdRows(arrays[f"{side}_ids"], arrays[f"{side}_offsets"])


def _valid_rows(arrays: Mapping[str, np.ndarray], side: str, n_rows: int, vocab_size: int) -> bool:
    if f"{side}_ids" not in arrays or f"{side}_offsets" not in arrays:
        return False
    rows = _rows(arrays, side)
    return rows.is_sound(vocab_size) and len(rows) == n_rows
