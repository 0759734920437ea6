"""What an answer must not say: repeated n-grams, endless loops, and a penalty on repeating oneself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tripel.decode.search import DecodeConfig

LONGEST_PHRASE = 8
"""The longest phrase, in tokens, that the loop guard recognises."""

GUARD_EVERY = 8
"""Steps between two looks of the loop guard: a loop costs a few tokens more, the usual sentence nothing."""


def penalise_repetition(logits_NV: Tensor, histories: Sequence[Sequence[int]], penalty: float) -> None:
    """Divide positive and multiply negative logits of tokens already said, in place (Keskar et al. 2019, section 4.1)."""
    for logits_V, history in zip(logits_NV, histories, strict=True):
        if history:
            said = torch.tensor(sorted(set(history)), device=logits_V.device)
            values = logits_V[said]
            logits_V[said] = values.where(values < 0, values / penalty).where(values >= 0, values * penalty)


def repeated_ngram_tokens(history: Sequence[int], n: int) -> list[int]:
    """The tokens that would complete an n-gram which history already has."""
    if len(history) + 1 < n:
        return []
    tail = list(history[len(history) - n + 1 :])
    return [history[i + n - 1] for i in range(len(history) - n + 1) if list(history[i : i + n - 1]) == tail]


def is_looping(history: Sequence[int], times: int) -> bool:
    """Whether history ends in a phrase of at most LONGEST_PHRASE tokens said `times` times in a row."""
    for period in range(1, LONGEST_PHRASE + 1):
        start = len(history) - period * times
        if start < 0:
            return False
        tail = history[start:]
        if tail[period:] == tail[:-period]:
            return True
    return False


def has_loop(ids: Sequence[int], times: int) -> bool:
    """Whether any part of ids repeats itself `times` times in a row."""
    return any(is_looping(ids[:end], times) for end in range(times, len(ids) + 1))


class Constraints:
    """The bans of a config, applied to logits in place. `active` is False when a step has nothing to forbid."""

    def __init__(self, config: DecodeConfig, eos_id: int) -> None:
        self.config, self.eos_id = config, eos_id
        self.penalises = config.repetition_penalty != 1.0

    def active(self, n_said: int) -> bool:
        """Whether ban must be called when answers have n_said tokens."""
        return self.config.no_repeat_ngram > 0 or self.guards(n_said)

    def guards(self, n_said: int) -> bool:
        """Whether the loop guard looks at answers of n_said tokens."""
        times = self.config.loop_guard
        return times > 0 and n_said >= times and n_said % GUARD_EVERY == 0

    def ban(self, logits_NV: Tensor, histories: Sequence[list[int]], guarded: Sequence[bool], n_said: int) -> None:
        """Set what a row must not say to -inf; a row that loops may say nothing but the end token."""
        for row, history in enumerate(histories):
            if self.config.no_repeat_ngram:
                banned = repeated_ngram_tokens(history, self.config.no_repeat_ngram)
                if banned:
                    logits_NV[row, banned] = -math.inf
            if guarded[row] and self.guards(n_said) and is_looping(history, self.config.loop_guard):
                end = logits_NV[row, self.eos_id].item()
                logits_NV[row] = -math.inf
                logits_NV[row, self.eos_id] = end
