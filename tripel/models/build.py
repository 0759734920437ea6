"""From a config to a model with fresh weights."""

from __future__ import annotations

import math

from torch import nn

from tripel.errors import RecipeError
from tripel.models.config import (
    AnyModelConfig,
    AnyVocabulary,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ImageVocabulary,
    ResNetConfig,
    SkeletonConfig,
    StackConfig,
    StackedConfig,
    TextModelConfig,
    ViTConfig,
    Vocabulary,
)
from tripel.models.decoder import Decoder
from tripel.models.encoder import Encoder
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.models.initial import initialise
from tripel.models.vision import ResNet, VisionTransformer
from tripel.nn import build_mixer
from tripel.nn.attention import AttentionConfig, CrossAttention
from tripel.nn.block import ACTIVATIONS, NORMS, Block, FeedForward, Wiring
from tripel.nn.embed import Embedding, Positions, TextEmbedding
from tripel.nn.heads import ClassHead, MaskedTokenHead, VocabularyHead
from tripel.nn.patches import PatchEmbedding, PatchPositions, PatchStem
from tripel.nn.resnet import ConvNorm, ConvStem, ResidualBlock, ResidualStages, norm_of
from tripel.nn.stack import Stack

Model = EncoderDecoder | Decoder | Encoder | VisionTransformer | ResNet


def build(config: AnyModelConfig, vocabulary: AnyVocabulary) -> Model:
    """The model that config describes, initialised from the current random state (or left empty on the meta device)."""
    model: Model
    if isinstance(config, ViTConfig | ResNetConfig):
        assert isinstance(vocabulary, ImageVocabulary)
        _require_channels(config.channels, vocabulary)
        model = _vit(config, vocabulary) if isinstance(config, ViTConfig) else _resnet(config, vocabulary)
    else:
        assert isinstance(vocabulary, Vocabulary)
        model = _of_tokens(config, vocabulary)
    if not next(model.parameters()).is_meta:  # there, random numbers would only cost the import of torch's compiler
        initialise(model)
    return model


def _of_tokens(config: TextModelConfig, vocabulary: Vocabulary) -> Model:
    model: Model
    if isinstance(config, DecoderConfig):
        model = Decoder(config, vocabulary, _stack(config, config.stacks()["decoder"], causal=True), _embedding(config))
    elif isinstance(config, EncoderConfig):
        model = _encoder(config, vocabulary)
    else:
        model = _encoder_decoder(config, vocabulary)
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


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model; a matrix used twice counts once."""
    return sum(p.numel() for p in model.parameters())


def _require_channels(channels: int, vocabulary: ImageVocabulary) -> None:
    if channels != len(vocabulary.mean):
        raise RecipeError(
            "the pictures' mean and deviation do not fit the model",
            given=f"{len(vocabulary.mean)} channel(s) for model.channels {channels}",
            expected=f"{channels}",
            mend="use the settings that the model was trained with",
        )


def _vit(config: ViTConfig, vocabulary: ImageVocabulary) -> VisionTransformer:
    d_model, channels = config.d_model, config.channels
    stem: nn.Module = PatchStem(channels, config.patch_size, d_model)
    if config.stem == "conv":
        norm = norm_of(config.stem_norm, 1e-5, math.gcd(config.stem_width, 32))
        stem = ConvStem(channels, config.stem_width, config.patch_size.bit_length() - 1, d_model, norm)
    positions = PatchPositions(config.positions, config.side, d_model, class_token=config.pool == "cls")
    embedding = PatchEmbedding(stem, positions, dropout=config.dropout)
    encoder = _stack(config, config.stacks()["encoder"], causal=False)
    head = ClassHead(d_model, len(vocabulary.labels), dropout=config.dropout)
    return VisionTransformer(config, vocabulary, embedding, encoder, head)


def _resnet(config: ResNetConfig, vocabulary: ImageVocabulary) -> ResNet:
    norm = norm_of(config.norm, config.norm_eps, config.n_groups)
    kernel, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
    stem = ConvNorm(config.channels, config.stem_width, kernel, norm, stride=stride)
    stages, n_in = [], config.stem_width
    for number, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
        blocks = []
        for place in range(depth):
            stride = 2 if number and not place else 1
            block = ResidualBlock(
                n_in, width, stride, config.block, config.activation, norm, stride_in_1x1=config.stride_in_1x1
            )
            blocks.append(block)
            n_in = width
        stages.append(blocks)
    body = ResidualStages(config.channels, stem, stages, config.activation, pooled_stem=config.stem == "imagenet")
    return ResNet(config, vocabulary, body, ClassHead(n_in, len(vocabulary.labels), dropout=config.dropout))


def _stack(config: StackedConfig, stack: StackConfig, *, causal: bool, cross: bool = False) -> Stack:
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


def _cross_attention(config: StackedConfig, stack: StackConfig) -> CrossAttention:
    """Cross-attention is attention whatever the decoder's mixer is; it borrows that mixer's settings when it can."""
    if isinstance(stack.mixer, AttentionConfig):
        return CrossAttention(stack.mixer, config.d_model, config.d_model)
    n_heads = next(n for n in (8, 4, 2, 1) if config.d_model % n == 0)
    return CrossAttention(AttentionConfig(n_heads=n_heads), config.d_model, config.d_model)


def _embedding(config: SkeletonConfig) -> Embedding:
    positions = Positions(config.positions, config.max_len, config.d_model, order=config.sinusoid_order)
    return Embedding(positions, dropout=config.dropout, variational=config.variational_dropout)
