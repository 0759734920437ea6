"""Pixels of sets of pictures: decoded once and kept in the user's cache, or decoded whenever they are read.

What is kept has a key made of all the files' contents, the form asked for and the code's version: a picture that is
changed, added or renamed never meets the pixels of another.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL

from tripel.data.cache import cache_key, cached
from tripel.data.decoding import Decoder, Form, Originals, digest_of
from tripel.errors import DataError
from tripel.files import atomic_writer, cache_folder

_log = logging.getLogger(__name__)

# Part of every key: to be raised when the same pictures would give other pixels.
_VERSION = "1"
_GIB = 1 << 30
_BLOCK_BYTES = 1 << 22
_FILES_AT_ONCE = 64


class Pixels(Protocol):
    """Pictures of one form, by number."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [len(rows), channels, size, size]."""
        ...

    def moments(self, rows: np.ndarray) -> np.ndarray:
        """int64 [2, channels]: the sum of the levels, 0 to 255, of all their pixels, and of their squares."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A set's pictures, looked through once. digests: uint64, equal for equal pictures, whatever file they are in; made
    before their size is changed. sizes: int64 [n, 2], their width and height. problems: by number, of those that cannot be
    used, the cause."""

    pixels: Pixels
    digests: np.ndarray
    sizes: np.ndarray
    problems: Mapping[int, str]


def prepare(originals: Originals, form: Form, *, cache_gib: float, workers: int) -> Prepared:
    """Decode pictures, unless that was done before, and say what they are. cache_gib, workers: see ImageDataConfig.

    Raises DataError when a process that decodes dies.
    """
    if not len(originals):
        nothing = np.zeros((0, *form.shape), np.uint8)
        return Prepared(ArrayPixels(nothing), np.zeros(0, np.uint64), np.zeros((0, 2), np.int64), {})
    if isinstance(originals, np.ndarray):
        planes = originals[:, None] if originals.ndim == 3 else originals.transpose(0, 3, 1, 2)
        if planes.shape[1:] == form.shape:
            digests = np.array([digest_of(pixels) for pixels in originals], np.uint64)
            sizes = np.broadcast_to(np.array([form.size, form.size]), (len(originals), 2))
            return Prepared(ArrayPixels(planes), digests, sizes, {})
    return _Preparation(originals, form, cache_gib, workers).result()


@dataclass(frozen=True)
class ArrayPixels:
    """Pixels in memory, or in a file that is mapped into it. array: uint8 [n, channels, size, size]."""

    array: np.ndarray

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.array[rows])

    def moments(self, rows: np.ndarray) -> np.ndarray:
        total = np.zeros((2, self.array.shape[1]), np.int64)
        at_once = max(1, _BLOCK_BYTES // math.prod(self.array.shape[1:]))
        for first in range(0, len(rows), at_once):
            total += _moments_of_each(self.array[rows[first : first + at_once]]).sum(axis=0)
        return total


@dataclass(frozen=True)
class DecodedPixels:
    """Pixels that are decoded when they are read. of_each: int64 [n, 2, channels], the moments, counted once."""

    originals: Originals
    decoder: Decoder
    of_each: np.ndarray

    def read(self, rows: np.ndarray) -> np.ndarray:
        seen = [one for part in self.decoder.read(rows.tolist()) for one in part]
        for row, (looked, _) in zip(rows.tolist(), seen, strict=True):
            if looked.problem is not None:
                raise DataError(
                    f"a picture could be read at the start and now cannot: {looked.problem}",
                    file=None if isinstance(self.originals, np.ndarray) else self.originals[row],
                    expected="files that stay as they are while they are used",
                    mend="start again",
                )
        return np.stack([pixels for _, pixels in seen if pixels is not None])

    def moments(self, rows: np.ndarray) -> np.ndarray:
        return self.of_each[rows].sum(axis=0)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class JoinedPixels:
    """Those of several sets, one after the other. lengths: of each."""

    parts: Sequence[Pixels]
    lengths: Sequence[int]

    def read(self, rows: np.ndarray) -> np.ndarray:
        places, found = zip(
            *((mine, self.parts[k].read(own)) for k, own, mine in shares(rows, self.lengths)), strict=True
        )
        pixels = np.empty((len(rows), *found[0].shape[1:]), np.uint8)
        for mine, part in zip(places, found, strict=True):
            pixels[mine] = part
        return pixels

    def moments(self, rows: np.ndarray) -> np.ndarray:
        found = [self.parts[k].moments(own) for k, own, _ in shares(rows, self.lengths)]
        return np.sum(found, axis=0)  # type: ignore[no-any-return]


def shares(rows: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Of sets of these lengths that are numbered one after the other, each that rows ask of: which it is, the numbers of
    its pictures, and where they stand among rows."""
    start = 0
    for k, length in enumerate(lengths):
        mine = np.flatnonzero((rows >= start) & (rows < start + length))
        if len(mine):
            yield k, rows[mine] - start, mine
        start += length


class _Preparation:
    """One run of prepare. What was seen of the pictures is kept under the key; if there is room, so are their pixels."""

    def __init__(self, originals: Originals, form: Form, cache_gib: float, workers: int) -> None:
        self._originals, self._form, self._workers = originals, form, workers
        self._shape = (len(originals), *form.shape)
        self._keeps = math.prod(self._shape) <= cache_gib * _GIB
        key = cache_key("pictures", _VERSION, PIL.__version__, *astuple(form), _content(originals))
        folder = cache_folder() / "pictures"
        self._table, self._pixels = folder / f"{key}.{'kept' if self._keeps else 'seen'}.npz", folder / f"{key}.pixels"
        self._in_memory: np.ndarray | None = None

    def result(self) -> Prepared:
        table = cached(self._table, self._compute, self._is_whole)
        problems = {int(row): problem for row, problem in json.loads(table["problems"].tobytes()).items()}
        return Prepared(self._source(table["moments"]), table["digests"], table["sizes"], problems)

    def _source(self, moments: np.ndarray) -> Pixels:
        if not self._keeps:
            decoder = Decoder(self._originals, self._form, self._workers)
            return DecodedPixels(self._originals, decoder, moments)
        return ArrayPixels(self._mapped() if self._in_memory is None else self._in_memory)

    def _mapped(self) -> np.ndarray:
        return np.memmap(self._pixels, np.uint8, "r", shape=self._shape)

    def _is_whole(self, table: Mapping[str, np.ndarray]) -> bool:
        """Whether what was stored is all there."""
        lengths = {name: table[name].shape for name in ("digests", "sizes", "moments", "problems", "checksum")}
        n, channels = self._shape[:2]
        if lengths["digests"] != (n,) or lengths["sizes"] != (n, 2) or lengths["moments"] != (n, 2, channels):
            return False
        if not self._keeps:
            return True
        try:
            whole = self._pixels.stat().st_size == math.prod(self._shape)
            whole = whole and _checksum(self._mapped()) == int(table["checksum"])
        except FileNotFoundError:
            return False
        if not whole:
            _log.warning("%s is damaged and is made again", self._pixels)
        return whole

    def _compute(self) -> Mapping[str, np.ndarray]:
        if not self._keeps:
            return self._decode(lambda _: None)
        try:
            with atomic_writer(self._pixels) as file:
                return self._decode(lambda pixels: file.write(pixels.data))
        except OSError as error:
            _log.warning(
                "%s cannot be written (%s): pictures will be decoded again at the next start",
                self._pixels,
                error.strerror,
            )
        kept: list[np.ndarray] = []
        table = self._decode(kept.append)
        self._in_memory = np.concatenate(kept)
        return table

    def _decode(self, keep: Callable[[np.ndarray], object]) -> Mapping[str, np.ndarray]:
        """Look at all pictures; keep is given their pixels in order, zeros for those that have none."""
        n, channels = self._shape[:2]
        digests, sizes, moments = (
            np.zeros(n, np.uint64),
            np.zeros((n, 2), np.int64),
            np.zeros((n, 2, channels), np.int64),
        )
        problems, checksum, row = {}, 0, 0
        blank = np.zeros(self._form.shape, np.uint8)
        with Decoder(self._originals, self._form, self._workers) as decoder:
            for part in decoder.read(range(n)):
                pixels = np.stack([blank if found is None else found for _, found in part])
                keep(pixels)
                checksum = zlib.crc32(pixels.data, checksum)
                moments[row : row + len(part)] = _moments_of_each(pixels)
                for looked, _ in part:
                    digests[row], sizes[row] = looked.digest, (looked.width, looked.height)
                    if looked.problem is not None:
                        problems[row] = looked.problem
                    row += 1
        written = np.frombuffer(json.dumps(problems).encode(), np.uint8)
        checksums = np.array(checksum, np.uint32)
        return {"digests": digests, "sizes": sizes, "moments": moments, "problems": written, "checksum": checksums}


def _moments_of_each(pixels: np.ndarray) -> np.ndarray:
    """int64 [n, 2, channels]: see Pixels.moments. Exact, whatever the order in which they are added up."""
    levels = pixels.reshape(*pixels.shape[:2], -1).astype(np.uint32)
    return np.stack([levels.sum(axis=2, dtype=np.int64), (levels * levels).sum(axis=2, dtype=np.int64)], axis=1)


def _checksum(pixels: np.ndarray) -> int:
    checksum = 0
    for first in range(0, len(pixels), at_once := max(1, _BLOCK_BYTES // pixels[0].nbytes)):
        checksum = zlib.crc32(pixels[first : first + at_once].data, checksum)
    return checksum


def _content(originals: Originals) -> str:
    """A hash of everything that pictures are decoded from."""
    if isinstance(originals, np.ndarray):
        return f"{originals.shape} {hashlib.sha256(np.ascontiguousarray(originals).data).hexdigest()}"
    parts = (originals[first : first + _FILES_AT_ONCE] for first in range(0, len(originals), _FILES_AT_ONCE))
    with ThreadPoolExecutor(thread_name_prefix="hashing") as threads:
        found = threads.map(lambda part: "\n".join(map(_content_of, part)), parts)
        return hashlib.sha256("\n".join(found).encode("utf-8", "surrogatepass")).hexdigest()


def _content_of(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return f"{file}: {error}"
