"""Pictures enter the residual stream: patches as vectors, and where in the picture each stands."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tripel.nn.dropout import Dropout
from tripel.nn.embed import PositionKind, sinusoids


class PatchStem(nn.Module):
    """Every patch through one linear map (Dosovitskiy et al. 2021, eq. 1): its inputs in the order channel, row, column."""

    def __init__(self, channels: int, patch_size: int, d_model: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.output = nn.Linear(channels * patch_size**2, d_model)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """pixels (B, C, H, W) -> (B, h, w, D)."""
        B, C, H, W = pixels_BCHW.shape
        P = self.patch_size
        patches = pixels_BCHW.to(self.output.weight.dtype).view(B, C, H // P, P, W // P, P)
        return self.output(patches.permute(0, 2, 4, 1, 3, 5).reshape(B, H // P, W // P, C * P * P))  # type: ignore[no-any-return]


class PatchPositions(nn.Module):
    """A vector for every place of a grid of side x side patches, and with class_token one before them for that token.

    learned: a table (n, D), resampled (bicubic) for another grid. sinusoidal: half the width says the row, half the
    column (Beyer et al. 2022), for any grid. none: nothing is added.
    """

    def __init__(self, kind: PositionKind, side: int, d_model: int, *, class_token: bool) -> None:
        super().__init__()
        self.kind, self.side, self.d_model, self.class_token = kind, side, d_model, class_token
        self.weight = nn.Parameter(torch.empty(class_token + side * side, d_model)) if kind == "learned" else None

    def table(self, rows: int, columns: int) -> Tensor | None:
        """(class_token + rows * columns, D), or None where nothing is added."""
        if self.kind == "none":
            return None
        if self.weight is None:
            grid_PD = grid_sinusoids(rows, columns, self.d_model)
            return torch.cat([torch.zeros(1, self.d_model), grid_PD]) if self.class_token else grid_PD
        if (rows, columns) == (self.side, self.side):
            return self.weight
        own, grid = self.weight[: self.class_token], self.weight[self.class_token :]
        grid_1Dhw = grid.float().view(1, self.side, self.side, self.d_model).permute(0, 3, 1, 2)
        other_1Dhw = F.interpolate(grid_1Dhw, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([own, other_1Dhw[0].flatten(1).T.to(own.dtype)])


class PatchEmbedding(nn.Module):
    """pixels -> the residual stream: patches, a class token before them, positions, dropout."""

    def __init__(self, stem: nn.Module, positions: PatchPositions, *, dropout: float) -> None:
        super().__init__()
        self.stem, self.positions, self.dropout = stem, positions, Dropout(dropout)
        self.class_token = nn.Parameter(torch.zeros(positions.d_model)) if positions.class_token else None

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, T, D), T the patches and the class token."""
        x_BhwD = self.stem(pixels_BCHW)
        B, rows, columns, D = x_BhwD.shape
        x_BTD = x_BhwD.reshape(B, rows * columns, D)
        if self.class_token is not None:
            x_BTD = torch.cat([self.class_token.expand(B, 1, D), x_BTD], dim=1)
        table_TD = self.positions.table(rows, columns)
        return self.dropout(x_BTD if table_TD is None else x_BTD + table_TD.to(x_BTD))  # type: ignore[no-any-return]


def grid_sinusoids(rows: int, columns: int, d_model: int) -> Tensor:
    """Sinusoids of the row in the first half of the width, of the column in the second; (rows * columns, D)."""
    half = d_model // 2
    row_hE, column_wE = (sinusoids(n, half, order="halves") for n in (rows, columns))
    grid = torch.cat([row_hE[:, None].expand(-1, columns, -1), column_wE[None].expand(rows, -1, -1)], dim=-1)
    return grid.reshape(rows * columns, d_model)
