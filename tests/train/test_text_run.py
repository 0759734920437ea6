"""From a recipe and a text to a language model's run folder, and on from there: resumed, evaluated, used."""

import json
import math
import os
import random
import re
import socket
from collections import Counter

import pytest
import torch
import torch.multiprocessing as mp
import yaml
from running import assert_same_checkpoint, interrupt_at, metrics_of, run, weights_of, without_times

from tripel import checkpoint
from tripel.errors import DataError, InputError, RecipeError
from tripel.evaluate import evaluate
from tripel.pipelines.load import load
from tripel.recipe import Recipe

WORDS = list(dict.fromkeys(re.findall(r"\w+", "the cat sat on a mat and saw two dogs run over green hills far away")))
MIXERS = {
    "attention": {"mixer": {"kind": "attention", "n_heads": 2}},
    "rnn": {"mixer": {"kind": "rnn"}, "positions": "none", "wiring": "none", "d_ff": 0},
    "lstm": {"mixer": {"kind": "lstm", "weight_drop": 0.2}, "positions": "none", "wiring": "none", "d_ff": 0},
    "conv": {"mixer": {"kind": "conv", "kernel": 3, "dilation": [1, 2]}, "positions": "none", "d_ff": 0},
}


def write_text(path, n_lines, seed):
    """Sentences in which each word says which comes next, but for a choice now and then."""
    generator = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(n_lines):
            at = generator.randrange(len(WORDS))
            line = [WORDS[(at + i * generator.choice((1, 1, 1, 2))) % len(WORDS)] for i in range(8)]
            file.write(" ".join(line) + ".\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with train.txt, valid.txt and test.txt; and a cache of the tests' own."""
    folder = tmp_path_factory.mktemp("sentences")
    for seed, (name, n) in enumerate((("train", 200), ("valid", 20), ("test", 20))):
        write_text(folder / f"{name}.txt", n, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def recipe(data, overrides=(), mixer="attention", **train_settings):
    tree = {
        "task": {"kind": "next-token"},
        "data": {name: str(data / f"{name}.txt") for name in ("train", "valid", "test")},
        "tokenizer": {"kind": "char"},
        "model": {"n_layers": 2, "d_model": 16, "d_ff": 32, "max_len": 16, "dropout": 0.1, **MIXERS[mixer]},
        "optim": {"lr": 1e-2, "warmup_steps": 4, "schedule": "constant"},
        "train": {
            "steps": 8, "tokens_per_step": 128, "micro_tokens": 64, "valid_every": 4, "log_every": 2,
            "precision": "float32", **train_settings,
        },
    }  # fmt: skip
    return Recipe.from_yaml(yaml.safe_dump(tree), overrides)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "learned"
    overrides = ["model.d_model=32", "model.dropout=0.0", "train.tokens_per_step=512"]
    chosen = recipe(data, overrides, steps=150, valid_every=50, log_every=50)
    return out, *run(chosen, out, command="tripel train sentences.yaml")


def test_a_language_model_learns_and_leaves_a_folder_that_is_complete(trained):
    out, result, said = trained
    assert (result.reason, result.step) == ("finished", 150)
    assert result.metrics["valid_loss"] < 1.3 < math.log(20)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "recipe.yaml", "metrics.jsonl"):
        assert (out / name).stat().st_size > 0, name
    assert "training tokens" in said and "GPT: " in said and "for example" in said
    assert "tripel train sentences.yaml" in (out / "README.md").read_text(encoding="utf-8")


def test_a_language_model_is_compared_with_character_frequency(trained, data):
    counts, text = Counter((data / "train.txt").read_text()), (data / "valid.txt").read_text()
    n_types = len(set(counts)) + 4  # and the special tokens, of which the end of the text occurs once
    total = sum(counts.values()) + 1 + n_types
    nats = sum(-math.log((counts[c] + 1) / total) for c in text[1:]) - math.log(2 / total)
    assert f"word frequency alone scores loss {nats / len(text):.3f}" in trained[2]


def test_the_metrics_of_a_language_model_have_the_promised_names(trained):
    records = [record for record in metrics_of(trained[0]) if "valid_loss" in record]
    promised = {"step", "tokens", "seconds", "valid_loss", "perplexity", "bits_per_byte"}
    assert len(records) == 3 and all(record.keys() == promised for record in records)
    for record in records:
        assert record["perplexity"] == pytest.approx(math.exp(record["valid_loss"]))
        assert record["bits_per_byte"] == pytest.approx(record["valid_loss"] / math.log(2), rel=0.01)


def test_a_trained_language_model_completes_in_known_words(trained):
    answer = load(trained[0]).complete("the cat ", max_new_tokens=40, sample=False)
    said = str(answer).replace(".", " ").split()[:-1]
    assert sum(word in WORDS for word in said) >= len(said) / 2


def test_evaluating_on_the_validation_set_gives_the_runs_own_score(trained):
    result = evaluate(trained[0], "valid")
    assert result.loss.nats_per_token == pytest.approx(trained[1].metrics["valid_loss"], rel=1e-5)
    assert json.loads(result.to_json())["bits_per_byte"] == pytest.approx(trained[1].metrics["bits_per_byte"], rel=1e-5)
    assert evaluate(trained[0], "test").loss.n_predicted > 100


def test_a_language_model_is_not_scored_by_a_search(trained, tmp_path):
    for options in ({"settings": {"beam": 2}}, {"hypotheses": tmp_path / "x"}):
        with pytest.raises(InputError, match="by the probabilities it gives"):
            evaluate(trained[0], "test", **options)


# Resume


@pytest.mark.parametrize(
    ("mixer", "overrides"),
    [
        ("attention", []),
        ("attention", ["tokenizer.kind=byte_bpe", "tokenizer.vocab_size=300", "train.precision=bfloat16"]),
        ("lstm", ["data.carry_state=true", "optim.kind=muon"]),
        ("rnn", ["data.carry_state=true", "train.precision=bfloat16", "model.variational_dropout=true"]),
        ("conv", ["data.carry_state=true", "train.ema=0.9"]),
    ],
    ids=["attention", "byte-bpe-bfloat16", "lstm-carried", "rnn-carried-bfloat16", "conv-carried"],
)
def test_an_interrupted_and_resumed_language_model_ends_like_an_uninterrupted_one(
    data, tmp_path, monkeypatch, mixer, overrides
):
    chosen = recipe(data, overrides, mixer)
    whole, _ = run(chosen, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        first, _ = run(chosen, tmp_path / "parts")
    assert (first.reason, first.step) == ("interrupted", 3)
    torch.manual_seed(12345)  # what happened in between must not matter
    second, _ = run(chosen, tmp_path / "parts", resume=True)
    assert (second.reason, second.step, second.metrics) == ("finished", 8, whole.metrics)
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "parts", 8)
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert without_times(metrics_of(tmp_path / "whole")) == without_times(metrics_of(tmp_path / "parts"))


def test_carrying_the_state_on_changes_what_is_learned_and_is_stored(data, tmp_path):
    run(recipe(data, ["data.carry_state=true"], "lstm"), tmp_path / "carried")
    groups = checkpoint.load_training(tmp_path / "carried" / "checkpoints" / "step-8").groups
    assert {name.split(".")[0] for name in groups["carried-0"]} == {"0", "1"}  # one state for each micro-batch
    run(recipe(data, [], "lstm"), tmp_path / "alone")
    assert "carried-0" not in checkpoint.load_training(tmp_path / "alone" / "checkpoints" / "step-8").groups


# Several processes


def _train_in_a_group(rank, port, out, tree):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    run(Recipe.from_yaml(tree), out)


@pytest.mark.parametrize("mixer", ["attention", "lstm"])
def test_two_processes_train_the_language_model_that_one_would(data, tmp_path, mixer):
    overrides = ["model.dropout=0.0"] if mixer == "attention" else ["model.dropout=0.0", "model.mixer.weight_drop=0.0"]
    chosen = recipe(data, [*overrides, *(["data.carry_state=true"] if mixer == "lstm" else [])], mixer)
    run(chosen, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_train_in_a_group, (port, tmp_path / "two", chosen.to_yaml()), nprocs=2)
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-5, msg=name)


# What is refused


@pytest.mark.parametrize(
    ("overrides", "mixer", "complaint"),
    [
        (["tokenizer.kind=bpe"], "attention", "a language model takes byte_bpe, char, byte"),
        (["data.context=17"], "attention", "more than the model's positions"),
        (["data.carry_state=true"], "attention", "needs mixers whose state has one size"),
        (["data.carry_state=true", "train.r_drop=1.0"], "lstm", "exclude each other"),
        (["model.mixer.n_heads=3"], "attention", "not divisible by decoder.mixer.n_heads 3"),
        (["model.wiring=none"], "attention", "no family combines these"),
        (["model.mixer.kind=lstn"], "attention", "did you mean lstm"),
        (["data.valid_share=0.1"], "attention", "give one of them"),
        (["decode.temperature=-1"], "attention", "decode.temperature"),
        (["data.kind=parallel"], "attention", "data.kind is parallel|data"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_with_the_reason(data, overrides, mixer, complaint):
    with pytest.raises(RecipeError, match=complaint):
        recipe(data, overrides, mixer)


def test_a_text_shorter_than_the_context_is_refused_before_the_folder_is_begun(data, tmp_path):
    (tmp_path / "short.txt").write_text("too short", encoding="utf-8")
    with pytest.raises(DataError, match="shorter than one training window"):
        run(recipe(data, [f"data.train={tmp_path / 'short.txt'}", "tokenizer.kind=byte"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
