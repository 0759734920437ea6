"""From a config to a model with fresh weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from tripel.errors import RecipeError
from tripel.models.config import EncoderDecoderConfig, ModelConfig, StackConfig, Vocabulary
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.nn import build_mixer
from tripel.nn.attention import AttentionConfig, CrossAttention
from tripel.nn.block import Block, FeedForward, Wiring
from tripel.nn.embed import Embedding, Positions, TokenEmbedding
from tripel.nn.exact import LayerNorm
from tripel.nn.heads import VocabularyHead
from tripel.nn.linear import FusedLinear
from tripel.nn.stack import Stack


def build(config: ModelConfig, vocabulary: Vocabulary) -> EncoderDecoder:
    """The model that config describes, initialised from the current random state (or left empty on the meta device)."""
    if config.tie == "all" and vocabulary.source_size != vocabulary.target_size:
        raise RecipeError(
            "model.tie: all needs one vocabulary for both sides",
            given=f"source {vocabulary.source_size} and target {vocabulary.target_size} tokens",
            expected="tokenizer.shared: true",
            mend="set tokenizer.shared=true, or model.tie=target",
        )
    model = EncoderDecoder(
        config,
        vocabulary,
        _stack(config, config.encoder, causal=False),
        _stack(config, config.decoder, causal=True),
        (_embedding(config), _embedding(config)),
    )
    if not model.target_tokens.weight.is_meta:  # there, random numbers would only cost the import of torch's compiler
        initialise(model)
    return model


def initialise(model: nn.Module) -> None:
    """Glorot-uniform linear maps with zero biases; embeddings normal with deviation D^-1/2, so that the scaled
    embedding and the tied logits both begin with unit variance (tensor2tensor's choice; the paper states none)."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                # A product that yields several maps at once is initialised as the separate maps it stands for.
                for part in module.parts() if isinstance(module, FusedLinear) else (module.weight,):
                    nn.init.xavier_uniform_(part)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, TokenEmbedding):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight.shape[1]))
                module.weight[module.pad_id].zero_()
            elif isinstance(module, VocabularyHead) and module.weight is not None:
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight.shape[1]))
            elif isinstance(module, Positions) and module.kind == "learned":
                nn.init.normal_(module.weight, std=0.02)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model; a matrix used twice counts once."""
    return sum(p.numel() for p in model.parameters())


def _stack(config: EncoderDecoderConfig, stack: StackConfig, *, causal: bool) -> Stack:
    def wiring() -> Wiring:
        return Wiring(config.wiring, config.d_model, norm_eps=config.norm_eps, dropout=config.dropout)

    blocks = [
        Block(
            build_mixer(stack.mixer, config.d_model, causal=causal),
            _cross_attention(config, stack) if causal else None,
            FeedForward(config.d_model, stack.d_ff or config.d_ff, config.activation),
            wiring,
        )
        for _ in range(stack.n_layers)
    ]
    final_norm = LayerNorm(config.d_model, eps=config.norm_eps) if config.wiring == "pre" else None
    return Stack(blocks, final_norm)


def _cross_attention(config: EncoderDecoderConfig, stack: StackConfig) -> CrossAttention:
    """Cross-attention is attention whatever the decoder's mixer is; it borrows that mixer's settings when it can."""
    settings = stack.mixer if isinstance(stack.mixer, AttentionConfig) else AttentionConfig()
    return CrossAttention(settings, config.d_model, config.d_model)


def _embedding(config: EncoderDecoderConfig) -> Embedding:
    positions = Positions(config.positions, config.max_len, config.d_model, order=config.sinusoid_order)
    return Embedding(positions, dropout=config.dropout)
