"""Names in pictures: what the font has, and what fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

_SHOWN_CHARACTERS = 24


def drawable(labels: Sequence[str]) -> list[str]:
    """Labels cut to a length that can be drawn; `class N` for one in letters that the font of pictures has not."""
    return [
        f"class {number}"
        if not in_font(label)
        else (label if len(label) <= _SHOWN_CHARACTERS else f"{label[: _SHOWN_CHARACTERS - 1]}…")
        for number, label in enumerate(labels, start=1)
    ]


def in_font(text: str) -> bool:
    """Whether all letters can be drawn."""
    return all(ord(letter) in _glyphs() for letter in text)


def percent(share: float) -> str:
    """In whole numbers, of which 0 and 100 mean exactly that."""
    if 0 < share <= 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def shortened(text: str, width: float, measure: Callable[[str], float], *, keep_end: bool = False) -> str:
    """The text if it is no wider than width, else as much of its beginning (or end) as is, and an ellipsis."""
    if measure(text) <= width:
        return text
    cut, n = text, len(text)
    while n > 1 and measure(cut) > width:
        n -= 1
        cut = f"…{text[-n:]}" if keep_end else f"{text[:n].rstrip()}…"
    return cut


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font  # slow to import

    return frozenset(get_font(findfont(FontProperties())).get_charmap())
