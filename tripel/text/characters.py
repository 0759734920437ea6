"""Encoding by table for tokenizers that know single characters or bytes only: what they give, many times as fast."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from tokenizers import normalizers

# Among these characters alone no two compose and none decomposes, so that NFC leaves every such text as it is: Latin
# letters, Cyrillic, general punctuation, currency, CJK marks, kana without their voicing marks, and ideographs.
_NFC_MAY_CHANGE = re.compile(
    "[^\x00-\u02ff\u0400-\u0482\u2002-\u206f\u20a0-\u20bf\u3000-\u3029\u3030-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff01-\uff5e]"
)


class CharacterTable:
    """Text to ids without merges. Agrees with the tokenizer's own encoding on every text.

    steps: the names of its Unicode normalizer's steps. of_bytes: ids are of bytes, not of characters. ids: by what the
    table is looked up for: character, or byte as a number. unknown: the id of a character that is not in it.
    """

    def __init__(self, steps: Sequence[str], ids: Mapping[int, int], *, of_bytes: bool, unknown: int) -> None:
        self._normalizer = normalizers.Sequence([getattr(normalizers, step)() for step in steps])
        self._only_nfc, self._of_bytes = set(steps) <= {"NFC"}, of_bytes
        # The last entry stands for every character beyond the table.
        self._table = np.full(max(ids, default=0) + 2, unknown, np.int32)
        self._table[list(ids)] = list(ids.values())

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, int32."""
        if not self._only_nfc or _NFC_MAY_CHANGE.search(text):
            text = self._normalizer.normalize_str(text)
        if self._of_bytes:
            return self._table[np.frombuffer(text.encode("utf-8"), np.uint8)]
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        return self._table[np.minimum(points, len(self._table) - 1)]
