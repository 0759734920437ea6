"""The contract between a run and a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from tripel.data.batch import Batch
from tripel.data.checks import DataReport
from tripel.data.steps import StepLoader
from tripel.models.build import Model
from tripel.models.config import AnyVocabulary
from tripel.recipe import Recipe
from tripel.tasks.baseline import Baseline
from tripel.text.pair import TokenizerPair
from tripel.training.log import RunLog


class Job(ABC):
    """Called in this order: read, then train_tokenizers or the run's stored ones, encode, loader, validate (often).

    metric: the name, among those of validate, that decides which weights are kept. unit: what a batch counts as tokens.
    report: what read and encode found.
    """

    metric: ClassVar[str]
    unit: ClassVar[str] = "tok"
    report: DataReport
    vocabulary: AnyVocabulary

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @property
    @abstractmethod
    def validates(self) -> bool:
        """Whether there is a validation set."""

    @property
    @abstractmethod
    def generation(self) -> dict[str, object]:
        """The recipe's decode section in the words of transformers' generation_config.json."""

    @abstractmethod
    def read(self) -> None:
        """Find, read and check the data. Raises DataError."""

    def train_tokenizers(self) -> TokenizerPair:
        """Learn them from the training data; jobs without text have none. Raises TokenizerError."""
        raise NotImplementedError

    @abstractmethod
    def encode(self, tokenizers: TokenizerPair | None) -> None:
        """Make ids of all sets. tokenizers: None for jobs without text. Raises DataError for what this model or tokenizer
        cannot hold."""

    @abstractmethod
    def loader(self) -> StepLoader[Batch]:
        """The steps of training, this process's share of them."""

    @abstractmethod
    def summary(self, loader: StepLoader[Batch]) -> str:
        """The training data in a line, for a person."""

    @abstractmethod
    def baseline(self) -> Baseline | None:
        """What counting alone would score on the validation set; None without one."""

    @abstractmethod
    def validate(self, model: Model, log: RunLog) -> dict[str, float]:
        """Metrics by name, of the model in evaluation mode; an example of what it does is shown on log."""
