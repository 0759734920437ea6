"""What sets with labels have in common, of texts or pictures: their classes, repeats, overlap and division."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeVar

from tripel.data.checks import Action, DataReport, Finding, Tally
from tripel.errors import DataError

Repeat = Literal["duplicate", "conflicting labels"]
SHARE_STEPS = 10_000
"""Shares of a set are drawn in steps of one in so many."""

# One class with so many times the examples of another is worth knowing.
_UNEQUAL = 10
# From so many examples on, more than one label for every two of them are no classes: another column was read.
_EXAMPLES_TO_TELL = 20
_SHOWN = 8
_SHOWN_CHARACTERS = 40


class LabelledSet(Protocol):
    """A set of labelled things. places: where each was read."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def places(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def taken(self, indices: Sequence[int], name: str | None = None) -> Self: ...


SomeSet = TypeVar("SomeSet", bound=LabelledSet)


@dataclass(frozen=True)
class Wording:
    """How messages speak of a set. one: of its things. one_class, own_labels: how to mend these."""

    one: str
    one_class: str
    own_labels: str

    @property
    def unit(self) -> str:
        """The plural of one."""
        return f"{self.one}s"


TEXTS = Wording(
    "example",
    "look whether the right column is read as the label (data.label_column)",
    "look whether the text was read as the label: lines without a header are label<TAB>text, in this order",
)


class LabelsSeen:
    """The things read so far, by a hash of what is the same in equal ones, each with its first label."""

    def __init__(self) -> None:
        self._labels: dict[int, str] = {}

    def repeat(self, key: Hashable, label: str) -> Repeat | None:
        """Which repeat a thing is, if any; it is remembered."""
        number = hash(key)
        if number not in self._labels:
            self._labels[number] = label
            return None
        return "duplicate" if self._labels[number] == label else "conflicting labels"


def findings_of(
    tally: Tally,
    name: str,
    total: int,
    action: Callable[[str], Action],
    *,
    unusable: Sequence[str],
    max_bad_share: float,
    unit: str,
) -> list[Finding]:
    """The rows of a set's report: what action says of each kind, and a refusal where too much is unusable."""
    counts = tally.counts()
    n_bad = sum(counts[kind][0] for kind in unusable if kind in counts)
    rows = []
    for kind, (count, examples) in counts.items():
        done, reason = action(kind), None
        if kind in unusable and n_bad > max_bad_share * total:
            done = "refused"
            reason = f"{kind} in {count} of {total} {unit} (max_bad_share {max_bad_share})"
        rows.append(Finding(name, kind, count, total, done, examples, reason))
    return rows


def classes_of(train: LabelledSet, wording: Wording = TEXTS) -> tuple[str, ...]:
    """The labels of a training set, sorted, numbers by their value.

    Raises DataError when there is only one, or when there are so many that they cannot be classes.
    """
    labels, unit = set(train.labels), wording.unit
    if len(labels) < 2:
        raise DataError(
            "the training set has one class only",
            given=f"{train.name}: {len(train):,} {unit}, all labelled {train.labels[0]!r}"
            if train.labels
            else f"{train.name}: no {wording.one} is left",
            expected=f"{unit} of two classes at least",
            mend=wording.one_class,
        )
    if len(train) >= _EXAMPLES_TO_TELL and 2 * len(labels) > len(train):
        raise DataError(
            f"nearly every {wording.one} of the training set has a label of its own",
            given=f"{train.name}: {len(train):,} {unit}, {len(labels):,} labels, {_listed(sorted(labels))}",
            expected=f"several {unit} of each class",
            mend=wording.own_labels,
        )
    return in_order(labels)


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Labels as classes are ordered: numbers by their value, if all are numbers, else as words."""
    if all(_number(label) is not None for label in labels):
        return tuple(sorted(labels, key=lambda label: (_number(label), label)))
    return tuple(sorted(labels))


def require_known(held_out: LabelledSet, labels: Sequence[str]) -> None:
    """Raise DataError for labels that the training set has not: a model could never say them."""
    known = set(labels)
    first: dict[str, str] = {}
    for label, place in zip(held_out.labels, held_out.places, strict=True):
        if label not in known:
            first.setdefault(label, place)
    if first:
        shown = ", ".join(f"{label!r} at {place}" for label, place in list(first.items())[:_SHOWN])
        raise DataError(
            f"{held_out.name} has labels that the training set has not",
            given=shown + (f" and {len(first) - _SHOWN} more" if len(first) > _SHOWN else ""),
            expected=f"one of {_listed(labels)}",
            mend="correct the labels, or add examples of these classes to the training set",
        )


def against(
    train: SomeSet,
    other: SomeSet,
    keys: Callable[[SomeSet], Sequence[Hashable]],
    report: DataReport,
    *,
    drop: bool,
) -> SomeSet:
    """Report what of the training set is also in another set, and leave it out if drop. keys: equal for equal things."""
    held = set(keys(other))
    common = {index for index, key in enumerate(keys(train)) if key in held}
    if not common:
        return train
    places = tuple(train.places[index] for index in sorted(common)[:3])
    action: Action = "dropped" if drop else "kept"
    report.findings.append(Finding(train.name, f"also in {other.name}", len(common), len(train), action, places))
    return train.taken([index for index in range(len(train)) if index not in common]) if drop else train


def divided(train: SomeSet, share: float, draws: Sequence[int], unit: str) -> tuple[SomeSet, SomeSet]:
    """Training and validation set. draws: a number below SHARE_STEPS for each thing, which follows from the thing alone,
    so that equal ones are on one side. A class that would be in the validation set alone stays in the training set."""
    limit = share * SHARE_STEPS
    trained = {label for label, number in zip(train.labels, draws, strict=True) if number >= limit}
    in_valid = [number < limit and label in trained for label, number in zip(train.labels, draws, strict=True)]
    valid, rest = ([index for index, there in enumerate(in_valid) if there is side] for side in (True, False))
    if not valid:
        raise DataError(
            "the training set is too small to be divided",
            given=f"{len(train)} {unit}, valid_share {share}",
            expected=f"{unit} on both sides",
            mend="raise data.valid_share, or name a validation set",
        )
    return train.taken(rest), train.taken(valid, f"{train.name}, {share:.0%} of it")


def report_classes(train: LabelledSet, report: DataReport) -> None:
    """Tell of classes that are far rarer than others, and of labels that may be one class."""
    counts = Counter(train.labels).most_common()
    (most, n_most), (least, n_least) = counts[0], counts[-1]
    if n_most > _UNEQUAL * n_least:
        kind = f"unequal classes: {most[:_SHOWN_CHARACTERS]} {n_most:,}, {least[:_SHOWN_CHARACTERS]} {n_least:,}"
        report.findings.append(Finding(train.name, kind, n_least, len(train), "kept"))
    spellings = Counter(label.casefold() for label in dict(counts))
    alike = sorted(label for label, _ in counts if spellings[label.casefold()] > 1)
    if alike:
        count = sum(number for label, number in counts if label in alike)
        report.findings.append(
            Finding(train.name, f"labels that differ in case alone: {_listed(alike)}", count, len(train), "kept")
        )


def _number(label: str) -> float | None:
    """The number that a label is, if it is one."""
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _listed(labels: Sequence[str]) -> str:
    """Labels for a message."""
    shown = ", ".join(repr(label[:_SHOWN_CHARACTERS]) for label in labels[:_SHOWN])
    return f"{shown} and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else shown
