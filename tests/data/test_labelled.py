"""Labelled texts: every form of file gives the same examples, and what is wrong with them is told or refused."""

import csv
import gzip
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tripel.data.classes import classes_of
from tripel.data.labelled import LabelledDataConfig, load_labelled, load_labelled_splits
from tripel.data.names import find_labelled
from tripel.errors import DataError

EXAMPLES = [
    ("a wonderful , funny film", "positive"),
    ('dull , with "stars" who sleep', "negative"),
    ('"quoted" from the first word', "positive"),
    ("naïve 日本 🙂", "negative"),
]


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
    return str(path)


def tsv(examples):
    return "".join(f"{label}\t{text}\n" for text, label in examples)


def as_csv(examples, header=("text", "label")):
    written = io.StringIO()
    csv.writer(written).writerows([header, *examples])
    return written.getvalue()


def as_jsonl(examples):
    return "".join(json.dumps({"id": 7, "text": text, "label": label}) + "\n" for text, label in examples)


FORMS = {
    "plain.tsv": tsv,
    "header.tsv": lambda examples: "id\ttext\tlabel\n" + "".join(f"7\t{text}\t{label}\n" for text, label in examples),
    "a.csv": as_csv,
    "a.jsonl": as_jsonl,
}


def read(path, *, training=True, **config):
    return load_labelled(str(path), LabelledDataConfig(train=str(path), **config), training=training)


def pairs(text):
    return list(zip(text.texts, text.labels, strict=True))


def splits(folder, train, valid=None, test=None, **config):
    names = {"train": put(folder / "train.tsv", tsv(train))}
    for name, examples in (("valid", valid), ("test", test)):
        if examples is not None:
            names[name] = put(folder / f"{name}.tsv", tsv(examples))
    return load_labelled_splits(LabelledDataConfig(**names, **config))


def findings(report):
    return {finding.kind: (finding.count, finding.action) for finding in report.findings}


def numbered(n, labels=("no", "yes"), first=0):
    return [(f"text number {i}", labels[i % len(labels)]) for i in range(first, first + n)]


# Reading.


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_examples(folder, form, packed, line_end, mark):
    content = FORMS[form](EXAMPLES).replace("\r\n", "\n").replace("\n", line_end)
    text, report = read(put(folder / f"{form}{packed}", mark + content))
    assert pairs(text) == EXAMPLES
    assert not report.findings


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(texts.map(str.strip), st.sampled_from(["a", "b"])), min_size=1, max_size=6))
def test_what_a_csv_or_json_library_writes_is_read_back(tmp_path_factory, examples):
    folder = tmp_path_factory.mktemp("written")
    read_back = [
        pairs(read(put(folder / name, form(examples)), training=False)[0])
        for name, form in (("a.csv", as_csv), ("a.jsonl", as_jsonl))
    ]
    assert read_back == [examples, examples]


def test_a_quoted_text_may_hold_commas_quotes_and_lines_and_keeps_the_line_it_begins_in(folder):
    examples = [("one, two", "x"), ('she said "no"\nand left', "y"), ("last", "x")]
    text, _ = read(put(folder / "a.csv", as_csv(examples)))
    assert pairs(text) == examples
    assert [place.rpartition(":")[2] for place in text.places] == ["2", "3", "5"]


def test_columns_may_have_other_names(folder):
    config = {"text_column": "review", "label_column": "stars"}
    for name, content in (
        ("a.csv", "stars,id,review\n5,1,good\n1,2,bad\n"),
        ("a.tsv", "stars\tid\treview\n5\t1\tgood\n1\t2\tbad\n"),
        ("a.jsonl", '{"review": "good", "stars": 5}\n{"review": "bad", "stars": 1}\n'),
    ):
        assert pairs(read(put(folder / name, content), **config)[0]) == [("good", "5"), ("bad", "1")]


@pytest.mark.parametrize(
    ("written", "label"), [("5", "5"), ("1.0", "1"), ("0.5", "0.5"), ("12345678", "12345678"), ("true", "true")]
)
def test_a_label_that_json_writes_without_quotes_is_a_string(folder, written, label):
    content = f'{{"text": "a b", "label": {written}}}\n'
    assert pairs(read(put(folder / "a.jsonl", content))[0]) == [("a b", label)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text;label\ngood;5\n"),
        ("a.csv", "text,stars\ngood,5\n"),
        ("a.tsv", "text\tstars\ngood\t5\n"),
        ("a.jsonl", '{"text": "good", "stars": 5}\n'),
    ],
)
def test_a_missing_column_names_those_that_are_there(folder, name, content):
    with pytest.raises(DataError, match=rf"{name}:1: the file has no column (label|text)") as error:
        read(put(folder / name, content))
    assert "stars" in str(error.value) or "text;label" in str(error.value)
    assert "data.label_column" in str(error.value) or "data.text_column" in str(error.value)


def test_a_column_that_is_named_otherwise_must_be_in_a_header(folder):
    with pytest.raises(DataError, match="no column text"):
        read(put(folder / "a.tsv", tsv(EXAMPLES)), label_column="stars")


def test_a_quote_that_is_never_closed_is_refused_where_it_opens(folder):
    path = put(folder / "a.csv", 'text,label\nfine,x\n"never closed,y\nfine,x\n')
    with pytest.raises(DataError, match="a.csv:3: from this line on"):
        read(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_line_without_end_does_not_hide_those_after_it(folder, form):
    long = [*EXAMPLES[:2], ("w" * 3_000_000, "positive"), *EXAMPLES[2:]]
    text, report = read(put(folder / form, FORMS[form](long)), max_bad_share=1)
    assert pairs(text) == EXAMPLES
    assert findings(report) == {"over-long line": (1, "dropped")}


def test_blank_lines_are_no_examples(folder):
    for name, form in FORMS.items():
        text, report = read(put(folder / name, form(EXAMPLES).replace("\n", "\n\n")))
        assert pairs(text) == EXAMPLES and not report.findings, name


def test_a_name_is_found_below_tripel_data_in_every_form(folder):
    for ending in (".tsv", ".csv", ".jsonl", ".tsv.gz", ".csv.gz", ".jsonl.gz"):
        path = folder / "data" / "set" / f"train{ending}"
        put(path, "x")
        assert find_labelled("set/train") == find_labelled(f"set/train{ending}") == path
        path.unlink()


def test_a_name_that_is_not_there_names_a_near_one_and_another_form_is_refused(folder):
    put(folder / "data" / "set" / "train.csv", "x")
    put(folder / "data" / "set" / "notes.txt", "x")
    with pytest.raises(DataError, match="there is no data set/tran") as error:
        find_labelled("set/tran")
    assert "set/train" in str(error.value)
    with pytest.raises(DataError, match="not in a form that has labels"):
        find_labelled("set/notes.txt")


# Checks.

BAD = {
    "bad UTF-8": b"x\tcaf\xe9 au lait\n",
    "bad record": b"no tab here\n",
    "empty text": b"x\t  \n",
    "empty label": b" \ta text\n",
    "over-long text": b"x\t" + b"word " * 30 + b"\n",
}


@pytest.mark.parametrize("kind", BAD)
def test_an_unusable_example_is_dropped_from_training_data_and_told_with_its_line(folder, kind):
    path = put(folder / "a.tsv", tsv(EXAMPLES).encode() + BAD[kind])
    text, report = read(path, max_chars=100, max_bad_share=0.5)
    assert pairs(text) == EXAMPLES
    (finding,) = report.findings
    assert (finding.kind, finding.count, finding.action) == (kind, 1, "dropped")
    assert finding.examples == (f"{path}:5",)
    with pytest.raises(DataError, match=f"{kind} in 1 of 5 examples"):
        read(path, max_chars=100, max_bad_share=0.1)


@pytest.mark.parametrize("kind", BAD)
def test_of_a_test_set_only_what_has_no_label_is_left_out(folder, kind):
    path = put(folder / "a.tsv", tsv(EXAMPLES).encode() + BAD[kind])
    text, report = read(path, training=False, max_chars=100, max_bad_share=0.5)
    without = kind in ("bad record", "empty label")
    assert len(text) == (4 if without else 5)
    assert findings(report) == {kind: (1, "dropped" if without else "kept")}


@pytest.mark.parametrize(
    "record", ["[]", "7", "nonsense", '{"text": 3, "label": "x"}', '{"text": "a", "label": null}',
               '{"text": "a", "label": ["x", "y"]}', '{"text": "\\ud83d", "label": "x"}', '{"text": "a"}']
)  # fmt: skip
def test_a_json_record_that_is_no_example_is_a_bad_record(folder, record):
    text, report = read(put(folder / "a.jsonl", as_jsonl(EXAMPLES) + record + "\n"), max_bad_share=0.5)
    assert pairs(text) == EXAMPLES and findings(report) == {"bad record": (1, "dropped")}


def test_control_characters_are_replaced_in_training_texts(folder):
    path = put(folder / "a.tsv", "x\ta\x07b\u200bc\ny\td\n")
    assert pairs(read(path)[0]) == [("a bc", "x"), ("d", "y")]
    assert findings(read(path)[1]) == {"control characters": (1, "replaced")}
    assert read(path, training=False)[0].texts == ["a\x07b\u200bc", "d"]


@pytest.mark.parametrize("drop", [False, True])
def test_repeats_and_conflicting_labels_are_told_also_between_files_and_dropped_if_asked_for(folder, drop):
    first = put(folder / "a.tsv", tsv([("good", "x"), ("bad", "y"), ("Good ", "x")]))
    second = put(folder / "b.tsv", tsv([("bad", "x"), ("fine", "x")]))
    loaded = load_labelled_splits(LabelledDataConfig(train=(first, second), drop_duplicates=drop))
    kept = [("good", "x"), ("bad", "y"), ("fine", "x")]
    assert pairs(loaded.train) == (
        kept if drop else [("good", "x"), ("bad", "y"), ("Good", "x"), ("bad", "x"), ("fine", "x")]
    )
    action = "dropped" if drop else "kept"
    assert findings(loaded.report) == {"duplicate": (1, action), "conflicting labels": (1, action)}


@pytest.mark.parametrize("drop", [False, True])
def test_a_training_text_that_is_also_in_another_set_is_told_and_dropped_if_asked_for(folder, drop):
    loaded = splits(
        folder, numbered(10), [("TEXT number 3", "no"), ("other", "yes")], [("text number 4", "no")], drop_overlap=drop
    )
    told = {kind: found for kind, found in findings(loaded.report).items() if kind.startswith("also in")}
    assert {count for count, _ in told.values()} == {1} and len(told) == 2
    assert {action for _, action in told.values()} == {"dropped" if drop else "kept"}
    assert len(loaded.train) == (8 if drop else 10)


def test_unequal_classes_and_labels_that_differ_in_case_are_told(folder):
    loaded = splits(folder, numbered(40, ("often",)) + [("rare text", "rarely"), ("another", "Often")])
    kinds = " ".join(findings(loaded.report))
    assert "unequal classes: often 40, " in kinds
    assert "labels that differ in case alone: 'Often', 'often'" in kinds


# Classes.


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["positive", "negative"], ("negative", "positive")),
        (["10", "9", "2.5", "-1"], ("-1", "2.5", "9", "10")),
        (["1", "01", "1.0"], ("01", "1", "1.0")),
        (["nan", "inf", "3"], ("3", "inf", "nan")),
    ],
)
def test_classes_are_sorted_numbers_by_value(folder, labels, expected):
    train = splits(folder, [(f"text {i}", label) for i, label in enumerate(labels)]).train
    assert classes_of(train) == expected
    assert all(isinstance(label, str) for label in train.labels)


@pytest.mark.parametrize("train", [[("a", "x")], [("a", "x"), ("b", "x"), ("c", "x ")]])
def test_one_class_only_is_refused(folder, train):
    with pytest.raises(DataError, match="one class only") as error:
        splits(folder, train)
    assert "'x'" in str(error.value)


def test_text_in_place_of_the_label_is_refused(folder):
    with pytest.raises(DataError, match="a label of its own"):
        splits(folder, [(label, text) for text, label in numbered(30)])


@pytest.mark.parametrize("side", ["valid", "test"])
def test_a_label_unseen_in_training_is_refused_by_name_and_place(folder, side):
    with pytest.raises(DataError, match=f"{side}.tsv has labels that the training set has not") as error:
        splits(folder, numbered(8), **{side: [("a", "no"), ("b", "maybe")]})
    assert f"'maybe' at {folder / side}.tsv:2" in str(error.value)


def test_data_of_which_nothing_is_left_is_refused(folder):
    with pytest.raises(DataError, match="no example is left"):
        read(put(folder / "a.tsv", "x\t \n"), max_bad_share=1)
    with pytest.raises(DataError, match="no example is left"):
        splits(folder, numbered(4), numbered(4), drop_overlap=True)


# The validation share.


def test_the_validation_share_is_drawn_by_the_texts_alone_and_parts_the_training_set(folder):
    examples = numbered(2000)
    loaded = splits(folder, examples, valid_share=0.2)
    assert sorted(pairs(loaded.train) + pairs(loaded.valid)) == sorted(examples)
    assert len(loaded.valid) == pytest.approx(400, abs=80)
    more = splits(folder, list(reversed(examples)) + numbered(500, first=2000), valid_share=0.2)
    assert set(loaded.valid.texts) == {text for text in more.valid.texts if int(text.split()[-1]) < 2000}


def test_equal_texts_are_never_on_both_sides_of_the_validation_share(folder):
    examples = numbered(200) + [(text.upper(), label) for text, label in numbered(200)]
    loaded = splits(folder, examples, valid_share=0.3)
    train, valid = ({text.lower() for text in side.texts} for side in (loaded.train, loaded.valid))
    assert not train & valid and len(train | valid) == 200


def test_a_class_of_one_example_stays_in_the_training_set(folder):
    for number in range(20):
        loaded = splits(folder, numbered(60) + [(f"single {number}", "rare")], valid_share=0.5)
        assert "rare" in loaded.train.labels and "rare" not in loaded.valid.labels


def test_a_validation_set_and_a_share_exclude_each_other():
    with pytest.raises(ValidationError, match="give one of them"):
        LabelledDataConfig(train="a", valid="b", valid_share=0.1)
    with pytest.raises(ValidationError, match="at least one training set"):
        LabelledDataConfig(train=())


def test_texts_of_several_lines_are_not_taken_for_others(folder):
    first, second = (
        read(put(folder / "a.csv", as_csv(examples)))[0]
        for examples in ([("a\nb", "x"), ("c", "y")], [("a", "x"), ("b\nc", "y")])
    )
    assert first.fingerprint != second.fingerprint


@pytest.mark.skipif("TRIPEL_DATA" not in os.environ, reason="needs real data: set TRIPEL_DATA")
def test_the_real_sets_are_read_whole():
    polarity = load_labelled_splits(
        LabelledDataConfig(
            train="sentence-polarity/train", valid="sentence-polarity/valid", test="sentence-polarity/test"
        )
    )
    assert [len(side) for side in (polarity.train, polarity.valid, polarity.test)] == [8509, 1054, 1097]
    assert polarity.labels == ("negative", "positive") and not polarity.report.findings
    trec = load_labelled_splits(LabelledDataConfig(train="trec/train", test="trec/test"))
    assert (len(trec.train), len(trec.test)) == (5441, 500)
    assert trec.labels == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
