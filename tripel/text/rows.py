"""Many sequences of ids in two flat arrays: a corpus of millions of sentences is two objects, not millions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class IdRows:
    """Row i is ids[offsets[i] : offsets[i + 1]]. ids: int32 [total]; offsets: int64 [rows + 1], from 0 to total."""

    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lists(cls, rows: Iterable[list[int]]) -> IdRows:
        """Flatten lists of ids."""
        rows = list(rows)
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.fromiter(itertools.chain.from_iterable(rows), np.int32, int(offsets[-1])), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Ids in each row, int64 [rows]."""
        return np.diff(self.offsets)

    def replaced(self, other: IdRows, where: np.ndarray) -> IdRows:
        """These rows, but those of other where a row's flag is set; bool [rows]."""
        rows = [other[i] if flag else self[i] for i, flag in enumerate(where.tolist())]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.where(where, other.lengths, self.lengths))])
        return IdRows(np.concatenate([np.zeros(0, np.int32), *rows]), offsets)

    def is_sound(self, vocab_size: int) -> bool:
        """Whether arrays read from a file are what they should be: types, offsets in order, ids in the vocabulary."""
        ids, offsets = self.ids, self.offsets
        if ids.dtype != np.int32 or offsets.dtype != np.int64 or ids.ndim != 1 or offsets.ndim != 1 or not len(offsets):
            return False
        ordered = offsets[0] == 0 and offsets[-1] == len(ids) and bool((np.diff(offsets) >= 0).all())
        return ordered and (not len(ids) or bool(ids.min() >= 0 and ids.max() < vocab_size))
