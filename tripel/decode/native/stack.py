"""A stack of attention blocks on its way to the libraries: what it is, and its weights in their order."""

from __future__ import annotations

import ctypes
from array import array
from typing import Any

from torch import Tensor, nn

from tripel.models.config import StackedConfig
from tripel.nn import AttentionConfig, MixerConfig
from tripel.nn.embed import Positions, TokenEmbedding
from tripel.nn.exact import RMSNorm
from tripel.nn.stack import Stack

_WIRINGS = {"post": 0, "pre": 1, "none": 2}
_ACTIVATIONS = {"relu": 1, "gelu": 2, "silu": 3, "gelu_tanh": 4, "relu_squared": 5, "swiglu": 6}


def described(
    config: StackedConfig, mixer: MixerConfig, first: Any, precision: int, *, causal: bool
) -> tuple[array[int], array[float]]:
    """The numbers and reals of tripel_stack_model. first: the first block's mixer; precision: as of maps.h."""
    assert isinstance(mixer, AttentionConfig)
    n_layers = next(iter(config.stacks().values())).n_layers
    numbers = array("q", [
        config.d_model, config.d_ff, n_layers, mixer.n_heads, mixer.n_kv_heads or mixer.n_heads, mixer.window or 0,
        mixer.rotary, _WIRINGS[config.wiring], _ACTIVATIONS[config.activation], precision, causal,
    ])  # fmt: skip
    return numbers, array("d", [config.norm_eps, first.query_norm.eps if mixer.qk_norm else 0.0, mixer.rotary_base])


class StackWriter:
    """Gives a model's weights to a library: embedding, stack, a decoder's head as a map; then ready."""

    def __init__(self, native: ctypes.CDLL, handle: int) -> None:
        self.native, self.handle = native, handle

    def embedding(
        self,
        tokens: TokenEmbedding,
        positions: Positions,
        types: nn.Module | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        self._vector(tokens.weight * tokens.factor)
        self._vector(None if positions.kind == "none" else positions.weight)
        self._vector(None if types is None else types.weight)  # type: ignore[arg-type]
        self._norm(norm)

    def no_embedding(self) -> None:
        """Of a model that is given vectors."""
        for _ in range(5):  # tokens, positions, types, a norm's gain and bias
            self._vector(None)

    def stack(self, stack: Stack) -> None:
        for block in stack.blocks:
            self._block(block)
        self._norm(stack.final_norm)

    def map(self, weight_ND: Tensor, bias_N: Tensor | None, fill: float = 0.0) -> None:
        weight_ND = weight_ND.float().contiguous()
        bias_N = None if bias_N is None else bias_N.float().contiguous()
        bias = None if bias_N is None else bias_N.data_ptr()
        self.native.tripel_stack_map(self.handle, weight_ND.data_ptr(), bias, *weight_ND.shape, fill)

    def ready(self) -> None:
        self.native.tripel_stack_ready(self.handle)

    def _block(self, block: Any) -> None:
        for linear in (block.mixer.query_key_value, block.mixer.output):
            self.map(linear.weight, linear.bias)
        for norm in (block.mixer.query_norm, block.mixer.key_norm, block.mixer_wiring.norm):
            self._norm(norm)
        feed_forward = block.feed_forward
        self._norm(None if feed_forward is None else block.feed_forward_wiring.norm)
        if feed_forward is None:
            return
        inner = feed_forward.inner
        n_parts = 2 if feed_forward.gated else 1
        biases = [None] * n_parts if inner.bias is None else inner.bias.chunk(n_parts)
        for weight, bias in zip(inner.weight.chunk(n_parts), biases, strict=True):
            self.map(weight, bias)
        self.map(feed_forward.outer.weight, feed_forward.outer.bias)

    def _norm(self, norm: nn.Module | None) -> None:
        if not isinstance(norm, (nn.LayerNorm, RMSNorm)):
            norm = None
        self._vector(None if norm is None else norm.weight)
        self._vector(norm.bias if isinstance(norm, nn.LayerNorm) else None)

    def _vector(self, numbers: Tensor | None) -> None:
        if numbers is None:
            self.native.tripel_stack_vector(self.handle, None, 0)
        else:
            numbers = numbers.float().contiguous()
            self.native.tripel_stack_vector(self.handle, numbers.data_ptr(), numbers.numel())
