"""Token embeddings and positions: where ids enter the residual stream."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from tripel.nn.dropout import Dropout
from tripel.nn.exact import embedding

PositionKind = Literal["sinusoidal", "learned", "none"]
SinusoidOrder = Literal["halves", "interleaved"]


class TokenEmbedding(nn.Module):
    """A matrix (V, D), looked up and multiplied by a constant (sqrt(D) in Vaswani 2017, section 3.4).

    pad_id: the row that is for padding alone and not learnt, or None.
    """

    def __init__(self, vocab_size: int, d_model: int, *, pad_id: int | None, scale: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        self.pad_id, self.factor = pad_id, math.sqrt(d_model) if scale else 1.0

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = embedding(ids_BT, self.weight, self.pad_id)
        return x_BTD * self.factor if self.factor != 1.0 else x_BTD


class Positions(nn.Module):
    """Adds a vector per position: sinusoids (Vaswani 2017, section 3.5), a learned table, or nothing.

    order of the sinusoids: `halves` puts all sines before all cosines (tensor2tensor, Marian), `interleaved` alternates
    them as the paper prints it. One is a permutation of the other.
    """

    def __init__(self, kind: PositionKind, max_len: int, d_model: int, *, order: SinusoidOrder) -> None:
        super().__init__()
        self.kind, self.max_len = kind, max_len
        if kind == "learned":
            self.weight = nn.Parameter(torch.empty(max_len, d_model))
        elif kind == "sinusoidal":
            self.register_buffer("weight", torch.empty(max_len, d_model), persistent=False)
            self.order = order
            self.reset_constants()

    def reset_constants(self) -> None:
        """Fill the sinusoid table; needed again after a model made on the meta device is given memory."""
        if self.kind == "sinusoidal" and not self.weight.is_meta:
            with torch.no_grad():
                self.weight.copy_(sinusoids(*self.weight.shape, order=self.order))

    def forward(self, x_BTD: Tensor, start: int | Tensor = 0) -> Tensor:
        """start: the position of x[:, 0], one number for all rows or one per row (B,)."""
        if self.kind == "none":
            return x_BTD
        T = x_BTD.shape[1]
        if isinstance(start, int):
            return x_BTD + self.weight[start : start + T].to(x_BTD.dtype)
        return x_BTD + self.weight[start[:, None] + torch.arange(T, device=start.device)].to(x_BTD.dtype)


class Embedding(nn.Module):
    """ids -> the residual stream: token embedding, positions, dropout. The token matrix is passed in: it may be shared."""

    def __init__(self, positions: Positions, *, dropout: float, variational: bool = False) -> None:
        super().__init__()
        self.positions, self.dropout = positions, Dropout(dropout, variational=variational)

    def forward(self, ids_BT: Tensor, tokens: TokenEmbedding, start: int | Tensor = 0) -> Tensor:
        return self.dropout(self.positions(tokens(ids_BT), start))


class TextEmbedding(nn.Module):
    """ids -> an encoder's residual stream: tokens + positions + token types, norm, dropout (Devlin et al. 2019, section 3).

    n_types: token types, 0 for none. norm: applied to the sum, or None.
    """

    def __init__(
        self, positions: Positions, d_model: int, n_types: int, norm: nn.Module | None, *, dropout: float
    ) -> None:
        super().__init__()
        self.positions, self.dropout = positions, Dropout(dropout)
        self.types = TokenEmbedding(n_types, d_model, pad_id=None, scale=False) if n_types else None
        self.norm = nn.Identity() if norm is None else norm

    def forward(self, ids_BT: Tensor, tokens: TokenEmbedding, types_BT: Tensor | None = None) -> Tensor:
        """types_BT: the segment of every token; None stands for the first everywhere."""
        x_BTD = self.positions(tokens(ids_BT))
        if self.types is not None:
            type_D = self.types.weight[0].to(x_BTD.dtype) if types_BT is None else self.types(types_BT)
            x_BTD = x_BTD + type_D
        return self.dropout(self.norm(x_BTD))


def sinusoids(max_len: int, d_model: int, *, order: SinusoidOrder) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i+1) = cos(...) (Vaswani 2017, section 3.5); (max_len, D)."""
    position_T1 = torch.arange(max_len, dtype=torch.float64, device="cpu")[:, None]
    angle_TE = position_T1 / 10000 ** (torch.arange(0, d_model, 2, dtype=torch.float64, device="cpu") / d_model)
    sines_TE, cosines_TE = angle_TE.sin(), angle_TE[:, : d_model // 2].cos()
    if order == "halves":
        return torch.cat([sines_TE, cosines_TE], dim=1).float()
    table_TD = torch.empty(max_len, d_model)
    table_TD[:, 0::2], table_TD[:, 1::2] = sines_TE.float(), cosines_TE.float()
    return table_TD
