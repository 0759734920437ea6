"""Beam search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tripel.decode.candidates import Candidates, Logits, Wish
from tripel.decode.constraints import Constraints
from tripel.decode.search import Choice, FinishReason, Hypothesis, Prompt, Search, SearchConfig


class _Rows(NamedTuple):
    """Live hypotheses: the last token of each, the former row it continues, and its log-probability.

    -inf marks a place that could not be filled.
    """

    tokens: list[int]
    parents: list[int]
    log_p: list[float]


class Beam(Search):
    """The `beam` best continuations of every text's hypotheses, until no other can enter the n_answers.

    At every step the 2 * beam best continuations are looked at. Those among the first `beam` that end are finished; the
    first `beam` that do not end live on: at most `beam` of them can end, so there are always enough.

    What hypotheses have said is kept as one list of tokens and one of parents per step, and read backwards when needed:
    nothing is copied, and there are no objects per hypothesis for Python to collect.
    """

    def __init__(self, config: SearchConfig, prompts: Sequence[Prompt], eos_id: int) -> None:
        super().__init__(config, prompts, eos_id)
        self.constraints = Constraints(config, prompts, eos_id)
        self.open = list(range(len(prompts)))
        self.width = 1  # rows of each open text
        self.steps: list[_Rows] = []
        patience = config.patience
        self.n_enough = math.inf if patience is None else max(config.n_answers, round(config.beam * patience))

    @property
    def done(self) -> bool:
        return not self.open

    def settled(self, prompt: int) -> list[int]:
        if prompt not in self.open:
            return self.hypotheses[prompt][0].ids
        first_row, log_p = self.open.index(prompt) * self.width, self._log_p()
        live = [row for row in range(first_row, first_row + self.width) if log_p[row] > -math.inf]
        rivals = [self._ids(prompt, row) for row in live] + [h.ids for h in self.hypotheses[prompt]]
        first, length = rivals[0], min(map(len, rivals))
        return first[: next((i for i in range(length) if any(ids[i] != first[i] for ids in rivals)), length)]

    @property
    def wish(self) -> Wish | None:
        return None if self._constrained() else self._wish()

    def advance(self, scores: Candidates | Logits) -> Choice:
        if self._constrained():
            self.constraints.apply(scores, self._said())
        found = scores.candidates(self._wish()) if isinstance(scores, Logits) else scores
        self.step += 1
        still_open: list[int] = []
        rows = _Rows([], [], [])
        groups = zip(self.open, found.log_p, found.rows, found.tokens, strict=True)
        for place, (i, log_p, origins, tokens) in enumerate(groups):
            live = self._continue(i, place * self.width, log_p, origins, tokens)
            if self._is_finished(i, live):
                ranked = sorted(self.hypotheses[i], key=lambda hypothesis: -hypothesis.score)
                self.hypotheses[i] = ranked[: self.config.n_answers]
                continue
            still_open.append(i)
            rows.tokens.extend(live.tokens)
            rows.parents.extend(live.parents)
            rows.log_p.extend(live.log_p)
        identity = rows.parents == list(range(len(self.open) * self.width))
        self.steps.append(rows)
        self.open, self.width = still_open, self.config.beam
        return Choice(rows.tokens, None if identity else rows.parents)

    def _wish(self) -> Wish:
        return Wish(2 * self.config.beam, self._log_p(), len(self.open))

    def _log_p(self) -> list[float]:
        return self.steps[-1].log_p if self.steps else [0.0] * len(self.prompts)

    def _constrained(self) -> bool:
        return self.constraints.active(self.step, self._said)

    def _said(self) -> list[tuple[list[int], bool]]:
        rows = [(i, place * self.width + row) for place, i in enumerate(self.open) for row in range(self.width)]
        return [(self._ids(i, row), self.prompts[i].guarded) for i, row in rows]

    def _continue(self, text: int, first_row: int, values: list[float], rows: list[int], tokens: list[int]) -> _Rows:
        """File the candidates that end; return the `beam` best that do not."""
        beam, eos_id, prompt = self.config.beam, self.eos_id, self.prompts[text]
        live = _Rows([], [], [])
        for rank, (log_p, row, token) in enumerate(zip(values, rows, tokens, strict=True)):
            if log_p == -math.inf or len(live.tokens) == beam:
                break
            parent = first_row + row
            said = [token] if token != eos_id else []
            if said and not (prompt.ends and prompt.is_ended([*self._ids(text, parent), token])):
                live.tokens.append(token)
                live.parents.append(parent)
                live.log_p.append(log_p)
            elif rank < beam:
                self._file(text, parent, said, log_p, "stop")
        if self.step >= prompt.limit:
            for token, parent, log_p in zip(*live, strict=True):
                self._file(text, parent, [token], log_p, "length")
        if live.tokens:  # a place that cannot be filled repeats the last one, without a chance
            n_missing = beam - len(live.tokens)
            live.tokens.extend([live.tokens[-1]] * n_missing)
            live.parents.extend([live.parents[-1]] * n_missing)
            live.log_p.extend([-math.inf] * n_missing)
        return live

    def _file(self, text: int, parent: int, said: list[int], log_p: float, reason: FinishReason) -> None:
        """An answer that ends with `said`, or with the end token, after what row `parent` has said."""
        score = log_p / self.step**self.config.length_penalty
        ids = [*self._ids(text, parent), *said]
        self.hypotheses[text].append(Hypothesis(ids, score, reason, self._log_probs(parent, log_p)))

    def _is_finished(self, text: int, live: _Rows) -> bool:
        """Whether enough hypotheses are finished, or no live one can still enter the n_answers.

        log p only falls, so the best a live hypothesis can reach is its present log p over the most favourable length:
        the longest allowed if the penalty favours length (it divides a negative number), else the next.
        """
        limit = self.prompts[text].limit
        if not live.tokens or self.step >= limit:
            return True
        finished = self.hypotheses[text]
        if len(finished) < self.config.n_answers:
            return False
        if len(finished) >= self.n_enough:
            return True
        penalty = self.config.length_penalty
        best_possible = live.log_p[0] / (limit if penalty >= 0 else self.step + 1) ** penalty
        worst_kept = sorted((h.score for h in finished), reverse=True)[self.config.n_answers - 1]
        return best_possible <= worst_kept

    def _log_probs(self, row: int, log_p: float) -> list[float]:
        """Of every token chosen by a row of the last step, and of the next one, with which it comes to log_p."""
        totals = [log_p]
        for step in reversed(self.steps):
            totals.append(step.log_p[row])
            row = step.parents[row]
        return [total - before for total, before in zip(totals, [*totals[1:], 0.0], strict=True)][::-1]

    def _ids(self, text: int, row: int) -> list[int]:
        """All that a row of the last step has said."""
        ids = []
        for step in reversed(self.steps):
            ids.append(step.tokens[row])
            row = step.parents[row]
        return [*self.prompts[text].prefix, *reversed(ids)]
