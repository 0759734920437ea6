"""What every encoder-decoder must do, for each such row of the table of cells."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tripel import checkpoint
from tripel.cells import CELLS
from tripel.data.batch import IGNORE, Batch
from tripel.inspection.taps import Recorder
from tripel.models.build import build, count_parameters
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.nn import MIXERS
from tripel.nn.embed import Positions
from tripel.training.loss import batch_loss_sum

PAD, EOS, START, V, MAX_LEN = 0, 1, 2, 30, 24
VOCABULARY = Vocabulary(source_size=V, target_size=V, pad_id=PAD, eos_id=EOS, start_id=START)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def encoder_decoder(mixer, wiring, **settings):
    stack = StackConfig(n_layers=2, mixer=MIXERS[mixer].examples["plain"].config)
    shape = {"d_model": 16, "d_ff": 32, "max_len": MAX_LEN, "dropout": 0.0}
    return EncoderDecoderConfig(encoder=stack, decoder=stack, wiring=wiring, **{**shape, **settings})


ROWS = [
    pytest.param(cell, mixer, wiring, id=f"{cell.family}-{mixer}-{wiring}")
    for cell in CELLS
    if cell.skeleton == "encoder-decoder"
    for mixer in cell.mixers
    for wiring in cell.wirings
]
EVERY_CELL = pytest.mark.parametrize(("cell", "mixer", "wiring"), ROWS)
TIES = pytest.mark.parametrize("tie", ["all", "target", "none"])


def make(cell, mixer, wiring, seed=0, **settings):
    torch.manual_seed(seed)
    return build(encoder_decoder(mixer, wiring, **settings), VOCABULARY)


def ids(*shape, seed=1):
    return torch.randint(3, V, shape, generator=torch.Generator().manual_seed(seed))


def sources(lengths, seed=1):
    """Padded sources of these lengths, and which of their ids are real."""
    source_BS = ids(len(lengths), max(lengths), seed=seed)
    valid_BS = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return source_BS.masked_fill(~valid_BS, PAD), valid_BS


def batch_of(n=8, length=7):
    """Sentences and themselves backwards, of different lengths."""
    lengths = [1 + i % length for i in range(n)]
    source_BS, valid_BS = sources(lengths)
    targets_BT = torch.full((n, length + 1), IGNORE)
    target_BT = torch.full((n, length + 1), PAD)
    target_BT[:, 0] = START
    for row, end in enumerate(lengths):
        targets_BT[row, :end] = target_BT[row, 1 : end + 1] = source_BS[row, :end].flip(0)
        targets_BT[row, end] = EOS
    inputs = {"source_BS": source_BS, "target_BT": target_BT, "source_valid_BS": valid_BS}
    count = sum(lengths) + n
    return Batch(inputs, targets_BT, count, count + sum(lengths))


@EVERY_CELL
def test_a_model_overfits_one_batch(cell, mixer, wiring):
    model, batch = make(cell, mixer, wiring, d_model=32, d_ff=64), batch_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.98), weight_decay=0.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss = batch_loss_sum(model, batch, label_smoothing=0.0) / batch.count
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05


@TIES
@EVERY_CELL
def test_every_parameter_gets_a_gradient(cell, mixer, wiring, tie):
    model, batch = make(cell, mixer, wiring, tie=tie, head_bias=True, positions="learned"), batch_of()
    batch_loss_sum(model, batch, label_smoothing=0.1).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and (p.grad != 0).any(), name


@EVERY_CELL
def test_a_step_gives_the_logits_of_the_full_forward_pass_at_every_position(cell, mixer, wiring):
    model = make(cell, mixer, wiring).double().eval()
    source_BS, valid_BS = sources([5, 2, 4])
    target_BT = ids(3, 9, seed=2)
    with torch.no_grad():
        whole_BTV = model(source_BS, target_BT, valid_BS)
        for prompt in range(1, 9):
            state = model.start(source_BS, valid_BS, max_len=9)
            torch.testing.assert_close(model.step(target_BT[:, :prompt], state), whole_BTV[:, prompt - 1], **EXACT)
            for t in range(prompt, 9):
                torch.testing.assert_close(model.step(target_BT[:, t : t + 1], state), whole_BTV[:, t], **EXACT)


@EVERY_CELL
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_rows_selected_and_joined_step_like_full_forward_passes_of_each(cell, mixer, wiring, data):
    """Beams branch, sentences finish, requests join a running batch: every row keeps its own source and past."""
    model = make(cell, mixer, wiring).double().eval()

    def begin(seed):
        lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
        source_BS, valid_BS = sources(lengths, seed)
        state = model.start(source_BS, valid_BS, max_len=MAX_LEN)
        past = [(source_BS[row, :n], ids(0)) for row, n in enumerate(lengths)]
        return step(state, past, data.draw(st.integers(1, 4)), seed)

    def step(state, past, length, seed):
        new_NT = ids(len(past), length, seed=seed)
        logits_NV = model.step(new_NT, state)
        past = [(source, torch.cat([read, new])) for (source, read), new in zip(past, new_NT, strict=True)]
        for logits_V, (source, read) in zip(logits_NV, past, strict=True):
            torch.testing.assert_close(logits_V, model(source[None], read[None])[0, -1], **EXACT)
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


@EVERY_CELL
def test_the_logits_of_a_sentence_do_not_depend_on_its_batch(cell, mixer, wiring):
    model = make(cell, mixer, wiring).double().eval()
    lengths = [3, 7, 1]
    source_BS, valid_BS = sources(lengths)
    target_BT = ids(3, 6, seed=2)
    with torch.no_grad():
        together_BTV = model(source_BS, target_BT, valid_BS)
        for row, n in enumerate(lengths):
            alone_BTV = model(source_BS[row : row + 1, :n], target_BT[row : row + 1])
            torch.testing.assert_close(together_BTV[row : row + 1], alone_BTV, **EXACT)


@TIES
@EVERY_CELL
def test_a_saved_and_loaded_model_gives_equal_logits(cell, mixer, wiring, tie, tmp_path):
    model = make(cell, mixer, wiring, tie=tie, head_bias=True).eval()
    checkpoint.save_run(tmp_path / "run", model, None, recipe_yaml=None, card="# A model\n")
    loaded = checkpoint.load_model(tmp_path / "run")
    source_BS, valid_BS = sources([5, 2])
    with torch.no_grad():
        one, other = (m(source_BS, ids(2, 6, seed=2), valid_BS) for m in (model, loaded))
    assert torch.equal(one, other)
    assert (loaded.config, loaded.vocabulary) == (model.config, model.vocabulary)
    assert {name: p.shape for name, p in loaded.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
@EVERY_CELL
def test_a_model_made_on_the_meta_device_becomes_real(cell, mixer, wiring, positions):
    real = make(cell, mixer, wiring, positions=positions).eval()
    with torch.device("meta"):
        model = make(cell, mixer, wiring, positions=positions).eval()
    assert all(p.is_meta for p in model.parameters())
    assert count_parameters(model) == count_parameters(real)
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, Positions):
            module.reset_constants()
    model.load_state_dict(real.state_dict())
    source_BS, valid_BS = sources([5, 2])
    with torch.no_grad():
        assert torch.equal(*(m(source_BS, ids(2, 6, seed=2), valid_BS) for m in (real, model)))


@EVERY_CELL
def test_the_same_seed_builds_the_same_model(cell, mixer, wiring):
    one, other, third = (make(cell, mixer, wiring, seed=seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


@EVERY_CELL
def test_listening_changes_no_bit_and_names_every_part(cell, mixer, wiring):
    model, recorder = make(cell, mixer, wiring).eval(), Recorder()
    source_BS, valid_BS = sources([5, 2])
    target_BT = ids(2, 6, seed=2)
    with torch.no_grad():
        logits_BTV = model(source_BS, target_BT, valid_BS, taps=recorder)
        assert torch.equal(logits_BTV, model(source_BS, target_BT, valid_BS))
    assert torch.equal(recorder["logits"], logits_BTV)
    expected = {"logits", "encoder.embed", "decoder.embed"}
    for stack in ("encoder", "decoder"):
        expected |= {f"{stack}.{i}.{name}" for i in range(2) for name in ("resid_pre", "resid_mid", "resid_post")}
    expected |= {f"decoder.{i}.cross.{name}" for i in range(2) for name in ("scores", "weights")}
    own = {name for name in recorder if ".self." in name}
    mixers = {f"{stack}.{i}.self" for stack in ("encoder", "decoder") for i in range(2)}
    assert {name.partition(".self")[0] + ".self" for name in own} == mixers
    assert set(recorder) - own == expected
    assert recorder["decoder.1.cross.weights"].shape[0] == 2 and recorder["decoder.1.cross.weights"].shape[2:] == (6, 5)
    assert torch.equal(recorder["decoder.0.resid_post"], recorder["decoder.1.resid_pre"])
