"""nanoGPT's part in train_completion.py: its own train.py in the configuration its README gives for a CPU.

A checkout of github.com/karpathy/nanoGPT is needed, which is no part of this project. It is copied, and given the text
in the format that its prepare.py writes, so that nothing is downloaded and the checkout stays as it is.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

UPDATES = 2000
# The README, "I only have a macbook"; the numbers of updates are given beside it.
OPTIONS = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 "
    "--n_head=4 --n_embd=128 --dropout=0.0"
)
_OUT = "out-shakespeare-char"


@dataclass(frozen=True)
class Trained:
    """A model that nanoGPT trained: the weights it kept, which are those of its best own estimate of validation loss.

    speed: tokens a second of the updates that did not stop for an estimate. own_loss: that best estimate.
    """

    model: nn.Module
    updates: int
    tokens: int
    speed: float
    own_loss: float

    @property
    def parameters(self) -> int:
        """All of them, positions included."""
        return sum(p.numel() for p in self.model.parameters())

    def logits(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, V) at every position; without targets their model gives the last one's only."""
        return self.model(ids_BT, ids_BT)[0]


def copy(checkout: Path, folder: Path, text: str) -> dict[str, int]:
    """Copy a checkout and prepare the text in it, the first 90 % of its characters for training, as prepare.py does.

    Returns the id of every character.
    """
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git", "out*", "*.bin", "*.pkl"))
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    data, middle = folder / "data" / "shakespeare_char", int(len(text) * 0.9)
    for name, part in (("train", text[:middle]), ("val", text[middle:])):
        np.array([ids[character] for character in part], dtype=np.uint16).tofile(data / f"{name}.bin")
    meta = {"vocab_size": len(ids), "itos": {i: character for character, i in ids.items()}, "stoi": ids}
    (data / "meta.pkl").write_bytes(pickle.dumps(meta))
    return ids


def command(updates: int) -> list[str]:
    """What trains, to be run in the copy's folder."""
    lengths = [f"--max_iters={updates}", f"--lr_decay_iters={updates}"]
    if updates < UPDATES:  # a try: an estimate at its end, with which the weights are kept
        lengths.append(f"--eval_interval={updates}")
    return [sys.executable, "train.py", "config/train_shakespeare_char.py", *OPTIONS.split(), *lengths]


def trained(folder: Path, output: str) -> Trained:
    """What a training in the copy's folder left there. output: what it printed."""
    checkpoint = torch.load(folder / _OUT / "ckpt.pt", weights_only=True)
    config = checkpoint["config"]
    module = _module(folder / "model.py")
    model = module.GPT(module.GPTConfig(**checkpoint["model_args"]))
    model.load_state_dict(checkpoint["model"])
    iterations = re.findall(r"^iter (\d+): loss .*, time ([\d.]+)ms", output, re.MULTILINE)
    tokens = config["batch_size"] * config["block_size"] * config["gradient_accumulation_steps"]
    # The time of an update includes that of the estimate before it.
    times = [float(time) / 1000 for number, time in iterations if int(number) % config["eval_interval"]]
    return Trained(
        model.eval(),
        len(iterations),
        len(iterations) * tokens,
        len(times) * tokens / sum(times),
        float(checkpoint["best_val_loss"]),
    )


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
