"""The encoder skeleton: ids in, a vector for every position out, having read both ways; then a head, or none.

BERT with attention; the same body classifies texts with any mixer.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tripel.models.config import EncoderConfig, Vocabulary
from tripel.nn.embed import TextEmbedding, TokenEmbedding
from tripel.nn.heads import ClassHead, MaskedTokenHead, pooled, positions
from tripel.nn.mixer import Taps, scoped
from tripel.nn.stack import Stack


class Encoder(nn.Module):
    """Reads whole texts. tokens owns the embedding's matrix, which a tied head uses too. head: as config.head says."""

    def __init__(
        self,
        config: EncoderConfig,
        vocabulary: Vocabulary,
        encoder: Stack,
        embedding: TextEmbedding,
        head: MaskedTokenHead | ClassHead | None,
    ) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.tokens = TokenEmbedding(
            vocabulary.source_size, config.d_model, pad_id=vocabulary.padding_id, scale=config.embed_scale
        )
        self.embedding, self.encoder = embedding, encoder
        self.pooler = nn.Linear(config.d_model, config.d_model) if config.has_pooler else None
        self.head = head

    def features(
        self,
        ids_BT: Tensor,
        valid_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D). valid_BT: which are real tokens, None for all; types_BT: segments, None for the first."""
        x_BTD = self.embedding(ids_BT, self.tokens, types_BT)
        if taps is not None:
            taps.scope("encoder")("embed", x_BTD)
        return self.encoder(x_BTD, valid_BT=valid_BT, taps=scoped(taps, "encoder"))  # type: ignore[no-any-return]

    def pooled(self, h_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """The vector (B, D) that stands for each text: config.pool of its positions, through the pooler if there is one."""
        h_BD = pooled(h_BTD, valid_BT, self.config.pool)
        return h_BD if self.pooler is None else self.pooler(h_BD).tanh()

    def forward(
        self,
        ids_BT: Tensor,
        valid_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """Head masked-token: logits (B, T, V) of what stands at every position; classes: logits (B, C); none: vectors
        (B, D) of the pooler, or without one the hidden states (B, T, D)."""
        h = self.features(ids_BT, valid_BT, types_BT, taps)
        if isinstance(self.head, MaskedTokenHead):
            y = self.logits(h)
        elif self.head is None:
            return h if self.pooler is None else self.pooled(h, valid_BT)
        else:
            y = self.logits(self.pooled(h, valid_BT))
        if taps is not None:
            taps("logits", y)
        return y

    def logits(self, h_ND: Tensor) -> Tensor:
        """The head on hidden states (masked-token), or on the vectors of whole texts (classes)."""
        if isinstance(self.head, ClassHead):
            return self.head(h_ND)  # type: ignore[no-any-return]
        assert self.head is not None, "a model without a head gives vectors only"
        return self.head(h_ND, self.tokens.weight)  # type: ignore[no-any-return]

    def asked(self, inputs: dict[str, Any], rows_N: Tensor | None) -> Tensor:
        """What the head's matrix is multiplied with, (N, D). rows_N: places among all B * T of the hidden tokens, which
        alone are asked for, None for all; of classes, one is asked for each text."""
        h_BTD = self.features(**inputs)
        if isinstance(self.head, ClassHead):
            return self.head.dropout(self.pooled(h_BTD, inputs.get("valid_BT")))  # type: ignore[no-any-return]
        assert isinstance(self.head, MaskedTokenHead)
        return self.head.transformed(positions(h_BTD, rows_N))

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """The head's matrix (V or C, D) and bias, for a loss that fuses them with the softmax."""
        if isinstance(self.head, ClassHead):
            return self.head.linear.weight, self.head.linear.bias
        assert isinstance(self.head, MaskedTokenHead)
        return self.head.vocabulary.matrix(self.tokens.weight), self.head.vocabulary.bias
