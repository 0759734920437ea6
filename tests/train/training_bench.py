"""What the trainer tests share: a small corpus, a small model, a store in memory, a trainer made of them."""

import io
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from tripel.data.loader import Loader
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.nn import AttentionConfig
from tripel.tasks.translation import collate
from tripel.training.log import RunLog
from tripel.training.optim import OptimConfig
from tripel.training.trainer import TrainConfig, Trainer

PAD, EOS, START, V = 0, 1, 2, 20
VOCABULARY = Vocabulary(source_size=V, target_size=V, pad_id=PAD, eos_id=EOS, start_id=START)


class Corpus:
    """Sentences of 1 to `longest` ids; the target is the source backwards, twice as often as not with its ends cut off,
    so that the two sides differ in length."""

    def __init__(self, n=24, *, seed=0, longest=7):
        rng = np.random.default_rng(seed)
        self.sources = [rng.integers(3, V, rng.integers(1, longest + 1)) for _ in range(n)]
        self.targets = [source[::-1][: rng.integers(1, len(source) + 1)] for source in self.sources]

    def source(self, index):
        return self.sources[index]

    def target(self, index):
        return self.targets[index]

    @property
    def source_lengths(self):
        return np.array([len(row) for row in self.sources], np.int64)

    @property
    def target_lengths(self):
        return np.array([len(row) for row in self.targets], np.int64)

    @property
    def target_tokens(self):
        """Predicted tokens of one epoch, end tokens included."""
        return int((self.target_lengths + 1).sum())


class MemoryStore:
    """The Store protocol with copies in memory."""

    def __init__(self):
        self.steps, self.best, self.snapshots = {}, [], {}

    def save_step(self, step, groups, meta):
        copied = {group: {k: v.clone() for k, v in tensors.items()} for group, tensors in groups.items()}
        plain = {key: dict(value) if isinstance(value, dict) else value for key, value in meta.items()}
        self.steps[step] = (copied, plain)

    def save_best(self, model, step, metrics):
        self.best.append((step, metrics, weights(model)))

    def save_snapshot(self, step, tensors):
        self.snapshots[step] = {name: tensor.clone() for name, tensor in tensors.items()}


def small_model(*, dropout=0.0, wiring="post", tie="all", seed=0):
    torch.manual_seed(seed)
    stack = StackConfig(n_layers=1, mixer=AttentionConfig(n_heads=2, dropout=dropout))
    config = EncoderDecoderConfig(
        d_model=16, d_ff=24, encoder=stack, decoder=stack, wiring=wiring, tie=tie, max_len=16, dropout=dropout
    )
    return build(config, VOCABULARY)


def make_loader(make_corpus, *, tokens_per_step=40, micro_tokens=20, rank=0, world_size=1, seed=1):
    return Loader(
        make_corpus,
        lambda corpus, rows: collate(corpus, rows, VOCABULARY),
        tokens_per_step=tokens_per_step,
        micro_tokens=micro_tokens,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


def make_trainer(
    model=None, loader=None, *, optim=None, validate=None, metric="bleu", store=None, log=None, smoothing=0.1, **train
):
    """A trainer for six updates in float32 unless told otherwise."""
    config = TrainConfig(**{"steps": 6, "valid_every": 100, "precision": "float32", **train})
    corpus = Corpus()
    loader = loader or make_loader(lambda epoch: corpus)
    return Trainer(
        model or small_model(),
        loader,
        optim or OptimConfig(lr=1e-2, warmup_steps=2),
        config,
        label_smoothing=smoothing,
        validate=validate,
        metric=metric,
        store=store or MemoryStore(),
        log=log or quiet_log(config.steps),
    )


def quiet_log(n_steps=6):
    return RunLog(Path("nowhere"), n_steps, console=Console(file=io.StringIO()), quiet=True)


def file_log(folder, n_steps=6, *, resume_step=None):
    return RunLog(folder, n_steps, console=Console(file=io.StringIO()), resume_step=resume_step)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def same(one, other):
    """Whether two sets of tensors are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
