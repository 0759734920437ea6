"""Reading text by streaming: line files, TSV and JSONL, plain or gzip.

Only "\\n" and "\\r\\n" end a line; other characters that some programs break at belong to the text. A line longer than
the limit is never held whole. What makes one line unusable is said of that line; only what makes the whole file
unusable raises.
"""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from tripel.data.names import PairFiles
from tripel.errors import DataError

MAX_LINE_BYTES = 1 << 16
"""Longer lines are cut here when they are read, and said to be over-long."""

Problem = Literal["bad UTF-8", "over-long line", "bad record"]

HEAD_BYTES = 8192
READ_ERRORS = (OSError, EOFError, zlib.error)
"""What reading a file may raise that is the file's fault: see unreadable."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end. number counts from 1. problem: why the text is not what the file holds, if so."""

    text: str
    number: int
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A source and its target. line: their line in the file(s), from 1. problem: why they cannot be used, if so."""

    source: str
    target: str
    line: int
    problem: Problem | None = None


def read_lines(path: Path, *, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """The lines of a text file, .gz or not.

    Bad UTF-8 becomes U+FFFD, a longer line is cut at max_bytes; both are marked. Raises DataError for a file that is
    missing, a folder, unreadable, empty, binary, or a damaged gzip.
    """
    number = 0
    for number, raw in enumerate(_raw_lines(path, max_bytes), start=1):
        yield _line(raw, number, max_bytes)
    if not number:
        raise DataError("the file is empty", file=path, expected="one sentence a line", mend="check how it was made")


def read_pairs(files: PairFiles, source: str, target: str, *, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Pair]:
    """The pairs of a parallel set. source, target: the languages, as JSONL's keys may name them.

    Raises DataError as read_lines does, and where two line files differ in length.
    """
    if files.kind == "lines":
        yield from _aligned_lines(files, max_bytes)
    elif files.kind == "tsv":
        yield from map(_tsv_pair, read_lines(files.source, max_bytes=max_bytes))
    else:
        for line in read_lines(files.source, max_bytes=max_bytes):
            yield _jsonl_pair(line, source, target)


def _aligned_lines(files: PairFiles, max_bytes: int) -> Iterator[Pair]:
    sources = read_lines(files.source, max_bytes=max_bytes)
    targets = read_lines(files.target, max_bytes=max_bytes)
    for number, (one, other) in enumerate(itertools.zip_longest(sources, targets)):
        if one is None or other is None:
            # The longer file is read to its end, to say by how much they differ.
            n_source = (one.number if one else number) + sum(1 for _ in sources)
            n_target = (other.number if other else number) + sum(1 for _ in targets)
            raise DataError(
                "the two sides have different numbers of lines, so that they do not belong together line by line",
                file=files.source if one is None else files.target,
                line=number + 1,
                given=f"{n_source} lines in {files.source}, {n_target} in {files.target}",
                expected="equal numbers",
                mend="find where they part: a line added or lost on one side shifts everything after it",
            )
        yield Pair(one.text, other.text, one.number, one.problem or other.problem)


def _tsv_pair(line: Line) -> Pair:
    columns = line.text.split("\t")
    if len(columns) != 2:
        return Pair(line.text, "", line.number, line.problem or "bad record")
    return Pair(columns[0], columns[1], line.number, line.problem)


def _jsonl_pair(line: Line, source: str, target: str) -> Pair:
    """Accepts {"source", "target"}, {"en", "de"} and {"translation": {"en", "de"}}."""
    try:
        record = json.loads(line.text)
        record = record.get("translation", record)
        keys = (source, target) if source in record else ("source", "target")
        sides = record[keys[0]], record[keys[1]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sides = None, None
    if isinstance(sides[0], str) and isinstance(sides[1], str):
        return Pair(sides[0], sides[1], line.number, line.problem)
    return Pair(line.text, "", line.number, line.problem or "bad record")


def _line(raw: bytes, number: int, max_bytes: int) -> Line:
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if number == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    if len(raw) > max_bytes:
        return Line(raw[:max_bytes].decode("utf-8", errors="ignore"), number, "over-long line")
    try:
        return Line(raw.decode("utf-8"), number)
    except UnicodeDecodeError:
        return Line(raw.decode("utf-8", errors="replace"), number, "bad UTF-8")


def _raw_lines(path: Path, max_bytes: int) -> Iterator[bytes]:
    """Lines as bytes with their ends; of one longer than max_bytes a little more than that, without its end."""
    number = 0
    try:
        with open_binary(path) as file:
            refuse_binary(path, file.peek(HEAD_BYTES)[:HEAD_BYTES])  # type: ignore[attr-defined]
            while raw := file.readline(max_bytes + 3):
                number += 1
                yield raw
                while not raw.endswith(b"\n") and len(raw) == max_bytes + 3 and (rest := file.readline(max_bytes + 3)):
                    raw = rest
    except READ_ERRORS as error:
        raise unreadable(path, number + 1, error) from None


def open_binary(path: Path) -> BinaryIO:
    """A file's bytes, unpacked if its name ends in .gz. Reading it raises READ_ERRORS."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def refuse_binary(path: Path, head: bytes) -> None:
    """Raise DataError if a file that begins so is not UTF-8 text. head: HEAD_BYTES of it."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        what, mend = "the file is UTF-16, not UTF-8", f"iconv -f UTF-16 -t UTF-8 {path} > converted"
    elif head.startswith(b"\x1f\x8b"):
        what, mend = "the file is gzip, but its name does not end in .gz", "rename it so that it does"
    elif b"\0" in head:
        what, mend = "the file is binary, not text", "name a text file: one sentence a line, UTF-8"
    else:
        return
    raise DataError(what, file=path, given=f"first bytes {head[:8]!r}", expected="UTF-8 text", mend=mend)


def unreadable(path: Path, line: int | None, error: Exception) -> DataError:
    """What to raise for one of READ_ERRORS. line: where reading stopped, if the file has lines and it had begun."""
    if isinstance(error, EOFError | gzip.BadGzipFile | zlib.error):
        return DataError(
            "the gzip file is damaged or cut short",
            file=path,
            line=line,
            given=str(error),
            expected="a whole gzip file",
            mend="download or copy it again; `gzip -t` tells whether it is whole",
        )
    if isinstance(error, FileNotFoundError):
        what, mend = "there is no such file", "check the name"
    elif isinstance(error, IsADirectoryError):
        what, mend = "this is a folder, not a file", "name a file in it"
    elif isinstance(error, PermissionError):
        what, mend = "this user may not read the file", "change its permissions (chmod +r)"
    else:
        what, mend = f"the file cannot be read: {getattr(error, 'strerror', None) or error}", "check the disk"
    return DataError(what, file=path, expected="a readable file", mend=mend)
