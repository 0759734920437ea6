"""The CPU kernel for short sequences against PyTorch's attention in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from tripel.nn.short_attention import short_attention

B, H, E = 3, 2, 8
# queries, keys, causal, padded: keys just below, at and above a multiple of 16
CASES = [
    (15, 15, True, False),
    (16, 16, True, False),
    (9, 21, False, True),
    (9, 16, False, False),
    (17, 17, True, True),
]


def example(T, S, dtype, padded):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, H, n, E, generator=g, dtype=torch.float64).to(dtype).requires_grad_() for n in (T, S, S))
    lengths = torch.tensor([S, S - 3, S - 5])
    return (q, k, v), (torch.arange(S) < lengths[:, None])[:, None, None] if padded else None


def visible(T, S, causal, allowed):
    seen = torch.ones(T, S, dtype=torch.bool)
    seen = seen.tril() if causal else seen
    return seen if allowed is None else seen & allowed


def error(x, exact):
    return ((x.double() - exact.double()).norm() / exact.double().norm()).item()


@pytest.mark.parametrize("T, S, causal, padded", CASES)
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_short_attention_and_its_gradients_are_pytorchs(T, S, causal, padded, dtype, bound):
    leaves, allowed = example(T, S, dtype, padded)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    ours = short_attention(*leaves, causal=causal, allowed=allowed, rate=0.0)
    theirs = F.scaled_dot_product_attention(*exact, attn_mask=visible(T, S, causal, allowed))
    grad = torch.randn(B, H, T, E, dtype=dtype)
    assert error(ours, theirs) < bound
    pairs = zip(torch.autograd.grad(ours, leaves, grad), torch.autograd.grad(theirs, exact, grad.double()), strict=True)
    assert all(error(a, b) < bound for a, b in pairs)


@pytest.mark.parametrize("T, S, causal, padded", CASES)
def test_bfloat16_gradients_of_short_attention_are_as_exact_as_autocasts(T, S, causal, padded):
    leaves, allowed = example(T, S, torch.bfloat16, padded)
    exact, cast = ([x.detach().to(dtype).requires_grad_() for x in leaves] for dtype in (torch.float64, torch.float32))
    seen, grad = visible(T, S, causal, allowed), torch.randn(B, H, T, E).bfloat16()

    def plain(q, k, v):
        return (q @ k.mT / math.sqrt(E)).masked_fill(~seen, -math.inf).softmax(-1) @ v

    ours = torch.autograd.grad(short_attention(*leaves, causal=causal, allowed=allowed, rate=0.0), leaves, grad)
    right = torch.autograd.grad(plain(*exact), exact, grad.double())
    with torch.autocast("cpu", torch.bfloat16):
        peer = plain(*cast)
    theirs = torch.autograd.grad(peer, cast, grad.to(peer.dtype))
    for a, b, c in zip(ours, theirs, right, strict=True):
        assert error(a, c) < 1.5 * error(b, c)


def test_gradient_of_short_attention_agrees_with_finite_differences():
    g = torch.Generator().manual_seed(0)
    leaves = [torch.randn(2, 1, n, 3, generator=g, dtype=torch.float64).requires_grad_() for n in (4, 5, 5)]
    allowed = torch.tensor([[True] * 5, [True] * 4 + [False]])[:, None, None]

    def f(q, k, v):
        torch.manual_seed(1)  # the same dropout at every call
        return short_attention(q, k, v, causal=False, allowed=allowed, rate=0.3)

    assert torch.autograd.gradcheck(f, leaves)


def test_dropout_of_attention_weights_keeps_the_mean():
    torch.manual_seed(0)
    q = k = torch.zeros(1, 1, 8, 4)
    v = torch.ones(4000, 1, 8, 4)
    y = short_attention(q.expand(4000, -1, -1, -1), k.expand(4000, -1, -1, -1), v, causal=False, allowed=None, rate=0.5)
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert y.std().item() > 0.1
