"""Classification: a text (or picture) is given one of a fixed set of classes; and how well that went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from tripel.config import Config
from tripel.data.batch import Batch
from tripel.models.config import Vocabulary
from tripel.tasks.framing import framed
from tripel.text.rows import IdRows

# Bins of the calibration error (Guo et al. 2017, section 2).
_BINS = 15
# Larger confusion matrices are for a picture.
_MOST_SHOWN = 20
# Characters: more than any table of so many classes has.
_WIDE = 100_000
# Among how many classes the true one is looked for besides being the first.
_TOP = 5


class ClassificationTask(Config):
    """Say which class each input is of."""

    kind: Literal["classification"] = "classification"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


@dataclass(frozen=True)
class ClassifiedTexts:
    """Encoded texts and their classes. rows: ids without begin and end tokens; classes: int64 [texts]."""

    rows: IdRows
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def source_lengths(self) -> np.ndarray:
        """int64 [texts], the begin token counted (a loader counts the end token)."""
        return self.rows.lengths + 1

    @property
    def target_lengths(self) -> np.ndarray:
        """As source_lengths: a step's tokens are those that are read."""
        return self.source_lengths


def shortened(rows: IdRows, most: int) -> tuple[IdRows, np.ndarray]:
    """Rows of at most so many ids, their ends cut off, and the indices of those that were cut."""
    cut = np.flatnonzero(rows.lengths > most)
    if not len(cut):
        return rows, cut
    place_in_row = np.arange(len(rows.ids)) - np.repeat(rows.offsets[:-1], rows.lengths)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.minimum(rows.lengths, most))])
    return IdRows(rows.ids[place_in_row < most], offsets), cut


def collate_classified(corpus: ClassifiedTexts, rows: Sequence[int] | np.ndarray, vocabulary: Vocabulary) -> Batch:
    """Texts between begin and end tokens, padded on the right; targets (B,) are their classes."""
    ids_BT, valid_BT = framed([corpus.rows[int(i)] for i in rows], vocabulary)
    return Batch(
        inputs={"ids_BT": ids_BT, "valid_BT": valid_BT},
        targets_BT=torch.from_numpy(corpus.classes[np.asarray(rows, np.int64)]),
        count=len(rows),
        tokens=int(ids_BT.numel() if valid_BT is None else valid_BT.sum()),
        rows=tuple(int(i) for i in rows),
    )


@dataclass(frozen=True)
class ClassScore:
    """Of one class: how many examples it has, and how well they were found. precision and recall are 0 when undefined."""

    label: str
    n_examples: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassificationScores:
    """How well classes were told. confusion: int64 [C, C], rows are the true classes, columns what was said.

    calibration_error: the mean distance between how sure the model was and how often it was right, over 15 bins of its
    certainty (Guo et al. 2017). loss: nats per example. top5_accuracy: share whose class is among the five likeliest; None
    where there are no more than five.
    """

    classes: tuple[ClassScore, ...]
    confusion: np.ndarray
    loss: float
    calibration_error: float
    top5_accuracy: float | None

    @property
    def n_examples(self) -> int:
        """All of them."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share that was right."""
        return float(np.trace(self.confusion) / max(self.n_examples, 1))

    @property
    def macro_f1(self) -> float:
        """The mean of the classes' F1, of those that are there or were said: rare classes count as much as common ones."""
        present = (self.confusion.sum(axis=0) + self.confusion.sum(axis=1)) > 0
        return float(np.mean([score.f1 for score, there in zip(self.classes, present, strict=True) if there] or [0.0]))

    def metrics(self) -> dict[str, float]:
        """valid_loss, accuracy and macro_f1, as a run logs them."""
        return {"valid_loss": self.loss, "accuracy": self.accuracy, "macro_f1": self.macro_f1}

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "examples": self.n_examples,
            "accuracy": self.accuracy,
            **({} if self.top5_accuracy is None else {"top5_accuracy": self.top5_accuracy}),
            "macro_f1": self.macro_f1,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
            "classes": [
                {
                    "label": score.label,
                    "examples": score.n_examples,
                    "precision": score.precision,
                    "recall": score.recall,
                    "f1": score.f1,
                }
                for score in self.classes
            ],
            "confusion": self.confusion.tolist(),
        }

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        among_five = "" if self.top5_accuracy is None else f"among the likeliest five {self.top5_accuracy:.2%}   "
        yield (
            f"accuracy {self.accuracy:.2%}   {among_five}macro-F1 {self.macro_f1:.3f}   loss {self.loss:.3f}   "
            f"calibration error {self.calibration_error:.3f}"
        )
        table = Table("class", "examples", "precision", "recall", "F1")
        for column in table.columns[1:]:
            column.justify = "right"
        for score in self.classes:
            numbers = (f"{value:.3f}" for value in (score.precision, score.recall, score.f1))
            table.add_row(escape(score.label), f"{score.n_examples:,}", *numbers)
        yield table
        if len(self.classes) <= _MOST_SHOWN:
            table = self._confusion_table([escape(score.label) for score in self.classes])
            if Measurement.get(console, options.update(max_width=_WIDE), table).maximum > options.max_width:
                table = self._confusion_table([str(number) for number in range(1, len(self.classes) + 1)])
            yield table

    def _confusion_table(self, columns: Sequence[str]) -> Table:
        """columns: what stands above them; where that is not the labels, it stands before them in the rows as well."""
        table = Table("true \\ said", *columns)
        for column in table.columns[1:]:
            column.justify = "right"
        for score, above, counts in zip(self.classes, columns, self.confusion.tolist(), strict=True):
            label = escape(score.label)
            row = label if above == label else f"{above} {label}"
            table.add_row(row, *(str(count) if count else "·" for count in counts))
        return table


def score_classification(
    probabilities_NC: np.ndarray, classes_N: np.ndarray, labels: Sequence[str]
) -> ClassificationScores:
    """Score probabilities, float [N, C], against the true classes, int [N]; the likeliest class is what is said."""
    said_N = probabilities_NC.argmax(axis=1)
    n_classes = len(labels)
    confusion = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(confusion, (classes_N, said_N), 1)
    right = np.diag(confusion).astype(np.float64)
    said, true = confusion.sum(axis=0), confusion.sum(axis=1)
    precision, recall = right / np.maximum(said, 1), right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(said + true, 1)
    scores = tuple(
        ClassScore(label, int(true[c]), float(precision[c]), float(recall[c]), float(f1[c]))
        for c, label in enumerate(labels)
    )
    of_truth = probabilities_NC[np.arange(len(classes_N)), classes_N]
    loss = float(-np.log(np.maximum(of_truth, np.finfo(np.float64).tiny)).mean()) if len(classes_N) else 0.0
    sure_N = probabilities_NC.max(axis=1) if len(classes_N) else np.zeros(0)
    calibration_error = _calibration_error(sure_N, said_N == classes_N)
    return ClassificationScores(scores, confusion, loss, calibration_error, _top_accuracy(probabilities_NC, classes_N))


def _calibration_error(sure_N: np.ndarray, right_N: np.ndarray) -> float:
    if not len(sure_N):
        return 0.0
    bins_N = np.minimum((sure_N * _BINS).astype(np.int64), _BINS - 1)
    gaps = [
        abs(sure_N[bins_N == b].mean() - right_N[bins_N == b].mean()) * (bins_N == b).mean() for b in np.unique(bins_N)
    ]
    return float(sum(gaps))


def _top_accuracy(probabilities_NC: np.ndarray, classes_N: np.ndarray) -> float | None:
    """How often at most four classes are likelier than the true one; of equally likely ones the first counts as likelier, as
    it does for what is said."""
    n_classes = probabilities_NC.shape[1]
    if n_classes <= _TOP:
        return None
    of_truth_N1 = probabilities_NC[np.arange(len(classes_N)), classes_N][:, None]
    before_NC = np.arange(n_classes) < classes_N[:, None]
    likelier_N = ((probabilities_NC > of_truth_N1) | ((probabilities_NC == of_truth_N1) & before_NC)).sum(axis=1)
    return float((likelier_N < _TOP).mean()) if len(classes_N) else 0.0
