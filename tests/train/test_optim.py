import math

import pytest
import torch
from training_bench import same, small_model, weights

from tripel.nn.linear import FusedLinear
from tripel.training.optim import Muon, OptimConfig, Optimizer, hidden_matrices, orthogonalise, schedule_factor

SHAPES = [(6, 6), (12, 5), (5, 12), (1, 4)]


def matrices(shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(*shape, generator=generator)) for shape in shapes]


def give_gradients(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)


# Schedules


@pytest.mark.parametrize("step", [1, 10, 3999, 4000, 4001, 100_000])
def test_the_inverse_square_root_is_equation_3_of_vaswani_2017_with_its_peak_at_1(step):
    warmup, d_model = 4000, 512
    paper = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
    peak = d_model**-0.5 * warmup**-0.5
    config = OptimConfig(schedule="inverse_sqrt", warmup_steps=warmup)
    assert schedule_factor(config, step, 10**6) == pytest.approx(paper / peak, rel=1e-12)


def test_cosine_is_equation_5_of_loshchilov_and_hutter_2017_after_the_warm_up():
    config = OptimConfig(schedule="cosine", warmup_steps=10, min_lr_share=0.1)
    for step in range(10, 111):
        expected = 0.1 + 0.5 * (1 - 0.1) * (1 + math.cos(math.pi * (step - 10) / 100))
        assert schedule_factor(config, step, 110) == pytest.approx(expected, rel=1e-12)
    assert schedule_factor(config, 110, 110) == pytest.approx(0.1)


def test_warmup_stable_decay_rises_stays_and_falls_to_almost_nothing():
    config = OptimConfig(schedule="warmup_stable_decay", warmup_steps=10, decay_share=0.2)
    factors = [schedule_factor(config, step, 100) for step in range(1, 101)]
    assert factors[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert factors[10:81] == [1.0] * 71
    assert factors[80:] == pytest.approx([n / 20 for n in range(20, 0, -1)])


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine", "warmup_stable_decay", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 7, 500])
def test_every_schedule_stays_between_nothing_and_its_peak_and_starts_above_nothing(schedule, warmup):
    config = OptimConfig(schedule=schedule, warmup_steps=warmup)
    factors = [schedule_factor(config, step, 100) for step in range(1, 101)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] == pytest.approx(min(1 / warmup, 1) if warmup else factors[0]) and factors[0] > 0
    if warmup < 100:
        assert factors[max(warmup, 1) - 1] == pytest.approx(1.0, abs=1e-3)


def test_a_constant_rate_stays_at_its_peak():
    config = OptimConfig(schedule="constant", warmup_steps=4)
    assert [schedule_factor(config, step, 9) for step in (1, 2, 4, 5, 9)] == [0.25, 0.5, 1, 1, 1]


# Muon


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_is_pytorchs_muon_on_plain_matrices(weight_decay):
    """PyTorch iterates in bfloat16, ours in the dtype of the weights: equal up to bfloat16's rounding."""
    ours, theirs = matrices(), matrices()
    muon = Muon([(p, p.shape[:1]) for p in ours], lr=0.05, momentum=0.95, weight_decay=weight_decay)
    peer = torch.optim.Muon(
        theirs, lr=0.05, momentum=0.95, weight_decay=weight_decay, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(3):
        for parameters, optimizer in ((ours, muon), (theirs, peer)):
            give_gradients(parameters, seed)
            optimizer.step()
    for mine, other, start in zip(ours, theirs, matrices(), strict=True):
        moved = (other - start).norm()
        assert (mine - other).norm() < 0.03 * moved


def test_a_muon_update_is_its_formula():
    """Nesterov momentum, then U p(S) V^T, p five rounds of the quintic on the singular values of an SVD in float64."""
    lr, momentum, decay = 0.05, 0.9, 0.1
    (p,), expected = matrices([(7, 4)]), matrices([(7, 4)])[0].detach().double()
    muon = Muon([(p, p.shape[:1])], lr=lr, momentum=momentum, weight_decay=decay)
    average = torch.zeros(7, 4, dtype=torch.float64)
    for seed in range(4):
        give_gradients([p], seed)
        grad = p.grad.double()
        muon.step()
        average = momentum * average + (1 - momentum) * grad
        u, s, vh = torch.linalg.svd((1 - momentum) * grad + momentum * average, full_matrices=False)
        s = s / s.norm()
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        expected = expected * (1 - lr * decay) - lr * 0.2 * math.sqrt(7) * (u * s) @ vh
    torch.testing.assert_close(p.detach(), expected.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n_maps", [2, 3])
def test_muon_treats_a_fused_matrix_map_by_map(n_maps):
    separate = matrices([(6, 5)] * n_maps)
    fused = torch.nn.Parameter(torch.cat([p.detach() for p in separate]))
    one = Muon([(fused, (6,) * n_maps)], lr=0.05, momentum=0.95, weight_decay=0.1)
    many = Muon([(p, p.shape[:1]) for p in separate], lr=0.05, momentum=0.95, weight_decay=0.1)
    for seed in range(3):
        give_gradients(separate, seed)
        fused.grad = torch.cat([p.grad for p in separate])
        one.step()
        many.step()
    torch.testing.assert_close(fused.detach(), torch.cat([p.detach() for p in separate]))
    whole = matrices([(6, 5)] * n_maps)
    whole_p = torch.nn.Parameter(torch.cat([p.detach() for p in whole]))
    whole_p.grad = fused.grad
    Muon([(whole_p, whole_p.shape[:1])], lr=0.05, momentum=0.95, weight_decay=0.1).step()
    assert (whole_p - fused).norm() > 0.01


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    g_NRC = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalise(g_NRC))
    assert singular.min() > 0.3 and singular.max() < 1.3
    scaled = orthogonalise(g_NRC * 1e3)
    torch.testing.assert_close(scaled, orthogonalise(g_NRC), rtol=1e-3, atol=1e-4)


def test_a_matrix_without_a_gradient_is_left_alone():
    parameters = matrices()
    before = [p.detach().clone() for p in parameters]
    muon = Muon([(p, p.shape[:1]) for p in parameters], lr=0.1, momentum=0.9, weight_decay=0.1)
    give_gradients(parameters[:1], 0)
    muon.step()
    assert not torch.equal(parameters[0], before[0])
    assert all(torch.equal(p, b) for p, b in zip(parameters[1:], before[1:], strict=True))


# Who gets which


def test_muon_takes_the_maps_between_hidden_states_and_adamw_the_rest():
    model = small_model(tie="none")
    taken = {name for name, _, _ in hidden_matrices(model)}
    matrices = {name for name, p in model.named_parameters() if p.dim() == 2}
    assert taken == matrices - {"source_tokens.weight", "target_tokens.weight", "head.weight"}
    fused = {name for name, _, sizes in hidden_matrices(model) if len(sizes) > 1}
    assert fused == {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, FusedLinear)}


def test_adamw_is_pytorchs_adamw_and_decays_maps_only():
    ours, theirs = small_model(tie="none"), small_model(tie="none")
    config = OptimConfig(lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-9)
    optimizer = Optimizer(config, ours)
    maps = {name for name, _, _ in hidden_matrices(theirs)}
    groups = [
        {"params": [p for n, p in theirs.named_parameters() if n in maps], "weight_decay": 0.1},
        {"params": [p for n, p in theirs.named_parameters() if n not in maps], "weight_decay": 0.0},
    ]
    peer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.98), eps=1e-9, foreach=False)
    for seed, lr in enumerate((1e-2, 5e-3, 1e-3)):
        give_gradients(ours.parameters(), seed)
        give_gradients(theirs.parameters(), seed)
        optimizer.step(lr)
        for group in peer.param_groups:
            group["lr"] = lr
        peer.step()
    for name, tensor in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], tensor, rtol=1e-5, atol=1e-6)


def test_the_embedding_share_scales_what_muon_leaves_to_adamw():
    moved = {}
    for share in (1.0, 0.5):
        model = small_model()
        before = weights(model)
        optimizer = Optimizer(OptimConfig(kind="muon", lr=1e-2, embedding_lr_share=share), model)
        give_gradients(model.parameters(), 0)
        optimizer.step(1e-2)
        moved[share] = {name: tensor - before[name] for name, tensor in weights(model).items()}
    maps = {name for name, _, _ in hidden_matrices(model)}
    for name, whole in moved[1.0].items():
        factor = 1.0 if name in maps else 0.5
        torch.testing.assert_close(moved[0.5][name], whole * factor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_optimizer_goes_on_from_its_stored_tensors_bit_for_bit(kind):
    config = OptimConfig(kind=kind, lr=1e-2, weight_decay=0.1)
    model, other = small_model(), small_model(seed=3)
    one, two = Optimizer(config, model), Optimizer(config, other)
    for seed in range(2):
        give_gradients(model.parameters(), seed)
        one.step(1e-2)
    stored = {name: tensor.clone() for name, tensor in one.state_tensors().items()}
    assert all("|" in name for name in stored)
    with torch.no_grad():
        for p, q in zip(other.parameters(), model.parameters(), strict=True):
            p.copy_(q)
    two.load_state_tensors(stored)
    assert same(two.state_tensors(), stored)
    for seed in range(2, 4):
        for m, optimizer in ((model, one), (other, two)):
            give_gradients(m.parameters(), seed)
            optimizer.step(5e-3)
    assert same(weights(model), weights(other))
    assert same(one.state_tensors(), two.state_tensors())
