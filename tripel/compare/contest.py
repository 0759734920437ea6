"""What a task brings to a comparison: its data, what is measured of each contestant, and how that is shown.

A comparison itself knows no task: it loads recipes, makes equal what must be, trains in turns and writes the report. A
task that can be compared is one file with its Contest, and one row in the table in contests.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tripel.compare.comparison import Curve, Views
from tripel.data.checks import DataReport
from tripel.models.config import Vocabulary
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
    sample: str


class Contest(ABC):
    """One comparison of a task. Called in this order: on_data or with_validation, prepare, remarks, measure (once each).

    metric: of validations, whose curve is drawn. live: what is shown of them while training; views: how the results are
    shown. report, tokenizers, vocabulary: known once prepared. fingerprint: of the data that was read; prompt: what the
    samples go on with.
    """

    metric: ClassVar[str]
    live: ClassVar[tuple[LiveMetric, ...]]
    views: ClassVar[Views]
    report: DataReport
    tokenizers: TokenizerPair
    vocabulary: Vocabulary
    fingerprint: str
    prompt: str

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
    def measure(self, folder: Path, recipe: Recipe) -> Measures:
        """Measure a finished run. Raises CheckpointError when the folder is damaged."""
