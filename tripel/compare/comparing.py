"""A comparison from recipes to the report."""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from tripel import __version__, checkpoint
from tripel.compare import folder as folders
from tripel.compare.budget import Budget
from tripel.compare.comparison import Comparison, Curve, Result
from tripel.compare.contest import Contest
from tripel.compare.contests import contest_of
from tripel.compare.display import say
from tripel.compare.entries import Entry, equalise, load_entries, matches_parameters
from tripel.compare.folder import Plan, PlannedRun
from tripel.compare.matching import match_parameters, n_parameters
from tripel.compare.race import race
from tripel.doctor import processor
from tripel.errors import DeviceError, RecipeError
from tripel.recipe import Recipe, check_cell
from tripel.training import allocator, parallel


def compare(
    recipes: Sequence[str | Path],
    out: str | Path,
    *,
    data: str | Path | None = None,
    valid: str | Path | None = None,
    budget: str | None = None,
    steps: int | None = None,
    match: str | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> Comparison | None:
    """Train several recipes on the same data with the same budget, in turns, and compare what they have become.

    recipes: names or paths, all for one task. out: the folder for a run folder each and the report; one that holds this
    comparison, begun or finished, is gone on with. data: training data in place of the recipes' own; valid: validation
    data to go with it, a last share of data by default. budget: seconds of training each, such as `5m` (the default);
    or steps: updates each, of as many tokens as the first recipe's. match: `parameters` scales the widths of the others
    to the first one's number. overrides: settings `a.b=value` for all.

    None when it was interrupted: then everything is saved, and the same call goes on. Raises InputError, RecipeError,
    DataError, TokenizerError, CheckpointError and DeviceError; nothing that was trained is lost by one.
    """
    out, console = Path(out), console or Console(stderr=True)
    spending, matched = Budget.of(budget, steps), matches_parameters(match)
    _require_one_process()
    command = _command(recipes, out, data, valid, budget, steps, match, overrides)
    entries = load_entries(recipes, overrides)
    contest = contest_of(entries[0].recipe.task.kind)
    entries, notes = equalise(entries, contest, spending, _named_data(data, valid))
    stored = folders.stored_plan(out)
    _set_threads(entries[0].recipe)
    contest.prepare({e.name: e.recipe for e in entries}, folders.stored_tokenizers(out) if stored else None)
    if contest.report.findings:
        console.print(contest.report)
    if matched:
        entries, told = _matched(entries, contest)
        notes += told
    notes += contest.remarks({entry.name: entry.recipe for entry in entries})
    for note in notes:
        say(console, note)
    with folders.begun(out, stored, _plan(entries, contest, spending, matched), contest.tokenizers) as plan:
        if race(entries, contest, spending, plan, out, console, command) is None:
            say(console, "interrupted; everything is saved: type the same command again to go on")
            return None
        say(console, "measuring what they have become")
        comparison = _measured(entries, contest, out, notes, {"budget": str(spending), "command": command}, matched)
        page = comparison.save(out)
    say(console, f"the page is {page}")
    return comparison


def _require_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DeviceError(
            "a comparison runs in one process",
            given=f"WORLD_SIZE {os.environ['WORLD_SIZE']}",
            expected="no torchrun: contestants share one machine in turns",
            mend="start it with `tripel compare` alone",
        )


def _command(
    recipes: Sequence[str | Path],
    out: Path,
    data: str | Path | None,
    valid: str | Path | None,
    budget: str | None,
    steps: int | None,
    match: str | None,
    overrides: Sequence[str],
) -> str:
    """What a person types for it."""
    options = {"--data": data, "--valid": valid, "--budget": budget, "--steps": steps, "--match": match, "--out": out}
    words = ["tripel", "compare", *map(str, recipes)]
    words += [word for name, value in options.items() if value is not None for word in (name, str(value))]
    words += [word for override in overrides for word in ("--set", override)]
    return shlex.join(words)


def _named_data(data: str | Path | None, valid: str | Path | None) -> tuple[str, str | None] | None:
    if data is None and valid is not None:
        raise RecipeError(
            "validation data are given without training data",
            given=f"--valid {valid}",
            expected="--data FILE with it",
            mend="name the training data too, or leave both out: then the recipes' own are used",
        )
    return None if data is None else (str(data), None if valid is None else str(valid))


def _set_threads(recipe: Recipe) -> None:
    """As a run does it: also what is only measured, because it is trained already, has them."""
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    allocator.keep_memory()


def _matched(entries: Sequence[Entry], contest: Contest) -> tuple[list[Entry], list[str]]:
    """The entries with as many parameters as the first has, and what that changed, in words."""
    first, *others = entries
    n_wanted = n_parameters(first.recipe, contest.vocabulary)
    matched, notes = [first], [f"{first.name}: {n_wanted:,} parameters, which the others are made to have"]
    for entry in others:
        try:
            recipe = match_parameters(entry.recipe, n_wanted, contest.vocabulary)
        except RecipeError as error:
            raise RecipeError(
                f"{entry.name}: {error.what}", given=error.given, expected=error.expected, mend=error.mend
            ) from None
        old, new, n = entry.recipe.model, recipe.model, n_parameters(recipe, contest.vocabulary)
        widths = [f"{k} {getattr(old, k)} -> {getattr(new, k)}" for k in ("d_model", "d_ff") if getattr(new, k)]
        notes.append(f"{entry.name}: {', '.join(widths)}: {n:,} parameters, {n / n_wanted - 1:+.1%}")
        matched.append(replace(entry, recipe=recipe))
    return matched, notes


def _plan(entries: Sequence[Entry], contest: Contest, budget: Budget, matched: bool) -> Plan:
    runs = {entry.name: PlannedRun(recipe=entry.recipe.model_dump(mode="json")) for entry in entries}
    task = entries[0].recipe.task.kind
    return Plan(task=task, budget=str(budget), matched=matched, fingerprint=contest.fingerprint, runs=runs)


def _measured(
    entries: Sequence[Entry], contest: Contest, out: Path, notes: Sequence[str], words: dict[str, str], matched: bool
) -> Comparison:
    """All results and what goes with them. words: the fields of Comparison that are known already."""
    train_name, valid_name = contest.names_of_data()
    recipe = entries[0].recipe
    return Comparison(
        task=recipe.task.kind,
        data=train_name,
        valid=valid_name,
        matched=matched,
        prompt=contest.prompt,
        date=time.strftime("%Y-%m-%d"),
        facts=_facts(recipe),
        notes=(*notes, *_shortened_warm_ups(entries, out)),
        results=tuple(_result(entry, contest, out) for entry in entries),
        **words,
    )


def _shortened_warm_ups(entries: Sequence[Entry], out: Path) -> list[str]:
    notes = []
    for entry in entries:
        old = entry.recipe.optim.warmup_steps
        new = Recipe.load(out / entry.name / checkpoint.RECIPE).optim.warmup_steps
        if new != old:
            notes.append(f"{entry.name}: optim.warmup_steps: {old} -> {new}, for a run as short as this")
    return notes


def _result(entry: Entry, contest: Contest, out: Path) -> Result:
    """What a finished run was and is: from its log, and measured."""
    folder = out / entry.name
    recipe = Recipe.load(folder / checkpoint.RECIPE)
    with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    validations = [record for record in records if contest.metric in record]
    last = validations[-1]
    measures = contest.measure(folder, recipe)
    numbers = {
        "updates": last["step"],
        "training_tokens": last["tokens"],
        "training_seconds": last["seconds"],
        "training_tokens_per_second": last["tokens"] / max(last["seconds"], 1e-9),
        **measures.numbers,
    }
    losses = tuple(record[contest.metric] for record in validations)
    curves = {
        "loss_seconds": Curve(x=tuple(record["seconds"] for record in validations), y=losses),
        "loss_tokens": Curve(x=tuple(record["tokens"] for record in validations), y=losses),
        **measures.curves,
    }
    return Result(
        name=entry.name,
        recipe=entry.origin,
        family=check_cell(recipe).family,
        model=_sizes(recipe),
        folder=str(folder),
        numbers=numbers,
        curves=curves,
        sample=measures.sample,
    )


def _sizes(recipe: Recipe) -> str:
    """A model's shape in a line."""
    model, stacks = recipe.model, recipe.model.stacks().values()
    layers = " + ".join(f"{stack.n_layers} x {stack.mixer.kind}" for stack in stacks)
    feed_forward = f", d_ff {model.d_ff}" if model.d_ff else ", no feed-forward part"
    return f"{layers}, d_model {model.d_model}{feed_forward}, {recipe.train.precision} in training"


def _facts(recipe: Recipe) -> dict[str, str]:
    device = parallel.pick_device(recipe.train.device)
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in use",
        **gpu,
        "tripel": __version__,
        "torch": str(torch.__version__),
        "python": f"{platform.python_version()} on {platform.platform(terse=True)}",
    }
