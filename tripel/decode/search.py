"""What a search is: its settings, its answers, and the contract between it and the engine's one loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from tripel.config import Config
from tripel.decode.candidates import Candidates, Logits, Wish

FinishReason = Literal["stop", "length"]
Alternatives = list[tuple[int, float]]
"""Tokens that could have been chosen and their log-probabilities, likeliest first."""


Width = Annotated[int, Field(ge=1, le=1000)]


class SearchConfig(Config):
    """How tokens are chosen from a model's scores, whatever the model is for.

    beam: hypotheses kept per text; 1 is greedy search. sample: draw tokens instead of searching.
    length_penalty: hypotheses are ranked by sum(log p) / length^length_penalty, the end token counted in both;
    0 ranks by probability alone and prefers short answers. patience: a text ends when round(beam * patience)
    hypotheses are finished, or earlier when no other can still win; null waits until none can.
    temperature, top_k (0: off), top_p, min_p (0: off): see tripel.decode.sampling. seed: of every
    draw. no_repeat_ngram: no n tokens in a row occur twice in a text; 0 allows it. repetition_penalty: divides the
    positive and multiplies the negative logits of tokens already said (Keskar et al. 2019). loop_guard: an answer that
    has said the same few tokens this often in a row is ended, unless what it answers does so too; 0 never.
    """

    beam: Width = 5
    length_penalty: float = Field(default=1.0, ge=-10.0, le=10.0)
    patience: float | None = Field(default=1.0, gt=0.0)
    sample: bool = False
    temperature: float = Field(default=1.0, gt=0.0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    seed: int = Field(default=1, ge=0, lt=1 << 63)
    no_repeat_ngram: int = Field(default=0, ge=0)
    repetition_penalty: float = Field(default=1.0, gt=0.0)
    loop_guard: int = Field(default=8, ge=0)

    @property
    def n_answers(self) -> int:
        """Answers to every text."""
        return 1

    @property
    def n_alternatives(self) -> int:
        """Tokens that every step of an answer tells of, beside the one it took."""
        return 0

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn at random."""
        return self.sample

    @property
    def rows(self) -> int:
        """How many rows a search keeps for one text."""
        return self.n_answers if self.draws else self.beam


class DecodeConfig(SearchConfig):
    """How an answer is chosen from the scores of a model that reads a source; see SearchConfig for the rest.

    n_best: answers per sentence; when they are drawn, beam is not used and they are independent of each other.
    An answer has at most max_length_ratio * source tokens + max_length_extra tokens, a forced prefix among them; after
    a long prefix, max_length_extra more.
    """

    kind: Literal["translation"] = "translation"
    n_best: Width = 1
    max_length_ratio: float = Field(default=2.0, ge=0.0)
    max_length_extra: int = Field(default=20, ge=1)

    @property
    def n_answers(self) -> int:
        """n_best."""
        return self.n_best

    @model_validator(mode="after")
    def _n_best_needs_candidates(self) -> DecodeConfig:
        if not self.sample and self.n_best > self.beam:
            raise ValueError(f"n_best {self.n_best} is more than beam {self.beam}: raise beam, or set sample: true")
        return self

    def limit(self, n_source: int) -> int:
        """The most tokens, end token included, that the answer to n_source tokens may have."""
        return max(1, int(self.max_length_ratio * n_source) + self.max_length_extra)


@dataclass(frozen=True)
class Hypothesis:
    """An answer: token ids (a forced prefix included, start and end tokens not) and why it ended.

    score: sum(log p) / length^length_penalty over the tokens chosen, the end token included and a forced prefix not.
    finish_reason: `stop` the model, or what Prompt.ends watches for, ended it; `length` it reached its limit or said the
    same thing over and over. log_probs: of every token chosen, the end token included. alternatives: at every such step,
    if the config asks for them. number: of a drawn answer, from 0.
    """

    ids: list[int]
    score: float
    finish_reason: FinishReason
    log_probs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    number: int = 0


@dataclass(frozen=True)
class Prompt:
    """What a search must know of one text. limit: tokens it may choose. prefix: ids already read, which count as said.

    seed: of its draws. guarded: whether the loop guard watches it. ends: says of the ids of an answer, prefix included,
    whether the last of them ends it.
    """

    limit: int
    prefix: tuple[int, ...] = ()
    seed: int = 0
    guarded: bool = True
    ends: Callable[[Sequence[int]], bool] | None = None

    def is_ended(self, ids: Sequence[int]) -> bool:
        """Whether an answer ends with the last of ids although that is no end token."""
        return self.ends is not None and self.ends(ids)


class Choice(NamedTuple):
    """The next token of every row kept, and which of the former rows each continues (None: all rows, in order)."""

    tokens: list[int]
    rows: list[int] | None


class Search(ABC):
    """Chooses tokens. The engine calls advance with the scores of every row until done.

    Rows start as one per prompt; where a text has several rows they stay side by side, in the texts' order. step counts
    the tokens chosen. drop_share: the share of finished rows from which it pays to drop them, where dropping copies the
    state of all others.
    """

    drop_share = 0.0

    def __init__(self, config: SearchConfig, prompts: Sequence[Prompt], eos_id: int) -> None:
        self.config, self.prompts, self.eos_id = config, prompts, eos_id
        self.step = 0
        self.hypotheses: list[list[Hypothesis]] = [[] for _ in prompts]

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether every prompt has its answers."""

    @property
    @abstractmethod
    def wish(self) -> Wish | None:
        """What the next advance must be given; None when it must see all logits."""

    @abstractmethod
    def advance(self, scores: Candidates | Logits) -> Choice:
        """Choose. Logits may be given, and are overwritten, even where a wish would do. Finished rows vanish."""

    @abstractmethod
    def settled(self, prompt: int) -> list[int]:
        """The ids of a prompt's best answer that no later step can change: what a stream may show."""
