"""First values of a model's weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tripel.nn.attention import CrossAttention
from tripel.nn.embed import Positions, TokenEmbedding, sinusoids
from tripel.nn.heads import VocabularyHead
from tripel.nn.linear import FusedLinear
from tripel.nn.mixer import Mixer
from tripel.nn.patches import PatchEmbedding, PatchPositions, PatchStem, grid_sinusoids
from tripel.nn.resnet import ResidualBlock

# How large learned positions begin where they begin as sinusoids, beside embeddings of deviation 0.02.
_SINUSOID_SHARE = 0.1


def initialise(model: nn.Module) -> None:
    """First values of all weights, as config.initialisation names them; biases zero; then what a mixer wants otherwise.

    glorot: embeddings normal with deviation D^-1/2, so that the scaled embedding and the tied logits both begin with
    unit variance (tensor2tensor's choice; Vaswani et al. 2017 state none). Convolutions keep the variance of gradients
    (He et al. 2015); the linear map of patches, whose inputs are pixels of unit variance, begins as torch.nn.Conv2d does.
    """
    config: Any = model.config
    scheme = getattr(config, "initialisation", "bert")
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                _linear(module, name, scheme, max((s.n_layers for s in config.stacks().values()), default=1))
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, TokenEmbedding) or (
                isinstance(module, VocabularyHead) and module.weight is not None
            ):
                std = 1 / math.sqrt(config.d_model) if scheme == "glorot" else 0.02
                nn.init.normal_(module.weight, std=std)  # type: ignore[arg-type]
                if isinstance(module, TokenEmbedding) and module.pad_id is not None:
                    module.weight[module.pad_id].zero_()
            elif isinstance(module, Positions) and module.kind == "learned":
                _positions(module.weight, scheme, lambda n, d: sinusoids(n, d, order="halves"))
            elif isinstance(module, ResidualBlock) and config.zero_last:
                nn.init.zeros_(module.layers[-1].norm.weight)  # type: ignore[arg-type,union-attr]
        for module in model.modules():
            if isinstance(module, Mixer | CrossAttention):
                module.initialise(scheme)
            elif isinstance(module, PatchEmbedding):
                _patches(module, scheme)


def _linear(module: nn.Linear, name: str, scheme: str, n_layers: int) -> None:
    # A product that yields several maps at once is initialised as the separate maps it stands for.
    for part in module.parts() if isinstance(module, FusedLinear) else (module.weight,):
        if scheme == "glorot":
            nn.init.xavier_uniform_(part)
        else:
            writes = scheme == "gpt2" and name.endswith((".output", ".outer"))
            nn.init.normal_(part, std=0.02 / math.sqrt(2 * n_layers) if writes else 0.02)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _positions(weight: Tensor, scheme: str, waves: Any) -> None:
    if scheme == "mimetic":
        weight.copy_(_SINUSOID_SHARE * waves(*weight.shape))
    else:
        nn.init.normal_(weight, std=0.02)


def _patches(module: PatchEmbedding, scheme: str) -> None:
    if isinstance(module.stem, PatchStem):
        weight = module.stem.output.weight
        nn.init.normal_(weight, std=1 / math.sqrt(3 * weight.shape[1]))
    if module.class_token is not None:
        nn.init.normal_(module.class_token, std=0.02)
    positions: PatchPositions = module.positions
    if positions.weight is not None:
        _positions(positions.weight[int(positions.class_token) :], scheme, lambda _, d: _grid(positions, d))
        if positions.class_token:
            nn.init.normal_(positions.weight[:1], std=0.02)


def _grid(positions: PatchPositions, d_model: int) -> Tensor:
    return grid_sinusoids(positions.side, positions.side, d_model)
