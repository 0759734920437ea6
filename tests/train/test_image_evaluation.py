"""Scoring a classifier of pictures: on its own sets and others, with the files that it writes."""

import csv
import json
import sys

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console
from running import run

import tripel
from tripel.cli import main
from tripel.errors import DataError, InputError
from tripel.evaluate import evaluate
from tripel.recipe import Recipe

CLASSES = ("black", "dark", "dusky", "grey", "light", "white")


def write_pictures(folder, n_each, seed, classes=CLASSES):
    """A folder for each class: its pictures are brighter than those of the class before it."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(n_each):
            pixels = 45 * number + rng.integers(0, 30, (9, 12))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with train/, test/ and run/; what the run found in its validation set."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder / "train", 30, 1)
    write_pictures(folder / "test", 6, 2)
    (folder / "test" / "black" / "0.png").rename(folder / "test" / "white" / "wrong.png")
    (folder / "test" / "dark" / "notes.txt").write_text("no picture")
    tree = {
        "task": {"kind": "classification"},
        "data": {
            "train": str(folder / "train"), "test": str(folder / "test"), "valid_share": 0.3, "stored_size": 10,
            "workers": 1,
        },
        "model": {
            "kind": "resnet", "image_size": 8, "channels": 1, "stem": "small", "stem_width": 4, "depths": [1], "widths": [8],
        },
        "optim": {"lr": 2e-2, "warmup_steps": 2, "schedule": "constant"},
        "train": {"steps": 60, "tokens_per_step": 32, "micro_tokens": 32, "valid_every": 20, "precision": "float32"},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        result, _ = run(Recipe.from_yaml(yaml.safe_dump(tree)), folder / "run")
        yield folder, result.metrics


def rows_of(path):
    return list(csv.DictReader(path.open(encoding="utf-8"), delimiter="\t"))


def test_evaluating_on_the_validation_set_gives_the_runs_own_score(trained):
    folder, metrics = trained
    evaluation = evaluate(folder / "run", "valid")
    assert evaluation.scores.metrics() == pytest.approx(metrics, abs=1e-4)
    assert evaluation.predictions.name == "predictions.valid.tsv"


def test_the_training_set_is_scored_at_the_size_that_the_model_sees(trained):
    folder, _ = trained
    scores = [evaluate(folder / "run", split).scores for split in ("train", "valid")]
    assert sum(score.n_examples for score in scores) == 180


def test_the_scores_are_those_of_what_classify_says_of_the_files(trained):
    folder, _ = trained
    evaluation = evaluate(folder / "run")
    rows = rows_of(evaluation.predictions)
    assert len(rows) == 36 == evaluation.scores.n_examples
    answers = tripel.load(folder / "run").classify([row["path"] for row in rows], top=None)
    true = [row["label"] for row in rows]
    for row, answer in zip(rows, answers, strict=True):
        assert row["said"] == answer.label
        assert float(row["probability"]) == pytest.approx(answer.probabilities[0][1], abs=1e-4)
    right = [answer.label == label for answer, label in zip(answers, true, strict=True)]
    assert evaluation.scores.accuracy == pytest.approx(np.mean(right))
    among_five = [label in dict(answer.probabilities[:5]) for answer, label in zip(answers, true, strict=True)]
    assert evaluation.scores.top5_accuracy == pytest.approx(np.mean(among_five))
    assert 0.5 < evaluation.scores.accuracy < 1 and not right[[row["path"][-9:] for row in rows].index("wrong.png")]


def test_files_are_written_beside_the_run_and_named_in_json_and_in_print(trained):
    folder, _ = trained
    evaluation = evaluate(folder / "run")
    written = json.loads(evaluation.to_json())
    for name, what in (
        ("predictions", "predictions"),
        ("confusion_picture", "confusion"),
        ("mistakes_picture", "mistakes"),
    ):
        assert written[name] == str(getattr(evaluation, what))
        assert getattr(evaluation, what).parent == folder / "run"
    for picture in (evaluation.confusion, evaluation.mistakes):
        assert Image.open(picture).format == "PNG"
    assert [row["label"] for row in written["classes"]] == list(CLASSES) and len(written["confusion"]) == 6
    assert {"accuracy", "macro_f1", "loss", "calibration_error", "top5_accuracy"} <= set(written)
    assert any("no picture" in finding["kind"] for finding in written["report"]["findings"])
    console = Console(width=120, record=True, file=sys.stderr)
    console.print(evaluation)
    printed = console.export_text()
    for expected in ("36 pictures", "among the likeliest five", "calibration error", "mistakes.", "confusion."):
        assert expected in printed


def test_predictions_are_written_where_they_are_wanted(trained, tmp_path):
    folder, _ = trained
    assert evaluate(folder / "run", hypotheses=tmp_path / "a.tsv").predictions == tmp_path / "a.tsv"
    assert len(rows_of(tmp_path / "a.tsv")) == 36


def test_the_command_prints_the_scores_of_any_folder_as_json(trained, tmp_path, monkeypatch, capsys):
    folder, _ = trained
    write_pictures(tmp_path / "more", 2, 5, CLASSES[:2])
    words = ["evaluate", str(folder / "run"), "--split", str(tmp_path / "more"), "--json"]
    monkeypatch.setattr(sys, "argv", ["tripel", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 4


def test_pictures_that_cannot_be_read_are_not_scored_and_the_report_says_so(trained, tmp_path):
    folder, _ = trained
    write_pictures(tmp_path / "more", 25, 6, CLASSES[:2])
    path = tmp_path / "more" / "dark" / "0.png"
    path.write_bytes(path.read_bytes()[:60])
    evaluation = evaluate(folder / "run", str(tmp_path / "more"))
    assert evaluation.scores.n_examples == 49
    assert [finding.count for finding in evaluation.report.findings if "unreadable" in finding.kind] == [1]
    for number in range(1, 10):
        (tmp_path / "more" / "dark" / f"{number}.png").write_text("no picture")
    with pytest.raises(DataError, match="max_bad_share"):
        evaluate(folder / "run", str(tmp_path / "more"))


def test_a_set_without_mistakes_has_a_sheet_that_says_so(trained, tmp_path):
    folder, _ = trained
    rows = [row for row in rows_of(evaluate(folder / "run").predictions) if row["said"] == row["label"]]
    for row in rows:
        (tmp_path / "right" / row["label"]).mkdir(parents=True, exist_ok=True)
        Image.open(row["path"]).save(tmp_path / "right" / row["label"] / row["path"].rsplit("/")[-1])
    evaluation = evaluate(folder / "run", str(tmp_path / "right"))
    assert evaluation.scores.accuracy == 1 and Image.open(evaluation.mistakes).size[1] < 100


def test_labels_that_the_model_cannot_say_and_settings_of_a_search_are_refused(trained, tmp_path):
    folder, _ = trained
    write_pictures(tmp_path / "other", 2, 7, ("dark", "purple"))
    with pytest.raises(DataError, match="purple"):
        evaluate(folder / "run", str(tmp_path / "other"))
    with pytest.raises(InputError, match="scored by the probabilities"):
        evaluate(folder / "run", settings={"beam": 2})
