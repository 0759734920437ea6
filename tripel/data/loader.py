"""Batches for the trainer: an endless, resumable stream of optimizer steps, prepared one ahead in the background."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypedDict, TypeVar

import numpy as np

from tripel.data.plan import Plan, make_plan
from tripel.errors import DataError

_STEPS_AHEAD = 2
# How long the preparing thread waits before it looks whether anybody still wants its steps.
_LOOK_SECONDS = 0.1


class Sized(Protocol):
    """What the loader must know of a corpus: tokens per example, begin and end tokens not included."""

    @property
    def source_lengths(self) -> np.ndarray: ...

    @property
    def target_lengths(self) -> np.ndarray: ...


CorpusT = TypeVar("CorpusT", bound=Sized)
BatchT = TypeVar("BatchT")


class LoaderState(TypedDict):
    """The next step: step_in_epoch counts the steps of the epoch that were handed out."""

    epoch: int
    step_in_epoch: int


@dataclass(frozen=True)
class _Step(Generic[BatchT]):
    """A prepared step, the state after it, and what its plan says of it; or the error that ended the preparation."""

    batches: list[BatchT]
    after: LoaderState
    error: BaseException | None = None


class Loader(Generic[CorpusT, BatchT]):
    """Iterating yields, for ever, the micro-batches of one optimizer step that fall to this rank (perhaps none).

    make_corpus: epoch to corpus; called once per epoch, in the background. BPE dropout gives another one each time.
    collate: makes a batch of the corpus's examples with the given indices; called in the background.
    tokens_per_step, micro_tokens, seed: see make_plan; an end token is added to each side's lengths.
    rank, world_size: this process among those that train together. All see the same steps, each its own part.

    An error in make_corpus or collate is raised where the loader is iterated. One iteration at a time.
    """

    def __init__(
        self,
        make_corpus: Callable[[int], CorpusT],
        collate: Callable[[CorpusT, np.ndarray], BatchT],
        *,
        tokens_per_step: int,
        micro_tokens: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert 0 <= rank < world_size
        self._make_corpus, self._collate = make_corpus, collate
        self._tokens_per_step, self._micro_tokens, self._seed = tokens_per_step, micro_tokens, seed
        self._rank, self._world_size = rank, world_size
        self._state = LoaderState(epoch=0, step_in_epoch=0)

    def state_dict(self) -> LoaderState:
        """Where the stream stands: after the last step that was handed out (not the last that was prepared)."""
        return self._state.copy()

    def load_state_dict(self, state: LoaderState) -> None:
        """Go on after the step at which state was taken. Takes effect at the next iteration's start."""
        self._state = LoaderState(epoch=int(state["epoch"]), step_in_epoch=int(state["step_in_epoch"]))

    def __iter__(self) -> Iterator[list[BatchT]]:
        prepared: queue.Queue[_Step[BatchT]] = queue.Queue(maxsize=_STEPS_AHEAD)
        stop = threading.Event()
        thread = threading.Thread(
            target=self._prepare, args=(self.state_dict(), prepared, stop), name="tripel-loader", daemon=True
        )
        thread.start()
        try:
            while True:
                step = prepared.get()
                if step.error is not None:
                    raise step.error
                self._state = step.after
                yield step.batches
        finally:
            stop.set()
            thread.join()

    def plan(self, epoch: int) -> tuple[CorpusT, Plan]:
        """An epoch's corpus and plan, for reports such as steps per epoch and the share of padding."""
        corpus = self._make_corpus(epoch)
        plan = make_plan(
            corpus.source_lengths + 1,
            corpus.target_lengths + 1,
            tokens_per_step=self._tokens_per_step,
            micro_tokens=self._micro_tokens,
            seed=self._seed,
            epoch=epoch,
        )
        return corpus, plan

    def _prepare(self, start: LoaderState, prepared: queue.Queue[_Step[BatchT]], stop: threading.Event) -> None:
        try:
            for step in self._steps(start):
                if not _put(prepared, step, stop):
                    return
        except BaseException as error:  # the consumer raises it
            _put(prepared, _Step([], start, error), stop)

    def _steps(self, start: LoaderState) -> Iterator[_Step[BatchT]]:
        epoch, first = start["epoch"], start["step_in_epoch"]
        while True:
            corpus, plan = self.plan(epoch)
            if first > len(plan.steps):
                raise DataError(
                    "the checkpoint's place in the data does not exist",
                    given=f"step {first} of epoch {epoch}",
                    expected=f"at most {len(plan.steps)} steps in an epoch",
                    mend="resume with the data, tokenizer and tokens_per_step the run was started with",
                )
            for index in range(first, len(plan.steps)):
                micros = plan.share(index, self._rank, self._world_size)
                batches = [self._collate(corpus, micro) for micro in micros]
                yield _Step(batches, LoaderState(epoch=epoch, step_in_epoch=index + 1))
            epoch, first = epoch + 1, 0


def _put(prepared: queue.Queue[_Step[BatchT]], step: _Step[BatchT], stop: threading.Event) -> bool:
    """Wait for room; False when the consumer has gone."""
    while not stop.is_set():
        try:
            prepared.put(step, timeout=_LOOK_SECONDS)
            return True
        except queue.Full:
            continue
    return False
