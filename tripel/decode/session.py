"""Some texts being decoded by a model: what the loop reads with, whatever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tripel.decode.candidates import Candidates, Logits, Wish
from tripel.models.config import DecoderConfig, EncoderDecoderConfig, Vocabulary

Ids = Sequence[Sequence[int]]

READ_AT_ONCE = 2048
"""Positions of a prompt that a model reads in one pass, which bounds the memory that a long prompt takes."""


class Session(Protocol):
    """Rows that have read what comes before the next token. drop_share: see Search."""

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


class Completing(Protocol):
    """A language model: one with the init_state and step of Decoder, or with open_rows. unbounded: as Decoder's."""

    config: DecoderConfig
    vocabulary: Vocabulary

    @property
    def unbounded(self) -> bool: ...


@runtime_checkable
class OpeningRows(Protocol):
    """A language model with sessions of its own kind."""

    def open_rows(self, prompts: Ids, *, max_len: int, rows_per_prompt: int) -> tuple[Session, Logits]: ...


def open_session(model: Any, sources: Ids, *, max_len: int, rows_per_sentence: int) -> Session:
    """A session of one row per source, with room for max_len positions of rows_per_sentence rows each."""
    if isinstance(model, Opening):
        return model.open(sources, max_len=max_len, rows_per_sentence=rows_per_sentence)
    source_BS, valid_BS = pad(sources, model.vocabulary.pad_id, device_of(model))
    return TensorSession(model, model.start(source_BS, valid_BS, max_len=max_len))


def open_rows(model: Any, prompts: Ids, *, max_len: int, rows_per_prompt: int) -> tuple[Session, Logits]:
    """A session of one row per prompt of a language model, and the scores of what follows each.

    Prompts may differ in length: those of one length are read together, then all rows are joined. There is room for
    max_len positions of rows_per_prompt rows each. model: has open_rows itself, or init_state(batch, max_len) and
    step(ids_NT, state) as Decoder.
    """
    if isinstance(model, OpeningRows):
        return model.open_rows(prompts, max_len=max_len, rows_per_prompt=rows_per_prompt)
    device, states, logits = device_of(model), [], []
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for _, group in groupby(order, key=lambda i: len(prompts[i])):
        ids_NT = torch.tensor([list(prompts[i]) for i in group], device=device)
        states.append(model.init_state(len(ids_NT), max_len))
        for part_NT in ids_NT.split(READ_AT_ONCE, dim=1):
            logits_NV = model.step(part_NT, states[-1])
        logits.append(logits_NV)
    session = TensorSession(model, states[0] if len(states) == 1 else type(states[0]).join(states))
    logits_NV = torch.cat(logits)
    if order != list(range(len(prompts))):
        places = sorted(range(len(order)), key=order.__getitem__)
        session.keep(places)
        logits_NV = logits_NV[torch.tensor(places, device=device)]
    return session, session.scores(logits_NV)


class TensorSession:
    """A session of a model that has step(ids_NT, state), with a state that it has made."""

    drop_share = 0.25

    def __init__(self, model: Any, state: Any) -> None:
        self.model, self.state, self.device = model, state, device_of(model)
        self.pad_id = model.vocabulary.padding_id

    def read(self, ids: Ids, wish: Wish | None) -> Logits:
        """All logits, whatever is wished for."""
        return self.scores(self.model.step(torch.tensor(ids, device=self.device), self.state))

    def scores(self, logits_NV: Tensor) -> Logits:
        """Logits as the searches take them."""
        return Logits(logits_NV, self.pad_id)

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
    """Where a model's weights are; for what is no module, where it says that it works, else the CPU."""
    if isinstance(model, torch.nn.Module):
        return next(model.parameters()).device
    return getattr(model, "device", torch.device("cpu"))
