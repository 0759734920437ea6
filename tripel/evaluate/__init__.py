"""Score a run on a data set: a translator's real search output against references, a language model's loss on a text, what
an encoder says of hidden words, what a classifier says of texts or pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tripel.data.checks import DataConfig
from tripel.data.parallel import load_parallel
from tripel.data.text import TextDataConfig, load_texts
from tripel.data.tokens import encode_stream
from tripel.decode.search import DecodeConfig
from tripel.errors import CheckpointError, DataError, InputError
from tripel.evaluate.classes import evaluate_pictures, evaluate_texts
from tripel.evaluate.results import AnyEvaluation, ClassEvaluation, Evaluation, MaskedEvaluation, TextEvaluation
from tripel.evaluate.sets import data_name, text_of
from tripel.jobs.masked_token import masked_windows, windows_loss, word_frequency
from tripel.jobs.next_token import context_of, stream_loss
from tripel.pipelines.load import load_completer, load_filler, load_translator
from tripel.recipe import Recipe
from tripel.storage import atomic_write
from tripel.tasks.baseline import token_counts
from tripel.tasks.classification import ClassificationTask
from tripel.tasks.masked_token import MaskedTokenTask
from tripel.tasks.scores import score_translations
from tripel.tasks.translation import TranslationTask

__all__ = [
    "AnyEvaluation",
    "ClassEvaluation",
    "Evaluation",
    "MaskedEvaluation",
    "TextEvaluation",
    "evaluate",
]


def evaluate(
    run: str | Path,
    split: str = "test",
    *,
    settings: Mapping[str, Any] | None = None,
    hypotheses: Path | None = None,
    ensemble: Sequence[str | Path] = (),
) -> AnyEvaluation:
    """Score a run on a set.

    split: `train`, `valid` or `test` of the run's recipe, or the name or path of any data of its kind. For translators:
    settings are fields of DecodeConfig that differ from the recipe's, and ensemble more runs, which choose every token
    together with this one. hypotheses: where answers are written, of classifiers, too; by default a file in the run
    folder. Raises CheckpointError, DataError, InputError.
    """
    run = Path(run)
    if not (run / "recipe.yaml").is_file():
        raise CheckpointError(
            "this is not a run folder", given=run, expected="a folder with a recipe.yaml", mend="see `tripel train`"
        )
    recipe = Recipe.load(run / "recipe.yaml")
    if isinstance(recipe.task, TranslationTask):
        return _evaluate_translator(run, recipe, recipe.task, split, settings or {}, hypotheses, ensemble)
    if ensemble or settings or (hypotheses and not isinstance(recipe.task, ClassificationTask)):
        raise InputError(
            f"a model of a {recipe.task.kind} task is scored by the probabilities it gives, not by what it would write",
            given=", ".join([*(settings or {}), *(["--output"] if hypotheses else []), *map(str, ensemble)]),
            expected="one run, no settings of a search and no file of answers",
            mend="leave them out",
        )
    if isinstance(recipe.task, ClassificationTask):
        judge = evaluate_pictures if recipe.reads_images else evaluate_texts
        return judge(run, recipe, split, hypotheses)
    if isinstance(recipe.task, MaskedTokenTask):
        return _evaluate_masked(run, recipe, split)
    return _evaluate_language_model(run, recipe, split)


def _evaluate_translator(
    run: Path,
    recipe: Recipe,
    task: TranslationTask,
    split: str,
    settings: Mapping[str, Any],
    hypotheses: Path | None,
    ensemble: Sequence[str | Path],
) -> Evaluation:
    name = data_name(recipe, split)
    text, report = load_parallel(name, task.source, task.target, cast(DataConfig, recipe.data), training=False)
    translator = load_translator(run, ensemble=ensemble)
    start = time.perf_counter()
    answers = [answer.text for answer in translator.translate(text.sources, **settings)]
    seconds = time.perf_counter() - start
    scores = score_translations(answers, text.targets, language=task.target)
    together = f".ensemble-of-{1 + len(ensemble)}" if ensemble else ""
    path = hypotheses or run / f"hypotheses.{name.replace('/', '.').strip('.')}{together}.{task.target}"
    atomic_write(path, "".join(answer.replace("\n", " ") + "\n" for answer in answers))
    used = {**cast(DecodeConfig, recipe.decode).model_dump(), **settings}
    return Evaluation(name, len(text), used, scores, path, seconds, tuple(map(Path, ensemble)), report)


def _evaluate_language_model(run: Path, recipe: Recipe, split: str) -> TextEvaluation:
    completer = load_completer(run)
    source = text_of(recipe, split)
    start = time.perf_counter()
    stream = encode_stream(source, completer.tokenizer)
    loss = stream_loss(completer.model, stream, completer.tokenizer, recipe)
    carried = cast(TextDataConfig, recipe.data).carry_state
    return TextEvaluation(source.name, loss, context_of(recipe), carried, time.perf_counter() - start)


def _evaluate_masked(run: Path, recipe: Recipe, split: str) -> MaskedEvaluation:
    filler = load_filler(run)
    source = text_of(recipe, split)
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
