"""The layers of an encoder on native code, for inputs that are embedded already: a picture's patches."""

from __future__ import annotations

import ctypes
import weakref

import torch
from torch import Tensor, nn

from tripel.decode.native.arrays import address
from tripel.decode.native.build import library
from tripel.decode.native.decoder import Precision
from tripel.decode.native.encoder import PRECISIONS, TOLERANCES, Room
from tripel.decode.native.stack import StackWriter, described
from tripel.models.config import StackedConfig
from tripel.nn import AttentionConfig, MixerConfig
from tripel.nn.mixer import Taps
from tripel.nn.stack import Stack


class NativeStack(nn.Module):
    """A Stack of attention blocks, not causal, that native code computes from a packed copy of its weights.

    precision: as of NativeEncoder. The copy does not follow later changes of the stack. Works in as many threads as
    torch.get_num_threads().
    """

    def __init__(
        self, config: StackedConfig, mixer: MixerConfig, stack: Stack, native: ctypes.CDLL, precision: Precision
    ) -> None:
        super().__init__()
        self.native = native
        numbers, reals = described(config, mixer, stack.blocks[0].mixer, PRECISIONS[precision], causal=False)
        self.handle = native.tripel_stack_model(address(numbers), address(reals))
        weakref.finalize(self, native.tripel_stack_free_model, self.handle)
        with torch.inference_mode(False), torch.no_grad():
            writer = StackWriter(native, self.handle)
            writer.no_embedding()
            writer.stack(stack)
            writer.ready()
        self._rooms: list[Room] = []  # not in use at the moment
        self.eval()

    def forward(self, x_BTD: Tensor, *, taps: Taps | None = None) -> Tensor:
        """As of Stack where every position is valid, without taps and without a gradient."""
        assert taps is None
        return self._read(x_BTD, first_only=False)

    def _read(self, x_BTD: Tensor, *, first_only: bool) -> Tensor:
        x_BTD = x_BTD.float().contiguous()
        B, T, D = x_BTD.shape
        h_BTD = torch.empty(B, 1 if first_only else T, D)
        room = self._rooms.pop() if self._rooms else Room(self.native, self.handle)
        self.native.tripel_encoder_read_given(
            room.handle, x_BTD.data_ptr(), B, T, torch.get_num_threads(), first_only, h_BTD.data_ptr()
        )
        self._rooms.append(room)
        return h_BTD


class FirstOf(nn.Module):
    """A NativeStack of which only the first position is asked, (B, 1, D): the last block computes no other."""

    def __init__(self, stack: NativeStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x_BTD: Tensor, *, taps: Taps | None = None) -> Tensor:
        """As of NativeStack, its first position."""
        assert taps is None
        return self.stack._read(x_BTD, first_only=True)


def native_stack(
    config: StackedConfig, mixer: MixerConfig, stack: Stack, precision: Precision = "float32"
) -> NativeStack | None:
    """The stack on native code; None if it is not of attention, in float32 and on the CPU, there is no library, or the
    library does not give the stack's own hidden states on a trial. stack: in evaluation mode."""
    weights = list(stack.parameters())
    if not isinstance(mixer, AttentionConfig) or any(
        weight.device.type != "cpu" or weight.dtype != torch.float32 for weight in weights
    ):
        return None
    native = library("encoder")
    if native is None:
        return None
    fast = NativeStack(config, mixer, stack, native, precision)
    return fast if _agrees(fast, stack, config.d_model, TOLERANCES[precision]) else None


@torch.inference_mode()
def _agrees(fast: NativeStack, stack: Stack, d_model: int, tolerance: float) -> bool:
    """Whether both give the same hidden states, up to a share `tolerance` of the largest, for some vectors."""
    x_BTD = torch.sin(torch.arange(2.0 * 6 * d_model)).view(2, 6, d_model)
    expected_BTD = stack(x_BTD)
    return float((fast(x_BTD) - expected_BTD).abs().max()) <= tolerance * float(expected_BTD.abs().max())
