"""Score a run on a data set: a translator's real search output against references, a language model's loss on a text, what
an encoder says of hidden words or of classes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from tripel.data.checks import DataConfig, DataReport
from tripel.data.classes import require_known
from tripel.data.labelled import LabelledDataConfig, LabelledText, load_labelled, load_labelled_splits
from tripel.data.parallel import load_parallel
from tripel.data.text import TextDataConfig, TextSource, load_texts, open_text
from tripel.data.tokens import encode_stream
from tripel.decode.search import DecodeConfig
from tripel.errors import CheckpointError, DataError, InputError
from tripel.inspection.confusion import save_confusion
from tripel.jobs.classification import classified_texts, texts_probabilities
from tripel.jobs.masked_token import masked_windows, windows_loss, word_frequency
from tripel.jobs.next_token import context_of, stream_loss
from tripel.pipelines.load import load_classifier, load_completer, load_filler, load_translator
from tripel.recipe import Recipe
from tripel.storage import atomic_write
from tripel.tasks.baseline import Baseline, token_counts
from tripel.tasks.classification import ClassificationScores, ClassificationTask, score_classification
from tripel.tasks.masked_token import MaskedLoss, MaskedTokenTask
from tripel.tasks.next_token import TextLoss
from tripel.tasks.scores import TranslationScores, score_translations
from tripel.tasks.translation import TranslationTask


@dataclass(frozen=True)
class Evaluation:
    """Scores of a translator on a set. settings: how answers were chosen. hypotheses: the file they are in, one a line."""

    data: str
    n_sentences: int
    settings: dict[str, Any]
    scores: TranslationScores
    hypotheses: Path
    seconds: float

    def to_json(self) -> str:
        """All of it as JSON."""
        fields = {
            "data": self.data,
            "sentences": self.n_sentences,
            "decode": self.settings,
            **json.loads(self.scores.to_json()),
            "hypotheses": str(self.hypotheses),
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(fields, ensure_ascii=False, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        chosen = f"beam {self.settings['beam']}" if not self.settings["sample"] else "sampled"
        yield f"{self.data}: {self.n_sentences:,} sentences, {chosen}, {self.seconds:.1f} s"
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
    and the text. confusion: the picture of the confusion matrix. report: what is to be known of the set."""

    data: str
    scores: ClassificationScores
    predictions: Path
    confusion: Path
    report: DataReport
    seconds: float

    def to_json(self) -> str:
        """All of it as JSON."""
        files = {"predictions": str(self.predictions), "confusion_picture": str(self.confusion)}
        found = {"report": json.loads(self.report.to_json())}
        fields = {"data": self.data, **self.scores.as_dict(), **files, **found, "seconds": round(self.seconds, 2)}
        return json.dumps(fields, ensure_ascii=False, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.report.findings:
            yield self.report
        yield f"{self.data}: {self.scores.n_examples:,} examples, {self.seconds:.1f} s"
        yield self.scores
        yield f"predictions: {self.predictions}"
        yield f"confusion matrix: {self.confusion}"


AnyEvaluation = Evaluation | TextEvaluation | MaskedEvaluation | ClassEvaluation


def evaluate(
    run: str | Path, split: str = "test", *, settings: Mapping[str, Any] | None = None, hypotheses: Path | None = None
) -> AnyEvaluation:
    """Score a run on a set.

    split: `train`, `valid` or `test` of the run's recipe, or the name or path of any data of its kind. For translators:
    settings are fields of DecodeConfig that differ from the recipe's; of classifiers, too: hypotheses is where answers are
    written, by default a file in the run folder. Raises CheckpointError, DataError, InputError.
    """
    run = Path(run)
    if not (run / "recipe.yaml").is_file():
        raise CheckpointError(
            "this is not a run folder", given=run, expected="a folder with a recipe.yaml", mend="see `tripel train`"
        )
    recipe = Recipe.load(run / "recipe.yaml")
    if isinstance(recipe.task, TranslationTask):
        return _evaluate_translator(run, recipe, recipe.task, split, settings or {}, hypotheses)
    if settings or (hypotheses and not isinstance(recipe.task, ClassificationTask)):
        raise InputError(
            f"a model of a {recipe.task.kind} task is scored by the probabilities it gives, not by what it would write",
            given=", ".join([*(settings or {}), *(["--output"] if hypotheses else [])]),
            expected="no settings of a search and no file of answers",
            mend="leave them out",
        )
    if isinstance(recipe.task, ClassificationTask):
        return _evaluate_classifier(run, recipe, split, hypotheses)
    if isinstance(recipe.task, MaskedTokenTask):
        return _evaluate_masked(run, recipe, split)
    return _evaluate_language_model(run, recipe, split)


def _evaluate_masked(run: Path, recipe: Recipe, split: str) -> MaskedEvaluation:
    filler = load_filler(run)
    source = _text(recipe, split)
    start = time.perf_counter()
    windows = masked_windows(source, filler.tokenizer, recipe)
    loss = windows_loss(filler.model, windows)
    seconds = time.perf_counter() - start
    try:
        train = masked_windows(load_texts(cast(TextDataConfig, recipe.data)).train, filler.tokenizer, recipe)
    except DataError:
        return MaskedEvaluation(source.name, loss, None, seconds)
    counts = token_counts(train.ids, filler.model.vocabulary.target_size)
    return MaskedEvaluation(source.name, loss, word_frequency(counts, windows.validation()), seconds)


def _evaluate_classifier(run: Path, recipe: Recipe, split: str, predictions: Path | None) -> ClassEvaluation:
    classifier, data = load_classifier(run), cast(LabelledDataConfig, recipe.data)
    text, report = _labelled(recipe, split)
    require_known(text, classifier.labels)
    max_len = classifier.model.config.max_len
    texts, found = classified_texts(text, classifier.tokenizer, classifier.labels, max_len, data)
    report.add(found)
    start = time.perf_counter()
    probabilities_NC = texts_probabilities(classifier, texts)
    seconds = time.perf_counter() - start
    scores = score_classification(probabilities_NC, texts.classes, classifier.labels)
    # Of the training set, and of a part of it, the name says which files there are, not which of their examples.
    stem = split if split == "train" or (split == "valid" and data.valid is None) else text.name
    stem = stem.replace("/", ".").strip(".")
    path, picture = predictions or run / f"predictions.{stem}.tsv", run / f"confusion.{stem}.png"
    atomic_write(path, "".join(_predictions(text, probabilities_NC, classifier.labels)))
    save_confusion(scores, picture)
    return ClassEvaluation(text.name, scores, path, picture, report, seconds)


def _predictions(text: LabelledText, probabilities_NC: np.ndarray, labels: Sequence[str]) -> Iterator[str]:
    """Lines of a TSV file that can itself be read as labelled texts."""
    yield "said\tprobability\tlabel\ttext\n"
    for said, sure, label, written in zip(
        probabilities_NC.argmax(axis=1), probabilities_NC.max(axis=1), text.labels, text.texts, strict=True
    ):
        yield f"{labels[said]}\t{sure:.4f}\t{label}\t{' '.join(written.split())}\n"


def _evaluate_translator(
    run: Path,
    recipe: Recipe,
    task: TranslationTask,
    split: str,
    settings: Mapping[str, Any],
    hypotheses: Path | None,
) -> Evaluation:
    name = _data_name(recipe, split)
    text, _ = load_parallel(name, task.source, task.target, cast(DataConfig, recipe.data), training=False)
    translator = load_translator(run)
    start = time.perf_counter()
    answers = [answer.text for answer in translator.translate(text.sources, **settings)]
    seconds = time.perf_counter() - start
    scores = score_translations(answers, text.targets, language=task.target)
    path = hypotheses or run / f"hypotheses.{name.replace('/', '.').strip('.')}.{task.target}"
    atomic_write(path, "".join(answer.replace("\n", " ") + "\n" for answer in answers))
    used = {**cast(DecodeConfig, recipe.decode).model_dump(), **settings}
    return Evaluation(name, len(text), used, scores, path, seconds)


def _evaluate_language_model(run: Path, recipe: Recipe, split: str) -> TextEvaluation:
    completer = load_completer(run)
    source = _text(recipe, split)
    start = time.perf_counter()
    stream = encode_stream(source, completer.tokenizer)
    loss = stream_loss(completer.model, stream, completer.tokenizer, recipe)
    carried = cast(TextDataConfig, recipe.data).carry_state
    return TextEvaluation(source.name, loss, context_of(recipe), carried, time.perf_counter() - start)


def _text(recipe: Recipe, split: str) -> TextSource:
    """The text that split means; the last share of the training text where that is the validation set."""
    data = cast(TextDataConfig, recipe.data)
    if split == "train" or (split == "valid" and data.valid is None and data.valid_share):
        texts = load_texts(data)
        source = texts.train if split == "train" else texts.valid
        assert source is not None
        return source
    return open_text(_data_name(recipe, split), data)


def _labelled(recipe: Recipe, split: str) -> tuple[LabelledText, DataReport]:
    """The texts that split means, with what was found in them."""
    data = cast(LabelledDataConfig, recipe.data)
    if split == "train" or (split == "valid" and data.valid is None and data.valid_share):
        splits = load_labelled_splits(data)
        text = splits.train if split == "train" else splits.valid
        assert text is not None
        return text, splits.report
    return load_labelled(_data_name(recipe, split), data, training=False)


def _data_name(recipe: Recipe, split: str) -> str:
    if split == "train":
        return recipe.data.train_names[0]
    if split not in ("valid", "test"):
        return split
    name = getattr(recipe.data, split)
    if name is None:
        raise InputError(
            f"the run's recipe names no {split} set",
            given=f"--split {split}",
            expected="valid, test, or the name or path of data of its kind",
            mend="name one, for example --split multi30k/val, --split book.txt or --split reviews.csv",
        )
    return name
