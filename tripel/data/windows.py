"""Windows of a token stream as training examples: inputs tokens[i:i+T], targets tokens[i+1:i+T+1], T the context.

An epoch begins at a random place in [0, context), so that windows are cut elsewhere each time. Without carried state
its windows come in random order. With it (truncated back-propagation through time) the stream is cut into as many rows
as a step has windows, and each step gives every row its next window:

    row 0   |  step 0  |  step 1  |  step 2  | ...      the state that row r has after step s is the one
    row 1   |  step 0  |  step 1  |  step 2  | ...      that it begins step s + 1 with
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tripel.data.batch import Batch
from tripel.data.steps import EpochSteps, StepLoader
from tripel.errors import DataError

# After so many windows the pages of the file that were read are given back: around each the system maps far more.
_WINDOWS_MAPPED = 256
_SMALL_BYTES = 1 << 26


@dataclass(frozen=True)
class WindowPlan:
    """The steps of an epoch. order: int64 or int32 [windows], their numbers as they are taken; None with carried state.

    offset: where the first window begins. rows: windows of a step; a row of carried text has row_length tokens.
    """

    context: int
    offset: int
    n_steps: int
    rows: int
    order: np.ndarray | None
    row_length: int

    def starts(self, step: int) -> np.ndarray:
        """Where the windows of a step begin in the stream, int64 [rows]."""
        if self.order is None:
            return self.offset + np.arange(self.rows, dtype=np.int64) * self.row_length + step * self.context
        chosen = self.order[step * self.rows : (step + 1) * self.rows]
        return self.offset + chosen.astype(np.int64) * self.context

    @property
    def tokens(self) -> int:
        """Tokens that are predicted in the epoch."""
        return self.n_steps * self.rows * self.context


def plan_windows(
    n_tokens: int, *, context: int, tokens_per_step: int, seed: int, epoch: int, carry_state: bool = False
) -> WindowPlan:
    """Plan an epoch: a function of its arguments alone, whatever the number of ranks.

    A step has tokens_per_step // context windows, at least one, and all there are if they are fewer. No token is
    predicted twice; left out are those before offset and what does not fill a step. Raises DataError for a stream
    shorter than a window and its last target.
    """
    if n_tokens < context + 1:
        raise DataError(
            "the text is shorter than one training window",
            given=f"{n_tokens} tokens",
            expected=f"at least {context + 1} for a context of {context}",
            mend=f"train on more text, or set data.context to {max(n_tokens - 1, 1)} or less",
        )
    rng = np.random.default_rng([seed, epoch])
    most_offset = min(context, n_tokens - context)
    offset = int(rng.integers(0, most_offset))
    wanted = max(1, tokens_per_step // context)
    if carry_state:
        # The same rows in every epoch, whatever its offset.
        rows = min(wanted, max(1, (n_tokens - most_offset) // context))
        row_length = (n_tokens - 1 - offset) // rows
        return WindowPlan(context, offset, row_length // context, rows, None, row_length)
    n_windows = (n_tokens - 1 - offset) // context
    rows = min(wanted, n_windows)
    order = rng.permutation(np.arange(n_windows, dtype=np.int32 if n_windows < 1 << 31 else np.int64))
    return WindowPlan(context, offset, n_windows // rows, rows, order, context)


def collate_windows(ids: np.ndarray, starts: np.ndarray, context: int, carried: bool | None = None) -> Batch:
    """The windows of a stream that begin at starts, as a Batch with the model's argument ids_BT."""
    tokens_BS = torch.from_numpy(ids[starts[:, None] + np.arange(context + 1)].astype(np.int64))
    count = len(starts) * context
    return Batch(
        inputs={"ids_BT": tokens_BS[:, :-1].contiguous()},
        targets_BT=tokens_BS[:, 1:].contiguous(),
        count=count,
        tokens=count,
        rows=tuple(starts.tolist()),
        carried=carried,
    )


class WindowLoader(StepLoader[Batch]):
    """Micro-batches of windows of a token stream, each with its starts in the stream as Batch.rows.

    tokens_per_step: predicted tokens of a step. micro_tokens: the most of a micro-batch; one window at least.
    carry_state: rows of consecutive text; Batch.carried then says whether a row goes on with its last state, and
    micro-batch m of a rank has the same rows in every step.
    rank, world_size: this process among those that train together. All see the same steps, each its own rows.
    """

    def __init__(
        self,
        ids: np.ndarray,
        *,
        context: int,
        tokens_per_step: int,
        micro_tokens: int,
        seed: int,
        carry_state: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert 0 <= rank < world_size
        super().__init__()
        self._ids, self._context, self._tokens_per_step = ids, context, tokens_per_step
        self._rows_at_once = max(1, micro_tokens // context)
        self._seed, self._carry_state = seed, carry_state
        self._rank, self._world_size = rank, world_size

    def plan(self, epoch: int) -> WindowPlan:
        """An epoch's plan, for reports such as steps per epoch. Raises DataError as plan_windows does."""
        return plan_windows(
            len(self._ids),
            context=self._context,
            tokens_per_step=self._tokens_per_step,
            seed=self._seed,
            epoch=epoch,
            carry_state=self._carry_state,
        )

    def steps_of(self, epoch: int) -> EpochSteps[Batch]:
        """The steps of an epoch's plan, this rank's rows of each."""
        plan = self.plan(epoch)
        steps_between = max(1, _WINDOWS_MAPPED // plan.rows)

        def batches(step: int) -> list[Batch]:
            if step % steps_between == 0:
                give_back(self._ids)
            mine = np.array_split(plan.starts(step), self._world_size)[self._rank]
            carried = step > 0 if self._carry_state else None
            return [self._collate(epoch, starts, carried) for starts in self._micros(mine)]

        return EpochSteps(plan.n_steps, batches)

    def _collate(self, epoch: int, starts: np.ndarray, carried: bool | None) -> Batch:
        del epoch  # for loaders whose examples differ from epoch to epoch
        return collate_windows(self._ids, starts, self._context, carried)

    def _micros(self, starts: np.ndarray) -> list[np.ndarray]:
        n_micros = -(-len(starts) // self._rows_at_once)
        return np.array_split(starts, n_micros) if n_micros else []


def valid_batches(ids: np.ndarray, context: int, batch_tokens: int, *, carry_state: bool = False) -> Iterator[Batch]:
    """Windows that follow each other without overlap, so that every token but the first is predicted once.

    batch_tokens: predicted tokens of a batch at most, one window at least. What is left at the end is a shorter window
    in a batch of its own. carry_state: the stream is cut into rows as for training, and Batch.carried says whether a
    batch goes on with the state after the batch before it; what does not fill the rows comes after them, begun anew.
    A stream of fewer than two tokens gives none.
    """
    held = 0
    for starts, length, carried in _valid_windows(max(len(ids) - 1, 0), context, batch_tokens // context, carry_state):
        held += len(starts)
        if held > _WINDOWS_MAPPED:
            held = 0
            give_back(ids)
        yield collate_windows(ids, starts, length, carried)


def _valid_windows(
    n_targets: int, context: int, rows_at_once: int, carry_state: bool
) -> Iterator[tuple[np.ndarray, int, bool | None]]:
    """For each batch where its windows begin, their length, and Batch.carried."""
    n_windows, rest = divmod(n_targets, context)
    starts = np.arange(n_windows, dtype=np.int64) * context
    rows_at_once = max(1, rows_at_once)
    anew = False if carry_state else None
    if carry_state and n_windows:
        rows = min(rows_at_once, n_windows)
        in_rows, starts = np.split(starts, [n_windows // rows * rows])
        for step, row_starts in enumerate(in_rows.reshape(rows, -1).T):
            yield row_starts, context, step > 0
    for first in range(0, len(starts), rows_at_once):
        yield starts[first : first + rows_at_once], context, anew
    if rest:
        yield np.array([n_windows * context]), rest, anew


def give_back(ids: np.ndarray) -> None:
    """Let go of the pages of a large mapped file. They count as this process's memory as long as they are mapped, while
    the file stays in the system's cache, from which the next window is mapped at little cost."""
    if ids.nbytes <= _SMALL_BYTES or ids.flags.writeable or not hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        return
    mapping = ids.base
    if isinstance(mapping, mmap.mmap):
        mapping.madvise(mmap.MADV_DONTNEED)
