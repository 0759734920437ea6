"""In bfloat16 on CPU, sums over many rows must not lose the rows: norms and embeddings against float64."""

import pytest
import torch
import torch.nn.functional as F

from tripel.nn.exact import LayerNorm, embedding


def error(x, exact):
    return ((x.double() - exact).norm() / exact.norm()).item()


def norm_gradients(norm, x, grad):
    norm = norm.to(x.dtype)
    x = x.clone().requires_grad_()
    y = norm(x)
    return [y.detach(), *torch.autograd.grad(y, [x, norm.weight, norm.bias], grad.to(x.dtype))]


def norm_example():
    torch.manual_seed(0)
    return torch.randn(3000, 64).bfloat16(), torch.randn(3000, 64).bfloat16()


def test_bfloat16_norm_and_its_gradients_are_right_to_bfloat16s_own_rounding():
    x, grad = norm_example()
    ours = norm_gradients(LayerNorm(64), x, grad)
    right = norm_gradients(LayerNorm(64), x.double(), grad)
    assert [y.dtype for y in ours] == [torch.bfloat16] * 4
    assert all(error(a, b) < 2**-8 for a, b in zip(ours, right, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norm_of_other_types_is_pytorchs(dtype):
    x, grad = norm_example()
    ours = norm_gradients(LayerNorm(64), x.to(dtype), grad)
    theirs = norm_gradients(torch.nn.LayerNorm(64), x.to(dtype), grad)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def embedding_gradient(look_up, dtype, ids, grad):
    weight = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    y = look_up(ids, weight)
    return y.detach(), torch.autograd.grad(y, [weight], grad.to(dtype))[0]


def test_row_of_a_frequent_token_gets_its_whole_gradient():
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (40, 100))
    ids[:, ::2] = 7
    ids[:, 1::10] = 3  # padding
    grad = (1 + torch.rand(40, 100, 8)).bfloat16()  # all of one sign: a bfloat16 sum would stop growing
    y, of_weight = embedding_gradient(lambda ids, w: embedding(ids, w, 3), torch.bfloat16, ids, grad)
    right_y, right = embedding_gradient(lambda ids, w: F.embedding(ids, w, padding_idx=3), torch.float64, ids, grad)
    assert of_weight.dtype == torch.bfloat16 and error(y, right_y) < 2**-8
    assert error(of_weight, right) < 2**-8
    assert not of_weight[3].any()
