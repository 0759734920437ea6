"""From a config to a model with fresh weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from tripel.errors import RecipeError
from tripel.models.config import (
    AnyModelConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    SkeletonConfig,
    StackConfig,
    Vocabulary,
)
from tripel.models.decoder import Decoder
from tripel.models.encoder import Encoder
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.nn import build_mixer
from tripel.nn.attention import AttentionConfig, CrossAttention
from tripel.nn.block import ACTIVATIONS, NORMS, Block, FeedForward, Wiring
from tripel.nn.embed import Embedding, Positions, TextEmbedding, TokenEmbedding, sinusoids
from tripel.nn.heads import ClassHead, MaskedTokenHead, VocabularyHead
from tripel.nn.linear import FusedLinear
from tripel.nn.mixer import Mixer
from tripel.nn.stack import Stack

Model = EncoderDecoder | Decoder | Encoder


def build(config: AnyModelConfig, vocabulary: Vocabulary) -> Model:
    """The model that config describes, initialised from the current random state (or left empty on the meta device)."""
    model: Model
    if isinstance(config, DecoderConfig):
        model = Decoder(config, vocabulary, _stack(config, config.stacks()["decoder"], causal=True), _embedding(config))
    elif isinstance(config, EncoderConfig):
        model = _encoder(config, vocabulary)
    else:
        model = _encoder_decoder(config, vocabulary)
    if not next(model.parameters()).is_meta:  # there, random numbers would only cost the import of torch's compiler
        initialise(model)
    return model


def _encoder_decoder(config: EncoderDecoderConfig, vocabulary: Vocabulary) -> EncoderDecoder:
    if config.tie == "all" and vocabulary.source_size != vocabulary.target_size:
        raise RecipeError(
            "model.tie: all needs one vocabulary for both sides",
            given=f"source {vocabulary.source_size} and target {vocabulary.target_size} tokens",
            expected="tokenizer.shared: true",
            mend="set tokenizer.shared=true, or model.tie=target",
        )
    return EncoderDecoder(
        config,
        vocabulary,
        _stack(config, config.encoder, causal=False),
        _stack(config, config.decoder, causal=True, cross=True),
        (_embedding(config), _embedding(config)),
    )


def _encoder(config: EncoderConfig, vocabulary: Vocabulary) -> Encoder:
    d_model = config.d_model

    def norm() -> nn.Module:
        return NORMS[config.norm](d_model, eps=config.norm_eps)

    head: MaskedTokenHead | ClassHead | None = None
    if config.head == "masked-token":
        words = VocabularyHead(vocabulary.target_size, d_model, tied=config.tie, bias=config.head_bias)
        # A gated activation is two maps, which the transform is not: its plain half stands in for it.
        activation = ACTIVATIONS["silu" if config.activation == "swiglu" else config.activation]
        head = MaskedTokenHead(d_model, activation, norm() if config.head_transform else None, words)
    elif config.head == "classes":
        head = ClassHead(d_model, len(vocabulary.labels), dropout=config.dropout)
    positions = Positions(config.positions, config.max_len, d_model, order=config.sinusoid_order)
    embedding_norm = norm() if config.embedding_norm else None
    embedding = TextEmbedding(positions, d_model, config.token_types, embedding_norm, dropout=config.dropout)
    return Encoder(config, vocabulary, _stack(config, config.stacks()["encoder"], causal=False), embedding, head)


def initialise(model: Model) -> None:
    """First values of all weights, as config.initialisation names them; biases zero; then what a mixer wants otherwise.

    glorot: embeddings normal with deviation D^-1/2, so that the scaled embedding and the tied logits both begin with
    unit variance (tensor2tensor's choice; Vaswani et al. 2017 state none).
    """
    config = model.config
    as_gpt2, normal = config.initialisation == "gpt2", config.initialisation != "glorot"
    n_writes = 2 * max(stack.n_layers for stack in config.stacks().values())
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                # A product that yields several maps at once is initialised as the separate maps it stands for.
                for part in module.parts() if isinstance(module, FusedLinear) else (module.weight,):
                    if normal:
                        writes = as_gpt2 and name.endswith((".output", ".outer"))
                        nn.init.normal_(part, std=0.02 / math.sqrt(n_writes) if writes else 0.02)
                    else:
                        nn.init.xavier_uniform_(part)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, TokenEmbedding) or (
                isinstance(module, VocabularyHead) and module.weight is not None
            ):
                nn.init.normal_(module.weight, std=0.02 if normal else 1 / math.sqrt(config.d_model))  # type: ignore[arg-type]
                if isinstance(module, TokenEmbedding) and module.pad_id is not None:
                    module.weight[module.pad_id].zero_()
            elif isinstance(module, Positions) and module.kind == "learned":
                if config.initialisation == "mimetic":
                    module.weight.copy_(0.1 * sinusoids(*module.weight.shape, order="halves"))
                else:
                    nn.init.normal_(module.weight, std=0.02)
        for module in model.modules():
            if isinstance(module, Mixer):
                module.initialise(config.initialisation)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model; a matrix used twice counts once."""
    return sum(p.numel() for p in model.parameters())


def _stack(config: SkeletonConfig, stack: StackConfig, *, causal: bool, cross: bool = False) -> Stack:
    def norm() -> nn.Module:
        return NORMS[config.norm](config.d_model, eps=config.norm_eps)

    def wiring() -> Wiring:
        own = norm() if config.wiring != "none" else None
        return Wiring(config.wiring, own, dropout=config.dropout, variational=config.variational_dropout)

    d_ff = config.d_ff if stack.d_ff is None else stack.d_ff
    blocks = [
        Block(
            build_mixer(stack.mixer.at_layer(layer), config.d_model, causal=causal),
            _cross_attention(config, stack) if cross else None,
            FeedForward(config.d_model, d_ff, config.activation, bias=config.bias) if d_ff else None,
            wiring,
        )
        for layer in range(stack.n_layers)
    ]
    return Stack(blocks, norm() if config.wiring == "pre" else None)


def _cross_attention(config: SkeletonConfig, stack: StackConfig) -> CrossAttention:
    """Cross-attention is attention whatever the decoder's mixer is; it borrows that mixer's settings when it can."""
    if isinstance(stack.mixer, AttentionConfig):
        return CrossAttention(stack.mixer, config.d_model, config.d_model)
    n_heads = next(n for n in (8, 4, 2, 1) if config.d_model % n == 0)
    return CrossAttention(AttentionConfig(n_heads=n_heads), config.d_model, config.d_model)


def _embedding(config: SkeletonConfig) -> Embedding:
    positions = Positions(config.positions, config.max_len, config.d_model, order=config.sinusoid_order)
    return Embedding(positions, dropout=config.dropout, variational=config.variational_dropout)
