"""Running a recipe in a test, and comparing what came of it."""

import io
import json
import os
import signal

import torch
from rich.console import Console
from safetensors.torch import load_file

from tripel import checkpoint
from tripel.run import train
from tripel.training.log import RunLog


def run(chosen, out, **options):
    said = io.StringIO()
    result = train(chosen, out, console=Console(file=said, width=200), **options)
    return result, said.getvalue()


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]


def without_times(records):
    return [{k: v for k, v in record.items() if k not in ("seconds", "tokens_per_second")} for record in records]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same_checkpoint(one, other, step):
    one, other = (checkpoint.load_training(folder / "checkpoints" / f"step-{step}").groups for folder in (one, other))
    assert one.keys() == other.keys()
    for group in one:
        assert one[group].keys() == other[group].keys()
        assert all(torch.equal(one[group][name], other[group][name]) for name in one[group]), group


def interrupt_at(monkeypatch, step):
    """The run gets a SIGTERM in the middle of this update."""
    advance = RunLog.advance

    def interrupting(self, at):
        advance(self, at)
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunLog, "advance", interrupting)
