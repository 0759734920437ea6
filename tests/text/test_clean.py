import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripel.text import clean, normalize


@pytest.mark.parametrize("control", ["\x00", "\x07", "\x1b", "\r", "\x7f", "\x85", "\u2028", "\u2029", "\x0b", "\x0c"])
def test_a_control_character_or_separator_becomes_one_space_and_is_counted(control):
    cleaned = clean(f"a{control}b")
    assert (cleaned.text, cleaned.n_controls, cleaned.n_invisible) == ("a b", 1, 0)


@pytest.mark.parametrize("invisible", ["\ufeff", "\u200b", "\u2060", "\u00ad"])
def test_an_invisible_mark_is_removed_and_counted(invisible):
    cleaned = clean(f"{invisible}a{invisible}b")
    assert (cleaned.text, cleaned.n_controls, cleaned.n_invisible) == ("ab", 0, 2)


def test_tabs_newlines_and_joiners_of_emoji_stay():
    text = "a\tb\nc 👩\u200d👩\u200d👧"
    assert clean(text).text == text


def test_normalization_is_nfc_unless_told_otherwise():
    assert clean("e\u0301 ﬁ").text == "é ﬁ"
    assert clean("e\u0301 ﬁ", normalization="nfkc").text == "é fi"
    assert clean("e\u0301 ﬁ", normalization="none").text == "e\u0301 ﬁ"
    assert clean("ÄÉ", lowercase=True).text == "äé"


@given(st.text())
def test_cleaning_twice_is_cleaning_once_and_leaves_no_control_characters(text):
    cleaned = clean(text).text
    assert clean(cleaned).text == cleaned
    assert not [c for c in cleaned if unicodedata.category(c) == "Cc" and c not in "\t\n"]
    assert normalize(cleaned) == cleaned
