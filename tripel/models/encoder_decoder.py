"""The encoder-decoder skeleton (Vaswani et al. 2017, figure 1): source ids and target ids in, next-token logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tripel.models.config import EncoderDecoderConfig, Vocabulary
from tripel.nn.attention import CrossAttention, Memory
from tripel.nn.embed import Embedding, TokenEmbedding
from tripel.nn.heads import VocabularyHead, positions
from tripel.nn.mixer import Mixer, State, Taps, scoped
from tripel.nn.stack import Stack


class DecodeState(State):
    """All that a decoder remembers of the rows being decoded: one state per layer, and the memory they share."""

    def __init__(self, layers: list[State], memory: Memory, length: int | Tensor = 0) -> None:
        self.layers, self.memory, self.length = layers, memory, length

    def select(self, rows_N: Tensor) -> None:
        for layer in self.layers:
            layer.select(rows_N)
        self.memory.select(rows_N)
        if isinstance(self.length, Tensor):
            self.length = self.length[rows_N]

    @classmethod
    def join(cls, states: Sequence[DecodeState]) -> DecodeState:
        layers = [type(parts[0]).join(parts) for parts in zip(*(state.layers for state in states), strict=True)]
        memory = Memory.join([state.memory for state in states])
        lengths = [state.lengths(memory) for state in states]
        return cls(layers, memory, torch.cat(lengths))

    def lengths(self, like: Memory) -> Tensor:
        """Positions read by each row, (N,)."""
        if isinstance(self.length, Tensor):
            return self.length
        rows = len(self.memory.layers[0][0]) * self.memory.beams
        return torch.full((rows,), self.length, dtype=torch.int64, device=like.layers[0][0].device)


class EncoderDecoder(nn.Module):
    """Reads a source once, then predicts the target left to right.

    target_tokens owns the target matrix; source_tokens is None when one matrix serves both sides (tie: all).
    """

    def __init__(
        self,
        config: EncoderDecoderConfig,
        vocabulary: Vocabulary,
        encoder: Stack,
        decoder: Stack,
        embeddings: tuple[Embedding, Embedding],
    ) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        pad, scale = vocabulary.padding_id, config.embed_scale
        self.source_tokens = (
            None
            if config.tie == "all"
            else TokenEmbedding(vocabulary.source_size, config.d_model, pad_id=pad, scale=scale)
        )
        self.target_tokens = TokenEmbedding(vocabulary.target_size, config.d_model, pad_id=pad, scale=scale)
        self.source_embedding, self.target_embedding = embeddings
        self.encoder, self.decoder = encoder, decoder
        self.head = VocabularyHead(
            vocabulary.target_size, config.d_model, tied=config.tie != "none", bias=config.head_bias
        )

    def encode(self, source_BS: Tensor, valid_BS: Tensor | None = None, taps: Taps | None = None) -> Tensor:
        """Memory (B, S, D) of source ids; valid_BS None when every source token is real."""
        tokens = self.target_tokens if self.source_tokens is None else self.source_tokens
        x_BSD = self.source_embedding(source_BS, tokens)
        if taps is not None:
            taps.scope("encoder")("embed", x_BSD)
        return self.encoder(x_BSD, valid_BT=valid_BS, taps=scoped(taps, "encoder"))

    def features(
        self,
        source_BS: Tensor,
        target_BT: Tensor,
        source_valid_BS: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) before the head, for a whole target at once: what training needs."""
        memory_BSD = self.encode(source_BS, source_valid_BS, taps)
        x_BTD = self.target_embedding(target_BT, self.target_tokens)
        if taps is not None:
            taps.scope("decoder")("embed", x_BTD)
        memory = (self._read(memory_BSD), source_valid_BS)
        return self.decoder(x_BTD, memory=memory, taps=scoped(taps, "decoder"))

    def forward(
        self,
        source_BS: Tensor,
        target_BT: Tensor,
        source_valid_BS: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """Logits (B, T, V): logits[:, t] scores the token after target[:, t]."""
        logits_BTV = self.logits(self.features(source_BS, target_BT, source_valid_BS, taps))
        if taps is not None:
            taps("logits", logits_BTV)
        return logits_BTV

    def logits(self, h_BTD: Tensor) -> Tensor:
        """The head on hidden states."""
        return self.head(h_BTD, self.target_tokens.weight)

    def asked(self, inputs: dict[str, Any], rows_N: Tensor | None) -> Tensor:
        """What the head's matrix is multiplied with at the positions that are asked for, (N, D). rows_N: their places among
        all B * T; None for all."""
        return positions(self.features(**inputs), rows_N)

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """The head's matrix (V, D) and bias (V,), for a loss that fuses them with the softmax."""
        return self.head.matrix(self.target_tokens.weight), self.head.bias

    def start(self, source_BS: Tensor, valid_BS: Tensor | None = None, *, max_len: int) -> DecodeState:
        """Read sources and return a state of one row per sentence, with room for max_len target positions."""
        keys_values = self._read(self.encode(source_BS, valid_BS))
        layers = [self._mixer(i).init_state(len(source_BS), max_len) for i in range(len(self.decoder.blocks))]
        return DecodeState(layers, Memory(keys_values, valid_BS))

    def step(self, ids_NT: Tensor, state: DecodeState) -> Tensor:
        """Read the next T target ids of every row; logits (N, V) after the last of them."""
        x_NTD = self.target_embedding(ids_NT, self.target_tokens, state.length)
        state.length = state.length + ids_NT.shape[1]
        memory = (state.memory.layers, state.memory.bias())
        h_NTD = self.decoder(x_NTD, states=state.layers, memory=memory)
        return self.logits(h_NTD[:, -1])

    def _read(self, memory_BSD: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [self._cross(i).read(memory_BSD) for i in range(len(self.decoder.blocks))]

    def _mixer(self, layer: int) -> Mixer:
        return self.decoder.blocks[layer].mixer  # type: ignore[return-value]

    def _cross(self, layer: int) -> CrossAttention:
        return self.decoder.blocks[layer].cross  # type: ignore[return-value]
