import json
import random

import pytest
from pydantic import ValidationError

from tripel.data import DataConfig, encode_corpus, load_parallel, load_splits, report_unknown
from tripel.errors import DataError
from tripel.text import TokenizerConfig, TokenizerPair

WORDS = ["the", "small", "old", "dog", "cat", "bird", "runs", "sleeps", "sings", "under", "green", "house", "tree"]


def clean_pairs(n, seed=1):
    """Different pairs whose sides are of like length."""
    rng = random.Random(seed)
    sources = [" ".join(rng.choices(WORDS, k=rng.randint(3, 20))) + f" {i}" for i in range(n)]
    return [(source, source.upper()) for source in sources]


def write(folder, name, pairs):
    for side, language in enumerate(("en", "de")):
        content = b"".join(
            (pair[side] if isinstance(pair[side], bytes) else pair[side].encode()) + b"\n" for pair in pairs
        )
        (folder / f"{name}.{language}").write_bytes(content)
    return str(folder / name)


def load(name, *, training=True, **options):
    return load_parallel(name, "en", "de", DataConfig(train=name, **options), training=training)


def row(report, kind):
    [finding] = [finding for finding in report.findings if finding.kind == kind]
    return finding


def test_clean_data_has_an_empty_report_and_is_used_whole(tmp_path):
    pairs = clean_pairs(1000)
    text, report = load(write(tmp_path, "train", pairs))
    assert not report.findings and "nothing found" in str(report)
    assert list(zip(text.sources, text.targets, strict=True)) == pairs
    assert text[3].source == pairs[3][0] and len(text) == 1000


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        (("", "x"), "empty side"),
        (("x", " \u200b "), "empty side"),
        ((b"bad \xff", "x"), "bad UTF-8"),
        (("word " * 251, "wort " * 251), "over-long line"),
        (("x" * (1 << 20), "x" * (1 << 20)), "over-long line"),
        (("x" * 2501, "y" * 2501), "over-long line"),
        (("a short line that is long enough to count", "much longer " * 40), "length ratio"),
    ],
)
def test_an_unusable_pair_is_dropped_from_training_and_named_by_file_and_line(tmp_path, pair, kind):
    pairs = clean_pairs(100)
    name = write(tmp_path, "train", [*pairs[:40], pair, *pairs[40:]])
    text, report = load(name)
    assert len(text) == 100
    finding = row(report, kind)
    assert (finding.count, finding.total, finding.action) == (1, 101, "dropped")
    assert finding.examples == (f"{name}.en:41",)
    assert kind in str(report) and report.sizes[name] == (101, 100)
    assert text.place(40) == f"{name}.en:42"


def test_a_line_that_no_reader_holds_whole_is_never_scored(tmp_path):
    pairs = [*clean_pairs(30), ("x" * (1 << 17), "y" * (1 << 17))]
    with pytest.raises(DataError, match=r"test\.en:31: the line is too long to be scored whole"):
        load(write(tmp_path, "test", pairs), training=False)


def test_nothing_is_dropped_from_or_changed_in_a_held_out_set(tmp_path):
    pairs = [*clean_pairs(100), ("", "x"), ("e\u0301\x07", "tab\there ")]
    text, report = load(write(tmp_path, "test", pairs), training=False)
    assert list(zip(text.sources, text.targets, strict=True)) == pairs
    assert row(report, "empty side").action == "kept"


def test_control_characters_are_replaced_and_counted(tmp_path):
    pairs = [*clean_pairs(50), ("a\x07b\u2028c", "\ufeffd e")]
    text, report = load(write(tmp_path, "train", pairs))
    assert (text.sources[-1], text.targets[-1]) == ("a b c", "d e")
    assert row(report, "control characters").action == "replaced"


@pytest.mark.parametrize("drop", [False, True])
def test_duplicates_are_counted_and_dropped_only_if_asked_for(tmp_path, drop):
    pairs = clean_pairs(50)
    text, report = load(write(tmp_path, "train", pairs + pairs[:5]), drop_duplicates=drop)
    assert len(text) == (50 if drop else 55)
    assert (row(report, "duplicate pair").count, row(report, "duplicate pair").action) == (
        5,
        "dropped" if drop else "kept",
    )


@pytest.mark.parametrize("training", [True, False])
def test_too_many_bad_pairs_refuse_the_data_with_the_table(tmp_path, training):
    name = write(tmp_path, "train", [*clean_pairs(90), *[("", "x")] * 6, *[(b"\xff", "x")] * 4])
    with pytest.raises(DataError, match="is refused") as caught:
        load(name, training=training)
    message = str(caught.value)
    assert "empty side in 6 of 100 pairs" in message and "bad UTF-8 in 4 of 100" in message
    assert f"{name}.en:91" in message and "max_bad_share" in message
    assert len(load(name, max_bad_share=0.1)[0]) == 90


def test_one_file_given_for_both_sides_is_refused(tmp_path):
    name = write(tmp_path, "train", [(source, source) for source, _ in clean_pairs(100)])
    with pytest.raises(DataError, match="target equals source in 100 of 100"):
        load(name)
    text, report = load(name, max_copy_share=1)
    assert len(text) == 100 and row(report, "target copies source").action == "kept"


def test_lines_shifted_by_one_are_refused(tmp_path):
    sources, targets = zip(*clean_pairs(2000), strict=True)
    with pytest.raises(DataError, match="shifted or shuffled"):
        load(write(tmp_path, "train", list(zip(sources, [*targets[1:], targets[0]], strict=True))))


def test_files_of_different_length_are_refused(tmp_path):
    name = write(tmp_path, "train", clean_pairs(10))
    with open(f"{name}.de", "a") as file:
        file.write("one more\n")
    with pytest.raises(DataError, match="different numbers of lines"):
        load(name)


def test_data_of_which_nothing_is_left_is_refused(tmp_path):
    with pytest.raises(DataError, match="no pair is left"):
        load(write(tmp_path, "train", [("", "")] * 3), max_bad_share=1)


@pytest.mark.parametrize("drop", [False, True])
def test_what_train_shares_with_valid_and_test_is_reported_and_dropped_if_asked_for(tmp_path, drop):
    pairs = clean_pairs(200)
    first, second = write(tmp_path, "train", pairs[:100]), write(tmp_path, "more", pairs[100:])
    valid = write(tmp_path, "valid", [pairs[7], (pairs[8][0].title(), "AN OTHER")])
    test = write(tmp_path, "test", [("an other", pairs[150][1])])
    config = DataConfig(train=(first, second), valid=valid, test=test, drop_overlap=drop)
    splits = load_splits(config, "en", "de")
    assert row(splits.report, f"pair also in {valid}").examples == (f"{first}.en:8",)
    assert row(splits.report, f"source also in {valid}").examples == (f"{first}.en:9",)
    assert row(splits.report, f"target also in {test}").examples == (f"{second}.en:51",)
    assert len(splits.train) == (197 if drop else 200)
    assert len(splits.valid) == 2 and len(splits.test) == 1
    index = splits.train.sources.index(pairs[160][0])
    assert splits.train.place(index) == f"{second}.en:61"


def test_a_large_share_of_unknown_tokens_is_refused_and_a_small_one_reported(tmp_path):
    train, _ = load(write(tmp_path, "train", clean_pairs(100)))
    tokenizers = TokenizerPair.train(TokenizerConfig(kind="char", shared=False), train.sources, train.targets)
    some, report = load(write(tmp_path, "some", [*clean_pairs(20), ("ß", "Ω")]))
    config = DataConfig(train="x")
    report_unknown(report, some, encode_corpus(some, tokenizers, cache_dir=tmp_path), tokenizers, config)
    finding = row(report, "unknown tokens, target")
    assert finding.count == 1 and finding.examples == (some.place(20),) and finding.action == "kept"
    other, report = load(write(tmp_path, "other", [("язык", "язык один"), ("слово", "слово два")]), max_copy_share=1)
    with pytest.raises(DataError, match="of the source tokens are unknown"):
        report_unknown(report, other, encode_corpus(other, tokenizers, cache_dir=tmp_path), tokenizers, config)


def test_a_report_is_a_table_for_people_and_an_object_for_programs(tmp_path):
    _, report = load(write(tmp_path, "train", [*clean_pairs(50), ("", "x")]))
    content = json.loads(report.to_json())
    [finding] = content["findings"]
    assert finding["kind"] == "empty side" and finding["share"] == pytest.approx(1 / 51)
    assert list(content["sizes"].values()) == [{"read": 51, "used": 50}]
    assert "1.96%" in str(report)


@pytest.mark.parametrize(
    "values", [{}, {"train": ""}, {"train": "x", "max_bad_share": 2}, {"train": "x", "trian": "y"}]
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(ValidationError):
        DataConfig(**values)


def test_a_fingerprint_depends_on_the_texts_and_nothing_else(tmp_path):
    pairs = clean_pairs(5)
    one, other = load(write(tmp_path, "a", pairs))[0], load(write(tmp_path, "b", pairs))[0]
    assert one.fingerprint == other.fingerprint
    assert load(write(tmp_path, "c", pairs[::-1]))[0].fingerprint != one.fingerprint
