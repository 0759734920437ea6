"""BPE dropout (Provilkov et al. 2020) that is exact to the seed and costs next to nothing per epoch.

The `tokenizers` library has dropout, but draws from a generator per thread that cannot be seeded, and would encode the
corpus anew each epoch. Here every distinct word is segmented a number of times, once, with the tokenizer's own
merges; an epoch then picks one of its word's segmentations for every occurrence. This departs from the paper only in
that a word has a pool of draws instead of a fresh draw each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tripel.errors import TokenizerError
from tripel.text.rows import IdRows
from tripel.text.tokenizer import Tokenizer

_TEXTS_AT_ONCE = 10_000
# Symbols of the words segmented together: bounds the memory for the ranks of all their pairs.
_SYMBOLS_AT_ONCE = 1 << 20
# The work for a word grows with its length cubed; what is longer (an address, a ruler of dashes) is always cut the
# plain way.
_LONGEST_WORD = 100
_NEVER = np.int32(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class SegmentationSampler:
    """Draws a segmentation of a whole corpus per epoch. Made by build, or from the arrays of one that was.

    segments: every pool's segmentations, one a row, word after word. pool_starts, pool_sizes: [words] the rows of a
    word's pool. occurrences: the word at each place of the corpus. text_starts: [texts + 1] the places of each text.
    """

    segments: IdRows
    pool_starts: np.ndarray
    pool_sizes: np.ndarray
    occurrences: np.ndarray
    text_starts: np.ndarray
    seed: tuple[int, ...]

    @classmethod
    def build(
        cls,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        *,
        dropout: float,
        seed: int | Sequence[int],
        pool_size: int = 32,
    ) -> SegmentationSampler:
        """Segment every distinct word of texts pool_size times (up to four times that for frequent words).

        dropout is the chance that a merge is skipped each time it could be made; 0 gives tokenizer.encode exactly.
        Raises TokenizerError for a tokenizer without merges.
        """
        merges = _Merges.of(tokenizer)
        words, occurrences, text_starts = _distinct_words(tokenizer, texts)
        symbols = [_symbols(tokenizer, word) for word in words]
        counts = np.bincount(occurrences, minlength=len(words))
        sizes = np.clip(counts, pool_size, 4 * pool_size)
        n_symbols = np.array([len(word) for word in symbols], np.int64)
        plain = (n_symbols < 2) | (n_symbols > _LONGEST_WORD) if dropout else np.ones(len(words), bool)
        sizes[plain] = 1
        seed = _as_tuple(seed)
        rng = np.random.default_rng([*seed, 0])
        pools: list[list[list[int]]] = [[words[word]] if plain[word] else [] for word in range(len(words))]
        for length in np.unique(n_symbols[~plain]):
            _fill_pools(pools, symbols, sizes, np.flatnonzero((n_symbols == length) & ~plain), merges, dropout, rng)
        segments = IdRows.from_lists(segment for pool in pools for segment in pool)
        pool_starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)[: len(words)]
        return cls(segments, pool_starts, sizes.astype(np.int64), occurrences, text_starts, seed)

    def sample(self, epoch: int) -> IdRows:
        """The corpus as segmented in this epoch: one row per text. The same for the same seed and epoch."""
        rng = np.random.default_rng([*self.seed, 1, epoch])
        words = self.occurrences
        picks = self.pool_starts[words] + (rng.random(len(words)) * self.pool_sizes[words]).astype(np.int64)
        starts, lengths = self.segments.offsets[picks], self.segments.lengths[picks]
        ends = np.cumsum(lengths)
        places = np.concatenate([[0], ends]).astype(np.int64)
        gather = np.repeat(starts - places[:-1], lengths) + np.arange(places[-1])
        return IdRows(self.segments.ids[gather], places[self.text_starts])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything but the seed, to be stored."""
        return {
            "ids": self.segments.ids,
            "offsets": self.segments.offsets,
            "pool_starts": self.pool_starts,
            "pool_sizes": self.pool_sizes,
            "occurrences": self.occurrences,
            "text_starts": self.text_starts,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], seed: int | Sequence[int]) -> SegmentationSampler:
        """The sampler of which to_arrays was stored. Arrays from a file must have passed fits."""
        segments = IdRows(arrays["ids"], arrays["offsets"])
        return cls(
            segments,
            arrays["pool_starts"],
            arrays["pool_sizes"],
            arrays["occurrences"],
            arrays["text_starts"],
            seed=_as_tuple(seed),
        )

    @classmethod
    def fits(cls, arrays: Mapping[str, np.ndarray], *, n_texts: int, vocab_size: int) -> bool:
        """Whether arrays read from a file belong to so many texts and such a vocabulary, and are sound."""
        names = ("ids", "offsets", "pool_starts", "pool_sizes", "occurrences", "text_starts")
        if any(name not in arrays or arrays[name].ndim != 1 or arrays[name].dtype.kind != "i" for name in names):
            return False
        one = cls.from_arrays(arrays, 0)
        starts, sizes, words, places = one.pool_starts, one.pool_sizes, one.occurrences, one.text_starts
        if not one.segments.is_sound(vocab_size) or len(places) != n_texts + 1 or len(starts) != len(sizes):
            return False
        pools_lie_within = sizes.min(initial=1) >= 1 and starts.min(initial=0) >= 0
        pools_lie_within &= (starts + sizes).max(initial=0) <= len(one.segments)
        words_exist = words.min(initial=0) >= 0 and words.max(initial=-1) < len(starts)
        in_order = places[0] == 0 and places[-1] == len(words) and (np.diff(places) >= 0).all()
        return bool(pools_lie_within and words_exist and in_order)


def _as_tuple(seed: int | Sequence[int]) -> tuple[int, ...]:
    return (seed,) if isinstance(seed, int) else tuple(seed)


@dataclass(frozen=True)
class _Merges:
    """keys: left id * base + right id, sorted; ranks: priority of each, 0 first; merged: [rank] the id that results."""

    base: int
    keys: np.ndarray
    ranks: np.ndarray
    merged: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> _Merges:
        merges = tokenizer.merges
        if not merges:
            raise TokenizerError(
                "BPE dropout needs a tokenizer with merges",
                given="a tokenizer of another kind, or with an empty list of merges",
                expected="tokenizer.kind: bpe",
                mend="set tokenizer.dropout to 0, or train a bpe tokenizer",
            )
        table = np.array(merges, np.int64)
        keys = table[:, 0] * tokenizer.vocab_size + table[:, 1]
        order = np.argsort(keys, kind="stable")
        return cls(tokenizer.vocab_size, keys[order], order.astype(np.int32), table[:, 2].astype(np.int32))

    def ranks_of(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The priority of each pair, _NEVER where it does not merge."""
        wanted = left.astype(np.int64) * self.base + right
        found = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[found] == wanted, self.ranks[found], _NEVER)


def _distinct_words(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], np.ndarray, np.ndarray]:
    """The distinct words as their plain encoding, the word at each place, and where each text's places start."""
    numbers: dict[tuple[int, ...], int] = {}
    occurrences: list[int] = []
    text_starts = [0]
    for first in range(0, len(texts), _TEXTS_AT_ONCE):
        for ids, word_ids in tokenizer.encode_words(texts[first : first + _TEXTS_AT_ONCE]):
            start = 0
            for end in range(1, len(ids) + 1):
                if end == len(ids) or word_ids[end] != word_ids[start]:
                    occurrences.append(numbers.setdefault(tuple(ids[start:end]), len(numbers)))
                    start = end
            text_starts.append(len(occurrences))
    words = [list(word) for word in numbers]
    return words, np.array(occurrences, np.int32), np.array(text_starts, np.int64)


def _symbols(tokenizer: Tokenizer, word: Sequence[int]) -> list[int]:
    """What the merges of a word start from: its characters, or bytes where those are not in the vocabulary."""
    symbols: list[int] = []
    for token_id, piece in zip(word, tokenizer.pieces(word), strict=True):
        characters = [tokenizer.token_to_id(character) for character in piece]
        whole = token_id == tokenizer.unk_id or tokenizer.is_byte(token_id)
        symbols.extend([token_id] if whole else [number for number in characters if number is not None])
    return symbols


def _fill_pools(
    pools: list[list[list[int]]],
    symbols: list[list[int]],
    sizes: np.ndarray,
    words: np.ndarray,
    merges: _Merges,
    dropout: float,
    rng: np.random.Generator,
) -> None:
    """Draw the pools of words that all have the same number of symbols."""
    copies = np.repeat(words, sizes[words])
    n_at_once = max(1, _SYMBOLS_AT_ONCE // len(symbols[words[0]]))
    for first in range(0, len(copies), n_at_once):
        chunk = copies[first : first + n_at_once]
        drawn = _merge([symbols[word] for word in chunk], merges, dropout, rng)
        for word, segment in zip(chunk, drawn, strict=True):
            pools[word].append(segment)


def _merge(rows: list[list[int]], merges: _Merges, dropout: float, rng: np.random.Generator) -> list[list[int]]:
    """Segment many rows of equal length at once.

    Each round makes one merge in every row that still has one, so all rows left have equally many symbols. As in the
    paper, every pair is dropped anew in every round, and the most wanted of the others is merged, leftmost first.
    """
    done: list[list[int]] = [[] for _ in rows]
    symbols_NS, row_N = np.array(rows, np.int32), np.arange(len(rows))
    while len(row_N):
        ranks_NP = merges.ranks_of(symbols_NS[:, :-1], symbols_NS[:, 1:])
        ranks_NP[rng.random(ranks_NP.shape) < dropout] = _NEVER
        # A last column that never merges: a row of one symbol has a best pair, too.
        ranks_NP = np.pad(ranks_NP, ((0, 0), (0, 1)), constant_values=_NEVER)
        place_N = ranks_NP.argmin(axis=1)
        rank_N = ranks_NP[np.arange(len(row_N)), place_N]
        go_N = rank_N != _NEVER
        for row, segment in zip(row_N[~go_N], symbols_NS[~go_N].tolist(), strict=True):
            done[row] = segment
        symbols_NS, row_N, place_N, rank_N = symbols_NS[go_N], row_N[go_N], place_N[go_N], rank_N[go_N]
        column_S = np.arange(symbols_NS.shape[1] - 1)
        symbols_NS = np.take_along_axis(symbols_NS, column_S + (column_S > place_N[:, None]), 1)
        symbols_NS[np.arange(len(row_N)), place_N] = merges.merged[rank_N]
    return done
