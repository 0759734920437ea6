"""Weight averaging: an exponential moving average while training, and the mean of the last snapshots after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """All that training changes in a model, by name: its weights, and what normalisation over batches remembers."""
    return model.state_dict(keep_vars=True)


class MovingAverage:
    """Exponential moving average of the weights (Polyak & Juditsky 1992), and of the statistics of batches. Early on it
    forgets faster: with few updates the decay is (1 + step) / (10 + step), so that the random start does not linger."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = state_of(model)
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after update number `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.tensors.values()), list(self._parameters.values()), 1 - decay)


class swapped:
    """While the block runs the model holds other weights; afterwards its own again, bit for bit."""

    def __init__(self, model: nn.Module, tensors: dict[str, Tensor] | None) -> None:
        self._parameters, self._tensors = state_of(model), tensors

    def __enter__(self) -> None:
        if self._tensors is not None:
            self._own = {name: p.data for name, p in self._parameters.items()}
            for name, p in self._parameters.items():
                p.data = self._tensors[name]

    def __exit__(self, *exc: object) -> None:
        if self._tensors is not None:
            for name, p in self._parameters.items():
                p.data = self._own[name]


def mean_of(snapshots: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The element-wise mean of several sets of weights, summed in float64."""
    return {
        name: (sum(s[name].double() for s in snapshots[1:]) + snapshots[0][name].double()).div(len(snapshots)).float()
        for name in snapshots[0]
    }
