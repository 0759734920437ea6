"""The sheet of an image classifier's surest mistakes."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tripel.inspection.lettering import percent, shortened
from tripel.inspection.mistakes import MOST_SHOWN, Mistake, save_mistakes, surest_mistakes

LABELS = ("ant", "bee", "cat")


def mistakes_of(pictures, said=0, true=1, place="a.png"):
    return [Mistake(place, pixels, said, 0.9, true, 0.05) for pixels in pictures]


def sheet_of(tmp_path, pictures, labels=LABELS, **about):
    about = {"data": "set/test", "n_wrong": len(pictures), "n_pictures": 500, **about}
    save_mistakes(mistakes_of(pictures), labels, tmp_path / "a.png", **about)
    return np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0.4, 1.0)), max_size=60), st.integers(0, 50))
def test_the_surest_mistakes_are_the_wrong_ones_by_falling_certainty(rows, most):
    probabilities = np.array([[p if c == said else (1 - p) / 2 for c in range(3)] for _, said, p in rows])
    true = np.array([t for t, _, _ in rows], int)
    found = surest_mistakes(probabilities.reshape(-1, 3), true, most).tolist()
    wrong = [i for i, (t, said, _) in enumerate(rows) if t != said]
    assert found == sorted(wrong, key=lambda i: -rows[i][2])[:most]


@pytest.mark.parametrize(
    ("channels", "size", "side"), [(1, 28, 140), (3, 32, 128), (3, 224, 224), (1, 1, 128), (1, 96, 192)]
)
def test_every_pixel_of_a_small_picture_is_a_square_of_the_sheet(tmp_path, channels, size, side):
    pictures = np.random.default_rng(1).integers(0, 256, (3, channels, size, size), dtype=np.uint8)
    sheet = sheet_of(tmp_path, list(pictures))
    for number, pixels in enumerate(pictures):
        colours = np.broadcast_to(pixels, (3, size, size)).transpose(1, 2, 0)
        large = colours.repeat(side // size, axis=0).repeat(side // size, axis=1)
        left = 26 + number * (side + 22)
        np.testing.assert_array_equal(sheet[76 : 76 + side, left : left + side], large)


def test_large_pictures_are_made_smaller(tmp_path):
    pictures = [np.full((3, 600, 600), 120, np.uint8)] * 40
    assert max(sheet_of(tmp_path, pictures).shape) < 2100


@pytest.mark.parametrize("n", [0, 1, 8, 9, MOST_SHOWN])
def test_a_sheet_has_room_for_any_number_of_mistakes(tmp_path, n):
    sheet = sheet_of(tmp_path, [np.full((1, 28, 28), 77, np.uint8)] * n, n_wrong=n)
    height, width, _ = sheet.shape
    assert width > 400 and (sheet[:, -20:] == 255).all() and (sheet[-20:] == 255).all()
    assert (sheet == 77).all(axis=2).sum() == n * 140 * 140
    assert height == 80 + -(-n // 8) * (140 + 51 + 22)


def test_names_that_are_long_or_foreign_or_look_like_formulas_are_drawn_without_a_warning(tmp_path):
    pixels = np.zeros((1, 28, 28), np.uint8)
    labels = ["$x_1^2$ and $", "日本", "w" * 300, "\\frac"]
    places = ["x" * 300, "日本.png", "$a$.png", "caf\udce9.png"]
    shown = [Mistake(place, pixels, number, 0.9, 3 - number, 0.0) for number, place in enumerate(places)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_mistakes(shown, labels, tmp_path / "a.png", data="日本", n_wrong=9, n_pictures=10)
    assert Image.open(tmp_path / "a.png").size[0] < 2000


def test_what_is_said_is_orange_and_what_is_true_blue(tmp_path):
    sheet = sheet_of(tmp_path, [np.zeros((1, 28, 28), np.uint8)]).astype(int)
    said, true = (sheet[top : top + 15, 26:166] for top in (76 + 140 + 4, 76 + 140 + 4 + 17))
    for band, (more, less) in ((said, (0, 2)), (true, (2, 0))):
        written = band[band.min(axis=2) < 120]
        assert len(written) > 30 and (written[:, more] > written[:, less]).all()


@given(st.text(max_size=30), st.floats(0, 40), st.booleans())
def test_a_shortened_text_fits_and_is_whole_if_that_fits(text, width, keep_end):
    found = shortened(text, width, len, keep_end=keep_end)
    assert found == text if len(text) <= width else len(found) <= max(width, 2)
    if found != text:
        assert (text.endswith(found[1:]) and found[0] == "…") if keep_end else text.startswith(found[:-1])


def test_a_percentage_of_0_or_100_means_exactly_that():
    shares = {0.0: "0%", 1e-9: "<1%", 0.00501: "1%", 0.5: "50%", 0.994: "99%", 0.9999: ">99%", 1.0: "100%"}
    assert {share: percent(share) for share in shares} == shares
