import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import EOS, PAD, START, TableModel, exhaustive

from tripel.decode import DecodeConfig, generate
from tripel.decode.beam import Beam
from tripel.decode.candidates import Logits, log_normaliser, top_candidates
from tripel.decode.search import Prompt

SOURCE = [4, 3, EOS]


def short(**settings):
    """A config whose answers have at most 4 tokens, so that all of them can be listed."""
    return DecodeConfig(max_length_ratio=0.0, max_length_extra=4, loop_guard=0, **settings)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([-1.5, -1.0, 0.0, 0.3, 1.0, 2.0]), n_best=st.integers(1, 5))
def test_a_beam_as_wide_as_everything_finds_the_best_answers_of_exhaustive_search(seed, penalty, n_best):
    model = TableModel(5, seed)
    config = short(beam=200, n_best=n_best, length_penalty=penalty, patience=None)
    (answers,) = generate(model, [SOURCE], config)
    best = exhaustive(model, SOURCE, config)[:n_best]
    assert [answer.ids for answer in answers] == [ids for _, ids, _ in best]
    assert [answer.finish_reason for answer in answers] == [reason for _, _, reason in best]
    assert [answer.score for answer in answers] == pytest.approx([score for score, _, _ in best], abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([-1.0, 0.0, 0.5, 1.0]), beam=st.integers(1, 6))
def test_stopping_early_never_changes_the_answer(seed, penalty, beam):
    """Against the same search that goes on to the length limit whatever it has found."""
    model = TableModel(6, seed)
    config = short(beam=beam, length_penalty=penalty, patience=None)
    if beam > 1:
        assert generate(model, [SOURCE], config) == [_to_the_limit(model, config)]


def _to_the_limit(model, config):
    class Stubborn(Beam):
        def _is_finished(self, sentence, live):
            return not live or self.step >= self.prompts[sentence].limit

    limit = config.limit(len(SOURCE))
    search = Stubborn(config, [Prompt(limit)], EOS)
    state = model.start(torch.tensor([SOURCE]), max_len=limit)
    logits = model.step(torch.tensor([[START]]), state)
    while not search.done:
        tokens, rows = search.advance(Logits(logits, PAD))
        if not search.done:
            state.select(torch.tensor(rows or list(range(len(tokens)))))
            logits = model.step(torch.tensor(tokens)[:, None], state)
    return search.hypotheses[0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), beam=st.integers(2, 5), penalty=st.sampled_from([0.0, 0.6, 1.0]))
def test_a_score_is_the_log_probability_of_the_answer_over_its_length_to_the_penalty(seed, beam, penalty):
    model = TableModel(12, seed)
    config = DecodeConfig(
        beam=beam, n_best=beam, length_penalty=penalty, max_length_ratio=1, max_length_extra=3, loop_guard=0
    )
    (answers,) = generate(model, [SOURCE], config)
    for answer in answers:
        chosen = answer.ids + ([EOS] if answer.finish_reason == "stop" else [])
        assert answer.score == pytest.approx(model.score(SOURCE, chosen, penalty), abs=1e-4)
    assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)
    assert len({tuple(a.ids) + (a.finish_reason,) for a in answers}) == beam


def test_a_vocabulary_smaller_than_the_beam_leaves_places_empty_and_still_answers():
    model = TableModel(4, 3)
    (answers,) = generate(model, [SOURCE], short(beam=50, n_best=50, patience=None))
    assert len(answers) == len(exhaustive(model, SOURCE, short()))


def test_patience_says_how_many_finished_hypotheses_end_a_sentence():
    """One likely way on, and an end so unlikely that the live hypothesis can always still win."""
    step = torch.tensor([-50.0, -4.0, -50.0, -0.02, -50.0, -50.0])
    steps = {}
    for patience in (1.0, 2.0, None):
        search = Beam(DecodeConfig(beam=3, patience=patience, loop_guard=0), [Prompt(60)], EOS)
        search.advance(Logits(step[None].clone(), PAD))
        while not search.done:
            search.advance(Logits(step.repeat(3, 1), PAD))
        steps[patience] = search.step
    assert steps == {1.0: 3, 2.0: 6, None: 60}


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    groups=st.integers(1, 4),
    width=st.integers(1, 3),
    vocab=st.sampled_from([4, 63, 64, 65, 200, 1000, 3001]),
    k=st.integers(1, 12),
    banned=st.booleans(),
)
def test_the_best_candidates_are_those_of_a_full_sort(seed, groups, width, vocab, k, banned):
    torch.manual_seed(seed)
    logits = torch.randn(groups * width, vocab)
    if banned:
        logits[:, : vocab // 2] = -math.inf
    offset = torch.randn(groups * width)
    expected = (logits + offset[:, None]).view(groups, -1).sort(descending=True, stable=True)
    n = min(k, width * vocab)
    values, rows, tokens = top_candidates(logits.clone(), offset, groups, k)
    torch.testing.assert_close(values, expected.values[:, :n])
    finite = values > -math.inf
    rows, tokens = rows.where(finite, 0), tokens.where(finite, 0)
    chosen = (logits + offset[:, None]).view(groups, width, vocab)[torch.arange(groups)[:, None], rows, tokens]
    assert torch.equal(chosen[finite], values[finite])
    places = (rows * vocab + tokens).masked_fill(~finite, -1)
    assert all(len(set(line)) == len(line) for line in ([p for p in ps if p >= 0] for ps in places.tolist()))


@pytest.mark.parametrize("shift", [0.0, 80.0, -200.0, 1e4])
def test_the_normaliser_is_logsumexp_at_every_magnitude(shift):
    torch.manual_seed(0)
    logits = torch.randn(7, 1003) * 3 + shift
    logits[:, 5] = -math.inf
    torch.testing.assert_close(log_normaliser(logits), logits.double().logsumexp(-1).float(), rtol=1e-6, atol=1e-5)
