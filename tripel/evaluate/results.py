"""What scoring a run gives: prints as tables, and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table

from tripel.data.checks import DataReport
from tripel.tasks.baseline import Baseline
from tripel.tasks.classification import ClassificationScores
from tripel.tasks.masked_token import MaskedLoss
from tripel.tasks.next_token import TextLoss
from tripel.tasks.scores import TranslationScores


@dataclass(frozen=True)
class Evaluation:
    """Scores of a translator on a set. settings: how answers were chosen. hypotheses: the file they are in, one a line.
    ensemble: the runs that chose together with the one that was asked. report: what is to be known of the set."""

    data: str
    n_sentences: int
    settings: dict[str, Any]
    scores: TranslationScores
    hypotheses: Path
    seconds: float
    ensemble: tuple[Path, ...] = ()
    report: DataReport = field(default_factory=DataReport)

    def to_json(self) -> str:
        """All of it as JSON."""
        fields = {
            "data": self.data,
            "sentences": self.n_sentences,
            "decode": self.settings,
            "ensemble": [str(run) for run in self.ensemble],
            **json.loads(self.scores.to_json()),
            "hypotheses": str(self.hypotheses),
            "report": json.loads(self.report.to_json()),
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(fields, ensure_ascii=False, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.report.findings:
            yield self.report
        chosen = f"beam {self.settings['beam']}" if not self.settings["sample"] else "sampled"
        models = f", {1 + len(self.ensemble)} models" if self.ensemble else ""
        yield f"{self.data}: {self.n_sentences:,} sentences, {chosen}{models}, {self.seconds:.1f} s"
        yield self.scores
        yield f"hypotheses: {self.hypotheses}"


@dataclass(frozen=True)
class TextEvaluation:
    """How well a language model predicts a text, read in windows of `context` tokens that do not overlap, or with the
    state carried on if it was trained so."""

    data: str
    loss: TextLoss
    context: int
    carried: bool
    seconds: float

    def to_json(self) -> str:
        """All of it as JSON."""
        fields = {
            "data": self.data,
            "tokens": self.loss.n_predicted,
            "bytes": self.loss.n_bytes,
            "loss": self.loss.nats_per_token,
            "perplexity": self.loss.perplexity,
            "bits_per_byte": self.loss.bits_per_byte,
            "context": self.context,
            "state_carried": self.carried,
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(fields, ensure_ascii=False, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        way = "state carried on" if self.carried else "that do not overlap"
        yield f"{self.data}: {self.loss.n_predicted:,} tokens in windows of {self.context} {way}, {self.seconds:.1f} s"
        table = Table("score", "value", "unit")
        table.columns[1].justify = "right"
        table.add_row("loss", f"{self.loss.nats_per_token:.4f}", "nats per token")
        table.add_row("perplexity", f"{self.loss.perplexity:.3f}", "per token")
        table.add_row("bits per byte", f"{self.loss.bits_per_byte:.4f}", "comparable between tokenizers")
        yield table


@dataclass(frozen=True)
class MaskedEvaluation:
    """How well a model says which words are hidden in a text: 15 % of its tokens, always the same. baseline: what the
    training text's word frequencies alone would score on them; None where that text is no longer there."""

    data: str
    loss: MaskedLoss
    baseline: Baseline | None
    seconds: float

    def to_json(self) -> str:
        """All of it as JSON."""
        fields = {
            "data": self.data,
            "hidden_tokens": self.loss.n_predicted,
            "loss": self.loss.loss,
            "accuracy": self.loss.accuracy,
            "word_frequency_loss": self.baseline and self.baseline.loss,
            "word_frequency_accuracy": self.baseline and self.baseline.accuracy,
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(fields, ensure_ascii=False, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield f"{self.data}: {self.loss.n_predicted:,} hidden tokens, {self.seconds:.1f} s"
        table = Table("", "loss, nats per hidden token", "said right")
        table.add_row("model", f"{self.loss.loss:.4f}", f"{self.loss.accuracy:.2%}")
        if self.baseline is not None:
            table.add_row(self.baseline.name, f"{self.baseline.loss:.4f}", f"{self.baseline.accuracy:.2%}")
        yield table


@dataclass(frozen=True)
class ClassEvaluation:
    """How well a classifier tells the classes of a set. predictions: a TSV file of what was said, how surely, what is true,
    and the text or the picture's place. confusion: the picture of the confusion matrix. report: what is to be known of the
    set. mistakes: of pictures, a sheet of the mistakes that the model was surest of."""

    data: str
    scores: ClassificationScores
    predictions: Path
    confusion: Path
    report: DataReport
    seconds: float
    mistakes: Path | None = None

    def to_json(self) -> str:
        """All of it as JSON."""
        files = {
            "predictions": self.predictions,
            "confusion_picture": self.confusion,
            "mistakes_picture": self.mistakes,
        }
        fields = {
            "data": self.data,
            **self.scores.as_dict(),
            **{name: str(path) for name, path in files.items() if path is not None},
            "report": json.loads(self.report.to_json()),
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(fields, ensure_ascii=False, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.report.findings:
            yield self.report
        yield escape(f"{self.data}: {self.scores.n_examples:,} {self.report.unit}, {self.seconds:.1f} s")
        yield self.scores
        yield escape(f"predictions: {self.predictions}")
        yield escape(f"confusion matrix: {self.confusion}")
        if self.mistakes is not None:
            yield escape(f"the surest mistakes: {self.mistakes}")


AnyEvaluation = Evaluation | TextEvaluation | MaskedEvaluation | ClassEvaluation
