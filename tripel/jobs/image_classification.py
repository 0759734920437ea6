"""Classifiers of pictures: changed at random while they learn, validated by the share they get right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from tripel.data.batch import Batch
from tripel.data.image_loader import ImageLoader, class_weights
from tripel.data.images import ImageDataConfig, ImageSet, Statistics, load_image_splits
from tripel.data.steps import StepLoader
from tripel.jobs.job import Job
from tripel.models.build import Model
from tripel.models.config import ImageVocabulary, ResNetConfig, ViTConfig
from tripel.models.vision import VisionModel
from tripel.pipelines.images import ImageClassifier
from tripel.tasks.baseline import Baseline, frequency_baseline
from tripel.tasks.classification import score_classification
from tripel.text.pair import TokenizerPair
from tripel.training import parallel
from tripel.training.log import RunLog

_AT_ONCE = 256
# Published statistics: of ImageNet's training pictures; and what brings [0, 1] to [-1, 1] (Dosovitskiy et al. 2021).
_STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "none": ((0.0,) * 3, (1.0,) * 3),
}


class ImageClassificationJob(Job):
    """See Job. What a batch counts as tokens are its pictures: one class is asked for each."""

    vocabulary: ImageVocabulary
    metric = "accuracy"
    unit = "images"

    @property
    def data(self) -> ImageDataConfig:
        """The recipe's data section."""
        return cast(ImageDataConfig, self.recipe.data)

    @property
    def model_config(self) -> ViTConfig | ResNetConfig:
        """The recipe's model section."""
        return cast("ViTConfig | ResNetConfig", self.recipe.model)

    @property
    def validates(self) -> bool:
        return self.splits.valid is not None

    @property
    def generation(self) -> dict[str, object]:
        return {}

    def read(self) -> None:
        config = self.model_config
        self.splits = load_image_splits(self.data, image_size=config.image_size, channels=config.channels)
        self.report = self.splits.report

    def encode(self, tokenizers: TokenizerPair | None) -> None:
        """Takes the mean and deviation of the training pictures, which are stored with the model."""
        assert tokenizers is None
        data, labels = self.data, self.splits.labels
        mean, std = self._statistics()
        self.vocabulary = ImageVocabulary(
            labels=labels, mean=mean, std=std, fit=data.fit, crop_share=data.crop_share, resample=data.resample
        )
        self.train_classes = classes_of(self.splits.train, labels)

    def loader(self) -> ImageLoader:
        config, data = self.recipe.train, self.data
        balanced = data.class_weights == "balanced"
        return ImageLoader(
            self.splits.train,
            self.train_classes,
            data.augment,
            size=self.model_config.image_size,
            statistics=(self.vocabulary.mean, self.vocabulary.std),
            weights_C=class_weights(self.train_classes, len(self.splits.labels)) if balanced else None,
            rows_per_step=config.tokens_per_step,
            micro_rows=config.micro_tokens,
            seed=config.seed,
            rank=parallel.rank(),
            world_size=parallel.world_size(),
        )

    def summary(self, loader: StepLoader[Batch]) -> str:
        steps, config = cast(ImageLoader, loader).steps_of(0).n_steps, self.model_config
        return (
            f"{len(self.splits.train):,} training pictures of {len(self.splits.labels)} classes, {config.image_size} x "
            f"{config.image_size} x {config.channels}, {steps:,} updates an epoch"
        )

    def baseline(self) -> Baseline | None:
        if self.splits.valid is None:
            return None
        counts = np.bincount(self.train_classes, minlength=len(self.splits.labels))
        return frequency_baseline("class frequency", counts, classes_of(self.splits.valid, self.splits.labels))

    def validate(self, model: Model, log: RunLog) -> dict[str, float]:
        """Loss, accuracy and macro-F1; what the model says of a picture is shown on log."""
        valid, labels = self.splits.valid, self.splits.labels
        assert valid is not None
        probabilities_NC = pictures_probabilities(ImageClassifier(cast(VisionModel, model)), valid)
        scores = score_classification(probabilities_NC, classes_of(valid, labels), labels)
        log.sample(*_example(valid, probabilities_NC, labels))
        return scores.metrics()

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        chosen = self.data.normalise
        if isinstance(chosen, Statistics):
            return chosen.mean, chosen.std
        if chosen == "data":
            mean, std = self.splits.train.statistics()
            return mean, tuple(max(x, 1e-3) for x in std)  # pictures of one shade have no deviation to divide by
        mean, std = _STATISTICS[chosen]
        if self.model_config.channels == 1:
            return (sum(mean) / 3,), (sum(std) / 3,)
        return mean, std


def classes_of(images: ImageSet, labels: tuple[str, ...]) -> np.ndarray:
    """The number of each picture's class, int64 [pictures]."""
    number = {label: index for index, label in enumerate(labels)}
    return np.array([number[label] for label in images.labels], np.int64)


def pictures_probabilities(classifier: ImageClassifier, images: ImageSet) -> np.ndarray:
    """The probability of every class for every picture, float64 [pictures, C]."""

    def batches() -> Iterator[np.ndarray]:
        for first in range(0, len(images), _AT_ONCE):
            yield images.pixels(np.arange(first, min(first + _AT_ONCE, len(images))))

    return classifier.probabilities(batches())


def _example(images: ImageSet, probabilities_NC: np.ndarray, labels: tuple[str, ...]) -> tuple[str, str]:
    """The picture that the model is most in doubt of, and what it says."""
    index = int(probabilities_NC.max(axis=1).argmin())
    said = int(probabilities_NC[index].argmax())
    truth = "right" if labels[said] == images.labels[index] else f"it is {images.labels[index]}"
    return images.places[index], f"{labels[said]} ({probabilities_NC[index, said]:.0%}; {truth})"
