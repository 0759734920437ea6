"""The confusion matrix as a picture: rows are the true classes, columns what the model said."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from tripel.storage import atomic_write
from tripel.tasks.classification import ClassificationScores

# Beyond this many classes cells have no room for numbers.
_MOST_NUMBERED = 25


def save_confusion(scores: ClassificationScores, path: str | Path) -> None:
    """Write the picture as a PNG, whole or not at all. Shades are shares of a row, so that rare classes are seen, too."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and no window is wanted
    from matplotlib.figure import Figure

    labels = [score.label for score in scores.classes]
    counts = scores.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(1.6 + 0.75 * len(labels), 4.2, 22.0))
    figure = Figure(figsize=(side + 1.4, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    ticks = range(len(labels))
    longest = max(map(len, labels))
    axes.set_xticks(
        ticks,
        labels,
        rotation=45 if longest > 4 and len(labels) > 3 else 0,
        ha="right" if longest > 4 and len(labels) > 3 else "center",
    )
    axes.set_yticks(ticks, labels)
    axes.set_xlabel("said")
    axes.set_ylabel("true")
    axes.set_title(
        f"accuracy {scores.accuracy:.1%}, macro-F1 {scores.macro_f1:.3f}, {scores.n_examples:,} examples", fontsize=10
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(labels) <= _MOST_NUMBERED:
        for row in ticks:
            for column in ticks:
                colour = "white" if shares[row, column] > 0.55 else "#1a1a2e"
                axes.text(
                    column, row - 0.1, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=9
                )
                axes.text(
                    column, row + 0.22, f"{shares[row, column]:.0%}", ha="center", va="center", color=colour, fontsize=7
                )
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    atomic_write(Path(path), picture.getvalue())
