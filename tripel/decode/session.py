"""Some sentences being decoded by a model: what the loop reads with, whatever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tripel.decode.candidates import Candidates, Logits, Wish
from tripel.models.config import EncoderDecoderConfig, Vocabulary

Ids = Sequence[Sequence[int]]


class Session(Protocol):
    """Rows that have read a source and a part of a target. drop_share: see Search."""

    drop_share: float

    def read(self, ids: Ids, wish: Wish | None) -> Candidates | Logits:
        """Read the next ids of every row, equally many for all; then what is wished for, or else all logits."""

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, repeats allowed, in this order."""


class Translating(Protocol):
    """A model that can be asked for sessions, or one with the start and step of EncoderDecoder."""

    config: EncoderDecoderConfig
    vocabulary: Vocabulary


@runtime_checkable
class Opening(Protocol):
    """A model with sessions of its own kind."""

    def open(self, sources: Ids, *, max_len: int, rows_per_sentence: int) -> Session: ...


def open_session(model: Any, sources: Ids, *, max_len: int, rows_per_sentence: int) -> Session:
    """A session of one row per source, with room for max_len positions of rows_per_sentence rows each."""
    if isinstance(model, Opening):
        return model.open(sources, max_len=max_len, rows_per_sentence=rows_per_sentence)
    return TensorSession(model, sources, max_len)


class TensorSession:
    """A session of a model that has start(source_BS, valid_BS, max_len=) and step(ids_NT, state)."""

    drop_share = 0.25

    def __init__(self, model: Any, sources: Ids, max_len: int) -> None:
        self.model, self.pad_id, self.device = model, model.vocabulary.pad_id, device_of(model)
        source_BS, valid_BS = pad(sources, self.pad_id, self.device)
        self.state = model.start(source_BS, valid_BS, max_len=max_len)

    def read(self, ids: Ids, wish: Wish | None) -> Logits:
        """All logits, whatever is wished for."""
        return Logits(self.model.step(torch.tensor(ids, device=self.device), self.state), self.pad_id)

    def keep(self, rows: Sequence[int]) -> None:
        """Select rows of the state."""
        self.state.select(torch.tensor(rows, device=self.device))


def pad(sources: Ids, pad_id: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Sources padded on the right (B, S), and which tokens are real; None when all are."""
    longest = max(map(len, sources))
    source_BS = torch.tensor([[*source, *[pad_id] * (longest - len(source))] for source in sources], device=device)
    if all(len(source) == longest for source in sources):
        return source_BS, None
    lengths_B = torch.tensor([len(source) for source in sources], device=device)
    return source_BS, torch.arange(longest, device=device) < lengths_B[:, None]


def device_of(model: object) -> torch.device:
    """Where a model's weights are; the CPU for what has no weights."""
    return next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
