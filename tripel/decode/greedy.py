"""Searches that follow one path per row: greedy search and sampling."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tripel.decode.candidates import Candidates, Logits, Wish
from tripel.decode.constraints import Constraints
from tripel.decode.sampling import draw, filter_logits
from tripel.decode.search import Choice, DecodeConfig, Hypothesis, Prompt, Search


@dataclass
class _Row:
    """One answer in the making. draws: the uniform numbers of a sampled answer."""

    prompt: int
    ids: list[int] = field(default_factory=list)
    log_p: float = 0.0
    finished: bool = False
    draws: Tensor | None = None


class _PathSearch(Search):
    """Rows that never exchange their past."""

    def __init__(self, config: DecodeConfig, prompts: Sequence[Prompt], eos_id: int) -> None:
        super().__init__(config, prompts, eos_id)
        self.rows = [_Row(i, list(prompt.prefix)) for i, prompt in enumerate(prompts)]
        self.constraints = Constraints(config, eos_id)
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
        self.step += 1
        for row, token, total in zip(self.rows, tokens, log_p, strict=True):
            if not row.finished:
                row.log_p = total
                self._extend(row, token)
        if self.n_finished == 0 or self.n_finished < self.drop_share * len(self.rows):
            return Choice(tokens, None)
        kept = [i for i, row in enumerate(self.rows) if not row.finished]
        self.rows = [self.rows[i] for i in kept]
        self.n_finished = 0
        return Choice([tokens[i] for i in kept], kept)

    def _constrained(self) -> bool:
        return self.constraints.active(self.n_prefix + self.step, self._said)

    def _said(self) -> list[tuple[list[int], bool]]:
        return [(row.ids, self.prompts[row.prompt].guarded) for row in self.rows]

    def _choose(self, scores: Candidates | Logits) -> tuple[list[int], list[float]]:
        """The token of every row and the row's log-probability with it."""
        raise NotImplementedError

    def _extend(self, row: _Row, token: int) -> None:
        stopped = token == self.eos_id
        if not stopped:
            row.ids.append(token)
        if stopped or self.step >= self.prompts[row.prompt].limit:
            row.finished = True
            self.n_finished += 1
            score = row.log_p / self.step**self.config.length_penalty
            answers = self.hypotheses[row.prompt]
            answers.append(Hypothesis(row.ids, score, "stop" if stopped else "length"))
            answers.sort(key=lambda hypothesis: -hypothesis.score)


class Greedy(_PathSearch):
    """The likeliest token at every step."""

    @property
    def wish(self) -> Wish | None:
        return None if self._constrained() else self._wish()

    def advance(self, scores: Candidates | Logits) -> Choice:
        return self._advance(scores)

    def _choose(self, scores: Candidates | Logits) -> tuple[list[int], list[float]]:
        found = scores.candidates(self._wish()) if isinstance(scores, Logits) else scores
        return [tokens[0] for tokens in found.tokens], [log_p[0] for log_p in found.log_p]

    def _wish(self) -> Wish:
        return Wish(1, [row.log_p for row in self.rows], len(self.rows))


class Sample(_PathSearch):
    """Tokens drawn from the filtered distribution; n_best independent answers per prompt.

    Every answer has a random generator of its own, seeded by the prompt's seed and the answer's number.
    """

    @property
    def wish(self) -> None:
        return None

    def advance(self, scores: Candidates | Logits) -> Choice:
        n_best = self.config.n_best
        if self.step > 0 or n_best == 1:
            return self._advance(scores)
        assert isinstance(scores, Logits)
        self.rows = [_Row(row.prompt, list(row.ids)) for row in self.rows for _ in range(n_best)]
        tokens, rows = self._advance(scores.repeat(n_best))
        return Choice(tokens, [row // n_best for row in rows or range(len(tokens))])

    def _choose(self, scores: Candidates | Logits) -> tuple[list[int], list[float]]:
        assert isinstance(scores, Logits)
        config, logits_NV = self.config, scores.logits_NV
        uniform_N = torch.tensor([self._uniform(i, row) for i, row in enumerate(self.rows)], dtype=torch.float64)
        filtered_NV = filter_logits(
            logits_NV, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p, min_p=config.min_p
        )
        tokens_N = draw(filtered_NV, uniform_N.to(logits_NV.device))
        log_p_N = logits_NV.gather(1, tokens_N[:, None])[:, 0] - scores.normaliser()
        log_p = [row.log_p + value for row, value in zip(self.rows, log_p_N.tolist(), strict=True)]
        return tokens_N.tolist(), log_p

    def _uniform(self, index: int, row: _Row) -> float:
        if row.draws is None:
            prompt = self.prompts[row.prompt]
            generator = torch.Generator().manual_seed(_mix(prompt.seed, index % self.config.n_best))
            row.draws = torch.rand(prompt.limit, dtype=torch.float64, generator=generator)
        return 0.0 if row.finished else float(row.draws[self.step])


def _mix(seed: int, number: int) -> int:
    """A seed for answer `number`, unlike those of its neighbours."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=7).digest(), "little")
