import json
import os
import signal
import threading

import pytest
import torch
import torch.nn.functional as F
from training_bench import (
    START,
    Corpus,
    MemoryStore,
    file_log,
    gradients,
    make_loader,
    make_trainer,
    quiet_log,
    same,
    small_model,
    weights,
)

from tripel.data.batch import IGNORE
from tripel.data.loader import Loader
from tripel.errors import TripelError
from tripel.tasks.translation import collate
from tripel.training.averaging import MovingAverage, mean_of, swapped
from tripel.training.interrupt import StopRequest
from tripel.training.optim import OptimConfig, schedule_factor

GENTLE = OptimConfig(lr=1e-2, warmup_steps=0, eps=1e-3, clip_norm=0)  # a large eps: no division by tiny gradients


def one_update(*, micro_tokens, optim=GENTLE, **train):
    """Weights and gradients after one update on a whole corpus, cut into micro-batches of this size."""
    corpus = Corpus()
    loader = make_loader(lambda epoch: corpus, tokens_per_step=10_000, micro_tokens=micro_tokens)
    n_micro = len(loader.plan(0)[1].steps[0])
    trainer = make_trainer(loader=loader, optim=optim, steps=1, **train)
    trainer.fit()
    return n_micro, gradients(trainer.model), weights(trainer.model)


def train_through(steps, interruption=None, *, config, optim=None, make_corpus=None, dropout=0.2, folder=None):
    """A run of `steps` updates; with an interruption, in two objects with only what the store kept in between."""

    def fresh(store, resume_step=None):
        log = quiet_log(steps) if folder is None else file_log(folder, steps, resume_step=resume_step)
        corpus = Corpus()
        loader = make_loader(make_corpus or (lambda epoch: corpus))
        model = small_model(dropout=dropout, seed=0 if resume_step is None else 99)
        torch.manual_seed(7 if resume_step is None else 98)
        return make_trainer(model, loader, optim=optim, store=store, log=log, steps=steps, **config)

    store = MemoryStore()
    if interruption is None:
        trainer = fresh(store)
    else:
        first = fresh(store)
        first.log.advance = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == interruption else None
        assert first.fit().reason == "interrupted"
        first.log.close()
        trainer = fresh(store, interruption)
        trainer.restore(*store.steps[interruption])
    assert trainer.fit().reason == "finished"
    trainer.log.close()
    return trainer, store


# Accumulation


@pytest.mark.parametrize("r_drop", [0.0, 2.0])
def test_one_micro_batch_and_many_make_the_same_update(r_drop):
    n_one, one_gradients, one_weights = one_update(micro_tokens=10_000, r_drop=r_drop)
    n_many, many_gradients, many_weights = one_update(micro_tokens=10, r_drop=r_drop)
    assert n_one == 1 and n_many > 8
    for name in one_weights:
        torch.testing.assert_close(many_gradients[name], one_gradients[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(many_weights[name], one_weights[name], rtol=0, atol=1e-6)


def test_the_gradient_is_the_mean_over_predicted_tokens_not_over_sentences():
    """Against PyTorch's cross-entropy over the padded batch of all sentences at once."""
    _, ours, _ = one_update(micro_tokens=10)
    corpus, model = Corpus(), small_model()
    batch = collate(corpus, range(24), model.vocabulary)
    logits_BTV = model(**batch.inputs)
    loss = F.cross_entropy(
        logits_BTV.flatten(0, 1), batch.targets_BT.flatten(), ignore_index=IGNORE, label_smoothing=0.1
    )
    loss.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_makes_the_loss_fall(precision, tmp_path):
    corpus = Corpus(8)
    log = file_log(tmp_path, 60)
    trainer = make_trainer(
        loader=make_loader(lambda epoch: corpus), optim=OptimConfig(lr=1e-2, warmup_steps=5, schedule="constant"),
        smoothing=0.0, steps=60, log_every=20, precision=precision, log=log,
    )  # fmt: skip
    trainer.fit()
    log.close()
    losses = [json.loads(line)["train_loss"] for line in (tmp_path / "metrics.jsonl").open()]
    assert losses[2] < 0.6 * losses[0]
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


# What is reported


def test_metrics_say_what_was_done(tmp_path):
    corpus, log = Corpus(), file_log(tmp_path)
    optim = OptimConfig(lr=1e-2, warmup_steps=4)
    loader = make_loader(lambda epoch: corpus)
    plan = loader.plan(0)[1]
    trainer = make_trainer(loader=loader, optim=optim, log=log, log_every=1, validate=lambda m: {"bleu": 3.0})
    trainer.fit()
    log.close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    training, validations = [r for r in records if "train_loss" in r], [r for r in records if "bleu" in r]
    assert [record["step"] for record in training] == [1, 2, 3, 4, 5, 6]
    for record in training:
        assert record["lr"] == optim.lr * schedule_factor(optim, record["step"], 6)
        assert record["grad_norm"] > 0 and record["tokens_per_second"] > 0 and record["seconds"] >= 0
    source_tokens = sum(int((corpus.source_lengths + 1)[micro].sum()) for micro in plan.steps[0])
    assert training[0]["tokens"] == source_tokens + plan.target_tokens[0].sum()
    assert [(v["step"], v["bleu"]) for v in validations] == [(6, 3.0)]


def test_the_reported_loss_is_per_predicted_token_over_all_updates_since_the_last_line(tmp_path):
    """With a learning rate of almost nothing the weights stand still, and the loss can be computed beside it."""
    corpus, log = Corpus(60), file_log(tmp_path, 4)
    optim = OptimConfig(lr=1e-30, warmup_steps=0)
    loader = make_loader(lambda epoch: corpus)
    plan = loader.plan(0)[1]
    trainer = make_trainer(loader=loader, optim=optim, log=log, steps=4, log_every=2, smoothing=0.0)
    trainer.fit()
    log.close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    for record, steps in zip(records, (plan.steps[:2], plan.steps[2:4]), strict=True):
        batches = [collate(corpus, micro, trainer.model.vocabulary) for step in steps for micro in step]
        total = 0.0
        for b in batches:
            with torch.no_grad():
                logits_NV = trainer.model(**b.inputs).flatten(0, 1)
            total += F.cross_entropy(logits_NV, b.targets_BT.flatten(), reduction="sum", ignore_index=IGNORE).item()
        assert record["train_loss"] == pytest.approx(total / sum(b.count for b in batches), rel=1e-5)


# Resume


@pytest.mark.parametrize(
    ("config", "optim"),
    [
        ({"precision": "float32"}, None),
        ({"precision": "bfloat16"}, None),
        ({"precision": "float32", "ema": 0.9, "r_drop": 1.0}, None),
        ({"precision": "bfloat16", "ema": 0.9}, OptimConfig(kind="muon", lr=1e-2, warmup_steps=2, weight_decay=0.1)),
        ({"precision": "float32"}, OptimConfig(kind="muon", lr=1e-2, schedule="cosine", warmup_steps=2)),
    ],
    ids=["float32", "bfloat16", "ema-rdrop", "muon-bfloat16-ema", "muon-float32"],
)
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(config, optim):
    whole, whole_store = train_through(6, config=config, optim=optim)
    parts, parts_store = train_through(6, 3, config=config, optim=optim)
    (whole_groups, whole_meta), (parts_groups, parts_meta) = whole_store.steps[6], parts_store.steps[6]
    assert whole_groups.keys() == parts_groups.keys() >= {"model", "optimizer", "random"}
    assert ("ema" in whole_groups) == ("ema" in config)
    for group in whole_groups:
        assert same(whole_groups[group], parts_groups[group]), group
    assert same(weights(whole.model), weights(parts.model))
    assert whole_meta["loader"] == parts_meta["loader"]


@pytest.mark.parametrize("interruption", [1, 2, 4, 5])
def test_a_run_can_be_resumed_at_any_step_and_in_any_epoch(interruption):
    epochs = {}

    def make_corpus(epoch):  # as with BPE dropout: another segmentation in every epoch
        return epochs.setdefault(epoch, Corpus(10, seed=epoch))

    whole, _ = train_through(6, config={}, make_corpus=make_corpus)
    parts, _ = train_through(6, interruption, config={}, make_corpus=make_corpus)
    assert whole.loader.state_dict()["epoch"] > 0
    assert same(weights(whole.model), weights(parts.model))
    assert whole.loader.state_dict() == parts.loader.state_dict()


def test_a_resumed_run_writes_the_metrics_of_an_uninterrupted_one(tmp_path):
    for name, interruption in (("whole", None), ("parts", 3)):
        (tmp_path / name).mkdir()
        config = {"log_every": 2, "valid_every": 2, "validate": lambda model: {"bleu": 1.0}}
        train_through(6, interruption, config=config, folder=tmp_path / name)
    whole, parts = (
        [
            {key: value for key, value in json.loads(line).items() if key not in ("seconds", "tokens_per_second")}
            for line in (tmp_path / name / "metrics.jsonl").open()
        ]
        for name in ("whole", "parts")
    )
    assert [record["step"] for record in whole] == [2, 2, 4, 4, 6, 6]
    assert whole == parts


def test_lines_after_the_checkpoint_and_a_line_cut_short_are_dropped_on_resuming(tmp_path):
    lines = ['{"step": 1, "lr": 1.0}\n', '{"step": 2, "lr": 1.0}\n', '{"step": 3, "lr": 1.0}\n', '{"step": 3, "l']
    (tmp_path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    file_log(tmp_path, resume_step=2).close()
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == "".join(lines[:2])


def test_finishing_a_finished_run_does_nothing():
    trainer, store = train_through(3, config={})
    again = make_trainer(small_model(seed=5), steps=3)
    again.restore(*store.steps[3])
    assert again.fit().reason == "finished"
    assert same(weights(again.model), weights(trainer.model))


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_after_the_update_in_progress(number):
    store = MemoryStore()
    trainer = make_trainer(steps=100_000, store=store)
    trainer.log.advance = lambda step: os.kill(os.getpid(), number) if step == 3 else None
    before = signal.getsignal(number)
    result = trainer.fit()
    assert (result.reason, result.progress.step) == ("interrupted", 3)
    assert list(store.steps) == [3]
    assert same(store.steps[3][0]["model"], weights(trainer.model))
    assert signal.getsignal(number) is before


def test_a_signal_at_any_time_stops_between_two_updates():
    store = MemoryStore()
    trainer = make_trainer(steps=100_000, store=store)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    result = trainer.fit()
    timer.join()
    assert result.reason == "interrupted"
    assert list(store.steps) == [result.progress.step]


def test_a_second_signal_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)


def test_the_loaders_thread_ends_with_the_training():
    make_trainer().fit()
    assert not [thread for thread in threading.enumerate() if thread.name == "tripel-loader"]


def test_patience_stops_after_so_many_validations_without_a_better_score():
    scores = iter([1.0, 5.0, 2.0, 5.0, 4.9, 9.0])
    store = MemoryStore()
    trainer = make_trainer(
        store=store, steps=60, valid_every=2, patience=3, validate=lambda model: {"bleu": next(scores)}
    )
    result = trainer.fit()
    assert (result.reason, result.progress.step) == ("patience", 10)
    assert (result.progress.best_step, result.progress.best) == (4, {"bleu": 5.0})
    assert [(step, metrics["bleu"]) for step, metrics, _ in store.best] == [(2, 1.0), (4, 5.0)]
    assert max(store.steps) == 10


def test_patience_is_counted_across_a_resume():
    store = MemoryStore()
    settings = {"valid_every": 2, "patience": 2, "validate": lambda model: {"bleu": 1.0}}
    make_trainer(store=store, steps=4, **settings).fit()
    second = make_trainer(steps=60, **settings)
    second.restore(*store.steps[4])
    assert second.progress.stale == 1
    result = second.fit()
    assert (result.reason, result.progress.step) == ("patience", 6)


@pytest.mark.parametrize(("metric", "better"), [("bleu", 2.0), ("valid_loss", 0.5)])
def test_better_is_higher_for_scores_and_lower_for_losses(metric, better):
    values = iter([1.0, better, 1.0])
    trainer = make_trainer(metric=metric, steps=3, valid_every=1, validate=lambda model: {metric: next(values)})
    assert trainer.fit().progress.best == {metric: better}


@pytest.mark.parametrize(("best_by", "steps"), [("score", [2, 4]), ("loss", [2, 6])])
def test_the_weights_kept_are_the_best_by_score_or_by_loss(best_by, steps):
    store = MemoryStore()
    found = iter([{"bleu": 1.0, "valid_loss": 3.0}, {"bleu": 5.0, "valid_loss": 3.5}, {"bleu": 4.0, "valid_loss": 2.0}])
    trainer = make_trainer(store=store, valid_every=2, best_by=best_by, validate=lambda model: next(found))
    assert trainer.fit().progress.best_step == steps[-1]
    assert [step for step, _, _ in store.best] == steps


# Numbers that are not finite


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_examples():
    corpus = Corpus()
    loader = make_loader(lambda epoch: corpus, tokens_per_step=10_000, micro_tokens=20)
    model, store = small_model(tie="none"), MemoryStore()
    culprit = 7
    corpus.sources[culprit][:] = 19
    for index, source in enumerate(corpus.sources):
        if index != culprit:
            source[source == 19] = 18
    with torch.no_grad():
        model.source_tokens.weight[19] = torch.nan
    before = weights(model)
    trainer = make_trainer(model, loader, store=store)
    with pytest.raises(TripelError, match="the loss is not finite at step 1; the update was not made") as error:
        trainer.fit()
    (micro,) = (micro for micro in loader.plan(0)[1].steps[0] if culprit in micro)
    assert str([int(i) for i in micro[:8]])[:-1] in str(error.value)
    for name, tensor in weights(model).items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)
    assert store.steps == {}


def test_a_gradient_that_is_not_finite_stops_before_the_update():
    model = small_model()
    before = weights(model)
    model.decoder.blocks[0].feed_forward.inner.weight.register_hook(lambda grad: grad * torch.inf)
    with pytest.raises(TripelError, match="the gradient is not finite at step 1; the update was not made"):
        make_trainer(model).fit()
    assert same(weights(model), before)


# Clipping


@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_gradients_are_scaled_down_to_the_clipping_norm_and_never_up(clip_norm):
    _, free, _ = one_update(micro_tokens=20)
    _, clipped, _ = one_update(micro_tokens=20, optim=GENTLE.model_copy(update={"clip_norm": clip_norm}))
    norm = torch.cat([g.flatten() for g in free.values()]).norm()
    factor = min(1.0, clip_norm / norm.item())
    for name in free:
        torch.testing.assert_close(clipped[name], free[name] * factor, rtol=1e-4, atol=1e-9)


# Averaging


def test_the_moving_average_follows_its_formula():
    model = small_model()
    average = MovingAverage(model, 0.8)
    expected = {name: tensor.double() for name, tensor in weights(model).items()}
    for step in range(1, 40):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        average.update(step)
        decay = min(0.8, (1 + step) / (10 + step))
        for name, tensor in weights(model).items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    for name, tensor in expected.items():
        torch.testing.assert_close(average.tensors[name], tensor.float(), rtol=1e-4, atol=1e-4)


def test_the_moving_average_is_what_is_validated_and_kept_and_training_goes_on_with_its_own_weights():
    seen, store = [], MemoryStore()

    def validate(model):
        seen.append(weights(model))
        assert not model.training
        return {"bleu": 1.0}

    trainer = make_trainer(store=store, ema=0.9, validate=validate)
    trainer.fit()
    assert same(seen[0], trainer.average.tensors)
    assert same(store.best[0][2], trainer.average.tensors)
    assert not same(weights(trainer.model), trainer.average.tensors)
    assert same(weights(trainer.model), store.steps[6][0]["model"])
    assert trainer.model.training
    plain = make_trainer()
    plain.fit()
    assert same(weights(plain.model), weights(trainer.model))


def test_swapped_weights_come_back_even_after_an_error():
    model = small_model()
    own = weights(model)
    with pytest.raises(RuntimeError), swapped(model, {name: tensor + 1 for name, tensor in own.items()}):
        assert not same(weights(model), own)
        raise RuntimeError
    assert same(weights(model), own)


def test_the_mean_of_snapshots_is_the_mean():
    torch.manual_seed(0)
    snapshots = [{"a": torch.randn(3, 4), "b": torch.randn(5)} for _ in range(7)]
    for name, mean in mean_of(snapshots).items():
        expected = torch.stack([s[name] for s in snapshots]).double().mean(0).float()
        torch.testing.assert_close(mean, expected, rtol=0, atol=1e-7)
        assert mean.dtype == torch.float32
    assert same(mean_of(snapshots[:1]), snapshots[0])


def test_a_snapshot_is_kept_at_every_validation_when_some_are_to_be_averaged():
    store = MemoryStore()
    trainer = make_trainer(store=store, valid_every=2, average_last=3, validate=lambda model: {"bleu": 1.0})
    trainer.fit()
    assert list(store.snapshots) == list(store.steps) == [2, 4, 6]
    for step, snapshot in store.snapshots.items():
        assert same(snapshot, store.steps[step][0]["model"])
    without = MemoryStore()
    make_trainer(store=without, valid_every=2).fit()
    assert without.snapshots == {}


# Compilation


def test_a_compiler_that_fails_is_mentioned_once_and_training_goes_on(monkeypatch):
    def broken(function, **options):
        def compiled(*args, **inputs):
            raise RuntimeError("no compiler here")

        return compiled

    monkeypatch.setattr(torch, "compile", broken)
    log = quiet_log()
    said = []
    log.say = said.append
    compiled = make_trainer(compile=True, log=log)
    assert compiled.fit().reason == "finished"
    assert sum("torch.compile does not work here" in message for message in said) == 1
    plain = make_trainer()
    plain.fit()
    assert same(weights(plain.model), weights(compiled.model))


def test_an_error_while_preparing_batches_reaches_the_caller_and_ends_the_thread():
    def collate_nothing(corpus, rows):
        raise ValueError("no such rows")

    loader = Loader(lambda epoch: Corpus(), collate_nothing, tokens_per_step=40, micro_tokens=20, seed=1)
    with pytest.raises(ValueError, match="no such rows"):
        make_trainer(loader=loader).fit()
    assert not [thread for thread in threading.enumerate() if thread.name == "tripel-loader"]


def test_a_translation_batch_shifts_the_target_by_one_and_ignores_what_is_padded():
    corpus = Corpus()
    batch = collate(corpus, [0, 1, 2, 3], small_model().vocabulary)
    for row in range(4):
        n = len(corpus.targets[row])
        target, given = corpus.targets[row].tolist(), batch.inputs["target_BT"][row]
        assert given[: n + 1].tolist() == [START, *target]
        assert batch.targets_BT[row, : n + 1].tolist() == [*target, 1]
        assert (batch.targets_BT[row, n + 1 :] == IGNORE).all() and (given[n + 1 :] == 0).all()
    assert batch.count == int((batch.targets_BT != IGNORE).sum())
    assert batch.tokens == batch.count + int((corpus.source_lengths[:4] + 1).sum())
