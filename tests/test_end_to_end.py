"""A small phrasebook through every command a person types: data, train, resume, evaluate, translate, export, import."""

import json
import os
import signal

import pytest
from typer.testing import CliRunner

from tripel import load
from tripel.cli import app
from tripel.errors import CheckpointError, InputError
from tripel.training.log import RunLog

# One layer a side, learning a small phrasebook in seconds.
SMALL = (
    "train.steps=60", "train.valid_every=30", "train.log_every=10", "train.tokens_per_step=512",
    "train.micro_tokens=512", "tokenizer.vocab_size=600", "model.d_model=32", "model.d_ff=32",
    "model.encoder.n_layers=1", "model.decoder.n_layers=1", "decode.beam=2", "optim.lr=0.02", "optim.warmup_steps=5",
)  # fmt: skip


def tripel(*arguments, exit_code=0):
    """What a command printed on standard output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})
    assert result.exit_code == exit_code, f"{arguments}: {result.output} {result.exception!r}"
    return result.stdout


@pytest.fixture(scope="module")
def phrasebook(tmp_path_factory):
    """The folder of a phrasebook; and a cache of the tests' own."""
    folder = tmp_path_factory.mktemp("end-to-end")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        tripel("data", "phrasebook", "--target", "de", "--count", 600, "--seed", 1, "-o", folder / "phrasebook")
        yield folder / "phrasebook"


def train(phrasebook, out, *more, exit_code=0):
    names = (f"data.{split}={phrasebook / split}" for split in ("train", "valid", "test"))
    settings = [part for setting in (*names, *SMALL) for part in ("--set", setting)]
    return tripel("train", "demo", "--out", out, *settings, *more, exit_code=exit_code)


@pytest.fixture(scope="module")
def run(phrasebook, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "phrasebook"
    train(phrasebook, out)
    return out


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_training_learns(run):
    losses = [record["valid_loss"] for record in records(run) if "valid_loss" in record]
    assert len(losses) == 2 and losses[-1] < losses[0] < 6.4, "better than log 600, a guess among all pieces"


def test_an_interrupted_run_resumes_to_the_same_weights(run, phrasebook, tmp_path, monkeypatch):
    training = RunLog.training

    def press(self, record, left):
        training(self, record, left)
        if record["step"] == 40:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "training", press)
        train(phrasebook, tmp_path / "run", exit_code=130)
    assert records(tmp_path / "run")[-1]["step"] == 40
    train(phrasebook, tmp_path / "run", "--resume")
    assert (tmp_path / "run/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("split", ["test", "compositional"])
def test_evaluation_scores_the_hypotheses_it_writes(run, phrasebook, tmp_path, split):
    name = split if split == "test" else phrasebook / split
    scores = json.loads(tripel("evaluate", run, "--split", name, "--json", "-o", tmp_path / "out.de"))
    assert scores["sentences"] == len((tmp_path / "out.de").read_text("utf-8").splitlines()) == 60
    assert "bleu" in json.dumps(scores).lower()


def test_evaluation_tells_what_is_wrong_with_a_set(run, phrasebook, tmp_path):
    for language in ("en", "de"):
        lines = (phrasebook / f"test.{language}").read_text("utf-8").splitlines()
        (tmp_path / f"doubled.{language}").write_text("\n".join([*lines, lines[0]]) + "\n", "utf-8")
    said = tripel("evaluate", run, "--split", tmp_path / "doubled", "-o", tmp_path / "out.de")
    assert "duplicate pair" in said
    report = json.loads(tripel("evaluate", run, "--split", tmp_path / "doubled", "--json", "-o", tmp_path / "out.de"))
    assert [finding["kind"] for finding in report["report"]["findings"]] == ["duplicate pair"]


def test_a_run_that_was_never_validated_says_so(phrasebook, tmp_path, monkeypatch):
    training = RunLog.training

    def press(self, record, left):
        training(self, record, left)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "training", press)
        train(phrasebook, tmp_path / "run", "--set", "train.log_every=2", exit_code=130)
    result = CliRunner().invoke(app, ["translate", str(tmp_path / "run"), "A dog."])
    assert isinstance(result.exception, CheckpointError) and "no weights to use yet" in str(result.exception)
    assert "--resume" in str(result.exception)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_every_file_of_a_run_has_the_same_modes(run):
    assert len({path.stat().st_mode for path in run.rglob("*") if path.is_file()}) == 1


def test_translation_gives_one_line_for_each_text_the_same_from_a_file(run, phrasebook, tmp_path):
    lines = (phrasebook / "test.en").read_text("utf-8").splitlines()[:5]
    given = tripel("translate", run, *lines)
    tripel("translate", run, "-i", phrasebook / "test.en", "-o", tmp_path / "out.de")
    assert given.splitlines() == (tmp_path / "out.de").read_text("utf-8").splitlines()[:5]


def test_an_exported_and_imported_model_translates_alike_and_transformers_opens_it(run, phrasebook, tmp_path):
    from transformers import MarianMTModel

    tripel("export", run, "--to", "huggingface", "--out", tmp_path / "marian")
    assert MarianMTModel.from_pretrained(tmp_path / "marian").config.d_model == 32
    tripel("import", tmp_path / "marian", "--out", tmp_path / "again")
    lines = (phrasebook / "test.en").read_text("utf-8").splitlines()[:5]
    again = tripel("translate", tmp_path / "again", *lines, "--beam", 2)
    assert again == tripel("translate", run, *lines)


def test_runs_translate_and_are_scored_together(run, phrasebook, tmp_path):
    train(phrasebook, tmp_path / "second", "--set", "train.seed=2")
    together = ("--ensemble", tmp_path / "second")
    lines = (phrasebook / "test.en").read_text("utf-8").splitlines()
    answers = tripel("translate", run, *lines, *together)
    assert answers not in (tripel("translate", run, *lines), tripel("translate", tmp_path / "second", *lines))
    before = sorted(run.iterdir())
    scores = json.loads(tripel("evaluate", run, *together, "--json"))
    (written,) = set(run.iterdir()) - set(before) - {run / "hypotheses.test.de"}
    assert scores["ensemble"] == [str(tmp_path / "second")]
    assert str(written) == scores["hypotheses"] and "ensemble-of-2" in written.name
    assert written.read_text("utf-8") == answers
    assert "2 models" in tripel("evaluate", run, *together)


def test_runs_of_different_tokenizers_do_not_translate_together(run, phrasebook, tmp_path):
    train(phrasebook, tmp_path / "other", "--set", "tokenizer.vocab_size=500", "--set", "train.steps=1")
    with pytest.raises(InputError, match="different tokenizers") as caught:
        load(run, ensemble=[tmp_path / "other"])
    assert str(tmp_path / "other") in str(caught.value) and "`tokenizer` section" in str(caught.value)
    with pytest.raises(CheckpointError, match="no such folder"):
        load(run, ensemble=[tmp_path / "nowhere"])
