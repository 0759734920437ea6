"""Words as points in the plane, near where their vectors are near."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tripel.errors import InputError
from tripel.storage import atomic_write

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""

_MOST_WORDS = 500
_INK, _LINE, _POINT = "#1a1a2e", "#b8bccb", "#3b6fb6"
# Where a label may stand around its point, nearest first: distances in points, then directions in eighths of a turn.
_DISTANCES, _EIGHTHS = (6, 12, 20, 30, 44, 60, 80, 105, 135), (0, 4, 1, 7, 3, 5, 2, 6)


@dataclass(frozen=True)
class WordMap:
    """points: [words, 2] of the two directions in which the words' vectors differ most; shares: of their variance that each
    of the two shows."""

    words: tuple[str, ...]
    points: np.ndarray
    shares: tuple[float, float]

    def to_json(self) -> str:
        """Words with coordinates, and the shares of variance."""
        points = [
            {"word": word, "x": round(float(x), 5), "y": round(float(y), 5)}
            for word, (x, y) in zip(self.words, self.points, strict=True)
        ]
        return json.dumps({"points": points, "variance_shares": list(self.shares)}, ensure_ascii=False)

    def save(self, path: str | Path) -> None:
        """Write the picture as a PNG, whole or not at all."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and no window is wanted
        from matplotlib.figure import Figure

        side = 6.0 + min(len(self.words), 200) / 25
        figure = Figure(figsize=(side * 1.25, side), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.scatter(self.points[:, 0], self.points[:, 1], s=18, color=_POINT, linewidths=0, zorder=3)
        axes.margins(0.12)
        axes.set_xlabel(f"first direction, {self.shares[0]:.0%} of the variance", color=_INK)
        axes.set_ylabel(f"second direction, {self.shares[1]:.0%}", color=_INK)
        axes.tick_params(colors=_LINE, labelcolor=_INK)
        for spine in axes.spines.values():
            spine.set_color(_LINE)
        figure.canvas.draw()  # the layout decides where points are, which labels must know
        figure.set_layout_engine("none")
        _label(axes, self.words, self.points)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=130)
        atomic_write(Path(path), picture.getvalue())


def word_map(words: Sequence[str], vectors: np.ndarray) -> WordMap:
    """The words' vectors [words, D] on their first two principal components (Pearson 1901); signs are fixed so that a map is
    always drawn the same way round. Raises InputError for fewer than three words or too many."""
    if not 3 <= len(words) <= _MOST_WORDS:
        raise InputError(
            "a map needs more words" if len(words) < 3 else "a map of so many words cannot be read",
            given=f"{len(words)} words",
            expected=f"3 to {_MOST_WORDS}",
            mend="name the words, or put them in a file, one a line, and use --input",
        )
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :2] * lengths[:2]
    points *= np.where(points[np.abs(points).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    total = float((lengths**2).sum()) or 1.0
    return WordMap(tuple(words), points, (float(lengths[0] ** 2) / total, float(lengths[1] ** 2) / total))


def _label(axes: Any, words: Sequence[str], points: np.ndarray) -> list[Box]:
    """A label near each point where none stands yet, with a thin line to its point when it had to move away: the labels'
    boxes, in the order in which they were set."""
    figure = axes.figure
    renderer, scale = figure.canvas.get_renderer(), figure.dpi / 72
    size = 9.5 if len(words) <= 60 else 8.0
    at = axes.transData.transform(points)
    frame = axes.get_window_extent()
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    for number in np.lexsort((at[:, 1], at[:, 0])).tolist():
        style = {"fontsize": size, "color": _INK, "verticalalignment": "bottom", "annotation_clip": False, "zorder": 4}
        text = axes.annotate(words[number], points[number], **style)
        extent = text.get_window_extent(renderer)
        box, distance = _place(at[number], (extent.width, extent.height), scale, taken, frame)
        text.set_position(axes.transData.inverted().transform(box[:2]))
        taken.append(box)
        if distance > _DISTANCES[0]:
            nearest = np.clip(at[number], box[:2], box[2:])
            axes.plot(
                *axes.transData.inverted().transform([at[number], nearest]).T, color=_LINE, linewidth=0.8, zorder=1
            )
    return taken[len(points) :]


def _place(
    at: np.ndarray, size: tuple[float, float], scale: float, taken: Sequence[Box], frame: Any
) -> tuple[Box, float]:
    """The box of a label around its point, the nearest that covers nothing, or else least; and its distance in points."""
    width, height = size
    best, best_distance, least = (0.0, 0.0, 0.0, 0.0), 0.0, np.inf
    for distance in _DISTANCES:
        for eighth in _EIGHTHS:
            dx, dy = np.cos(eighth * np.pi / 4), np.sin(eighth * np.pi / 4)
            x = at[0] + dx * distance * scale - width * (1 - dx) / 2
            y = at[1] + dy * distance * scale - height * (1 - dy) / 2
            box = (float(x), float(y), float(x + width), float(y + height))
            cost = sum(_overlap(box, other) for other in taken) + (0 if _inside(box, frame) else width * height)
            if cost < least:
                best, best_distance, least = box, float(distance), cost
        if least == 0:
            break
    return best, best_distance


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _inside(box: Box, frame: Any) -> bool:
    return bool(box[0] >= frame.x0 and box[1] >= frame.y0 and box[2] <= frame.x1 and box[3] <= frame.y1)
