"""The decoder skeleton: ids in, scores of the next id out. GPT with attention, a recurrent or convolutional language
model with the other mixers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tripel.models.config import DecoderConfig, Vocabulary
from tripel.nn.embed import Embedding, TokenEmbedding
from tripel.nn.heads import VocabularyHead, positions
from tripel.nn.mixer import Mixer, State, Taps, scoped
from tripel.nn.stack import Stack


class DecoderState(State):
    """All that a decoder remembers of its rows: one state per layer, and the number of positions read by each row."""

    def __init__(self, layers: list[State], length_N: Tensor) -> None:
        self.layers = layers
        self.length_N = length_N

    def select(self, rows_N: Tensor) -> None:
        for layer in self.layers:
            layer.select(rows_N)
        self.length_N = self.length_N[rows_N]

    @classmethod
    def join(cls, states: Sequence[DecoderState]) -> DecoderState:
        layers = [type(parts[0]).join(parts) for parts in zip(*(state.layers for state in states), strict=True)]
        return cls(layers, torch.cat([state.length_N for state in states]))

    def tensors(self) -> dict[str, Tensor]:
        layers = {f"{i}.{name}": x for i, layer in enumerate(self.layers) for name, x in layer.tensors().items()}
        return {**layers, "length": self.length_N}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for i, layer in enumerate(self.layers):
            prefix = f"{i}."
            layer.load_tensors({k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)})
        self.length_N = tensors["length"].to(self.length_N)


class Decoder(nn.Module):
    """Predicts every next id from those before it. tokens owns the embedding's matrix, which a tied head uses too."""

    def __init__(self, config: DecoderConfig, vocabulary: Vocabulary, decoder: Stack, embedding: Embedding) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.tokens = TokenEmbedding(
            vocabulary.target_size, config.d_model, pad_id=vocabulary.padding_id, scale=config.embed_scale
        )
        self.embedding, self.decoder = embedding, decoder
        self.head = VocabularyHead(vocabulary.target_size, config.d_model, tied=config.tie, bias=config.head_bias)

    @property
    def unbounded(self) -> bool:
        """Whether texts of any length can be read: no table of positions, and states that do not grow."""
        mixers = [self._mixer(i) for i in range(len(self.decoder.blocks))]
        return self.config.positions == "none" and all(mixer.constant_state for mixer in mixers)

    def features(self, ids_BT: Tensor, state: DecoderState | None = None, taps: Taps | None = None) -> Tensor:
        """Hidden states (B, T, D) before the head. state None: ids are whole texts; else the next T ids of every row."""
        start: int | Tensor = 0
        if state is not None:
            start = state.length_N
            state.length_N = state.length_N + ids_BT.shape[1]
        x_BTD = self.embedding(ids_BT, self.tokens, start)
        if taps is not None:
            taps.scope("decoder")("embed", x_BTD)
        states = None if state is None else state.layers
        return self.decoder(x_BTD, states=states, taps=scoped(taps, "decoder"))

    def forward(self, ids_BT: Tensor, taps: Taps | None = None) -> Tensor:
        """Logits (B, T, V): logits[:, t] scores the id after ids[:, t]."""
        logits_BTV = self.logits(self.features(ids_BT, taps=taps))
        if taps is not None:
            taps("logits", logits_BTV)
        return logits_BTV

    def logits(self, h_BTD: Tensor) -> Tensor:
        """The head on hidden states."""
        return self.head(h_BTD, self.tokens.weight)

    def asked(self, inputs: dict[str, Any], rows_N: Tensor | None) -> Tensor:
        """What the head's matrix is multiplied with at the positions that are asked for, (N, D). rows_N: their places among
        all B * T; None for all."""
        return positions(self.features(**inputs), rows_N)

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """The head's matrix (V, D) and bias (V,), for a loss that fuses them with the softmax."""
        return self.head.matrix(self.tokens.weight), self.head.bias

    def init_state(self, batch: int, max_len: int) -> DecoderState:
        """A state of rows that have read nothing, with room for max_len positions each."""
        layers = [self._mixer(i).init_state(batch, max_len) for i in range(len(self.decoder.blocks))]
        return DecoderState(layers, torch.zeros(batch, dtype=torch.int64, device=self.tokens.weight.device))

    def step(self, ids_NT: Tensor, state: DecoderState) -> Tensor:
        """Read the next T ids of every row; logits (N, V) after the last of them."""
        return self.logits(self.features(ids_NT, state)[:, -1])

    def _mixer(self, layer: int) -> Mixer:
        return self.decoder.blocks[layer].mixer  # type: ignore[return-value]
