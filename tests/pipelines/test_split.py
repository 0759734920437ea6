import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripel.pipelines.split import Piece, lines, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('He said "No." Then left.', ['He said "No."', "Then left."]),
        ("It costs 3.50 at example.com today.", ["It costs 3.50 at example.com today."]),
        ("Wait... what?! (Really.) Yes…  no", ["Wait...", "what?!", "(Really.)", "Yes…", "no"]),
        ("第一。第二！第三", ["第一。", "第二！", "第三"]),
        ("no end", ["no end"]),
        ("", [""]),
    ],
)
def test_a_line_is_cut_after_its_sentence_punctuation(text, expected):
    assert [piece.text for piece in sentences(Piece(text, ""))] == expected


@given(st.text(alphabet="ab .!?…。”)\t"))
def test_the_pieces_and_gaps_of_a_line_join_to_the_line(text):
    pieces = sentences(Piece(text, "\n"))
    assert "".join(piece.text + piece.gap for piece in pieces) == text + "\n"


@given(st.text(alphabet="ab \n"))
def test_the_lines_of_a_text_are_stripped_and_keep_their_line_ends(text):
    pieces = lines(text)
    assert "".join(piece.text + piece.gap for piece in pieces) == "\n".join(line.strip() for line in text.split("\n"))


@pytest.mark.parametrize("unit", [".", "a", "a. ", '."', "。", " ", ". "])
def test_splitting_a_megabyte_is_linear(unit):
    """A quadratic expression would need hours."""
    text = unit * (1_000_000 // len(unit))
    assert sum(len(piece.text) + len(piece.gap) for piece in sentences(Piece(text, ""))) == len(text)
