"""Plain text and JSONL as documents, streamed in pieces of bounded size, so that no file is ever held in memory.

A piece ends where its document ends or before a space (failing that, a line end) that follows a character which is not
space. No tokenizer for language models joins anything across such a place: Unicode normalisation composes nothing with
a space before it, and in the pattern of byte-level BPE a space begins a word. So the encodings of the pieces join to the
encoding of the document.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from tripel.data.names import is_jsonl
from tripel.data.readers import HEAD_BYTES, READ_ERRORS, open_binary, refuse_binary, unreadable
from tripel.errors import DataError

Documents = Literal["file", "line", "paragraph"]

MAX_RECORD_BYTES = 1 << 26
"""A longer line of JSONL is dropped as a bad record."""

_BLOCK_BYTES = 1 << 18
_PIECE = 1 << 17  # characters; a piece has about twice as many at most
# A stretch without a place to cut is cut anywhere when it is longer. No text that people write has one.
_LONGEST_PIECE = 1 << 22
_PLACE_TO_CUT = re.compile(r"(?<=\S)[ \n]")
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\n\v\f\r\x1b"))
_MOST_CONTROLS = 0.3  # of a text's first bytes


class Piece(NamedTuple):
    """A stretch of one document. line: of the file, from 1, where it begins. text may be empty where a document ends."""

    text: str
    ends_document: bool
    file: Path
    line: int

    def line_at(self, index: int) -> int:
        """The line of the file in which a character of the text stands. A document of JSONL is one line."""
        return self.line if is_jsonl(self.file) else self.line + self.text.count("\n", 0, index)

    def place(self, index: int) -> str:
        """line_at for messages, as file:line."""
        return f"{self.file}:{self.line_at(index)}"


class _Span(NamedTuple):
    """Some text of a document (of a line), of any size, as it is read. line: as in Piece, where there is text."""

    text: str
    line: int
    ends_document: bool


class TextReader:
    """The documents of one file. report(kind, place) is called for each line that is not as it should be.

    Iterating gives its pieces; n_lines counts the lines read so far. Raises DataError for a file that is missing,
    unreadable, binary, UTF-16 or a damaged gzip.
    """

    def __init__(self, path: Path, documents: Documents, text_key: str, report: Callable[[str, str], None]) -> None:
        self._path, self._documents, self._text_key, self._report = path, documents, text_key, report
        self.n_lines = 0

    def __iter__(self) -> Iterator[Piece]:
        self.n_lines = 0
        try:
            if is_jsonl(self._path):
                spans = self._records()
            elif self._documents == "file":
                spans = self._whole_file()
            else:
                lines = _lines(self._blocks())
                spans = _line_documents(lines) if self._documents == "line" else _paragraphs(lines)
            yield from _pieces(spans, self._path)
        except READ_ERRORS as error:
            raise unreadable(self._path, self.n_lines + 1, error) from None

    def _whole_file(self) -> Iterator[_Span]:
        yield from self._blocks()
        yield _Span("", 0, True)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The file after its byte-order mark, unless its first bytes say that it is no text."""
        with open_binary(self._path) as file:
            head = file.peek(HEAD_BYTES)[:HEAD_BYTES]  # type: ignore[attr-defined]
            refuse_binary(self._path, head)
            if len(head) - len(head.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(head):
                raise _binary(self._path, 1, "mostly control characters")
            if head.startswith(codecs.BOM_UTF8):
                file.read(len(codecs.BOM_UTF8))
            yield file

    def _blocks(self) -> Iterator[_Span]:
        """The text in blocks that end with a line, unless a line is longer than a block. The last ends nothing."""
        with self._opened() as file:
            held = b""
            while raw := file.read(_BLOCK_BYTES):
                raw = held + raw
                end = raw.rfind(b"\n") + 1 or _character_end(raw)
                held = raw[end:]
                yield self._decoded(raw[:end])
            if held:
                yield self._decoded(held)
                self.n_lines += 1

    def _decoded(self, raw: bytes) -> _Span:
        line = self.n_lines + 1
        if b"\0" in raw:
            raise _binary(self._path, line + raw.count(b"\n", 0, raw.find(b"\0")), "a NUL byte")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = self._repaired(raw, line)
        self.n_lines += text.count("\n")
        return _Span(text.replace("\r\n", "\n"), line, False)

    def _repaired(self, raw: bytes, line: int) -> str:
        for number, content in enumerate(raw.split(b"\n"), start=line):
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                self._report("bad UTF-8", f"{self._path}:{number}")
        return raw.decode("utf-8", errors="replace")

    def _records(self) -> Iterator[_Span]:
        with self._opened() as file:
            while raw := file.readline(MAX_RECORD_BYTES):
                self.n_lines += 1
                whole = raw.endswith(b"\n") or len(raw) < MAX_RECORD_BYTES
                while not raw.endswith(b"\n") and (rest := file.readline(_BLOCK_BYTES)):
                    raw = rest
                text = self._text_of(raw) if whole else None
                if text is not None:
                    for first in range(0, len(text), _PIECE):
                        yield _Span(text[first : first + _PIECE], self.n_lines, False)
                    yield _Span("", self.n_lines, True)
                elif not whole or raw.strip():
                    self._report("bad record", f"{self._path}:{self.n_lines}")

    def _text_of(self, raw: bytes) -> str | None:
        try:
            text = json.loads(raw)[self._text_key]
            # A lone surrogate can be written in JSON, but no text has one.
            return text.encode("utf-8").decode("utf-8").replace("\r\n", "\n")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return None


def _lines(blocks: Iterator[_Span]) -> Iterator[_Span]:
    """Lines without their ends, each by itself; one that is longer than a block in several spans, of which the last
    ends it. What follows the last line end is not ended."""
    for block in blocks:
        *whole, part = block.text.split("\n")
        for number, text in enumerate(whole, start=block.line):
            yield _Span(text, number, True)
        if part:
            yield _Span(part, block.line + len(whole), False)


def _line_documents(lines: Iterator[_Span]) -> Iterator[_Span]:
    yield from lines
    yield _Span("", 0, True)


def _paragraphs(lines: Iterator[_Span]) -> Iterator[_Span]:
    """Lines up to an empty one a document, joined by line ends."""
    between, inside_line = "", False
    for line in lines:
        if line.ends_document and not inside_line and not line.text.strip():
            yield _Span("", line.line, True)
            between = ""
        else:
            yield _Span(between + line.text, line.line, False)
            between = "\n" if line.ends_document else ""
        inside_line = not line.ends_document
    yield _Span("", 0, True)


def _pieces(spans: Iterator[_Span], path: Path) -> Iterator[Piece]:
    """Spans joined and cut to size. Documents of nothing but space are left out."""
    held, line, begun = "", 1, False
    for span in spans:
        line = line if held else span.line
        held += span.text
        while len(held) >= _PIECE and (end := _place_to_cut(held)):
            piece = Piece(held[:end], False, path, line)
            yield piece
            line, held, begun = piece.line_at(end), held[end:], True
        if span.ends_document:
            if begun or held.strip():
                yield Piece(held, True, path, line)
            held, begun = "", False


def _place_to_cut(text: str) -> int:
    """Where to cut a piece off: see the head of this file. 0 when there is no such place yet."""
    for mark in " \n":
        place = text.rfind(mark, 1, 2 * _PIECE)
        while place > 0 and text[place - 1].isspace():
            place = text.rfind(mark, 1, place)
        if place > 0:
            return place
    found = _PLACE_TO_CUT.search(text, 2 * _PIECE)
    if found:
        return found.start()
    return len(text) if len(text) > _LONGEST_PIECE else 0


def _character_end(raw: bytes) -> int:
    """The length without a character, or a line end, that is cut short."""
    end = len(raw)
    for back in range(1, min(4, end) + 1):
        byte = raw[end - back]
        if byte >= 0xC0:  # begins a character of so many bytes
            return end - back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else end
        if byte < 0x80:
            return end - 1 if raw.endswith(b"\r") else end
    return end


def _binary(path: Path, line: int, given: str) -> DataError:
    return DataError(
        "the file is binary, not text",
        file=path,
        line=line,
        given=given,
        expected="UTF-8 text",
        mend="name a text file, or remove the file from the folder",
    )
