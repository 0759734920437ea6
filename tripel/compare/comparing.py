"""A comparison from recipes to the report."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from tripel import __version__, checkpoint
from tripel.compare import folder as folders
from tripel.compare.budget import Budget
from tripel.compare.comparison import Comparison, Result
from tripel.compare.contest import Contest
from tripel.compare.contests import contest_of, subject_of
from tripel.compare.display import say
from tripel.compare.entries import Entry, equalise, load_entries, matches_parameters
from tripel.compare.folder import Plan, PlannedRun
from tripel.compare.matching import match_parameters, n_parameters, widths_changed
from tripel.compare.race import Terms, race
from tripel.compare.shares import ShareRuns, asked_shares, curves_by_share, race_on_shares
from tripel.doctor import processor
from tripel.errors import DeviceError, RecipeError
from tripel.models.config import ResNetConfig, ViTConfig
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
    shares: str | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> Comparison | None:
    """Train several recipes on the same data with the same budget, in turns, and compare what they have become.

    recipes: names or paths, all for one task. out: the folder for a run folder each and the report; one that holds this
    comparison, begun or finished, is gone on with. data: training data in place of the recipes' own; valid: validation
    data to go with it, a last share of data by default. budget: seconds of training each, such as `5m` (the default);
    or steps: updates each, of as many tokens as the first recipe's. match: `parameters` scales the widths of the others
    to the first one's number. shares: percentages of the training data, such as `1,5,25,100` (the default for images), that
    they are trained on besides; `100` leaves that out. overrides: settings `a.b=value` for all.

    None when it was interrupted: then everything is saved, and the same call goes on. Raises InputError, RecipeError,
    DataError, TokenizerError, CheckpointError and DeviceError; nothing that was trained is lost by one.
    """
    out, console = Path(out), console or Console(stderr=True)
    spending, matched = Budget.of(budget, steps), matches_parameters(match)
    _require_one_process()
    options = {"--data": data, "--valid": valid, "--budget": budget, "--steps": steps, "--match": match}
    command = _command(recipes, {**options, "--shares": shares, "--out": out}, overrides)
    entries = load_entries(recipes, overrides)
    contest = contest_of(subject_of(entries[0].recipe))
    percentages = asked_shares(shares, contest)
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
        terms = Terms(contest, out, console, command)
        trained = race(entries, {entry.name: spending for entry in entries}, plan, terms, str(spending))
        on_shares = None if trained is None else race_on_shares(entries, percentages, trained, terms)
        if on_shares is None:
            say(console, "interrupted; everything is saved: type the same command again to go on")
            return None
        say(console, "measuring what they have become")
        comparison = _measured(entries, terms, plan, on_shares, notes)
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


def _command(recipes: Sequence[str | Path], options: Mapping[str, object], overrides: Sequence[str]) -> str:
    """What a person types for it."""
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
    n_wanted = n_parameters(first.recipe, contest.vocabulary_of(first.recipe))
    matched, notes = [first], [f"{first.name}: {n_wanted:,} parameters, which the others are made to have"]
    for entry in others:
        vocabulary = contest.vocabulary_of(entry.recipe)
        try:
            recipe = match_parameters(entry.recipe, n_wanted, vocabulary)
        except RecipeError as error:
            raise RecipeError(
                f"{entry.name}: {error.what}", given=error.given, expected=error.expected, mend=error.mend
            ) from None
        n, widths = n_parameters(recipe, vocabulary), widths_changed(entry.recipe.model, recipe.model)
        notes.append(f"{entry.name}: {', '.join(widths) or 'as it is'}: {n:,} parameters, {n / n_wanted - 1:+.1%}")
        matched.append(replace(entry, recipe=recipe))
    return matched, notes


def _plan(entries: Sequence[Entry], contest: Contest, budget: Budget, matched: bool) -> Plan:
    runs = {entry.name: PlannedRun(recipe=entry.recipe.model_dump(mode="json")) for entry in entries}
    subject = subject_of(entries[0].recipe)
    return Plan(task=subject, budget=str(budget), matched=matched, fingerprint=contest.fingerprint, runs=runs)


def _measured(
    entries: Sequence[Entry], terms: Terms, plan: Plan, shares: ShareRuns, notes: Sequence[str]
) -> Comparison:
    """All results and what goes with them."""
    contest, out = terms.contest, terms.out
    train_name, valid_name = contest.names_of_data()
    together = contest.measure_together({entry.name: out / entry.name for entry in entries})
    by_share = curves_by_share(shares.runs, contest)
    results = []
    for entry in entries:
        result = _result(entry, contest, out)
        numbers, curves = result.numbers | together[entry.name], result.curves | by_share.get(entry.name, {})
        results.append(result.model_copy(update={"numbers": numbers, "curves": curves}))
    return Comparison(
        task=plan.task,
        data=train_name,
        valid=valid_name,
        budget=plan.budget,
        matched=plan.matched,
        prompt=contest.prompt,
        command=terms.command,
        date=time.strftime("%Y-%m-%d"),
        facts=_facts(entries[0].recipe),
        notes=(*notes, *shares.notes, *_shortened_warm_ups(entries, out)),
        results=tuple(results),
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
    validations = [record for record in folders.log_records(folder) if contest.metric in record]
    measures = contest.measure(folder, recipe, validations)
    return Result(
        name=entry.name,
        recipe=entry.origin,
        family=check_cell(recipe).family,
        model=_sizes(recipe),
        folder=str(folder),
        numbers=measures.numbers,
        curves=measures.curves,
        sample=measures.sample,
    )


def _sizes(recipe: Recipe) -> str:
    """A model's shape in a line."""
    model, stacks = recipe.model, recipe.model.stacks().values()
    trained = f"{recipe.train.precision} in training"
    if isinstance(model, ResNetConfig):
        depths, widths = " + ".join(map(str, model.depths)), ", ".join(map(str, model.widths))
        return f"{depths} {model.block} blocks of {widths} channels, {model.norm} norm, {trained}"
    layers = " + ".join(f"{stack.n_layers} x {stack.mixer.kind}" for stack in stacks)
    feed_forward = f", d_ff {model.d_ff}" if model.d_ff else ", no feed-forward part"
    patches = f", patches of {model.patch_size} x {model.patch_size} pixels" if isinstance(model, ViTConfig) else ""
    return f"{layers}, d_model {model.d_model}{feed_forward}{patches}, {trained}"


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
