"""Classifiers of texts: examples in batches of like length, validated by the share they get right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from tripel.data.batch import Batch
from tripel.data.checks import DataReport, Finding
from tripel.data.corpus import encode_texts
from tripel.data.labelled import LabelledDataConfig, LabelledText, load_labelled_splits, report_unknown_texts
from tripel.data.loader import Loader
from tripel.data.steps import StepLoader
from tripel.errors import DataError
from tripel.jobs.job import Job
from tripel.models.build import Model
from tripel.models.config import Vocabulary
from tripel.models.encoder import Encoder
from tripel.pipelines.classify import Classifier
from tripel.tasks.baseline import Baseline, frequency_baseline
from tripel.tasks.classification import (
    ClassifiedTexts,
    collate_classified,
    score_classification,
    shortened,
)
from tripel.tasks.masked_token import encoder_vocabulary
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer
from tripel.training import parallel
from tripel.training.log import RunLog

_SHOWN_CHARACTERS = 70


class ClassificationJob(Job):
    """See Job."""

    vocabulary: Vocabulary
    metric = "accuracy"

    @property
    def data(self) -> LabelledDataConfig:
        """The recipe's data section."""
        return cast(LabelledDataConfig, self.recipe.data)

    @property
    def validates(self) -> bool:
        return self.splits.valid is not None

    @property
    def generation(self) -> dict[str, object]:
        return {}

    def read(self) -> None:
        self.splits = load_labelled_splits(self.data)
        self.report = self.splits.report

    def train_tokenizers(self) -> TokenizerPair:
        tokenizer = Tokenizer.train(self.recipe.tokenizer, self.splits.train.texts, mask=True)
        return TokenizerPair(tokenizer, tokenizer)

    def encode(self, tokenizers: TokenizerPair | None) -> None:
        """Reports the share of unknown tokens, and texts that are cut to the model's positions."""
        assert tokenizers is not None
        self.tokenizer = tokenizers.target
        self.vocabulary = encoder_vocabulary(self.tokenizer, self.splits.labels)
        self.train_texts = self._encoded(self.splits.train)
        self.valid_texts = None if self.splits.valid is None else self._encoded(self.splits.valid)

    def loader(self) -> Loader[ClassifiedTexts, Batch]:
        config = self.recipe.train
        return Loader(
            lambda epoch: self.train_texts,
            lambda corpus, rows: collate_classified(corpus, rows, self.vocabulary),
            tokens_per_step=config.tokens_per_step,
            micro_tokens=config.micro_tokens,
            seed=config.seed,
            rank=parallel.rank(),
            world_size=parallel.world_size(),
        )

    def summary(self, loader: StepLoader[Batch]) -> str:
        plan = cast("Loader[ClassifiedTexts, Batch]", loader).plan(0)[1]
        return (
            f"{len(self.train_texts):,} training texts of {len(self.splits.labels)} classes, vocabulary "
            f"{self.vocabulary.source_size:,}, {len(plan.steps):,} updates an epoch, padding {plan.padding_share:.1%}"
        )

    def baseline(self) -> Baseline | None:
        if self.valid_texts is None:
            return None
        counts = np.bincount(self.train_texts.classes, minlength=len(self.splits.labels))
        return frequency_baseline("class frequency", counts, self.valid_texts.classes)

    def validate(self, model: Model, log: RunLog) -> dict[str, float]:
        """Loss, accuracy and macro-F1; a text with what the model says of it is shown on log."""
        assert self.valid_texts is not None and self.splits.valid is not None
        classifier = Classifier(cast(Encoder, model), self.tokenizer)
        probabilities_NC = texts_probabilities(classifier, self.valid_texts)
        log.sample(*_example(self.splits.valid, probabilities_NC, self.splits.labels))
        return score_classification(probabilities_NC, self.valid_texts.classes, self.splits.labels).metrics()

    def _encoded(self, text: LabelledText) -> ClassifiedTexts:
        texts, report = classified_texts(
            text, self.tokenizer, self.splits.labels, self.recipe.text_model.max_len, self.data
        )
        self.report.add(report)
        return texts


def classified_texts(
    text: LabelledText, tokenizer: Tokenizer, labels: Sequence[str], max_len: int, config: LabelledDataConfig
) -> tuple[ClassifiedTexts, DataReport]:
    """A set's ids and classes, cut to max_len tokens with begin and end, and what is to be reported of them.

    Raises DataError for a set of mostly unknown tokens, and where not a token fits.
    """
    if max_len < 3:
        raise DataError(
            "there is no room for a text between the begin and end tokens",
            given=f"model.max_len {max_len}",
            expected="3 or more",
            mend="raise model.max_len",
        )
    report = DataReport(unit="examples")
    rows = encode_texts(text.texts, text.fingerprint, tokenizer)
    report_unknown_texts(report, text, rows, tokenizer.unk_id, config)
    rows, cut = shortened(rows, max_len - 2)
    if len(cut):
        kind = f"longer than {max_len} tokens: their ends are not read"
        places = tuple(text.places[index] for index in cut[:3])
        report.findings.append(Finding(text.name, kind, len(cut), len(text), "kept", places))
    number = {label: index for index, label in enumerate(labels)}
    return ClassifiedTexts(rows, np.array([number[label] for label in text.labels], np.int64)), report


def texts_probabilities(classifier: Classifier, texts: ClassifiedTexts) -> np.ndarray:
    """The probability of every class for every text, float64 [texts, C]."""
    return classifier.probabilities([texts.rows[index].tolist() for index in range(len(texts))])


def _example(texts: LabelledText, probabilities_NC: np.ndarray, labels: Sequence[str]) -> tuple[str, str]:
    """The text whose length is nearest to a line's, and what the model says of it."""
    index = min(range(len(texts)), key=lambda i: abs(len(texts.texts[i]) - _SHOWN_CHARACTERS))
    said = int(probabilities_NC[index].argmax())
    text = texts.texts[index]
    text = text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
    truth = "right" if labels[said] == texts.labels[index] else f"it is {texts.labels[index]}"
    return " ".join(text.split()), f"{labels[said]} ({probabilities_NC[index, said]:.0%}; {truth})"
