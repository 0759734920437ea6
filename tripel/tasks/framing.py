"""Texts as an encoder reads them: between a begin and an end token, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tripel.models.config import Vocabulary


def framed(rows: Sequence[Sequence[int] | np.ndarray], vocabulary: Vocabulary) -> tuple[Tensor, Tensor | None]:
    """(ids_BT, valid_BT): start + ids + end, int64, padded on the right; valid_BT None when nothing is padded."""
    lengths = np.array([len(row) + 2 for row in rows], dtype=np.int64)
    T = int(lengths.max(initial=0))
    table = np.full((len(rows), T), vocabulary.pad_id, dtype=np.int64)
    table[:, :1] = vocabulary.start_id
    for line, row in zip(table, rows, strict=True):
        line[1 : len(row) + 1] = row
        line[len(row) + 1] = vocabulary.eos_id
    valid_BT = None if bool((lengths == T).all()) else torch.from_numpy(np.arange(T) < lengths[:, None])
    return torch.from_numpy(table), valid_BT
