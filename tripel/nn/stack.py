"""A stack of blocks: the body of an encoder or a decoder."""

from __future__ import annotations

from torch import Tensor, nn

from tripel.nn.block import Block
from tripel.nn.mixer import State, Taps, scoped


class Stack(nn.Module):
    """Blocks in order, then a final norm where the wiring needs one (pre-norm)."""

    def __init__(self, blocks: list[Block], final_norm: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = final_norm

    def forward(
        self,
        x_BTD: Tensor,
        *,
        valid_BT: Tensor | None = None,
        states: list[State] | None = None,
        memory: tuple[list[tuple[Tensor, Tensor]], Tensor | None] | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """states, memory: one per block; memory is keys and values of each block's cross-attention, and their validity."""
        for i, block in enumerate(self.blocks):
            x_BTD = block(
                x_BTD,
                valid_BT=valid_BT,
                state=None if states is None else states[i],
                memory=None if memory is None else (memory[0][i], memory[1]),
                taps=scoped(taps, i),
            )
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD)
