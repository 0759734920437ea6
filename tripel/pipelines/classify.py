"""Saying which class a text is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tripel.errors import InputError
from tripel.models.encoder import Encoder
from tripel.pipelines.embed import Embedder
from tripel.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Classification:
    """What a text was taken for. probabilities: of the labels, likeliest first; n_dropped: tokens at the text's end that
    were not read."""

    text: str
    label: str
    probabilities: tuple[tuple[str, float], ...]
    n_dropped: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "text": self.text,
            "label": self.label,
            "probabilities": dict(self.probabilities),
            "dropped_tokens": self.n_dropped,
        }


class Classifier(Embedder):
    """A text classifier in use. labels: what it tells apart."""

    def __init__(self, model: Encoder, tokenizer: Tokenizer) -> None:
        super().__init__(model, tokenizer)
        self.labels = model.vocabulary.labels

    def classify(self, texts: Sequence[str], *, top: int | None = None) -> list[Classification]:
        """The class of each text. top: how many labels to give probabilities of; None for all. Raises InputError for a
        blank text."""
        for number, text in enumerate(texts, start=1):
            if not text.strip():
                raise InputError(
                    "a text is blank", given=f"text {number}: {text!r}", expected="words", mend="leave it out"
                )
        rows, n_dropped = self._encode(texts)
        answers = []
        for text, dropped, probabilities_C in zip(texts, n_dropped, self.probabilities(rows), strict=True):
            order = np.argsort(-probabilities_C, kind="stable")[:top]
            chosen = tuple((self.labels[c], float(probabilities_C[c])) for c in order)
            answers.append(Classification(text, chosen[0][0], chosen, dropped))
        return answers

    def probabilities(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """The probability of every class for texts given as ids, float64 [texts, C]."""
        found = np.zeros((len(rows), len(self.labels)))
        with torch.inference_mode():
            for chosen, h_BTD, valid_BT in self._read(rows):
                logits_BC = self.model.logits(self.model.pooled(h_BTD, valid_BT)).double()
                found[chosen] = logits_BC.softmax(-1).cpu().numpy()
        return found

    @property
    def _room(self) -> int:
        """As many tokens as in training, also where the model has no table of positions that would end: what lies beyond is
        not what its score was measured on."""
        return self.model.config.max_len - 2
