"""How good each contestant becomes with less data: the same recipes, trained on shares of the training data.

At each share all contestants see equally many examples: as many as that one saw of all data which saw fewest within the
budget, but none more than MOST_EPOCHS times, so that a small share does not take as long as a large one for nothing. Each
schedule has the length of its own run. A run of the main race that is such a run by chance counts as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tripel import checkpoint
from tripel.compare.budget import Budget
from tripel.compare.comparison import Curve
from tripel.compare.contest import Contest
from tripel.compare.display import say
from tripel.compare.entries import Entry
from tripel.compare.folder import Plan, log_records, write_plan
from tripel.compare.race import Terms, race
from tripel.errors import InputError
from tripel.recipe import Recipe

MOST_EPOCHS = 100
WHOLE = 100.0
_VALIDATIONS = 4
_MOST_SHARES = 20
_NUMBER = re.compile(r"\d{1,3}(\.\d{1,4})?")


@dataclass(frozen=True)
class ShareRun:
    """A contestant on a share. name: the contestant's; n_examples: of the share; n_seen: examples seen in training."""

    name: str
    percent: float
    n_examples: int
    n_seen: int
    folder: Path


@dataclass(frozen=True)
class ShareRuns:
    """All of a comparison. notes: the rule and its figures, in words."""

    runs: tuple[ShareRun, ...] = ()
    notes: tuple[str, ...] = ()


def asked_shares(text: str | None, contest: Contest) -> tuple[float, ...]:
    """Percentages in order, from what a person wrote; the contest's own by default, and none where that is all data
    only. Raises InputError."""
    if text is None:
        return contest.shares
    if not contest.shares:
        raise InputError(
            "only image classifiers are compared on shares of their training data",
            given=f"--shares {text}",
            expected="no --shares for models of text",
            mend="leave it out, or name smaller files with --data one after the other",
        )
    parts = [part.strip().removesuffix("%").strip() for part in text.split(",")]
    readable = all(_NUMBER.fullmatch(part) and 0 < float(part) <= WHOLE for part in parts)
    if not readable or len(parts) > _MOST_SHARES:
        raise InputError(
            "the shares of the training data cannot be understood",
            given=f"--shares {text}",
            expected=f"at most {_MOST_SHARES} percentages above 0 and up to 100, such as 1,5,25,100",
            mend="write for example --shares 1,5,25,100, or --shares 100 for all data only",
        )
    shares = tuple(sorted({float(part) for part in parts}))
    return () if shares == (WHOLE,) else shares


def race_on_shares(entries: Sequence[Entry], shares: Sequence[float], plan: Plan, terms: Terms) -> ShareRuns | None:
    """Train what is not trained yet on every share, after the race on all data; None when it was interrupted."""
    if not shares:
        return ShareRuns()
    seen = {entry.name: _seen(terms.out / entry.name) for entry in entries}
    if plan.seen is None:
        plan = plan.model_copy(update={"seen": min(seen.values())})
        write_plan(terms.out, plan)
    most_seen = plan.seen
    assert most_seen is not None
    found, notes = [], [_rule(most_seen)]
    say(terms.console, notes[0])
    for percent in shares:
        runs = {entry.name: _planned(entry, percent, most_seen, terms) for entry in entries}
        sizes = {run.n_examples for run in runs.values()}
        notes.append(f"{percent:g} % of the training data: {_told(most_seen, sizes)}")
        say(terms.console, notes[-1])
        raced = _raced(runs, plan, terms, f"the run on {percent:g} %")
        if raced is None:
            return None
        plan = raced
        for name, run in runs.items():
            folder = terms.out / (name if run.entry is None else run.entry.name)
            found.append(ShareRun(name, percent, run.n_examples, _seen(folder), folder))
    return ShareRuns(tuple(found), tuple(notes))


def curves_by_share(runs: Sequence[ShareRun], contest: Contest) -> dict[str, dict[str, Curve]]:
    """For each contestant the curves of its scores by the number of training examples, named SCORE_examples."""
    curves: dict[str, dict[str, Curve]] = {}
    for name in dict.fromkeys(run.name for run in runs):
        own = [run for run in runs if run.name == name]
        scores = [contest.share_scores(run.folder, Recipe.load(run.folder / checkpoint.RECIPE)) for run in own]
        sizes = tuple(float(run.n_examples) for run in own)
        columns = {score: tuple(each[score] for each in scores) for score in scores[0]}
        columns["seen"] = tuple(float(run.n_seen) for run in own)
        curves[name] = {f"{score}_examples": Curve(x=sizes, y=y) for score, y in columns.items()}
    return curves


@dataclass(frozen=True)
class _Planned:
    """A run on a share that is to be made. entry: None where the main race's run is it."""

    n_examples: int
    steps: int
    entry: Entry | None


def _planned(entry: Entry, percent: float, most_seen: int, terms: Terms) -> _Planned:
    main = Recipe.load(terms.out / entry.name / checkpoint.RECIPE)
    recipe, n_examples = terms.contest.on_share(entry.recipe, percent)
    rows = min(recipe.train.tokens_per_step, n_examples)
    steps = max(1, round(min(most_seen, MOST_EPOCHS * n_examples) / rows))
    if percent == WHOLE and steps == main.train.steps:
        return _Planned(n_examples, steps, None)
    # In the main race's precision: asked again, a busy machine might answer differently.
    train = recipe.train.model_copy(update={"precision": main.train.precision})
    recipe = recipe.model_copy(update={"train": train})
    return _Planned(n_examples, steps, Entry(f"share-{percent:g}/{entry.name}", entry.origin, recipe))


def _raced(runs: Mapping[str, _Planned], plan: Plan, terms: Terms, title: str) -> Plan | None:
    """The plan when all of these have been trained; None when that was interrupted."""
    entries = {entry.name: (entry, run.steps) for run in runs.values() if (entry := run.entry) is not None}
    plan = plan.with_runs({name: entry.recipe for name, (entry, _) in entries.items()})
    budgets = {name: Budget(steps=steps, validations=_VALIDATIONS) for name, (_, steps) in entries.items()}
    return race([entry for entry, _ in entries.values()], budgets, plan, terms, title)


def _rule(most_seen: int) -> str:
    return (
        f"on each share of the training data, all see equally many examples: {most_seen:,}, as many as the slowest saw "
        f"of all data within the budget, but no example more than {MOST_EPOCHS} times"
    )


def _told(most_seen: int, sizes: set[int]) -> str:
    """sizes: examples of the share; one number, unless contestants cannot read all the same ones."""
    seen = {n: min(most_seen, MOST_EPOCHS * n) for n in sorted(sizes)}
    return " or ".join(f"{n:,} examples, {seen[n]:,} seen ({seen[n] / n:.1f} times each)" for n in seen)


def _seen(folder: Path) -> int:
    return int(log_records(folder)[-1]["tokens"])
