"""The folder of a comparison: what was agreed at its start, so that the same command goes on and another is refused.

OUT/plan.json           data, budget and the recipes, as they were made equal; what is finished
    tokenizer.json      the one tokenizer of all, where they read text
    NAME/, NAME.log     a run folder for each contestant, and what its training said
    share-5/NAME/ ...   the same for 5 % of the training data
    comparison.json, comparison.html, *.png     the report, when all have finished
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tripel import checkpoint, storage
from tripel.config import Config
from tripel.errors import CheckpointError, InputError
from tripel.recipe import Recipe
from tripel.text.pair import TokenizerPair

PLAN = "plan.json"
_NEEDED = (checkpoint.WEIGHTS, checkpoint.RECIPE, "metrics.jsonl")


class PlannedRun(Config):
    """A contestant's recipe before its length was set. updates, seconds: of its calibration; 0 until then."""

    recipe: dict[str, Any]
    updates: int = 0
    seconds: float = 0.0
    finished: bool = False


class Plan(Config):
    """What must not change between a comparison and its continuation. budget: in words. fingerprint: of the data.

    seen: how many examples each run on a share of the data sees at most; None until the first of them begins.
    """

    tripel_comparison: int = 1
    task: str
    budget: str
    matched: bool
    fingerprint: str
    seen: int | None = None
    runs: dict[str, PlannedRun]

    def continued(self, new: Plan, out: Path) -> Plan:
        """This plan with the runs that only the new one has. Raises InputError when anything differs."""
        given, stored = (plan.model_dump(exclude={"runs", "seen"}) for plan in (new, self))
        different = [f"{key}: {stored[key]} -> {given[key]}" for key in stored if stored[key] != given[key]]
        for name in self.runs.keys() & new.runs.keys():
            before, after = _flat(self.runs[name].recipe), _flat(new.runs[name].recipe)
            keys = [key for key in before | after if before.get(key) != after.get(key)]
            different += [f"{name}: {key}: {before.get(key)} -> {after.get(key)}" for key in keys]
        if different:
            raise InputError(
                "the folder has another comparison",
                given=f"{out}: {'; '.join(different[:6])}{' ...' if len(different) > 6 else ''}",
                expected="the same data, budget and recipes, to go on with it",
                mend="name another folder with --out",
            )
        return self.model_copy(update={"runs": {**new.runs, **self.runs}})

    def with_runs(self, recipes: Mapping[str, Recipe]) -> Plan:
        """The plan with those of these runs that it does not have yet."""
        new = {name: PlannedRun(recipe=recipe.model_dump(mode="json")) for name, recipe in recipes.items()}
        return self.model_copy(update={"runs": {**new, **self.runs}})

    def with_run(self, name: str, **changes: Any) -> Plan:
        """The plan with other fields of one run."""
        return self.model_copy(update={"runs": {**self.runs, name: self.runs[name].model_copy(update=changes)}})


def stored_plan(out: Path) -> Plan | None:
    """The plan of the comparison in a folder; None for a new or empty one. Raises InputError for anything else."""
    if out.exists() and not out.is_dir():
        raise InputError("--out is a file", given=out, expected="a folder", mend="name another folder")
    if not out.is_dir() or not any(out.iterdir()):
        there = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
        if not os.access(there, os.W_OK):
            raise InputError(
                "the output folder cannot be written",
                given=f"{out}: no permission to write in {there}",
                expected="a folder that this user may write to",
                mend="name another folder with --out, or change the permissions",
            )
        return None
    if not (out / PLAN).is_file():
        raise InputError(
            "the folder holds something else than a comparison",
            given=out,
            expected=f"a new or empty folder, or one with the {PLAN} that `tripel compare` wrote",
            mend="name another folder with --out",
        )
    try:
        return Plan.model_validate(storage.read_json(out / PLAN))
    except ValidationError as error:
        raise CheckpointError(
            f"{PLAN} is damaged",
            given=f"{out / PLAN}: {error.errors()[0]['msg']}",
            expected="the file that `tripel compare` wrote",
            mend="compare in another folder; the runs in this one can be used as they are",
        ) from None


def stored_tokenizers(out: Path) -> TokenizerPair | None:
    """The comparison's tokenizer, if it was begun and reads text."""
    return TokenizerPair.load(out) if (out / checkpoint.TOKENIZER_FILES[0]).exists() else None


def write_plan(out: Path, plan: Plan) -> None:
    """Store the plan. Raises CheckpointError when the disk refuses."""
    storage.atomic_write(out / PLAN, _as_json(plan))


@contextlib.contextmanager
def begun(out: Path, stored: Plan | None, plan: Plan, tokenizers: TokenizerPair | None) -> Iterator[Plan]:
    """The folder of a plan, held by this process until the block ends, and the plan with what is finished already.

    A run whose folder somebody has removed counts as not begun. Raises InputError for another comparison than the stored
    one, CheckpointError when the disk refuses or another process has the folder.
    """
    if stored is not None:
        plan = stored.continued(plan, out)
        for name, run in plan.runs.items():
            if run.finished and not all((out / name / file).is_file() for file in _NEEDED):
                plan = plan.with_run(name, finished=False)
    else:
        with storage.replaced_files(out) as draft:
            if tokenizers is not None:
                tokenizers.save(draft)
            (draft / PLAN).write_text(_as_json(plan), encoding="utf-8")
    with storage.held(out):
        yield plan


def log_records(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, in order."""
    with (run / "metrics.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _as_json(plan: Plan) -> str:
    return plan.model_dump_json(indent=2) + "\n"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
