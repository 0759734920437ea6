"""Models by the names the papers gave them."""

from __future__ import annotations

from tripel.models.config import EncoderDecoderConfig, StackConfig
from tripel.nn import AttentionConfig


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


CATALOG = {
    "transformer_tiny": transformer_tiny,
    "transformer_base": transformer_base,
    "transformer_big": transformer_big,
}
