"""What a model is: skeleton, mixers, wiring and the handful of scalars that exact Hugging Face parity needs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tripel.config import Config
from tripel.nn import AttentionConfig, MixerConfig
from tripel.nn.block import Activation, WiringKind
from tripel.nn.embed import PositionKind, SinusoidOrder


class StackConfig(Config):
    """A stack of n_layers equal blocks around one kind of mixer. d_ff: None takes the model's."""

    n_layers: int = Field(default=6, ge=1, le=1000)
    mixer: MixerConfig = AttentionConfig()
    d_ff: int | None = Field(default=None, ge=1, le=1 << 20)


class EncoderDecoderConfig(Config):
    """Encoder-decoder (Vaswani et al. 2017). Vocabulary sizes come from the tokenizers, not from here.

    tie: `all` one matrix for source, target and head (needs a shared vocabulary); `target` target embedding and head;
    `none` three matrices.
    """

    kind: Literal["encoder-decoder"] = "encoder-decoder"
    d_model: int = Field(default=512, ge=2, le=65536)
    d_ff: int = Field(default=2048, ge=1, le=1 << 20)
    encoder: StackConfig = StackConfig()
    decoder: StackConfig = StackConfig()
    wiring: WiringKind = "post"
    activation: Activation = "relu"
    norm_eps: float = Field(default=1e-5, gt=0)
    positions: PositionKind = "sinusoidal"
    sinusoid_order: SinusoidOrder = "halves"
    embed_scale: bool = True
    tie: Literal["all", "target", "none"] = "all"
    head_bias: bool = False
    max_len: int = Field(default=512, ge=2, le=1 << 20)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> EncoderDecoderConfig:
        for side in ("encoder", "decoder"):
            n_heads = getattr(self, side).mixer.n_heads
            if self.d_model % n_heads:
                raise ValueError(
                    f"d_model {self.d_model} is not divisible by {side}.mixer.n_heads {n_heads}; "
                    f"use a number of heads that divides it"
                )
        if self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} is odd; sinusoids need an even width")
        return self


class Vocabulary(Config):
    """What the model must know of its tokenizers. start_id begins every target; eos_id ends it."""

    source_size: int = Field(ge=4, le=1 << 24)
    target_size: int = Field(ge=4, le=1 << 24)
    pad_id: int = Field(ge=0)
    eos_id: int = Field(ge=0)
    start_id: int = Field(ge=0)


ModelConfig = EncoderDecoderConfig
