"""Dropout drops its share, scales what it keeps, is repeatable, and its gradient passes exactly what was kept."""

import pytest
import torch

from tripel.nn.dropout import Dropout, add_dropout, dropout

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_its_share_to_within_a_256th_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    y = dropout(torch.ones(1_000_003), rate)  # a number of elements that eight does not divide
    dropped = (y == 0).double().mean().item()
    assert dropped == pytest.approx(rate, abs=1 / 512 + 0.002)  # half a step of rounding, and four deviations
    assert y.double().mean().item() == pytest.approx(1, abs=4 * (rate / (1 - rate) / len(y)) ** 0.5)
    assert len(y.unique()) == 2


def test_dropout_masks_of_neighbouring_elements_and_of_successive_calls_are_independent():
    torch.manual_seed(0)
    first, second = (dropout(torch.ones(400_000, dtype=torch.float64), 0.5) - 1 for _ in range(2))
    for a, b in [(first, second), (first[1:], first[:-1]), (first[8:], first[:-8])]:
        assert abs((a * b).mean().item()) < 4 / len(a) ** 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_seed_gives_the_same_mask(dtype):
    x = torch.randn(13, 7, dtype=dtype)
    torch.manual_seed(3)
    first = dropout(x, 0.4)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.4), first)
    assert not torch.equal(dropout(x, 0.4), first)
    assert first.dtype == dtype


def test_dropout_is_the_identity_at_rate_zero_and_in_evaluation():
    x = torch.randn(5, 5)
    assert dropout(x, 0.0) is x
    assert Dropout(0.5).eval()(x) is x
    assert not torch.equal(Dropout(0.5).train()(x), x)


def test_a_rate_too_small_for_a_256th_still_drops_something_and_one_near_one_still_keeps_something():
    torch.manual_seed(0)
    for rate in (1e-6, 1 - 1e-6):
        y = dropout(torch.ones(100_000), rate)
        assert 0 < (y == 0).sum() < len(y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_passes_exactly_the_kept_elements_with_the_same_scale(dtype):
    x = torch.ones(64, 9, dtype=dtype, requires_grad=True)
    y = dropout(x, 0.3)
    (grad,) = torch.autograd.grad(y, [x], torch.ones_like(y))
    assert torch.equal(grad, y)


def test_gradient_agrees_with_finite_differences():
    def repeatable(f):
        def g(*inputs):
            torch.manual_seed(1)
            return f(*inputs)

        return g

    x, y = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(repeatable(lambda x: dropout(x, 0.3)), [x])
    assert torch.autograd.gradcheck(repeatable(lambda x, y: add_dropout(x, y, 0.3)), [x, y])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_adding_dropout_is_the_sum_with_dropout(dtype, rate):
    x, y = torch.randn(2, 31, 5).to(dtype).unbind()
    torch.manual_seed(2)
    ours = add_dropout(x, y, rate)
    torch.manual_seed(2)
    theirs = x + dropout(y, rate)
    torch.testing.assert_close(ours, theirs, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-2)


def test_dropout_takes_tensors_that_are_not_contiguous():
    x = torch.randn(6, 8).T
    y = dropout(x, 0.5)
    assert torch.equal(y[y != 0], (x * 2)[y != 0])
