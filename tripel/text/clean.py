"""Cleaning: what every line goes through before it is tokenized, with a count of what was changed.

In this order:
1. a control character (category Cc) other than tab and newline becomes a space;
2. a separator that some programs take for a line end (U+0085, U+2028, U+2029) becomes a space;
3. invisible marks of width zero (zero-width space, word joiner, byte-order mark, soft hyphen) are removed; the
   zero-width joiners U+200C and U+200D stay, since emoji and several scripts are spelled with them;
4. Unicode normalisation: NFC by default;
5. lower case, only if asked for.

A tokenizer applies steps 4 and 5 itself (they are part of tokenizer.json), so its round trip is exact up to them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Normalization = Literal["nfc", "nfkc", "none"]

_TO_SPACE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_TO_NOTHING = re.compile("[\u200b\u2060\ufeff\u00ad]")


@dataclass(frozen=True)
class Cleaned:
    """A cleaned text. n_controls: characters turned into a space; n_invisible: characters removed."""

    text: str
    n_controls: int
    n_invisible: int


def clean(text: str, *, normalization: Normalization = "nfc", lowercase: bool = False) -> Cleaned:
    """Clean one line (without its line end), counting what was replaced and removed. Never fails."""
    n_controls = n_invisible = 0
    if not text.isascii() or not text.isprintable():
        text, n_controls = _TO_SPACE.subn(" ", text)
        text, n_invisible = _TO_NOTHING.subn("", text)
    return Cleaned(normalize(text, normalization=normalization, lowercase=lowercase), n_controls, n_invisible)


def normalize(text: str, *, normalization: Normalization = "nfc", lowercase: bool = False) -> str:
    """Unicode normalisation and lower case alone: what a tokenizer's round trip is exact up to."""
    if normalization != "none" and not text.isascii():
        text = unicodedata.normalize("NFC" if normalization == "nfc" else "NFKC", text)
    return text.lower() if lowercase else text
