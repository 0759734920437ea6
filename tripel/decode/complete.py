"""Completing text: prompts of a language model read, joined and continued by the engine's one loop.

A model whose memory of the text grows (attention) reads at most `max_len` tokens: its context. A text that outgrows it is
read through a sliding window: when the window is full its oldest half is forgotten and the rest is read anew, from
position 0. Recurrent and convolutional models without positions read texts of any length and never slide.

What follows a prompt does not depend on what else is completed with it. Prompts of different lengths are read separately
and joined, nothing is padded; every sample draws from a generator of its own, seeded by the seed, the prompt and the
sample's number; a prompt that will slide is completed by itself. What is left is rounding: the sums of a product may be
added in another order for another number of rows, so that two tokens whose logits agree to the last bits of the
precision can change places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator

from tripel.decode.candidates import Candidates, Logits, Wish
from tripel.decode.constraints import has_loop
from tripel.decode.engine import follow, model_ready, run, search_for, seed_of
from tripel.decode.search import Hypothesis, Prompt, Search, SearchConfig, Width
from tripel.decode.session import Completing, Ids, device_of, open_rows
from tripel.decode.workers import default_workers, each
from tripel.errors import InputError

BATCH_POSITIONS = 16384
"""Positions, of all rows, that are kept at once: 1.2 GB of keys and values for GPT-2 small."""

SHARE_ROWS = 16
"""Fewer rows than this are not worth sharing out among workers."""

Ends = Callable[[Sequence[int]], bool]


class CompletionConfig(SearchConfig):
    """How a text is gone on with; see SearchConfig for the rest.

    max_new_tokens: the most tokens that follow a prompt, an end token included. sample: draw tokens, at this
    temperature; 0 takes the likeliest every time, like sample: false. n: independent samples, or the best answers of a
    beam search. stop: a text ends before the first of these strings. top: the likeliest tokens of every step that are
    told beside the one chosen. on_overflow: what happens when prompt and answer outgrow the model's context: `slide`
    forgets the oldest half of the window, `error` refuses beforehand.
    """

    kind: Literal["completion"] = "completion"
    max_new_tokens: int = Field(default=200, ge=1, le=1 << 24)
    beam: Width = 1
    sample: bool = True
    temperature: float = Field(default=0.8, ge=0.0)
    n: Width = 1
    stop: tuple[str, ...] = Field(default=(), max_length=1000)
    top: int = Field(default=0, ge=0, le=1000)
    loop_guard: int = Field(default=0, ge=0)
    on_overflow: Literal["slide", "error"] = "slide"

    @property
    def n_answers(self) -> int:
        """n."""
        return self.n

    @property
    def n_alternatives(self) -> int:
        """top."""
        return self.top

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn at random."""
        return self.sample and self.temperature > 0.0

    @field_validator("stop", mode="before")
    @classmethod
    def _one_string_is_a_list_of_one(cls, stop: Any) -> Any:
        return (stop,) if isinstance(stop, str) else stop

    @model_validator(mode="after")
    def _settings_go_together(self) -> CompletionConfig:
        if "" in self.stop:
            raise ValueError("an empty stop string would end every text before its first token: leave it out")
        if self.beam > 1 and self.draws:
            raise ValueError(f"beam {self.beam} searches, sample draws: set sample: false, or beam: 1")
        if self.beam > 1 and self.top:
            raise ValueError("top is told of greedy search and of samples: set beam: 1, or top: 0")
        if not self.draws and self.n > self.beam:
            raise ValueError(
                f"n {self.n} is more than beam {self.beam}, and nothing is drawn: raise beam or temperature"
            )
        return self


def context_of(model: Completing) -> int | None:
    """How many tokens a language model reads at once; None for any number."""
    return None if model.unbounded else model.config.max_len


def complete(
    model: Completing,
    prompts: Ids,
    config: CompletionConfig,
    *,
    ends: Sequence[Ends] | None = None,
    workers: int | None = None,
) -> list[list[Hypothesis]]:
    """The n answers to every prompt: of a beam search best first, of samples in the order of their numbers.

    model: a Decoder, or what prepare_decoder makes of one. prompts: ids; an empty one begins after the vocabulary's
    start_id, which stands for the end of another text. Every answer's ids begin with its prompt, which repetition
    penalty and n-grams count as said. ends: for each prompt, what ends its answers besides the end token, see Prompt.
    workers: batches completed side by side. The model is put in evaluation mode. Raises InputError for a prompt and
    answer beyond the context, if on_overflow says so.
    """
    model_ready(model)
    tasks = [_prompt(prompt, config, ends[i] if ends else None) for i, prompt in enumerate(prompts)]
    context = context_of(model)
    check_contexts(prompts, config, context)
    workers = default_workers(device_of(model)) if workers is None else workers
    most_rows = max(SHARE_ROWS, -(-len(tasks) * config.rows // max(1, workers)))

    def finish(batch: list[int]) -> list[list[Hypothesis]]:
        with torch.inference_mode():
            search, steps = _begin(model, [tasks[i] for i in batch], config, context)
            for _ in steps:
                pass
        return search.hypotheses

    answers: list[list[Hypothesis]] = [[] for _ in tasks]
    for batch, found in each(finish, _batches(tasks, config, most_rows, context), workers):
        for i, hypotheses in zip(batch, found, strict=True):
            answers[i] = sorted(hypotheses, key=lambda hypothesis: hypothesis.number)
    return answers


def stream(
    model: Completing, prompt: Sequence[int], config: CompletionConfig, *, ends: Ends | None = None
) -> Iterator[int]:
    """The ids that follow one prompt (its first sample, or best answer), each as soon as no later step can change it."""
    model_ready(model)
    task, context = _prompt(prompt, config, ends), context_of(model)
    check_contexts([prompt], config, context)
    with torch.inference_mode():
        search, steps = _begin(model, [task], config, context)
    yield from follow(search, steps, n_given=len(prompt))


def check_contexts(prompts: Ids, config: CompletionConfig, context: int | None) -> None:
    """Raises InputError for a prompt that with its answer outgrows the context, where that is not wanted."""
    for number, prompt in enumerate(prompts, start=1):
        if config.on_overflow == "error" and context is not None and _n_read(prompt, config) > context:
            raise InputError(
                f"prompt {number} and what may follow it do not fit into this model's context",
                given=f"{len(prompt)} tokens, and max_new_tokens {config.max_new_tokens}",
                expected=f"together at most {context + 1} tokens",
                mend="shorten the prompt, lower max_new_tokens, or set on_overflow: slide",
            )


def n_dropped(n_prompt: int, n_chosen: int, context: int | None) -> int:
    """The oldest tokens of prompt and answer that the window had lost when the last of n_chosen tokens was chosen."""
    if context is None or n_prompt + n_chosen - 1 <= context:
        return 0
    n_lost, n_read = max(0, n_prompt - context), n_chosen - 1
    n_read_whole = context - min(n_prompt, context)
    if n_read <= n_read_whole:
        return n_lost
    per_slide = context + 1 - _kept(context)
    return n_lost + per_slide * (1 + (n_read - n_read_whole - 1) // per_slide)


class SlidingSession:
    """Rows of one prompt, all equally long, that are read through a window of at most `context` tokens."""

    def __init__(self, model: Completing, prompt: Sequence[int], context: int, rows: int) -> None:
        self.model, self.context = model, context
        self.windows = [list(prompt[-context:])]
        self.session, self.scores = open_rows(model, self.windows, max_len=context, rows_per_prompt=rows)
        self.drop_share = self.session.drop_share

    def read(self, ids: Ids, wish: Wish | None) -> Candidates | Logits:
        """Read the next id of every row, sliding before if the window is full."""
        for window, new in zip(self.windows, ids, strict=True):
            window.extend(new)
        if len(self.windows[0]) <= self.context:
            return self.session.read(ids, wish)
        self.windows = [window[-_kept(self.context) :] for window in self.windows]
        self.session, scores = open_rows(self.model, self.windows, max_len=self.context, rows_per_prompt=1)
        return scores

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows in this order."""
        self.session.keep(rows)
        self.windows = [list(self.windows[row]) for row in rows]


def _begin(
    model: Completing, prompts: Sequence[Prompt], config: CompletionConfig, context: int | None
) -> tuple[Search, Iterator[None]]:
    """A search that continues prompts, and the loop that drives it. A prompt that slides is the only one."""
    vocabulary = model.vocabulary
    search = search_for(config, prompts, vocabulary.eos_id)
    given = [prompt.prefix or (vocabulary.start_id,) for prompt in prompts]
    capacity = max(_n_read(prompt.prefix, config) for prompt in prompts)
    if context is not None and capacity > context:
        sliding = SlidingSession(model, given[0], context, config.rows)
        return search, run(sliding, sliding.scores, search)
    session, scores = open_rows(model, given, max_len=capacity, rows_per_prompt=config.rows)
    return search, run(session, scores, search)


def _prompt(ids: Sequence[int], config: CompletionConfig, ends: Ends | None) -> Prompt:
    guarded = config.loop_guard > 0 and not has_loop(ids, config.loop_guard)
    return Prompt(config.max_new_tokens, tuple(ids), seed_of(config.seed, ids) if config.draws else 0, guarded, ends)


def _batches(
    prompts: Sequence[Prompt], config: CompletionConfig, most_rows: int, context: int | None
) -> Iterator[list[int]]:
    """Places of prompts of like length, longest first, under the budget; those that slide alone."""
    batch: list[int] = []
    longest = 0
    for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i].prefix)):
        n_rows = (len(batch) + 1) * config.rows
        slid = context is not None and longest > context
        if batch and (slid or n_rows > most_rows or n_rows * longest > BATCH_POSITIONS):
            yield batch
            batch = []
        if not batch:
            longest = _n_read(prompts[i].prefix, config)
        batch.append(i)
    if batch:
        yield batch


def _n_read(prompt: Sequence[int], config: CompletionConfig) -> int:
    """Positions that may be read for a prompt: the last token chosen is not read any more."""
    return max(1, len(prompt)) + config.max_new_tokens - 1


def _kept(context: int) -> int:
    """Tokens that stay in the window when it slides, the newest among them."""
    return max(1, context // 2)
