"""Beam search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from tripel.decode.candidates import Scores
from tripel.decode.constraints import Constraints
from tripel.decode.search import Choice, DecodeConfig, FinishReason, Hypothesis, Prompt, Search, to_tensor


class _Node(NamedTuple):
    """The last token of a hypothesis and the hypothesis before it: hypotheses share their past and are never copied."""

    token: int
    before: _Node | None

    def ids(self) -> list[int]:
        """All tokens, first to last."""
        ids, node = [], self
        while node is not None:
            ids.append(node.token)
            node = node.before
        return ids[::-1]


class _Live(NamedTuple):
    """An unfinished hypothesis; -inf log_p marks a place that could not be filled."""

    node: _Node | None
    log_p: float


class Beam(Search):
    """The `beam` best continuations of every sentence's hypotheses, until no other can enter the n_best.

    At every step the 2 * beam best continuations are looked at. Those among the first `beam` that end are finished; the
    first `beam` that do not end live on: at most `beam` of them can end, so there are always enough.
    """

    def __init__(self, config: DecodeConfig, prompts: Sequence[Prompt], eos_id: int) -> None:
        super().__init__(config, prompts, eos_id)
        self.constraints = Constraints(config, eos_id)
        self.live: list[list[_Live]] = [[_Live(None, 0.0)] for _ in prompts]
        self.open = list(range(len(prompts)))
        patience = config.patience
        self.n_enough = math.inf if patience is None else max(config.n_best, round(config.beam * patience))

    @property
    def done(self) -> bool:
        return not self.open

    def settled(self, prompt: int) -> list[int]:
        if prompt not in self.open:
            return self.hypotheses[prompt][0].ids
        rivals = [self._ids(prompt, live.node) for live in self.live[prompt] if live.log_p > -math.inf]
        rivals += [hypothesis.ids for hypothesis in self.hypotheses[prompt]]
        first = rivals[0]
        length = min(len(ids) for ids in rivals)
        return first[: next((i for i in range(length) if any(ids[i] != first[i] for ids in rivals)), length)]

    @property
    def shortlist(self) -> int:
        return 0 if self.constraints.active(self.n_prefix + self.step) else 2 * self.config.beam

    def advance(self, scores: Scores) -> Choice:
        sentences = self.open
        if self.constraints.active(self.n_prefix + self.step):
            rows = [(i, live) for i in sentences for live in self.live[i]]
            histories = [self._ids(i, live.node) for i, live in rows]
            self.constraints.apply(scores, histories, [self.prompts[i].guarded for i, _ in rows])
        log_p_N = torch.tensor([live.log_p for i in sentences for live in self.live[i]], device=scores.device)
        values_BK, rows_BK, tokens_BK = scores.top(log_p_N, len(sentences), 2 * self.config.beam)
        self.step += 1
        width = len(log_p_N) // len(sentences)
        tokens: list[int] = []
        parents: list[int] = []
        still_open = []
        candidates = zip(sentences, values_BK.tolist(), rows_BK.tolist(), tokens_BK.tolist(), strict=True)
        for place, (i, values, rows, choices) in enumerate(candidates):
            live = self._continue(i, values, rows, choices)
            if self._is_finished(i, live):
                self._close(i)
                continue
            still_open.append(i)
            self.live[i] = [hypothesis for hypothesis, _ in live]
            tokens += [hypothesis.node.token for hypothesis, _ in live]
            parents += [place * width + row for _, row in live]
        self.open = still_open
        identity = len(parents) == len(log_p_N) and parents == list(range(len(parents)))
        return Choice(to_tensor(tokens, log_p_N), None if identity else to_tensor(parents, log_p_N))

    def _continue(
        self, sentence: int, values: list[float], rows: list[int], tokens: list[int]
    ) -> list[tuple[_Live, int]]:
        """File the candidates that end; return the `beam` best that do not, with the row each continues."""
        beam, at_limit = self.config.beam, self.step >= self.prompts[sentence].limit
        live: list[tuple[_Live, int]] = []
        for rank, (log_p, row, token) in enumerate(zip(values, rows, tokens, strict=True)):
            if log_p == -math.inf or len(live) == beam:
                break
            before = self.live[sentence][row].node
            if token == self.eos_id:
                if rank < beam:
                    self._file(sentence, before, log_p, "stop")
            else:
                node = _Node(token, before)
                live.append((_Live(node, log_p), row))
                if at_limit:
                    self._file(sentence, node, log_p, "length")
        if live:  # a place that cannot be filled repeats the last one, without a chance
            live += [(_Live(live[-1][0].node, -math.inf), live[-1][1])] * (beam - len(live))
        return live

    def _file(self, sentence: int, node: _Node | None, log_p: float, reason: FinishReason) -> None:
        score = log_p / self.step**self.config.length_penalty
        self.hypotheses[sentence].append(Hypothesis(self._ids(sentence, node), score, reason))

    def _is_finished(self, sentence: int, live: list[tuple[_Live, int]]) -> bool:
        """Whether enough hypotheses are finished, or no live one can still enter the n_best.

        log p only falls, so the best a live hypothesis can reach is its present log p over the most favourable length:
        the longest allowed if the penalty favours length (it divides a negative number), else the next.
        """
        limit = self.prompts[sentence].limit
        if not live or self.step >= limit:
            return True
        finished = self.hypotheses[sentence]
        if len(finished) < self.config.n_best:
            return False
        if len(finished) >= self.n_enough:
            return True
        penalty = self.config.length_penalty
        best_possible = live[0][0].log_p / (limit if penalty >= 0 else self.step + 1) ** penalty
        worst_kept = sorted((h.score for h in finished), reverse=True)[self.config.n_best - 1]
        return best_possible <= worst_kept

    def _close(self, sentence: int) -> None:
        ranked = sorted(self.hypotheses[sentence], key=lambda hypothesis: -hypothesis.score)
        self.hypotheses[sentence] = ranked[: self.config.n_best]
        self.live[sentence] = []

    def _ids(self, sentence: int, node: _Node | None) -> list[int]:
        return [*self.prompts[sentence].prefix, *(node.ids() if node is not None else [])]
