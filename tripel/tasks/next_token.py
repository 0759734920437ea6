"""Next-token prediction: what language models are trained on, and how well they predict a text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from tripel.config import Config
from tripel.data.batch import Batch
from tripel.data.tokens import TokenStream
from tripel.data.windows import valid_batches
from tripel.errors import DataError
from tripel.models.config import Vocabulary
from tripel.text.tokenizer import Tokenizer


class NextTokenTask(Config):
    """Predict each token of a text from those before it."""

    kind: Literal["next-token"] = "next-token"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


def language_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """What a language model must know of its tokenizer. It reads the boundary between documents before a text."""
    return Vocabulary(
        source_size=tokenizer.vocab_size,
        target_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id,
        eos_id=tokenizer.eos_id,
        start_id=tokenizer.eos_id,
    )


@dataclass(frozen=True)
class TextLoss:
    """How well a model predicts a text. nats: the sum over n_predicted tokens; n_bytes: of the text they spell.

    nats_per_position: [context] the mean loss at each position of a window; the last ones may rest on fewer windows.
    """

    nats: float
    n_predicted: int
    n_bytes: int
    nats_per_position: np.ndarray

    @property
    def nats_per_token(self) -> float:
        """Mean cross-entropy of a predicted token."""
        return self.nats / self.n_predicted

    @property
    def perplexity(self) -> float:
        """exp of nats_per_token; infinite where that is too large to be written."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers, as nats_per_token is not: the text's length in bits over that in bytes."""
        return self.nats / math.log(2) / self.n_bytes

    def metrics(self) -> dict[str, float]:
        """valid_loss, perplexity and bits_per_byte, as a run logs them."""
        return {
            "valid_loss": self.nats_per_token,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
        }


def text_loss(
    token_losses: Callable[[Batch], Tensor],
    stream: TokenStream,
    tokenizer: Tokenizer,
    *,
    context: int,
    batch_tokens: int = 8192,
    carry_state: bool = False,
) -> TextLoss:
    """Predict a whole stream in windows that do not overlap: every token but the first once.

    token_losses: a batch's cross-entropy in nats, [B, T], one for each of its targets; with carry_state it
    minds Batch.carried (see valid_batches). The bytes of the first token, which is not predicted, do not count; a
    boundary costs nats and has no bytes.
    Raises DataError for a stream of fewer than two tokens.
    """
    if stream.n_tokens < 2:
        raise DataError(
            f"the text {stream.name} is too short to be predicted",
            given=f"{stream.n_tokens} tokens",
            expected="at least 2",
            mend="validate on more text",
        )
    context = min(context, stream.n_tokens - 1)
    sums, counts = np.zeros(context), np.zeros(context, np.int64)
    for batch in valid_batches(stream.ids, context, batch_tokens, carry_state=carry_state):
        losses_BT = token_losses(batch).detach().double().cpu().numpy()
        T = losses_BT.shape[1]
        sums[:T] += losses_BT.sum(axis=0)
        counts[:T] += len(losses_BT)
    n_bytes = stream.n_bytes - len(tokenizer.decode([int(stream.ids[0])]).encode("utf-8"))
    return TextLoss(float(sums.sum()), int(counts.sum()), max(n_bytes, 1), sums / counts)
