"""The attention encoder on native code: the same hidden states, a fraction of the time, padding never computed."""

from __future__ import annotations

import ctypes
import weakref
from typing import cast

import torch
from torch import Tensor, nn

from tripel.decode.native.arrays import address
from tripel.decode.native.build import library
from tripel.decode.native.decoder import Precision
from tripel.decode.native.stack import StackWriter, described
from tripel.decode.pack import twin_of
from tripel.models.encoder import Encoder
from tripel.nn.mixer import Taps

PRECISIONS = {"float32": 0, "bfloat16": 1, "int8": 3}

# As of the native decoder: an alarm, not a bound on rounding.
TOLERANCES = {"float32": 1e-2, "bfloat16": 0.3, "int8": 0.3}


class NativeEncoder(Encoder):
    """An Encoder whose hidden states come from native code, computed from a packed copy of its weights.

    precision: float32; bfloat16: products of numbers rounded to bfloat16; int8: weights rounded to 8 bits with a scale for
    each output, and inputs with a scale for each token where the processor multiplies 8 bits. Sums, attention and norms are
    float32 always. The hidden states of padding are zeros. The copy does not follow later changes of the model, whose head
    and pooler are shared. Works in as many threads as torch.get_num_threads().
    """

    def __init__(self, model: Encoder, native: ctypes.CDLL, precision: Precision = "float32") -> None:
        nn.Module.__init__(self)
        same = twin_of(model, lambda _: None)
        self.config, self.vocabulary = model.config, model.vocabulary
        self.tokens, self.embedding, self.encoder = same.tokens, same.embedding, same.encoder
        self.pooler, self.head = same.pooler, same.head
        self.native, self.precision = native, precision
        mixer, first = model.config.mixer, model.encoder.blocks[0].mixer
        numbers, reals = described(model.config, mixer, first, PRECISIONS[precision], causal=False)
        self.handle = native.tripel_stack_model(address(numbers), address(reals))
        weakref.finalize(self, native.tripel_stack_free_model, self.handle)
        with torch.inference_mode(False), torch.no_grad():
            writer = StackWriter(native, self.handle)
            writer.embedding(self.tokens, self.embedding.positions, self.embedding.types, self.embedding.norm)
            writer.stack(self.encoder)
            writer.ready()
        self._rooms: list[Room] = []  # not in use at the moment
        self.eval()

    @staticmethod
    def supports(model: nn.Module) -> bool:
        """Whether native code computes this model."""
        return isinstance(model, Encoder) and model.config.mixer.kind == "attention"

    def features(
        self,
        ids_BT: Tensor,
        valid_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """As of Encoder, without a gradient. What native code does not take, taps among it, is PyTorch's to do or refuse."""
        lengths_B = _lengths(ids_BT, valid_BT)
        if taps is not None or lengths_B is None or not self._takes(ids_BT, types_BT):
            return super().features(ids_BT, valid_BT, types_BT, taps)
        B, T = ids_BT.shape
        allocate = torch.empty if valid_BT is None else torch.zeros
        h_BTD = allocate(B, T, self.config.d_model)
        ids_BT = ids_BT.contiguous()
        types_BT = None if types_BT is None else types_BT.expand(B, T).contiguous()
        types = None if types_BT is None else types_BT.data_ptr()
        room = self._rooms.pop() if self._rooms else Room(self.native, self.handle)
        self.native.tripel_encoder_read(
            room.handle, ids_BT.data_ptr(), types, lengths_B.data_ptr(), B, T, torch.get_num_threads(), h_BTD.data_ptr()
        )
        self._rooms.append(room)
        return h_BTD

    def _takes(self, ids_BT: Tensor, types_BT: Tensor | None) -> bool:
        """Whether these are ids that the library can trust: it looks them up in tables without another look."""
        positions, types = self.embedding.positions, self.embedding.types
        if positions.kind != "none" and ids_BT.shape[1] > positions.max_len:
            return False
        if types_BT is not None and (types is None or not _below(types_BT, len(cast(Tensor, types.weight)))):
            return False
        return _below(ids_BT, len(self.tokens.weight))


class Room:
    """Memory of one call at a time: several threads may encode at once. model: the library's handle of a model."""

    def __init__(self, native: ctypes.CDLL, model: int) -> None:
        self.handle = native.tripel_encoder_start(model)
        weakref.finalize(self, native.tripel_encoder_free_room, self.handle)


def native_encoder(model: Encoder, precision: Precision = "float32") -> NativeEncoder | None:
    """The model on native code; None if it is not in float32 on the CPU, has parts the library does not know, there is no
    library, or the library does not give the model's own hidden states on a trial."""
    weight_VD = model.tokens.weight
    if not NativeEncoder.supports(model) or weight_VD.device.type != "cpu" or weight_VD.dtype != torch.float32:
        return None
    native = library("encoder")
    if native is None:
        return None
    fast = NativeEncoder(model, native, precision)
    return fast if _agrees(fast, TOLERANCES[precision]) else None


@torch.inference_mode()
def _agrees(fast: NativeEncoder, tolerance: float) -> bool:
    """Whether both give the same hidden states, up to a share `tolerance` of the largest, for some ids."""
    size, T = fast.vocabulary.source_size, min(6, fast.config.max_len)
    ids_BT = torch.arange(2 * T).view(2, T) % size
    valid_BT = torch.arange(T) < torch.tensor([[T], [T - 1]])
    expected = Encoder.features(fast, ids_BT, valid_BT)[valid_BT]
    given = fast.features(ids_BT, valid_BT)[valid_BT]
    return float((given - expected).abs().max()) <= tolerance * float(expected.abs().max())


def _lengths(ids_BT: Tensor, valid_BT: Tensor | None) -> Tensor | None:
    """The number of tokens of each text, (B,); None if what is not valid is not all on the right, or not on the CPU."""
    if ids_BT.dim() != 2 or ids_BT.device.type != "cpu" or ids_BT.dtype != torch.int64:
        return None
    B, T = ids_BT.shape
    if valid_BT is None:
        return torch.full((B,), T)
    lengths_B = valid_BT.sum(1)
    right = torch.equal(valid_BT, torch.arange(T) < lengths_B[:, None])
    return lengths_B if right else None


def _below(ids: Tensor, size: int) -> bool:
    if ids.dtype != torch.int64:
        return False
    if not ids.numel():
        return True
    least, most = ids.aminmax()
    return int(least) >= 0 and int(most) < size
