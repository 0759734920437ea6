"""Which examples make up each optimizer step of an epoch: token budgets, length buckets, and a fixed shuffle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripel.errors import DataError


@dataclass(frozen=True)
class Plan:
    """An epoch: steps[s][m] are the example indices of micro-batch m of optimizer step s. Every example is in one.

    target_tokens, padded_tokens: [s][m] the real target tokens, and the larger padded side, of each micro-batch.
    padding_share: of all positions that are computed, on both sides together, those that are padding.
    """

    steps: list[list[np.ndarray]]
    target_tokens: list[np.ndarray]
    padded_tokens: list[np.ndarray]
    padding_share: float

    def share(self, step: int, rank: int, world_size: int) -> list[np.ndarray]:
        """The micro-batches of a step that fall to a rank: as many whole ones to each, largest first, each to the rank
        with the least so far; those left over are divided among all by rows.

        The same on every rank, so that the shares are disjoint and complete. May be empty.
        """
        micros = self.steps[step]
        if world_size == 1:
            return micros
        loads, mine = [0] * world_size, []
        by_size = np.argsort(-self.padded_tokens[step], kind="stable")
        n_whole = len(micros) // world_size * world_size
        for micro in by_size[:n_whole]:
            taker = loads.index(min(loads))
            loads[taker] += int(self.padded_tokens[step][micro])
            if taker == rank:
                mine.append(micros[micro])
        parts = (micros[micro][rank::world_size] for micro in by_size[n_whole:])
        return mine + [part for part in parts if len(part)]


def make_plan(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    *,
    tokens_per_step: int,
    micro_tokens: int,
    seed: int,
    epoch: int,
) -> Plan:
    """Plan an epoch: a function of its arguments alone, whatever the number of ranks.

    source_lengths, target_lengths: [examples] tokens of each, begin and end tokens included.
    tokens_per_step: predicted target tokens of a step; the steps of an epoch come as near to it as micro-batches and
    an equal share for each step allow. micro_tokens: the most padded tokens, on either side, of a micro-batch; a
    quarter of tokens_per_step or less lets a step mix lengths. An example longer than that is a micro-batch by itself.
    Raises DataError when there are no examples.
    """
    if not len(target_lengths):
        raise DataError(
            "there is nothing to train on",
            given="0 pairs",
            expected="at least one pair",
            mend="look at the report on the data: which check dropped them?",
        )
    rng = np.random.default_rng([seed, epoch])
    order = _by_length(source_lengths, target_lengths, rng)
    limit = max(1, min(micro_tokens, tokens_per_step))
    micros = _cut(order, source_lengths, target_lengths, limit, rng)
    micros = [micros[m] for m in rng.permutation(len(micros))]
    tokens = np.array([target_lengths[micro].sum() for micro in micros], np.int64)
    padded_source = np.array([source_lengths[micro].max() * len(micro) for micro in micros], np.int64)
    padded_target = np.array([target_lengths[micro].max() * len(micro) for micro in micros], np.int64)
    n_steps = max(1, round(tokens.sum() / tokens_per_step))
    # Each micro-batch falls to the step in whose equal share of the epoch's tokens its middle lies.
    middles = np.cumsum(tokens) - tokens / 2
    step_of_micro = (middles * n_steps / tokens.sum()).astype(np.int64)
    groups = np.split(np.arange(len(micros)), np.flatnonzero(np.diff(step_of_micro)) + 1)
    n_real = int(source_lengths.sum() + target_lengths.sum())
    return Plan(
        steps=[[micros[m] for m in group] for group in groups],
        target_tokens=[tokens[group] for group in groups],
        padded_tokens=[np.maximum(padded_source, padded_target)[group] for group in groups],
        padding_share=1.0 - n_real / int(padded_source.sum() + padded_target.sum()),
    )


def _by_length(source_lengths: np.ndarray, target_lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Examples in the order of target length, then source length, up and down in turn so that neighbours on the two
    sides of a change of target length are alike, too. Equals in random order."""
    _, bucket = np.unique(target_lengths, return_inverse=True)
    winding = np.where(bucket % 2, -source_lengths, source_lengths)
    return np.lexsort((rng.permutation(len(bucket)), winding, bucket))


def _cut(
    order: np.ndarray,
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    limit: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Cut the order where the padded size would pass the limit. The first piece is shortened by chance, so that the
    cuts lie elsewhere in each epoch."""
    longer = np.maximum(source_lengths, target_lengths)[order].tolist()
    cuts, longest, start = [], 0, 0
    allowed = int(rng.integers(1, limit + 1))
    for place, length in enumerate(longer):
        longest = max(longest, length)
        if place > start and longest * (place - start + 1) > allowed:
            cuts.append(place)
            longest, start, allowed = length, place, limit
    return np.split(order, cuts)
