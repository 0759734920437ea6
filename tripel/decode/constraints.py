"""What an answer must not say: repeated n-grams, endless loops, and a penalty on repeating oneself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tripel.decode.candidates import Candidates, Logits
from tripel.decode.search import Prompt, SearchConfig

LONGEST_PHRASE = 8
"""The longest phrase, in tokens, that the loop guard recognises."""

Row = tuple[list[int], bool]

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
        if history[-1] == history[-1 - period]:  # spares the usual answer the copies
            tail = history[start:]
            if tail[period:] == tail[:-period]:
                return True
    return False


def has_loop(ids: Sequence[int], times: int) -> bool:
    """Whether any part of ids repeats itself `times` times in a row."""
    enough_repeats = len(set(ids)) <= len(ids) - (times - 1)
    return enough_repeats and any(is_looping(ids[:end], times) for end in range(times, len(ids) + 1))


class Constraints:
    """The rules of a config. Rows are given as (tokens said, whether the loop guard watches)."""

    def __init__(self, config: SearchConfig, prompts: Sequence[Prompt], eos_id: int) -> None:
        self.config, self.eos_id = config, eos_id
        self._always = config.repetition_penalty != 1.0 or config.no_repeat_ngram > 0
        self._phases = {len(prompt.prefix) % GUARD_EVERY for prompt in prompts}
        self._answer = (-1, False)

    def active(self, step: int, rows: Callable[[], Sequence[Row]]) -> bool:
        """Whether apply must be called, with all logits, now that `step` tokens have been chosen."""
        if self._always or not any(self._guards(phase + step) for phase in self._phases):
            return self._always
        if self._answer[0] != step:
            self._answer = (step, any(self._loops(row) for row in rows()))
        return self._answer[1]

    def apply(self, scores: Candidates | Logits, rows: Sequence[Row]) -> None:
        """Penalise and forbid, in place. A row that loops may say nothing but the end token.

        Forbidding does not make the other tokens likelier: scores stay those of the model.
        """
        assert isinstance(scores, Logits)
        config, logits_NV = self.config, scores.logits_NV
        if config.repetition_penalty != 1.0:
            penalise_repetition(logits_NV, [said for said, _ in rows], config.repetition_penalty)
        scores.normaliser()
        for number, row in enumerate(rows):
            if config.no_repeat_ngram and (banned := repeated_ngram_tokens(row[0], config.no_repeat_ngram)):
                logits_NV[number, banned] = -math.inf
            if self._loops(row):
                end = logits_NV[number, self.eos_id].clone()
                logits_NV[number] = -math.inf
                logits_NV[number, self.eos_id] = end

    def _loops(self, row: Row) -> bool:
        said, watched = row
        return watched and self._guards(len(said)) and is_looping(said, self.config.loop_guard)

    def _guards(self, n_said: int) -> bool:
        """By what has been said with the prefix, so that forcing what would be said anyway changes nothing."""
        return self.config.loop_guard > 0 and n_said % GUARD_EVERY == 0
