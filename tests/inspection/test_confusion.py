"""The picture of a confusion matrix, for any number and any names of classes."""

import warnings

import numpy as np
import pytest
from PIL import Image

from tripel.inspection.confusion import save_confusion
from tripel.tasks.classification import score_classification


def scores_of(confusion, labels=None):
    """Scores of examples that give a confusion matrix."""
    confusion = np.asarray(confusion)
    n = len(confusion)
    true, said = (np.repeat(side, confusion.ravel()) for side in np.divmod(np.arange(n * n), n))
    return score_classification(np.eye(n)[said], true, labels or [f"class {i}" for i in range(n)])


def cells_of(path, n):
    """The colour in a corner of every cell, where no number stands; cells are the largest square of even columns."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    coloured = (pixels.max(-1) - pixels.min(-1)) > 60
    rows, columns = np.flatnonzero(coloured.any(1)), np.flatnonzero(coloured.any(0))
    top, left, side = rows[0], columns[0], (rows[-1] + 1 - rows[0]) / n
    at = ((np.arange(n) + 0.12) * side).astype(int)
    return pixels[top + at][:, left + at]


def test_what_is_right_is_blue_what_is_wrong_is_orange_and_what_never_happened_is_white(tmp_path):
    confusion = np.array([[90, 30, 0], [0, 50, 50], [40, 0, 80]])
    save_confusion(scores_of(confusion), tmp_path / "a.png")
    cells = cells_of(tmp_path / "a.png", 3)
    for row in range(3):
        for column in range(3):
            red, _, blue = cells[row, column]
            if confusion[row, column] == 0:
                assert red == blue == 255
            else:
                assert (blue > red) == (row == column) and abs(blue - red) > 40, (row, column)


def test_a_rare_class_is_shaded_by_its_own_share(tmp_path):
    save_confusion(scores_of([[900, 100], [1, 9]]), tmp_path / "a.png")
    cells = cells_of(tmp_path / "a.png", 2)
    assert abs(cells[0, 0] - cells[1, 1]).max() <= 2 and abs(cells[0, 1] - cells[1, 0]).max() <= 2


@pytest.mark.parametrize("n", [2, 6, 13, 50, 120])
def test_a_picture_has_a_size_that_can_be_looked_at_whatever_the_number_of_classes(tmp_path, n):
    rng = np.random.default_rng(n)
    save_confusion(scores_of(rng.integers(0, 4, (n, n)) + 20 * np.eye(n, dtype=int)), tmp_path / "a.png")
    width, height = Image.open(tmp_path / "a.png").size
    assert 300 < width < 4500 and 300 < height < 4500


def test_names_that_are_long_or_foreign_or_look_like_formulas_are_drawn_without_a_warning(tmp_path):
    labels = ["$x_1^2$ and $", "日本", "w" * 300, "\\frac", "5"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_confusion(scores_of(np.eye(5, dtype=int) * 3, labels), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size[0] < 2000


def test_a_class_without_examples_has_an_empty_row(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_confusion(scores_of([[3, 1, 0], [0, 0, 0], [0, 1, 4]]), tmp_path / "a.png")
    cells = cells_of(tmp_path / "a.png", 3)
    assert (cells[1] == 255).all()
