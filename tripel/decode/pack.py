"""Weights arranged for inference, from outside the model.

Where it pays, a linear map's weight is reordered once into the blocks that oneDNN's kernels read (what the inductor's
freezing does): on CPUs on which PyTorch's default float32 product is far from the machine's limit this more than doubles
its speed. The operators are private to PyTorch; they are tried out once and, if absent or wrong, done without.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache, partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripel.decode.candidates import CHUNK
from tripel.models.decoder import Decoder
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.nn.block import ACTIVATIONS, FeedForward
from tripel.nn.embed import TokenEmbedding
from tripel.nn.linear import map_sizes

PACK_FROM = 1 << 17
"""Weights with fewer numbers stay plain: for the few rows of a decoding step, oneDNN's call costs more (15 us) than its
kernel saves."""

_FUSED: dict[str, tuple[str, str]] = {
    "none": ("none", ""),
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}
"""What oneDNN can apply to a product before writing it: its name and algorithm for it."""

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
        twin = twin_of(model, packed)
        head = PackedLinear(*_filled(model.head.matrix(embedding_VD).detach(), model.head.bias))
        twin.head = _PackedHead(head)  # type: ignore[assignment]
    return twin.eval()


class PackedLinear(nn.Module):
    """activation(x W^T + b) with the weight as the kernels want it: packed for several rows, transposed for one.

    activation: one of ACTIVATIONS by name, applied by the product itself where that is possible; or none. least: numbers
    from which a weight is packed.
    """

    sizes: tuple[int, ...]  # of the maps that it stands for, as FusedLinear has them

    def __init__(
        self, weight_ND: Tensor, bias_N: Tensor | None, activation: str = "none", *, least: int = PACK_FROM
    ) -> None:
        super().__init__()
        self.weight_DN = weight_ND.detach().t().contiguous()
        self.weight = self.weight_DN.t()
        self.bias_N = torch.zeros(len(weight_ND), dtype=weight_ND.dtype) if bias_N is None else bias_N.detach()
        self.activation = ACTIVATIONS.get(activation)
        self.fused = _FUSED.get(activation, _FUSED["none"])
        works = weight_ND.numel() >= least and packing_works(weight_ND.dtype, *self.fused)
        self.packed = _reorder(weight_ND.detach()) if works else None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(-1, x.shape[-1]) if x.is_contiguous() else x.reshape(-1, x.shape[-1])
        done = self.fused[0] != "none"
        if self.packed is not None and len(rows) > 1:
            name, algorithm = self.fused
            y = torch.ops.mkldnn._linear_pointwise.default(rows, self.packed, self.bias_N, name, [], algorithm)
        else:
            y, done = torch.addmm(self.bias_N, rows, self.weight_DN), False
        y = y if done or self.activation is None else self.activation(y)
        return y.view(*x.shape[:-1], -1)


class _PackedHead(nn.Module):
    """The vocabulary head with a matrix of its own; logits beyond the vocabulary are -inf."""

    def __init__(self, linear: PackedLinear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, h_BTD: Tensor, embedding_VD: Tensor) -> Tensor:
        return self.linear(h_BTD)


@cache
def packing_works(dtype: torch.dtype = torch.float32, name: str = "none", algorithm: str = "") -> bool:
    """Whether this PyTorch has the packing operators and, with this activation, they compute what F.linear computes."""
    try:
        generator = torch.Generator().manual_seed(0)
        x, weight, bias = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((5, 64), (96, 64), (96,)))
        y = torch.ops.mkldnn._linear_pointwise.default(x, _reorder(weight), bias, name, [], algorithm)
        expected = F.linear(x.float(), weight.float(), bias.float())
        if name != "none":
            expected = F.relu(expected) if name == "relu" else F.gelu(expected, approximate=algorithm)
        return torch.allclose(y.float(), expected, atol=1e-4 if dtype == torch.float32 else 0.1, rtol=0.01)
    except Exception:  # a private operator may vanish or change in any way
        return False


def _reorder(weight_ND: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight_ND)


def twin_of(module: M, convert: Callable[[nn.Module], nn.Module | None]) -> M:
    """A copy of a tree of modules that shares its parameters, with some modules converted."""
    twin = copy.copy(module)
    twin._modules = {
        name: None if child is None else convert(child) or twin_of(child, convert)
        for name, child in module._modules.items()
    }
    return twin


def packed(module: nn.Module, *, least: int = PACK_FROM) -> nn.Module | None:
    """What stands for a module in a packed twin; None for one that is copied, part by part. least: see PackedLinear."""
    if isinstance(module, nn.Linear):
        return _packed_linear(module, least=least)
    if isinstance(module, FeedForward) and not module.gated:
        twin = twin_of(module, partial(packed, least=least))
        name = next((name for name, activation in ACTIVATIONS.items() if activation is module.activation), "none")
        if name != "none":
            inner = _packed_linear(module.inner, name, least=least)
            twin.inner, twin.activation = inner, _nothing  # type: ignore[assignment]
        return twin
    if _holds_weights_only(module):
        return module
    if isinstance(module, TokenEmbedding) and module.factor != 1.0:  # multiplied once, not at every step
        scaled = TokenEmbedding(*module.weight.shape, pad_id=module.pad_id, scale=False)
        scaled.weight = nn.Parameter(module.weight * module.factor, requires_grad=False)
        return scaled
    return None


def _packed_linear(linear: nn.Linear, activation: str = "none", *, least: int) -> PackedLinear:
    packed = PackedLinear(linear.weight, linear.bias, activation, least=least)
    packed.sizes = map_sizes(linear)
    return packed


def _nothing(x: Tensor) -> Tensor:
    return x


def _holds_weights_only(module: nn.Module) -> bool:
    """Whether it is never called: others, a recurrent kernel for one, read the weights of the maps in it."""
    return type(module).forward is nn.Module.forward and not isinstance(module, nn.ModuleList)


def _filled(weight_VD: Tensor, bias_V: Tensor | None) -> tuple[Tensor, Tensor]:
    """The head's matrix and bias up to a multiple of CHUNK tokens, which can never be chosen."""
    bias_V = weight_VD.new_zeros(len(weight_VD)) if bias_V is None else bias_V.detach()
    extra = -len(weight_VD) % CHUNK
    return F.pad(weight_VD, (0, 0, 0, extra)), F.pad(bias_V, (0, extra), value=-math.inf)
