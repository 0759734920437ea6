"""An endless, resumable stream of optimizer steps, prepared a little ahead in the background."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

from tripel.errors import DataError

_STEPS_AHEAD = 2
# How long the preparing thread waits before it looks whether anybody still wants its steps.
_LOOK_SECONDS = 0.1

BatchT = TypeVar("BatchT")


class LoaderState(TypedDict):
    """The next step: step_in_epoch counts the steps of the epoch that were handed out."""

    epoch: int
    step_in_epoch: int


@dataclass(frozen=True)
class EpochSteps(Generic[BatchT]):
    """The steps of an epoch. batches: from a step's number to the micro-batches of this rank, perhaps none."""

    n_steps: int
    batches: Callable[[int], list[BatchT]]


@dataclass(frozen=True)
class _Step(Generic[BatchT]):
    """A prepared step, the state after it, and what its plan says of it; or the error that ended the preparation."""

    batches: list[BatchT]
    after: LoaderState
    error: BaseException | None = None


class StepLoader(ABC, Generic[BatchT]):
    """Iterating yields, for ever, the micro-batches of one optimizer step that fall to this rank (perhaps none).

    A subclass says what an epoch is; that runs in the background, and an error in it is raised where the loader is
    iterated. One iteration at a time.
    """

    def __init__(self) -> None:
        self._state = LoaderState(epoch=0, step_in_epoch=0)

    @abstractmethod
    def steps_of(self, epoch: int) -> EpochSteps[BatchT]:
        """An epoch's steps: a function of the epoch and the settings alone, as resuming needs it."""

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
            steps = self.steps_of(epoch)
            if first > steps.n_steps:
                raise DataError(
                    "the checkpoint's place in the data does not exist",
                    given=f"step {first} of epoch {epoch}",
                    expected=f"at most {steps.n_steps} steps in an epoch",
                    mend="resume with the data, tokenizer and tokens_per_step the run was started with",
                )
            for index in range(first, steps.n_steps):
                yield _Step(steps.batches(index), LoaderState(epoch=epoch, step_in_epoch=index + 1))
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
