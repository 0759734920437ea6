"""Score a run on a data set: a translator's real search output against references, a language model's loss on a text."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from tripel.data.checks import DataConfig
from tripel.data.parallel import load_parallel
from tripel.data.text import TextDataConfig, TextSource, load_texts, open_text
from tripel.data.tokens import encode_stream
from tripel.errors import CheckpointError, InputError
from tripel.jobs.next_token import context_of, stream_loss
from tripel.pipelines.load import load_completer, load_translator
from tripel.recipe import Recipe
from tripel.storage import atomic_write
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


def evaluate(
    run: str | Path, split: str = "test", *, settings: Mapping[str, Any] | None = None, hypotheses: Path | None = None
) -> Evaluation | TextEvaluation:
    """Score a run on a set.

    split: `train`, `valid` or `test` of the run's recipe, or the name or path of any data of its kind. For translators:
    settings are fields of DecodeConfig that differ from the recipe's, hypotheses is where answers are written, by default a
    file in the run folder; a language model takes neither. Raises CheckpointError, DataError, InputError.
    """
    run = Path(run)
    if not (run / "recipe.yaml").is_file():
        raise CheckpointError(
            "this is not a run folder", given=run, expected="a folder with a recipe.yaml", mend="see `tripel train`"
        )
    recipe = Recipe.load(run / "recipe.yaml")
    if isinstance(recipe.task, TranslationTask):
        return _evaluate_translator(run, recipe, recipe.task, split, settings or {}, hypotheses)
    if settings or hypotheses:
        raise InputError(
            "a language model is scored by the probabilities it gives, not by what it would write",
            given=", ".join([*(settings or {}), *(["--output"] if hypotheses else [])]),
            expected="no settings of a search and no file of answers",
            mend="leave them out",
        )
    return _evaluate_language_model(run, recipe, split)


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
    used = {**recipe.decode.model_dump(), **settings}
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
            mend="name one, for example --split multi30k/val or --split book.txt",
        )
    return name
