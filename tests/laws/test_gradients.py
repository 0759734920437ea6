"""Gradients against finite differences in float64, and what is fused or hand-written against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from tripel.data.batch import IGNORE
from tripel.nn import MIXERS, build_mixer
from tripel.nn.attention import EXPLICIT_KEYS, WHOLE_QUERIES, AttentionConfig, CrossAttention
from tripel.nn.block import ACTIVATIONS, Block, FeedForward, Wiring
from tripel.nn.dropout import add_dropout, dropout
from tripel.nn.embed import TokenEmbedding
from tripel.nn.exact import LayerNorm
from tripel.training.loss import cross_entropy_sum, r_drop_sum

D, V = 4, 7
EXAMPLES = {f"{kind}-{name}": example.config for kind, row in MIXERS.items() for name, example in row.examples.items()}
ROWS = [
    (name, causal)
    for name, config in EXAMPLES.items()
    for causal in (True, False)
    if causal or not MIXERS[config.kind].causal_only
]


def numbers(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def check(module, run, *inputs):
    """gradcheck by the inputs and by every parameter of a module."""
    names, parameters = zip(*module.named_parameters(), strict=True)

    def f(*tensors):
        weights = dict(zip(names, tensors[len(inputs) :], strict=True))
        named = {f"module.{name}": weight for name, weight in weights.items()}
        return torch.func.functional_call(_Runner(module, run), named, tensors[: len(inputs)])

    assert gradcheck(f, (*inputs, *parameters))


class _Runner(torch.nn.Module):
    def __init__(self, module, run):
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *inputs):
        return self.run(self.module, *inputs)


@pytest.mark.parametrize("length", [3, WHOLE_QUERIES + 1])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("kind", "causal"), ROWS)
def test_a_mixers_gradients_are_those_of_finite_differences(kind, causal, padded, length):
    torch.manual_seed(0)
    mixer = build_mixer(EXAMPLES[kind], D, causal=causal).double().eval()
    valid_BT = torch.arange(length) < torch.tensor([[length], [length - 1]]) if padded else None
    real_BT = torch.ones(2, length, dtype=torch.bool) if valid_BT is None else valid_BT
    check(mixer, lambda m, x: m(x, valid_BT=valid_BT)[real_BT], numbers(2, length, D))


@pytest.mark.parametrize("length", [3, WHOLE_QUERIES + 1])
def test_the_gradients_of_attention_with_dropout_are_those_of_the_draw_that_was_used(length):
    torch.manual_seed(0)
    mixer = build_mixer(AttentionConfig(n_heads=2, dropout=0.4), D, causal=True).double().train()

    def run(mixer, x_BTD):
        torch.manual_seed(1)
        return mixer(x_BTD)

    check(mixer, run, numbers(1, length, D))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_gradient_through_a_state_is_that_of_one_call(kind):
    torch.manual_seed(0)
    mixer, x_BTD = build_mixer(EXAMPLES[kind], D, causal=True).double().eval(), numbers(2, 1, D)
    with torch.no_grad():
        past_BTD = numbers(2, 3, D, seed=2)

    def step(x):
        state = mixer.init_state(2, 4)
        with torch.no_grad():
            mixer(past_BTD, state=state)
        return mixer(x, state=state).square().sum()

    whole = mixer(torch.cat([past_BTD.detach(), x_BTD], 1))[:, -1].square().sum()
    torch.testing.assert_close(torch.autograd.grad(step(x_BTD), x_BTD), torch.autograd.grad(whole, x_BTD))


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "swiglu"])
@pytest.mark.parametrize("kind", ["post", "pre", "none"])
def test_a_blocks_gradients_are_those_of_finite_differences(kind, activation):
    torch.manual_seed(0)
    attention = AttentionConfig(n_heads=2)
    block = Block(
        build_mixer(attention, D, causal=True),
        CrossAttention(attention, D, D),
        FeedForward(D, 5, activation),
        lambda: Wiring(kind, LayerNorm(D) if kind != "none" else None, dropout=0.0),
    ).double()
    valid_BS = torch.tensor([[True] * 3, [True, True, False]])

    def run(block, x_BTD, memory_BSD):
        return block(x_BTD, memory=(block.cross.read(memory_BSD), valid_BS))

    check(block, run, numbers(2, 2, D), numbers(2, 3, D, seed=2))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_losss_gradients_are_those_of_finite_differences(smoothing, bias):
    targets_BT = torch.tensor([[1, 6, IGNORE], [0, IGNORE, 3]])

    def loss(h_BTD, weight_VD, bias_V=None):
        return cross_entropy_sum(h_BTD, (weight_VD, bias_V), targets_BT, label_smoothing=smoothing)

    assert gradcheck(loss, (numbers(2, 3, D), numbers(V, D, seed=2), *([numbers(V, seed=3)] if bias else [])))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_r_drops_gradients_are_those_of_finite_differences(smoothing, bias):
    targets_BT = torch.tensor([[1, 6, IGNORE], [0, IGNORE, 3]]).repeat(2, 1)

    def loss(h_BTD, weight_VD, bias_V=None):
        return r_drop_sum(h_BTD, (weight_VD, bias_V), targets_BT, label_smoothing=smoothing, alpha=3.0)

    assert gradcheck(loss, (numbers(4, 3, D), numbers(V, D, seed=2), *([numbers(V, seed=3)] if bias else [])))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_pytorchs_label_smoothed_cross_entropy(smoothing, bias):
    h_BTD, weight_VD, bias_V = numbers(3, 5, D), numbers(V, D, seed=2), numbers(V, seed=3) if bias else None
    targets_BT = torch.randint(V, (3, 5)).masked_fill(torch.rand(3, 5) < 0.3, IGNORE)
    ours = cross_entropy_sum(h_BTD, (weight_VD, bias_V), targets_BT, label_smoothing=smoothing)
    logits_NV = F.linear(h_BTD, weight_VD, bias_V).flatten(0, 1)
    theirs = F.cross_entropy(
        logits_NV, targets_BT.flatten(), label_smoothing=smoothing, reduction="sum", ignore_index=IGNORE
    )
    torch.testing.assert_close(ours, theirs)
    inputs = [x for x in (h_BTD, weight_VD, bias_V) if x is not None]
    torch.testing.assert_close(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs))


def test_r_drop_is_the_papers_loss_counted_once_per_token():
    """Liang et al. 2021, equation 4 with both passes' likelihoods, halved so that alpha keeps its meaning per token."""
    h_BTD, weight_VD, alpha = numbers(4, 3, D), numbers(V, D, seed=2), 2.0
    targets_BT = torch.tensor([[1, 6, IGNORE], [0, IGNORE, 3]])
    real_BT = targets_BT != IGNORE
    p, q = (F.linear(h, weight_VD).log_softmax(-1)[real_BT] for h in h_BTD.chunk(2))
    likelihood = sum(F.nll_loss(x, targets_BT[real_BT], reduction="sum") for x in (p, q))
    both_ways = F.kl_div(p, q, reduction="sum", log_target=True) + F.kl_div(q, p, reduction="sum", log_target=True)
    expected = (likelihood + alpha / 2 * both_ways) / 2
    ours = r_drop_sum(h_BTD, (weight_VD, None), targets_BT.repeat(2, 1), label_smoothing=0.0, alpha=alpha)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (h_BTD, weight_VD)), torch.autograd.grad(expected, (h_BTD, weight_VD))
    )


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_dropout_keeps_the_expectation_and_passes_gradients_where_it_kept(rate):
    torch.manual_seed(0)
    x = torch.ones(300, 301, requires_grad=True)
    y = dropout(x, rate)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert y.detach().unique().numel() == 2
    deviation_of_mean = (rate / (1 - rate) / x.numel()) ** 0.5
    assert abs(y.mean().item() - 1) < 5 * deviation_of_mean
    assert abs((y == 0).float().mean().item() - rate) < 1 / 256 + 5 * (rate * (1 - rate) / x.numel()) ** 0.5


def test_adding_a_dropped_out_branch_is_adding_what_dropout_gives():
    x, y = numbers(4, 9), numbers(4, 9, seed=2)
    torch.manual_seed(0)
    together = add_dropout(x, y, 0.3)
    torch.manual_seed(0)
    apart = x + dropout(y, 0.3)
    torch.testing.assert_close(together, apart)
    weight = numbers(4, 9, seed=3).detach()
    torch.testing.assert_close(
        torch.autograd.grad((together * weight).sum(), (x, y)), torch.autograd.grad((apart * weight).sum(), (x, y))
    )


@pytest.mark.parametrize("loss", ["cross-entropy", "r-drop"])
def test_a_batch_that_predicts_nothing_has_no_loss_and_no_gradient(loss):
    h_BTD, weight_VD = numbers(2, 3, D), numbers(V, D, seed=2)
    targets_BT, head = torch.full((2, 3), IGNORE), (weight_VD, None)
    if loss == "cross-entropy":
        total = cross_entropy_sum(h_BTD, head, targets_BT, label_smoothing=0.1)
    else:
        total = r_drop_sum(h_BTD, head, targets_BT, label_smoothing=0.1, alpha=1.0)
    assert total.item() == 0
    assert all((grad == 0).all() for grad in torch.autograd.grad(total, (h_BTD, weight_VD)))


def test_the_loss_does_not_depend_on_how_its_rows_are_cut_into_chunks(monkeypatch):
    h_BTD, weight_VD, bias_V = numbers(2, 11, D), numbers(V, D, seed=2), numbers(V, seed=3)
    targets_BT = torch.arange(22).view(2, 11) % V
    results = []
    for chunk in (10**6, 5 * V, V, 1):
        monkeypatch.setattr("tripel.training.fused_loss.CHUNK_CPU", chunk)
        for total in (
            cross_entropy_sum(h_BTD, (weight_VD, bias_V), targets_BT, label_smoothing=0.1),
            r_drop_sum(h_BTD, (weight_VD, bias_V), targets_BT[:1].repeat(2, 1), label_smoothing=0.1, alpha=1.0),
        ):
            results.append((total, *torch.autograd.grad(total, (h_BTD, weight_VD, bias_V))))
    for number, result in enumerate(results):
        torch.testing.assert_close(result, results[number % 2])


def apart(ours, exact):
    """The distance of two sets of tensors, relative to the second's length."""
    pairs = [(a.double().flatten(), b.double().flatten()) for a, b in zip(ours, exact, strict=True)]
    difference = torch.cat([a - b for a, b in pairs]).norm()
    return (difference / torch.cat([b for _, b in pairs]).norm()).item()


@pytest.mark.parametrize("length", [3, WHOLE_QUERIES + 9, EXPLICIT_KEYS + 9])
@pytest.mark.parametrize("kind", ["post", "pre"])
def test_a_block_in_bfloat16_is_the_exact_one_up_to_rounding(kind, length):
    torch.manual_seed(0)
    attention = AttentionConfig(n_heads=2)
    block = Block(
        build_mixer(attention, 16, causal=True),
        CrossAttention(attention, 16, 16),
        FeedForward(16, 20, "relu"),
        lambda: Wiring(kind, LayerNorm(16), dropout=0.0),
    )
    block = block.bfloat16()  # rounded once, so that both begin from the same numbers
    x_BTD, memory_BSD, upstream_BTD = (torch.randn(4, length, 16).bfloat16() for _ in range(3))

    def run(dtype):
        own, x = block.to(dtype), x_BTD.to(dtype).requires_grad_()
        y_BTD = own(x, memory=(own.cross.read(memory_BSD.to(dtype)), None))
        return y_BTD.detach(), torch.autograd.grad(y_BTD, (x, *own.parameters()), upstream_BTD.to(dtype))

    (y_BTD, gradients), (exact_BTD, exact_gradients) = run(torch.bfloat16), run(torch.float64)
    assert apart([y_BTD], [exact_BTD]) < 0.02
    assert apart(gradients, exact_gradients) < 0.04


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_embeddings_gradient_is_the_sum_over_all_its_uses_and_padding_has_none(dtype):
    torch.manual_seed(0)
    tokens = TokenEmbedding(5, 8, pad_id=0, scale=True)
    torch.nn.init.normal_(tokens.weight)
    tokens = tokens.to(dtype)
    ids_BT = torch.randint(5, (40, 50))
    upstream_BTD = torch.rand(40, 50, 8).to(dtype)
    (grad_VD,) = torch.autograd.grad(tokens(ids_BT), tokens.weight, upstream_BTD)
    one_hot_NV = F.one_hot(ids_BT.flatten(), 5).double()
    expected_VD = 8**0.5 * one_hot_NV.T @ upstream_BTD.double().flatten(0, 1)
    expected_VD[0] = 0
    assert (grad_VD[0] == 0).all()
    torch.testing.assert_close(grad_VD.double(), expected_VD, rtol=5e-3, atol=1e-3)
