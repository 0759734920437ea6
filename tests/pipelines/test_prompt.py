"""The prompt: a typed line, an answer; nothing typed can break it."""

import io

import pytest
from rich.console import Console

from tripel.errors import InputError
from tripel.pipelines import prompt


class Echo:
    """A translator that says what it was asked, in upper case."""

    def __init__(self):
        self.settings = []

    def stream(self, text, **settings):
        if settings.get("beam", 1) < 1:
            raise InputError("beam")
        self.settings.append(settings)
        if text == "bad":
            raise InputError("this cannot be translated")
        return iter(text.upper().replace(" ", "| ").split("|"))


@pytest.fixture
def typed(monkeypatch):
    """Runs a conversation in which these lines are typed: what went to out, and to the person."""

    def run(*lines, **settings):
        waiting = iter(lines)

        def read(shown=""):
            line = next(waiting, EOFError)
            if line in (EOFError, KeyboardInterrupt):
                raise line
            return line

        monkeypatch.setattr("builtins.input", read)
        out, console, echo = io.StringIO(), Console(file=io.StringIO(), width=80), Echo()
        prompt.converse(echo, out, console=console, settings=settings)
        return out.getvalue(), console.file.getvalue(), echo

    return run


def test_each_line_gets_its_answer_and_an_empty_one_none(typed):
    out, told, echo = typed("a dog", "", "  ", "two cats")
    assert out == "A DOG\nTWO CATS\n"
    assert "Ctrl-D ends" in told and "DOG" not in told
    assert all(settings["beam"] == 1 for settings in echo.settings)


def test_the_prompt_stays_away_from_a_file_that_takes_the_answers(typed):
    assert typed("a")[1].count("> ") == 2


def test_settings_choose_the_search(typed):
    assert typed("a", beam=4)[2].settings[-1]["beam"] == 4


def test_ctrl_c_ends_the_conversation(typed):
    assert typed("a", KeyboardInterrupt, "b")[0] == "A\n"


def test_a_line_that_cannot_be_translated_is_told_and_the_next_one_works(typed):
    out, told, _ = typed("bad", "good")
    assert out == "\nGOOD\n" and "this cannot be translated" in told


def test_ctrl_c_ends_an_answer_but_not_the_conversation(typed, monkeypatch):
    def interrupted(self, text, **settings):
        def words():
            yield "first"
            if text == "long":
                raise KeyboardInterrupt

        return words()

    monkeypatch.setattr(Echo, "stream", interrupted)
    assert typed("long", "short")[0] == "first\nfirst\n"


def test_wrong_settings_are_told_before_anything_is_typed(typed):
    with pytest.raises(InputError, match="beam"):
        typed("a", beam=0)


@pytest.mark.parametrize(
    ("texts", "file", "terminal", "expected"),
    [(None, None, True, True), (["x"], None, True, False), (None, "f", True, False), (None, None, False, False)],
)
def test_it_opens_for_a_person_who_has_given_nothing(texts, file, terminal, expected, monkeypatch):
    class Stdin(io.StringIO):
        def isatty(self):
            return terminal

    monkeypatch.setattr("sys.stdin", Stdin())
    assert prompt.wanted(texts, file) is expected
