"""What a task brings to a comparison: its data, what is measured of each contestant, and how that is shown.

A comparison itself knows no task: it loads recipes, makes equal what must be, trains in turns and writes the report. A
task that can be compared is one file with its Contest, and one row in the table in contests.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tripel.compare.comparison import Curve, Views
from tripel.data.checks import DataReport
from tripel.errors import DataError
from tripel.models.config import AnyVocabulary
from tripel.recipe import Recipe
from tripel.text.pair import TokenizerPair


@dataclass(frozen=True)
class LiveMetric:
    """A validation metric that is shown while training. form: as of format()."""

    title: str
    metric: str
    form: str


@dataclass(frozen=True)
class Measures:
    """What was measured of a finished run; see comparison.Result."""

    numbers: dict[str, int | float]
    curves: dict[str, Curve]
    sample: str = ""


class Contest(ABC):
    """One comparison of a task. Called in this order: on_data or with_validation, prepare, remarks, measure (once each),
    measure_together.

    metric: of validations, which every one of them has. unit: what a run counts as tokens. live: what is shown of
    validations while training; views: how the results are shown. shares: percentages of the training data that contestants
    are also trained on unless others are asked for; none where that is not compared. report, tokenizers (None for images):
    known once prepared. fingerprint: of the data that was read; prompt: what the samples go on with.
    """

    metric: ClassVar[str]
    unit: ClassVar[str] = "tokens"
    live: ClassVar[tuple[LiveMetric, ...]]
    views: ClassVar[Views]
    shares: ClassVar[tuple[float, ...]] = ()
    report: DataReport
    tokenizers: TokenizerPair | None
    fingerprint: str
    prompt: str = ""

    @abstractmethod
    def on_data(self, recipe: Recipe, train: str, valid: str | None) -> Recipe:
        """The recipe on other data. valid None: a part of train."""

    @abstractmethod
    def with_validation(self, recipe: Recipe) -> Recipe:
        """The recipe, validated on a part of its own training data where it names nothing."""

    @abstractmethod
    def own_data_settings(self) -> frozenset[str]:
        """Keys of the data section that contestants may differ in."""

    @abstractmethod
    def prepare(self, recipes: Mapping[str, Recipe], tokenizers: TokenizerPair | None) -> None:
        """Read the data once, train the tokenizers (or take these), and see that every recipe fits. Raises DataError."""

    @abstractmethod
    def names_of_data(self) -> tuple[str, str]:
        """The training and the validation data, for a person."""

    @abstractmethod
    def remarks(self, recipes: Mapping[str, Recipe]) -> list[str]:
        """What a reader should know of remaining differences before comparing."""

    @abstractmethod
    def vocabulary_of(self, recipe: Recipe) -> AnyVocabulary:
        """What a model of this recipe must know of the data."""

    @abstractmethod
    def measure(self, folder: Path, recipe: Recipe, validations: Sequence[Mapping[str, Any]]) -> Measures:
        """Measure a finished run. validations: their records, in order. Raises CheckpointError when the folder is
        damaged."""

    def measure_together(self, folders: Mapping[str, Path]) -> dict[str, dict[str, float]]:
        """Numbers of each run by name that are measured in turns, so that all of them meet the same machine."""
        return {name: {} for name in folders}

    def on_share(self, recipe: Recipe, percent: float) -> tuple[Recipe, int]:
        """The recipe on a share of its training data, and how many examples that is. Only where `shares` has any."""
        raise NotImplementedError

    def share_scores(self, folder: Path, recipe: Recipe) -> dict[str, float]:
        """Scores of a finished run on a share, each of which makes a curve. Only where `shares` has any."""
        raise NotImplementedError


def curve_of(validations: Sequence[Mapping[str, Any]], x: str, y: str) -> Curve:
    """One field of validation records against another."""
    return Curve(x=tuple(record[x] for record in validations), y=tuple(record[y] for record in validations))


def training_numbers(last: Mapping[str, Any], unit: str) -> dict[str, int | float]:
    """What a run's last record says of its length and speed."""
    return {
        "updates": last["step"],
        f"training_{unit}": last["tokens"],
        "training_seconds": last["seconds"],
        f"training_{unit}_per_second": last["tokens"] / max(last["seconds"], 1e-9),
    }


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Say of an error in the data whose it is."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error.what}", given=error.given, expected=error.expected, mend=error.mend) from None
