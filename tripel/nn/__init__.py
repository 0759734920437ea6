"""Layers. Tensors carry their shape in their name:

    B batch            T new positions    S all keys        D d_model        H heads        E head width
    F d_ff             V vocabulary       C classes         N rows being decoded

`scores_BHTS = q_BHTE @ k_BHSE.mT / math.sqrt(E)`; `scores` are before the softmax, `weights` after it.
A boolean's name says what True means: `valid_BT` marks real tokens, `allowed_BHTS` what a query may see.

MIXERS is the one table of mixers. A new mixer is a new file with its config, module and state, and one row here; the
row feeds the config union, the builder and the law tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from tripel.nn.attention import Attention, AttentionConfig
from tripel.nn.conv import Conv, ConvConfig
from tripel.nn.mixer import BaseMixerConfig, Mixer
from tripel.nn.recurrent import LSTM, RNN, LSTMConfig, RNNConfig


@dataclass(frozen=True)
class Example:
    """A small config for tests. reach: positions seen to each side, itself included; None for all. fades: whether what
    is long past may be forgotten to the last bit, as units of a relu that are off forget it."""

    config: Any
    reach: int | None = None
    fades: bool = False


@dataclass(frozen=True)
class MixerRow:
    """config: its pydantic class. build: its module, made with (config, d_model, causal=...). causal_only: no encoder use.

    examples: the plain one, then those that turn options on, by name.
    """

    config: type[BaseMixerConfig]
    build: type[Mixer]
    examples: dict[str, Example]
    causal_only: bool = False


MIXERS: dict[str, MixerRow] = {
    "attention": MixerRow(
        AttentionConfig,
        Attention,
        {
            "plain": Example(AttentionConfig(n_heads=2)),
            "rotary": Example(AttentionConfig(n_heads=2, n_kv_heads=1, rotary=True, qk_norm=True, bias=False)),
            "window": Example(AttentionConfig(n_heads=2, window=5), reach=5),
        },
    ),
    "rnn": MixerRow(
        RNNConfig,
        RNN,
        {
            "plain": Example(RNNConfig()),
            "relu": Example(RNNConfig(activation="relu", d_hidden=12), fades=True),
        },
    ),
    "lstm": MixerRow(
        LSTMConfig,
        LSTM,
        {"plain": Example(LSTMConfig()), "wide": Example(LSTMConfig(d_hidden=12, weight_drop=0.5))},
    ),
    "conv": MixerRow(
        ConvConfig,
        Conv,
        {
            "plain": Example(ConvConfig(kernel=3), reach=3),
            "dilated": Example(ConvConfig(kernel=4, dilation=2), reach=7),
            "pointwise": Example(ConvConfig(kernel=1), reach=1),
        },
    ),
}

# The tagged union of all rows.
MixerConfig = Annotated[AttentionConfig | RNNConfig | LSTMConfig | ConvConfig, Field(discriminator="kind")]


def build_mixer(config: Any, d_model: int, *, causal: bool) -> Mixer:
    """The mixer that config (a MixerConfig) names, for a residual stream of width d_model."""
    return MIXERS[config.kind].build(config, d_model, causal=causal)  # type: ignore[call-arg]
