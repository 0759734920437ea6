"""Models by the names the papers gave them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from tripel.models.config import (
    AnyModelConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ResNetConfig,
    StackConfig,
    ViTConfig,
)
from tripel.nn import AttentionConfig, ConvConfig, LSTMConfig, RNNConfig


def _transformer(n_layers: int, d_model: int, d_ff: int, n_heads: int, dropout: float) -> EncoderDecoderConfig:
    stack = StackConfig(n_layers=n_layers, mixer=AttentionConfig(n_heads=n_heads))
    return EncoderDecoderConfig(d_model=d_model, d_ff=d_ff, encoder=stack, decoder=stack, dropout=dropout)


def transformer_tiny() -> EncoderDecoderConfig:
    """4+4 layers, d_model 128, d_ff 256, 4 heads, dropout 0.3: Transformer-Tiny of Wu et al. 2021 (Multi30k)."""
    return _transformer(4, 128, 256, 4, 0.3)


def transformer_base() -> EncoderDecoderConfig:
    """6+6 layers, d_model 512, d_ff 2048, 8 heads: Vaswani et al. 2017, table 3, `base` (65 million parameters)."""
    return _transformer(6, 512, 2048, 8, 0.1)


def transformer_big() -> EncoderDecoderConfig:
    """6+6 layers, d_model 1024, d_ff 4096, 16 heads: Vaswani et al. 2017, table 3, `big` (213 million parameters)."""
    return _transformer(6, 1024, 4096, 16, 0.3)


def _gpt2(n_layers: int, d_model: int, n_heads: int) -> DecoderConfig:
    """Pre-norm, learned positions, tanh-GELU, tied head (Radford et al. 2019, table 2 and section 2.3)."""
    mixer = AttentionConfig(n_heads=n_heads, dropout=0.1)
    return DecoderConfig(n_layers=n_layers, d_model=d_model, d_ff=4 * d_model, mixer=mixer, max_len=1024)


def gpt2() -> DecoderConfig:
    """12 layers, d_model 768, 12 heads: GPT-2 small (124 million parameters with its vocabulary of 50,257)."""
    return _gpt2(12, 768, 12)


def gpt2_medium() -> DecoderConfig:
    """24 layers, d_model 1024, 16 heads: GPT-2 medium (355 million parameters)."""
    return _gpt2(24, 1024, 16)


def gpt2_large() -> DecoderConfig:
    """36 layers, d_model 1280, 20 heads: GPT-2 large (774 million parameters)."""
    return _gpt2(36, 1280, 20)


def gpt2_xl() -> DecoderConfig:
    """48 layers, d_model 1600, 25 heads: GPT-2 XL (1,558 million parameters)."""
    return _gpt2(48, 1600, 25)


def gpt_modern() -> DecoderConfig:
    """A Llama-like model (Touvron et al. 2023): rotary positions, RMSNorm, SwiGLU, 4 shared key-value heads, no biases.

    12 layers, d_model 768, 12 heads, d_ff 2048: of the size of GPT-2 small.
    """
    return DecoderConfig(
        n_layers=12,
        d_model=768,
        d_ff=2048,
        mixer=AttentionConfig(n_heads=12, n_kv_heads=4, rotary=True, bias=False),
        activation="swiglu",
        norm="rms",
        bias=False,
        positions="none",
        max_len=1024,
        dropout=0.0,
    )


def _recurrent(mixer: RNNConfig | LSTMConfig, n_layers: int, d_model: int, dropout: float) -> DecoderConfig:
    """Layers of one recurrence straight after another, without norms, residual paths or feed-forward parts."""
    return DecoderConfig(
        n_layers=n_layers,
        d_model=d_model,
        d_ff=0,
        mixer=mixer,
        wiring="none",
        positions="none",
        initialisation="glorot",
        head_bias=True,
        dropout=dropout,
        variational_dropout=True,
        max_len=1024,
    )


def rnn_lm() -> DecoderConfig:
    """Two tanh layers of 512 units: the recurrent language model of Mikolov et al. 2010, with a second layer."""
    return _recurrent(RNNConfig(), 2, 512, 0.2)


def lstm_lm() -> DecoderConfig:
    """AWD-LSTM (Merity et al. 2018): three layers of 1,150 units on embeddings of 400, tied, weight drop 0.5 and
    variational dropout. Between layers ours maps back to 400, so that every layer's input is of one width."""
    return _recurrent(LSTMConfig(d_hidden=1150, weight_drop=0.5), 3, 400, 0.4)


def conv_lm() -> DecoderConfig:
    """Gated convolutions with residual paths (Dauphin et al. 2017): 12 layers of width 512, kernel 4, dilations 1, 2, 4."""
    return DecoderConfig(
        n_layers=12,
        d_model=512,
        d_ff=0,
        mixer=ConvConfig(kernel=4, dilation=(1, 2, 4)),
        positions="none",
        dropout=0.1,
        max_len=1024,
    )


def _bert(n_layers: int, d_model: int) -> EncoderConfig:
    """Post-norm, learned positions, two token types, GELU, heads of width 64 (Devlin et al. 2019, section 3)."""
    mixer = AttentionConfig(n_heads=d_model // 64, dropout=0.1)
    return EncoderConfig(n_layers=n_layers, d_model=d_model, d_ff=4 * d_model, mixer=mixer)


def bert_tiny() -> EncoderConfig:
    """2 layers, d_model 128, 2 heads: BERT-tiny of Turc et al. 2019 (4.4 million parameters with BERT's vocabulary)."""
    return _bert(2, 128)


def bert_mini() -> EncoderConfig:
    """4 layers, d_model 256, 4 heads: BERT-mini of Turc et al. 2019 (11.3 million parameters)."""
    return _bert(4, 256)


def bert_small() -> EncoderConfig:
    """4 layers, d_model 512, 8 heads: BERT-small of Turc et al. 2019 (29.1 million parameters)."""
    return _bert(4, 512)


def bert_base() -> EncoderConfig:
    """12 layers, d_model 768, 12 heads: Devlin et al. 2019, section 3, BASE (110 million parameters)."""
    return _bert(12, 768)


def bert_large() -> EncoderConfig:
    """24 layers, d_model 1024, 16 heads: Devlin et al. 2019, section 3, LARGE (340 million parameters)."""
    return _bert(24, 1024)


def bert_modern() -> EncoderConfig:
    """An encoder of today in the line of ModernBERT (Warner et al. 2024): rotary positions, pre-norm, gated feed-forward,
    no biases in it, no token types. 22 layers, d_model 768, 12 heads, as its base size."""
    return EncoderConfig(
        n_layers=22,
        d_model=768,
        d_ff=1152,
        mixer=AttentionConfig(n_heads=12, rotary=True, bias=False),
        wiring="pre",
        activation="swiglu",
        norm_eps=1e-5,
        bias=False,
        positions="none",
        token_types=0,
        max_len=1024,
        dropout=0.0,
    )


def _vit(n_layers: int, d_model: int, n_heads: int, patch_size: int = 16) -> ViTConfig:
    """Pre-norm, learned positions, a class token, pictures of 224 x 224 (Dosovitskiy et al. 2021, section 3.1)."""
    mixer = AttentionConfig(n_heads=n_heads)
    return ViTConfig(n_layers=n_layers, d_model=d_model, d_ff=4 * d_model, mixer=mixer, patch_size=patch_size)


def vit_tiny() -> ViTConfig:
    """12 layers, d_model 192, 3 heads, patches of 16: DeiT-Ti of Touvron et al. 2021 (5.7 million parameters)."""
    return _vit(12, 192, 3)


def vit_small() -> ViTConfig:
    """12 layers, d_model 384, 6 heads, patches of 16: DeiT-S of Touvron et al. 2021 (22 million parameters)."""
    return _vit(12, 384, 6)


def vit_base() -> ViTConfig:
    """12 layers, d_model 768, 12 heads: ViT-Base/16 of Dosovitskiy et al. 2021, table 1 (86 million parameters)."""
    return _vit(12, 768, 12)


def vit_large() -> ViTConfig:
    """24 layers, d_model 1024, 16 heads: ViT-Large/16 of Dosovitskiy et al. 2021, table 1 (307 million parameters)."""
    return _vit(24, 1024, 16)


def vit_huge() -> ViTConfig:
    """32 layers, d_model 1280, 16 heads: ViT-Huge/14 of Dosovitskiy et al. 2021, table 1 (632 million parameters)."""
    return _vit(32, 1280, 16, patch_size=14)


def vit_hybrid() -> ViTConfig:
    """ViT-Small whose patches are made by four convolutions of stride 2, with a layer less (Xiao et al. 2021, ViT_C-4GF's
    stem, which starts with 48 channels)."""
    return _vit(11, 384, 6).model_copy(update={"stem": "conv", "stem_width": 48})


def _resnet(block: Literal["basic", "bottleneck"], *depths: int) -> ResNetConfig:
    """He et al. 2016, table 1; of a bottleneck the 3x3 convolution has the stride, as in everybody's code since 2015."""
    wider = 1 if block == "basic" else 4
    return ResNetConfig(block=block, depths=depths, widths=(64 * wider, 128 * wider, 256 * wider, 512 * wider))


def resnet18() -> ResNetConfig:
    """18 layers of basic blocks: He et al. 2016, table 1 (11.7 million parameters)."""
    return _resnet("basic", 2, 2, 2, 2)


def resnet34() -> ResNetConfig:
    """34 layers of basic blocks: He et al. 2016, table 1 (21.8 million parameters)."""
    return _resnet("basic", 3, 4, 6, 3)


def resnet50() -> ResNetConfig:
    """50 layers of bottlenecks: He et al. 2016, table 1 (25.6 million parameters)."""
    return _resnet("bottleneck", 3, 4, 6, 3)


def resnet101() -> ResNetConfig:
    """101 layers of bottlenecks: He et al. 2016, table 1 (44.5 million parameters)."""
    return _resnet("bottleneck", 3, 4, 23, 3)


def resnet152() -> ResNetConfig:
    """152 layers of bottlenecks: He et al. 2016, table 1 (60.2 million parameters)."""
    return _resnet("bottleneck", 3, 8, 36, 3)


CATALOG: dict[str, Callable[[], AnyModelConfig]] = {
    "transformer_tiny": transformer_tiny,
    "transformer_base": transformer_base,
    "transformer_big": transformer_big,
    "gpt2": gpt2,
    "gpt2_medium": gpt2_medium,
    "gpt2_large": gpt2_large,
    "gpt2_xl": gpt2_xl,
    "gpt_modern": gpt_modern,
    "bert_tiny": bert_tiny,
    "bert_mini": bert_mini,
    "bert_small": bert_small,
    "bert_base": bert_base,
    "bert_large": bert_large,
    "bert_modern": bert_modern,
    "rnn_lm": rnn_lm,
    "lstm_lm": lstm_lm,
    "conv_lm": conv_lm,
    "vit_tiny": vit_tiny,
    "vit_small": vit_small,
    "vit_base": vit_base,
    "vit_large": vit_large,
    "vit_huge": vit_huge,
    "vit_hybrid": vit_hybrid,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
}
