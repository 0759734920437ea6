"""Texts, files and standard streams in; answers out, one a line. What `tripel translate` runs."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from tripel.data.readers import READ_ERRORS, open_binary, unreadable
from tripel.errors import InputError, nearest
from tripel.files import atomic_writer
from tripel.pipelines.records import JsonLines, LineFormat, PlainLines, TsvLines
from tripel.pipelines.translate import LOOKAHEAD, Translation, Translator
from tripel.storage import reporting_disk_errors

FORMATS: dict[str, LineFormat] = {"lines": PlainLines(), "tsv": TsvLines(), "jsonl": JsonLines()}


def translate_texts(
    translator: Translator,
    texts: Sequence[str],
    out: TextIO,
    *,
    console: Console,
    prefix: str,
    settings: dict[str, Any],
) -> None:
    """Translate texts given as arguments; n-best answers come with their scores, tab-separated. What was split or
    cleaned is told on console."""
    for answer in translator.translate(list(texts), prefix=prefix, **settings):
        for note in _befell(answer):
            console.print(f"note: {note}", highlight=False)
        if settings.get("n_best", 1) > 1:
            for alternative in answer.alternatives:
                out.write(f"{alternative.score:.4f}\t{alternative.text}\n")
        else:
            out.write(answer.text + "\n")


def stream_texts(
    translator: Translator, texts: Iterator[str] | Sequence[str], out: TextIO, *, prefix: str, settings: dict[str, Any]
) -> None:
    """Translate texts one by one, writing each word as soon as it is certain."""
    for text in texts:
        for word in translator.stream(text, prefix=prefix, **settings):
            out.write(word)
            out.flush()
        out.write("\n")
        out.flush()


def translate_stream(
    translator: Translator,
    lines: Iterator[str],
    out: TextIO,
    *,
    console: Console,
    line_format: str,
    settings: dict[str, Any],
) -> None:
    """One answer for every line; an empty line for an empty line. What was split or cleaned is told at the end."""
    if line_format not in FORMATS:
        close = nearest(line_format, FORMATS)
        raise InputError(
            f"there is no line format {line_format!r}",
            given=line_format,
            expected=", ".join(FORMATS),
            mend=f"did you mean {close}?" if close else None,
        )
    # At a terminal every line is answered at once; a file is read ahead, so that batches are full.
    typed = lines is sys.stdin
    lookahead = 1 if typed else LOOKAHEAD
    notes = _Notes()
    answers = translator.translate_lines(
        lines, line_format=FORMATS[line_format], lookahead=lookahead, on_answer=notes.add, **settings
    )
    try:
        for answer in answers:
            out.write(answer + "\n")
            if typed:
                out.flush()
    finally:
        notes.tell(console)


@contextmanager
def reading(path: Path | None) -> Iterator[Iterator[str]]:
    """Lines of a file (plain or .gz) or, without one, of standard input.

    Raises DataError for a file that cannot be read, InputError for what is not UTF-8 text.
    """
    if path is None:
        # A terminal is read as it is; a pipe is decoded here, so that its encoding does not depend on the locale.
        piped = not sys.stdin.isatty() and hasattr(sys.stdin, "buffer")
        yield _decoded(sys.stdin.buffer, "standard input") if piped else sys.stdin
        return
    try:
        file = open_binary(path)
    except OSError as error:
        raise unreadable(path, None, error) from None
    with file:
        yield _decoded(file, str(path))


@contextmanager
def writing(path: Path | None) -> Iterator[TextIO]:
    """A text file that takes its place when all is written, or standard output. Raises CheckpointError for what the disk
    refuses."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with reporting_disk_errors(path, 0), atomic_writer(path) as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()


def _decoded(file: Iterable[bytes], name: str) -> Iterator[str]:
    number = 0
    try:
        for line in file:
            number += 1
            yield line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not UTF-8 text at line {number}",
            given=error,
            expected="text in UTF-8, plain or .gz",
            mend="convert it, for example with iconv -t UTF-8",
        ) from None
    except READ_ERRORS as error:
        raise unreadable(Path(name), number + 1, error) from None


def _befell(answer: Translation) -> list[str]:
    """What a person is told of an answer beside its text."""
    notes = {
        "control or invisible characters were replaced": answer.n_cleaned > 0,
        "the text was translated in several parts": answer.split,
        "the translation was ended at its length limit": answer.finish_reason == "length",
    }
    return [note for note, holds in notes.items() if holds]


@dataclass
class _Notes:
    """What befell the lines of a file: by what it was, on how many lines, and on which first."""

    found: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, number: int, answer: Translation) -> None:
        """Look at the answer to a line."""
        for what in _befell(answer):
            count, first = self.found.get(what, (0, number))
            self.found[what] = count + 1, first

    def tell(self, console: Console) -> None:
        """One line for each kind."""
        for what, (count, first) in self.found.items():
            where = f"line {first}" if count == 1 else f"{count:,} lines, the first line {first}"
            console.print(f"note: {what}: {where}", highlight=False)
