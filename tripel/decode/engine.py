"""The one decoding loop: for every model with start and step, and every search."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch

from tripel.decode.beam import Beam
from tripel.decode.candidates import Candidates, Logits
from tripel.decode.constraints import has_loop
from tripel.decode.greedy import Greedy, Sample
from tripel.decode.search import DecodeConfig, Hypothesis, Prompt, Search, SearchConfig
from tripel.decode.session import Session, Translating, device_of, open_session
from tripel.decode.workers import default_workers, each
from tripel.errors import InputError

BATCH_TOKENS = 2048
"""Source tokens, padding included, times rows per sentence, that are decoded together."""

SHARE_TOKENS = 512
"""Fewer than this are not worth sharing out among workers."""


def run(session: Session, scores: Candidates | Logits, search: Search) -> Iterator[None]:
    """Choose by the scores of what the session has read, read the choice, and so on until the search is done.

    Yields after every choice.
    """
    search.drop_share = session.drop_share
    while True:
        tokens, rows = search.advance(scores)
        yield
        if search.done:
            return
        if rows is not None:
            session.keep(rows)
        scores = session.read([[token] for token in tokens], search.wish)


def generate(
    model: Translating,
    sources: Sequence[Sequence[int]],
    config: DecodeConfig,
    *,
    prefixes: Sequence[Sequence[int]] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    workers: int | None = None,
) -> list[list[Hypothesis]]:
    """The n_best answers to every source, best first, in the order of sources.

    sources: ids ending with the end token. prefixes: ids that each answer must begin with. batch_tokens: how many
    source tokens, times the rows each sentence needs, are decoded at once. workers: batches decoded side by side (default:
    PyTorch's number of threads; 1 on other devices than the CPU). Works on the model's own device; the model is put in
    evaluation mode. Raises InputError for a source longer than the model takes or without any token.
    """
    model_ready(model)
    prefixes = prefixes if prefixes is not None else [()] * len(sources)
    check_lengths(model, sources, prefixes)
    workers = default_workers(device_of(model)) if workers is None else workers
    width = config.rows
    n_tokens = sum(map(len, sources)) * width
    budget = min(batch_tokens, max(SHARE_TOKENS, -(-n_tokens // max(1, workers)))) // width

    def decode(batch: list[int]) -> list[list[Hypothesis]]:
        with torch.inference_mode():
            search, steps = begin(model, [sources[i] for i in batch], [prefixes[i] for i in batch], config)
            for _ in steps:
                pass
        return search.hypotheses

    answers: list[list[Hypothesis]] = [[] for _ in sources]
    for batch, found in each(decode, batches(sources, prefixes, max(1, budget)), workers):
        for i, hypotheses in zip(batch, found, strict=True):
            answers[i] = hypotheses
    return answers


def stream(
    model: Translating, source: Sequence[int], config: DecodeConfig, *, prefix: Sequence[int] = ()
) -> Iterator[int]:
    """The ids of the best answer to one source, each as soon as no later step can change it.

    Greedy search and sampling settle a token at every step, beam search when its hypotheses agree. A forced prefix
    comes first. Raises InputError as generate does.
    """
    model_ready(model)
    check_lengths(model, [source], [prefix])
    with torch.inference_mode():
        search, steps = begin(model, [source], [prefix], config)
    yield from follow(search, steps)


def follow(search: Search, steps: Iterator[None], n_given: int = 0) -> Iterator[int]:
    """The ids of the answer to a search's only prompt as they are settled, but for the first n_given."""
    while True:
        with torch.inference_mode():  # entered anew each time: the caller's code runs between two tokens
            finished = next(steps, steps) is steps
        settled = search.settled(0)
        yield from settled[n_given:]
        n_given = len(settled)
        if finished:
            return


def begin(
    model: Translating, sources: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]], config: DecodeConfig
) -> tuple[Search, Iterator[None]]:
    """A search over sources whose prefixes are equally long, and the loop that drives it."""
    vocabulary, n_prefix = model.vocabulary, len(prefixes[0])
    room = model.config.max_len - n_prefix
    prompts = [_prompt(source, prefix, config, room) for source, prefix in zip(sources, prefixes, strict=True)]
    search = search_for(config, prompts, vocabulary.eos_id)
    capacity = n_prefix + max(prompt.limit for prompt in prompts)
    session = open_session(model, sources, max_len=capacity, rows_per_sentence=config.rows)
    scores = session.read([[vocabulary.start_id, *prefix] for prefix in prefixes], search.wish)
    return search, run(session, scores, search)


def search_for(config: SearchConfig, prompts: Sequence[Prompt], eos_id: int) -> Search:
    """The search that config describes."""
    kind = Sample if config.draws else Greedy if config.beam == 1 else Beam
    return kind(config, prompts, eos_id)


def batches(
    sources: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]], max_tokens: int
) -> Iterator[list[int]]:
    """Places of sources of like length (and equally long prefixes), longest first, under a padded token budget."""
    order = sorted(range(len(sources)), key=lambda i: (len(prefixes[i]), -len(sources[i])))
    batch: list[int] = []
    for i in order:
        full = bool(batch) and (len(batch) + 1) * len(sources[batch[0]]) > max_tokens
        if full or (batch and len(prefixes[i]) != len(prefixes[batch[0]])):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def check_lengths(model: Translating, sources: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]]) -> None:
    """Raises InputError when a source is empty or too long, or a prefix leaves no room for an answer."""
    longest = model.config.max_len
    for place, (source, prefix) in enumerate(zip(sources, prefixes, strict=True)):
        if not 1 <= len(source) <= longest:
            raise InputError(
                f"sentence {place + 1} cannot be read by this model",
                given=f"{len(source)} tokens",
                expected=f"1 to {longest} tokens, end token included",
                mend="split it into sentences, or train a model with a larger model.max_len",
            )
        if len(prefix) >= longest:
            raise InputError(
                f"the prefix of sentence {place + 1} leaves no room for an answer",
                given=f"{len(prefix)} tokens",
                expected=f"fewer than {longest} tokens",
                mend="shorten the prefix",
            )


def model_ready(model: object) -> None:
    """Evaluation mode: dropout in a decoder would be silent nonsense."""
    if isinstance(model, torch.nn.Module) and model.training:
        model.eval()


def _prompt(source: Sequence[int], prefix: Sequence[int], config: DecodeConfig, room: int) -> Prompt:
    limit = min(max(config.limit(len(source)) - len(prefix), config.max_length_extra), room)
    guarded = config.loop_guard > 0 and not has_loop(source, config.loop_guard)
    return Prompt(limit, tuple(prefix), seed_of(config.seed, source) if config.draws else 0, guarded)


def seed_of(seed: int, ids: Sequence[int]) -> int:
    """A seed of the text's own, so that its draws do not depend on its neighbours."""
    text = f"{seed}:{','.join(map(str, ids))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")
