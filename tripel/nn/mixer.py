"""The mixer contract: the only part of a block that moves information between positions.

    forward(x_BTD, *, valid_BT=None, state=None, taps=None) -> y_BTD
      state None : x is the whole sequence
      state given: x is the next T >= 1 positions after those the state has read; the state is updated.
                   Reading a prompt and taking one step are the same call. Only causal mixers have states.

Laws, each proved for every row of `MIXERS` by tests/laws:
  1. causality   y[:, t] depends on x[:, :t+1] only, if causal
  2. padding     y at valid positions does not depend on how much right padding follows
  3. increments  any split of x fed through a state gives the y of one call
  4. selection   select then step equals step on the selected rows
  5. joining     rows joined from different states step as they would alone
  6. taps        y with taps is bit for bit y without
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, Self

from torch import Tensor, nn

from tripel.config import Config


class BaseMixerConfig(Config):
    """Base of every mixer's config."""

    def at_layer(self, layer: int) -> Self:
        """The settings of one layer of a stack, for kinds whose layers differ."""
        return self


class Taps(Protocol):
    """Receives named intermediate tensors: `taps("weights", weights_BHTS)`; `taps.scope("self")` prefixes names."""

    def __call__(self, name: str, value: Tensor) -> None: ...

    def scope(self, name: str) -> Taps: ...


def scoped(taps: Taps | None, *names: str | int) -> Taps | None:
    """The taps below names, or None when nobody listens."""
    for name in names:
        taps = taps.scope(str(name)) if taps is not None else None
    return taps


class State(ABC):
    """What a causal mixer remembers of the positions it has read. Every tensor has the rows on dim 0."""

    @abstractmethod
    def select(self, rows_N: Tensor) -> None:
        """Keep rows_N (int64 indices, repeats allowed) in that order: beam reorder, expansion and dropping rows."""

    @classmethod
    @abstractmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One state with the rows of all, in order, although they have read different numbers of positions."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything the state knows, by name; for states of constant size, which training may carry on and store."""
        raise NotImplementedError(f"{type(self).__name__} grows with what it has read: it is not carried on")

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of tensors, on the device and in the dtype of this state."""
        raise NotImplementedError(f"{type(self).__name__} grows with what it has read: it is not carried on")


class Mixer(nn.Module, ABC):
    """Base of all mixers; see the module docstring for the contract.

    constant_state: whether a state is as large after a million positions as after one.
    """

    causal: bool
    constant_state: ClassVar[bool] = False

    def initialise(self, scheme: str) -> None:
        """Set what needs other first values than a scheme gives all linear maps; nothing for most."""

    @abstractmethod
    def forward(
        self, x_BTD: Tensor, *, valid_BT: Tensor | None = None, state: State | None = None, taps: Taps | None = None
    ) -> Tensor: ...

    @abstractmethod
    def init_state(self, batch: int, max_len: int) -> State:
        """An empty state for batch rows of at most max_len positions, on the device and in the dtype of the weights."""
