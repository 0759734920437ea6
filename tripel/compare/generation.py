"""What it costs a language model to write: tokens a second, and the memory and time of a token by the text before it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tripel.decode.complete import CompletionConfig, context_of
from tripel.decode.engine import run, search_for
from tripel.decode.search import Prompt
from tripel.decode.session import Completing, open_rows
from tripel.models.decoder import Decoder

SHORTEST, LONGEST = 64, 4096

_REPEATS = 3
_TOKENS = 256
_TOKENS_TIMED = 16
_SECONDS = 2.0
_NEVER = -1
"""No token's id: what is measured must not depend on when a model likes to end its text."""


def context_lengths(model: Completing) -> list[int]:
    """The lengths to measure at: doubling from SHORTEST to LONGEST, or to the model's context, which is the last. A small
    context begins at an eighth of it."""
    longest = min(context_of(model) or LONGEST, LONGEST)
    shortest = min(SHORTEST, max(longest // 8, 1))
    lengths = [shortest << i for i in range(LONGEST.bit_length()) if shortest << i < longest]
    return [*lengths, longest]


@torch.inference_mode()
def tokens_per_second(model: Completing) -> float:
    """Greedy, one text, from a single token on, without ever ending.

    After a warm run the fastest of some: what else the machine does can only slow them down.
    """
    n_tokens = min(_TOKENS, context_of(model) or _TOKENS)

    def speed() -> float:
        n, start = 0, time.perf_counter()
        for _ in _writing(model, [model.vocabulary.start_id], n_tokens):
            n += 1
            if time.perf_counter() - start > _SECONDS:
                break
        return n / (time.perf_counter() - start)

    return max([speed() for _ in range(1 + _REPEATS)][1:])


@torch.inference_mode()
def seconds_per_token(model: Completing, lengths: Sequence[int]) -> dict[int, float]:
    """For each length, the time to choose and read a token when so many are known.

    The median over the last tokens that reach it; of some rounds over all lengths, the fastest.
    """
    times: dict[int, list[float]] = {length: [] for length in lengths}
    for _ in range(_REPEATS):
        for length in lengths:
            times[length].append(_seconds_per_token(model, length))
    return {length: min(found) for length, found in times.items()}


def _seconds_per_token(model: Completing, length: int) -> float:
    n_timed = min(_TOKENS_TIMED, max(length // 4, 1))
    prompt = [model.vocabulary.start_id] * max(length - n_timed, 1)
    steps = _writing(model, prompt, n_timed + 1)
    next(steps)  # the prompt is read
    times, start = [], time.perf_counter()
    for _ in steps:
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    return statistics.median(times)


@torch.inference_mode()
def state_bytes(model: Decoder, length: int) -> int:
    """The memory that the model's state takes when one text of `length` tokens has been read, the last by itself.

    What is counted is the memory behind the state's tensors, each once: a view of a larger one keeps all of it.
    """
    state = model.init_state(1, length)
    ids_1T = torch.full((1, length), model.vocabulary.start_id, device=model.tokens.weight.device)
    for part_1T in (ids_1T[:, :-1], ids_1T[:, -1:]):
        if part_1T.shape[1]:
            model.step(part_1T, state)
    storages = [tensor.untyped_storage() for tensor in _tensors(state)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _writing(model: Completing, prompt: list[int], n_tokens: int) -> Iterator[None]:
    """The engine's own loop, greedy, choosing n_tokens after a prompt; it yields after each choice."""
    config = CompletionConfig(sample=False, max_new_tokens=n_tokens)
    search = search_for(config, [Prompt(n_tokens, tuple(prompt), guarded=False)], _NEVER)
    session, scores = open_rows(model, [prompt], max_len=len(prompt) + n_tokens - 1, rows_per_prompt=1)
    return run(session, scores, search)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors that an object holds, in its attributes and theirs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from _tensors(part)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value))
