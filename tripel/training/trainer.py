"""The one training loop. It knows batches, losses and metrics by name; it knows no task, family or mixer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from tripel.config import Config
from tripel.data.batch import Batch
from tripel.data.steps import StepLoader
from tripel.errors import TripelError
from tripel.models.build import Model
from tripel.models.decoder import Decoder
from tripel.nn.mixer import State
from tripel.training import parallel
from tripel.training.averaging import MovingAverage, state_of, swapped
from tripel.training.interrupt import StopRequest
from tripel.training.log import RunLog
from tripel.training.loss import batch_loss_sum
from tripel.training.optim import OptimConfig, Optimizer, schedule_factor
from tripel.training.precision import Precision, Worker


class TrainConfig(Config):
    """How long and how carefully to train.

    tokens_per_step: predicted (target) tokens of one update, over all micro-batches and processes. micro_tokens: the
    most padded tokens of one side in a micro-batch. valid_every: updates between validations, each followed by a
    checkpoint. average_last: after training, average the weights of that many last validations (0 or 1: do not).
    ema: decay of a moving average that is then what is validated and kept (0: none). best_by: the weights kept are those
    with the best score of the task (BLEU, accuracy, ...), or with the lowest validation loss. patience: stop after so many
    validations without better ones (0: never). keep: step checkpoints that stay on disk. r_drop: alpha of R-Drop
    (0: off). threads: 0 leaves PyTorch's choice.
    """

    steps: int = Field(default=10_000, ge=1)
    tokens_per_step: int = Field(default=8192, ge=1)
    micro_tokens: int = Field(default=4096, ge=1)
    valid_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=50, ge=1)
    average_last: int = Field(default=0, ge=0, le=100)
    ema: float = Field(default=0.0, ge=0, lt=1)
    best_by: Literal["score", "loss"] = "score"
    patience: int = Field(default=0, ge=0)
    keep: int = Field(default=2, ge=1)
    r_drop: float = Field(default=0.0, ge=0)
    seed: int = Field(default=1, ge=0, lt=1 << 63)
    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False
    threads: int = Field(default=0, ge=0, le=1024)


class Store(Protocol):
    """Where a trainer's state goes: see training/run.py."""

    def save_step(self, step: int, groups: dict[str, dict[str, Tensor]], meta: dict[str, object]) -> None: ...

    def save_best(self, model: Model, step: int, metrics: dict[str, float]) -> None: ...

    def save_snapshot(self, step: int, tensors: dict[str, Tensor]) -> None: ...


@dataclass
class Progress:
    """What has happened so far; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    stale: int = 0


@dataclass(frozen=True)
class TrainResult:
    """How training ended: reason is finished, patience or interrupted."""

    reason: str
    progress: Progress


class Trainer:
    """Trains a model on a loader's batches.

    validate(model) -> metrics by name, `metric` and `valid_loss` among them; higher is better unless metric is a loss. It
    is called on the main process only.
    """

    def __init__(
        self,
        model: Model,
        loader: StepLoader[Batch],
        optim: OptimConfig,
        config: TrainConfig,
        *,
        label_smoothing: float,
        validate: Callable[[Model], dict[str, float]] | None,
        metric: str,
        store: Store,
        log: RunLog,
    ) -> None:
        self.model, self.loader, self.optim, self.config = model, loader, optim, config
        self.validate, self.store, self.log = validate, store, log
        self.metric = "valid_loss" if config.best_by == "loss" else metric
        self.label_smoothing = label_smoothing
        self.device = next(model.parameters()).device
        self.worker = Worker(model, config.precision)
        self.optimizer = Optimizer(optim, model, in_bfloat16=self.worker.model is not model)
        self.average = MovingAverage(model, config.ema) if config.ema else None
        self.progress = Progress()
        self._window = _Window()
        self._carried = CarriedStates(self.worker.model)
        self._statistics = [x for x in state_of(model).values() if not isinstance(x, torch.nn.Parameter)]
        if config.compile:
            _compile_features(self.worker.model, log)

    def fit(self) -> TrainResult:
        """Train to the end, to the patience's end, or to a signal; a checkpoint is saved in each case."""
        with StopRequest() as stop:
            for _ in self.updates(stop):
                pass
        return self.result

    def updates(self, stop: StopRequest) -> Iterator[int]:
        """Train as fit does, giving the number of each update when it is made; `result` is there at the end.

        Time that passes between two updates is not the training's, and random numbers that are drawn meanwhile do not
        change it.
        """
        self.model.train()
        self.worker.model.train()
        self.result = TrainResult("finished", self.progress)
        steps = iter(self.loader)
        self._clock = time.monotonic() - self.progress.seconds
        try:
            while self.progress.step < self.config.steps:
                self._update(next(steps))
                at_validation = self.progress.step % self.config.valid_every == 0
                last = self.progress.step == self.config.steps
                stopping = parallel.any_true(stop.requested, self.device)
                if at_validation or last:
                    self._validate_and_save()
                    if self.config.patience and self.progress.stale >= self.config.patience:
                        self.result = TrainResult("patience", self.progress)
                        return
                elif stopping:
                    self._save()
                if stopping and not last:
                    self.result = TrainResult("interrupted", self.progress)
                    return
                random = _random_state(self.device)
                yield self.progress.step
                _set_random_state(random, self.device)
                self._clock = time.monotonic() - self.progress.seconds
        finally:
            steps.close()  # type: ignore[attr-defined]

    def restore(self, groups: dict[str, dict[str, Tensor]], meta: dict[str, object]) -> None:
        """Continue from what `_save` stored: the next update is the one an uninterrupted run would have made."""
        own = state_of(self.model)
        with torch.no_grad():
            for name, tensor in groups["model"].items():
                own[name].copy_(tensor)
            if self.average is not None:
                for name, tensor in groups["ema"].items():
                    self.average.tensors[name].copy_(tensor)
        self.optimizer.load_state_tensors(groups["optimizer"])
        self.loader.load_state_dict(meta["loader"])  # type: ignore[arg-type]
        self.progress = Progress(**meta["progress"])  # type: ignore[arg-type]
        self._window = _Window(**meta["window"])  # type: ignore[arg-type]
        if meta["world_size"] == parallel.world_size():  # otherwise other rows fall to each process: they begin anew
            self._carried.load_tensors(groups.get(_carried_group(), {}))
        states = groups["random"]
        if f"cpu.{parallel.rank()}" in states:
            suffix = f".{parallel.rank()}"
            _set_random_state({k.removesuffix(suffix): x for k, x in states.items() if k.endswith(suffix)}, self.device)

    def _update(self, batches: list[Batch]) -> None:
        """One optimizer step on the micro-batches of this rank, exact to the predicted token."""
        n = parallel.total(sum(batch.count for batch in batches), self.device)
        self.worker.begin_step()
        loss_sum = 0.0
        for number, batch in enumerate(batches):
            loss = batch_loss_sum(
                self.worker.model,
                self._carried.into(number, batch.to(self.device)),
                label_smoothing=self.label_smoothing,
                r_drop=self.config.r_drop,
            )
            loss_value = loss.item()
            if not math.isfinite(loss_value):
                self._refuse(loss_value, batch)
            loss_sum += loss_value
            (loss / n).backward()
            self.worker.collect()
        parallel.sum_gradients(self.model.parameters())
        parallel.average(self._statistics)
        norm = self._clip()
        step = self.progress.step + 1
        lr = self.optim.lr * schedule_factor(self.optim, step, self.config.steps)
        self.optimizer.step(lr)
        if self.average is not None:
            self.average.update(step)
        self.progress.step = step
        self._account(loss_sum, n, sum(batch.tokens for batch in batches), lr, norm)

    def _clip(self) -> float:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(norm)):
            raise TripelError(
                f"the gradient is not finite at step {self.progress.step + 1}; the update was not made",
                given=f"norm {norm.item()}",
                expected="a finite number",
                mend="lower optim.lr, raise optim.warmup_steps, or set train.precision=float32; then --resume",
            )
        if self.optim.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.optim.clip_norm, norm)
        return norm.item()

    def _refuse(self, loss: float, batch: Batch) -> None:
        raise TripelError(
            f"the loss is not finite at step {self.progress.step + 1}; the update was not made",
            given=f"loss {loss} on training examples {list(batch.rows[:8])}{' ...' if len(batch.rows) > 8 else ''}",
            expected="a finite number",
            mend="look at these examples; lower optim.lr or set train.precision=float32; then --resume",
        )

    def _account(self, loss_sum: float, n: float, tokens: int, lr: float, norm: float) -> None:
        window, config, progress = self._window, self.config, self.progress
        loss_sum, n_tokens = (parallel.total(x, self.device) for x in (loss_sum, tokens))
        progress.tokens += int(n_tokens)
        previous, progress.seconds = progress.seconds, time.monotonic() - self._clock
        window.loss += loss_sum
        window.count += n
        window.tokens += n_tokens
        window.seconds += progress.seconds - previous
        self.log.advance(progress.step)
        if progress.step % config.log_every == 0 or progress.step == config.steps:
            speed = window.tokens / max(window.seconds, 1e-9)
            left = (config.steps - progress.step) * progress.seconds / progress.step
            record = {
                "step": progress.step,
                "tokens": progress.tokens,
                "seconds": round(progress.seconds, 3),
                "train_loss": window.loss / window.count,
                "lr": lr,
                "grad_norm": norm,
                "tokens_per_second": round(speed, 1),
            }
            self.log.training(record, left)
            self._window = _Window()

    def _validate_and_save(self) -> None:
        if self.config.average_last > 1 and parallel.is_main():
            weights = {name: x.detach() for name, x in state_of(self.model).items()}
            self.store.save_snapshot(self.progress.step, weights)
        if self.validate is not None and parallel.is_main():
            self._validate()
        self.progress.stale = int(parallel.total(self.progress.stale if parallel.is_main() else 0, self.device))
        # Time spent on validation is not training time: speeds and times left speak of updates.
        self._clock = time.monotonic() - self.progress.seconds
        self._save()
        self._clock = time.monotonic() - self.progress.seconds

    def _validate(self) -> None:
        assert self.validate is not None
        progress = self.progress
        with swapped(self.model, None if self.average is None else self.average.tensors):
            self.model.eval()
            metrics = self.validate(self.model)
            better = is_better(self.metric, metrics, progress.best)
            if better:
                progress.best, progress.best_step, progress.stale = metrics, progress.step, 0
                self.store.save_best(self.model, progress.step, metrics)
            else:
                progress.stale += 1
            self.model.train()
        self.log.validation(
            {"step": progress.step, "tokens": progress.tokens, "seconds": round(progress.seconds, 3), **metrics}, better
        )

    def _save(self) -> None:
        states = parallel.gather_named(_random_state(self.device))
        random = {f"{name}.{i}": x for i, state in enumerate(states) for name, x in state.items()}
        carried = parallel.gather_named(self._carried.tensors())
        if parallel.is_main():
            groups = {
                "model": {name: x.detach() for name, x in state_of(self.model).items()},
                "optimizer": self.optimizer.state_tensors(),
                "random": random,
            }
            if self.average is not None:
                groups["ema"] = self.average.tensors
            groups |= {_carried_group(rank): tensors for rank, tensors in enumerate(carried) if tensors}
            meta = {
                "progress": vars(self.progress),
                "window": vars(self._window),
                "loader": dict(self.loader.state_dict()),
                "world_size": parallel.world_size(),
            }
            self.store.save_step(self.progress.step, groups, meta)
        parallel.barrier()


class CarriedStates:
    """The states that recurrent models go on with from step to step, one for each micro-batch of a step (truncated
    back-propagation through time): numbers without a graph, so that no gradient crosses from one step to the one before.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._states: dict[int, State] = {}
        self._stored: dict[str, Tensor] = {}

    def into(self, number: int, batch: Batch) -> Batch:
        """The batch with the state that it goes on with, if it does. number: its place in the step."""
        if batch.carried is None:
            return batch
        assert isinstance(self.model, Decoder)
        if not batch.carried or number not in self._states:
            state = self.model.init_state(len(batch.targets_BT), 0)
            prefix = f"{number}."
            stored = {k.removeprefix(prefix): x for k, x in self._stored.items() if k.startswith(prefix)}
            if batch.carried and stored:
                state.load_tensors(stored)
            self._states[number] = state
        return replace(batch, inputs={**batch.inputs, "state": self._states[number]})

    def tensors(self) -> dict[str, Tensor]:
        """All states, to be stored."""
        return {f"{i}.{name}": x for i, state in self._states.items() for name, x in state.tensors().items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of tensors: the next batches go on with these."""
        self._states, self._stored = {}, tensors


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators that training draws from."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _carried_group(rank: int | None = None) -> str:
    return f"carried-{parallel.rank() if rank is None else rank}"


@dataclass
class _Window:
    """Sums since the last log line."""

    loss: float = 0.0
    count: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0


def is_better(metric: str, new: dict[str, float], best: dict[str, float]) -> bool:
    """Whether new beats best by this metric; anything beats nothing."""
    if not best:
        return True
    sign = -1 if metric in ("valid_loss", "perplexity", "bits_per_byte") else 1
    return sign * new[metric] > sign * best[metric]


def _compile_features(model: Model, log: RunLog) -> None:
    """Compile the forward pass in place. Compilation happens at the first call: if it fails, say so once and go on."""
    eager = model.features
    compiled = torch.compile(eager, dynamic=True)

    def features(*args: Any, **inputs: Any) -> Tensor:
        try:
            return compiled(*args, **inputs)
        except Exception as error:
            log.say(f"torch.compile does not work here ({type(error).__name__}); going on without it")
            model.features = eager  # type: ignore[method-assign]
            return eager(*args, **inputs)

    model.features = features  # type: ignore[method-assign]
