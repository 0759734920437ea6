import gzip
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tripel.data import TextDataConfig, load_texts, open_text
from tripel.data import text_reading as reading
from tripel.data.names import find_texts
from tripel.data.text_checks import SeenTexts
from tripel.data.text_reading import TextReader
from tripel.errors import DataError

LONG = "This line is written to be longer than eighty characters, as no line is repeated by accident."


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPEL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content if isinstance(content, bytes) else content.encode("utf-8")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def documents(pieces):
    """The documents that pieces make up; one without an end has None after it."""
    whole, text = [], None
    for piece in pieces:
        text = (text or "") + piece.text
        if piece.ends_document:
            whole.append(text)
            text = None
    return whole if text is None else [*whole, text, None]


def read(path, documents="file", **options):
    config = TextDataConfig(train=str(path), documents=documents, **options)
    return load_texts(config)


def findings(report):
    return {finding.kind: (finding.count, finding.action, finding.examples) for finding in report.findings}


# Names.


@pytest.mark.parametrize("name", ["b.txt", "b.txt.gz", "b.jsonl", "b.jsonl.gz", "b", "b.md"])
def test_a_text_is_found_below_tripel_data_by_its_name_with_or_without_its_ending(folder, name):
    path = put(folder / "data" / "set" / name, "x")
    assert find_texts(f"set/{name}") == (path,)
    if name != "b.md":
        assert find_texts("set/b") == (path,)


def test_a_folder_is_its_text_files_in_order_without_the_folders_in_it(folder):
    paths = [put(folder / "data" / "books" / name, "x") for name in ("a.txt.gz", "b.txt", "c.jsonl")]
    put(folder / "data" / "books" / "valid" / "d.txt", "x")
    put(folder / "data" / "books" / "notes.md", "x")
    put(folder / "data" / "books" / ".hidden.txt", "x")
    assert find_texts("books") == tuple(paths)
    assert [path.name for path in find_texts("books/valid")] == ["d.txt"]


def test_a_folder_without_text_says_what_is_in_it(folder):
    put(folder / "data" / "books" / "valid" / "d.txt", "x")
    with pytest.raises(DataError, match="folder without text files") as caught:
        find_texts("books")
    assert "valid" in str(caught.value) and "to mend" in str(caught.value)


def test_a_text_that_is_not_there_names_a_near_one(folder):
    put(folder / "data" / "books" / "emma.txt", "x")
    with pytest.raises(DataError, match="there is no data books/ema") as caught:
        find_texts("books/ema")
    assert "books/emma" in str(caught.value)


# Reading.


@pytest.fixture(params=[1, 7, 64, 1 << 18], ids=lambda size: f"blocks of {size}")
def block(request, monkeypatch):
    """Small blocks and pieces, so that every way of cutting is met in a short text."""
    monkeypatch.setattr(reading, "_BLOCK_BYTES", request.param)
    monkeypatch.setattr(reading, "_PIECE", max(1, request.param // 2))


TEXT = "The first line.\nA second, with é and 🙂.\n\n  third\n\n \n\nlast 日本 words\n"


@pytest.mark.parametrize("ending", [".txt", ".txt.gz"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_is_read_as_one_document_with_line_feeds_and_no_byte_order_mark(folder, block, ending, line_end, mark):
    path = put(folder / f"a{ending}", mark + TEXT.replace("\n", line_end))
    assert documents(read(path).train) == [TEXT]


def test_lines_and_paragraphs_are_documents_if_asked_for(folder, block):
    path = put(folder / "a.txt", TEXT)
    lines = ["The first line.", "A second, with é and 🙂.", "  third", "last 日本 words"]
    assert documents(read(path, "line").train) == lines
    assert documents(read(path, "paragraph").train) == [f"{lines[0]}\n{lines[1]}", lines[2], lines[3]]
    assert [piece.line for piece in read(path, "line").train if piece.text.startswith(("The", "A", "  t", "last"))] == [
        1,
        2,
        4,
        8,
    ]


def test_a_last_line_without_an_end_is_read_too(folder, block):
    for kind in ("file", "line", "paragraph"):
        path = put(folder / "a.txt", "one\ntwo")
        assert documents(read(path, kind).train) == (["one", "two"] if kind == "line" else ["one\ntwo"])


def test_every_line_of_jsonl_is_a_document(folder, block):
    texts = ["one\r\ntwo", "é🙂", "three \n\n lines\n"]
    path = put(folder / "a.jsonl.gz", "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts))
    assert documents(read(path).train) == ["one\ntwo", *texts[1:]]
    other = put(folder / "b.jsonl", json.dumps({"body": "hello"}))
    assert documents(read(other, text_key="body").train) == ["hello"]


def test_a_piece_of_jsonl_stands_in_the_line_of_its_record(folder, block):
    text = f"a\n\n{LONG}\nb c d\n{LONG}"
    path = put(folder / "a.jsonl", (json.dumps({"text": "first"}) + "\n") + json.dumps({"text": text}) + "\n")
    assert {piece.line for piece in read(path).train} == {1, 2}
    held = put(folder / "b.txt", LONG)
    report = load_texts(TextDataConfig(train=str(path), valid=str(held))).report
    assert all(place == f"{path}:2" for count, action, places in findings(report).values() for place in places)


@given(text=st.text(st.sampled_from("ab \n\r\té日\u00a0")), block_bytes=st.integers(1, 40))
def test_the_pieces_join_to_the_text_whatever_the_size_of_a_block(tmp_path_factory, text, block_bytes):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(text.encode("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK_BYTES", block_bytes)
        patch.setattr(reading, "_PIECE", max(1, block_bytes // 2))
        pieces = list(TextReader(path, "file", "text", lambda *_: None))
    expected = text.replace("\r\n", "\n")
    assert documents(pieces) == ([expected] if expected.strip() else [])
    end = 0
    for piece in pieces:
        assert piece.line == 1 + expected.count("\n", 0, end) or not piece.text
        end += len(piece.text)
        if not piece.ends_document:
            assert expected[end] in " \n" and not expected[end - 1].isspace()


def test_pieces_are_bounded_whatever_the_length_of_a_line(folder):
    path = put(folder / "a.txt", "word " * 600_000 + "\n" + "x" * 6_000_000 + "\nend\n")
    pieces = list(read(path).train)
    assert max(len(piece.text) for piece in pieces) < 5_000_000
    assert max(len(piece.text) for piece in pieces if "word" in piece.text) < 1 << 19
    assert "".join(piece.text for piece in pieces) == path.read_text()


def test_facts_count_what_is_read_and_the_fingerprint_is_of_the_text_not_the_file(folder):
    plain = read(put(folder / "a.txt", TEXT)).train
    packed = read(put(folder / "b.txt.gz", TEXT.replace("\n", "\r\n"))).train
    assert (plain.n_chars, plain.n_bytes, plain.n_documents) == (len(TEXT), len(TEXT.encode()), 1)
    assert plain.fingerprint == packed.fingerprint
    assert plain.fingerprint != read(folder / "a.txt", "line").train.fingerprint
    assert plain.fingerprint != read(put(folder / "c.txt", TEXT + ".")).train.fingerprint


# Parts.


def test_the_last_share_of_the_characters_is_the_validation_set(folder, block):
    one, other = "".join(chr(97 + i % 26) + " \n"[i % 7 == 0] for i in range(500)), "ü" * 111 + " end"
    put(folder / "data" / "set" / "a.txt", one)
    put(folder / "data" / "set" / "b.txt", other)
    splits = load_texts(TextDataConfig(train="set", valid_share=0.1))
    whole = one + other
    n_train = int(len(whole) * 0.9)
    assert "".join(splits.train.texts()) == whole[:n_train]
    assert "".join(splits.valid.texts()) == whole[n_train:]
    assert (splits.train.n_chars, splits.valid.n_chars) == (n_train, len(whole) - n_train)
    assert documents(splits.train)[0] == one and documents(splits.train)[-1] is None, "a cut is no document's end"
    assert documents(splits.valid) == [whole[n_train:]]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_cut_between_documents_leaves_each_end_on_its_side(folder, share):
    path = put(folder / "a.txt", "aaaa\nbbbb\ncccc\ndddd\n")
    splits = read(path, "line", valid_share=share)
    whole = ["aaaa", "bbbb", "cccc", "dddd"]
    n = round(4 * (1 - share))
    assert (documents(splits.train), documents(splits.valid)) == (whole[:n], whole[n:])


def test_a_validation_set_and_a_share_are_not_asked_for_at_once():
    with pytest.raises(ValidationError, match="give one of them"):
        TextDataConfig(train="a", valid="b", valid_share=0.1)
    with pytest.raises(ValidationError, match="at least one training text"):
        TextDataConfig(train=())


def test_several_training_texts_follow_each_other(folder):
    for name in ("a", "b"):
        put(folder / f"{name}.txt", f"text {name}")
    assert documents(load_texts(TextDataConfig(train=("b", "a"))).train) == ["text b", "text a"]


# Checks.


@pytest.mark.parametrize("content", ["", "\n", " \n\t\n"])
@pytest.mark.parametrize("kind", ["file", "line", "paragraph"])
def test_a_text_without_text_is_refused_by_name(folder, content, kind):
    with pytest.raises(DataError, match=r"a\.txt has no text in it") as caught:
        read(put(folder / "a.txt", content), kind)
    assert "to mend" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x7fELF\x00\x01", "binary"),
        (b"text\n" * 30_000 + b"a\x00b\n", "binary"),
        (bytes(range(1, 32)) * 100, "binary"),
        ("text".encode("utf-16"), "UTF-16"),
        (gzip.compress(b"text"), "gzip"),
    ],
)
@pytest.mark.parametrize("ending", ["txt", "jsonl"])
def test_what_is_not_text_is_refused_by_file_and_line(folder, content, what, ending):
    if ending == "jsonl" and what == "binary":
        content = b"\x00" + content
    path = put(folder / f"a.{ending}", content)
    with pytest.raises(DataError, match=what) as caught:
        read(path)
    assert str(path) in str(caught.value)
    if content.startswith(b"text\n"):
        assert caught.value.line == 30_001


def test_a_damaged_gzip_is_refused_by_name(folder):
    path = folder / "a.txt.gz"
    path.write_bytes(gzip.compress(b"text and more\n" * 9999)[:-20])
    with pytest.raises(DataError, match="gzip file is damaged") as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_bad_utf8_is_replaced_counted_with_its_place_and_refused_above_the_share(folder):
    content = b"good\n" * 60 + b"caf\xe9 au lait\n" + b"good\n" * 39
    splits = read(put(folder / "a.txt", content))
    assert findings(splits.report) == {"bad UTF-8": (1, "replaced", (f"{folder}/a.txt:61",))}
    assert documents(splits.train) == [content.decode("utf-8", "replace")]
    (once,) = read(folder / "a.txt", valid_share=0.5).report.findings
    assert once.count == 1
    with pytest.raises(DataError, match="max_bad_share 0.001"):
        read(folder / "a.txt", max_bad_share=0.001)


def test_bad_records_are_dropped_counted_with_their_place_and_refused_above_the_share(folder):
    good = json.dumps({"text": "good"}) + "\n"
    bad = ["{", "[1]", '{"texts": "x"}', '{"text": 3}', "null", '{"text": "\\ud800"}', '"text"']
    path = put(folder / "a.jsonl", good * 150 + "".join(line + "\n" for line in bad) + "\n")
    splits = read(path)
    count, action, examples = findings(splits.report)["bad record"]
    assert (count, action, examples[0]) == (len(bad), "dropped", f"{path}:151")
    assert documents(splits.train) == ["good"] * 150
    with pytest.raises(DataError, match="bad record in 7 of 158 lines"):
        read(path, max_bad_share=0.01)


def test_repeated_documents_are_counted(folder):
    path = put(folder / "a.txt", "one\ntwo\none\nthree\none\n")
    assert findings(read(path, "line").report)["repeated document"] == (2, "kept", (f"{path}:3", f"{path}:5"))
    assert not read(path).report.findings


def test_long_lines_of_the_training_text_that_are_held_out_too_are_reported(folder):
    put(folder / "train.txt", f"a\n{LONG}\nb\n{LONG[:50]}\n")
    put(folder / "valid.txt", f"c\nd\n{LONG}\n{LONG[:50]}\n")
    put(folder / "test.txt", LONG)
    report = load_texts(TextDataConfig(train="train", valid="valid", test="test")).report
    place = "train.txt:2"
    assert findings(report) == {f"also in {name}": (1, "kept", (place,)) for name in ("valid", "test")}


def test_a_text_that_repeats_itself_is_found_in_its_own_validation_share(folder):
    put(folder / "a.txt", f"{LONG}\n" * 10)
    report = load_texts(TextDataConfig(train="a", valid_share=0.3)).report
    assert any(kind.startswith("also in a, last 30%") for kind in findings(report))
    assert "documents used" in str(report)


def test_identical_documents_of_short_lines_are_found_in_the_other_set(folder):
    poem = "short lines\n" * 9 + "end"
    put(folder / "train.jsonl", json.dumps({"text": poem}))
    put(folder / "valid.jsonl", json.dumps({"text": poem}))
    assert findings(load_texts(TextDataConfig(train="train", valid="valid")).report)["also in valid"][0] == 1


def test_of_very_many_texts_a_sample_is_remembered_that_tells_their_number(monkeypatch):
    from tripel.data import text_checks

    monkeypatch.setattr(text_checks, "_MOST_HASHES", 1000)
    seen = SeenTexts()
    for number in range(50_000):
        seen.add(f"text {number}")
    assert len(seen._hashes) <= 1000
    estimate = sum(seen.repeats(f"text {number}") for number in range(40_000, 60_000))
    assert estimate == pytest.approx(10_000, rel=0.6)


def test_a_test_set_is_opened_by_its_name(folder):
    put(folder / "data" / "set" / "test.txt", TEXT)
    config = TextDataConfig(train="nothing")
    assert documents(open_text("set/test", config)) == [TEXT]
    assert unicodedata.is_normalized("NFC", TEXT)
