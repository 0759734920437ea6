"""A prompt at the terminal: a line typed, its answer word by word, until the person has had enough."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console

from tripel.errors import InputError

_PROMPT = "> "


class Answering(Protocol):
    """A Translator or a Completer."""

    @property
    def stream(self) -> Callable[..., Iterator[str]]: ...


def wanted(texts: Sequence[str] | None, file: Path | None) -> bool:
    """Whether a person is at the keyboard and has given nothing to answer yet."""
    return not texts and file is None and sys.stdin.isatty()


def converse(
    model: Answering, out: TextIO, *, console: Console, settings: dict[str, Any], what: str = "a sentence"
) -> None:
    """Answer each line that is typed, writing each word to out as soon as it is certain; an empty line is skipped.

    Of several hypotheses only one is kept unless settings choose a search, so that words come one by one. The prompt,
    which asks for `what`, and all else for the person go to console. Ctrl-D and Ctrl-C end it, the latter first an
    answer that is being written. Raises InputError for wrong settings, never for a line.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (arrow keys and a history of lines)
    settings = {"beam": 1, **settings}
    model.stream("", **settings)  # wrong settings are told before anything is typed
    console.print(f"Type {what} and press Enter; Ctrl-D ends.", style="dim", highlight=False)
    while True:
        try:
            line = _read(console)
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not line.strip():
            continue
        try:
            for word in model.stream(line, **settings):
                out.write(word)
                out.flush()
        except InputError as error:
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        except KeyboardInterrupt:
            pass
        out.write("\n")
        out.flush()


def _read(console: Console) -> str:
    """A typed line. Line editing must know the prompt, but a file that takes the answers must not get it."""
    if sys.stdout.isatty():
        return input(_PROMPT)
    console.print(_PROMPT, end="")
    return input()
