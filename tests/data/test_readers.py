import builtins
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripel.data.names import PairFiles
from tripel.data.readers import Pair, read_lines, read_pairs
from tripel.errors import DataError


def write(path, content):
    content = content.encode("utf-8") if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def texts(path, **options):
    return [line.text for line in read_lines(path, **options)]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_read_without_their_ends_whether_or_not_the_last_has_one(tmp_path, name, end):
    for last in ("", end):
        path = write(tmp_path / name, f"one{end}{end}drei Häuser{last}")
        assert [(line.text, line.number) for line in read_lines(path)] == [("one", 1), ("", 2), ("drei Häuser", 3)]


@given(lines=st.lists(st.text().map(lambda text: text.replace("\n", " ").rstrip("\r")), min_size=1))
def test_only_a_newline_ends_a_line_whatever_else_is_in_it(tmp_path_factory, lines):
    lines = ["first", *(line.replace("\0", "") for line in lines)]
    path = write(tmp_path_factory.mktemp("lines") / "a.txt", "".join(line + "\n" for line in lines))
    assert texts(path) == lines


def test_a_byte_order_mark_is_not_text(tmp_path):
    assert texts(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\ntwo")) == ["one", "two"]


def test_bad_utf8_is_said_of_its_line_and_reading_goes_on(tmp_path):
    path = write(tmp_path / "a.txt", b"good\nbad \xff\xfe here\nM\xfcller\ngood")
    assert [line.problem for line in read_lines(path)] == [None, "bad UTF-8", "bad UTF-8", None]
    assert texts(path)[2] == "M\ufffdller"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("length", [999, 1000, 1001, 1002, 1003, 1004, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_over_the_limit_is_cut_and_said_to_be_over_long_and_the_next_is_whole(tmp_path, name, length, end):
    path = write(tmp_path / name, "x" * length + end + "next")
    first, second = read_lines(path, max_bytes=1000)
    assert first.text == "x" * min(length, 1000)
    assert first.problem == ("over-long line" if length > 1000 else None)
    assert (second.text, second.number, second.problem) == ("next", 2, None)


def test_an_over_long_line_is_never_held_whole(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "ü" * (1 << 20) + "\nnext\n")
    sizes = []
    real = builtins.open

    def watching(*args, **options):
        file = real(*args, **options)

        class Watched:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def peek(self, size):
                return file.peek(size)

            def readline(self, size):
                sizes.append(size)
                return file.readline(size)

        return Watched()

    monkeypatch.setattr(builtins, "open", watching)
    assert [line.number for line in read_lines(path)] == [1, 2]
    assert 0 < max(sizes) < 1 << 17


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"PNG\0\0\0\1", "binary"),
        ("hello\n".encode("utf-16"), "UTF-16"),
        (gzip.compress(b"hello"), "gzip, but its name"),
    ],
)
def test_a_file_that_is_not_text_is_refused(tmp_path, content, says):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        list(read_lines(path))
    assert caught.value.file == path and caught.value.mend


def test_a_missing_file_and_a_folder_are_said_to_be_so(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(read_lines(tmp_path / "none.txt"))
    with pytest.raises(DataError, match="a folder"):
        list(read_lines(tmp_path))


def test_a_file_that_may_not_be_read_is_said_to_be_so(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.txt", "x\n")
    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(DataError, match="may not read"):
        list(read_lines(path))


def test_a_disk_error_is_said_to_be_one(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    path = write(tmp_path / "a.txt", "x\n")
    monkeypatch.setattr(builtins, "open", fail)
    with pytest.raises(DataError, match="Input/output error"):
        list(read_lines(path))


@pytest.mark.parametrize("keep", [1, 5, 12, 200, -3])
def test_a_gzip_file_cut_short_is_refused(tmp_path, keep):
    whole = gzip.compress("".join(f"line {n * n}\n" for n in range(2000)).encode())
    path = tmp_path / "a.txt.gz"
    path.write_bytes(whole[:keep])
    with pytest.raises(DataError, match="damaged or cut short"):
        list(read_lines(path))


@pytest.mark.parametrize("place", [0, 20, 300, -6])
def test_a_gzip_file_with_a_wrong_byte_is_refused(tmp_path, place):
    content = bytearray(gzip.compress("".join(f"line {n * n}\n" for n in range(2000)).encode()))
    content[place] ^= 0x55
    path = tmp_path / "a.txt.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged or cut short|binary"):
        list(read_lines(path))


def lines_of(tmp_path, sources, targets):
    files = write(tmp_path / "s.en", "".join(sources)), write(tmp_path / "s.de.gz", "".join(targets))
    return PairFiles("lines", *files)


def test_two_line_files_are_read_as_pairs(tmp_path):
    files = lines_of(tmp_path, ["one\n", "two\n"], ["eins\n", "zwei\n"])
    assert list(read_pairs(files, "en", "de")) == [Pair("one", "eins", 1), Pair("two", "zwei", 2)]


@pytest.mark.parametrize(("n_source", "n_target"), [(3, 5), (5, 3), (1, 2), (2, 1), (3, 4)])
def test_line_files_of_different_length_are_refused_with_both_counts(tmp_path, n_source, n_target):
    files = lines_of(tmp_path, ["x\n"] * n_source, ["y\n"] * n_target)
    with pytest.raises(DataError, match="different numbers of lines") as caught:
        list(read_pairs(files, "en", "de"))
    assert f"{n_source} lines in" in str(caught.value) and f"{n_target} in" in str(caught.value)
    assert caught.value.line == min(n_source, n_target) + 1


def test_tsv_has_two_columns_and_other_lines_are_bad_records(tmp_path):
    path = write(tmp_path / "a.tsv", 'a "b"\tc\nonly one\nx\ty\tz\n\t\n')
    pairs = list(read_pairs(PairFiles("tsv", path, path), "en", "de"))
    assert [(p.source, p.target) for p in pairs if p.problem is None] == [('a "b"', "c"), ("", "")]
    assert [p.line for p in pairs if p.problem == "bad record"] == [2, 3]


def test_jsonl_takes_source_and_target_languages_and_translation_records(tmp_path):
    records = [
        {"source": "a", "target": "b", "more": 1},
        {"en": "a", "de": "b", "fr": "c"},
        {"translation": {"de": "b", "en": "a"}},
    ]
    path = write(tmp_path / "a.jsonl.gz", "".join(json.dumps(record) + "\n" for record in records))
    assert [(p.source, p.target) for p in read_pairs(PairFiles("jsonl", path, path), "en", "de")] == [("a", "b")] * 3


@pytest.mark.parametrize(
    "record",
    ["{", "", "[1]", "3", '{"source": "a"}', '{"source": 1, "target": "b"}', '{"translation": 3}', "[" * 50_000],
)
def test_a_jsonl_line_without_a_pair_is_a_bad_record(tmp_path, record):
    path = write(tmp_path / "a.jsonl", '{"source": "a", "target": "b"}\n' + record + "\n")
    pairs = list(read_pairs(PairFiles("jsonl", path, path), "en", "de"))
    assert [p.problem for p in pairs] == [None, "bad record"]
