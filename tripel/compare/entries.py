"""Who takes part: recipes by name, of one task, with all made equal that is not theirs to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tripel.compare.budget import Budget
from tripel.compare.contest import Contest
from tripel.compare.contests import subject_of
from tripel.errors import InputError, RecipeError
from tripel.recipe import Recipe


@dataclass(frozen=True)
class Entry:
    """A contestant before it trains. origin: the recipe as it was named."""

    name: str
    origin: str
    recipe: Recipe

    def with_section(self, section: str, value: Any) -> Entry:
        """The entry with another section of its recipe."""
        return replace(self, recipe=self.recipe.model_copy(update={section: value}))


def load_entries(recipes: Sequence[str | Path], overrides: Sequence[str]) -> list[Entry]:
    """The recipes by name or path, all with the overrides. Raises InputError for fewer than two, for a name twice and
    for different tasks, RecipeError for what cannot be loaded."""
    if len(recipes) < 2:
        raise InputError(
            "a comparison needs at least two recipes",
            given=", ".join(map(str, recipes)) or "none",
            expected="names of recipes (`tripel recipes`) or paths of YAML files",
            mend="name another, for example `tripel compare gpt lstm --data book.txt --out runs/compared`",
        )
    entries = [Entry(_name(origin), str(origin), Recipe.load(origin, overrides)) for origin in recipes]
    for number, entry in enumerate(entries):
        first = next(other for other in entries if other.name == entry.name)
        if first is not entries[number]:
            raise InputError(
                f"two contestants have the name {entry.name}",
                given=f"{first.origin} and {entry.origin}",
                expected="recipes of different names: each is the name of a run folder",
                mend="leave one out, or give its file another name",
            )
    if len({subject_of(entry.recipe) for entry in entries}) > 1:
        raise InputError(
            "recipes for different tasks cannot be compared",
            given=", ".join(f"{entry.name}: {subject_of(entry.recipe)}" for entry in entries),
            expected="recipes of one task",
            mend="leave out those of the other task",
        )
    return entries


def equalise(
    entries: Sequence[Entry], contest: Contest, budget: Budget, data: tuple[str, str | None] | None
) -> tuple[list[Entry], list[str]]:
    """The entries on the same data, with the same tokenizer, device and threads, and what that changed, in words.

    data: training data and, if there is one of its own, validation data, in place of the recipes' own. Raises InputError
    when recipes are to keep data that differ.
    """
    first, notes = entries[0], []
    if data is None:
        _require_same_data(entries, contest)
        entries = [replace(entry, recipe=contest.with_validation(entry.recipe)) for entry in entries]
    else:
        entries = [replace(entry, recipe=contest.on_data(entry.recipe, *data)) for entry in entries]
    shared = entries[0].recipe
    equal_settings = ["device", "threads", *(["tokens_per_step"] if budget.steps is not None else [])]
    equalised = []
    for entry in entries:
        recipe = entry.recipe
        changed = _differences("tokenizer", shared.tokenizer, recipe.tokenizer)
        own = {key: getattr(recipe.data, key) for key in contest.own_data_settings()}
        common_data = shared.data.model_copy(update=own)
        changed += _differences("data", common_data, recipe.data)
        settings = {key: getattr(shared.train, key) for key in equal_settings}
        # A budget is equal for all: nobody stops early.
        train = recipe.train.model_copy(update={**settings, "patience": 0})
        changed += _differences("train", train, recipe.train)
        if changed:
            notes.append(f"{entry.name}: {'; '.join(changed)} (as {first.name}, or as a comparison needs it)")
        sections = {"tokenizer": shared.tokenizer, "data": common_data, "train": train}
        equalised.append(replace(entry, recipe=recipe.model_copy(update=sections)))
    return equalised, notes


def matches_parameters(what: str | None) -> bool:
    """Whether --match asks for equal numbers of parameters. Raises RecipeError for anything else."""
    if what not in (None, "parameters"):
        raise RecipeError(
            "there is nothing of that name to match",
            given=f"--match {what}",
            expected="parameters",
            mend="write --match parameters, or leave it out",
        )
    return what is not None


def _name(origin: str | Path) -> str:
    """A shipped recipe's name, or that of a file; of a run's own recipe.yaml, the run's."""
    path = Path(origin)
    if path.name == "recipe.yaml":
        return path.absolute().parent.name
    return path.stem if path.suffix in (".yaml", ".yml") else path.name


def _require_same_data(entries: Sequence[Entry], contest: Contest) -> None:
    first = entries[0]
    for entry in entries[1:]:
        own = contest.own_data_settings()
        given = entry.recipe.data.model_copy(update={key: getattr(first.recipe.data, key) for key in own})
        different = _differences("data", given, first.recipe.data)
        if different:
            raise InputError(
                "the recipes train on different data",
                given=f"{first.name} -> {entry.name}: {'; '.join(different)}",
                expected="the same data for all",
                mend="give all of them the same with --data FILE",
            )


def _differences(section: str, new: Any, old: Any) -> list[str]:
    """Settings of a section that are not equal, as `data.train: old -> new`."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return [f"{section}.{key}: {before[key]} -> {after[key]}" for key in after if before.get(key) != after[key]]
