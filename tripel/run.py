"""From a recipe to a run folder: data, tokenizers, model, trainer; then the weights that did best, ready to use.

What depends on the task is its job's (tripel.jobs).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tripel import checkpoint, storage
from tripel.card import model_card
from tripel.data.batch import Batch
from tripel.data.steps import StepLoader
from tripel.errors import CheckpointError, RecipeError
from tripel.jobs import open_job
from tripel.models.build import Model, build, count_parameters
from tripel.origin import take_over
from tripel.recipe import Recipe, check_cell
from tripel.text.pair import TokenizerPair
from tripel.training import allocator, parallel
from tripel.training.averaging import mean_of, swapped
from tripel.training.log import RunLog
from tripel.training.precision import resolve_precision
from tripel.training.trainer import Trainer, TrainResult, is_better

SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class RunResult:
    """A finished (or interrupted) run. metrics: of the weights in the run folder, on the validation set."""

    folder: Path
    reason: str
    step: int
    metrics: dict[str, float]


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    command: str | None = None,
) -> RunResult:
    """Train what a recipe describes into the folder `out`.

    resume: go on from the newest whole checkpoint in `out`, with the recipe it was started with. overwrite: discard the
    run that is there. command: recorded in the model card. Raises RecipeError, DataError, TokenizerError,
    CheckpointError and DeviceError; nothing of an earlier run is lost by one.
    """
    with opened(recipe, out, resume=resume, overwrite=overwrite, console=console, command=command) as run:
        return run.finish(run.trainer.fit())


@contextlib.contextmanager
def opened(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    command: str | None = None,
    tokenizers: TokenizerPair | None = None,
) -> Iterator[Run]:
    """A run that is ready to train, its folder held until the block ends. Arguments and errors as of train.

    tokenizers: for a new run, those of others that it is to have in common with them; None trains its own. A model of
    images has none.
    """
    out, console = Path(out), console or Console(stderr=True)
    device = parallel.pick_device(recipe.train.device)
    parallel.begin(device)
    try:
        with parallel.main_first(device):
            if parallel.is_main():
                _require_room(out, resume=resume, overwrite=overwrite)
                if out.is_dir():
                    with storage.held(out):
                        pass  # only asked: nothing of a run in progress is read or discarded
            if resume:
                recipe = resumed_recipe(out, recipe)
        if recipe.train.threads:
            torch.set_num_threads(recipe.train.threads)
        allocator.keep_memory()
        run = Run(recipe, out, device, console, command)
        started = time.monotonic()
        newest = checkpoint.newest_valid(out) if resume else None
        with parallel.main_first(device):
            model = run.prepare(resume=resume, overwrite=overwrite, tokenizers=tokenizers)
        with storage.held(out) if parallel.is_main() else contextlib.nullcontext():
            try:
                run.begin(model, newest, started)
                yield run
            finally:
                run.close()
    finally:
        parallel.end()


# What may differ between a run and its continuation: nothing that changes an update already planned.
_RESUMABLE = {"steps", "valid_every", "log_every", "average_last", "patience", "keep", "device", "threads", "compile"}


def resumed_recipe(out: str | Path, given: Recipe) -> Recipe:
    """The given recipe, in the precision of the run in `out`, if it differs from that run's only in what may change.

    Raises CheckpointError without a run, RecipeError naming every other difference.
    """
    stored_file = Path(out) / "recipe.yaml"
    if not stored_file.is_file():
        raise CheckpointError(
            "there is no run to resume", given=out, expected="a folder with a recipe.yaml", mend="leave --resume out"
        )
    stored = Recipe.load(stored_file)
    if given.train.precision == "auto":
        given = given.model_copy(update={"train": given.train.model_copy(update={"precision": stored.train.precision})})
    old, new = _flat(stored.model_dump(mode="json")), _flat(given.model_dump(mode="json"))
    allowed = {f"train.{key}" for key in _RESUMABLE}
    changed = [key for key in old if old[key] != new.get(key) and key not in allowed and not key.startswith("decode.")]
    if changed:
        raise RecipeError(
            "resuming would change the run",
            given=", ".join(f"{key}: {old[key]} -> {new.get(key)}" for key in changed),
            expected="the recipe the run was started with",
            mend=f"resume with `tripel train {stored_file} --out {out} --resume`, or start a new run",
        )
    return given


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


class Run:
    """One run of a recipe: what is prepared once and used while training and after it. trainer: ready to train."""

    trainer: Trainer
    taken_over: str | None = None

    def __init__(self, recipe: Recipe, out: Path, device: torch.device, console: Console, command: str | None) -> None:
        precision = resolve_precision(recipe.train.precision, device)
        # On the CPU that was measured: all processes follow the main one's finding.
        in_bfloat16 = parallel.any_true(parallel.is_main() and precision == "bfloat16", device)
        train_config = recipe.train.model_copy(update={"precision": "bfloat16" if in_bfloat16 else "float32"})
        self.recipe = recipe.model_copy(update={"train": train_config})
        self.out, self.device, self.command = out, device, command
        self.console, self.quiet = console, not parallel.is_main()
        self.log: RunLog | None = None

    def begin(self, model: Model, newest: checkpoint.Newest | None, started: float) -> None:
        """Open the log, make the trainer, and bring it to where a stored checkpoint was."""
        recipe, job = self.recipe, self.job
        baseline = None if self.quiet else job.baseline()
        self.log = log = RunLog(
            self.out,
            recipe.train.steps,
            console=self.console,
            quiet=self.quiet,
            resume_step=None if newest is None else newest.step,
            baseline=baseline,
            unit=job.unit,
        )
        loader = job.loader()
        self._introduce(log, model, loader, time.monotonic() - started)
        if baseline is not None:
            log.say(str(baseline))
        self.trainer = Trainer(
            model,
            loader,
            recipe.optim,
            recipe.train,
            label_smoothing=recipe.task.label_smoothing,
            validate=(lambda model: job.validate(model, log)) if job.validates else None,
            metric=job.metric,
            store=self,
            log=log,
        )
        if newest is not None:
            for reason in newest.skipped:
                log.say(f"skipped a damaged checkpoint: {reason}")
            log.say(f"resuming from step {newest.step}")
            saved = checkpoint.load_training(newest.folder)
            self.trainer.restore(saved.groups, saved.meta)
            self._forget_snapshots_after(newest.step)

    def close(self) -> None:
        """Flush what was logged."""
        if self.log is not None:
            self.log.close()

    # What the trainer stores (the Store protocol).

    def save_step(self, step: int, groups: dict[str, dict[str, Tensor]], meta: dict[str, object]) -> None:
        checkpoint.save_training(self.out, step, groups, meta, keep=self.recipe.train.keep)

    def save_best(self, model: Model, step: int, metrics: dict[str, float]) -> None:
        card = model_card(self.recipe, check_cell(self.recipe), model, step, metrics, self.command)
        checkpoint.save_run(
            self.out,
            model,
            self.tokenizers,
            recipe_yaml=self.recipe.to_yaml(),
            card=card,
            search=self.job.generation,
        )

    def save_snapshot(self, step: int, tensors: dict[str, Tensor]) -> None:
        folder = self.out / SNAPSHOTS
        with storage.atomic_folder(folder / f"step-{step}") as draft:
            storage.write_tensors(draft / "model.safetensors", tensors)
        for old in list(_snapshots(folder).values())[: -self.recipe.train.average_last]:
            storage.remove_folder(old)

    def _forget_snapshots_after(self, step: int) -> None:
        if parallel.is_main():
            for later, folder in _snapshots(self.out / SNAPSHOTS).items():
                if later > step:
                    storage.remove_folder(folder)

    # Preparation.

    def prepare(self, *, resume: bool, overwrite: bool, tokenizers: TokenizerPair | None) -> Model:
        """Data, tokenizers, model. The folder of a new run is begun last: no error before that changes it.

        The main process makes what is not there yet (data, tokenizers, folder), the others find it.
        """
        recipe = self.recipe
        self.job = job = open_job(recipe)
        job.read()
        begins = not resume and parallel.is_main()
        origin = None if recipe.init_from is None or resume else checkpoint.load_run(recipe.init_from)
        self.tokenizers: TokenizerPair | None = None
        if not recipe.reads_images:
            known = origin.tokenizers if origin else tokenizers
            self.tokenizers = (known or job.train_tokenizers()) if begins else TokenizerPair.load(self.out)
        job.encode(self.tokenizers)
        torch.manual_seed(recipe.train.seed)
        model = build(recipe.model, job.vocabulary)
        if origin is not None:
            self.taken_over = take_over(model, origin, str(recipe.init_from))
        model = model.to(self.device)
        torch.manual_seed(recipe.train.seed * 1_000_003 + parallel.rank())  # each process its own dropout
        if begins:
            self._begin_folder(overwrite)
        return model

    def _begin_folder(self, overwrite: bool) -> None:
        with storage.reporting_disk_errors(self.out, 0):
            if overwrite and self.out.exists():
                storage.retire_folder(self.out)
            with storage.replaced_files(self.out) as draft:
                if self.tokenizers is not None:
                    self.tokenizers.save(draft)
                (draft / checkpoint.RECIPE).write_text(self.recipe.to_yaml(), encoding="utf-8")

    def _introduce(self, log: RunLog, model: Model, loader: StepLoader[Batch], seconds: float) -> None:
        if self.quiet:
            return
        if self.job.report.findings:
            self.console.print(self.job.report)
        recipe = self.recipe
        log.say(f"{self.job.summary(loader)}, ready in {seconds:.1f} s")
        if self.taken_over:
            log.say(self.taken_over)
        log.say(
            f"{check_cell(recipe).family}: {count_parameters(model):,} parameters on {self.device}, "
            f"{recipe.train.precision}, {torch.get_num_threads()} threads, {parallel.world_size()} process(es)"
        )

    # The end.

    def finish(self, result: TrainResult) -> RunResult:
        """Average the last snapshots and keep the average if it validates better; say where the model is."""
        trainer, log = self.trainer, self.log
        assert log is not None
        progress, metrics = result.progress, result.progress.best
        if not parallel.is_main():
            return RunResult(self.out, result.reason, progress.step, metrics)
        mean = self._mean_of_snapshots() if result.reason != "interrupted" else None
        if not self.job.validates:
            moving = None if trainer.average is None else trainer.average.tensors
            with swapped(trainer.model, mean or moving):
                self.save_best(trainer.model, progress.step, {})
        elif mean is not None:
            with swapped(trainer.model, mean):
                trainer.model.eval()
                averaged = self.job.validate(trainer.model, log)
                metric = trainer.metric
                better = is_better(metric, averaged, progress.best)
                log.say(
                    f"average of the last validations: {metric} {averaged[metric]:.3f}, "
                    f"best single {progress.best[metric]:.3f}: keeping the {'average' if better else 'single'}"
                )
                if better:
                    metrics = averaged
                    self.save_best(trainer.model, progress.step, averaged)
        if result.reason == "interrupted":
            log.say(f"stopped at step {progress.step}, saved; go on with --resume")
        else:
            log.say(f"{result.reason} at step {progress.step} after {progress.seconds / 60:.1f} minutes of training")
        if (self.out / checkpoint.WEIGHTS).exists():  # a run stopped before its first validation has none yet
            log.say(f"the model is in {self.out}")
        return RunResult(self.out, result.reason, progress.step, metrics)

    def _mean_of_snapshots(self) -> dict[str, Tensor] | None:
        """The mean of the last `average_last` snapshots; None when they are not two."""
        wanted = self.recipe.train.average_last
        folders = list(_snapshots(self.out / SNAPSHOTS).values())[-wanted:] if wanted > 1 else []
        if len(folders) < 2:
            return None
        mean = mean_of([storage.read_tensors(folder / "model.safetensors") for folder in folders])
        return {name: x.to(self.device) for name, x in mean.items()}


def _snapshots(folder: Path) -> dict[int, Path]:
    return dict(sorted((int(p.name.removeprefix("step-")), p) for p in folder.glob("step-*")))


def _require_room(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds something, unless told what to do with it."""
    occupied = out.is_dir() and any(out.iterdir())
    if out.exists() and not out.is_dir():
        raise CheckpointError("--out is a file", given=out, expected="a folder", mend="name another folder")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    if not os.access(there, os.W_OK):  # said now, not when the data has been read and a tokenizer trained
        raise CheckpointError(
            "the output folder cannot be written",
            given=f"{out}: no permission to write in {there}",
            expected="a folder that this user may write to",
            mend="name another folder with --out, or change the permissions",
        )
    if resume or not occupied:
        return
    if not overwrite:
        raise CheckpointError(
            "the output folder is not empty",
            given=out,
            expected="a new or empty folder",
            mend="--resume goes on with the run in it, --overwrite discards it, or name another with --out",
        )
    if not (out / "recipe.yaml").exists():
        raise CheckpointError(
            "--overwrite discards an earlier run, and this folder is not one",
            given=out,
            expected="a folder with a recipe.yaml that `tripel train` wrote",
            mend="name another folder with --out",
        )
