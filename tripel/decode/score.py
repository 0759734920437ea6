"""How likely a language model finds a text: the log-probability of every token after those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tripel.decode.complete import context_of
from tripel.decode.engine import model_ready
from tripel.decode.search import Alternatives
from tripel.decode.session import READ_AT_ONCE, Ids, device_of
from tripel.models.decoder import Decoder

BATCH_TOKENS = 8192
"""Tokens, padding included, that are read together."""

LOGITS_AT_ONCE = 1 << 23
"""Numbers of the largest matrix of logits: positions are scored in portions of that size."""


class TokenScores(NamedTuple):
    """Of every token of a text: its log-probability in nats, and the likeliest tokens in its place, if asked for."""

    log_probs: list[float]
    alternatives: list[Alternatives]


class _Window(NamedTuple):
    """Tokens of text number `text` that are read together: those before `stop` from `start` on, of which the first ones,
    up to `first`, have been scored in an earlier window."""

    text: int
    start: int
    first: int
    stop: int


@torch.inference_mode()
def score(model: Decoder, texts: Ids, *, top: int = 0) -> list[TokenScores]:
    """log p(token | start_id, all tokens before it) for every token of every text.

    A text longer than the context is read in windows of `max_len` tokens, each half a context further than the one
    before; what both read counts in the earlier, so that a token's score is given at least half a context wherever the
    text has as much. A model that reads texts of any length reads it in one go, its state carried along.
    top: how many alternatives are told. The model is put in evaluation mode and scores on its own device.
    """
    model_ready(model)
    context, start_id = context_of(model), model.vocabulary.start_id
    read = [[start_id, *ids] for ids in texts]
    windows = [window for i, ids in enumerate(texts) for window in _windows(i, len(ids), context)]
    scores = [TokenScores([], []) for _ in texts]
    parts: dict[_Window, TokenScores] = {}
    for batch in _batches(windows):
        for window, part in zip(batch, _read(model, batch, read, top), strict=True):
            parts[window] = part
    for window in windows:  # those of one text are in its order
        scores[window.text].log_probs.extend(parts[window].log_probs)
        scores[window.text].alternatives.extend(parts[window].alternatives)
    return scores


def _windows(text: int, length: int, context: int | None) -> Iterator[_Window]:
    """Windows that score every one of `length` tokens once."""
    if context is None or length <= context:
        if length:
            yield _Window(text, 0, 0, length)
        return
    stride, done = max(1, context // 2), 0
    for start in range(0, length, stride):
        stop = min(start + context, length)
        yield _Window(text, start, done, stop)
        done = stop
        if stop == length:
            return


def _batches(windows: Sequence[_Window]) -> Iterator[list[_Window]]:
    """Windows of like length together, the longest first."""
    batch: list[_Window] = []
    for window in sorted(windows, key=lambda window: window.start - window.stop):
        if batch and (len(batch) + 1) * (batch[0].stop - batch[0].start) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _read(model: Decoder, batch: Sequence[_Window], texts: Ids, top: int) -> list[TokenScores]:
    """The scores that each window of a batch gives. Padding on the right is in the future of all that counts."""
    longest = batch[0].stop - batch[0].start
    pad_id, device = model.vocabulary.pad_id, device_of(model)
    rows = [[*texts[w.text][w.start : w.stop + 1], *[pad_id] * (longest - w.stop + w.start)] for w in batch]
    ids_BT = torch.tensor(rows, device=device)
    whole = not model.unbounded or longest <= READ_AT_ONCE
    state = None if whole else model.init_state(len(batch), longest)
    scores = [TokenScores([], []) for _ in batch]
    at_once = longest if whole else READ_AT_ONCE
    for begin in range(0, longest, at_once):
        end = min(begin + at_once, longest)
        h_BTD = model.features(ids_BT[:, begin:end], state)
        for row, window in enumerate(batch):
            first = max(window.first - window.start - begin, 0)
            last = min(window.stop - window.start, end) - begin
            if first < last:
                targets_T = ids_BT[row, begin + first + 1 : begin + last + 1]
                _score(model, h_BTD[row, first:last], targets_T, top, scores[row])
    return scores


def _score(model: Decoder, h_TD: Tensor, targets_T: Tensor, top: int, scores: TokenScores) -> None:
    """Add the scores of targets, given the hidden states before them."""
    portion = max(1, LOGITS_AT_ONCE // model.vocabulary.target_size)
    for h, targets in zip(h_TD.split(portion), targets_T.split(portion), strict=True):
        logits_TV = model.logits(h[None])[0]
        log_p_TV = logits_TV.log_softmax(-1, dtype=torch.promote_types(logits_TV.dtype, torch.float32))
        scores.log_probs.extend(log_p_TV.gather(1, targets[:, None])[:, 0].tolist())
        if top:
            values_TK, ids_TK = log_p_TV.topk(min(top, log_p_TV.shape[1]))
            scores.alternatives.extend(
                list(zip(*row, strict=True)) for row in zip(ids_TK.tolist(), values_TK.tolist(), strict=True)
            )
