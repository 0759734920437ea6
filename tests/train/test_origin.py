"""init_from: a run that begins with another's weights and tokenizer."""

import shutil

import pytest
import torch
from running import run, weights_of

from tripel import checkpoint
from tripel.errors import CheckpointError, RecipeError
from tripel.recipe import Recipe

TEXT = "the cat sat on the mat .\na dog ran to the red house !\nno bird sings in the rain ?\n" * 60
SHAPE = "n_layers: 1, d_model: 16, d_ff: 32, mixer: {kind: attention, n_heads: 2}, max_len: 24, dropout: 0.0"
TRAIN = """
optim: {kind: adamw, lr: 1.0e-3, schedule: constant, warmup_steps: 1}
train: {steps: 3, tokens_per_step: 200, micro_tokens: 200, valid_every: 3, precision: float32, seed: SEED}
"""
TASKS = {
    "masked-token": "tokenizer: {kind: wordpiece, vocab_size: 90}\nmodel: {SHAPE}\n",
    "next-token": "tokenizer: {kind: byte_bpe, vocab_size: 280}\nmodel: {SHAPE}\n",
}


def recipe(folder, task, *overrides, seed=1, sections=None):
    sections = TASKS[task] if sections is None else sections
    text = f"task: {{kind: {task}}}\ndata: {{train: {folder / 'a.txt'}, valid_share: 0.1}}\n{sections}{TRAIN}"
    return Recipe.from_yaml(text.replace("SHAPE", SHAPE).replace("SEED", str(seed)), overrides)


@pytest.fixture(scope="module")
def origins(tmp_path_factory):
    """A run of each task, and its text."""
    folder = tmp_path_factory.mktemp("origins")
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    for task in TASKS:
        run(recipe(folder, task), folder / task)
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_a_run_begins_with_the_weights_and_the_tokenizer_of_its_origin(origins, tmp_path, task):
    chosen = recipe(origins, task, f"init_from={origins / task}", "optim.lr=1e-12", seed=7, sections="")
    assert chosen.model == checkpoint.load_run(origins / task).config
    _, said = run(chosen, tmp_path / "run")
    assert f"beginning with the weights of {origins / task}" in said and "new" not in said.split("beginning")[1][:80]
    own, theirs = weights_of(tmp_path / "run"), weights_of(origins / task)
    for name in theirs:
        torch.testing.assert_close(own[name], theirs[name], rtol=0, atol=1e-6)
    assert (tmp_path / "run" / "tokenizer.json").read_text() == (origins / task / "tokenizer.json").read_text()


def test_dropout_may_differ_from_the_origins(origins):
    chosen = recipe(origins, "masked-token", f"init_from={origins / 'masked-token'}", "model.dropout=0.3", sections="")
    assert chosen.model.dropout == 0.3 and chosen.model.d_model == 16


def test_a_setting_that_the_weights_do_not_allow_is_named(origins):
    for override, key in (("model.d_model=32", "model.d_model"), ("model.mixer.n_heads=4", "model.mixer.n_heads")):
        with pytest.raises(RecipeError, match=f"{key} is not that of the run") as error:
            recipe(origins, "masked-token", f"init_from={origins / 'masked-token'}", override, sections="")
        assert "leave" in str(error.value)


def test_an_origin_of_another_skeleton_is_refused(origins):
    with pytest.raises(RecipeError):
        recipe(origins, "masked-token", f"init_from={origins / 'next-token'}", sections="")


def test_an_origin_that_is_no_run_is_refused(origins, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        recipe(origins, "masked-token", f"init_from={tmp_path / 'nowhere'}", sections="")


def test_a_run_can_be_resumed_when_its_origin_is_gone(origins, tmp_path):
    shutil.copytree(origins / "masked-token", tmp_path / "origin")
    chosen = recipe(origins, "masked-token", f"init_from={tmp_path / 'origin'}", sections="")
    run(chosen, tmp_path / "run")
    shutil.rmtree(tmp_path / "origin")
    stored = Recipe.load(tmp_path / "run" / "recipe.yaml", ["train.steps=5"])
    assert run(stored, tmp_path / "run", resume=True)[0].step == 5
