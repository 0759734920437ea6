"""All contestants train side by side, in turns of a few seconds: what slows the machine down slows all of them down."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tripel import checkpoint
from tripel.compare.budget import Budget
from tripel.compare.contest import Contest
from tripel.compare.contestant import Contestant, Pace, calibrate, random_state, set_length
from tripel.compare.display import Display, say
from tripel.compare.entries import Entry
from tripel.compare.folder import Plan, write_plan
from tripel.errors import CheckpointError, TripelError
from tripel.recipe import Recipe
from tripel.run import Run, opened
from tripel.text.pair import TokenizerPair
from tripel.training import parallel
from tripel.training.interrupt import StopRequest
from tripel.training.precision import Precision, resolve_precision

TURN_SECONDS = 4.0
"""A turn is so long, or TURN_SHARE of the budget where that is shorter."""

TURN_SHARE = 0.02
_CALIBRATION_SHARE = 0.03
_LONGEST_CALIBRATION = 5.0


@dataclass(frozen=True)
class Terms:
    """What goes for all races of a comparison. command: what a person typed for it."""

    contest: Contest
    out: Path
    console: Console
    command: str


def race(entries: Sequence[Entry], budgets: Mapping[str, Budget], plan: Plan, terms: Terms, title: str) -> Plan | None:
    """Train those entries that are not finished; the plan with all finished, or None when it was interrupted.

    budgets: of each entry by name; title: all of them in words. Whatever ends it, each run has a checkpoint of its last
    update, from which the next race goes on.
    """
    contest, out, console = terms.contest, terms.out, terms.console
    waiting = [entry for entry in entries if not plan.runs[entry.name].finished]
    for entry in entries:
        if entry not in waiting:
            say(console, f"{entry.name} is trained already: {out / entry.name} is used as it is")
    if not waiting:
        return plan
    with StopRequest() as stop, contextlib.ExitStack() as closing:
        contestants, precision = [], _precision(waiting)
        for entry in waiting:
            entry, budget = _with_precision(entry, precision), budgets[entry.name]
            run, resume = closing.enter_context(_opened(entry, contest.tokenizers, out / entry.name, terms.command))
            random = random_state()
            if not resume:
                pace = _pace(run, budget, stop)
                if stop.requested:
                    return None
                set_length(run, budget, pace)
                plan = plan.with_run(entry.name, updates=pace.updates, seconds=pace.seconds)
            say(console, f"{entry.name}: {_described(run, resume, contest.unit)}")
            planned = plan.runs[entry.name]
            pace = Pace(planned.updates, planned.seconds)
            contestants.append(Contestant(entry.name, run, budget, pace, stop, random))
            closing.callback(contestants[-1].close)
        write_plan(out, plan)
        _train(contestants, Display(console, contestants, title, contest.live, contest.unit), stop)
        for contestant in contestants:
            contestant.run.finish(contestant.result)
            if contestant.result.reason != "interrupted":
                plan = plan.with_run(contestant.name, finished=True)
    write_plan(out, plan)
    return plan if all(plan.runs[entry.name].finished for entry in entries) else None


@contextlib.contextmanager
def _opened(entry: Entry, tokenizers: TokenizerPair | None, folder: Path, command: str) -> Iterator[tuple[Run, bool]]:
    """A contestant's run, and whether it goes on from a checkpoint. What it says goes to a file beside its folder."""
    resume = bool(checkpoint.list_steps(folder))
    recipe = Recipe.load(folder / checkpoint.RECIPE) if resume else entry.recipe
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        folder.with_name(f"{folder.name}.log").open("a", encoding="utf-8") as log,
        opened(
            recipe,
            folder,
            resume=resume,
            overwrite=folder.exists() and not resume,
            console=Console(file=log, width=120),
            command=command,
            tokenizers=tokenizers,
        ) as run,
    ):
        yield run, resume


def _train(contestants: Sequence[Contestant], display: Display, stop: StopRequest) -> None:
    """Take turns until all are done. Who fails ends the race, and who asks to: then all the others save."""
    current = contestants[0]
    try:
        with display:
            while not all(contestant.done for contestant in contestants):
                for contestant in contestants:
                    if not contestant.done:
                        current = contestant
                        validated = contestant.take_turn(TURN_SECONDS, TURN_SHARE)
                        display.refresh(contestant, validated)
    except CheckpointError:  # where the disk refuses one, it refuses all
        raise
    except TripelError as error:
        stop.requested = True
        for contestant in contestants:
            if not contestant.done and contestant is not current:
                contestant.update()
        raise TripelError(
            f"{current.name}: {error.what}",
            given=error.given,
            expected=error.expected,
            mend="leave this recipe out: what the others have learnt is saved, and the same command goes on with them; "
            "or mend it and compare in a new folder",
        ) from error


def _pace(run: Run, budget: Budget, stop: StopRequest) -> Pace:
    """Measured where the number of updates depends on it."""
    if budget.seconds is None:
        return Pace(0, 0.0)
    return calibrate(run, min(_CALIBRATION_SHARE * budget.seconds, _LONGEST_CALIBRATION), stop)


def _precision(entries: Sequence[Entry]) -> Precision:
    """What `auto` means for all of them: asked one by one, a busy machine might answer differently."""
    settings = [entry.recipe.train for entry in entries]
    if all(train.precision != "auto" for train in settings):
        return "auto"
    return resolve_precision("auto", parallel.pick_device(settings[0].device))


def _with_precision(entry: Entry, precision: Precision) -> Entry:
    train = entry.recipe.train
    if train.precision != "auto":
        return entry
    return entry.with_section("train", train.model_copy(update={"precision": precision}))


def _described(run: Run, resume: bool, unit: str) -> str:
    if resume:
        return f"goes on from step {run.trainer.progress.step:,}"
    return f"about {run.recipe.train.steps:,} updates of {run.recipe.train.tokens_per_step:,} {unit}"
