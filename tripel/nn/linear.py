"""Several linear maps of one input in one product."""

from __future__ import annotations

from torch import Tensor, nn


class FusedLinear(nn.Linear):
    """n_maps maps (in_features -> features) stacked in one weight (n_maps * features, in_features).

    One product is faster than several; initialisation, orthogonalised updates and other formats see `parts`.
    """

    def __init__(self, in_features: int, features: int, n_maps: int, *, bias: bool) -> None:
        super().__init__(in_features, n_maps * features, bias=bias)
        self.n_maps = n_maps

    def parts(self) -> tuple[Tensor, ...]:
        """Views of the n_maps weights, each (features, in_features)."""
        return self.weight.chunk(self.n_maps)
