"""Prompts and texts in; continuations and scores out. What `tripel complete` and `tripel score` run.

Prompts given as arguments are answered for reading: the prompt, what follows it, a line end; where there are several
answers, a line of three hyphens between them. Lines are answered for programs: one line for each, with what follows it
alone, in which a line break is written `\\n`, a carriage return `\\r` and a backslash `\\\\`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from tripel.errors import InputError
from tripel.pipelines.complete import Completer, Completion
from tripel.pipelines.files import reading
from tripel.pipelines.settings import changed

LOOKAHEAD = 64
"""Lines read before the first is gone on with."""

_SEPARATOR = "---\n"
_WRITTEN = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})
_MEANT = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


@dataclass(frozen=True)
class Form:
    """How answers are written. json: one object for every prompt; else as text, echo putting the prompt before it."""

    json: bool = False
    echo: bool = False
    stream: bool = True


def complete_texts(
    completer: Completer, prompts: Sequence[str], out: TextIO, *, console: Console, form: Form, settings: dict[str, Any]
) -> None:
    """Go on with prompts given as arguments; a single answer comes word by word. What was cut is told on console."""
    if form.stream and not form.json and len(prompts) == 1 and settings.get("n", completer.decode.n) == 1:
        words = completer.stream(prompts[0], **settings)
        for word in itertools.chain([prompts[0]] if form.echo else [], words, ["\n"]):
            out.write(word)
            out.flush()
        return
    completions = completer.complete(list(prompts), **settings)
    if form.json:
        out.writelines(completion.to_json() + "\n" for completion in completions)
    else:
        answers = [text for completion in completions for text in _texts(completion, form.echo)]
        out.write(_SEPARATOR.join(text + "\n" for text in answers))
    _tell(completions, console)


def complete_lines(
    completer: Completer,
    lines: Iterator[str],
    out: TextIO,
    *,
    console: Console,
    form: Form,
    settings: dict[str, Any],
) -> None:
    """One line of output for every sample of every input line, in order; with json one object a line."""
    changed(completer.decode, settings)  # wrong settings are told before a line is read
    typed = lines is sys.stdin
    prompts = (line.rstrip("\r\n") for line in lines)
    n_read = 0
    while chunk := list(itertools.islice(prompts, 1 if typed else LOOKAHEAD)):
        try:
            completions = completer.complete(chunk, **settings)
        except InputError as error:
            raise _in_lines(error, n_read, len(chunk)) from None
        for completion in completions:
            if form.json:
                out.write(completion.to_json() + "\n")
            else:
                out.writelines(text.translate(_WRITTEN) + "\n" for text in _texts(completion, form.echo))
        if typed:
            out.flush()
        n_read += len(chunk)
        _tell(completions, console)


def score_texts(
    completer: Completer, texts: Sequence[str], out: TextIO, *, console: Console, json: bool, top: int
) -> None:
    """Scores as tables, or one JSON object for every text."""
    shown = Console(file=out, highlight=False)
    for number, score in enumerate(completer.score(list(texts), top=top)):
        if json:
            out.write(score.to_json() + "\n")
            continue
        if number:
            shown.print()
        shown.print(score)
        if score.note:
            console.print(f"note: {score.note}", markup=False, highlight=False)


def whole_text(path: Path | None) -> str:
    """The text of a file (plain or .gz) or of standard input. Raises InputError for what is not UTF-8 text."""
    with reading(path) as lines:
        return "".join(lines)


def unescaped(text: str) -> str:
    r"""What a person means who types \n, \t, \r or \\ in a shell; other backslashes stay."""
    parts = iter(text.split("\\"))
    meant = next(parts)
    for part in parts:
        if part == "":  # a backslash that was typed twice, or the last character
            meant += "\\" + next(parts, "")
        else:
            meant += _MEANT[part[0]] + part[1:] if part[0] in _MEANT else "\\" + part
    return meant


def _texts(completion: Completion, echo: bool) -> list[str]:
    return [(completion.prompt if echo else "") + sample.text for sample in completion.samples]


def _tell(completions: Sequence[Completion], console: Console) -> None:
    n_slid = sum(any(sample.n_dropped for sample in completion.samples) for completion in completions)
    if n_slid:
        what = "the text" if len(completions) == 1 else f"{n_slid} of {len(completions)} texts"
        console.print(f"note: {what} outgrew the model's context; its beginning was forgotten", highlight=False)


def _in_lines(error: InputError, n_read: int, n_lines: int) -> InputError:
    """The error, with the place in the whole input."""
    where = f"in lines {n_read + 1} to {n_read + n_lines}: " if n_lines > 1 else f"in line {n_read + 1}: "
    return InputError(where + error.what, given=error.given, expected=error.expected, mend=error.mend)
