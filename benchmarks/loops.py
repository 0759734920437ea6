"""The two loops of the training benchmarks: this project's trainer, and one as users of a library of models write it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from turns import Turns

from tripel.data.batch import Batch
from tripel.models.build import Model, count_parameters
from tripel.training import allocator
from tripel.training.log import RunLog
from tripel.training.optim import OptimConfig
from tripel.training.precision import Precision
from tripel.training.trainer import TrainConfig, Trainer


def tripel_loop(model: Model, turns: Turns, precision: Precision, *, rate: float, label_smoothing: float) -> None:
    """The trainer itself, which never comes to a validation."""
    allocator.keep_memory()
    turns.parameters = count_parameters(model)
    Trainer(
        model,
        loader=turns,  # type: ignore[arg-type]
        optim=OptimConfig(lr=rate, schedule="constant", warmup_steps=0),
        config=TrainConfig(steps=10**9, valid_every=10**9, log_every=1, precision=precision),
        label_smoothing=label_smoothing,
        validate=None,
        metric="valid_loss",
        store=None,  # type: ignore[arg-type]  # nothing is saved
        log=_LossLog(turns),
    ).fit()


class _LossLog(RunLog):
    def __init__(self, turns: Turns) -> None:
        super().__init__(Path(), 1, console=Console(stderr=True), quiet=True)
        self.turns = turns

    def training(self, record: dict[str, float], seconds_left: float) -> None:
        self.turns.loss = record["train_loss"]


def plain_loop(
    model: nn.Module,
    turns: Turns,
    precision: Precision,
    loss_of: Callable[[Batch], Tensor],
    *,
    rate: float,
    fused: bool = False,
) -> None:
    """Loss, clipping, AdamW as its users write them. loss_of: a batch's loss by the model, called under autocast. fused:
    AdamW in one kernel, which a user must ask for."""
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, fused=fused or None
    )
    turns.parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    for (batch,) in turns:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turns.loss = loss.item()
