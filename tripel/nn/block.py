"""One block: a mixer, optionally cross-attention, and a feed-forward part, each wired into the residual stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tripel.nn.attention import CrossAttention
from tripel.nn.dropout import add_dropout, dropout
from tripel.nn.exact import LayerNorm
from tripel.nn.mixer import Mixer, State, Taps, scoped

WiringKind = Literal["post", "pre", "none"]
Activation = Literal["relu", "gelu", "silu"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class Wiring(nn.Module):
    """How a sub-layer f joins the residual stream. Nothing else knows where the norm stands.

    post: norm(x + f(x))   Vaswani et al. 2017        pre: x + f(norm(x))   Xiong et al. 2020        none: f(x)
    Dropout acts on the output of f (Vaswani 2017, section 5.4).
    """

    def __init__(self, kind: WiringKind, d_model: int, *, norm_eps: float, dropout: float) -> None:
        super().__init__()
        self.kind = kind
        self.norm = LayerNorm(d_model, eps=norm_eps) if kind != "none" else nn.Identity()
        self.dropout = dropout

    def forward(self, x_BTD: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        rate = self.dropout if self.training else 0.0
        if self.kind == "post":
            return self.norm(add_dropout(x_BTD, f(x_BTD), rate))
        if self.kind == "pre":
            return add_dropout(x_BTD, f(self.norm(x_BTD)), rate)
        return dropout(f(x_BTD), rate)


class FeedForward(nn.Module):
    """Two linear maps around an activation, on every position alone (Vaswani 2017, eq. 2)."""

    def __init__(self, d_model: int, d_ff: int, activation: Activation) -> None:
        super().__init__()
        self.inner = nn.Linear(d_model, d_ff)
        self.outer = nn.Linear(d_ff, d_model)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.outer(self.activation(self.inner(x_BTD)))


class Block(nn.Module):
    """mixer, [cross-attention], feed-forward; each through a Wiring of its own.

    taps: resid_pre, resid_mid (before the feed-forward part), resid_post; `self.*` and `cross.*` from the mixers.
    """

    def __init__(
        self, mixer: Mixer, cross: CrossAttention | None, feed_forward: FeedForward, wiring: Callable[[], Wiring]
    ) -> None:
        super().__init__()
        self.mixer, self.mixer_wiring = mixer, wiring()
        self.cross, self.cross_wiring = cross, wiring() if cross is not None else None
        self.feed_forward, self.feed_forward_wiring = feed_forward, wiring()

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
        x_BTD = self.feed_forward_wiring(x_BTD, self.feed_forward)
        if taps is not None:
            taps("resid_post", x_BTD)
        return x_BTD
