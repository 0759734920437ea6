"""Scores of whole texts, against the plain log-softmax."""

import random

import pytest
import torch
from language_models import EOS_ID, MODELS, V, make

from tripel.decode import score as scoring
from tripel.decode.score import score


def texts_of(lengths, seed=0):
    generator = random.Random(seed)
    return [[generator.randrange(V) for _ in range(length)] for length in lengths]


@torch.no_grad()
def plain(model, text, first=0, start=0):
    """log p of the tokens from `first` on, given those from `start` on, and the boundary before all."""
    read = [EOS_ID, *text]
    log_p = model(torch.tensor([read[start:-1]]))[0].log_softmax(-1)
    return [float(log_p[i - start, text[i]]) for i in range(first, len(text))]


@pytest.mark.parametrize("name", MODELS)
def test_the_scores_of_a_text_are_the_log_softmax_of_a_forward_pass_whatever_its_batch(name):
    model, texts = make(name), texts_of([1, 5, 30, 64, 12, 5])
    for text, scored in zip(texts, score(model, texts), strict=True):
        assert scored.log_probs == pytest.approx(plain(model, text), abs=1e-9)
        assert scored.log_probs == pytest.approx(score(model, [text])[0].log_probs, abs=1e-9)
        assert scored.alternatives == []


@pytest.mark.parametrize("name", ["attention", "modern"])
@pytest.mark.parametrize("context", [2, 7, 16])
@pytest.mark.parametrize("length", [1, 16, 17, 24, 25, 90])
def test_a_text_beyond_the_context_is_scored_with_at_least_half_a_context_of_what_comes_before(name, context, length):
    model, (text,) = make(name, max_len=context), texts_of([length])
    (scored,) = score(model, [text])
    assert len(scored.log_probs) == length
    for place, value in enumerate(scored.log_probs):
        seen = [plain(model, text[: place + 1], place, start)[0] for start in starts(place, context)]
        assert any(value == pytest.approx(other, abs=1e-9) for other in seen)


def starts(place, context):
    """Where a window may begin that gives the token at place, with the boundary, half a context or all there is."""
    least = min(place + 1, (context + 1) // 2)
    return range(max(0, place + 1 - context), place + 2 - least)


@pytest.mark.parametrize("name", ["rnn", "lstm", "conv"])
def test_models_without_a_context_carry_their_state_through_a_long_text(name, monkeypatch):
    model, texts = make(name, max_len=8), texts_of([40, 100, 33])
    monkeypatch.setattr(scoring, "READ_AT_ONCE", 16)
    for text, scored in zip(texts, score(model, texts, top=2), strict=True):
        assert scored.log_probs == pytest.approx(plain(model, text), abs=1e-9)
        assert len(scored.alternatives) == len(text)


def test_small_portions_change_nothing(monkeypatch):
    model, texts = make("attention", max_len=16), texts_of([1, 9, 70, 3, 25])
    whole = score(model, texts, top=3)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 20)
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 3 * V)
    for ours, theirs in zip(score(model, texts, top=3), whole, strict=True):
        assert ours.log_probs == pytest.approx(theirs.log_probs, abs=1e-9)
        assert [[i for i, _ in step] for step in ours.alternatives] == [
            [i for i, _ in step] for step in theirs.alternatives
        ]


@torch.no_grad()
def test_the_alternatives_are_the_likeliest_tokens_of_every_place():
    model, (text,) = make("lstm"), texts_of([9])
    expected = model(torch.tensor([[EOS_ID, *text[:-1]]]))[0].log_softmax(-1).topk(4)
    (scored,) = score(model, [text], top=4)
    assert [[token for token, _ in step] for step in scored.alternatives] == expected.indices.tolist()
    assert len(score(model, [text], top=1000)[0].alternatives[0]) == V


def test_a_text_without_tokens_and_no_texts_have_no_scores():
    assert score(make("rnn"), [[], [5]])[0].log_probs == []
    assert score(make("rnn"), []) == []


def test_a_training_model_scores_without_dropout():
    model = make("attention").train()
    assert score(model, [[5, 6]]) == score(model, [[5, 6]])
    assert not model.training
