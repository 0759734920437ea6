"""What a search is: its settings, its answers, and the contract between it and the engine's one loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from tripel.config import Config
from tripel.decode.candidates import Candidates, Logits, Wish

FinishReason = Literal["stop", "length"]


class DecodeConfig(Config):
    """How an answer is chosen from a model's scores.

    beam: hypotheses kept per sentence; 1 is greedy search. sample: draw tokens instead of searching; beam is then not
    used, and n_best answers are drawn independently of each other.
    length_penalty: hypotheses are ranked by sum(log p) / length^length_penalty, the end token counted in both;
    0 ranks by probability alone and prefers short answers. patience: a sentence ends when round(beam * patience)
    hypotheses are finished, or earlier when no other can still win; null waits until none can.
    temperature, top_k (0: off), top_p, min_p (0: off): see tripel.decode.sampling. seed: of every draw.
    no_repeat_ngram: no n tokens in a row occur twice in an answer; 0 allows it. repetition_penalty: divides the positive
    and multiplies the negative logits of tokens already said (Keskar et al. 2019). loop_guard: an answer that has said
    the same few tokens this often in a row is ended, unless the source does so too; 0 never.
    An answer has at most max_length_ratio * source tokens + max_length_extra tokens, a forced prefix among them; after
    a long prefix, max_length_extra more.
    """

    beam: int = Field(default=5, ge=1, le=1000)
    length_penalty: float = Field(default=1.0, ge=-10.0, le=10.0)
    patience: float | None = Field(default=1.0, gt=0.0)
    n_best: int = Field(default=1, ge=1, le=1000)
    sample: bool = False
    temperature: float = Field(default=1.0, gt=0.0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    seed: int = Field(default=1, ge=0, lt=1 << 63)
    no_repeat_ngram: int = Field(default=0, ge=0)
    repetition_penalty: float = Field(default=1.0, gt=0.0)
    loop_guard: int = Field(default=8, ge=0)
    max_length_ratio: float = Field(default=2.0, ge=0.0)
    max_length_extra: int = Field(default=20, ge=1)

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
    finish_reason: `stop` the model ended it; `length` it reached its limit or said the same thing over and over.
    """

    ids: list[int]
    score: float
    finish_reason: FinishReason


@dataclass(frozen=True)
class Prompt:
    """What a search must know of one sentence. limit: tokens it may choose. prefix: ids already read.

    seed: of its draws. guarded: whether the loop guard watches it.
    """

    limit: int
    prefix: tuple[int, ...] = ()
    seed: int = 0
    guarded: bool = True


class Choice(NamedTuple):
    """The next token of every row kept, and which of the former rows each continues (None: all rows, in order)."""

    tokens: list[int]
    rows: list[int] | None


class Search(ABC):
    """Chooses tokens. The engine calls advance with the scores of every row until done.

    All prompts have equally long prefixes. Rows start as one per prompt; where a sentence has several rows they stay
    side by side, in the sentences' order. step counts the tokens chosen. drop_share: the share of finished rows from
    which it pays to drop them, where dropping copies the state of all others.
    """

    drop_share = 0.0

    def __init__(self, config: DecodeConfig, prompts: Sequence[Prompt], eos_id: int) -> None:
        self.config, self.prompts, self.eos_id = config, prompts, eos_id
        self.step = 0
        self.n_prefix = len(prompts[0].prefix) if prompts else 0
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
