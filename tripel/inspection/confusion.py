"""The confusion matrix as a picture: rows are the true classes, columns what the model said."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from tripel.inspection.lettering import drawable, percent
from tripel.storage import atomic_write
from tripel.tasks.classification import ClassificationScores

# What is right lies on the diagonal and is blue, what is wrong is orange: told apart by people who do not see red or green.
_RIGHT, _WRONG = (0.09, 0.34, 0.60), (0.86, 0.43, 0.05)
_INK, _GREY = "#1a1a2e", "#5c6070"
_WITH_SHARES = 12  # up to so many classes a cell has room for the share under the number
_MOST_INCHES = 20.0
_LEAST_NUMBERED, _LEAST_LABELLED = 0.26, 0.13  # inches of a cell that has room for a number, for a label beside it
_WIDTH_OF_LETTER = 0.0095  # inches, for a point of its size
_DPI = 110


def save_confusion(scores: ClassificationScores, path: str | Path) -> None:
    """Write the picture as a PNG, whole or not at all.

    A cell has the number of examples and, up to 12 classes, their share of the true class. Its shade is the square root of
    that share, so that rare mistakes are seen, and in rare classes too.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and no window is wanted
    from matplotlib.figure import Figure

    n_classes = len(scores.classes)
    cell = min(_cell_inches(n_classes), _MOST_INCHES / n_classes)
    figure = Figure(figsize=(cell * n_classes, cell * n_classes))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))  # the labels are outside: the picture is cut to what is drawn
    shares = scores.confusion / np.maximum(scores.confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(_colours(shares), aspect="equal", interpolation="nearest")
    if cell >= _LEAST_NUMBERED:
        _write_numbers(axes, scores.confusion, shares, cell)
    _write_labels(axes, scores, cell)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.2)
    atomic_write(Path(path), picture.getvalue())


def _cell_inches(n_classes: int) -> float:
    if n_classes <= _WITH_SHARES:
        return max(0.66, 2.6 / n_classes)
    return 0.48 if n_classes <= 2 * _WITH_SHARES else 0.36


def _colours(shares: np.ndarray) -> np.ndarray:
    """White to the diagonal's colour, or to the others', uint8 [C, C, 3]."""
    full = np.where(np.eye(len(shares), dtype=bool)[:, :, None], _RIGHT, _WRONG)
    return np.rint(255 * (1.0 - (1.0 - full) * np.sqrt(shares)[:, :, None])).astype(np.uint8)


def _write_numbers(axes: Any, counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    with_shares = len(counts) <= _WITH_SHARES
    size = 10.0 if with_shares else 7.5 if len(counts) <= 2 * _WITH_SHARES else 6.5
    for row, column in zip(*counts.nonzero(), strict=True):
        count, share = int(counts[row, column]), float(shares[row, column])
        # The contrast of black and of white on these colours is equal near these shades.
        colour = "white" if math.sqrt(share) > (0.62 if row == column else 0.9) else _INK
        text = f"{count:,}" if count < 10_000 or with_shares else f"{count / 1000:.0f}k"
        style = {"ha": "center", "va": "center", "color": colour, "in_layout": False}
        axes.text(column, row - (0.08 / cell if with_shares else 0.0), text, fontsize=size, **style)
        if with_shares:
            axes.text(column, row + 0.13 / cell, percent(share), fontsize=7.5, **style)


def _write_labels(axes: Any, scores: ClassificationScores, cell: float) -> None:
    """Names of classes left and above, every so many of them, those on the left with their numbers of examples."""
    labels = drawable([score.label for score in scores.classes])
    ticks, size = range(0, len(labels), math.ceil(_LEAST_LABELLED / cell)), 10 if len(labels) <= _WITH_SHARES else 8
    rows = [f"{labels[tick]}  ({scores.classes[tick].n_examples:,})" for tick in ticks]
    style = {"fontsize": size, "color": _INK, "parse_math": False}
    axes.set_yticks(ticks, rows, **style)
    slanted = max(map(len, labels)) * size * _WIDTH_OF_LETTER > cell
    slant = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(ticks, [labels[tick] for tick in ticks], **style, **slant)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#d9dce5", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("true class (examples)", color=_GREY, labelpad=8)
    axes.set_xlabel(
        f"said by the model\n\naccuracy {scores.accuracy:.1%}, macro-F1 {scores.macro_f1:.3f}, "
        f"{scores.n_examples:,} examples\nblue: right, orange: wrong; shades by share of the true class",
        color=_GREY,
        fontsize=9,
        labelpad=8,
    )
