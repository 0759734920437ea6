"""Reading labelled texts, one example at a time, from TSV, CSV or JSONL."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tripel.data.readers import Line, read_lines
from tripel.errors import DataError

Problem = Literal["bad UTF-8", "over-long line", "bad record"]

# Columns that are not found under these names may well be meant by place; under others a header is meant.
TEXT_COLUMN, LABEL_COLUMN = "text", "label"
# A quoted text may stretch over lines, hence a line may be as long as several texts: the csv module's own limit on a
# field is what bounds them.
_CSV_LINE_BYTES = 1 << 20
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its label as the file has them. line: where it begins, from 1. problem: why it cannot be used, if so."""

    text: str
    label: str
    line: int
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class _Columns:
    """The names of the two columns, and the option by which that of the first is set."""

    text: str
    label: str
    option: str


def read_examples(
    path: Path, text_column: str, label_column: str, *, text_option: str = "text_column"
) -> Iterator[Example]:
    """The examples of a file, whose kind its name tells. text_option: the setting that messages name for text_column.

    Raises DataError for a file that cannot be read, for one that lacks a column, naming those that are there, and for CSV
    whose quotes do not close.
    """
    kind, named = path.name.removesuffix(".gz").rpartition(".")[2], _Columns(text_column, label_column, text_option)
    if kind == "jsonl":
        return _jsonl(path, named)
    return _csv(path, named) if kind == "csv" else _tsv(path, named)


def _tsv(path: Path, named: _Columns) -> Iterator[Example]:
    """Columns under a header line that names them; without one, `label<TAB>text`. Quotes are part of a text."""
    places: tuple[int, int] | None = None
    other_names = (named.text, named.label) != (TEXT_COLUMN, LABEL_COLUMN)
    for line in _written_lines(path):
        columns = line.text.split("\t")
        if line.number == 1 and (other_names or {named.text, named.label} & set(columns)):
            places = _places(path, 1, columns, named)
        elif places is not None:
            yield _from_columns(columns, places, line.number, line.problem)
        else:
            label, tab, text = line.text.partition("\t")
            yield Example(text, label, line.number, line.problem or (None if tab else "bad record"))


def _csv(path: Path, named: _Columns) -> Iterator[Example]:
    problems: dict[int, Problem] = {}

    def lines() -> Iterator[str]:
        for line in read_lines(path, max_bytes=_CSV_LINE_BYTES):
            if line.problem:
                problems[line.number] = line.problem
            yield line.text + "\n"

    reader = csv.reader(lines(), strict=True)
    places: tuple[int, int] | None = None
    while True:
        begins = reader.line_num + 1
        try:
            columns = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if places is None or reader.line_num != begins or "field larger" not in str(error):
                raise _not_csv(path, begins, error) from None
            problems.pop(begins, None)
            yield Example("", "", begins, "over-long line")
            continue
        problem = next((problems.pop(n) for n in range(begins, reader.line_num + 1) if n in problems), None)
        if places is None:
            places = _places(path, begins, columns, named)
        elif columns:  # a blank line is not a record
            yield _from_columns(columns, places, begins, problem)


def _jsonl(path: Path, named: _Columns) -> Iterator[Example]:
    looked = False
    for line in _written_lines(path):
        record = _record(line)
        if record is None:
            yield Example(line.text, "", line.number, line.problem or "bad record")
            continue
        if not looked:
            _places(path, line.number, list(record), named)
            looked = True
        text, label = record.get(named.text), _spelled(record.get(named.label))
        if not isinstance(text, str) or label is None or _has_surrogates(text + label):
            yield Example("", "", line.number, line.problem or "bad record")
        else:
            yield Example(text, label, line.number, line.problem)


def _written_lines(path: Path) -> Iterator[Line]:
    """All lines but blank ones, which are no records."""
    return (line for line in read_lines(path) if line.text.strip() or line.problem)


def _record(line: Line) -> dict[str, Any] | None:
    try:
        record = json.loads(line.text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _spelled(label: object) -> str | None:
    """A JSON label in letters: numbers as they are written, 1.0 as 1. None for what is no label."""
    if isinstance(label, str):
        return label
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label) if isinstance(label, int | float) else None


def _has_surrogates(text: str) -> bool:
    """JSON can spell half a character, which no text has and no tokenizer takes."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def _places(path: Path, line: int, columns: list[str], named: _Columns) -> tuple[int, int]:
    """Where the two columns are."""
    columns = [column.strip() for column in columns]
    for option, name in ((named.option, named.text), ("label_column", named.label)):
        if name not in columns:
            there = ", ".join(repr(column[:_SHOWN]) for column in columns[:_SHOWN])
            raise DataError(
                f"the file has no column {name}",
                file=path,
                line=line,
                given=f"columns {there}",
                expected=f"one named {name!r}",
                mend=f"set data.{option} to the column's name, or correct the header",
            )
    return columns.index(named.text), columns.index(named.label)


def _from_columns(columns: list[str], places: tuple[int, int], line: int, problem: Problem | None) -> Example:
    if max(places) >= len(columns):
        return Example("", "", line, problem or "bad record")
    return Example(columns[places[0]], columns[places[1]], line, problem)


def _not_csv(path: Path, line: int, error: csv.Error) -> DataError:
    return DataError(
        "from this line on the file cannot be read as CSV",
        file=path,
        line=line,
        given=str(error),
        expected='columns divided by commas, in quotes (") where they hold commas, quotes or line ends',
        mend="write it with a CSV library; plain label<TAB>text lines belong in a file that ends in .tsv",
    )
