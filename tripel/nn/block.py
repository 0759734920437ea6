"""One block: a mixer, optionally cross-attention, and a feed-forward part, each wired into the residual stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tripel.nn.attention import CrossAttention
from tripel.nn.dropout import add_dropout, dropout, variational_dropout
from tripel.nn.exact import LayerNorm, RMSNorm
from tripel.nn.linear import FusedLinear
from tripel.nn.mixer import Mixer, State, Taps, scoped

WiringKind = Literal["post", "pre", "none"]
NormKind = Literal["layer", "rms"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "relu_squared", "swiglu"]


def _relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So et al. 2021)."""
    x = F.relu(x)
    return x * x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "relu_squared": _relu_squared,
}
NORMS: dict[str, Callable[..., nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm}


class Wiring(nn.Module):
    """How a sub-layer f joins the residual stream. Nothing else knows where the norm stands.

    post: norm(x + f(x))   Vaswani et al. 2017        pre: x + f(norm(x))   Xiong et al. 2020        none: f(x)
    Dropout acts on the output of f (Vaswani 2017, section 5.4). norm: made for each wiring, None without one.
    variational: one dropout mask for all positions of a row (Gal & Ghahramani 2016).
    """

    def __init__(self, kind: WiringKind, norm: nn.Module | None, *, dropout: float, variational: bool = False) -> None:
        super().__init__()
        self.kind, self.dropout, self.variational = kind, dropout, variational
        self.norm = nn.Identity() if norm is None else norm

    def forward(self, x_BTD: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        rate = self.dropout if self.training else 0.0
        if self.variational and rate:
            inner, f, rate = f, lambda x: variational_dropout(inner(x), self.dropout), 0.0
        if self.kind == "post":
            return self.norm(add_dropout(x_BTD, f(x_BTD), rate))
        if self.kind == "pre":
            return add_dropout(x_BTD, f(self.norm(x_BTD)), rate)
        return dropout(f(x_BTD), rate)


class FeedForward(nn.Module):
    """Two linear maps around an activation, on every position alone (Vaswani 2017, eq. 2).

    swiglu: the inner map is two, a gate through SiLU times a value (Shazeer 2020).
    """

    def __init__(self, d_model: int, d_ff: int, activation: Activation, *, bias: bool = True) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        self.inner = (
            FusedLinear(d_model, (d_ff, d_ff), bias=bias) if self.gated else nn.Linear(d_model, d_ff, bias=bias)
        )
        self.outer = nn.Linear(d_ff, d_model, bias=bias)
        self.activation = F.silu if self.gated else ACTIVATIONS[activation]

    def forward(self, x_BTD: Tensor) -> Tensor:
        if not self.gated:
            return self.outer(self.activation(self.inner(x_BTD)))
        gate_BTF, value_BTF = self.inner(x_BTD).chunk(2, dim=-1)
        return self.outer(self.activation(gate_BTF) * value_BTF)


class Block(nn.Module):
    """mixer, [cross-attention], [feed-forward]; each through a Wiring of its own.

    taps: resid_pre, resid_mid (before the feed-forward part), resid_post; `self.*` and `cross.*` from the mixers.
    """

    def __init__(
        self,
        mixer: Mixer,
        cross: CrossAttention | None,
        feed_forward: FeedForward | None,
        wiring: Callable[[], Wiring],
    ) -> None:
        super().__init__()
        self.mixer, self.mixer_wiring = mixer, wiring()
        self.cross, self.cross_wiring = cross, wiring() if cross is not None else None
        self.feed_forward, self.feed_forward_wiring = feed_forward, wiring() if feed_forward is not None else None

    def forward(
        self,
        x_BTD: Tensor,
        *,
        valid_BT: Tensor | None = None,
        state: State | None = None,
        memory: tuple[tuple[Tensor, Tensor], Tensor | None] | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """memory: this block's cross-attention keys and values, and which memory positions are valid (None: all)."""
        if taps is not None:
            taps("resid_pre", x_BTD)
        x_BTD = self.mixer_wiring(
            x_BTD, lambda x: self.mixer(x, valid_BT=valid_BT, state=state, taps=scoped(taps, "self"))
        )
        if self.cross is not None and self.cross_wiring is not None and memory is not None:
            cross, (keys_values, valid_BS) = self.cross, memory
            x_BTD = self.cross_wiring(
                x_BTD, lambda x: cross(x, keys_values, valid_BS=valid_BS, taps=scoped(taps, "cross"))
            )
        if taps is not None:
            taps("resid_mid", x_BTD)
        if self.feed_forward is not None and self.feed_forward_wiring is not None:
            x_BTD = self.feed_forward_wiring(x_BTD, self.feed_forward)
        if taps is not None:
            taps("resid_post", x_BTD)
        return x_BTD
