"""Mixed precision from outside the model: float32 master weights, and a bfloat16 twin that does the work.

The twin's weights are refreshed once per update in one call, its gradients are added into float32 ones after every
micro-batch. That is what autocast does, without casting each weight and each activation again at every product: on a
small model those copies are a sixth of the time. (FSDP2's MixedPrecisionPolicy does the same.)
"""

from __future__ import annotations

import copy
import time
from typing import Literal

import torch
from torch import Tensor

from tripel.models.build import Model

Precision = Literal["auto", "float32", "bfloat16"]


class Worker:
    """The model that runs forward and backward: the master itself in float32, its bfloat16 twin otherwise."""

    def __init__(self, master: Model, precision: Precision) -> None:
        self.master = master
        self._parameters: list[Tensor] = list(master.parameters())
        self._gradients = [torch.zeros_like(p) for p in self._parameters]
        for p, gradient in zip(self._parameters, self._gradients, strict=True):
            p.grad = gradient
        self.model: Model = master
        self._twins: list[Tensor] = []
        if precision == "bfloat16":
            self.model = copy.deepcopy(master).to(torch.bfloat16)
            _share_buffers(master, self.model)
            self._twins = list(self.model.parameters())

    @torch.no_grad()
    def begin_step(self) -> None:
        """Zero the master's gradients and bring the twin up to date."""
        torch._foreach_zero_(self._gradients)
        if self._twins:
            torch._foreach_copy_(self._twins, self._parameters)

    @torch.no_grad()
    def collect(self) -> None:
        """After each backward: move the twin's gradients into the master's, in float32."""
        if not self._twins:
            return
        pairs = [(g, t.grad) for g, t in zip(self._gradients, self._twins, strict=True) if t.grad is not None]
        if pairs:
            totals, parts = zip(*pairs, strict=True)
            torch._foreach_add_(list(totals), [g.float() for g in parts])
            for twin in self._twins:
                twin.grad = None


def _share_buffers(master: Model, twin: Model) -> None:
    """Constants and running statistics are the master's own, in float32: what the twin's passes add to them stays."""
    theirs = dict(master.named_modules())
    for name, module in twin.named_modules():
        for key in module._buffers:
            module._buffers[key] = theirs[name]._buffers[key]


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """`auto` becomes what this machine does faster, measured on the CPU, asked of the driver on a GPU."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if bfloat16_speedup() > 1.3 else "float32"


def bfloat16_speedup() -> float:
    """How many times faster a bfloat16 product of (512 x 256) by (256 x 256) runs than a float32 one, on the CPU."""

    def best(dtype: torch.dtype) -> float:
        a, b = torch.ones(512, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
        times = []
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(5):
                a @ b
            times.append(time.perf_counter() - start)
        return min(times)

    return best(torch.float32) / best(torch.bfloat16)
