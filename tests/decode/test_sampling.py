import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tripel.decode.constraints import penalise_repetition, repeated_ngram_tokens
from tripel.decode.sampling import draw, filter_logits, keep_min_p, keep_top_k, keep_top_p

transformers = pytest.importorskip("transformers", reason="the peer these filters are compared with")


def logits(seed=0, n=6, v=97):
    torch.manual_seed(seed)
    return torch.randn(n, v) * 3


@pytest.mark.parametrize("k", [1, 5, 96, 97, 500])
def test_top_k_keeps_what_transformers_keeps(k):
    expected = transformers.TopKLogitsWarper(k)(None, logits())
    assert torch.equal(keep_top_k(logits(), k), expected)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999])
def test_top_p_keeps_what_transformers_keeps(p):
    expected = transformers.TopPLogitsWarper(p)(None, logits())
    assert torch.equal(keep_top_p(logits(), p), expected)


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("p", [0.3, 0.95])
def test_top_p_of_a_large_vocabulary_keeps_what_transformers_keeps(p, spread):
    values = logits(n=4, v=5000) * spread + torch.arange(5000) * 1e-5
    expected = transformers.TopPLogitsWarper(p)(None, values)
    ours = keep_top_p(values, p)
    differing = (ours != expected).sum(-1)
    assert int(differing.max()) <= (1 if spread else 4)  # sums of thousands of probabilities, added in another order


@pytest.mark.parametrize("p", [0.001, 0.1, 0.7, 1.0])
def test_min_p_keeps_what_transformers_keeps(p):
    expected = transformers.MinPLogitsWarper(p)(None, logits())
    assert torch.equal(keep_min_p(logits(), p), expected)


def test_all_filters_in_order_equal_transformers_chain():
    chain = transformers.LogitsProcessorList(
        [
            transformers.TemperatureLogitsWarper(0.7),
            transformers.TopKLogitsWarper(20),
            transformers.TopPLogitsWarper(0.8),
            transformers.MinPLogitsWarper(0.05),
        ]
    )
    ours = filter_logits(logits(), temperature=0.7, top_k=20, top_p=0.8, min_p=0.05)
    assert torch.equal(ours, chain(None, logits()))


def test_the_repetition_penalty_is_that_of_transformers():
    histories = torch.tensor([[1, 5, 5, 9], [2, 3, 4, 96]])
    expected = transformers.RepetitionPenaltyLogitsProcessor(1.7)(histories, logits(n=2))
    ours = logits(n=2)
    penalise_repetition(ours, histories.tolist(), 1.7)
    torch.testing.assert_close(ours, expected)


@settings(max_examples=60, deadline=None)
@given(history=st.lists(st.integers(0, 5), max_size=30), n=st.integers(1, 4))
def test_repeated_ngrams_are_banned_as_transformers_bans_them(history, n):
    scores = torch.zeros(1, 8)
    if history:
        scores = transformers.NoRepeatNGramLogitsProcessor(n)(torch.tensor([history]), scores)
    assert set(repeated_ngram_tokens(history, n)) == set((scores[0] == -math.inf).nonzero()[:, 0].tolist())


def test_draws_follow_the_probabilities():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0])
    n = 20_000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens = draw(probabilities.log().expand(n, -1), uniform)
    torch.testing.assert_close(tokens.bincount(minlength=5) / n, probabilities, atol=1e-3, rtol=0)


@pytest.mark.parametrize("uniform", [0.0, 0.999999999999999999, 1.0 - 1e-16])
def test_a_draw_at_the_edge_never_gives_an_impossible_token(uniform):
    values = torch.tensor([[-math.inf, 1.0, 2.0, -math.inf, -math.inf]])
    assert draw(values, torch.tensor([uniform], dtype=torch.float64)).item() in (1, 2)
