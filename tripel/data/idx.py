"""IDX, the format of MNIST: a header of big-endian numbers, then the values (http://yann.lecun.com/exdb/mnist/).

    0  0  type  n_dimensions  |  the size of each, uint32  |  the values, the last dimension fastest

Nothing that a header says is believed before it is compared with what the file holds.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tripel.data.readers import READ_ERRORS, open_binary, unreadable
from tripel.errors import DataError

_UINT8 = 0x08
_TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
# What deflate can pack at best (zlib's technical notes): a header that promises more than so many times the file lies.
_MOST_PACKED = 1032
# Of a packed file all values are held in memory; those of others stay in the file.
_MOST_UNPACKED_BYTES = 4 << 30
_BLOCK_BYTES = 1 << 24


def read_idx(path: Path, n_dimensions: tuple[int, ...], *, max_pixels: int = 1) -> np.ndarray:
    """The values of an IDX file of bytes, uint8, of one of these numbers of dimensions; mapped from the file if it is not
    a .gz. max_pixels: of each of the values along the first dimension, channels not counted.

    Raises DataError for a file that is unreadable, is not IDX, has other dimensions or types, or has not exactly as many
    bytes as its header says.
    """
    try:
        with open_binary(path) as file:
            shape = _shape(path, file, n_dimensions)
            _require_sizes(path, shape, max_pixels)
            return _mapped(path, file, shape) if path.suffix != ".gz" else _unpacked(path, file, shape)
    except READ_ERRORS as error:
        raise unreadable(path, None, error) from None


def read_idx_pair(images: Path, labels: Path, *, max_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, uint8 [n, height, width] or [n, height, width, 3], and their numbers, uint8 [n].

    Raises DataError as read_idx does, and where the files are not of equal length.
    """
    pictures, numbers = read_idx(images, (3, 4), max_pixels=max_pixels), read_idx(labels, (1,))
    if pictures.ndim == 4 and pictures.shape[3] != 3:
        raise DataError(
            "the pictures have a number of channels that is not known",
            file=images,
            given=f"{' x '.join(map(str, pictures.shape))}: {pictures.shape[3]} channels",
            expected="n x height x width of grey pictures, n x height x width x 3 of colours",
            mend="write it anew so that red, green and blue come last",
        )
    if len(pictures) != len(numbers):
        raise DataError(
            "there are not as many labels as pictures",
            file=labels,
            given=f"{len(numbers):,} labels, {len(pictures):,} pictures in {images}",
            expected="equal numbers",
            mend="look whether both files belong to one set",
        )
    return pictures, numbers


def _shape(path: Path, file: BinaryIO, n_dimensions: tuple[int, ...]) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        packed = magic.startswith(b"\x1f\x8b")
        raise DataError(
            "the file is gzip, but its name does not end in .gz" if packed else "the file is not in the format IDX",
            file=path,
            given=f"first bytes {magic.hex(' ') or 'none: it is empty'}",
            expected=f"00 00 08 {' or '.join(f'{n:02x}' for n in n_dimensions)}",
            mend="rename it so that it does" if packed else "look where it comes from, and fetch it again",
        )
    if magic[2] != _UINT8 or magic[3] not in n_dimensions:
        raise DataError(
            "the file holds other values than these",
            file=path,
            given=f"{_TYPES[magic[2]]} of {magic[3]} dimensions",
            expected=f"uint8 of {' or '.join(map(str, n_dimensions))} (labels have one, grey pictures three)",
            mend="look whether the files of pictures and labels were exchanged",
        )
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise _wrong_length(path, f"{4 + len(sizes)} bytes", "a header of dimensions before the values")
    return tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))


def _require_sizes(path: Path, shape: tuple[int, ...], max_pixels: int) -> None:
    """Before anything is allocated."""
    n_bytes, length = math.prod(shape), path.stat().st_size
    written = " x ".join(map(str, shape))
    if not n_bytes:
        raise DataError("the file is empty", file=path, given=written, expected="some values", mend="fetch it again")
    if math.prod(shape[1:3]) > max_pixels:
        raise DataError(
            "the pictures are too large",
            file=path,
            given=f"{written} by its header",
            expected=f"{max_pixels:,} pixels each at most",
            mend="fetch the file again, or raise data.max_pixels if this is meant to be so",
        )
    if path.suffix != ".gz":
        if length != 4 + 4 * len(shape) + n_bytes:
            raise _wrong_length(path, f"{length:,} bytes", f"{4 + 4 * len(shape) + n_bytes:,} for {written}")
    elif n_bytes > length * _MOST_PACKED:
        raise _wrong_length(path, f"{length:,} bytes of gzip", f"{n_bytes:,} unpacked for {written}")
    elif n_bytes > _MOST_UNPACKED_BYTES:
        raise DataError(
            "the file is too large to be unpacked in memory",
            file=path,
            given=f"{n_bytes:,} bytes by its header",
            expected=f"{_MOST_UNPACKED_BYTES:,} at most",
            mend="unpack it with gunzip: the values then stay in the file",
        )


def _mapped(path: Path, file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, np.uint8, "r", offset=file.tell(), shape=shape)


def _unpacked(path: Path, file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    values = np.empty(math.prod(shape), np.uint8)  # pages that are never written cost nothing
    view, done = values.data, 0
    while done < len(values) and (block := file.read(min(_BLOCK_BYTES, len(values) - done))):
        view[done : done + len(block)] = block
        done += len(block)
    if done < len(values) or file.read(1):
        held = f"{done:,} values" if done < len(values) else f"more than {done:,} values"
        raise _wrong_length(path, held, f"{len(values):,} for {' x '.join(map(str, shape))}")
    return values.reshape(shape)


def _wrong_length(path: Path, given: str, expected: str) -> DataError:
    return DataError(
        "the file has not as many bytes as its header says",
        file=path,
        given=given,
        expected=expected,
        mend="it was cut short or is damaged: fetch it again",
    )
