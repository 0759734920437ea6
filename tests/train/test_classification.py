"""From a recipe and labelled texts to a classifier's run folder, and on from there: resumed, evaluated, used."""

import json
import os
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from running import assert_same_checkpoint, interrupt_at, metrics_of, run, weights_of, without_times

from tripel.data.labelled import LabelledDataConfig, load_labelled
from tripel.data.loader import Loader
from tripel.errors import DataError, InputError
from tripel.evaluate import evaluate
from tripel.jobs import open_job
from tripel.jobs.classification import classified_texts
from tripel.pipelines.load import load
from tripel.recipe import Recipe
from tripel.tasks.classification import ClassifiedTexts, collate_classified, shortened
from tripel.tasks.masked_token import encoder_vocabulary
from tripel.text.rows import IdRows
from tripel.text.tokenizer import Tokenizer, TokenizerConfig

TELLING = {"good": ("lovely", "fun"), "bad": ("dull", "awful"), "odd": ("strange", "weird")}
FILLING = ["the", "a", "film", "story", "actor", "scene", "music", "was", "with", "and", "very", "in", "light", "night"]
MODELS = {
    "attention": {"mixer": {"kind": "attention", "n_heads": 2}},
    "attention, modern": {
        "mixer": {"kind": "attention", "n_heads": 2, "rotary": True}, "positions": "none", "wiring": "pre",
        "norm": "rms", "norm_eps": 1e-5, "token_types": 0, "pool": "mean", "pooler": False,
    },
    "lstm": {"mixer": {"kind": "lstm"}, "positions": "none", "wiring": "none", "d_ff": 0, "pool": "mean"},
    "conv": {"mixer": {"kind": "conv", "kernel": 3}, "positions": "none", "wiring": "pre", "pool": "max"},
}  # fmt: skip


def write_examples(path, n, seed):
    """Texts of filling words and one word that tells the class."""
    generator = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(n):
            label = list(TELLING)[number % len(TELLING)]
            words = generator.choices(FILLING, k=generator.randrange(2, 12))
            words.insert(generator.randrange(len(words) + 1), generator.choice(TELLING[label]))
            file.write(f"{label}\t{' '.join(words)} .\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with train.tsv, valid.tsv and test.tsv; and a cache of the tests' own."""
    folder = tmp_path_factory.mktemp("examples")
    for seed, (name, n) in enumerate((("train", 240), ("valid", 45), ("test", 60))):
        write_examples(folder / f"{name}.tsv", n, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def recipe(data, overrides=(), model="attention", **train_settings):
    tree = {
        "task": {"kind": "classification"},
        "data": {name: str(data / f"{name}.tsv") for name in ("train", "valid", "test")},
        "tokenizer": {"kind": "word", "vocab_size": 80},
        "model": {
            "n_layers": 1, "d_model": 32, "d_ff": 64, "max_len": 24, "dropout": 0.0, "initialisation": "glorot",
            **MODELS[model],
        },
        "optim": {"lr": 5e-3, "warmup_steps": 4, "schedule": "constant"},
        "train": {
            "steps": 8, "tokens_per_step": 256, "micro_tokens": 128, "valid_every": 4, "log_every": 2,
            "precision": "float32", **train_settings,
        },
    }  # fmt: skip
    return Recipe.from_yaml(yaml.safe_dump(tree), overrides)


@pytest.fixture(scope="module", params=MODELS)
def trained(data, tmp_path_factory, request):
    out = tmp_path_factory.mktemp("runs") / "learned"
    settings = {"steps": 120, "valid_every": 40, "tokens_per_step": 512, "micro_tokens": 512}
    return out, *run(recipe(data, model=request.param, **settings), out)


def test_a_classifier_learns_what_tells_the_classes_apart(trained):
    out, result, said = trained
    assert result.metrics["accuracy"] == result.metrics["macro_f1"] == 1.0
    assert evaluate(out).scores.accuracy > 0.95
    classifier = load(out)
    assert [answer.label for answer in classifier.classify(["the film was dull", "weird music", "a fun story ."])] == [
        "bad",
        "odd",
        "good",
    ]
    assert "class frequency: loss 1.0" in said and "no better than" not in said.splitlines()[-2]
    assert "; right)" in said


def test_the_metrics_of_a_classifier_have_the_promised_names(trained):
    validations = [record for record in metrics_of(trained[0]) if "valid_loss" in record]
    assert [set(record) - {"step", "tokens", "seconds"} for record in validations] == [
        {"valid_loss", "accuracy", "macro_f1"}
    ] * 3


def test_evaluating_on_the_validation_set_gives_the_runs_own_score(data, tmp_path):
    result, _ = run(recipe(data), tmp_path / "run")
    for split in ("valid", str(data / "valid.tsv")):
        scores = evaluate(tmp_path / "run", split).scores
        assert scores.metrics() == pytest.approx(result.metrics, abs=1e-6)


def test_an_evaluation_leaves_its_predictions_and_a_picture(data, tmp_path):
    run(recipe(data), tmp_path / "run")
    evaluation = evaluate(tmp_path / "run", "test")
    assert {evaluation.predictions.parent, evaluation.confusion.parent} == {tmp_path / "run"}
    assert evaluation.confusion.read_bytes().startswith(b"\x89PNG")
    rows = [line.split("\t") for line in evaluation.predictions.read_text(encoding="utf-8").splitlines()]
    truth = load_labelled(str(data / "test.tsv"), LabelledDataConfig(train="-"), training=False)[0]
    again = load_labelled(str(evaluation.predictions), LabelledDataConfig(train="-"), training=False)[0]
    assert (again.texts, again.labels) == (truth.texts, truth.labels)
    right = [row[0] == row[2] for row in rows[1:]]
    assert sum(right) / len(right) == evaluation.scores.accuracy
    answers = load(tmp_path / "run").classify(truth.texts)
    assert [answer.label for answer in answers] == [row[0] for row in rows[1:]]
    written = json.loads(evaluation.to_json())
    assert written["accuracy"] == evaluation.scores.accuracy
    assert written["predictions"] == str(evaluation.predictions)


def test_an_evaluation_writes_its_predictions_where_it_is_told_and_takes_no_search(data, tmp_path):
    run(recipe(data), tmp_path / "run")
    assert evaluate(tmp_path / "run", hypotheses=tmp_path / "said.tsv").predictions == tmp_path / "said.tsv"
    assert (tmp_path / "said.tsv").is_file()
    with pytest.raises(InputError, match="probabilities"):
        evaluate(tmp_path / "run", settings={"beam": 4})


def test_a_set_with_labels_unseen_in_training_is_not_scored(data, tmp_path):
    run(recipe(data), tmp_path / "run")
    (tmp_path / "other.tsv").write_text("good\tfun\nterrible\tdull\n", encoding="utf-8")
    with pytest.raises(DataError, match="labels that the training set has not") as error:
        evaluate(tmp_path / "run", str(tmp_path / "other.tsv"))
    assert "'terrible'" in str(error.value)


@pytest.mark.parametrize("model", ["attention", "lstm"])
def test_an_interrupted_and_resumed_classifier_ends_like_an_uninterrupted_one(data, tmp_path, monkeypatch, model):
    chosen = recipe(data, ["model.dropout=0.2"], model)
    run(chosen, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        result, _ = run(chosen, tmp_path / "parts")
        assert (result.reason, result.step) == ("interrupted", 3)
    run(chosen, tmp_path / "parts", resume=True)
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "parts", 8)
    assert without_times(metrics_of(tmp_path / "whole")) == without_times(metrics_of(tmp_path / "parts"))
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_part_of_the_training_set_validates_and_can_be_evaluated(data, tmp_path):
    chosen = recipe(data, ["data.valid=null", "data.valid_share=0.2"])
    result, _ = run(chosen, tmp_path / "run")
    valid, train = evaluate(tmp_path / "run", "valid"), evaluate(tmp_path / "run", "train")
    assert valid.scores.metrics() == pytest.approx(result.metrics, abs=1e-6)
    assert valid.scores.n_examples + train.scores.n_examples == 240
    assert valid.predictions.name == "predictions.valid.tsv"


def test_without_validation_data_a_classifier_is_trained_all_the_same(data, tmp_path):
    result, said = run(recipe(data, ["data.valid=null"]), tmp_path / "run")
    assert result.metrics == {} and "frequency" not in said
    with pytest.raises(InputError, match="names no valid set"):
        evaluate(tmp_path / "run", "valid")


@pytest.mark.parametrize("model", MODELS)
def test_texts_longer_than_the_model_reads_are_cut_and_told(data, tmp_path, model):
    result, said = run(recipe(data, ["model.max_len=8"], model), tmp_path / "run")
    assert result.step == 8 and "longer than 8 tokens" in said
    evaluation = evaluate(tmp_path / "run")
    (cut,) = (finding for finding in evaluation.report.findings if "longer than 8 tokens" in finding.kind)
    long = [len(line.split("\t")[1].split()) > 6 for line in (data / "test.tsv").open(encoding="utf-8")]
    assert cut.count == sum(long) and cut.examples[0].endswith(f"test.tsv:{long.index(True) + 1}")
    answers = load(tmp_path / "run").classify(
        [line.strip().split("\t")[1] for line in (data / "test.tsv").open(encoding="utf-8")]
    )
    assert [answer.n_dropped > 0 for answer in answers] == long
    said = [line.split("\t")[0] for line in evaluation.predictions.read_text(encoding="utf-8").splitlines()[1:]]
    assert [answer.label for answer in answers] == said
    with pytest.raises(DataError, match="no room for a text"):
        run(recipe(data, ["model.max_len=2"], model), tmp_path / "other")


def test_pretraining_gives_its_weights_and_its_tokenizer_to_a_classifier(data, tmp_path):
    text = "".join(line.split("\t")[1] for line in (data / "train.tsv").open(encoding="utf-8"))
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    body = recipe(data).model.model_dump(exclude={"head"})
    sections = {
        "task": {"kind": "masked-token"},
        "data": {"train": str(tmp_path / "text.txt"), "valid_share": 0.1},
        "tokenizer": {"kind": "wordpiece", "vocab_size": 90},
        "model": body,
        "train": {"steps": 2, "tokens_per_step": 128, "valid_every": 2, "precision": "float32"},
    }
    run(Recipe.from_yaml(yaml.safe_dump(sections)), tmp_path / "origin")
    tree = recipe(data).model_dump(mode="json")
    tree = {key: tree[key] for key in ("task", "data", "optim", "train")} | {"init_from": str(tmp_path / "origin")}
    tree["optim"]["lr"] = 1e-12
    run(Recipe.from_yaml(yaml.safe_dump(tree)), tmp_path / "run")
    own, theirs = (dict(load(tmp_path / name).model.named_parameters()) for name in ("run", "origin"))
    assert {name for name in own if not name.startswith(("head.", "pooler."))} == {
        name for name in theirs if not name.startswith("head.")
    }
    for name in own.keys() & theirs.keys():
        torch.testing.assert_close(own[name], theirs[name], rtol=0, atol=1e-6)
    assert (tmp_path / "run" / "tokenizer.json").read_text() == (tmp_path / "origin" / "tokenizer.json").read_text()
    assert load(tmp_path / "run").labels == ("bad", "good", "odd")


# Batches.


def corpus_of(*lengths):
    rows = [list(range(5, 5 + n)) for n in lengths]
    return ClassifiedTexts(IdRows.from_lists(rows), np.arange(len(rows)) % 3)


def test_a_batch_has_texts_between_their_begin_and_end_tokens_and_a_class_each():
    tokenizer = Tokenizer.train(TokenizerConfig(kind="char"), ["abc"], mask=True)
    vocabulary = encoder_vocabulary(tokenizer, ("x", "y", "z"))
    batch = collate_classified(corpus_of(3, 1, 0), [2, 0], vocabulary)
    start, end, pad = vocabulary.start_id, vocabulary.eos_id, vocabulary.pad_id
    assert batch.inputs["ids_BT"].tolist() == [[start, end, pad, pad, pad], [start, 5, 6, 7, end]]
    assert batch.inputs["valid_BT"].tolist() == [[True] * 2 + [False] * 3, [True] * 5]
    assert batch.targets_BT.tolist() == [2, 0]
    assert (batch.count, batch.tokens, batch.rows) == (2, 7, (2, 0))


def test_a_steps_tokens_are_those_that_are_read(data):
    job = open_job(recipe(data))
    job.read()
    job.encode(job.train_tokenizers())
    loader = job.loader()
    assert isinstance(loader, Loader)
    corpus, plan = loader.plan(0)
    seen = sorted(int(row) for step in plan.steps for micro in step for row in micro)
    assert seen == list(range(240)) == list(range(len(corpus)))
    epoch = loader.steps_of(0)
    read = [sum(batch.tokens for batch in epoch.batches(step)) for step in range(epoch.n_steps)]
    assert sum(read) == int((corpus.rows.lengths + 2).sum())
    assert np.mean(read) == pytest.approx(256, rel=0.3)


def test_the_loss_of_a_batch_is_pytorchs_of_the_models_logits(data, tmp_path):
    from tripel.training.loss import batch_loss_sum

    run(recipe(data), tmp_path / "run")
    classifier = load(tmp_path / "run")
    rows = IdRows.from_lists(classifier.tokenizer.encode_batch(["a fun film", "dull and weird night scene"]))
    batch = collate_classified(ClassifiedTexts(rows, np.array([1, 2])), [0, 1], classifier.model.vocabulary)
    with torch.no_grad():
        expected = F.cross_entropy(classifier.model(**batch.inputs), batch.targets_BT, reduction="sum")
        torch.testing.assert_close(batch_loss_sum(classifier.model, batch, label_smoothing=0.0), expected)


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_shortened_rows_are_the_beginnings_of_the_rows(most):
    rows = corpus_of(3, 0, 1, 5, 2).rows
    short, cut = shortened(rows, most)
    assert [short[i].tolist() for i in range(5)] == [rows[i][:most].tolist() for i in range(5)]
    assert cut.tolist() == [i for i in range(5) if len(rows[i]) > most]
    assert short.is_sound(20)


def test_a_share_of_unknown_tokens_is_told_or_refused(data, tmp_path):
    (tmp_path / "a.tsv").write_text("x\tabc cab abc cab\ny\tabc 日\n", encoding="utf-8")
    tokenizer = Tokenizer.train(TokenizerConfig(kind="word", vocab_size=40), ["abc abc", "cab cab"], mask=True)
    config = LabelledDataConfig(train=str(tmp_path / "a.tsv"), max_unknown_share=0.5)
    text, _ = load_labelled(config.train, config, training=True)
    _, report = classified_texts(text, tokenizer, ("x", "y"), 20, config)
    (finding,) = report.findings
    assert (finding.kind, finding.count, finding.examples) == ("unknown tokens", 1, (f"{config.train}:2",))
    with pytest.raises(DataError, match="17% of the tokens are unknown"):
        classified_texts(text, tokenizer, ("x", "y"), 20, config.model_copy(update={"max_unknown_share": 0.01}))


@pytest.mark.skipif("TRIPEL_DATA" not in os.environ, reason="needs real data: set TRIPEL_DATA")
@pytest.mark.parametrize(("name", "least"), [("trec", 0.6), ("polarity", 0.62)])
def test_a_shipped_recipe_beats_class_frequency_in_a_few_updates(name, least, tmp_path):
    small = ["train.steps=80", "train.valid_every=40", "model.n_layers=1", "model.d_model=64", "model.d_ff=128"]
    result, _ = run(
        Recipe.load(name, [*small, "optim.lr=4e-3", "optim.warmup_steps=5", "train.precision=float32"]),
        tmp_path / "run",
    )
    assert result.metrics["accuracy"] > least
