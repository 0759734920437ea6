"""Masked-token prediction (Devlin et al. 2019, section 3.1): hide some words of a text, and say what they were.

Of the hidden tokens 80 % are replaced by the mask token, 10 % by any token, 10 % stay: at use nothing is masked, so the
model may not rely on the mask. Next-sentence prediction is left out: it did not help (Liu et al. 2019, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tripel.config import Config
from tripel.data.batch import IGNORE, Batch
from tripel.data.windows import WindowLoader, give_back
from tripel.errors import TokenizerError
from tripel.models.config import Vocabulary
from tripel.tasks.framing import framed
from tripel.text.tokenizer import Tokenizer

MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1
VALIDATION_RATE = 0.15
_VALIDATION_SEED = 0x5EED


class MaskedTokenTask(Config):
    """Hide mask_rate of the tokens of each text. whole_words: never parts of words only (Devlin et al. 2019's later code).

    Small models learn faster at a higher rate (Wettig et al. 2023). Validation always hides 15 %, so that runs compare.
    """

    kind: Literal["masked-token"] = "masked-token"
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    whole_words: bool = True
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


def encoder_vocabulary(tokenizer: Tokenizer, labels: tuple[str, ...] = ()) -> Vocabulary:
    """What an encoder must know of its tokenizer. labels: of the classes that it tells apart, if it does."""
    return Vocabulary(
        source_size=tokenizer.vocab_size,
        target_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id,
        eos_id=tokenizer.eos_id,
        start_id=tokenizer.bos_id,
        mask_id=tokenizer.mask_id,
        labels=labels,
    )


def word_starts(ids_T: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Where words begin among the ids of a text, bool [T]: after a space, and between letters and what is none."""
    marks = tokenizer.word_marks
    starts = marks.spaced[ids_T] | ~marks.letter_first[ids_T]
    starts[1:] |= ~marks.letter_last[ids_T[:-1]]
    starts[:1] = True
    return starts


class Masker:
    """Hides tokens of texts. Raises TokenizerError for a tokenizer without a mask token."""

    def __init__(self, task: MaskedTokenTask, tokenizer: Tokenizer) -> None:
        """task: its mask_rate and whole_words."""
        if tokenizer.mask_id is None:
            raise TokenizerError(
                "the tokenizer has no token that hides another",
                given=f"{tokenizer.vocab_size} tokens",
                expected="<mask> or [MASK] among its special tokens",
                mend="train the tokenizer here, or add one of these to the file",
            )
        self._task, self._tokenizer, self._mask_id = task, tokenizer, tokenizer.mask_id
        special = np.zeros(tokenizer.vocab_size, bool)
        special[sorted(tokenizer.special_ids)] = True
        self._special, self._plain_ids = special, np.flatnonzero(~special)

    def at_rate(self, mask_rate: float) -> Masker:
        """The same at another rate."""
        return Masker(self._task.model_copy(update={"mask_rate": mask_rate}), self._tokenizer)

    def hide(self, ids_T: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The text with some tokens hidden, and the targets: what they were, IGNORE elsewhere; both int64 [T].

        Whole words are taken in random order, those left out that would pass mask_rate of the tokens; one at least is
        hidden. Special tokens never are.
        """
        inputs, targets = ids_T.astype(np.int64), np.full(len(ids_T), IGNORE, np.int64)
        hidden = self._chosen(inputs, rng)
        targets[hidden] = inputs[hidden]
        fate = rng.random(len(hidden))
        inputs[hidden[fate < MASKED_SHARE]] = self._mask_id
        at_random = hidden[(fate >= MASKED_SHARE) & (fate < MASKED_SHARE + RANDOM_SHARE)]
        inputs[at_random] = self._plain_ids[rng.integers(0, len(self._plain_ids), len(at_random))]
        return inputs, targets

    def _chosen(self, ids_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Positions to hide, int64."""
        eligible = ~self._special[ids_T]
        whole = self._task.whole_words
        starts = word_starts(ids_T, self._tokenizer) if whole else np.ones(len(ids_T), bool)
        # A special token is a word by itself, and what follows it begins another.
        starts |= ~eligible
        starts[1:] |= ~eligible[:-1]
        word_of = np.cumsum(starts) - 1
        sizes = np.bincount(word_of, minlength=1)
        words = np.flatnonzero(starts & eligible)
        if not len(words):
            return words
        words = rng.permutation(word_of[words])
        room = max(1, round(self._task.mask_rate * int(eligible.sum())))
        hidden = []
        for word, size in zip(words.tolist(), sizes[words].tolist(), strict=True):
            if size <= room:
                hidden.append(word)
                room -= size
            if not room:
                break
        return np.flatnonzero(np.isin(word_of, hidden or words[:1]))


@dataclass(frozen=True)
class MaskedWindows:
    """Makes batches of windows of a stream with hidden tokens. length: stream tokens of a window; two more frame it."""

    ids: np.ndarray
    length: int
    masker: Masker
    vocabulary: Vocabulary

    def batch(self, starts: np.ndarray, length: int, *key: int) -> Batch:
        """The windows that begin at starts. key: with a window's start, the seed of what is hidden in it."""
        rows, targets = [], []
        for start in starts.tolist():
            rng = np.random.default_rng([*key, start])
            inputs, hidden = self.masker.hide(np.asarray(self.ids[start : start + length]), rng)
            rows.append(inputs)
            targets.append(np.concatenate([[IGNORE], hidden, [IGNORE]]))
        ids_BT, valid_BT = framed(rows, self.vocabulary)
        targets_BT = torch.from_numpy(np.stack(targets))
        return Batch(
            inputs={"ids_BT": ids_BT, "valid_BT": valid_BT},
            targets_BT=targets_BT,
            count=int((targets_BT != IGNORE).sum()),
            tokens=len(starts) * length,
            rows=tuple(starts.tolist()),
        )

    def validation(self, batch_tokens: int = 8192) -> Iterator[Batch]:
        """All windows that follow each other without overlap, always with the same tokens hidden."""
        fixed = replace(self, masker=self.masker.at_rate(VALIDATION_RATE))
        n_windows, rest = divmod(len(self.ids), self.length)
        starts = np.arange(n_windows, dtype=np.int64) * self.length
        at_once = max(1, batch_tokens // self.length)
        for first in range(0, n_windows, at_once):
            give_back(self.ids)
            yield fixed.batch(starts[first : first + at_once], self.length, _VALIDATION_SEED)
        if rest:
            yield fixed.batch(np.array([n_windows * self.length]), rest, _VALIDATION_SEED)


class MaskedWindowLoader(WindowLoader):
    """Windows of a stream in random order, with other tokens hidden in every epoch. Arguments as of WindowLoader; a step's
    tokens are those that are read, of which the hidden ones are predicted."""

    def __init__(
        self,
        windows: MaskedWindows,
        *,
        tokens_per_step: int,
        micro_tokens: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            windows.ids,
            context=windows.length,
            tokens_per_step=tokens_per_step,
            micro_tokens=micro_tokens,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self._windows = windows

    def _collate(self, epoch: int, starts: np.ndarray, carried: bool | None) -> Batch:
        return self._windows.batch(starts, self._windows.length, self._seed, epoch)


@dataclass(frozen=True)
class MaskedLoss:
    """How well a model says what was hidden. nats: the sum over n_predicted tokens, of which n_right were said right."""

    nats: float
    n_predicted: int
    n_right: int

    @property
    def loss(self) -> float:
        """Mean cross-entropy of a hidden token."""
        return self.nats / max(self.n_predicted, 1)

    @property
    def accuracy(self) -> float:
        """Share of the hidden tokens whose likeliest candidate was right."""
        return self.n_right / max(self.n_predicted, 1)

    def metrics(self) -> dict[str, float]:
        """valid_loss and accuracy, as a run logs them."""
        return {"valid_loss": self.loss, "accuracy": self.accuracy}


def masked_loss(logits: Callable[[Batch], tuple[Tensor, Tensor]], batches: Iterator[Batch]) -> MaskedLoss:
    """logits: of a batch's hidden tokens (N, V), and what they were (N,)."""
    nats, n_predicted, n_right = 0.0, 0, 0
    for batch in batches:
        logits_NV, targets_N = logits(batch)
        nats += float(torch.nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="sum"))
        n_right += int((logits_NV.argmax(-1) == targets_N).sum())
        n_predicted += len(targets_N)
    return MaskedLoss(nats, n_predicted, n_right)
