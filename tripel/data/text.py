"""Plain text for language models: files, folders, JSONL, .gz; streamed, checked, and never held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from tripel.config import Config
from tripel.data.checks import DataReport
from tripel.data.names import find_texts, is_jsonl
from tripel.data.text_checks import SeenTexts, TextFacts, TextScan
from tripel.data.text_reading import Documents, Piece, TextReader


class TextDataConfig(Config):
    """Which text, and what is expected of it. Names are resolved as tripel.data.names says.

    valid_share: when valid is null, this last share of train's characters is the validation set (0: there is none).
    documents: what is parted by the boundary token in a text file; JSONL has one document a line, under text_key.
    context: tokens in a training window; the model's max_len when null. carry_state: rows of consecutive text, in which
    a recurrent model goes on from its last state (truncated back-propagation through time) instead of random windows.
    Shares are of lines or tokens, from 0 to 1; a share of 1 switches a refusal off.
    """

    kind: Literal["text"] = "text"
    train: str | tuple[str, ...]
    valid: str | None = None
    test: str | None = None
    valid_share: float = Field(0.0, ge=0.0, lt=1.0)
    documents: Documents = "file"
    context: int | None = Field(None, ge=1, le=1 << 20)
    carry_state: bool = False
    text_key: str = Field("text", min_length=1)
    max_bad_share: float = Field(0.05, ge=0.0, le=1.0)
    max_unknown_share: float = Field(0.1, ge=0.0, le=1.0)

    @field_validator("train")
    @classmethod
    def _names_something(cls, train: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not train:
            raise ValueError("name at least one training text")
        return train

    @model_validator(mode="after")
    def _one_validation_set(self) -> TextDataConfig:
        if self.valid is not None and self.valid_share:
            raise ValueError("valid names a validation set and valid_share asks for another: give one of them")
        return self

    @property
    def train_names(self) -> tuple[str, ...]:
        """The training texts, one or more."""
        return (self.train,) if isinstance(self.train, str) else self.train


@dataclass(frozen=True)
class TextSource:
    """A text in files, or the characters first to last of it. Iterating reads it anew, in pieces (see text_reading).

    facts: what the pass that checked it found; None until then.
    """

    name: str
    paths: tuple[Path, ...]
    documents: Documents = "file"
    text_key: str = "text"
    first: int = 0
    last: int | None = None
    facts: TextFacts | None = None

    def __iter__(self) -> Iterator[Piece]:
        return self.read(None)

    def texts(self) -> Iterator[str]:
        """The text of each piece: what a tokenizer is trained on."""
        return (piece.text for piece in self)

    def read(self, scan: TextScan | None) -> Iterator[Piece]:
        """The pieces; scan is told of what is wrong in the files on the way."""
        pieces = self._pieces(scan)
        return pieces if not self.first and self.last is None else _between(pieces, self.first, self.last)

    def part(self, name: str, first: int, last: int | None) -> TextSource:
        """The characters first to last (not included) as a text by itself. It does not end a document that goes on."""
        return replace(self, name=name, first=first, last=last, facts=None)

    @property
    def fingerprint(self) -> str:
        """A hash of the text and its documents' ends: the key of what is derived from them."""
        return self._known.fingerprint

    @property
    def n_chars(self) -> int:
        """Characters of all documents."""
        return self._known.n_chars

    @property
    def n_bytes(self) -> int:
        """Bytes of all documents, in UTF-8."""
        return self._known.n_bytes

    @property
    def n_documents(self) -> int:
        """Documents, one that is cut short included."""
        return self._known.n_documents

    @property
    def _known(self) -> TextFacts:
        assert self.facts is not None, "made by load_texts or open_text"
        return self.facts

    def _pieces(self, scan: TextScan | None) -> Iterator[Piece]:
        for path in self.paths:
            reader = TextReader(path, self.documents, self.text_key, scan.tally if scan else lambda kind, place: None)
            yield from reader
            if scan:
                scan.n_lines += reader.n_lines


@dataclass(frozen=True)
class TextSplits:
    """The training and validation texts of a recipe, checked singly and against each other."""

    train: TextSource
    valid: TextSource | None
    report: DataReport


def load_texts(config: TextDataConfig) -> TextSplits:
    """Find and check the training and validation texts of a recipe, without holding them in memory.

    Reads every file once, twice more where valid_share divides them. Raises DataError when a text cannot be found or
    read, is binary or empty, or when a check refuses it. Long lines of the training text that are also in the
    validation or the test set are reported.
    """
    report = DataReport(unit="documents")
    others: dict[str, SeenTexts] = {}
    train, valid = _source(config.train_names, config), None
    if config.valid is not None:
        valid = _source((config.valid,), config)
    elif config.valid_share:
        n_chars = _checked(train, config, DataReport(), {}, None).n_chars
        # As nanoGPT divides tiny Shakespeare: the first int(n * 0.9) characters are for training.
        middle = int(n_chars * (1.0 - config.valid_share))
        valid = train.part(f"{train.name}, last {config.valid_share:.0%}", middle, None)
        train = train.part(train.name, 0, middle)
    if valid is not None:
        valid = _checked(valid, config, report, {}, others.setdefault(valid.name, SeenTexts()))
    if config.test is not None:
        test = _source((config.test,), config)
        _checked(test, config, report, {}, others.setdefault(test.name, SeenTexts()))
    return TextSplits(_checked(train, config, report, others, None), valid, report)


def open_text(name: str, config: TextDataConfig) -> TextSource:
    """Find and check one text, such as a test set. Raises DataError as load_texts does."""
    return _checked(_source((name,), config), config, DataReport(unit="documents"), {}, None)


def _source(names: tuple[str, ...], config: TextDataConfig) -> TextSource:
    paths = tuple(path for name in names for path in find_texts(name))
    return TextSource(", ".join(names), paths, config.documents, config.text_key)


def _checked(
    source: TextSource,
    config: TextDataConfig,
    report: DataReport,
    others: dict[str, SeenTexts],
    seen: SeenTexts | None,
) -> TextSource:
    one_each = source.documents == "file" and not any(map(is_jsonl, source.paths))
    scan = TextScan(source.name, others, seen, look_for_repeats=not one_each)
    # A part that begins later is of files of which another part tells what is wrong.
    for piece in source.read(None if source.first else scan):
        scan.take(piece)
    report.add(scan.report(config.max_bad_share))
    report.refuse()
    return replace(source, facts=scan.facts())


def _between(pieces: Iterator[Piece], first: int, last: int | None) -> Iterator[Piece]:
    """The pieces of the characters first to last; all are read on, so that what is wrong with the rest is known."""
    start = 0
    for piece in pieces:
        end = start + len(piece.text)
        a, b = max(first - start, 0), len(piece.text) if last is None else min(last - start, len(piece.text))
        if b > a or (piece.ends_document and a == b == len(piece.text) and start > first):
            yield Piece(piece.text[a:b], piece.ends_document and b == len(piece.text), piece.file, piece.line_at(a))
        start = end
