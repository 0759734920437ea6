"""What every encoder must do, for each such row of the table of cells and each option of its mixers."""

import pytest
import torch

from tripel import checkpoint
from tripel.cells import CELLS, SECTIONS
from tripel.data.batch import IGNORE, Batch
from tripel.inspection.taps import Recorder
from tripel.models.build import build
from tripel.models.config import EncoderConfig, Vocabulary
from tripel.nn import MIXERS
from tripel.training.loss import batch_loss_sum

V, MAX_LEN = 30, 24
LABELS = ("bird", "fish", "worm")
VOCABULARY = Vocabulary(source_size=V, target_size=V, pad_id=0, eos_id=3, start_id=2, mask_id=4, labels=LABELS)
ROWS = [
    pytest.param(SECTIONS[cell.task].head, mixer, example, wiring, norm, id=f"{cell.family}-{example}-{wiring}-{norm}")
    for cell in CELLS
    if cell.skeleton == "encoder" and cell.input == "tokens"
    for mixer in cell.mixers
    for example in MIXERS[mixer].examples
    for wiring in cell.wirings
    for norm in cell.norms
]
EVERY_CELL = pytest.mark.parametrize(("head", "mixer", "example", "wiring", "norm"), ROWS)


def make(head, mixer, example, wiring, norm, seed=0, **settings):
    torch.manual_seed(seed)
    shape = {"d_model": 16, "d_ff": 24, "n_layers": 2, "max_len": MAX_LEN, "dropout": 0.0, "norm_eps": 1e-5}
    kind = {"mixer": MIXERS[mixer].examples[example].config, "wiring": wiring, "norm": norm, "head": head}
    return build(EncoderConfig(**{**shape, **kind, **settings}), VOCABULARY)


def ids(*shape, seed=1):
    return torch.randint(5, V, shape, generator=torch.Generator().manual_seed(seed))


def batch_of(head, n=6, length=8):
    """Texts that count up, a hidden token each, which its neighbours tell; or their class, which the first tokens tell."""
    ids_BT = 5 + (torch.arange(n)[:, None] * 4 + torch.arange(length)) % (V - 5)
    if head == "classes":
        return Batch({"ids_BT": ids_BT, "valid_BT": None}, torch.arange(n) % len(LABELS), n, n * length)
    targets_BT = torch.full((n, length), IGNORE)
    at = torch.arange(n) % length
    targets_BT[torch.arange(n), at] = ids_BT[torch.arange(n), at]
    hidden_BT = ids_BT.clone()
    hidden_BT[torch.arange(n), at] = VOCABULARY.mask_id
    return Batch({"ids_BT": hidden_BT, "valid_BT": None}, targets_BT, n, n * length)


@EVERY_CELL
def test_a_model_overfits_one_batch(head, mixer, example, wiring, norm):
    size = {"d_model": 32, "d_ff": 0 if wiring == "none" else 48}
    model = make(head, mixer, example, wiring, norm, initialisation="glorot", **size).eval()
    batch = batch_of(head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(400):
        optimizer.zero_grad()
        loss = batch_loss_sum(model, batch, label_smoothing=0.0) / batch.count
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05


@pytest.mark.parametrize("tie", [True, False])
@EVERY_CELL
def test_every_parameter_gets_a_gradient(head, mixer, example, wiring, norm, tie):
    if head == "classes" and not tie:
        pytest.skip("a class head has no matrix to tie")
    model = make(head, mixer, example, wiring, norm, tie=tie, pool="cls" if mixer == "attention" else "mean")
    batch = batch_of(head)
    types_BT = torch.arange(8).expand(6, 8) % 2
    batch_loss_sum(
        model, Batch({**batch.inputs, "types_BT": types_BT}, batch.targets_BT, 6, 48), label_smoothing=0.1
    ).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and (p.grad != 0).any(), name


@pytest.mark.parametrize("pool", ["cls", "mean", "max"])
@EVERY_CELL
def test_an_answer_does_not_depend_on_padding(head, mixer, example, wiring, norm, pool):
    model, ids_BT = make(head, mixer, example, wiring, norm, pool=pool).double().eval(), ids(2, 9)
    padded_BT, valid_BT = torch.zeros(2, 12, dtype=torch.int64), torch.zeros(2, 12, dtype=torch.bool)
    padded_BT[:, :9], valid_BT[:, :9] = ids_BT, True
    with torch.no_grad():
        alone, padded = model(ids_BT), model(padded_BT, valid_BT)
    torch.testing.assert_close(padded if head == "classes" else padded[:, :9], alone, rtol=1e-9, atol=1e-9)


@EVERY_CELL
def test_every_position_sees_both_sides(head, mixer, example, wiring, norm):
    model = make(head, mixer, example, wiring, norm).eval()
    x_BTD = model.embedding(ids(1, 9), model.tokens).detach().requires_grad_()
    model.encoder(x_BTD)[0, 4].pow(2).sum().backward()
    sees_T = x_BTD.grad[0].abs().sum(-1) > 0
    alone = MIXERS[mixer].examples[example].reach == 1
    assert bool(sees_T[4]) and bool(sees_T[:4].any()) == bool(sees_T[5:].any()) == (not alone)


@EVERY_CELL
def test_taps_leave_the_answer_as_it_is(head, mixer, example, wiring, norm):
    model, recorder = make(head, mixer, example, wiring, norm).eval(), Recorder()
    with torch.no_grad():
        assert torch.equal(model(ids(2, 9), taps=recorder), model(ids(2, 9)))
    assert {"encoder.embed", "encoder.0.resid_pre", "encoder.1.resid_post", "logits"} <= set(recorder)


@EVERY_CELL
def test_a_saved_model_gives_the_same_answers(head, mixer, example, wiring, norm, tmp_path):
    model = make(head, mixer, example, wiring, norm).eval()
    checkpoint.save_run(tmp_path / "run", model, None, recipe_yaml=None, card="# a model\n")
    loaded = checkpoint.load_model(tmp_path / "run")
    assert (loaded.config, loaded.vocabulary) == (model.config, model.vocabulary)
    with torch.no_grad():
        assert torch.equal(loaded(ids(2, 9)), model(ids(2, 9)))


def test_only_the_hidden_tokens_are_given_to_the_head():
    model, batch = make("masked-token", "attention", "plain", "post", "layer"), batch_of("masked-token")
    seen = []
    model.head.transform.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    batch_loss_sum(model, batch, label_smoothing=0.0)
    assert seen == [batch.count]


def test_token_types_are_added_and_none_stands_for_the_first():
    model, x = make("masked-token", "attention", "plain", "post", "layer").eval(), ids(2, 9)
    with torch.no_grad():
        assert torch.equal(model(x), model(x, types_BT=torch.zeros_like(x)))
        assert not torch.allclose(model(x), model(x, types_BT=torch.ones_like(x)))


def test_pools_are_what_they_are_called():
    h_BTD = torch.randn(2, 4, 16)
    valid_BT = torch.tensor([[True] * 4, [True, True, False, False]])
    for pool, expected in (
        ("cls", h_BTD[:, 0]),
        ("mean", torch.stack([h_BTD[0].mean(0), h_BTD[1, :2].mean(0)])),
        ("max", torch.stack([h_BTD[0].amax(0), h_BTD[1, :2].amax(0)])),
    ):
        model = make("classes", "attention", "plain", "post", "layer", pool=pool, pooler=False)
        torch.testing.assert_close(model.pooled(h_BTD, valid_BT), expected)
