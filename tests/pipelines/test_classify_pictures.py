"""`tripel classify` for pictures, as a person types it."""

import gzip
import io
import json
import os
import sys

import pytest
from encoders import encoder_of, tokenizer_of
from PIL import Image
from rich.console import Console
from vision import LABELS, SIDE, classifier_model, noise, png, write_noise

import tripel
from tripel.checkpoint import save_run
from tripel.cli import main
from tripel.pipelines.load import load_image_classifier
from tripel.pipelines.picture_files import classify_listed
from tripel.text.pair import TokenizerPair


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("runs"), tokenizer_of()
    save_run(folder / "pictures", classifier_model(), None, recipe_yaml=None, card="# a classifier\n")
    encoder = encoder_of(tokenizer, head="classes", labels=LABELS)
    save_run(folder / "texts", encoder, TokenizerPair(tokenizer, tokenizer), recipe_yaml=None, card="# another\n")
    return folder


@pytest.fixture
def classify(monkeypatch, capsys, runs):
    """Type it: exit status, lines of standard output, standard error."""

    def typed(*words, stdin="", run="pictures"):
        monkeypatch.setattr(sys, "argv", ["tripel", "classify", str(runs / run), *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out.splitlines(), err

    return typed


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one in a folder within, in colours and larger; two files that are none; a hidden one."""
    write_noise(tmp_path / "pictures", 1)
    write_noise(tmp_path / "pictures" / "more", 1, 20, 30, 3)
    for name in ("notes.txt", "more/list.csv", ".hidden.png"):
        (tmp_path / "pictures" / name).write_text("no picture")
    return tmp_path / "pictures"


def said(runs, *paths):
    return [answer.label for answer in tripel.load(runs / "pictures").classify(paths)]


def test_of_a_single_picture_the_label_is_printed_with_its_probabilities_beside_it(classify, runs, folder):
    code, out, err = classify(folder / "0.png")
    assert code == 0 and out == said(runs, folder / "0.png")
    assert err.count("%") == 5 and "note" not in err
    assert classify(folder / "0.png", "--top", 2)[2].count("%") == 2


def test_pictures_of_folders_are_answered_one_a_line_after_their_paths_in_order(classify, runs, folder):
    paths = [folder / "0.png", folder / "more" / "0.png"]
    code, out, err = classify(folder)
    assert code == 0 and out == [f"{path}\t{label}" for path, label in zip(paths, said(runs, *paths), strict=True)]
    assert "passed over: 2 files" in err and ".hidden" not in err
    assert classify(*paths[::-1])[1] == out[::-1]


def test_what_was_done_to_pictures_of_another_form_is_told_once(classify, folder):
    write_noise(folder / "many", 5, 9, 9, 3)
    _, _, err = classify(folder)
    assert err.count("6 of 7 pictures were not of the model's 8 x 8 pixels") == 1
    assert err.count("6 of 7 pictures were in colours: made grey") == 1
    assert "the picture was in colours" in classify(folder / "many" / "0.png")[2]


def test_json_has_an_object_a_line_with_the_likeliest_classes(classify, runs, folder):
    for words, n in (((), 5), (("--top", 2), 2), (("--top", 100), 6)):
        code, out, _ = classify(folder, "--json", *words)
        found = [json.loads(line) for line in out]
        assert code == 0 and [set(row) for row in found] == [{"path", "label", "probabilities"}] * 2
        assert [row["path"] for row in found] == [str(folder / "0.png"), str(folder / "more" / "0.png")]
        for row, label in zip(found, said(runs, *(row["path"] for row in found)), strict=True):
            assert len(row["probabilities"]) == n
            assert row["label"] == label == max(row["probabilities"], key=row["probabilities"].get)
    alone = json.loads(classify(folder / "0.png", "--json", "--top", 100)[1][0])
    assert alone["probabilities"] == pytest.approx(found[0]["probabilities"])


def test_lines_of_standard_input_and_of_a_file_are_paths(classify, folder, tmp_path):
    lines = f"{folder / '0.png'}\n\n{folder / 'more'}\r\n"
    (tmp_path / "list.gz").write_bytes(gzip.compress(lines.encode()))
    code, out, _ = classify(stdin=lines)
    assert code == 0 and [line.split("\t")[0] for line in out] == [
        str(folder / "0.png"),
        str(folder / "more" / "0.png"),
    ]
    code, printed, _ = classify("-i", tmp_path / "list.gz", "-o", tmp_path / "out.tsv")
    assert code == 0 and printed == [] and (tmp_path / "out.tsv").read_text().splitlines() == out
    assert classify(stdin="")[:2] == (0, [])


def test_a_line_typed_at_a_terminal_is_answered_before_the_next_is_read(runs, folder, monkeypatch):
    out, answered = io.StringIO(), []

    class Terminal(io.StringIO):
        def __iter__(self):
            for _ in range(3):
                answered.append(len(out.getvalue().splitlines()))
                yield f"{folder / '0.png'}\n"

    monkeypatch.setattr(sys, "stdin", Terminal())
    classifier = load_image_classifier(runs / "pictures")
    classify_listed(classifier, sys.stdin, out, console=Console(file=io.StringIO()), top=None, json=False)
    assert answered == [0, 1, 2]


def test_pictures_that_cannot_be_read_are_named_and_counted_and_the_others_answered(classify, folder, tmp_path):
    (folder / "a.png").write_bytes((folder / "more" / "0.png").read_bytes()[:100])
    (folder / "b.png").write_bytes(png(60_000, 60_000))
    (folder / "c.png").write_text("no picture")
    code, out, err = classify(folder, folder / "nowhere", "-o", tmp_path / "out.tsv")
    assert code == 2 and len((tmp_path / "out.tsv").read_text().splitlines()) == 2
    for name, cause in (
        ("a.png", "cut short"),
        ("b.png", "too large"),
        ("c.png", "not a picture"),
        ("nowhere", "no such"),
    ):
        (line,) = [line for line in err.splitlines() if line.startswith("not read") and name in line]
        assert cause in line
    assert "4 of 6 could not be read" in err


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("cut.png", "damaged or cut short"),
        ("huge.png", "the picture is too large"),
        ("text.png", "this is not a picture"),
        ("nowhere", "no such file or folder"),
        ("void", "no picture in the folder"),
    ],
)
def test_a_single_path_without_a_picture_is_a_plain_error(classify, tmp_path, name, what):
    whole = write_noise(tmp_path, 1, 40, 40)[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "huge.png").write_bytes(png(60_000, 60_000))
    (tmp_path / "text.png").write_text("words")
    (tmp_path / "void").mkdir()
    code, out, err = classify(tmp_path / name)
    assert (code, out) == (2, []) and what in err and name in err and "to mend" in err and "Traceback" not in err


def test_texts_given_to_a_classifier_of_pictures_are_told_what_it_takes(classify):
    for words in (["the", "quick", "fox"], ["a long text " * 50]):
        code, out, err = classify(*words)
        assert (code, out) == (2, []) and "this run classifies pictures" in err


def test_pictures_given_to_a_classifier_of_texts_are_refused_but_not_texts_that_only_look_like_names(classify, folder):
    code, out, err = classify("the fox", folder / "0.png", run="texts")
    assert (code, out) == (2, []) and "classifies texts, not pictures" in err and "0.png" in err
    assert classify("fox.png", run="texts")[0] == 0
    assert classify(run="texts", stdin=f"{folder / '0.png'}\n")[0] == 0


def test_paths_and_a_list_exclude_each_other(classify, folder):
    code, _, err = classify(folder, "-i", "list")
    assert code == 2 and "exclude each other" in err


def test_names_that_are_not_utf8_or_have_tabs_leave_one_answer_a_line(classify, tmp_path):
    strange = os.fsdecode(b"caf\xe9.png")
    for name in (strange, "a\tb\nc.png"):
        try:
            Image.fromarray(noise(SIDE, SIDE)).save(tmp_path / name)
        except OSError:
            pytest.skip("this file system has no such names")
    code, out, _ = classify(tmp_path)
    assert code == 0 and [line.split("\t")[0].rsplit("/")[-1] for line in out] == ["a b c.png", "caf\ufffd.png"]
    assert json.loads(classify(tmp_path, "--json")[1][0])["path"].endswith("a\tb\nc.png")
