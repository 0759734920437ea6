"""Lines in, lines out: what to translate of an input line, and what to write for it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from tripel.errors import InputError, nearest


class LineFormat(ABC):
    """How a line carries a text and its translation. number counts input lines from 1, for messages."""

    @abstractmethod
    def read(self, line: str, number: int) -> str:
        """The text to translate. Raises InputError when the line has none."""

    @abstractmethod
    def write(self, line: str, translation: str) -> str:
        """The output line, without line end."""


class PlainLines(LineFormat):
    """The line is the text; the translation is the line."""

    def read(self, line: str, number: int) -> str:
        return line

    def write(self, line: str, translation: str) -> str:
        return translation


@dataclass(frozen=True)
class TsvLines(LineFormat):
    """Tab-separated columns; the translation of column `column` (from 1) becomes a new last column."""

    column: int = 1

    def read(self, line: str, number: int) -> str:
        columns = line.split("\t")
        if line.strip() and len(columns) < self.column:
            raise InputError(
                f"line {number} has no column {self.column}",
                given=f"{len(columns)} tab-separated columns: {_shorten(line)}",
                expected=f"at least {self.column}",
                mend="choose another column, or correct the file",
            )
        return columns[self.column - 1] if line.strip() else ""

    def write(self, line: str, translation: str) -> str:
        return f"{line}\t{translation}" if line.strip() else line


@dataclass(frozen=True)
class JsonLines(LineFormat):
    """One JSON object a line; the translation of `field` is added as `into`."""

    field: str = "source"
    into: str = "translation"

    def read(self, line: str, number: int) -> str:
        if not line.strip():
            return ""
        text = self._object(line, number).get(self.field)
        if isinstance(text, str):
            return text
        keys = list(self._object(line, number))
        close = nearest(self.field, keys)
        raise InputError(
            f"line {number} has no text in field {self.field!r}",
            given=f"fields {', '.join(keys) or 'none'}" if text is None else f"{type(text).__name__} in {self.field!r}",
            expected=f"a JSON object such as {json.dumps({self.field: 'a text'})}",
            mend=f"did you mean the field {close!r}?"
            if text is None and close
            else "choose the field that has the text",
        )

    def write(self, line: str, translation: str) -> str:
        if not line.strip():
            return line
        return json.dumps({**json.loads(line), self.into: translation}, ensure_ascii=False)

    def _object(self, line: str, number: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"line {number} is not JSON: {error}",
                given=_shorten(line),
                expected="one JSON object a line",
                mend="correct the line, or read the file as plain text",
            ) from None
        if not isinstance(value, dict):
            raise InputError(
                f"line {number} is JSON but not an object",
                given=_shorten(line),
                expected=f"an object such as {json.dumps({self.field: 'a text'})}",
                mend="wrap the text in an object",
            )
        return value


def _shorten(line: str) -> str:
    return line if len(line) <= 80 else f"{line[:77]}..."
