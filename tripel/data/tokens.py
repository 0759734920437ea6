"""A text as one stream of tokens, in a memory-mapped file in the user's cache: document, boundary, document, boundary.

Made once by streaming, whatever the text's size, under a key of the text and the tokenizer. Beside the tokens lies a
small JSON file with their number, size and checksum: what does not agree with it is made again.
"""

from __future__ import annotations

import json
import logging
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tripel.data.cache import cache_key
from tripel.data.checks import Action, DataReport, Finding
from tripel.data.corpus import encoded_folder
from tripel.data.text import TextDataConfig, TextSource
from tripel.data.text_reading import Piece
from tripel.errors import DataError, TokenizerError
from tripel.files import atomic_writer, write_atomically
from tripel.text.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

# Part of every key: to be raised when the same input would give other tokens.
_VERSION = "1"
_PIECES_AT_ONCE = 8
_MANY_SMALL = 2000
_READ_BYTES = 1 << 22
_MOST_PLACES = 3


@dataclass(frozen=True)
class _Facts:
    """What is kept of a stream beside its tokens. crc: of the file's bytes."""

    n_tokens: int
    n_bytes: int
    n_chars: int
    n_documents: int
    n_unknown: int
    unknown_places: tuple[str, ...]
    size: int
    crc: int


@dataclass(frozen=True)
class TokenStream:
    """A text's tokens. ids: uint16, or int32 for a vocabulary beyond it, memory-mapped; n_bytes, n_chars: of the text.

    eos_id stands after each document. unknown_places: where the first unknown tokens are, as file:line.
    """

    name: str
    ids: np.ndarray
    eos_id: int
    n_bytes: int
    n_chars: int
    n_documents: int
    n_unknown: int
    unknown_places: tuple[str, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens, boundaries included."""
        return len(self.ids)


def encode_stream(
    source: TextSource, tokenizer: Tokenizer, *, by_line: bool = False, cache_dir: Path | None = None
) -> TokenStream:
    """A text's tokens, from the cache or made anew. cache_dir: where they are kept; the user's cache by default.

    Each document is encoded as a whole would be, though only a piece of it is ever in memory; or by_line, each line of it
    by itself, without the spaces and line ends around it, which any tokenizer can. Raises TokenizerError for one that
    cannot encode a text in pieces otherwise, DataError when there is no room for the tokens.
    """
    if not by_line:
        require_divisible(tokenizer)
    folder = cache_dir or encoded_folder()
    kind = "lines" if by_line else "stream"
    path = folder / f"{cache_key(kind, _VERSION, source.fingerprint, tokenizer.to_json())}.tokens"
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32)
    facts = _stored(path, dtype)
    if facts is None:
        try:
            with atomic_writer(path) as file:
                facts = _Writer(file, tokenizer, dtype, by_line).written(source)
            write_atomically(_facts_of(path), json.dumps(asdict(facts)).encode())
        except OSError as error:
            _log.warning("%s cannot be written (%s): the text is encoded at each start", path, error.strerror)
            return _in_temporary_file(source, tokenizer, dtype, by_line)
    return _stream(source, np.memmap(path, dtype, "r"), facts, tokenizer.eos_id)


def require_divisible(tokenizer: Tokenizer) -> None:
    """Raise TokenizerError unless a language model can be made with this tokenizer."""
    if not tokenizer.keeps_text_divisible:
        raise TokenizerError(
            "this tokenizer puts a space before every text, so that a long text cannot be encoded in pieces",
            given="a tokenizer of another kind, such as bpe, unigram, word or wordpiece",
            expected="tokenizer.kind: char, byte or byte_bpe",
            mend="set tokenizer.kind to byte_bpe (or char, or byte) to train a language model",
        )


def report_unknown_tokens(report: DataReport, stream: TokenStream, config: TextDataConfig) -> None:
    """Add a stream's share of unknown tokens to a report. Raises DataError when it is above the threshold."""
    if not stream.n_unknown:
        return
    action: Action = "kept"
    reason = None
    if stream.n_unknown > config.max_unknown_share * stream.n_tokens:
        action = "refused"
        share = f"{stream.n_unknown / stream.n_tokens:.0%} of the tokens"
        reason = f"{share} are unknown (max_unknown_share {config.max_unknown_share})"
    finding = Finding(
        stream.name, "unknown tokens", stream.n_unknown, stream.n_tokens, action, stream.unknown_places, reason
    )
    report.add(DataReport([finding], unit=report.unit))
    report.refuse()


class _Writer:
    """Writes tokens to a file and counts what goes by."""

    def __init__(self, file: BinaryIO, tokenizer: Tokenizer, dtype: np.dtype, by_line: bool) -> None:
        self._file, self._tokenizer, self._dtype, self._by_line = file, tokenizer, dtype, by_line
        self._boundary = np.array([tokenizer.eos_id], np.int32)
        self._n_tokens = self._n_bytes = self._n_chars = self._n_documents = self._n_unknown = self._crc = 0
        self._places: list[str] = []

    def written(self, source: TextSource) -> _Facts:
        """Write all of a text."""
        for group in _groups(iter(source)):
            self.take(group)
        return self.facts()

    def take(self, pieces: list[Piece]) -> None:
        """Encode some pieces and append them."""
        texts = [piece.text for piece in pieces]
        parts: list[np.ndarray] = []
        for piece, ids in zip(pieces, self._encoded(texts), strict=True):
            parts.append(ids)
            self._look_for_unknown(piece, ids)
            if piece.ends_document:
                parts.append(self._boundary)
                self._n_documents += 1
        tokens = np.concatenate([np.zeros(0, np.int32), *parts]).astype(self._dtype).tobytes()
        self._file.write(tokens)
        self._crc = zlib.crc32(tokens, self._crc)
        self._n_tokens += len(tokens) // self._dtype.itemsize
        self._n_chars += sum(map(len, texts))
        self._n_bytes += sum(len(text.encode("utf-8")) for text in texts)

    def facts(self) -> _Facts:
        """What was written."""
        return _Facts(
            n_tokens=self._n_tokens,
            n_bytes=self._n_bytes,
            n_chars=self._n_chars,
            n_documents=self._n_documents,
            n_unknown=self._n_unknown,
            unknown_places=tuple(self._places),
            size=self._n_tokens * self._dtype.itemsize,
            crc=self._crc,
        )

    def _encoded(self, texts: list[str]) -> list[np.ndarray]:
        if not self._by_line:
            return self._tokenizer.encode_arrays(texts)
        lines = [[line.strip() for line in text.splitlines()] for text in texts]
        ids = iter(self._tokenizer.encode_arrays([line for of_text in lines for line in of_text]))
        return [np.concatenate([np.zeros(0, np.int32), *islice(ids, len(of_text))]) for of_text in lines]

    def _look_for_unknown(self, piece: Piece, ids: np.ndarray) -> None:
        n_unknown = int(np.count_nonzero(ids == self._tokenizer.unk_id))
        self._n_unknown += n_unknown
        if n_unknown and len(self._places) < _MOST_PLACES:
            self._places.append(piece.place(self._first_unknown(piece.text)))

    def _first_unknown(self, text: str) -> int:
        """Where the first line with an unknown token begins: tokens do not tell the characters they stand for."""
        first = 0
        for line in text.split("\n"):
            if self._tokenizer.unk_id in self._tokenizer.encode_arrays([line])[0]:
                break
            first += len(line) + 1
        return first


def _groups(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Pieces in groups worth one call of the tokenizer: a few large ones or many small ones."""
    while group := list(islice(pieces, _PIECES_AT_ONCE)):
        if max(len(piece.text) for piece in group) < 1 << 12:
            n_chars = sum(len(piece.text) for piece in group)
            for piece in islice(pieces, _MANY_SMALL):
                group.append(piece)
                n_chars += len(piece.text)
                if n_chars > 1 << 20:
                    break
        yield group


def _in_temporary_file(source: TextSource, tokenizer: Tokenizer, dtype: np.dtype, by_line: bool) -> TokenStream:
    """The stream in a file without a name, which is gone when the program ends."""
    try:
        with tempfile.TemporaryFile() as file:
            facts = _Writer(file, tokenizer, dtype, by_line).written(source)  # type: ignore[arg-type]
            file.flush()
            ids = np.memmap(file, dtype, "r")
    except OSError as error:
        raise DataError(
            f"there is no room for the tokens of {source.name}: {error.strerror or error}",
            file=tempfile.gettempdir(),
            expected="a folder for temporary files with room for two to four bytes a token",
            mend="make room, or set XDG_CACHE_HOME or TMPDIR to a folder that has it",
        ) from None
    return _stream(source, ids, facts, tokenizer.eos_id)


def _stream(source: TextSource, ids: np.ndarray, facts: _Facts, eos_id: int) -> TokenStream:
    return TokenStream(
        name=source.name,
        ids=ids,
        eos_id=eos_id,
        n_bytes=facts.n_bytes,
        n_chars=facts.n_chars,
        n_documents=facts.n_documents,
        n_unknown=facts.n_unknown,
        unknown_places=facts.unknown_places,
    )


def _facts_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _stored(path: Path, dtype: np.dtype) -> _Facts | None:
    """What is said of the stream stored at path, if that is there and whole."""
    try:
        content = json.loads(_facts_of(path).read_text(encoding="utf-8"))
        facts = _Facts(**content | {"unknown_places": tuple(content["unknown_places"])})
        if path.stat().st_size == facts.size == facts.n_tokens * dtype.itemsize > 0 and _crc(path) == facts.crc:
            return facts
        problem = "its size or checksum is wrong"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = str(error)
    _log.warning("%s is damaged (%s) and is made again", path, problem)
    return None


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            crc = zlib.crc32(block, crc)
    return crc
