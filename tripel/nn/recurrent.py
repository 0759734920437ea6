"""Recurrent mixers: the simple recurrent network (Elman 1990) and the LSTM (Hochreiter & Schmidhuber 1997).

They run on PyTorch's own recurrent kernels (`torch.rnn_tanh`, `torch.rnn_relu`, `torch.lstm`: what nn.RNN and nn.LSTM call).
Their maps are FusedLinear modules all the same, so that initialisation and optimizers treat them like any other map.
A state holds numbers, not a graph: gradients end where a state begins (truncated back-propagation through time).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tripel.nn.dropout import dropout
from tripel.nn.linear import FusedLinear
from tripel.nn.mixer import BaseMixerConfig, Mixer, State, Taps


class RecurrentConfig(BaseMixerConfig):
    """d_hidden: units of the recurrence, None for d_model; another width adds a map back to d_model.

    weight_drop: DropConnect on the hidden-to-hidden weights, one mask for a whole sequence (Merity et al. 2018).
    Reading both ways, each direction has half the units.
    """

    d_hidden: int | None = Field(default=None, ge=1, le=65536)
    weight_drop: float = Field(default=0.0, ge=0.0, lt=1.0)


class RNNConfig(RecurrentConfig):
    """h_t = f(W x_t + U h_{t-1} + b) (Elman 1990), f tanh or relu."""

    kind: Literal["rnn"] = "rnn"
    activation: Literal["tanh", "relu"] = "tanh"


class LSTMConfig(RecurrentConfig):
    """Input, forget and output gates around a memory cell (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    forget_bias: what the forget gate's bias begins with (Jozefowicz et al. 2015).
    """

    kind: Literal["lstm"] = "lstm"
    forget_bias: float = 1.0


class RecurrentState(State):
    """hidden_NH, and for an LSTM its cell_NH: all that is known of the past, however long it was."""

    def __init__(self, parts: tuple[Tensor, ...]) -> None:
        self.parts = parts

    def select(self, rows_N: Tensor) -> None:
        self.parts = tuple(part.index_select(0, rows_N) for part in self.parts)

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        return cls(tuple(torch.cat(parts) for parts in zip(*(state.parts for state in states), strict=True)))

    def tensors(self) -> dict[str, Tensor]:
        return {str(number): part for number, part in enumerate(self.parts)}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.parts = tuple(tensors[str(number)].to(part) for number, part in enumerate(self.parts))


class _Direction(nn.Module):
    """The maps of one reading direction. n_maps: of each unit (an LSTM's input, forget, cell and output maps: 4)."""

    def __init__(self, d_model: int, n_units: int, n_maps: int) -> None:
        super().__init__()
        self.input = FusedLinear(d_model, (n_units,) * n_maps, bias=True)
        self.hidden = FusedLinear(n_units, (n_units,) * n_maps, bias=False)

    def weights(self, weight_drop: float) -> list[Tensor]:
        """What the kernels take, with the hidden-to-hidden weights thinned out at this rate."""
        bias = cast(Tensor, self.input.bias)
        return [self.input.weight, dropout(self.hidden.weight, weight_drop), bias, torch.zeros_like(bias)]


class Recurrent(Mixer):
    """What RNN and LSTM share: directions, states, the map back to d_model."""

    constant_state: ClassVar[bool] = True
    n_maps: ClassVar[int]
    n_parts: ClassVar[int]  # tensors in a state

    def __init__(self, config: RecurrentConfig, d_model: int, *, causal: bool) -> None:
        super().__init__()
        n_hidden = config.d_hidden or d_model
        if not causal and n_hidden % 2:
            raise ValueError(f"{n_hidden} hidden units cannot be divided between two reading directions")
        self.causal, self.weight_drop = causal, config.weight_drop
        self.n_units = n_hidden if causal else n_hidden // 2
        self.forwards = _Direction(d_model, self.n_units, self.n_maps)
        self.backwards = None if causal else _Direction(d_model, self.n_units, self.n_maps)
        self.output = nn.Linear(n_hidden, d_model) if n_hidden != d_model else None

    def initialise(self, scheme: str) -> None:
        """Orthogonal hidden-to-hidden maps (Saxe et al. 2014): a signal neither vanishes nor explodes on its first way."""
        for direction in filter(None, (self.forwards, self.backwards)):
            for part in direction.hidden.parts():
                nn.init.orthogonal_(part)

    def forward(
        self, x_BTD: Tensor, *, valid_BT: Tensor | None = None, state: State | None = None, taps: Taps | None = None
    ) -> Tensor:
        past = self.init_state(len(x_BTD), 0) if state is None else cast(RecurrentState, state)
        parts = tuple(part.to(x_BTD.dtype) for part in past.parts)
        y_BTH, last = self._read(x_BTD, parts, self.forwards, taps)
        if state is not None:
            past.parts = tuple(part.detach() for part in last)
        if self.backwards is not None:  # right padding is read first this way: it must be moved out of the way
            order_BT = None if valid_BT is None else _reversed(valid_BT)
            inner = taps.scope("backwards") if taps is not None else None
            back_BTH, _ = self._read(_take(x_BTD, order_BT), parts, self.backwards, inner)
            y_BTH = torch.cat([y_BTH, _take(back_BTH, order_BT)], dim=-1)
        return y_BTH if self.output is None else self.output(y_BTH)

    def init_state(self, batch: int, max_len: int) -> RecurrentState:
        """max_len does not matter: the state is as large after one position as after a million."""
        weight = self.forwards.input.weight
        zeros = weight.new_zeros(batch, self.n_units)
        return RecurrentState((zeros,) * self.n_parts)

    def _read(
        self, x_BTD: Tensor, parts: tuple[Tensor, ...], direction: _Direction, taps: Taps | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        weights = direction.weights(self.weight_drop if self.training else 0.0)
        if x_BTD.shape[1] == 1 and not torch.is_grad_enabled():
            # A step of generation: the kernels are made for sequences, and take ten times as long as the equations.
            last = self._step(x_BTD[:, 0], parts, weights)
            y_BTH = last[0][:, None]
        else:
            y_BTH, *last_1 = self._kernel(x_BTD.contiguous(), tuple(part[None] for part in parts), weights)
            last = tuple(part[0] for part in last_1)
        if taps is not None:
            with torch.no_grad():
                self._tap(taps, x_BTD, y_BTH, parts, weights)
        return y_BTH, last

    @abstractmethod
    def _kernel(self, x_BTD: Tensor, parts_1BH: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Outputs (B, T, H), and each part of the state after the last position (1, B, H)."""

    @abstractmethod
    def _step(self, x_ND: Tensor, parts: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """The parts of the state, the output first, after one more position: what the kernel computes."""

    @abstractmethod
    def _tap(
        self, taps: Taps, x_BTD: Tensor, y_BTH: Tensor, parts: tuple[Tensor, ...], weights: list[Tensor]
    ) -> None: ...


class RNN(Recurrent):
    """taps: `hidden` (B, T, H)."""

    n_maps, n_parts = 1, 1

    def __init__(self, config: RNNConfig, d_model: int, *, causal: bool) -> None:
        super().__init__(config, d_model, causal=causal)
        self.kernel = torch.rnn_tanh if config.activation == "tanh" else torch.rnn_relu
        self.activation = torch.tanh if config.activation == "tanh" else torch.relu

    def _kernel(self, x_BTD: Tensor, parts_1BH: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        return self.kernel(x_BTD, parts_1BH[0], weights, True, 1, 0.0, self.training, False, True)

    def _step(self, x_ND: Tensor, parts: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        return (self.activation(_maps(x_ND, parts[0], weights)),)

    def _tap(self, taps: Taps, x_BTD: Tensor, y_BTH: Tensor, parts: tuple[Tensor, ...], weights: list[Tensor]) -> None:
        taps("hidden", y_BTH)


class LSTM(Recurrent):
    """taps: `gates` (B, T, 4, H): input, forget, candidate, output; `cell` and `hidden` (B, T, H)."""

    n_maps, n_parts = 4, 2

    def __init__(self, config: LSTMConfig, d_model: int, *, causal: bool) -> None:
        super().__init__(config, d_model, causal=causal)
        self.forget_bias = config.forget_bias

    def initialise(self, scheme: str) -> None:
        """Orthogonal maps, and a memory that keeps at first."""
        super().initialise(scheme)
        for direction in filter(None, (self.forwards, self.backwards)):
            nn.init.constant_(direction.input.bias[self.n_units : 2 * self.n_units], self.forget_bias)

    def _kernel(self, x_BTD: Tensor, parts_1BH: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.lstm(x_BTD, parts_1BH, weights, True, 1, 0.0, self.training, False, True)

    def _step(self, x_ND: Tensor, parts: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Gers et al. 2000; the order of the maps is PyTorch's: input, forget, candidate, output."""
        keep, forget, candidate, output = _maps(x_ND, parts[0], weights).chunk(4, dim=-1)
        cell_NH = torch.addcmul(forget.sigmoid() * parts[1], keep.sigmoid(), candidate.tanh())
        return output.sigmoid() * cell_NH.tanh(), cell_NH

    def _tap(self, taps: Taps, x_BTD: Tensor, y_BTH: Tensor, parts: tuple[Tensor, ...], weights: list[Tensor]) -> None:
        """The cell equations beside the kernel, in float32, from the same inputs and outputs (Gers et al. 2000)."""
        of_input, of_hidden, bias, _ = (weight.float() for weight in weights)
        before_BTH = torch.cat([parts[0][:, None], y_BTH[:, :-1]], dim=1).float()
        maps_BT4H = (F.linear(x_BTD.float(), of_input, bias) + F.linear(before_BTH, of_hidden)).unflatten(-1, (4, -1))
        gates_BT4H = torch.where(
            torch.tensor([False, False, True, False], device=x_BTD.device)[:, None],
            maps_BT4H.tanh(),
            maps_BT4H.sigmoid(),
        )
        cell_BH, cells = parts[1].float(), []
        for t in range(x_BTD.shape[1]):
            keep, forget, candidate, _ = gates_BT4H[:, t].unbind(1)
            cell_BH = forget * cell_BH + keep * candidate
            cells.append(cell_BH)
        taps("gates", gates_BT4H)
        taps("cell", torch.stack(cells, dim=1))
        taps("hidden", y_BTH)


def _maps(x_ND: Tensor, hidden_NH: Tensor, weights: list[Tensor]) -> Tensor:
    """W x + U h + b."""
    of_input, of_hidden, bias, _ = weights
    return torch.addmm(bias, x_ND, of_input.t()).addmm_(hidden_NH, of_hidden.t())


def _reversed(valid_BT: Tensor) -> Tensor:
    """Positions that put each row's valid part in reverse and leave its padding where it is. Its own inverse."""
    t_T = torch.arange(valid_BT.shape[1], device=valid_BT.device)
    length_B1 = valid_BT.sum(1, keepdim=True)
    return torch.where(t_T < length_B1, length_B1 - 1 - t_T, t_T)


def _take(x_BTD: Tensor, order_BT: Tensor | None) -> Tensor:
    if order_BT is None:
        return x_BTD.flip(1)
    return x_BTD.gather(1, order_BT[..., None].expand_as(x_BTD))
