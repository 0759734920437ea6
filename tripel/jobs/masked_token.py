"""BERT's pre-training: windows of a stream of tokens with words hidden, validated on the same hidden words every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tripel.data.batch import IGNORE, Batch
from tripel.data.steps import StepLoader
from tripel.data.text import TextDataConfig, TextSource, load_texts
from tripel.data.tokens import TokenStream, encode_stream, report_unknown_tokens
from tripel.errors import DataError
from tripel.jobs.job import Job
from tripel.models.build import Model
from tripel.models.config import Vocabulary
from tripel.models.encoder import Encoder
from tripel.recipe import Recipe
from tripel.tasks.baseline import Baseline, frequency_baseline, token_counts
from tripel.tasks.masked_token import (
    MaskedLoss,
    MaskedTokenTask,
    MaskedWindowLoader,
    MaskedWindows,
    Masker,
    encoder_vocabulary,
    masked_loss,
)
from tripel.text.backends import SPACE_MARKS
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer
from tripel.training import parallel
from tripel.training.log import RunLog
from tripel.training.loss import asked

_SHOWN_CHARACTERS = 100
_SHOWN_TOKENS = 24


class MaskedTokenJob(Job):
    """See Job."""

    vocabulary: Vocabulary
    metric = "valid_loss"

    @property
    def data(self) -> TextDataConfig:
        """The recipe's data section."""
        return cast(TextDataConfig, self.recipe.data)

    @property
    def validates(self) -> bool:
        return self.texts.valid is not None

    @property
    def generation(self) -> dict[str, object]:
        return {}

    def read(self) -> None:
        self.texts = load_texts(self.data)
        self.report = self.texts.report

    def train_tokenizers(self) -> TokenizerPair:
        lines = (line.strip() for text in self.texts.train.texts() for line in text.splitlines())
        tokenizer = Tokenizer.train(self.recipe.tokenizer, lines, mask=True)
        return TokenizerPair(tokenizer, tokenizer)

    def encode(self, tokenizers: TokenizerPair | None) -> None:
        """Reports the share of unknown tokens; refuses a text shorter than the context."""
        assert tokenizers is not None
        self.tokenizer = tokenizers.target
        self.vocabulary = encoder_vocabulary(self.tokenizer)
        self.train_windows = self._windows(self.texts.train)
        self.valid_windows = None if self.texts.valid is None else self._windows(self.texts.valid)
        self.loader().plan(0)

    def loader(self) -> MaskedWindowLoader:
        config = self.recipe.train
        return MaskedWindowLoader(
            self.train_windows,
            tokens_per_step=config.tokens_per_step,
            micro_tokens=config.micro_tokens,
            seed=config.seed,
            rank=parallel.rank(),
            world_size=parallel.world_size(),
        )

    def summary(self, loader: StepLoader[Batch]) -> str:
        plan, task = cast(MaskedWindowLoader, loader).plan(0), cast(MaskedTokenTask, self.recipe.task)
        what = "whole words" if task.whole_words else "tokens"
        return (
            f"{len(self.train_windows.ids):,} training tokens, vocabulary {self.vocabulary.target_size:,}, "
            f"{plan.n_steps:,} updates an epoch of {plan.rows} windows of {plan.context + 2}, "
            f"{task.mask_rate:.0%} hidden as {what}"
        )

    def baseline(self) -> Baseline | None:
        if self.valid_windows is None:
            return None
        counts = token_counts(self.train_windows.ids, self.vocabulary.target_size)
        return word_frequency(counts, self.valid_windows.validation())

    def validate(self, model: Model, log: RunLog) -> dict[str, float]:
        """Loss and accuracy on the hidden words; on log a line of the text with words hidden, and with them filled in."""
        assert self.valid_windows is not None
        encoder = cast(Encoder, model)
        log.sample(*_example(encoder, self.valid_windows, self.tokenizer))
        return windows_loss(encoder, self.valid_windows).metrics()

    def _windows(self, source: TextSource) -> MaskedWindows:
        return masked_windows(source, self.tokenizer, self.recipe, self.report_unknown)

    def report_unknown(self, stream: TokenStream) -> None:
        """Add the share of unknown tokens to the report; refuse a text of mostly those."""
        report_unknown_tokens(self.report, stream, self.data)


def masked_windows(
    source: TextSource, tokenizer: Tokenizer, recipe: Recipe, report: Callable[[TokenStream], None] | None = None
) -> MaskedWindows:
    """The windows of a text. report: told of its tokens. Raises DataError for a context without room for a word."""
    stream = encode_stream(source, tokenizer, by_line=True)
    if report is not None:
        report(stream)
    length = (cast(TextDataConfig, recipe.data).context or recipe.text_model.max_len) - 2
    if length < 1:
        raise DataError(
            "the context has no room for a word between the begin and end tokens",
            given=length + 2,
            expected="3 or more",
            mend="raise data.context or model.max_len",
        )
    masker = Masker(cast(MaskedTokenTask, recipe.task), tokenizer)
    return MaskedWindows(stream.ids, length, masker, encoder_vocabulary(tokenizer))


def windows_loss(model: Encoder, windows: MaskedWindows) -> MaskedLoss:
    """How well the model, in evaluation mode, says what is hidden in a text."""
    device = model.tokens.weight.device

    def logits(batch: Batch) -> tuple[Tensor, Tensor]:
        batch = batch.to(device)
        h_ND, targets_N = asked(model, batch)
        return F.linear(h_ND, *model.head_parameters()), targets_N

    with torch.inference_mode():
        return masked_loss(logits, windows.validation())


def word_frequency(counts: np.ndarray, batches: Iterator[Batch]) -> Baseline:
    """The score of the training text's word frequencies on the same hidden tokens."""
    targets = np.concatenate([batch.targets_BT.numpy().ravel() for batch in batches])
    return frequency_baseline("word frequency", counts, targets[targets != IGNORE])


def _example(model: Encoder, windows: MaskedWindows, tokenizer: Tokenizer) -> tuple[str, str]:
    """The beginning of the text with its hidden tokens as ___, and with the model's in their place."""
    batch = windows.batch(np.zeros(1, np.int64), min(windows.length, len(windows.ids), _SHOWN_TOKENS), 0)
    ids_T, targets_T = batch.inputs["ids_BT"][0].clone(), batch.targets_BT[0]
    hidden_T = targets_T != IGNORE
    batch = batch.to(model.tokens.weight.device)
    with torch.inference_mode():
        h_ND, _ = asked(model, batch)
        ids_T[hidden_T] = F.linear(h_ND, *model.head_parameters()).argmax(-1).cpu()
    pieces = tokenizer.pieces(batch.inputs["ids_BT"][0, 1:-1].tolist())
    shown = "".join(" ___" if hidden else piece for hidden, piece in zip(hidden_T[1:-1].tolist(), pieces, strict=True))
    for mark in SPACE_MARKS:
        shown = shown.replace(mark, " ")
    return _short(shown.strip()), _short(tokenizer.decode(ids_T.tolist()).strip())


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}\u2026"
