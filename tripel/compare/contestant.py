"""One contestant while it trains: an ordinary run, driven a turn at a time, its length kept to the budget."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tripel import checkpoint, storage
from tripel.compare.budget import Budget
from tripel.config import Config
from tripel.models.build import Model, build
from tripel.recipe import Recipe
from tripel.run import Run
from tripel.training.interrupt import StopRequest
from tripel.training.log import RunLog
from tripel.training.trainer import Trainer, TrainResult

_N_LOGGED = 200
_LONGEST_WARMUP = 0.2
_SHORTENED_WARMUP = 0.1
_WARM_UPDATES = 2
_NEVER = 1 << 60


@dataclass(frozen=True)
class Pace:
    """So many updates took so many seconds."""

    updates: int
    seconds: float


def calibrate(run: Run, seconds: float, stop: StopRequest) -> Pace:
    """Train a model of its own as the run will for about so many seconds, and forget it. The run is not touched."""
    recipe = run.recipe
    quiet = {"steps": _NEVER, "valid_every": _NEVER, "log_every": _NEVER, "average_last": 0}
    torch.manual_seed(recipe.train.seed)
    trainer = Trainer(
        build(recipe.model, run.job.vocabulary).to(run.device),
        run.job.loader(),
        recipe.optim,
        recipe.train.model_copy(update=quiet),
        label_smoothing=recipe.task.label_smoothing,
        validate=None,
        metric=run.job.metric,
        store=_Nowhere(),
        log=RunLog(run.out, 1, console=run.console, quiet=True),
    )
    begun = 0.0
    updates = trainer.updates(stop)
    for step in updates:
        if step == _WARM_UPDATES:
            begun = trainer.progress.seconds
        if step > _WARM_UPDATES and trainer.progress.seconds - begun >= seconds:
            break
    updates.close()  # type: ignore[attr-defined]
    n_updates = max(trainer.progress.step - _WARM_UPDATES, 1)
    return Pace(n_updates, max(trainer.progress.seconds - begun, 1e-9))


class _Nowhere:
    """Where a calibration's state goes: it is never saved, but when somebody wants to stop."""

    def save_step(self, step: int, groups: dict[str, dict[str, Tensor]], meta: dict[str, object]) -> None: ...

    def save_best(self, model: Model, step: int, metrics: dict[str, float]) -> None: ...

    def save_snapshot(self, step: int, tensors: dict[str, Tensor]) -> None: ...


def set_length(run: Run, budget: Budget, pace: Pace) -> None:
    """Give a run that has not begun as many updates as the budget has, and what goes with that number.

    A warm-up that would take up more than a fifth of them is shortened to a tenth.
    """
    steps = budget.steps
    if steps is None:
        assert budget.seconds is not None
        steps = max(1, round(budget.seconds * pace.updates / pace.seconds))
    train = {
        "steps": steps,
        "valid_every": max(1, -(-steps // budget.validations)),
        "log_every": min(run.recipe.train.log_every, max(1, steps // _N_LOGGED)),
    }
    sections: dict[str, Config] = {"train": run.recipe.train.model_copy(update=train)}
    if run.recipe.optim.warmup_steps > _LONGEST_WARMUP * steps:
        warmup = {"warmup_steps": int(_SHORTENED_WARMUP * steps)}
        sections["optim"] = run.recipe.optim.model_copy(update=warmup)
    _rewrite(run, run.recipe.model_copy(update=sections))


def _rewrite(run: Run, recipe: Recipe) -> None:
    """Go on with another length of run, which the run folder says too."""
    run.recipe = recipe
    run.trainer.config, run.trainer.optim = recipe.train, recipe.optim
    storage.atomic_write(run.out / checkpoint.RECIPE, recipe.to_yaml())


class Contestant:
    """A run and how far it is. pace: of its calibration, the first guess of how fast it is.

    random: the generators' state as opening the run left it. All runs draw from the same generators, and each begins
    there as if it were alone. done: whether there is nothing more to train, by the budget or because of a stop.
    """

    def __init__(
        self, name: str, run: Run, budget: Budget, pace: Pace, stop: StopRequest, random: dict[str, Any]
    ) -> None:
        self.name, self.run, self.budget, self.pace = name, run, budget, pace
        self.done = False
        self.train_record: dict[str, float] = {}
        self.valid_record: dict[str, float] = {}
        self._updates = run.trainer.updates(stop)
        self._random: dict[str, Any] | None = random
        self._metrics = (run.out / "metrics.jsonl").open(encoding="utf-8")
        self._read_metrics()

    @property
    def result(self) -> TrainResult:
        """How it ended."""
        return self.run.trainer.result

    @property
    def share(self) -> float:
        """The share of its budget that is spent."""
        progress = self.run.trainer.progress
        return self.budget.share(progress.step, progress.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Of all its training so far."""
        progress = self.run.trainer.progress
        return progress.tokens / max(progress.seconds, 1e-9)

    def take_turn(self, seconds: float, share: float) -> bool:
        """Train for so many seconds or so much of the budget, whichever is less; whether it was validated meanwhile."""
        progress = self.run.trainer.progress
        start, start_share = progress.seconds, self.share
        while not self.done and progress.seconds - start < seconds and self.share - start_share < share:
            self.update()
        return self._read_metrics()

    def update(self) -> None:
        """One update. When a stop was requested it saves, and is done."""
        progress = self.run.trainer.progress
        if self._random is not None:
            set_random_state(self._random)
            self._random = None
            self._aim()
        elif progress.step < self.run.recipe.train.steps:
            self._aim()
        self.done = next(self._updates, None) is None

    def close(self) -> None:
        """Let go of what is open; the recipe in the run folder says the updates that were made."""
        self._metrics.close()
        if self.done and self.result.reason != "interrupted":
            _rewrite(self.run, self.run.recipe)

    def _aim(self) -> None:
        """Set the number of updates so that the schedule ends when the budget does, at the speed known by now."""
        run, progress = self.run, self.run.trainer.progress
        if self.budget.seconds is None or (progress.step >= run.recipe.train.steps and self.share >= 1.0):
            return
        seconds_per_update = (self.pace.seconds + progress.seconds) / (self.pace.updates + progress.step)
        left = max(1, round((self.budget.seconds - progress.seconds) / seconds_per_update))
        train = run.recipe.train.model_copy(update={"steps": progress.step + left})
        run.recipe = run.recipe.model_copy(update={"train": train})
        run.trainer.config = train

    def _read_metrics(self) -> bool:
        """Take in what the run has written since; whether a validation is among it."""
        validated = False
        for line in self._metrics:
            record = json.loads(line)
            if "train_loss" in record:
                self.train_record = record
            else:
                self.valid_record, validated = record, True
        return validated


def random_state() -> dict[str, Any]:
    """The state of the generators that models and training draw from."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_initialized() else state


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to such a state."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
