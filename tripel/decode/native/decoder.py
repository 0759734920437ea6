"""The decoder-only attention model on native code: same logits, a fraction of the time, rows of any lengths."""

from __future__ import annotations

import ctypes
import itertools
import math
import weakref
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from tripel.decode.candidates import Candidates, Logits, Wish
from tripel.decode.native.arrays import address, found
from tripel.decode.native.build import library
from tripel.decode.native.stack import StackWriter, described
from tripel.decode.session import Ids
from tripel.models.decoder import Decoder

Precision = Literal["float32", "bfloat16", "int8"]

_PRECISIONS = {"float32": 0, "bfloat16": 1, "int8": 2}
# Between random weights in one precision and the model's own logits, as a share of the largest logit: an alarm for a
# library that computes something else, not a bound on rounding.
_TOLERANCES = {"float32": 1e-2, "bfloat16": 0.3, "int8": 0.3}


class NativeDecoderSession:
    """Rows being completed; they live in the library, each with its own length. Keeping rows copies only repeated ones."""

    drop_share = 0.0

    def __init__(self, model: NativeDecoder, max_len: int) -> None:
        self.model, self.max_len = model, max_len
        self.lengths: list[int] = []
        self.handle = model.native.tripel_decoder_start(model.handle)
        weakref.finalize(self, model.native.tripel_decoder_free_state, self.handle)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, repeats allowed, in this order."""
        if any(not 0 <= row < len(self.lengths) for row in rows):
            raise ValueError(f"{len(self.lengths)} rows to keep from, asked for {list(rows)}")
        chosen = array("q", rows)
        self.lengths = [self.lengths[row] for row in rows]
        self.model.native.tripel_decoder_select(self.handle, address(chosen), len(rows))

    def add(self, prompts: Ids, wish: Wish | None = None) -> Candidates | Logits:
        """Append a row for each prompt, of one or more ids, and read them; then as read, for the new rows alone."""
        return self._read([*[()] * len(self.lengths), *prompts], wish, len(prompts))

    def join(self, other: NativeDecoderSession) -> None:
        """Append the rows of another session of the same model, which is left without any."""
        self.model.native.tripel_decoder_join(self.handle, other.handle)
        self.max_len = min(self.max_len, other.max_len)
        self.lengths, other.lengths = self.lengths + other.lengths, []

    def read(self, ids: Ids, wish: Wish | None) -> Candidates | Logits:
        """Read the next ids of every row, one or more each; then what is wished for, or else all logits.

        Raises ValueError when a row would be longer than max_len.
        """
        return self._read(ids, wish, 0)

    def _read(self, ids: Ids, wish: Wish | None, n_new: int) -> Candidates | Logits:
        counts, flat = array("q", map(len, ids)), array("q", itertools.chain.from_iterable(ids))
        n_rows = n_new or len(ids)
        self._check(counts, flat, n_rows, n_new)
        if n_new:
            self.model.native.tripel_decoder_add(self.handle, n_new, self.max_len)
        self.lengths = [a + b for a, b in zip(self.lengths + [0] * n_new, counts, strict=True)]
        n_threads = torch.get_num_threads()
        read = partial(self.model.native.tripel_decoder_read, self.handle, address(flat), address(counts), n_threads)
        if wish is not None:
            return found(wish, read)
        logits_NV = torch.empty(n_rows, self.model.n_columns)
        read(0, None, 0, logits_NV.data_ptr(), None, None)
        return Logits(logits_NV, self.model.pad_id)

    def _check(self, counts: array[int], ids: array[int], n_reading: int, n_new: int) -> None:
        """What the library trusts: its memory ends where these bounds say."""
        lengths = self.lengths + [0] * n_new
        if len(counts) != len(lengths) or sum(map(bool, counts)) != n_reading:
            raise ValueError(f"{len(lengths)} rows read at least one id each, given {list(counts)}")
        longest = max((length + count for length, count in zip(lengths, counts, strict=True)), default=0)
        if longest > self.max_len:
            raise ValueError(f"this session holds {self.max_len} positions; asked for {longest}")
        size = self.model.vocabulary.target_size
        if ids and (min(ids) < 0 or max(ids) >= size):
            raise ValueError(f"ids lie in 0 .. {size - 1}, given {min(ids)} .. {max(ids)}")


class NativeDecoder:
    """A Decoder of attention mixers that runs in native code, from a packed copy of its weights.

    precision: float32; bfloat16: products of numbers rounded to bfloat16; int8: weights in 8 bits with a scale for every
    32 numbers, and inputs likewise where the processor multiplies 8 bits. Sums, keys and values are float32 always. The
    copy does not follow later changes of the model. Works in as many threads as torch.get_num_threads().
    """

    def __init__(self, model: Decoder, native: ctypes.CDLL, precision: Precision = "float32") -> None:
        self.config, self.vocabulary, self.native, self.precision = model.config, model.vocabulary, native, precision
        self.unbounded = model.unbounded
        self.pad_id = _never_said(model)
        mixer, first = model.config.mixer, model.decoder.blocks[0].mixer
        numbers, reals = described(model.config, mixer, first, _PRECISIONS[precision], causal=True)
        self.handle = native.tripel_stack_model(address(numbers), address(reals))
        weakref.finalize(self, native.tripel_stack_free_model, self.handle)
        with torch.inference_mode(False), torch.no_grad():
            self._write(StackWriter(native, self.handle), model)
        self.n_columns = int(native.tripel_decoder_columns(self.handle))

    def _write(self, writer: StackWriter, model: Decoder) -> None:
        writer.embedding(model.tokens, model.embedding.positions)
        writer.stack(model.decoder)
        weight_VD, bias_V = model.head_parameters()
        if self.pad_id is not None:
            bias_V = weight_VD.new_zeros(len(weight_VD)) if bias_V is None else bias_V.clone()
            bias_V[self.pad_id] = -math.inf
        writer.map(weight_VD, bias_V, fill=-math.inf)  # nor are the columns filled up ever said
        writer.ready()

    @staticmethod
    def supports(model: nn.Module) -> bool:
        """Whether the native decoder computes this model."""
        return isinstance(model, Decoder) and model.config.mixer.kind == "attention"

    def open_rows(self, prompts: Ids, *, max_len: int, rows_per_prompt: int = 1) -> tuple[NativeDecoderSession, Logits]:
        """A session of one row per prompt, each of one or more ids, that has read them, and the logits after each.

        max_len: positions of a row, its prompt included. rows_per_prompt: how many rows a prompt may become by keeping
        it repeatedly; rows are made when they are needed, so any number will do.
        """
        if self.config.positions != "none" and max_len > self.config.max_len:
            raise ValueError(f"this model has {self.config.max_len} positions; asked for {max_len}")
        session = NativeDecoderSession(self, max_len)
        logits = session.add(prompts)
        assert isinstance(logits, Logits)
        return session, logits


def native_decoder(model: Decoder, precision: Precision = "float32") -> NativeDecoder | None:
    """The model on the native decoder; None if it runs elsewhere than on the CPU, has parts the library does not know,
    there is no library, or the library does not give the model's own logits on a trial."""
    if not NativeDecoder.supports(model) or model.tokens.weight.device.type != "cpu":
        return None
    native = library("decoder")
    if native is None:
        return None
    fast = NativeDecoder(model, native, precision)
    return fast if _agrees(model, fast, _TOLERANCES[precision]) else None


@torch.inference_mode()
def _agrees(model: Decoder, fast: NativeDecoder, tolerance: float) -> bool:
    """Whether both give the same logits, up to a share `tolerance` of the largest, for some ids."""
    size, training = model.vocabulary.target_size, model.training
    ids_BT = torch.arange(2 * min(4, model.config.max_len)).view(2, -1) % size
    model.eval()
    expected = Logits(model(ids_BT)[:, -1].float(), fast.pad_id)
    model.train(training)
    _, given = fast.open_rows(ids_BT.tolist(), max_len=ids_BT.shape[1])
    expected_BV = expected.logits_NV.nan_to_num(neginf=0.0)
    given_BV = given.logits_NV[:, :size].nan_to_num(neginf=0.0)
    return float((given_BV - expected_BV).abs().max()) <= tolerance * float(expected_BV.abs().max())


def _never_said(model: Decoder) -> int | None:
    """The padding token, unless it is also the one that ends texts."""
    return model.vocabulary.pad_id if model.vocabulary.pad_id != model.vocabulary.eos_id else None
