"""Weights arranged for inference, from outside the model.

Where it pays, a linear map's weight is reordered once into the blocks that oneDNN's kernels read (what the inductor's
freezing does): on CPUs on which PyTorch's default float32 product is far from the machine's limit this more than doubles
its speed. The operators are private to PyTorch; they are tried out once and, if absent or wrong, done without.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripel.decode.candidates import CHUNK
from tripel.models.decoder import Decoder
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.nn.embed import TokenEmbedding
from tripel.nn.linear import map_sizes

PACK_FROM = 1 << 17
"""Weights with fewer numbers stay plain: oneDNN's call costs more (15 us) than its kernel saves."""

M = TypeVar("M", bound=nn.Module)
Model = TypeVar("Model", EncoderDecoder, Decoder)


def pack(model: Model) -> Model:
    """The model's twin for decoding on CPU: equal answers, start and step faster. The model itself is not changed.

    The twin shares what it does not rearrange, and is not told when the model's weights change afterwards.
    A model on another device is returned as it is.
    """
    tokens = model.tokens if isinstance(model, Decoder) else model.target_tokens
    if tokens.weight.device.type != "cpu":
        return model
    embedding_VD = tokens.weight.detach()
    with torch.inference_mode(False), torch.no_grad():
        twin = _twin(model, _packed)
        head = PackedLinear(*_filled(model.head.matrix(embedding_VD).detach(), model.head.bias))
        twin.head = _PackedHead(head)  # type: ignore[assignment]
    return twin.eval()


class PackedLinear(nn.Module):
    """x W^T + b with the weight as the kernels want it: packed for several rows, transposed for one."""

    sizes: tuple[int, ...]  # of the maps that it stands for, as FusedLinear has them

    def __init__(self, weight_ND: Tensor, bias_N: Tensor | None) -> None:
        super().__init__()
        self.weight_DN = weight_ND.detach().t().contiguous()
        self.weight = self.weight_DN.t()
        self.bias_N = torch.zeros(len(weight_ND), dtype=weight_ND.dtype) if bias_N is None else bias_N.detach()
        self.packed = _reorder(weight_ND.detach()) if weight_ND.numel() >= PACK_FROM and packing_works() else None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(-1, x.shape[-1]) if x.is_contiguous() else x.reshape(-1, x.shape[-1])
        if self.packed is not None and len(rows) > 1:
            y = torch.ops.mkldnn._linear_pointwise.default(rows, self.packed, self.bias_N, "none", [], "")
        else:
            y = torch.addmm(self.bias_N, rows, self.weight_DN)
        return y.view(*x.shape[:-1], -1)


class _PackedHead(nn.Module):
    """The vocabulary head with a matrix of its own; logits beyond the vocabulary are -inf."""

    def __init__(self, linear: PackedLinear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, h_BTD: Tensor, embedding_VD: Tensor) -> Tensor:
        return self.linear(h_BTD)


@cache
def packing_works() -> bool:
    """Whether this PyTorch has the packing operators and they compute what F.linear computes."""
    try:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(5, 64, generator=generator)
        weight, bias = torch.randn(96, 64, generator=generator), torch.randn(96, generator=generator)
        y = torch.ops.mkldnn._linear_pointwise.default(x, _reorder(weight), bias, "none", [], "")
        return torch.allclose(y, F.linear(x, weight, bias), atol=1e-4)
    except Exception:  # a private operator may vanish or change in any way
        return False


def _reorder(weight_ND: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight_ND)


def _twin(module: M, convert: Callable[[nn.Module], nn.Module | None]) -> M:
    """A copy of a tree of modules that shares its parameters, with some modules converted."""
    twin = copy.copy(module)
    twin._modules = {
        name: None if child is None else convert(child) or _twin(child, convert)
        for name, child in module._modules.items()
    }
    return twin


def _packed(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.Linear):
        packed = PackedLinear(module.weight, module.bias)
        packed.sizes = map_sizes(module)
        return packed
    if _holds_weights_only(module):
        return module
    if isinstance(module, TokenEmbedding) and module.factor != 1.0:  # multiplied once, not at every step
        scaled = TokenEmbedding(*module.weight.shape, pad_id=module.pad_id, scale=False)
        scaled.weight = nn.Parameter(module.weight * module.factor, requires_grad=False)
        return scaled
    return None


def _holds_weights_only(module: nn.Module) -> bool:
    """Whether it is never called: others, a recurrent kernel for one, read the weights of the maps in it."""
    return type(module).forward is nn.Module.forward and not isinstance(module, nn.ModuleList)


def _filled(weight_VD: Tensor, bias_V: Tensor | None) -> tuple[Tensor, Tensor]:
    """The head's matrix and bias up to a multiple of CHUNK tokens, which can never be chosen."""
    bias_V = weight_VD.new_zeros(len(weight_VD)) if bias_V is None else bias_V.detach()
    extra = -len(weight_VD) % CHUNK
    return F.pad(weight_VD, (0, 0, 0, extra)), F.pad(bias_V, (0, extra), value=-math.inf)
