"""How one text was cut: its pieces, their ids and the characters each stands for."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Explanation:
    """pieces[i] has the id ids[i] and stands for text[offsets[i][0] : offsets[i][1]]."""

    text: str
    pieces: tuple[str, ...]
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        rows = [("piece", "id", "text")]
        for piece, number, (start, end) in zip(self.pieces, self.ids, self.offsets, strict=True):
            rows.append((_visible(piece), str(number), _visible(repr(self.text[start:end]))))
        piece_width = max(_width(piece) for piece, _, _ in rows)
        id_width = max(len(number) for _, number, _ in rows)
        return "\n".join(
            f"{piece}{' ' * (piece_width - _width(piece))}  {number:>{id_width}}  {text}"
            for piece, number, text in rows
        )

    def to_json(self) -> str:
        """The same as a JSON object with the keys text, pieces, ids, offsets."""
        return json.dumps(asdict(self), ensure_ascii=False)


def _visible(piece: str) -> str:
    """Control characters as escapes, so that a newline does not break the table."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in piece)


def _width(text: str) -> int:
    """Columns a terminal gives the text: wide East Asian characters take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
