"""IDX files: what was written is read, and no header is believed."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tripel.data.idx import read_idx, read_idx_pair
from tripel.errors import DataError

MANY = 10**6


def header(*sizes, type_code=8, n_dimensions=None):
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, type_code, n_dimensions or len(sizes), *sizes)


def idx(values):
    values = np.asarray(values, np.uint8)
    return header(*values.shape) + values.tobytes()


def put(folder, content, name="a-images-idx3-ubyte", packed=False):
    path = folder / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def read(path, n_dimensions=(3, 4), max_pixels=MANY):
    return read_idx(path, n_dimensions, max_pixels=max_pixels)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_packed_or_not(tmp_path_factory, shape, packed, seed):
    values = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    path = put(tmp_path_factory.mktemp("idx"), idx(values), packed=packed)
    found = read(path, (len(shape),))
    assert found.dtype == np.uint8 and found.shape == values.shape and (found == values).all()


def test_values_of_a_plain_file_stay_in_it(tmp_path):
    assert isinstance(read(put(tmp_path, idx(np.zeros((2, 3, 4))))), np.memmap)


LIES = {
    "empty": b"",
    "short magic": b"\0\0",
    "other magic": b"\x89PNG" + b"\0" * 40,
    "text": b"label,path\n" * 9,
    "unknown type": header(1, 2, 2, type_code=7) + bytes(4),
    "other type": header(1, 2, 2, type_code=0x0D) + bytes(16),
    "labels for pictures": idx(np.zeros(5)),
    "two dimensions": idx(np.zeros((2, 3))),
    "a header that breaks off": header(3, 4, 5)[:9],
    "no pictures": header(0, 28, 28),
    "no pixels": header(3, 0, 28),
    "fewer values than promised": header(3, 4, 5) + bytes(59),
    "more values than promised": header(3, 4, 5) + bytes(61),
    "an absurd number": header(2**32 - 1, 28, 28) + bytes(784),
    "absurd sides": header(1, 2**32 - 1, 2**32 - 1) + bytes(784),
    "four absurd sizes": header(*[2**32 - 1] * 4) + bytes(784),
    "many dimensions": header(1, 1, 1, n_dimensions=255) + bytes(2000),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_refused_and_names_the_file(tmp_path, lie, packed):
    path = put(tmp_path, LIES[lie], packed=packed)
    with pytest.raises(DataError, match="idx3-ubyte") as error:
        read(path)
    assert error.value.given and error.value.expected and error.value.mend


@pytest.mark.parametrize("n", [2**31, 10**7])
def test_a_header_that_promises_more_than_a_gzip_can_hold_is_refused_before_unpacking(tmp_path, n):
    path = put(tmp_path, header(n, 28, 28) + bytes(10**6), packed=True)
    with pytest.raises(DataError, match="not as many bytes") as error:
        read(path)
    assert "of gzip" in error.value.given


def test_a_gzip_that_would_fill_the_memory_is_to_be_unpacked_first(tmp_path, monkeypatch):
    monkeypatch.setattr("tripel.data.idx._MOST_UNPACKED_BYTES", 1000)
    path = put(tmp_path, idx(np.zeros((2, 28, 28))), packed=True)
    with pytest.raises(DataError, match="too large to be unpacked") as error:
        read(path)
    assert "gunzip" in error.value.mend
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert read(path.with_suffix("")).shape == (2, 28, 28)


@pytest.mark.parametrize("cut", [5, 40, 100])
def test_a_gzip_that_was_cut_short_is_told_as_such(tmp_path, cut):
    values = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    path = put(tmp_path, idx(values), packed=True)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="gzip file is damaged or cut short"):
        read(path)


def test_a_gzip_without_its_ending_is_told_as_such(tmp_path):
    path = tmp_path / "a-images-idx3-ubyte"
    path.write_bytes(gzip.compress(idx(np.zeros((2, 3, 4)))))
    with pytest.raises(DataError, match="its name does not end in .gz"):
        read(path)


def test_pictures_larger_than_allowed_are_refused(tmp_path):
    path = put(tmp_path, idx(np.zeros((1, 30, 30, 3))))
    assert read(path, max_pixels=900).shape == (1, 30, 30, 3)
    with pytest.raises(DataError, match="too large"):
        read(path, max_pixels=899)


def test_labels_and_pictures_must_be_as_many(tmp_path):
    images, labels = put(tmp_path, idx(np.zeros((4, 2, 2)))), put(tmp_path, idx(np.zeros(3)), "a-labels-idx1-ubyte")
    with pytest.raises(DataError, match="not as many labels as pictures") as error:
        read_idx_pair(images, labels, max_pixels=MANY)
    assert "3 labels, 4 pictures" in str(error.value)


def test_exchanged_files_are_said_to_be_so(tmp_path):
    images, labels = put(tmp_path, idx(np.zeros((4, 2, 2)))), put(tmp_path, idx(np.zeros(4)), "a-labels-idx1-ubyte")
    with pytest.raises(DataError, match="other values") as error:
        read_idx_pair(labels, images, max_pixels=MANY)
    assert "exchanged" in error.value.mend


def test_pictures_have_one_channel_or_three(tmp_path):
    labels = put(tmp_path, idx(np.zeros(2)), "a-labels-idx1-ubyte")
    colours, _ = read_idx_pair(put(tmp_path, idx(np.ones((2, 5, 4, 3)))), labels, max_pixels=MANY)
    assert colours.shape == (2, 5, 4, 3)
    with pytest.raises(DataError, match="number of channels"):
        read_idx_pair(put(tmp_path, idx(np.ones((2, 5, 4, 2)))), labels, max_pixels=MANY)
