"""Classifiers of texts: examples in batches of like length, validated by the share they get right."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from tripel.data.batch import Batch
from tripel.data.checks import DataReport, Finding
from tripel.data.corpus import encode_texts
from tripel.data.labelled import LabelledDataConfig, LabelledText, load_labelled_splits, report_unknown_texts
from tripel.data.loader import Loader
from tripel.data.steps import StepLoader
from tripel.jobs.job import Job
from tripel.models.build import Model
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

_SHOWN_CHARACTERS = 80


class ClassificationJob(Job):
    """See Job."""

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

    def encode(self, tokenizers: TokenizerPair) -> None:
        """Reports the share of unknown tokens, and texts that are cut to the model's positions."""
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
        with torch.inference_mode():
            probabilities_NC = classifier.probabilities(
                [self.valid_texts.rows[index].tolist() for index in range(len(self.valid_texts))]
            )
        texts = self.splits.valid
        shown = min(range(len(texts)), key=lambda i: abs(len(texts.texts[i]) - 60))
        said = int(probabilities_NC[shown].argmax())
        text = texts.texts[shown]
        text = text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}\u2026"
        label, sure = self.splits.labels[said], probabilities_NC[shown, said]
        log.sample(text, f"{label} ({sure:.0%}; it is {texts.labels[shown]})")
        return score_classification(probabilities_NC, self.valid_texts.classes, self.splits.labels).metrics()

    def _encoded(self, text: LabelledText) -> ClassifiedTexts:
        texts, report = classified_texts(text, self.tokenizer, self.splits.labels, self.recipe.model.max_len, self.data)
        self.report.add(report)
        return texts


def classified_texts(
    text: LabelledText, tokenizer: Tokenizer, labels: tuple[str, ...], max_len: int, config: LabelledDataConfig
) -> tuple[ClassifiedTexts, DataReport]:
    """A set's ids and classes, cut to the model's positions, and what is to be reported of them. Raises DataError for a
    text of mostly unknown tokens."""
    report = DataReport(unit="examples")
    rows = encode_texts(text.texts, text.fingerprint, tokenizer)
    report_unknown_texts(report, text, int((rows.ids == tokenizer.unk_id).sum()), len(rows.ids), config)
    first = next((i for i, length in enumerate(rows.lengths.tolist()) if length > max_len - 2), None)
    rows, n_cut = shortened(rows, max_len - 2)
    if n_cut and first is not None:
        kind = f"longer than {max_len} tokens: its end is not read"
        report.findings.append(Finding(text.name, kind, n_cut, len(text), "kept", (text.places[first],)))
    number = {label: index for index, label in enumerate(labels)}
    return ClassifiedTexts(rows, np.array([number[label] for label in text.labels], np.int64)), report
