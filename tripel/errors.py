"""Errors a user can mend, one small tree. Everything else is a bug of ours and keeps its traceback.

TripelError              what went wrong, what was given, what was expected, how to mend it
├── RecipeError          unknown key, bad value, a combination outside the table of cells
├── DataError            missing, unreadable, misaligned or unclean data; carries file and line
├── TokenizerError       a tokenizer that cannot be trained, read or that does not fit the model
├── CheckpointError      a run folder or checkpoint that is absent, damaged, full or in use
├── InputError           text given to a model that it cannot take (too long, wrong type)
├── FormatError          a model that another library's format cannot express, or a folder we cannot read
└── DeviceError          a device, precision or process group that is not there
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class TripelError(Exception):
    """Base of all user errors. The command line prints it without a traceback and exits 2.

    what: one sentence, the failure itself. given, expected: the offending value and the acceptable ones.
    mend: what to do next, as an imperative sentence.
    """

    def __init__(self, what: str, *, given: object = None, expected: object = None, mend: str | None = None) -> None:
        self.what, self.given, self.expected, self.mend = what, given, expected, mend
        parts = [what]
        if given is not None:
            parts.append(f"  given:    {given}")
        if expected is not None:
            parts.append(f"  expected: {expected}")
        if mend is not None:
            parts.append(f"  to mend:  {mend}")
        super().__init__("\n".join(parts))


class RecipeError(TripelError):
    """A recipe, option or override that cannot be used."""


class DataError(TripelError):
    """Data that cannot be read or should not be trained on. file and line name the first offender."""

    def __init__(
        self,
        what: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        given: object = None,
        expected: object = None,
        mend: str | None = None,
    ) -> None:
        self.file, self.line = file, line
        if file is not None:
            what = f"{file}{f':{line}' if line is not None else ''}: {what}"
        super().__init__(what, given=given, expected=expected, mend=mend)


class TokenizerError(TripelError):
    """A tokenizer that cannot be trained, read, or used with this model."""


class CheckpointError(TripelError):
    """A run folder or checkpoint that is absent, damaged, or cannot be written."""


class InputError(TripelError):
    """Input that the model cannot take."""


class FormatError(TripelError):
    """A model outside what a foreign format can express, or a foreign folder outside what Tripel can."""


class DeviceError(TripelError):
    """A device, precision or process group that this machine does not have."""


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like word, or None when nothing is close: for 'did you mean' messages."""
    matches = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return matches[0] if matches else None
