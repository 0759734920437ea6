"""A model's weights in the order and arrangement in which the native decoder reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripel.models.encoder_decoder import EncoderDecoder


@dataclass(frozen=True)
class Layout:
    """The library's constants PANEL and PAIR (1 in float32), and whether weights are kept in bfloat16."""

    panel: int
    pair: int
    half: bool

    def width(self, n: int) -> int:
        """n columns filled up to whole panels."""
        return -(-n // self.panel) * self.panel

    def pack(self, weight_ND: Tensor, bias_N: Tensor, fill: float) -> Iterator[Tensor]:
        """A weight as struct Linear of kernels.h wants it, and its bias with `fill` in the columns added."""
        extra = self.width(len(weight_ND)) - len(weight_ND)
        panels = F.pad(weight_ND, (0, 0, 0, extra)).view(-1, self.panel, weight_ND.shape[1] // self.pair, self.pair)
        yield panels.transpose(1, 2).to(torch.bfloat16 if self.half else torch.float32).contiguous()
        yield F.pad(bias_N.float(), (0, extra), value=fill).contiguous()


def arranged(model: EncoderDecoder, layout: Layout) -> list[Tensor]:
    """All that tripel_model of translator.cpp reads, in its order: copies."""
    with torch.inference_mode(False), torch.no_grad():
        return [
            *_embeddings(model),
            *(tensor for block in model.encoder.blocks for tensor in _block(block, layout)),
            *(tensor for block in model.decoder.blocks for tensor in _block(block, layout)),
            *_norm(model.encoder.final_norm),
            *_norm(model.decoder.final_norm),
            *_head(model, layout),
        ]


def _embeddings(model: EncoderDecoder) -> Iterator[Tensor]:
    target, source = model.target_tokens, model.source_tokens
    scaled = (target.weight * target.factor).float().contiguous()
    yield scaled if source is None else (source.weight * source.factor).float().contiguous()
    yield scaled
    for embedding in (model.source_embedding, model.target_embedding):
        positions = embedding.positions
        yield torch.zeros(1) if positions.kind == "none" else positions.weight.float().clone()


def _block(block: Any, layout: Layout) -> Iterator[Tensor]:
    yield from _linear(block.mixer.query_key_value, layout)
    yield from _linear(block.mixer.output, layout)
    yield from _norm(block.mixer_wiring.norm)
    if block.cross is not None:
        yield from _linear(block.cross.query, layout)
        yield from _linear(block.cross.key_value, layout)
        yield from _linear(block.cross.output, layout)
        yield from _norm(block.cross_wiring.norm)
    yield from _linear(block.feed_forward.inner, layout)
    yield from _linear(block.feed_forward.outer, layout)
    yield from _norm(block.feed_forward_wiring.norm)


def _linear(linear: nn.Linear, layout: Layout) -> Iterator[Tensor]:
    weight_ND = linear.weight
    bias_N = weight_ND.new_zeros(len(weight_ND)) if linear.bias is None else linear.bias
    yield from layout.pack(weight_ND, bias_N, 0.0)


def _head(model: EncoderDecoder, layout: Layout) -> Iterator[Tensor]:
    weight_VD, bias_V = model.head_parameters()
    bias_V = weight_VD.new_zeros(len(weight_VD)) if bias_V is None else bias_V.clone()
    bias_V[model.vocabulary.pad_id] = -math.inf  # never said
    yield from layout.pack(weight_VD, bias_V, -math.inf)


def _norm(norm: nn.Module | None) -> Iterator[Tensor]:
    if isinstance(norm, nn.LayerNorm):
        yield norm.weight.float().clone()
        yield norm.bias.float().clone()
    else:
        yield torch.zeros(1)
        yield torch.zeros(1)
