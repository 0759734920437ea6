"""What every language model must do, for each such row of the table of cells and each option of its mixers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tripel import checkpoint
from tripel.cells import CELLS
from tripel.data.batch import Batch
from tripel.inspection.taps import Recorder
from tripel.models.build import build, count_parameters
from tripel.models.config import DecoderConfig, Vocabulary
from tripel.nn import MIXERS
from tripel.nn.embed import Positions
from tripel.training.loss import batch_loss_sum

V, MAX_LEN = 30, 24
VOCABULARY = Vocabulary(source_size=V, target_size=V, pad_id=0, eos_id=1, start_id=1)
EXACT = {"rtol": 1e-9, "atol": 1e-9}
ROWS = [
    pytest.param(mixer, example, wiring, norm, id=f"{cell.family}-{example}-{wiring}-{norm}")
    for cell in CELLS
    if cell.skeleton == "decoder"
    for mixer in cell.mixers
    for example in MIXERS[mixer].examples
    for wiring in cell.wirings
    for norm in cell.norms
]
EVERY_CELL = pytest.mark.parametrize(("mixer", "example", "wiring", "norm"), ROWS)


def make(mixer, example, wiring, norm, seed=0, **settings):
    torch.manual_seed(seed)
    shape = {"d_model": 16, "d_ff": 24, "n_layers": 2, "max_len": MAX_LEN, "dropout": 0.0, "activation": "swiglu"}
    kind = {"mixer": MIXERS[mixer].examples[example].config, "wiring": wiring, "norm": norm}
    return build(DecoderConfig(**{**shape, **kind, **settings}), VOCABULARY)


def ids(*shape, seed=1):
    return torch.randint(2, V, shape, generator=torch.Generator().manual_seed(seed))


def batch_of(n=4, length=8):
    """Rows that count up from different ids: each next id can be known from the one before it."""
    whole_BT = 2 + (torch.arange(n)[:, None] * 5 + torch.arange(length + 1)) % (V - 2)
    return Batch({"ids_BT": whole_BT[:, :-1]}, whole_BT[:, 1:], n * length, n * length)


@EVERY_CELL
def test_a_model_overfits_one_batch(mixer, example, wiring, norm):
    model = make(mixer, example, wiring, norm, d_model=32, d_ff=0 if wiring == "none" else 48).eval()
    batch = batch_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0)
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
def test_every_parameter_gets_a_gradient(mixer, example, wiring, norm, tie):
    model = make(mixer, example, wiring, norm, tie=tie, head_bias=True)
    batch_loss_sum(model, batch_of(), label_smoothing=0.1).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and (p.grad != 0).any(), name


@EVERY_CELL
def test_a_step_gives_the_logits_of_the_full_forward_pass_at_every_position(mixer, example, wiring, norm):
    model, ids_BT = make(mixer, example, wiring, norm).double().eval(), ids(3, 9)
    with torch.no_grad():
        whole_BTV = model(ids_BT)
        for prompt in range(1, 9):
            state = model.init_state(3, 9)
            torch.testing.assert_close(model.step(ids_BT[:, :prompt], state), whole_BTV[:, prompt - 1], **EXACT)
            for t in range(prompt, 9):
                torch.testing.assert_close(model.step(ids_BT[:, t : t + 1], state), whole_BTV[:, t], **EXACT)


@EVERY_CELL
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_rows_selected_and_joined_step_like_full_forward_passes_of_each(mixer, example, wiring, norm, data):
    """Samples branch, texts end, requests join a running batch: every row keeps its own past."""
    model = make(mixer, example, wiring, norm).double().eval()

    def begin(seed):
        n_rows = data.draw(st.integers(1, 3))
        return step(model.init_state(n_rows, MAX_LEN), [ids(0)] * n_rows, data.draw(st.integers(1, 4)), seed)

    def step(state, past, length, seed):
        new_NT = ids(len(past), length, seed=seed)
        logits_NV = model.step(new_NT, state)
        past = [torch.cat([read, new]) for read, new in zip(past, new_NT, strict=True)]
        for logits_V, read in zip(logits_NV, past, strict=True):
            torch.testing.assert_close(logits_V, model(read[None])[0, -1], **EXACT)
        return state, past

    with torch.no_grad():
        state, past = begin(1)
        for number in range(data.draw(st.integers(1, 3))):
            if data.draw(st.booleans()):
                other, other_past = begin(number + 2)
                state, past = type(state).join([state, other]), past + other_past
            rows = data.draw(st.lists(st.integers(0, len(past) - 1), min_size=1, max_size=6))
            state.select(torch.tensor(rows))
            past = [past[row] for row in rows]
            state, past = step(state, past, data.draw(st.integers(1, 2)), number + 20)


@pytest.mark.parametrize("tie", [True, False])
@EVERY_CELL
def test_a_saved_and_loaded_model_gives_equal_logits(mixer, example, wiring, norm, tie, tmp_path):
    model = make(mixer, example, wiring, norm, tie=tie).eval()
    checkpoint.save_run(tmp_path / "run", model, None, recipe_yaml=None, card="# A model\n")
    loaded = checkpoint.load_model(tmp_path / "run")
    with torch.no_grad():
        assert torch.equal(model(ids(2, 6)), loaded(ids(2, 6)))
    assert (loaded.config, loaded.vocabulary) == (model.config, model.vocabulary)
    assert {name: p.shape for name, p in loaded.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
@EVERY_CELL
def test_a_model_made_on_the_meta_device_becomes_real(mixer, example, wiring, norm, positions):
    real = make(mixer, example, wiring, norm, positions=positions).eval()
    with torch.device("meta"):
        model = make(mixer, example, wiring, norm, positions=positions).eval()
    assert all(p.is_meta for p in model.parameters())
    assert count_parameters(model) == count_parameters(real)
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, Positions):
            module.reset_constants()
    model.load_state_dict(real.state_dict())
    with torch.no_grad():
        assert torch.equal(real(ids(2, 6)), model(ids(2, 6)))


@EVERY_CELL
def test_the_same_seed_builds_the_same_model(mixer, example, wiring, norm):
    one, other, third = (make(mixer, example, wiring, norm, seed=seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


@EVERY_CELL
def test_listening_changes_no_bit_and_names_every_part(mixer, example, wiring, norm):
    model, recorder = make(mixer, example, wiring, norm).eval(), Recorder()
    with torch.no_grad():
        logits_BTV = model(ids(2, 6), taps=recorder)
        assert torch.equal(logits_BTV, model(ids(2, 6)))
    assert torch.equal(recorder["logits"], logits_BTV)
    expected = {"logits", "decoder.embed"}
    expected |= {f"decoder.{i}.{name}" for i in range(2) for name in ("resid_pre", "resid_mid", "resid_post")}
    own = {name for name in recorder if ".self." in name}
    assert {name.partition(".self.")[0] for name in own} == {"decoder.0", "decoder.1"}
    assert set(recorder) - own == expected


@EVERY_CELL
def test_only_models_whose_states_never_grow_read_texts_of_any_length(mixer, example, wiring, norm):
    grows = mixer == "attention"
    assert make(mixer, example, wiring, norm, positions="none").unbounded == (not grows)
    assert not make(mixer, example, wiring, norm, positions="learned").unbounded


@pytest.mark.parametrize("mixer", ["rnn", "lstm", "conv"])
def test_a_state_that_never_grows_can_be_stored_and_taken_up(mixer):
    model = make(mixer, "plain", "pre", "layer", positions="none").eval()
    with torch.no_grad():
        state, other = model.init_state(2, 0), model.init_state(2, 0)
        model.step(ids(2, 5), state)
        other.load_tensors({name: x.clone() for name, x in state.tensors().items()})
        assert torch.equal(model.step(ids(2, 3, seed=2), state), model.step(ids(2, 3, seed=2), other))


def test_gradients_end_where_a_state_begins():
    model = make("lstm", "plain", "pre", "layer", positions="none")
    state = model.init_state(1, 0)
    model.features(ids(1, 4), state)
    assert not any(x.requires_grad for x in state.tensors().values())


def test_variational_dropout_drops_the_same_coordinates_at_every_position():
    model = make("lstm", "plain", "none", "layer", dropout=0.5, variational_dropout=True, d_ff=0).train()
    recorder = Recorder()
    model(ids(2, 6), taps=recorder)
    dropped_BTD = recorder["decoder.embed"] == 0
    assert dropped_BTD.any() and (dropped_BTD == dropped_BTD[:, :1]).all()
    assert not torch.equal(dropped_BTD[0], dropped_BTD[1])
