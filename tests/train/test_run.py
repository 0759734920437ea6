"""From a recipe and two text files to a run folder, and on from there: resumed, evaluated, used."""

import io
import os
import random
import shutil
import socket

import pytest
import torch
import torch.multiprocessing as mp
import yaml
from rich.console import Console
from running import assert_same_checkpoint, contents, interrupt_at, metrics_of, run, weights_of, without_times

from tripel import checkpoint, storage
from tripel.data.corpus import Corpus
from tripel.errors import CheckpointError, DataError, RecipeError
from tripel.evaluate import evaluate
from tripel.pipelines.load import load
from tripel.recipe import Recipe
from tripel.run import train
from tripel.text.rows import IdRows

GERMAN = {
    "one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf",
    "six": "sechs", "seven": "sieben", "eight": "acht", "nine": "neun", "ten": "zehn",
}  # fmt: skip


def write_pairs(stem, n, seed):
    generator = random.Random(seed)
    sources = [" ".join(generator.choices(list(GERMAN), k=generator.randint(2, 7))) for _ in range(n)]
    targets = [" ".join(GERMAN[word] for word in source.split()) for source in sources]
    for side, lines in (("en", sources), ("de", targets)):
        stem.with_name(f"{stem.name}.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with train, valid and test; and a cache of the tests' own."""
    folder = tmp_path_factory.mktemp("numbers")
    for seed, (name, n) in enumerate((("train", 300), ("valid", 30), ("test", 20))):
        write_pairs(folder / name, n, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def recipe_tree(data, **train):
    side = {"n_layers": 1, "mixer": {"kind": "attention", "n_heads": 2}}
    return {
        "task": {"kind": "translation", "source": "en", "target": "de"},
        "data": {name: str(data / name) for name in ("train", "valid", "test")},
        "tokenizer": {"kind": "word", "vocab_size": 60},
        "model": {
            "kind": "encoder-decoder", "d_model": 16, "d_ff": 32, "encoder": side, "decoder": side, "wiring": "pre",
            "dropout": 0.1, "max_len": 32,
        },
        "optim": {"lr": 1e-2, "warmup_steps": 4},
        "train": {
            "steps": 8, "tokens_per_step": 300, "micro_tokens": 150, "valid_every": 4, "log_every": 2,
            "precision": "float32", **train,
        },
        "decode": {"beam": 2},
    }  # fmt: skip


def recipe(data, overrides=(), **train_settings):
    return Recipe.from_yaml(yaml.safe_dump(recipe_tree(data, **train_settings)), overrides)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run that has learned: (folder, result, what was said)."""
    out = tmp_path_factory.mktemp("runs") / "learned"
    overrides = ["optim.warmup_steps=20", "model.d_model=32", "model.d_ff=64", "model.dropout=0.0"]
    chosen = recipe(data, overrides, steps=150, valid_every=50, log_every=25, average_last=2)
    return out, *run(chosen, out, command="tripel train numbers.yaml")


def test_a_run_learns_and_leaves_a_folder_that_is_complete(trained):
    out, result, said = trained
    assert (result.reason, result.step, result.folder) == ("finished", 150, out)
    assert result.metrics["bleu"] > 60
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "recipe.yaml", "metrics.jsonl"):
        assert (out / name).stat().st_size > 0, name
    assert checkpoint.list_steps(out) == [100, 150]
    assert "word frequency alone scores loss" in said and "word frequency: loss" in said
    assert "300 training pairs" in said and f"the model is in {out}" in said
    assert "tripel train numbers.yaml" in (out / "README.md").read_text(encoding="utf-8")


def test_the_metrics_file_has_the_promised_names(trained):
    training = [record for record in metrics_of(trained[0]) if "train_loss" in record]
    validation = [record for record in metrics_of(trained[0]) if "bleu" in record]
    promised = {"step", "tokens", "seconds", "train_loss", "lr", "grad_norm", "tokens_per_second"}
    assert [record["step"] for record in training] == [25, 50, 75, 100, 125, 150]
    assert all(record.keys() == promised for record in training)
    assert [record["step"] for record in validation] == [50, 100, 150]
    assert all(record.keys() == {"step", "tokens", "seconds", "valid_loss", "bleu", "chrf"} for record in validation)
    assert training[-1]["train_loss"] < training[0]["train_loss"]


def test_a_trained_run_translates(trained):
    translator = load(trained[0])
    right = 0
    for source in ("one two three", "ten nine eight seven"):
        said = translator.translate(source).text.split()
        right += sum(GERMAN[word] in said for word in source.split())
    assert right >= 5


def test_a_run_can_be_evaluated_on_its_test_set(trained, data):
    result = evaluate(trained[0], "test")
    assert result.n_sentences == 20
    assert result.scores.bleu > 50
    assert len(result.hypotheses.read_text(encoding="utf-8").splitlines()) == 20
    assert evaluate(trained[0], "valid").scores.bleu == pytest.approx(trained[1].metrics["bleu"], abs=0.01)


def test_the_stored_recipe_describes_the_run_wholly(trained):
    stored = Recipe.load(trained[0] / "recipe.yaml")
    assert stored.train.steps == 150 and stored.model.d_model == 32
    assert stored.train.precision == "float32"


# Resume


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.precision=bfloat16", "train.ema=0.9", "train.average_last=2"],
        ["tokenizer.kind=bpe", "tokenizer.vocab_size=300", "tokenizer.dropout=0.2", "train.r_drop=1.0"],
        ["optim.kind=muon", "tokenizer.shared=false", "model.tie=target", "train.tokens_per_step=900"],
    ],
    ids=["plain", "bfloat16-ema-average", "bpe-dropout-rdrop", "muon-separate"],
)
def test_an_interrupted_and_resumed_run_ends_like_an_uninterrupted_one(data, tmp_path, monkeypatch, overrides):
    chosen = recipe(data, overrides)
    whole, _ = run(chosen, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        first, said = run(chosen, tmp_path / "parts")
    assert (first.reason, first.step) == ("interrupted", 3)
    assert "stopped at step 3, saved; go on with --resume" in said
    torch.manual_seed(12345)  # what happened in between must not matter
    second, said = run(chosen, tmp_path / "parts", resume=True)
    assert "resuming from step 3" in said
    assert (second.reason, second.step, second.metrics) == ("finished", 8, whole.metrics)
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "parts", 8)
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert without_times(metrics_of(tmp_path / "whole")) == without_times(metrics_of(tmp_path / "parts"))


def test_a_run_goes_on_from_the_newest_whole_checkpoint_and_says_which_it_skipped(data, tmp_path):
    chosen = recipe(data)
    run(chosen, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    weights = tmp_path / "damaged" / "checkpoints" / "step-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    result, said = run(chosen, tmp_path / "damaged", resume=True)
    assert "skipped a damaged checkpoint: step-8" in said and "resuming from step 4" in said
    assert result.step == 8
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "damaged", 8)


def test_a_finished_run_can_be_made_longer(data, tmp_path):
    run(recipe(data, ["optim.schedule=constant"]), tmp_path / "run")
    longer = recipe(data, ["optim.schedule=constant", "train.steps=12"])
    result, _ = run(longer, tmp_path / "run", resume=True)
    whole, _ = run(longer, tmp_path / "whole")
    assert result.step == 12
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "run", 12)


@pytest.mark.parametrize(
    "change", ["optim.lr=0.5", "model.d_model=8", "train.seed=9", "tokenizer.kind=char", "train.tokens_per_step=99"]
)
def test_resuming_with_another_recipe_is_refused_and_names_the_difference(data, tmp_path, change):
    run(recipe(data, steps=2), tmp_path / "run")
    before = contents(tmp_path / "run")
    key, _, value = change.partition("=")
    with pytest.raises(RecipeError, match="resuming would change the run") as error:
        run(recipe(data, [change], steps=2), tmp_path / "run", resume=True)
    assert key in str(error.value) and value in str(error.value)
    assert contents(tmp_path / "run") == before


def test_precision_auto_goes_on_in_the_precision_the_run_began_with(data, tmp_path):
    run(recipe(data, steps=2), tmp_path / "run")
    result, _ = run(recipe(data, ["train.precision=auto"], steps=3), tmp_path / "run", resume=True)
    assert result.step == 3


@pytest.mark.parametrize("made", [False, True])
def test_there_must_be_something_to_resume(data, tmp_path, made):
    if made:
        (tmp_path / "run").mkdir()
    with pytest.raises(CheckpointError, match="there is no run to resume"):
        run(recipe(data), tmp_path / "run", resume=True)


# The output folder


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_was(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(CheckpointError) as error:
            run(recipe(data), tmp_path / "run", overwrite=overwrite)
        assert str(tmp_path / "run") in str(error.value)
    assert contents(tmp_path) == {(tmp_path / "run" / "thesis.txt").relative_to(tmp_path): b"years of work"}


def test_a_file_in_place_of_the_folder_is_refused(data, tmp_path):
    (tmp_path / "run").write_text("x", encoding="utf-8")
    with pytest.raises(CheckpointError, match="--out is a file"):
        run(recipe(data), tmp_path / "run", overwrite=True)


def test_a_folder_that_may_not_be_written_is_refused_before_anything_is_read(data, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path))
    with pytest.raises(CheckpointError, match=f"no permission to write in {tmp_path}"):
        train(recipe(data), tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_used(data, tmp_path):
    (tmp_path / "run").mkdir()
    assert run(recipe(data, steps=1), tmp_path / "run")[0].step == 1


def test_overwriting_discards_an_earlier_run_wholly(data, tmp_path):
    run(recipe(data), tmp_path / "run")
    run(recipe(data, steps=2, seed=5), tmp_path / "run", overwrite=True)
    run(recipe(data, steps=2, seed=5), tmp_path / "fresh")
    assert checkpoint.list_steps(tmp_path / "run") == [2]
    differing = contents(tmp_path / "run").keys() ^ contents(tmp_path / "fresh").keys()
    assert all("tensorboard" in path.parts for path in differing)  # its file names hold the time
    assert_same_checkpoint(tmp_path / "run", tmp_path / "fresh", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "run"]


@pytest.mark.parametrize(
    "broken",
    [["data.train=nowhere/at-all"], ["model.max_len=4"], ["tokenizer.vocab_size=10", "data.max_unknown_share=0.0"]],
    ids=["data", "length", "unknown"],
)
def test_an_error_while_overwriting_loses_nothing_of_the_earlier_run(data, tmp_path, broken):
    run(recipe(data, steps=2), tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(DataError):
        run(recipe(data, broken), tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run") == before


# Data and endings


def test_two_vocabularies_of_one_size_are_not_tied_to_one_matrix(data):
    """Ten words on each side: their tokenizers have equally many tokens, and nothing else in common."""
    with pytest.raises(RecipeError, match="tie: all needs one vocabulary"):
        recipe(data, ["tokenizer.shared=false"])
    recipe(data, ["tokenizer.shared=false", "model.tie=target"])


@pytest.mark.parametrize("side", ["train", "valid"])
def test_a_pair_longer_than_the_model_can_read_is_refused_before_training(data, tmp_path, side):
    for name in ("train", "valid"):
        for language in ("en", "de"):
            shutil.copy(data / f"{name}.{language}", tmp_path)
    for language, word in (("en", "one"), ("de", "eins")):
        with (tmp_path / f"{side}.{language}").open("a", encoding="utf-8") as file:
            file.write(" ".join([word] * 40) + "\n")
    line = {"train": 301, "valid": 31}[side]
    chosen = recipe(data, [f"data.train={tmp_path / 'train'}", f"data.valid={tmp_path / 'valid'}"])
    with pytest.raises(DataError, match="longer than the model can read") as error:
        run(chosen, tmp_path / "run")
    assert f"41 tokens at {tmp_path / side}.en:{line}" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_segmentation_too_long_for_the_model_is_replaced_by_the_plain_one():
    """BPE dropout draws another one for every epoch: a run must not fail on a draw after hours."""
    plain = Corpus(IdRows.from_lists([[1, 2], [3], [4]]), IdRows.from_lists([[5], [6, 7], [8]]))
    drawn = Corpus(IdRows.from_lists([[9, 9, 9, 9], [3], [2, 2]]), IdRows.from_lists([[5], [1, 1, 1], [8]]))
    fitted = drawn.fitted(plain, 2)
    assert [fitted.source(i).tolist() for i in range(3)] == [[1, 2], [3], [2, 2]]
    assert [fitted.target(i).tolist() for i in range(3)] == [[5], [6, 7], [8]]
    assert fitted.sources.is_sound(10) and fitted.targets.is_sound(10)
    assert drawn.fitted(plain, 4) is drawn


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_without_validation_data_the_last_weights_are_kept_the_moving_average_if_there_is_one(data, tmp_path, ema):
    result, _ = run(recipe(data, ["data.valid=null"], ema=ema), tmp_path / "run")
    assert result.metrics == {}
    saved = checkpoint.load_training(tmp_path / "run" / "checkpoints" / "step-8").groups["ema" if ema else "model"]
    model = checkpoint.load_model(tmp_path / "run")
    assert all(torch.equal(p, saved[name]) for name, p in model.named_parameters())


def test_without_validation_data_the_last_snapshots_are_averaged(data, tmp_path):
    run(recipe(data, ["data.valid=null"], average_last=2, valid_every=2), tmp_path / "run")
    parts = [weights_of(path.parent) for path in (tmp_path / "run" / "snapshots").rglob("*.safetensors")]
    assert len(parts) == 2
    model = checkpoint.load_model(tmp_path / "run")
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), (parts[0][name] + parts[1][name]) / 2, rtol=1e-6, atol=1e-7)


def test_the_average_of_snapshots_is_kept_only_when_it_validates_better(trained):
    out, result, said = trained
    best = max(record["bleu"] for record in metrics_of(out) if "bleu" in record)
    assert result.metrics["bleu"] >= best
    assert ("keeping the average" in said) == (result.metrics["bleu"] > best)


def test_a_run_stopped_before_its_first_validation_does_not_claim_a_model(data, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 1)
    result, said = run(recipe(data), tmp_path / "run")
    assert (result.reason, result.metrics) == ("interrupted", {})
    assert "the model is in" not in said
    assert not (tmp_path / "run" / "model.safetensors").exists()


def one_of_two(rank, port, tree, out, overwrite):
    os.environ.update(
        WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    train(Recipe.from_yaml(tree), out, overwrite=overwrite, console=Console(file=io.StringIO()))


def test_two_processes_write_one_run_that_one_process_would_have_written(data, tmp_path):
    """Without dropout, whose draws differ by process. The folder holds an earlier run, which both must see go."""
    chosen = recipe_tree(data, steps=2, valid_every=2)
    chosen["model"]["dropout"] = 0.0
    chosen["optim"]["eps"] = 1e-3
    tree = yaml.safe_dump(chosen)
    alone, _ = run(Recipe.from_yaml(tree), tmp_path / "alone")
    shutil.copytree(tmp_path / "alone", tmp_path / "together")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(one_of_two, (port, tree, str(tmp_path / "together"), True), nprocs=2)
    one, other = weights_of(tmp_path / "alone"), weights_of(tmp_path / "together")
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-5)
    for mine, theirs in zip(metrics_of(tmp_path / "together"), metrics_of(tmp_path / "alone"), strict=True):
        assert (mine["step"], mine["tokens"]) == (theirs["step"], theirs["tokens"])


def test_a_run_that_another_process_is_training_is_left_alone(data, tmp_path):
    out = tmp_path / "run"
    run(recipe(data, steps=4), out)
    before = contents(out)
    with storage.held(out):
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(CheckpointError, match="another process is training"):
                run(recipe(data, steps=8), out, **options)
    assert contents(out) == before
    assert run(recipe(data, steps=8), out, resume=True)[0].step == 8
