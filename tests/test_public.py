"""Names given to commands, options, keys and metrics are a promise: changing one must be a decision, not an accident."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main
from typer.testing import CliRunner

import tripel
from tripel.cli import app, main

COMMANDS = {
    "train": {"--out", "--set", "--resume", "--overwrite"},
    "demo": {"--target", "--out"},
    "translate": {
        "--input", "--output", "--format", "--beam", "--n-best", "--sample", "--temperature", "--top-k", "--top-p",
        "--min-p", "--seed", "--prefix", "--stream", "--ensemble", "--set",
    },
    "complete": {
        "--input", "--output", "--max-tokens", "--temperature", "--top-k", "--top-p", "--min-p", "--repetition-penalty",
        "--stop", "--seed", "--samples", "--greedy", "--echo", "--json", "--top", "--no-stream", "--set",
    },
    "score": {"--input", "--json", "--top"},
    "fill": {"--input", "--output", "--top", "--json"},
    "classify": {"--input", "--output", "--top", "--json"},
    "embed": {"--input", "--output", "--pool", "--normalize"},
    "neighbours": {"--plus", "--minus", "--top", "--contextual", "--sentence", "--json"},
    "map": {"--input", "--output", "--contextual", "--json"},
    "words": {"--data", "--contextual", "--json"},
    "evaluate": {"--split", "--output", "--beam", "--ensemble", "--set", "--json"},
    "compare": {"--out", "--data", "--valid", "--budget", "--steps", "--match", "--shares", "--set"},
    "import": {"--out"},
    "export": {"--out", "--to"},
    "families": set(),
    "recipes": set(),
    "doctor": set(),
    "data": set(),
}  # fmt: skip


def test_the_public_names_are_these():
    assert set(tripel.__all__) == {
        "Classifier", "Completer", "Embedder", "Filler", "ImageClassifier", "Recipe", "Translator", "TripelError", "load",
        "train",
    }  # fmt: skip
    for name in tripel.__all__:
        assert getattr(tripel, name).__name__ == name


def test_the_commands_and_their_options_are_these():
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) == set(COMMANDS)
    for name, options in COMMANDS.items():
        given = {option for parameter in commands[name].params for option in parameter.opts if option.startswith("--")}
        assert given == options, name


def test_help_and_import_load_no_torch():
    code = "import sys, tripel, tripel.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        tripel.trian  # noqa: B018


def test_families_and_recipes_print_a_table():
    families = CliRunner().invoke(app, ["families"], env={"COLUMNS": "200"})
    assert families.exit_code == 0 and "Transformer (2017)" in families.stdout
    recipes = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "200"})
    assert recipes.exit_code == 0 and "translate-en-de" in recipes.stdout
    shown = CliRunner().invoke(app, ["recipes", "show", "translate-en-de"])
    assert shown.exit_code == 0 and "kind: translation" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "translate-en-dee", "--out", "x"], "did you mean translate-en-de"),
        (["train", "translate-en-de", "--out", "x", "--set", "train.stesp=3"], "did you mean steps?"),
        (["train", "translate-en-de", "--out", "x", "--set", "train.steps=many"], "train.steps cannot be used"),
        (["train", "translate-en-de", "--out", "x", "--set", "model.wiring=pots"], "did you mean post?"),
        (["train", "translate-en-de", "--out", "x", "--set", "train.steps"], "key=value"),
        (["train", "translate-en-de", "--out", "x", "--resume"], "no run to resume"),
        (["translate", "nowhere", "hello"], "there is no such folder"),
        (["evaluate", "nowhere"], "not a run folder"),
        (["recipes", "show", "translate"], "there is no recipe 'translate'"),
        (["data", "get", "multi30"], "multi30k"),
    ],
)
def test_a_user_error_exits_2_with_a_message_and_no_traceback(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tripel", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err and "Traceback" not in printed.err


def test_doctor_overfits_one_batch_and_says_so():
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.stdout
    assert result.stdout.count("self-test") == 2 and "failed" not in result.stdout
