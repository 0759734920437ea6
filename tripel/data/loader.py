"""Batches of pairs for the trainer: the steps of an epoch are planned by length, see tripel.data.plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import numpy as np

from tripel.data.plan import Plan, make_plan
from tripel.data.steps import BatchT, EpochSteps, StepLoader


class Sized(Protocol):
    """What the loader must know of a corpus: tokens per example, begin and end tokens not included."""

    @property
    def source_lengths(self) -> np.ndarray: ...

    @property
    def target_lengths(self) -> np.ndarray: ...


CorpusT = TypeVar("CorpusT", bound=Sized)


class Loader(StepLoader[BatchT], Generic[CorpusT, BatchT]):
    """Micro-batches of pairs of like length.

    make_corpus: epoch to corpus; called once per epoch, in the background. BPE dropout gives another one each time.
    collate: makes a batch of the corpus's examples with the given indices; called in the background.
    tokens_per_step, micro_tokens, seed: see make_plan; an end token is added to each side's lengths.
    rank, world_size: this process among those that train together. All see the same steps, each its own part.
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
        super().__init__()
        self._make_corpus, self._collate = make_corpus, collate
        self._tokens_per_step, self._micro_tokens, self._seed = tokens_per_step, micro_tokens, seed
        self._rank, self._world_size = rank, world_size

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

    def steps_of(self, epoch: int) -> EpochSteps[BatchT]:
        """The steps of an epoch's plan, this rank's share of each."""
        corpus, plan = self.plan(epoch)

        def batches(step: int) -> list[BatchT]:
            return [self._collate(corpus, rows) for rows in plan.share(step, self._rank, self._world_size)]

        return EpochSteps(len(plan.steps), batches)
