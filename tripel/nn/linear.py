"""Several linear maps of one input in one product."""

from __future__ import annotations

from torch import Tensor, nn


class FusedLinear(nn.Linear):
    """Maps of one input (in_features -> sizes[0], -> sizes[1] ...) stacked in one weight (sum(sizes), in_features).

    One product is faster than several; initialisation, orthogonalised updates and other formats see `parts`.
    """

    def __init__(self, in_features: int, sizes: tuple[int, ...], *, bias: bool) -> None:
        super().__init__(in_features, sum(sizes), bias=bias)
        self.sizes = sizes

    def parts(self) -> tuple[Tensor, ...]:
        """Views of the weights, each (sizes[i], in_features)."""
        return self.weight.split(self.sizes)


def map_sizes(linear: nn.Linear) -> tuple[int, ...]:
    """The rows of each map that a linear layer holds: several for FusedLinear, one for others."""
    return linear.sizes if isinstance(linear, FusedLinear) else (linear.out_features,)
