"""Image classifiers compared: by what they get right, against pictures seen, compute, time and the size of the set."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from tripel import checkpoint
from tripel.compare.comparison import Curve, Views
from tripel.compare.contest import Contest, LiveMetric, Measures, curve_of, naming, training_numbers
from tripel.compare.flops import count_flops
from tripel.compare.image_views import VIEWS
from tripel.compare.matching import n_parameters
from tripel.data.batch import Batch
from tripel.data.images import ImageDataConfig, ImageSet
from tripel.errors import DataError
from tripel.jobs.image_classification import ImageClassificationJob, classes_of, pictures_probabilities
from tripel.models.config import ImageVocabulary
from tripel.pipelines.images import ImageClassifier
from tripel.pipelines.load import load_image_classifier
from tripel.recipe import Recipe
from tripel.tasks.classification import ClassificationScores, score_classification
from tripel.text.pair import TokenizerPair
from tripel.training import parallel

VALID_SHARE = 0.1
"""Of pictures that are compared on, this share is kept for validation where nothing else is named."""

_TIMED = 256
_REPEATS = 5
# What a contestant may choose: how its training pictures are changed and scaled, not which they are.
_OWN = frozenset({"augment", "normalise", "stored_size"})


class ImageContest(Contest):
    """See Contest."""

    metric: ClassVar[str] = ImageClassificationJob.metric
    unit: ClassVar[str] = "images"
    live: ClassVar[tuple[LiveMetric, ...]] = (
        LiveMetric("accuracy", "accuracy", ".2%"),
        LiveMetric("valid loss", "valid_loss", ".3f"),
    )
    views: ClassVar[Views] = VIEWS
    shares: ClassVar[tuple[float, ...]] = (1.0, 5.0, 25.0, 100.0)
    tokenizers: TokenizerPair | None = None

    def __init__(self) -> None:
        self._read_already: dict[str, ImageClassificationJob] = {}

    def on_data(self, recipe: Recipe, train: str, valid: str | None) -> Recipe:
        share = 0.0 if valid else VALID_SHARE
        # The recipe's own test set is of other pictures: nothing is held against it.
        data = {"train": train, "valid": valid, "valid_share": share, "test": None}
        return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})

    def with_validation(self, recipe: Recipe) -> Recipe:
        data = cast(ImageDataConfig, recipe.data)
        if data.valid is not None or data.valid_share:
            return recipe
        return recipe.model_copy(update={"data": data.model_copy(update={"valid_share": VALID_SHARE})})

    def own_data_settings(self) -> frozenset[str]:
        return _OWN

    def prepare(self, recipes: Mapping[str, Recipe], tokenizers: TokenizerPair | None) -> None:
        jobs = []
        for name, recipe in recipes.items():
            with naming(name):
                jobs.append(self._job(recipe))
        self._first = first = jobs[0]
        self.report = first.report
        valid = _validation(first)
        if not len(valid):
            raise DataError(
                "there is no validation picture",
                given=f"0 of {len(first.splits.train):,}",
                expected="at least 1",
                mend="name a validation set with --valid, or compare on more pictures",
            )
        self.fingerprint = f"{first.splits.train.fingerprint} {valid.fingerprint}"

    def names_of_data(self) -> tuple[str, str]:
        return self._first.splits.train.name, _validation(self._first).name

    def remarks(self, recipes: Mapping[str, Recipe]) -> list[str]:
        notes = []
        for what, told in (("pictures of different size", _size), ("pictures changed in training", _augmentation)):
            of_each = {name: told(recipe) for name, recipe in recipes.items()}
            if len(set(of_each.values())) > 1:
                said = "; ".join(f"{name} {words}" for name, words in of_each.items())
                notes.append(f"{what}, as the recipes say: {said}")
        return notes

    def vocabulary_of(self, recipe: Recipe) -> ImageVocabulary:
        return self._job(recipe).vocabulary

    def measure(self, folder: Path, recipe: Recipe, validations: Sequence[Mapping[str, Any]]) -> Measures:
        classifier, job = _classifier(folder, recipe), self._job(recipe)
        scores = _scores(classifier, _validation(job))
        flops = count_flops(recipe, _batch(job), job.vocabulary)
        spent = tuple(flops.of_run(record["tokens"], record["step"]) for record in validations)
        numbers = {
            **training_numbers(validations[-1], self.unit),
            "parameters": n_parameters(recipe, job.vocabulary),
            **scores.metrics(),
            "calibration_error": scores.calibration_error,
            "inference_flops_per_image": flops.inference,
            "training_flops_per_image": flops.training,
            "flops_per_update": flops.update,
            "training_flops": spent[-1],
        }
        curves = {}
        for score in ("accuracy", "valid_loss"):
            curves[f"{score}_images"] = by_images = curve_of(validations, "tokens", score)
            curves[f"{score}_seconds"] = curve_of(validations, "seconds", score)
            curves[f"{score}_flops"] = Curve(x=spent, y=by_images.y)
        return Measures(numbers, curves)

    def measure_together(self, folders: Mapping[str, Path]) -> dict[str, dict[str, float]]:
        """Pictures classified in a second, in batches: the median of some rounds over all."""
        timed = {name: self._timed(folder) for name, folder in folders.items()}
        seconds: dict[str, list[float]] = {name: [] for name in folders}
        for _ in range(1 + _REPEATS):  # the first round is to get warm
            for name, (classifier, pixels) in timed.items():
                start = time.perf_counter()
                classifier.probabilities([pixels])
                seconds[name].append(time.perf_counter() - start)
        return {
            name: {"inference_images_per_second": len(timed[name][1]) / statistics.median(times[1:])}
            for name, times in seconds.items()
        }

    def on_share(self, recipe: Recipe, percent: float) -> tuple[Recipe, int]:
        data = cast(ImageDataConfig, recipe.data)
        share = {"train_share": data.train_share * percent / 100}
        recipe = recipe.model_copy(update={"data": data.model_copy(update=share)})
        return recipe, len(self._job(recipe).splits.train)

    def share_scores(self, folder: Path, recipe: Recipe) -> dict[str, float]:
        scores = _scores(_classifier(folder, recipe), _validation(self._job(recipe)))
        return {"accuracy": scores.accuracy, "valid_loss": scores.loss}

    def _job(self, recipe: Recipe) -> ImageClassificationJob:
        """The job of a recipe with its data read; recipes that read the same pictures share them."""
        key = recipe.data.model_dump_json(exclude=set(_OWN)) + _size(recipe)
        job = ImageClassificationJob(recipe)
        if key in self._read_already:
            job.splits, job.report = self._read_already[key].splits, self._read_already[key].report
        else:
            job.read()
            self._read_already[key] = job
        job.encode(None)
        return job

    def _timed(self, folder: Path) -> tuple[ImageClassifier, np.ndarray]:
        """A classifier and what it is timed on: the first validation pictures, again where they are few."""
        recipe = Recipe.load(folder / checkpoint.RECIPE)
        valid = _validation(self._job(recipe))
        return _classifier(folder, recipe), valid.pixels(np.arange(_TIMED) % len(valid))


def _classifier(folder: Path, recipe: Recipe) -> ImageClassifier:
    return load_image_classifier(folder, device=str(parallel.pick_device(recipe.train.device)))


def _validation(job: ImageClassificationJob) -> ImageSet:
    assert job.splits.valid is not None
    return job.splits.valid


def _scores(classifier: ImageClassifier, valid: ImageSet) -> ClassificationScores:
    labels = classifier.labels
    return score_classification(pictures_probabilities(classifier, valid), classes_of(valid, labels), labels)


def _batch(job: ImageClassificationJob) -> Batch:
    """The first micro-batch of training."""
    return job.loader().steps_of(0).batches(0)[0]


def _size(recipe: Recipe) -> str:
    model = recipe.model
    stored = cast(ImageDataConfig, recipe.data).stored_size or model.image_size  # type: ignore[union-attr]
    return f"{model.image_size} x {model.image_size} x {model.channels} (kept at {stored})"  # type: ignore[union-attr]


def _augmentation(recipe: Recipe) -> str:
    augment = cast(ImageDataConfig, recipe.data).augment
    default = type(augment)()
    settings = augment.model_dump()
    changed = {key: value for key, value in settings.items() if value != getattr(default, key)}
    return ", ".join(f"{key} {value}" for key, value in changed.items()) or "not at all"
