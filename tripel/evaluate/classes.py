"""Scoring classifiers, of texts and of pictures: scores, a file of what was said, and pictures of what went wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from tripel.data.classes import require_known
from tripel.data.images import ImageSet
from tripel.data.labelled import LabelledDataConfig, LabelledText
from tripel.evaluate.results import ClassEvaluation
from tripel.evaluate.sets import is_part_of_train, labelled_of, pictures_of
from tripel.inspection.confusion import save_confusion
from tripel.inspection.mistakes import Mistake, save_mistakes, surest_mistakes
from tripel.jobs.classification import classified_texts, texts_probabilities
from tripel.jobs.image_classification import classes_of, pictures_probabilities
from tripel.pipelines.load import load_classifier, load_image_classifier
from tripel.pipelines.picture_files import in_one_line
from tripel.recipe import Recipe
from tripel.storage import atomic_write
from tripel.tasks.classification import score_classification


def evaluate_texts(run: Path, recipe: Recipe, split: str, predictions: Path | None) -> ClassEvaluation:
    """See tripel.evaluate.evaluate."""
    classifier, data = load_classifier(run), cast(LabelledDataConfig, recipe.data)
    text, report = labelled_of(recipe, split)
    require_known(text, classifier.labels)
    max_len = classifier.model.config.max_len
    texts, found = classified_texts(text, classifier.tokenizer, classifier.labels, max_len, data)
    report.add(found)
    start = time.perf_counter()
    probabilities_NC = texts_probabilities(classifier, texts)
    seconds = time.perf_counter() - start
    scores = score_classification(probabilities_NC, texts.classes, classifier.labels)
    files = _Files(run, recipe, split, text.name, predictions)
    _write(files.predictions, _said_of_texts(text, probabilities_NC, classifier.labels))
    save_confusion(scores, files.confusion)
    return ClassEvaluation(text.name, scores, files.predictions, files.confusion, report, seconds)


def evaluate_pictures(run: Path, recipe: Recipe, split: str, predictions: Path | None) -> ClassEvaluation:
    """See tripel.evaluate.evaluate."""
    classifier = load_image_classifier(run)
    images, report = pictures_of(recipe, split)
    require_known(images, classifier.labels)
    classes_N = classes_of(images, classifier.labels)
    start = time.perf_counter()
    probabilities_NC = pictures_probabilities(classifier, images)
    seconds = time.perf_counter() - start
    scores = score_classification(probabilities_NC, classes_N, classifier.labels)
    files = _Files(run, recipe, split, images.name, predictions)
    _write(files.predictions, _said_of_pictures(images, probabilities_NC, classifier.labels))
    save_confusion(scores, files.confusion)
    mistakes, n_wrong = _mistakes(images, probabilities_NC, classes_N)
    save_mistakes(
        mistakes, classifier.labels, files.mistakes, data=images.name, n_wrong=n_wrong, n_pictures=len(images)
    )
    return ClassEvaluation(
        images.name, scores, files.predictions, files.confusion, report, seconds, mistakes=files.mistakes
    )


class _Files:
    """Where what is found in a set is written: beside the run, by the set's name."""

    def __init__(self, run: Path, recipe: Recipe, split: str, name: str, predictions: Path | None) -> None:
        # Of the training set, and of a part of it, the name says which files there are, not which of their examples.
        stem = (split if is_part_of_train(recipe, split) else name).replace("/", ".").strip(".")
        self.predictions = predictions or run / f"predictions.{stem}.tsv"
        self.confusion, self.mistakes = (run / f"{what}.{stem}.png" for what in ("confusion", "mistakes"))


def _write(path: Path, lines: Iterable[str]) -> None:
    atomic_write(path, "".join(lines))


def _said_of_texts(text: LabelledText, probabilities_NC: np.ndarray, labels: Sequence[str]) -> Iterator[str]:
    """Lines of a TSV file that can itself be read as labelled texts."""
    yield "said\tprobability\tlabel\ttext\n"
    for said, sure, label, written in zip(
        probabilities_NC.argmax(axis=1), probabilities_NC.max(axis=1), text.labels, text.texts, strict=True
    ):
        yield f"{labels[said]}\t{sure:.4f}\t{label}\t{' '.join(written.split())}\n"


def _said_of_pictures(images: ImageSet, probabilities_NC: np.ndarray, labels: Sequence[str]) -> Iterator[str]:
    yield "path\tlabel\tsaid\tprobability\n"
    for place, label, said, sure in zip(
        images.places, images.labels, probabilities_NC.argmax(axis=1), probabilities_NC.max(axis=1), strict=True
    ):
        yield f"{in_one_line(place)}\t{label}\t{labels[said]}\t{sure:.4f}\n"


def _mistakes(images: ImageSet, probabilities_NC: np.ndarray, classes_N: np.ndarray) -> tuple[list[Mistake], int]:
    """The surest ones, and how many there are."""
    said_N = probabilities_NC.argmax(axis=1)
    rows = surest_mistakes(probabilities_NC, classes_N)
    found = []
    for row, pixels in zip(rows.tolist(), images.pixels(rows) if len(rows) else (), strict=True):
        said, true = int(said_N[row]), int(classes_N[row])
        p_said, p_true = (float(probabilities_NC[row, c]) for c in (said, true))
        found.append(Mistake(images.places[row], pixels, said, p_said, true, p_true))
    return found, int((said_N != classes_N).sum())
