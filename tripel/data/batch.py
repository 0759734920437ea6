"""What one training step sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

IGNORE = -100  # a target that is not predicted; torch.nn.functional.cross_entropy's own convention


@dataclass(frozen=True)
class Batch:
    """inputs: the model's keyword arguments, tensors or None. targets_BT: ids or IGNORE; of classes (B,), or (B, K) where
    an example is of several, each to the share that weights say.

    weights: float32, what each target counts, of the shape of the targets; None where all count 1.

    count: predicted tokens, on this rank. tokens: real tokens read and predicted (source + target), for the speed that
    is reported. carried: of batches that go on with a recurrent state, whether they begin where the former step's rows
    ended (True) or anew (False); None for batches whose rows stand by themselves.
    """

    inputs: dict[str, Any]
    targets_BT: Tensor
    count: int
    tokens: int
    rows: tuple[int, ...] = ()  # the examples' indices in the corpus, for messages
    carried: bool | None = None
    weights: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        inputs = {name: x if x is None else x.to(device, non_blocking=True) for name, x in self.inputs.items()}
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return replace(self, inputs=inputs, targets_BT=self.targets_BT.to(device, non_blocking=True), weights=weights)
