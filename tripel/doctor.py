"""`tripel doctor`: what this machine has, and whether a model can learn on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tripel import __version__
from tripel.data.batch import Batch
from tripel.decode.native import library
from tripel.files import cache_folder
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.nn import AttentionConfig
from tripel.training.loss import batch_loss_sum
from tripel.training.optim import OptimConfig, Optimizer
from tripel.training.parallel import pick_device
from tripel.training.precision import Precision, Worker, bfloat16_speedup, resolve_precision

_PACKAGES = ("torch", "tokenizers", "safetensors", "numpy", "pydantic", "sacrebleu", "rich", "typer")
_STEPS = 150


def examine(console: Console) -> bool:
    """Print the report; True when the self-test passed."""
    table = Table(show_header=False, box=None)
    for name, value in _facts():
        table.add_row(f"[bold]{name}[/]", value)
    console.print(table)
    device = pick_device("auto")
    passed = True
    for precision in ("float32", "bfloat16"):
        seconds, first, last = overfit(device, precision)
        learnt = last < 0.05
        passed = passed and learnt
        verdict = "[green]ok[/]" if learnt else "[bold red]failed[/]"
        console.print(
            f"self-test, {precision} on {device}: one batch, loss {first:.2f} to {last:.3f} "
            f"in {_STEPS} updates, {seconds:.1f} s  {verdict}"
        )
    return passed


def overfit(device: torch.device, precision: Precision) -> tuple[float, float, float]:
    """Train a two-layer model on one batch of random pairs: seconds, first loss and last loss per token."""
    vocabulary = Vocabulary(source_size=64, target_size=64, pad_id=0, eos_id=3, start_id=2)
    stack = StackConfig(n_layers=1, mixer=AttentionConfig(n_heads=4))
    config = EncoderDecoderConfig(d_model=64, d_ff=128, encoder=stack, decoder=stack, dropout=0.0)
    generator = torch.Generator().manual_seed(1)
    source_BS = torch.randint(4, 64, (16, 8), generator=generator)
    targets_BT = torch.randint(4, 64, (16, 9), generator=generator)
    input_BT = torch.cat([torch.full((16, 1), vocabulary.start_id), targets_BT[:, :-1]], dim=1)
    inputs: dict[str, torch.Tensor | None] = {"source_BS": source_BS, "target_BT": input_BT}
    batch = Batch(inputs, targets_BT, count=targets_BT.numel(), tokens=0).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build(config, vocabulary).to(device)
    worker = Worker(model, precision)
    optimizer = Optimizer(OptimConfig(lr=3e-3, warmup_steps=10, schedule="constant"), model)
    losses, start = [], time.perf_counter()
    for _ in range(_STEPS):
        worker.begin_step()
        loss = batch_loss_sum(worker.model, batch, label_smoothing=0.0) / batch.count
        loss.backward()
        worker.collect()
        optimizer.step(3e-3)
        losses.append(loss.item())
    return time.perf_counter() - start, losses[0], losses[-1]


def _facts() -> Iterator[tuple[str, str]]:
    yield "tripel", __version__
    yield "python", f"{platform.python_version()} on {platform.platform(terse=True)}"
    yield "packages", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    yield "processor", f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in use"
    yield "instructions", torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            yield f"gpu {i}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    else:
        yield "gpu", "none that this PyTorch can use"
    device = pick_device("auto")
    speed = bfloat16_speedup()
    yield (
        "bf16",
        f"{speed:.1f} times the speed of float32 on the CPU; training uses {resolve_precision('auto', device)}",
    )
    yield "compiler", _compiler() or "none: train.compile is not available, everything else is"
    yield "decoder", "C++, compiled for this machine" if library() is not None else "PyTorch on packed weights"
    for name, folder in (("disk here", Path.cwd()), ("cache", cache_folder())):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        yield name, f"{shutil.disk_usage(there).free / 2**30:.1f} GiB free in {folder}"
    yield "TRIPEL_DATA", os.environ.get("TRIPEL_DATA", "not set")


def processor() -> str:
    """The name of the machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _compiler() -> str | None:
    path = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    if path is None:
        return None
    try:
        first = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return first[0] if first else path
