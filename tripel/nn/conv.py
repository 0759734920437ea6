"""Gated convolution (Dauphin et al. 2017): a mixer that sees a fixed number of neighbours, all positions at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self, cast

import torch
from pydantic import Field
from torch import Tensor

from tripel.nn.linear import FusedLinear
from tripel.nn.mixer import BaseMixerConfig, Mixer, State, Taps


class ConvConfig(BaseMixerConfig):
    """kernel: positions seen. dilation: the distance between them; several are taken in turn, layer by layer, so that
    1, 2, 4, 8 see kernel * 15 positions with four layers (van den Oord et al. 2016)."""

    kind: Literal["conv"] = "conv"
    kernel: int = Field(default=4, ge=1, le=1024)
    dilation: int | tuple[int, ...] = 1

    def at_layer(self, layer: int) -> ConvConfig:
        """The settings of one layer, with a single dilation."""
        if isinstance(self.dilation, int):
            return self
        return self.model_copy(update={"dilation": self.dilation[layer % len(self.dilation)]})


class Conv(Mixer):
    """y = (X * W + b) x sigmoid(X * V + c) (Dauphin et al. 2017, eq. 1), as one product over the positions seen.

    Causal, a position sees itself and kernel - 1 before it; both ways, as many on each side (the odd one before).
    taps: `gate` (B, T, D), after the sigmoid.
    """

    constant_state: ClassVar[bool] = True

    def __init__(self, config: ConvConfig, d_model: int, *, causal: bool) -> None:
        super().__init__()
        dilation = config.at_layer(0).dilation
        assert isinstance(dilation, int)
        self.causal, self.kernel, self.dilation = causal, config.kernel, dilation
        self.reach = (config.kernel - 1) * dilation
        self.before = self.reach if causal else (config.kernel // 2) * dilation
        self.value_gate = FusedLinear(config.kernel * d_model, (d_model, d_model), bias=True)

    def forward(
        self, x_BTD: Tensor, *, valid_BT: Tensor | None = None, state: State | None = None, taps: Taps | None = None
    ) -> Tensor:
        B, T, D = x_BTD.shape
        if valid_BT is not None and not self.causal:
            x_BTD = x_BTD * valid_BT[..., None]  # what lies beyond the end of a row is nothing, not padding
        if state is not None:
            x_BSD = cast(ConvState, state).append(x_BTD)
        else:
            x_BSD = x_BTD.new_zeros(B, self.reach + T, D)
            x_BSD[:, self.before : self.before + T] = x_BTD
        seen = [x_BSD[:, i * self.dilation : i * self.dilation + T] for i in range(self.kernel)]
        value_BTD, gate_BTD = self.value_gate(torch.cat(seen, dim=-1) if self.kernel > 1 else seen[0]).chunk(2, dim=-1)
        gate_BTD = gate_BTD.sigmoid()
        if taps is not None:
            taps("gate", gate_BTD)
        return value_BTD * gate_BTD

    def init_state(self, batch: int, max_len: int) -> ConvState:
        """max_len does not matter: only the last (kernel - 1) * dilation inputs are kept."""
        weight = self.value_gate.weight
        return ConvState(weight.new_zeros(batch, self.reach, weight.shape[1] // self.kernel))


class ConvState(State):
    """The last inputs (N, reach, D); zeros where a row has read fewer."""

    def __init__(self, past_NRD: Tensor) -> None:
        self.past_NRD = past_NRD

    def append(self, x_NTD: Tensor) -> Tensor:
        """The inputs kept, then the new ones (N, reach + T, D); the last of them are kept."""
        whole_NSD = torch.cat([self.past_NRD.to(x_NTD.dtype), x_NTD], dim=1)
        self.past_NRD = whole_NSD[:, whole_NSD.shape[1] - self.past_NRD.shape[1] :].detach()
        return whole_NSD

    def select(self, rows_N: Tensor) -> None:
        self.past_NRD = self.past_NRD.index_select(0, rows_N)

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        return cls(torch.cat([state.past_NRD for state in states]))

    def tensors(self) -> dict[str, Tensor]:
        return {"past": self.past_NRD}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.past_NRD = tensors["past"].to(self.past_NRD)
