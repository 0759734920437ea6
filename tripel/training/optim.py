"""Optimizers and schedules. AdamW (Loshchilov & Hutter 2019) for everything, or Muon (Jordan et al. 2024) for the
hidden matrices with AdamW for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from tripel.config import Config
from tripel.nn.linear import map_sizes
from tripel.training import parallel

Schedule = Literal["inverse_sqrt", "cosine", "warmup_stable_decay", "constant"]

# Coefficients of the quintic Newton-Schulz iteration (Jordan et al. 2024, github.com/KellerJordan/Muon).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class OptimConfig(Config):
    """lr is the peak. Muon's update is scaled to AdamW's usual size (Liu et al. 2025, eq. 4), so one lr serves both.

    decay_share: the last share of all steps over which warmup_stable_decay falls to zero. min_lr_share: where cosine
    ends, as a share of lr. clip_norm 0 turns clipping off. embedding_lr_share multiplies lr for what Muon leaves to AdamW.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(default=5e-4, gt=0)
    schedule: Schedule = "inverse_sqrt"
    warmup_steps: int = Field(default=4000, ge=0)
    decay_share: float = Field(default=0.2, ge=0, le=1)
    min_lr_share: float = Field(default=0.0, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(default=1e-9, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.95, ge=0, lt=1)
    embedding_lr_share: float = Field(default=1.0, gt=0)
    clip_norm: float = Field(default=1.0, ge=0)


def schedule_factor(config: OptimConfig, step: int, n_steps: int) -> float:
    """The factor of the peak lr at an update. step counts updates from 1; n_steps is the length of the run.

    inverse_sqrt: Vaswani 2017, eq. 3, scaled so that its peak is 1 at warmup_steps. cosine: Loshchilov & Hutter 2017.
    warmup_stable_decay: Hu et al. 2024, with a linear decay.
    """
    warmup = config.warmup_steps
    if step < warmup:
        return step / warmup
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "inverse_sqrt":
        return math.sqrt(max(warmup, 1) / step)
    if config.schedule == "cosine":
        done = min((step - warmup) / max(n_steps - warmup, 1), 1.0)
        return config.min_lr_share + (1 - config.min_lr_share) * 0.5 * (1 + math.cos(math.pi * done))
    decay_steps = max(round(config.decay_share * n_steps), 1)
    return min(max(n_steps + 1 - step, 0) / decay_steps, 1.0)


class Muon(torch.optim.Optimizer):
    """Momentum, then the nearest semi-orthogonal matrix as update (Jordan et al. 2024).

    params: pairs (matrix, sizes): a matrix of maps stacked, sizes[i] rows each, is orthogonalised map by map; a convolution
    is the matrix (outputs, all that its kernel sees). Maps of one shape are iterated together in one batched product, each
    process of a group taking its share. lr, weight_decay (decoupled) and momentum (Nesterov) as in the source.
    in_bfloat16: whether to iterate in that precision, as the source does.
    """

    def __init__(
        self,
        params: Iterable[tuple[nn.Parameter, tuple[int, ...]]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        in_bfloat16: bool = False,
    ) -> None:
        pairs = list(params)
        self._sizes = {id(p): sizes for p, sizes in pairs}
        self._dtype = torch.bfloat16 if in_bfloat16 else None
        super().__init__([p for p, _ in pairs], {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        assert closure is None, "Muon needs no closure"
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = self._momentum(p, group["momentum"])
                sizes = self._sizes[id(p)]
                for part, map_update in zip(p.flatten(1).split(sizes), update.flatten(1).split(sizes), strict=True):
                    by_shape.setdefault(part.shape, []).append((part, map_update))
            for shape, pairs in by_shape.items():
                updates = self._orthogonalised(torch.stack([u for _, u in pairs]))
                scale = 0.2 * math.sqrt(max(shape))  # Liu et al. 2025, eq. 4: the root mean square of AdamW's updates
                parts = [part for part, _ in pairs]
                if group["weight_decay"]:
                    torch._foreach_mul_(parts, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parts, list(updates), alpha=-group["lr"] * scale)

    def _orthogonalised(self, g_NRC: Tensor) -> Tensor:
        """orthogonalise, each process doing its share of the matrices."""
        share = -(-len(g_NRC) // parallel.world_size())
        mine = g_NRC[parallel.rank() * share :][:share]
        if len(mine) < share:  # processes exchange equal parts: the last is filled up
            mine = torch.cat([mine, g_NRC.new_zeros(share - len(mine), *g_NRC.shape[1:])])
        return torch.cat(parallel.gather(orthogonalise(mine, self._dtype)))[: len(g_NRC)].to(g_NRC.dtype)

    def _momentum(self, p: Tensor, momentum: float) -> Tensor:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        assert p.grad is not None
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return torch.lerp(p.grad, state["momentum"], momentum)


def orthogonalise(g_NRC: Tensor, dtype: torch.dtype | None = None, iterations: int = 5) -> Tensor:
    """A batch of matrices, each moved towards the nearest semi-orthogonal one: singular values into about [0.7, 1.2].

    dtype: of the iteration and of the answer; by default that of g_NRC.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = g_NRC.shape[1] > g_NRC.shape[2]
    x = g_NRC.mT if tall else g_NRC
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype or x.dtype)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def hidden_matrices(model: nn.Module) -> list[tuple[str, nn.Parameter, tuple[int, ...]]]:
    """Weights of linear maps between hidden states: (name, weight, rows of each map stacked in it).

    A convolution is a map too, from all that its kernel sees to its channels.
    """
    return [
        (f"{name}.weight", cast(nn.Parameter, module.weight), _rows_of_maps(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]


def _rows_of_maps(module: nn.Linear | nn.Conv2d) -> tuple[int, ...]:
    return map_sizes(module) if isinstance(module, nn.Linear) else (module.out_channels,)


class Optimizer:
    """One or two torch optimizers behind one face: set the rate, step, save, load.

    State is addressed by parameter name, so that it can be stored as plain tensors. in_bfloat16: see Muon.
    """

    def __init__(self, config: OptimConfig, model: nn.Module, *, in_bfloat16: bool = False) -> None:
        self.config = config
        self._names = {id(p): name for name, p in model.named_parameters()}
        matrices = hidden_matrices(model) if config.kind == "muon" else []
        by_muon = {id(p) for _, p, _ in matrices}
        others = [p for p in model.parameters() if id(p) not in by_muon]
        # Norms, biases and embeddings are not decayed: only maps have a scale that decay should hold down.
        decayed_ids = {id(p) for _, p, _ in hidden_matrices(model)}
        groups = [
            {"params": [p for p in others if id(p) in decayed_ids], "weight_decay": config.weight_decay},
            {"params": [p for p in others if id(p) not in decayed_ids], "weight_decay": 0.0},
        ]
        self._share = config.embedding_lr_share if matrices else 1.0
        adamw = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=True
        )
        self._optimizers: list[torch.optim.Optimizer] = [adamw]
        if matrices:
            pairs = [(p, sizes) for _, p, sizes in matrices]
            self._optimizers.append(
                Muon(
                    pairs,
                    lr=config.lr,
                    momentum=config.momentum,
                    weight_decay=config.weight_decay,
                    in_bfloat16=in_bfloat16,
                )
            )

    def step(self, lr: float) -> None:
        """Update every parameter at this learning rate."""
        for optimizer in self._optimizers:
            share = 1.0 if isinstance(optimizer, Muon) else self._share
            for group in optimizer.param_groups:
                group["lr"] = lr * share
            optimizer.step()

    def state_tensors(self) -> dict[str, Tensor]:
        """`parameter|slot` -> tensor, all optimizers together."""
        return {
            f"{self._names[id(p)]}|{slot}": value
            for optimizer in self._optimizers
            for p, slots in optimizer.state.items()
            for slot, value in slots.items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of state_tensors."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    prefix = self._names[id(p)] + "|"
                    slots = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                    if slots:
                        optimizer.state[p] = {slot: value.to(p.device).clone() for slot, value in slots.items()}
