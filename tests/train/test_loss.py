"""The fused losses against PyTorch's own cross-entropy and against R-Drop written out from its definition."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tripel.data.batch import IGNORE, Batch
from tripel.models.build import build
from tripel.models.catalog import transformer_tiny
from tripel.models.config import Vocabulary
from tripel.training import fused_loss
from tripel.training.loss import batch_loss_sum, cross_entropy_sum, r_drop_sum
from tripel.training.precision import Worker

V, D = 211, 16


@pytest.fixture(params=[40 * V, 10_000_000], ids=["many-chunks", "one-chunk"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(fused_loss, "CHUNK_CPU", request.param)


def example(dtype, *, bias=True, twice=False, padded=True):
    """Hidden states, a head, and targets of which the last of each row are not predicted."""
    g = torch.Generator().manual_seed(0)
    h = torch.randn(6, 9, D, generator=g, dtype=torch.float64)
    weight = torch.randn(V, D, generator=g, dtype=torch.float64) / 2
    bias_V = torch.randn(V, generator=g, dtype=torch.float64) if bias else None
    targets = torch.randint(0, V, (6, 9), generator=g)
    if padded:
        targets[:, 7:] = IGNORE
    if twice:
        h[3:] = h[:3] + 0.3 * h[3:]
        targets[3:] = targets[:3]
    leaves = [x.to(dtype).requires_grad_() for x in (h, weight, bias_V) if x is not None]
    return leaves, targets


def split(leaves):
    return leaves[0], (leaves[1], leaves[2] if len(leaves) == 3 else None)


def reference(leaves, targets, smoothing):
    h, (weight, bias) = split(leaves)
    logits = F.linear(h, weight, bias).flatten(0, 1)
    return F.cross_entropy(logits, targets.flatten(), label_smoothing=smoothing, ignore_index=IGNORE, reduction="sum")


def r_drop_reference(leaves, targets, smoothing, alpha):
    """Liang et al. 2021, equations 2 to 4, per pair of passes, halved: an example counts once."""
    h, (weight, bias) = split(leaves)
    halves = [[x, weight, *([] if bias is None else [bias])] for x in h.chunk(2)]
    first, second = targets.chunk(2)
    likelihood = reference(halves[0], first, smoothing) + reference(halves[1], second, smoothing)
    rows = (first != IGNORE).flatten()
    p, q = (F.linear(x, weight, bias).flatten(0, 1)[rows].log_softmax(-1) for x in h.chunk(2))
    divergence = F.kl_div(q, p, log_target=True, reduction="sum") + F.kl_div(p, q, log_target=True, reduction="sum")
    return (likelihood + alpha / 2 * divergence) / 2


def gradients(loss, leaves):
    return torch.autograd.grad(loss / 7, leaves)


def error(x, exact):
    return ((x.double() - exact.double()).norm() / exact.double().norm()).item()


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-13), (torch.float32, 3e-6)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_and_its_gradients_are_pytorchs(chunk, dtype, bound, bias, smoothing):
    leaves, targets = example(dtype, bias=bias)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    loss, expected = (
        cross_entropy_sum(*split(leaves), targets, label_smoothing=smoothing),
        reference(exact, targets, smoothing),
    )
    assert error(loss, expected) < bound
    for ours, theirs in zip(gradients(loss, leaves), gradients(expected, exact), strict=True):
        assert error(ours, theirs) < bound


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("bias", [False, True])
def test_r_drop_and_its_gradients_are_those_of_its_definition(chunk, dtype, bound, bias):
    leaves, targets = example(dtype, bias=bias, twice=True)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    loss = r_drop_sum(*split(leaves), targets, label_smoothing=0.1, alpha=5.0)
    expected = r_drop_reference(exact, targets, 0.1, 5.0)
    assert error(loss, expected) < bound
    for ours, theirs in zip(gradients(loss, leaves), gradients(expected, exact), strict=True):
        assert error(ours, theirs) < bound


@pytest.mark.parametrize("r_drop", [False, True])
def test_bfloat16_gradients_are_as_exact_as_autocasts(chunk, r_drop):
    leaves, targets = example(torch.bfloat16, twice=r_drop)
    exact, cast = ([x.detach().to(dtype).requires_grad_() for x in leaves] for dtype in (torch.float64, torch.float32))
    if r_drop:
        loss = r_drop_sum(*split(leaves), targets, label_smoothing=0.1, alpha=5.0)
        expected = gradients(r_drop_reference(exact, targets, 0.1, 5.0), exact)
        with torch.autocast("cpu", torch.bfloat16):
            peer = gradients(r_drop_reference(cast, targets, 0.1, 5.0), cast)
    else:
        loss = cross_entropy_sum(*split(leaves), targets, label_smoothing=0.1)
        expected = gradients(reference(exact, targets, 0.1), exact)
        with torch.autocast("cpu", torch.bfloat16):
            peer = gradients(reference(cast, targets, 0.1), cast)
    for ours, theirs, right in zip(gradients(loss, leaves), peer, expected, strict=True):
        assert error(ours, right) < 1.25 * error(theirs, right)


def test_gradients_agree_with_finite_differences():
    leaves, targets = example(torch.float64, padded=False, twice=True)
    small = [leaves[0][:, :2, :4].detach(), leaves[1][:9, :4].detach(), leaves[2][:9].detach()]
    targets = targets[:, :2] % 9
    small = [x.clone().requires_grad_() for x in small]
    assert torch.autograd.gradcheck(
        lambda h, w, b: cross_entropy_sum(h, (w, b), targets, label_smoothing=0.1), small, fast_mode=True
    )
    assert torch.autograd.gradcheck(
        lambda h, w, b: r_drop_sum(h, (w, b), targets, label_smoothing=0.1, alpha=3.0), small, fast_mode=True
    )


def test_value_is_the_same_with_and_without_gradients():
    leaves, targets = example(torch.float32)
    with torch.no_grad():
        quiet = cross_entropy_sum(*split(leaves), targets, label_smoothing=0.1)
    assert quiet.item() == pytest.approx(
        cross_entropy_sum(*split(leaves), targets, label_smoothing=0.1).item(), rel=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_right_token_whose_probability_underflows_keeps_its_exact_loss(dtype):
    h = torch.tensor([[[300.0, 0.0], [2.0, 1.0]]], dtype=dtype, requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], dtype=dtype, requires_grad=True)
    targets = torch.tensor([[1, 0]])
    loss = cross_entropy_sum(h, (weight, None), targets)
    expected = F.cross_entropy(F.linear(h, weight).double().flatten(0, 1), targets.flatten(), reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3 if dtype == torch.bfloat16 else 1e-6)


def test_positions_that_are_not_predicted_get_no_gradient_and_change_nothing():
    leaves, targets = example(torch.float64)
    h, head = split(leaves)
    loss = cross_entropy_sum(h, head, targets, label_smoothing=0.1)
    cut = cross_entropy_sum(h[:, :7], head, targets[:, :7], label_smoothing=0.1)
    assert loss.item() == pytest.approx(cut.item(), rel=1e-12)
    (grad,) = torch.autograd.grad(loss, [h])
    assert not grad[:, 7:].any() and grad[:, :7].any()


def test_loss_can_be_propagated_twice():
    leaves, targets = example(torch.float64)
    loss = cross_entropy_sum(*split(leaves), targets)
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_r_drop_of_two_equal_passes_is_the_cross_entropy_of_one():
    leaves, targets = example(torch.float64)
    h, head = split(leaves)
    both = r_drop_sum(torch.cat([h, h]), head, torch.cat([targets, targets]), label_smoothing=0.1, alpha=5.0)
    assert both.item() == pytest.approx(cross_entropy_sum(h, head, targets, label_smoothing=0.1).item(), rel=1e-12)


@pytest.mark.parametrize("r_drop", [False, True])
def test_hidden_state_that_is_not_a_number_makes_the_loss_not_a_number(r_drop):
    leaves, targets = example(torch.float32, twice=True)
    h, head = split(leaves)
    h = h.detach().clone()
    h[0, 0, 0] = torch.nan
    loss = (
        r_drop_sum(h, head, targets, label_smoothing=0.1, alpha=1.0) if r_drop else cross_entropy_sum(h, head, targets)
    )
    assert not torch.isfinite(loss)


@pytest.mark.parametrize("r_drop", [0.0, 5.0])
def test_whole_models_bfloat16_gradients_are_as_exact_as_autocasts(r_drop):
    torch.manual_seed(0)
    config = transformer_tiny().model_copy(update={"dropout": 0.0})
    model = build(config, Vocabulary(source_size=500, target_size=500, pad_id=0, eos_id=1, start_id=2))
    source, target = torch.randint(3, 500, (24, 12)), torch.randint(3, 500, (24, 13))
    source[:, 8:10] = 7  # a frequent token: many rows are added into one row of the embedding's gradient
    batch = Batch({"source_BS": source, "target_BT": target}, target.roll(-1, 1), target.numel(), 0)

    def of(worker, *, autocast=False):
        worker.begin_step()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = batch_loss_sum(worker.model, batch, label_smoothing=0.1, r_drop=r_drop)
        (loss / batch.count).backward()
        worker.collect()
        return torch.cat([p.grad.double().flatten() for p in worker.master.parameters()])

    exact = of(Worker(copy.deepcopy(model).double(), "float32"))
    ours = of(Worker(copy.deepcopy(model), "bfloat16"))
    theirs = of(Worker(copy.deepcopy(model), "float32"), autocast=True)
    assert error(ours, exact) < 1.25 * error(theirs, exact)
