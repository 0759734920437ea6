"""Layers. Tensors carry their shape in their name:

    B batch            T new positions    S all keys        D d_model        H heads        E head width
    F d_ff             V vocabulary       C classes         N rows being decoded

`scores_BHTS = q_BHTE @ k_BHSE.mT / math.sqrt(E)`; `scores` are before the softmax, `weights` after it.
A boolean's name says what True means: `valid_BT` marks real tokens, `allowed_BHTS` what a query may see.

MIXERS is the one table of mixers. A new mixer is a new file with its config, module and state, and one row here; the
row feeds the config union, the builder and the law tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tripel.config import Config
from tripel.nn.attention import Attention, AttentionConfig
from tripel.nn.mixer import Mixer


@dataclass(frozen=True)
class MixerRow:
    """config: its pydantic class. build(config, d_model, causal=...) makes the module. causal_only: no encoder use."""

    config: type[Config]
    build: Callable[..., Mixer]
    example: Callable[[], Any]  # a small config for tests
    causal_only: bool = False


MIXERS: dict[str, MixerRow] = {
    "attention": MixerRow(AttentionConfig, Attention, lambda: AttentionConfig(n_heads=2)),
}

# The tagged union of all rows; pydantic picks by `kind`. (With a second row: Annotated[A | B, Field(discriminator="kind")].)
MixerConfig = AttentionConfig


def build_mixer(config: MixerConfig, d_model: int, *, causal: bool) -> Mixer:
    """The mixer that config names, for a residual stream of width d_model."""
    return MIXERS[config.kind].build(config, d_model, causal=causal)
