"""The mistakes that an image classifier was surest of, as one picture: what it says, what is true, and what it saw.

Among them are wrong labels, pictures that cannot be told, and what the model has not understood.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tripel.inspection.lettering import drawable, in_font, percent, shortened
from tripel.storage import atomic_write

MOST_SHOWN = 40

_COLUMNS, _LEAST_COLUMNS = 8, 4
_LEAST_SIDE, _MOST_SIDE = 128, 224  # pixels of the sheet that a picture is wide
_GAP, _MARGIN, _HEAD, _LINE = 22, 26, 76, 17  # pixels between pictures, around, of the title, of a line under a picture
_DPI = 110
_SAID, _TRUE, _INK, _GREY = "#b3560a", "#17579a", "#1a1a2e", "#5c6070"  # as of the confusion matrix
_FRAME = 205


@dataclass(frozen=True)
class Mistake:
    """A picture taken for another class. place: where it was read. pixels: uint8 [channels, side, side], what the model saw.
    said, true: numbers of classes, with the probability that the model gave each."""

    place: str
    pixels: np.ndarray
    said: int
    p_said: float
    true: int
    p_true: float


def surest_mistakes(probabilities_NC: np.ndarray, classes_N: np.ndarray, most: int = MOST_SHOWN) -> np.ndarray:
    """The numbers of the examples that were given another class than theirs, surest first, int64 [at most `most`]."""
    wrong_M = np.flatnonzero(probabilities_NC.argmax(axis=1) != classes_N)
    sure_M = probabilities_NC[wrong_M].max(axis=1) if len(wrong_M) else np.zeros(0)
    return wrong_M[np.argsort(-sure_M, kind="stable")[:most]]  # type: ignore[no-any-return]


def save_mistakes(
    mistakes: Sequence[Mistake], labels: Sequence[str], path: str | Path, *, data: str, n_wrong: int, n_pictures: int
) -> None:
    """Write mistakes, in the order given, as a PNG, whole or not at all. Small pictures are enlarged so that each of their
    pixels is a square. data: the set's name; n_wrong of its n_pictures were taken for another class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and no window is wanted
    from matplotlib.figure import Figure

    sheet = _Sheet(len(mistakes), mistakes[0].pixels.shape[-1] if mistakes else _LEAST_SIDE)
    figure = Figure(figsize=(sheet.width / _DPI, sheet.height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    figure.figimage(sheet.painted([mistake.pixels for mistake in mistakes]), resize=False)
    writer = _Writer(figure, canvas.get_renderer(), sheet)
    writer.title(data, len(mistakes), n_wrong, n_pictures)
    names = drawable(labels)
    for number, mistake in enumerate(mistakes):
        writer.caption(number, mistake, names[mistake.said], names[mistake.true])
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI)
    atomic_write(Path(path), picture.getvalue())


class _Sheet:
    """Where everything is, in pixels from the upper left corner."""

    def __init__(self, n_pictures: int, size: int) -> None:
        self.enlarged = max(1, math.ceil(_LEAST_SIDE / size))
        self.side = min(size * self.enlarged, _MOST_SIDE)
        self.n_columns = min(_COLUMNS, max(n_pictures, _LEAST_COLUMNS))
        self.row_height = self.side + 3 * _LINE + _GAP
        self.width = 2 * _MARGIN + self.n_columns * (self.side + _GAP) - _GAP
        self.height = _HEAD + math.ceil(n_pictures / self.n_columns) * self.row_height + (_MARGIN - _GAP)

    def corner(self, number: int) -> tuple[int, int]:
        """The upper left corner of a picture, x and y."""
        row, column = divmod(number, self.n_columns)
        return _MARGIN + column * (self.side + _GAP), _HEAD + row * self.row_height

    def painted(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """The sheet with its pictures, each in a thin frame, uint8 [height, width, 3]."""
        canvas = np.full((self.height, self.width, 3), 255, np.uint8)
        for number, pixels in enumerate(pictures):
            x, y = self.corner(number)
            canvas[y - 1 : y + self.side + 1, x - 1 : x + self.side + 1] = _FRAME
            canvas[y : y + self.side, x : x + self.side] = self._brought(pixels)
        return canvas

    def _brought(self, pixels: np.ndarray) -> np.ndarray:
        colours = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
        large = colours.repeat(self.enlarged, axis=0).repeat(self.enlarged, axis=1)
        if len(large) == self.side:
            return large
        return np.asarray(Image.fromarray(large).resize((self.side, self.side), Image.Resampling.LANCZOS))


class _Writer:
    """Writes on a figure that is a sheet."""

    def __init__(self, figure: Any, renderer: Any, sheet: _Sheet) -> None:
        self._figure, self._renderer, self._sheet = figure, renderer, sheet

    def title(self, data: str, n_shown: int, n_wrong: int, n_pictures: int) -> None:
        """What the sheet shows."""
        wrong = f"{n_wrong:,} of {n_pictures:,} pictures ({n_wrong / max(n_pictures, 1):.1%})"
        head = f"{wrong if n_wrong else f'none of {n_pictures:,} pictures'} taken for another class"
        shown = (
            f"the {n_shown:,} of them that the model was surest of, surest first"
            if n_shown < n_wrong
            else "surest first"
        )
        room = self._sheet.width - 2 * _MARGIN
        self._write(_MARGIN, 18, head, 12, _INK, room)
        under = f"{data}: {shown}; in orange what it says, in blue what is true" if n_shown else data
        self._write(_MARGIN, 44, under if in_font(under) else shown, 8.5, _GREY, room)

    def caption(self, number: int, mistake: Mistake, said: str, true: str) -> None:
        """Under a picture: what it was said to be, what it is, and where it is found."""
        x, y = self._sheet.corner(number)
        y += self._sheet.side + 4
        self._pair(x, y, "said ", said, mistake.p_said, _SAID)
        self._pair(x, y + _LINE, "is ", true, mistake.p_true, _TRUE)
        name = Path(mistake.place).name
        if in_font(name):
            self._write(x, y + 2 * _LINE, name, 6, _GREY, self._sheet.side, keep_end=True)

    def _pair(self, x: float, y: float, verb: str, label: str, share: float, colour: str) -> None:
        size, after = 8.0, f"  {percent(share)}"
        measure = self._measure(size)
        room = self._sheet.side - measure(verb) - measure(after)
        self._write(x, y, f"{verb}{shortened(label, room, measure)}{after}", size, colour)

    def _write(
        self, x: float, y: float, text: str, size: float, colour: str, room: float = math.inf, *, keep_end: bool = False
    ) -> None:
        """Text whose upper left corner is at x, y."""
        text = shortened(text, room, self._measure(size), keep_end=keep_end)
        place = (x / self._sheet.width, 1 - y / self._sheet.height)
        self._figure.text(*place, text, fontsize=size, color=colour, ha="left", va="top", parse_math=False)

    def _measure(self, size: float) -> Callable[[str], float]:
        from matplotlib.font_manager import FontProperties

        font = FontProperties(size=size)
        return lambda text: self._renderer.get_text_width_height_descent(text, font, ismath=False)[0]  # type: ignore[no-any-return]
