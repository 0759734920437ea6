"""The attention encoder-decoder on the native decoder: same start and step, a fraction of the time."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripel.decode.native.build import library
from tripel.models.config import EncoderDecoderConfig, Vocabulary
from tripel.models.encoder_decoder import EncoderDecoder

_WIRINGS = {"post": 0, "pre": 1, "none": 2}
_ACTIVATIONS = {"relu": 1, "gelu": 2, "silu": 3}


class NativeState:
    """The rows being decoded; lives in the library. Selecting rows moves indices, never keys and values."""

    def __init__(self, native: ctypes.CDLL, handle: int, rows: int, keep: object) -> None:
        self.native, self.handle, self.rows, self._keep = native, handle, rows, keep
        weakref.finalize(self, native.tripel_free_state, handle)

    def select(self, rows_N: Tensor) -> None:
        """Keep rows_N in that order."""
        self.rows = len(rows_N)
        self.native.tripel_select(self.handle, rows_N.data_ptr(), self.rows)

    reorder = select


class NativeModel:
    """An EncoderDecoder whose start and step run in native code, from a packed copy of its weights.

    half: weights kept in bfloat16, products and sums in float32. The copy does not follow later changes of the model.
    """

    def __init__(self, model: EncoderDecoder, native: ctypes.CDLL, *, half: bool = False) -> None:
        self.config, self.vocabulary, self._native, self._half = model.config, model.vocabulary, native, half
        self._panel = int(native.tripel_panel())
        with torch.inference_mode(False), torch.no_grad():
            self._tensors = list(self._parts(model))
        pointers = (ctypes.c_void_p * len(self._tensors))(*[tensor.data_ptr() for tensor in self._tensors])
        config, width = model.config, self._width(model.vocabulary.target_size)
        numbers = (ctypes.c_int64 * 14)(
            config.d_model,
            len(model.encoder.blocks[0].feed_forward.inner.weight),
            len(model.decoder.blocks[0].feed_forward.inner.weight),
            config.encoder.mixer.n_heads,
            config.decoder.mixer.n_heads,
            config.encoder.n_layers,
            config.decoder.n_layers,
            width,
            _WIRINGS[config.wiring],
            _ACTIVATIONS[config.activation],
            half,
            half,
            half,
            config.positions != "none",
        )
        self._n_columns = width
        self._handle = native.tripel_model(numbers, config.norm_eps, pointers)
        weakref.finalize(self, native.tripel_free_model, self._handle)

    @staticmethod
    def supports(config: EncoderDecoderConfig) -> bool:
        """Whether the native decoder computes this model."""
        stacks = (config.encoder, config.decoder)
        return config.kind == "encoder-decoder" and all(stack.mixer.kind == "attention" for stack in stacks)

    def start(
        self, source_BS: Tensor, valid_BS: Tensor | None = None, *, max_len: int, rows_per_sentence: int = 1
    ) -> NativeState:
        """Read sources; a state with room for max_len positions of rows_per_sentence rows each."""
        B, S = source_BS.shape
        lengths_B = torch.full((B,), S) if valid_BS is None else valid_BS.sum(1)
        ids = (source_BS if valid_BS is None else source_BS[valid_BS]).contiguous()
        offsets = F.pad(lengths_B.cumsum(0), (1, 0)).contiguous()
        handle = self._native.tripel_start(
            self._handle, ids.data_ptr(), offsets.data_ptr(), B, B * rows_per_sentence, max_len
        )
        return NativeState(self._native, handle, B, self)

    def step(self, ids_NT: Tensor, state: NativeState) -> Tensor:
        """Read the next T ids of every row; logits (N, V') after the last of them, -inf beyond the vocabulary."""
        logits_NV = torch.empty(state.rows, self._n_columns)
        self._read(ids_NT, state, 0, logits_NV, None, None)
        return logits_NV

    def shortlist(self, ids_NT: Tensor, state: NativeState, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """As step, but only the k greatest logits of each row (N, k), their tokens, and log sum exp of all (N,)."""
        values_NK, tokens_NK = torch.empty(state.rows, k), torch.empty(state.rows, k, dtype=torch.int32)
        normaliser_N = torch.empty(state.rows)
        self._read(ids_NT, state, k, values_NK, tokens_NK, normaliser_N)
        return values_NK, tokens_NK, normaliser_N

    def _read(
        self, ids_NT: Tensor, state: NativeState, k: int, values: Tensor, tokens: Tensor | None, normaliser: Tensor | None
    ) -> None:
        step, ids_TN = self._native.tripel_step, ids_NT.t().contiguous()
        for ids_N in ids_TN[:-1]:
            step(state.handle, ids_N.data_ptr(), -1, None, None, None)
        step(state.handle, ids_TN[-1].data_ptr(), k, values.data_ptr(), _pointer(tokens), _pointer(normaliser))

    def _parts(self, model: EncoderDecoder) -> Iterator[Tensor]:
        """All weights in the order in which the library reads them."""
        target = model.target_tokens
        source = target if model.source_tokens is None else model.source_tokens
        scaled = [(tokens.weight * tokens.factor).float().contiguous() for tokens in {id(x): x for x in (source, target)}.values()]
        yield scaled[0]
        yield scaled[-1]
        for embedding in (model.source_embedding, model.target_embedding):
            positions = embedding.positions
            yield torch.zeros(1) if positions.kind == "none" else positions.weight.float().contiguous()
        for block in model.encoder.blocks:
            yield from self._linear(block.mixer.query_key_value)
            yield from self._linear(block.mixer.output)
            yield from _norm(block.mixer_wiring.norm)
            yield from self._feed_forward(block)
        for block in model.decoder.blocks:
            yield from self._linear(block.mixer.query_key_value)
            yield from self._linear(block.mixer.output)
            yield from _norm(block.mixer_wiring.norm)
            yield from self._linear(block.cross.query)
            yield from self._linear(block.cross.key_value)
            yield from self._linear(block.cross.output)
            yield from _norm(block.cross_wiring.norm)
            yield from self._feed_forward(block)
        yield from _norm(model.encoder.final_norm)
        yield from _norm(model.decoder.final_norm)
        yield from self._head(model)

    def _feed_forward(self, block: nn.Module) -> Iterator[Tensor]:
        yield from self._linear(block.feed_forward.inner)
        yield from self._linear(block.feed_forward.outer)
        yield from _norm(block.feed_forward_wiring.norm)

    def _head(self, model: EncoderDecoder) -> Iterator[Tensor]:
        weight_VD = model.head.matrix(model.target_tokens.weight)
        bias_V = weight_VD.new_zeros(len(weight_VD)) if model.head.bias is None else model.head.bias.clone()
        bias_V[model.vocabulary.pad_id] = -math.inf  # never said
        yield from self._packed(weight_VD, bias_V, -math.inf)

    def _linear(self, linear: nn.Linear) -> Iterator[Tensor]:
        weight = linear.weight
        yield from self._packed(weight, weight.new_zeros(len(weight)) if linear.bias is None else linear.bias, 0.0)

    def _packed(self, weight_ND: Tensor, bias_N: Tensor, fill: float) -> Iterator[Tensor]:
        """Panels (columns / panel, depth, panel) of a weight, and its bias; columns filled up to whole panels."""
        extra = self._width(len(weight_ND)) - len(weight_ND)
        panels = F.pad(weight_ND, (0, 0, 0, extra)).view(-1, self._panel, weight_ND.shape[1]).mT
        yield panels.to(torch.bfloat16 if self._half else torch.float32).contiguous()
        yield F.pad(bias_N.float(), (0, extra), value=fill).contiguous()

    def _width(self, n: int) -> int:
        return -(-n // self._panel) * self._panel


def native_model(model: EncoderDecoder, *, half: bool = False) -> NativeModel | None:
    """The model on the native decoder; None if it runs elsewhere than on the CPU, has parts the library does not know,
    there is no library, or the library does not give the model's own logits on a trial."""
    if model.target_tokens.weight.device.type != "cpu" or not NativeModel.supports(model.config):
        return None
    native = library()
    if native is None:
        return None
    fast = NativeModel(model, native, half=half)
    return fast if _agrees(model, fast, tolerance=0.3 if half else 1e-2) else None


@torch.inference_mode()
def _agrees(model: EncoderDecoder, fast: NativeModel, tolerance: float) -> bool:
    vocabulary = model.vocabulary
    training = model.training
    model.eval()
    source_BS = torch.arange(10).view(2, 5) % vocabulary.source_size
    target_BT = torch.arange(6).view(2, 3) % vocabulary.target_size
    expected_BV = model.step(target_BT, model.start(source_BS, max_len=3))
    given_BV = fast.step(target_BT, fast.start(source_BS, max_len=3))[:, : vocabulary.target_size]
    model.train(training)
    expected_BV[:, vocabulary.pad_id] = given_BV[:, vocabulary.pad_id] = 0.0
    scale = float(expected_BV.abs().max()) + 1e-6
    return float((given_BV - expected_BV).abs().max()) <= tolerance * scale


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _norm(norm: nn.Module | None) -> Iterator[Tensor]:
    if isinstance(norm, nn.LayerNorm):
        yield norm.weight.float().contiguous()
        yield norm.bias.float().contiguous()
    else:
        yield torch.zeros(1)
        yield torch.zeros(1)
