"""The attention encoder-decoder on the native decoder: same start and step, a fraction of the time."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from array import array
from collections.abc import Sequence
from functools import partial

import torch

from tripel.decode.candidates import Candidates, Logits, Wish
from tripel.decode.native.arrays import address, found
from tripel.decode.native.build import library
from tripel.decode.native.weights import Layout, arranged
from tripel.decode.session import Ids
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.nn import AttentionConfig

_WIRINGS = {"post": 0, "pre": 1, "none": 2}
_ACTIVATIONS = {"relu": 1, "gelu": 2, "silu": 3, "gelu_tanh": 4, "relu_squared": 5}


class NativeSession:
    """The rows being decoded; they live in the library. Keeping rows moves indices, never keys and values."""

    drop_share = 0.0

    def __init__(self, model: NativeModel, handle: int, n_rows: int) -> None:
        self.model, self.handle, self.n_rows = model, handle, n_rows
        weakref.finalize(self, model.native.tripel_free_state, handle)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows in this order."""
        self.n_rows = len(rows)
        chosen = array("q", rows)
        self.model.native.tripel_select(self.handle, address(chosen), len(rows))

    def read(self, ids: Ids, wish: Wish | None) -> Candidates | Logits:
        """Read the next ids of every row; then what is wished for, or else all logits."""
        step = self.model.native.tripel_step
        *before, last = (array("q", column) for column in zip(*ids, strict=True))
        for column in before:
            step(self.handle, address(column), -1, None, 0, None, None, None)
        if wish is None:
            logits_NV = torch.empty(self.n_rows, self.model.n_columns)
            step(self.handle, address(last), 0, None, 0, logits_NV.data_ptr(), None, None)
            return Logits(logits_NV, self.model.vocabulary.pad_id)
        return found(wish, partial(step, self.handle, address(last)))


class NativeModel:
    """An EncoderDecoder whose start and step run in native code, from a packed copy of its weights.

    half: products of numbers rounded to bfloat16, sums in float32. The copy does not follow later changes of the model.
    """

    def __init__(self, model: EncoderDecoder, native: ctypes.CDLL, *, half: bool = False) -> None:
        self.config, self.vocabulary, self.native = model.config, model.vocabulary, native
        layout = Layout(int(native.tripel_panel()), int(native.tripel_pair()) if half else 1, half)
        self._tensors = arranged(model, layout)  # the library reads them where they are
        pointers = (ctypes.c_void_p * len(self._tensors))(*[tensor.data_ptr() for tensor in self._tensors])
        config = model.config
        encoder, decoder = config.encoder, config.decoder
        assert isinstance(encoder.mixer, AttentionConfig) and isinstance(decoder.mixer, AttentionConfig)
        self.n_columns = layout.width(model.vocabulary.target_size)
        numbers = array("q", [
            config.d_model, encoder.d_ff or config.d_ff, decoder.d_ff or config.d_ff, encoder.mixer.n_heads,
            decoder.mixer.n_heads, encoder.n_layers, decoder.n_layers, self.n_columns, _WIRINGS[config.wiring],
            _ACTIVATIONS[config.activation], half, config.positions != "none",
        ])  # fmt: skip
        self._handle = native.tripel_model(address(numbers), config.norm_eps, pointers)
        weakref.finalize(self, native.tripel_free_model, self._handle)

    @staticmethod
    def supports(model: EncoderDecoder, *, half: bool = False) -> bool:
        """Whether the native decoder computes this model."""
        config = model.config
        stacks = (config.encoder, config.decoder)
        widths = [config.d_ff if stack.d_ff is None else stack.d_ff for stack in stacks]
        plain = all(
            isinstance(mixer, AttentionConfig)
            and not (mixer.rotary or mixer.qk_norm or mixer.window)
            and mixer.n_kv_heads in (None, mixer.n_heads)
            for mixer in (stack.mixer for stack in stacks)
        )
        known = plain and all(widths) and config.norm == "layer" and config.activation in _ACTIVATIONS
        return known and not (half and any(width % 2 for width in widths))  # bfloat16 is multiplied in pairs

    def open(self, sources: Ids, *, max_len: int, rows_per_sentence: int) -> NativeSession:
        """A session of one row per source, with room for max_len positions of rows_per_sentence rows each."""
        ids = array("q", itertools.chain.from_iterable(sources))
        offsets = array("q", itertools.accumulate(map(len, sources), initial=0))
        n_rows = len(sources) * rows_per_sentence
        handle = self.native.tripel_start(self._handle, address(ids), address(offsets), len(sources), n_rows, max_len)
        return NativeSession(self, handle, len(sources))


def native_model(model: EncoderDecoder, *, half: bool = False) -> NativeModel | None:
    """The model on the native decoder; None if it runs elsewhere than on the CPU, has parts the library does not know,
    there is no library, or the library does not give the model's own logits on a trial."""
    if model.target_tokens.weight.device.type != "cpu" or not NativeModel.supports(model, half=half):
        return None
    native = library()
    if native is None:
        return None
    fast = NativeModel(model, native, half=half)
    return fast if _agrees(model, fast, tolerance=0.3 if half else 1e-2) else None


@torch.inference_mode()
def _agrees(model: EncoderDecoder, fast: NativeModel, tolerance: float) -> bool:
    """Whether both give the same logits, up to a share `tolerance` of the largest, for some ids."""
    vocabulary, training = model.vocabulary, model.training
    source_BS = torch.arange(10).view(2, 5) % vocabulary.source_size
    target_BT = torch.arange(6).view(2, 3) % vocabulary.target_size
    model.eval()
    expected = Logits(model.step(target_BT, model.start(source_BS, max_len=3)), vocabulary.pad_id)
    model.train(training)
    given = fast.open(source_BS.tolist(), max_len=3, rows_per_sentence=1).read(target_BT.tolist(), None)
    assert isinstance(given, Logits)
    expected_BV = expected.logits_NV.nan_to_num(neginf=0.0)
    given_BV = given.logits_NV[:, : vocabulary.target_size].nan_to_num(neginf=0.0)
    return float((given_BV - expected_BV).abs().max()) <= tolerance * float(expected_BV.abs().max())
