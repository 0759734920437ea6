"""Scoring a run that fills masks: the same hidden words as in its validation, beside word frequencies."""

import json

import pytest
import yaml
from running import run

from tripel.errors import InputError
from tripel.evaluate import evaluate
from tripel.recipe import Recipe

TEXT = "the cat sat on the mat .\na dog ran to the red house !\nno bird sings in the rain ?\n" * 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a.txt and other.txt, the run on them, its result and what it said."""
    folder = tmp_path_factory.mktemp("masked")
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    (folder / "other.txt").write_text(TEXT[: len(TEXT) // 4], encoding="utf-8")
    tree = {
        "task": {"kind": "masked-token"},
        "data": {"train": str(folder / "a.txt"), "valid": str(folder / "other.txt")},
        "tokenizer": {"kind": "word", "vocab_size": 60},
        "model": {
            "n_layers": 1,
            "d_model": 32,
            "d_ff": 64,
            "mixer": {"kind": "attention", "n_heads": 2},
            "max_len": 24,
        },
        "optim": {"lr": 5e-3, "warmup_steps": 2, "schedule": "constant"},
        "train": {"steps": 30, "tokens_per_step": 256, "micro_tokens": 256, "valid_every": 30, "precision": "float32"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder, *run(Recipe.from_yaml(yaml.safe_dump(tree)), folder / "run")


def test_evaluating_on_the_validation_text_gives_the_runs_own_score_and_baseline(trained):
    folder, result, said = trained
    for split in ("valid", str(folder / "other.txt")):
        evaluation = evaluate(folder / "run", split)
        assert evaluation.loss.metrics() == pytest.approx(result.metrics, abs=1e-5)
        assert str(evaluation.baseline) in said
    written = json.loads(evaluation.to_json())
    assert written["word_frequency_loss"] == evaluation.baseline.loss
    assert written["hidden_tokens"] == evaluation.loss.n_predicted


def test_word_frequencies_are_left_out_where_the_training_text_is_gone(trained):
    folder, result, _ = trained
    (folder / "a.txt").rename(folder / "b.txt")
    try:
        evaluation = evaluate(folder / "run", "valid")
    finally:
        (folder / "b.txt").rename(folder / "a.txt")
    assert evaluation.baseline is None
    assert evaluation.loss.metrics() == pytest.approx(result.metrics, abs=1e-5)
    assert json.loads(evaluation.to_json())["word_frequency_loss"] is None


def test_a_model_that_fills_masks_is_not_scored_by_a_search_nor_on_a_set_it_has_not(trained, tmp_path):
    folder = trained[0]
    with pytest.raises(InputError, match="masked-token task is scored by the probabilities"):
        evaluate(folder / "run", settings={"beam": 2}, hypotheses=tmp_path / "a.txt")
    with pytest.raises(InputError, match="names no test set"):
        evaluate(folder / "run")
