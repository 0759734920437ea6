"""From a recipe to a run folder: data, tokenizers, model, trainer; then the weights that did best, ready to use."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from tripel import checkpoint, storage
from tripel.card import model_card
from tripel.data.batch import Batch
from tripel.data.corpus import Corpus, encode_corpus, report_unknown, sampled_corpus
from tripel.data.loader import Loader
from tripel.data.parallel import ParallelText, Splits, load_splits
from tripel.errors import CheckpointError, DataError, RecipeError
from tripel.models.build import build, count_parameters
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.pipelines.translate import Translator
from tripel.recipe import Recipe, check_cell
from tripel.tasks.scores import score_translations
from tripel.tasks.translation import collate, mean_loss, vocabulary_of
from tripel.text.pair import TokenizerPair
from tripel.training import allocator, parallel
from tripel.training.averaging import mean_of, swapped
from tripel.training.log import RunLog
from tripel.training.loss import batch_loss_sum
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
        return _Run(recipe, out, device, console, command).train(resume=resume, overwrite=overwrite)
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


class _Run:
    """One run of a recipe: what is prepared once and used while training and after it."""

    def __init__(self, recipe: Recipe, out: Path, device: torch.device, console: Console, command: str | None) -> None:
        precision = resolve_precision(recipe.train.precision, device)
        # On the CPU that was measured: all processes follow the main one's finding.
        in_bfloat16 = parallel.any_true(parallel.is_main() and precision == "bfloat16", device)
        train_config = recipe.train.model_copy(update={"precision": "bfloat16" if in_bfloat16 else "float32"})
        self.recipe = recipe.model_copy(update={"train": train_config})
        self.out, self.device, self.command = out, device, command
        self.console, self.quiet = console, not parallel.is_main()

    def train(self, *, resume: bool, overwrite: bool) -> RunResult:
        newest = checkpoint.newest_valid(self.out) if resume else None
        started = time.monotonic()
        with parallel.main_first(self.device):
            splits, make_corpus, model = self._prepare(resume=resume, overwrite=overwrite)
        with storage.held(self.out) if parallel.is_main() else contextlib.nullcontext():
            return self._fit(splits, make_corpus, model, newest, started)

    def _fit(
        self,
        splits: Splits,
        make_corpus: Callable[[int], Corpus],
        model: EncoderDecoder,
        newest: checkpoint.Newest | None,
        started: float,
    ) -> RunResult:
        recipe, task = self.recipe, self.recipe.task
        self.log = log = RunLog(
            self.out,
            recipe.train.steps,
            console=self.console,
            quiet=self.quiet,
            resume_step=None if newest is None else newest.step,
        )
        try:
            loader = self._loader(make_corpus)
            self._introduce(log, model, splits, loader, time.monotonic() - started)
            trainer = Trainer(
                model,
                loader,
                recipe.optim,
                recipe.train,
                label_smoothing=task.label_smoothing,
                validate=self._validate if splits.valid is not None else None,
                metric="bleu",
                store=self,
                log=log,
            )
            if newest is not None:
                for reason in newest.skipped:
                    log.say(f"skipped a damaged checkpoint: {reason}")
                log.say(f"resuming from step {newest.step}")
                saved = checkpoint.load_training(newest.folder)
                trainer.restore(saved.groups, saved.meta)
                self._forget_snapshots_after(newest.step)
            result = trainer.fit()
            return self._finish(trainer, result, log)
        finally:
            log.close()

    # What the trainer stores (the Store protocol).

    def save_step(self, step: int, groups: dict[str, dict[str, Tensor]], meta: dict[str, object]) -> None:
        checkpoint.save_training(self.out, step, groups, meta, keep=self.recipe.train.keep)

    def save_best(self, model: EncoderDecoder, step: int, metrics: dict[str, float]) -> None:
        card = model_card(self.recipe, check_cell(self.recipe), model, step, metrics, self.command)
        search = {"num_beams": self.recipe.decode.beam, "length_penalty": self.recipe.decode.length_penalty}
        checkpoint.save_run(
            self.out, model, self.tokenizers, recipe_yaml=self.recipe.to_yaml(), card=card, search=search
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

    def _prepare(self, *, resume: bool, overwrite: bool) -> tuple[Splits, Callable[[int], Corpus], EncoderDecoder]:
        """Data, tokenizers, corpora, model. The folder of a new run is begun last: no error before that changes it.

        The main process makes what is not there yet (data, tokenizers, folder), the others find it.
        """
        recipe = self.recipe
        splits = load_splits(recipe.data, recipe.task.source, recipe.task.target)
        begins = not resume and parallel.is_main()
        self.tokenizers = (
            TokenizerPair.train(recipe.tokenizer, splits.train.sources, splits.train.targets)
            if begins
            else TokenizerPair.load(self.out)
        )
        self.vocabulary = vocabulary_of(self.tokenizers)
        make_corpus = self._corpora(splits)
        torch.manual_seed(recipe.train.seed)
        model = build(recipe.model, self.vocabulary).to(self.device)
        torch.manual_seed(recipe.train.seed * 1_000_003 + parallel.rank())  # each process its own dropout
        if begins:
            self._begin_folder(overwrite)
        return splits, make_corpus, model

    def _begin_folder(self, overwrite: bool) -> None:
        with storage.reporting_disk_errors(self.out, 0):
            if overwrite and self.out.exists():
                storage.retire_folder(self.out)
            with storage.replaced_files(self.out) as draft:
                self.tokenizers.save(draft)
                (draft / checkpoint.RECIPE).write_text(self.recipe.to_yaml(), encoding="utf-8")

    def _corpora(self, splits: Splits) -> Callable[[int], Corpus]:
        """Epoch -> training corpus. Reports the share of unknown tokens; refuses what is too long for the model."""
        train, recipe, max_len = splits.train, self.recipe, self.recipe.model.max_len
        plain = encode_corpus(train, self.tokenizers)
        report_unknown(splits.report, train, plain, self.tokenizers, recipe.data)
        _require_fit(plain, train, max_len)
        self.valid, self.valid_corpus = splits.valid, None
        if splits.valid is not None:
            self.valid_corpus = encode_corpus(splits.valid, self.tokenizers)
            _require_fit(self.valid_corpus, splits.valid, max_len)
        draw = sampled_corpus(train, self.tokenizers, dropout=recipe.tokenizer.dropout, seed=recipe.train.seed)
        # BPE dropout makes sequences longer, each epoch anew.
        return lambda epoch: draw(epoch).fitted(plain, max_len - 1)

    def _loader(self, make_corpus: Callable[[int], Corpus]) -> Loader[Corpus, Batch]:
        config, vocabulary = self.recipe.train, self.vocabulary
        return Loader(
            make_corpus,
            lambda corpus, rows: collate(corpus, rows, vocabulary),
            tokens_per_step=config.tokens_per_step,
            micro_tokens=config.micro_tokens,
            seed=config.seed,
            rank=parallel.rank(),
            world_size=parallel.world_size(),
        )

    def _introduce(
        self, log: RunLog, model: EncoderDecoder, splits: Splits, loader: Loader[Corpus, Batch], seconds: float
    ) -> None:
        if self.quiet:
            return
        if splits.report.findings:
            self.console.print(splits.report)
        plan = loader.plan(0)[1]
        recipe = self.recipe
        log.say(
            f"{len(splits.train):,} training pairs, vocabulary {self.vocabulary.source_size:,}"
            f"{'' if self.tokenizers.shared else f' + {self.vocabulary.target_size:,}'}, "
            f"{len(plan.steps):,} updates an epoch, padding {plan.padding_share:.1%}, ready in {seconds:.1f} s"
        )
        log.say(
            f"{check_cell(recipe).family}: {count_parameters(model):,} parameters on {self.device}, "
            f"{recipe.train.precision}, {torch.get_num_threads()} threads, {parallel.world_size()} process(es)"
        )

    # Validation and the end.

    def _validate(self, model: EncoderDecoder) -> dict[str, float]:
        """Loss on the references, BLEU and chrF of real search output."""
        assert self.valid is not None and self.valid_corpus is not None
        with torch.inference_mode():
            loss = mean_loss(
                lambda batch: batch_loss_sum(model, batch.to(self.device), label_smoothing=0.0).item(),
                self.valid_corpus,
                self.valid_corpus.target_lengths,
                self.vocabulary,
            )
        translator = Translator(model, self.tokenizers, self.recipe.decode)
        hypotheses = [answer.text for answer in translator.translate(self.valid.sources)]
        scores = score_translations(hypotheses, self.valid.targets, language=self.recipe.task.target)
        shown = _worth_showing(self.valid)
        self.log.sample(self.valid.sources[shown], hypotheses[shown])
        return {"valid_loss": loss, "bleu": scores.bleu, "chrf": scores.chrf}

    def _finish(self, trainer: Trainer, result: TrainResult, log: RunLog) -> RunResult:
        """Average the last snapshots and keep the average if it validates better; say where the model is."""
        progress, metrics = result.progress, result.progress.best
        if not parallel.is_main():
            return RunResult(self.out, result.reason, progress.step, metrics)
        mean = self._mean_of_snapshots() if result.reason != "interrupted" else None
        if self.valid is None:
            moving = None if trainer.average is None else trainer.average.tensors
            with swapped(trainer.model, mean or moving):
                self.save_best(trainer.model, progress.step, {})
        elif mean is not None:
            with swapped(trainer.model, mean):
                trainer.model.eval()
                averaged = self._validate(trainer.model)
                better = is_better("bleu", averaged, progress.best)
                log.say(
                    f"average of the last validations: bleu {averaged['bleu']:.2f}, "
                    f"best single {progress.best['bleu']:.2f}: keeping the {'average' if better else 'single'}"
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


def _worth_showing(text: ParallelText) -> int:
    """The example that is shown at every validation: the first of about a line's length."""
    return min(range(len(text)), key=lambda i: abs(len(text.sources[i]) - 50))


def _require_fit(corpus: Corpus, text: ParallelText, max_len: int) -> None:
    """Refuse a corpus with a pair that the model cannot read whole."""
    lengths = np.maximum(corpus.source_lengths, corpus.target_lengths) + 1
    at = int(lengths.argmax())
    if lengths[at] > max_len:
        raise DataError(
            "a pair is longer than the model can read",
            given=f"{lengths[at]} tokens at {text.place(at)}",
            expected=f"at most model.max_len = {max_len}",
            mend=f"raise model.max_len to {lengths[at]} or more, or lower data.max_words",
        )


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
