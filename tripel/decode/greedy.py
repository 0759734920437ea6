"""Searches that follow one path per row: greedy search and sampling."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from tripel.decode.candidates import Candidates, Logits, Wish
from tripel.decode.constraints import Constraints
from tripel.decode.sampling import draw, filter_logits
from tripel.decode.search import Alternatives, Choice, FinishReason, Hypothesis, Prompt, Search, SearchConfig

_DRAWS_AT_ONCE = 256


@dataclass
class _Row:
    """One answer in the making: number `number` to its prompt.

    generator: of a sampled answer; draws: its next uniform numbers.
    """

    prompt: int
    ids: list[int]
    number: int = 0
    log_probs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    finished: bool = False
    generator: torch.Generator | None = None
    draws: list[float] = field(default_factory=list)


class _PathSearch(Search):
    """Rows that never exchange their past."""

    def __init__(self, config: SearchConfig, prompts: Sequence[Prompt], eos_id: int) -> None:
        super().__init__(config, prompts, eos_id)
        self.rows = [_Row(i, list(prompt.prefix)) for i, prompt in enumerate(prompts)]
        self.constraints = Constraints(config, prompts, eos_id)
        self.n_finished = 0

    @property
    def done(self) -> bool:
        return self.n_finished == len(self.rows)

    def settled(self, prompt: int) -> list[int]:
        if self.hypotheses[prompt]:
            return self.hypotheses[prompt][0].ids
        return next(row.ids for row in self.rows if row.prompt == prompt)

    def _advance(self, scores: Candidates | Logits) -> Choice:
        if self._constrained():
            self.constraints.apply(scores, self._said())
        tokens, log_p = self._choose(scores)
        if self.config.n_alternatives:
            assert isinstance(scores, Logits)
            for row, alternatives in zip(self.rows, scores.likeliest(self.config.n_alternatives), strict=True):
                row.alternatives.append(alternatives)
        self.step += 1
        for row, token, value in zip(self.rows, tokens, log_p, strict=True):
            if not row.finished:
                row.log_probs.append(value)
                self._extend(row, token)
        if self.n_finished == 0 or self.n_finished < self.drop_share * len(self.rows):
            return Choice(tokens, None)
        kept = [i for i, row in enumerate(self.rows) if not row.finished]
        self.rows = [self.rows[i] for i in kept]
        self.n_finished = 0
        return Choice([tokens[i] for i in kept], kept)

    def _constrained(self) -> bool:
        return self.constraints.active(self.step, self._said)

    def _said(self) -> list[tuple[list[int], bool]]:
        return [(row.ids, self.prompts[row.prompt].guarded) for row in self.rows]

    def _choose(self, scores: Candidates | Logits) -> tuple[list[int], list[float]]:
        """The token of every row and its log-probability."""
        raise NotImplementedError

    def _extend(self, row: _Row, token: int) -> None:
        prompt = self.prompts[row.prompt]
        stopped = token == self.eos_id
        if not stopped:
            row.ids.append(token)
            stopped = prompt.is_ended(row.ids)
        if stopped or self.step >= prompt.limit:
            row.finished = True
            self.n_finished += 1
            score = math.fsum(row.log_probs) / self.step**self.config.length_penalty
            reason: FinishReason = "stop" if stopped else "length"
            alternatives = row.alternatives[: self.step]
            answers = self.hypotheses[row.prompt]
            answers.append(Hypothesis(row.ids, score, reason, row.log_probs, alternatives, row.number))
            answers.sort(key=lambda hypothesis: -hypothesis.score)


class Greedy(_PathSearch):
    """The likeliest token at every step."""

    @property
    def wish(self) -> Wish | None:
        return None if self.config.n_alternatives or self._constrained() else self._wish()

    def advance(self, scores: Candidates | Logits) -> Choice:
        return self._advance(scores)

    def _choose(self, scores: Candidates | Logits) -> tuple[list[int], list[float]]:
        found = scores.candidates(self._wish()) if isinstance(scores, Logits) else scores
        return [tokens[0] for tokens in found.tokens], [log_p[0] for log_p in found.log_p]

    def _wish(self) -> Wish:
        return Wish(1, [0.0] * len(self.rows), len(self.rows))


class Sample(_PathSearch):
    """Tokens drawn from the filtered distribution; n_answers independent answers per prompt.

    Every answer has a random generator of its own, seeded by the prompt's seed and the answer's number.
    """

    @property
    def wish(self) -> None:
        return None

    def advance(self, scores: Candidates | Logits) -> Choice:
        n = self.config.n_answers
        if self.step > 0 or n == 1:
            return self._advance(scores)
        assert isinstance(scores, Logits)
        self.rows = [_Row(row.prompt, list(row.ids), number) for row in self.rows for number in range(n)]
        tokens, rows = self._advance(scores.repeat(n))
        return Choice(tokens, [row // n for row in rows or range(len(tokens))])

    def _choose(self, scores: Candidates | Logits) -> tuple[list[int], list[float]]:
        assert isinstance(scores, Logits)
        config, logits_NV = self.config, scores.logits_NV
        uniform_N = torch.tensor([self._uniform(row) for row in self.rows], dtype=torch.float64)
        filtered_NV = filter_logits(
            logits_NV, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p, min_p=config.min_p
        )
        tokens_N = draw(filtered_NV, uniform_N.to(logits_NV.device))
        log_p_N = logits_NV.gather(1, tokens_N[:, None])[:, 0] - scores.normaliser()
        return tokens_N.tolist(), log_p_N.tolist()

    def _uniform(self, row: _Row) -> float:
        if row.finished:
            return 0.0
        if row.generator is None:
            row.generator = torch.Generator().manual_seed(_mix(self.prompts[row.prompt].seed, row.number))
        place = self.step % _DRAWS_AT_ONCE
        if place == 0:
            row.draws = torch.rand(_DRAWS_AT_ONCE, dtype=torch.float64, generator=row.generator).tolist()
        return row.draws[place]


def _mix(seed: int, number: int) -> int:
    """A seed for answer `number`, unlike those of its neighbours."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=7).digest(), "little")
