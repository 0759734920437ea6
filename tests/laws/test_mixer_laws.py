"""The six laws of the mixer contract (tripel/nn/mixer.py) for every row of MIXERS: a new mixer is tested by its row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tripel.inspection.taps import Recorder
from tripel.nn import MIXERS, build_mixer
from tripel.nn.attention import EXPLICIT_KEYS, WHOLE_QUERIES

D = 8
# Attention takes another kernel from WHOLE_QUERIES queries on, and yet another beyond EXPLICIT_KEYS keys.
SHORT, MIDDLE, LONG = 6, WHOLE_QUERIES + 9, EXPLICIT_KEYS + 9
EXAMPLES = {(kind, name): example for kind, row in MIXERS.items() for name, example in row.examples.items()}
ROWS = [
    pytest.param((kind, name), causal, id=f"{kind}-{name}-{'causal' if causal else 'bidirectional'}")
    for kind, name in EXAMPLES
    for causal in (True, False)
    if causal or not MIXERS[kind].causal_only
]
ALL = pytest.mark.parametrize(("kind", "causal"), ROWS)
STEPPING = pytest.mark.parametrize("kind", [pytest.param(key, id="-".join(key)) for key in EXAMPLES])
LENGTHS = pytest.mark.parametrize("length", [SHORT, MIDDLE, LONG])
EXACT = {"rtol": 1e-9, "atol": 1e-10}
QUICK = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def memory_that_was_never_written_is_not_a_number():
    """A state must not depend on what its buffers happened to hold."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make(kind, causal=True, seed=0):
    torch.manual_seed(seed)
    return build_mixer(EXAMPLES[kind].config, D, causal=causal).double().eval()


def inputs(batch, length, seed=1):
    return torch.randn(batch, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cut(x_BTD, lengths):
    return x_BTD.split(list(lengths), dim=1)


def read(mixer, state, x_BTD, lengths):
    return torch.cat([mixer(part, state=state) for part in cut(x_BTD, lengths)], dim=1)


def read_rows(mixer, rows, max_len=40):
    """A state that has read these inputs, all of one length, (rows, length, D)."""
    state = mixer.init_state(len(rows), max_len)
    mixer(rows, state=state)
    return state


def within_reach(kind, causal, t, length):
    """The inputs that position t is made from, [length]."""
    positions = torch.arange(length)
    distance, config = t - positions, EXAMPLES[kind].config
    reach = EXAMPLES[kind].reach or length
    if config.kind == "conv":
        after = 0 if causal else (config.kernel - 1 - config.kernel // 2) * config.dilation
        before = (config.kernel - 1) * config.dilation - after
        return (distance % config.dilation == 0) & (distance >= -after) & (distance <= before)
    near = distance.abs() < reach
    return near & (distance >= 0) if causal else near


# Law 1


@LENGTHS
@ALL
def test_an_output_depends_on_every_past_input_and_on_no_future_one(kind, causal, length):
    mixer = make(kind, causal)
    x_BTD = inputs(2, length).requires_grad_()
    y_BTD = mixer(x_BTD)
    looks_at = range(length) if length < LONG else (0, 1, length // 2, length - 1)
    for t in looks_at:
        (grad_BTD,) = torch.autograd.grad(y_BTD[:, t].square().sum(), x_BTD, retain_graph=True)
        seen_T = grad_BTD.abs().amax(dim=(0, 2)) > 0
        allowed_T = within_reach(kind, causal, t, length)
        if EXAMPLES[kind].fades:
            assert seen_T[t] and not (seen_T & ~allowed_T).any()
        else:
            assert torch.equal(seen_T, allowed_T)


@ALL
def test_rows_of_a_batch_do_not_see_each_other(kind, causal):
    mixer = make(kind, causal)
    x_BTD = inputs(3, SHORT).requires_grad_()
    (grad_BTD,) = torch.autograd.grad(mixer(x_BTD)[1].square().sum(), x_BTD)
    assert (grad_BTD[1] != 0).any()
    assert (grad_BTD[[0, 2]] == 0).all()


# Law 2


@LENGTHS
@ALL
def test_padding_on_the_right_changes_no_valid_output(kind, causal, length):
    mixer = make(kind, causal)
    x_BTD = inputs(3, length)
    lengths = torch.tensor([length, length - 3, 1])
    valid_BT = torch.arange(length) < lengths[:, None]
    padded_BTD = mixer(x_BTD.masked_fill(~valid_BT[..., None], 7.0), valid_BT=valid_BT)
    for row, n in enumerate(lengths.tolist()):
        alone_BTD = mixer(x_BTD[row : row + 1, :n])
        torch.testing.assert_close(padded_BTD[row : row + 1, :n], alone_BTD, **EXACT)
    assert padded_BTD.isfinite().all()


@ALL
def test_a_mask_that_allows_everything_changes_nothing(kind, causal):
    mixer, x_BTD = make(kind, causal), inputs(2, SHORT)
    masked_BTD = mixer(x_BTD, valid_BT=torch.ones(2, SHORT, dtype=torch.bool))
    torch.testing.assert_close(masked_BTD, mixer(x_BTD), **EXACT)


@ALL
def test_no_gradient_reaches_a_padded_input_from_a_valid_output(kind, causal):
    mixer = make(kind, causal)
    x_BTD = inputs(2, SHORT).requires_grad_()
    valid_BT = torch.arange(SHORT) < torch.tensor([[SHORT], [2]])
    y_BTD = mixer(x_BTD, valid_BT=valid_BT)
    (grad_BTD,) = torch.autograd.grad(y_BTD[valid_BT].square().sum(), x_BTD)
    assert (grad_BTD[~valid_BT] == 0).all()
    assert (grad_BTD[valid_BT] != 0).any(-1).all()


# Law 3


@LENGTHS
@STEPPING
def test_reading_in_two_parts_equals_one_call_at_every_split_point(kind, length):
    mixer, x_BTD = make(kind), inputs(2, length)
    with torch.no_grad():
        whole_BTD = mixer(x_BTD)
        for first in range(1, length):
            parts_BTD = read(mixer, mixer.init_state(2, length), x_BTD, [first, length - first])
            torch.testing.assert_close(parts_BTD, whole_BTD, **EXACT)


@STEPPING
def test_reading_one_by_one_equals_one_call(kind):
    mixer, x_BTD = make(kind), inputs(2, LONG)
    with torch.no_grad():
        parts_BTD = read(mixer, mixer.init_state(2, LONG), x_BTD, [1] * LONG)
        torch.testing.assert_close(parts_BTD, mixer(x_BTD), **EXACT)


@STEPPING
@QUICK
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), batch=st.integers(1, 3), room=st.integers(0, 9))
def test_reading_in_any_parts_equals_one_call(kind, lengths, batch, room):
    mixer, x_BTD = make(kind), inputs(batch, sum(lengths))
    with torch.no_grad():
        state = mixer.init_state(batch, sum(lengths) + room)
        torch.testing.assert_close(read(mixer, state, x_BTD, lengths), mixer(x_BTD), **EXACT)


# Law 4


@st.composite
def histories(draw):
    """What is done to a state, in order: ("read", n positions) or ("select", rows)."""
    batch = draw(st.integers(1, 4))
    rows, actions = batch, []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            actions.append(("read", draw(st.integers(1, 3))))
        else:
            chosen = draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=6))
            actions.append(("select", chosen))
            rows = len(chosen)
    return batch, actions


def follow(mixer, state, past_BTD, actions, seed=5):
    """Apply actions to a state; each output is compared with a call over the whole past of each row."""
    past = list(past_BTD)
    for number, (action, value) in enumerate(actions):
        if action == "select":
            state.select(torch.tensor(value, dtype=torch.int64))
            past = [past[row] for row in value]
        else:
            new_BTD = inputs(len(past), value, seed + number)
            y_BTD = mixer(new_BTD, state=state)
            past = [torch.cat([old, new]) for old, new in zip(past, new_BTD, strict=True)]
            for y_TD, whole_TD in zip(y_BTD, past, strict=True):
                torch.testing.assert_close(y_TD, mixer(whole_TD[None])[0, -value:], **EXACT)


@pytest.mark.parametrize("rows", [[2, 0, 1], [1], [0, 0, 1, 1, 2, 2], [2, 2, 2], [0, 1, 2]], ids=str)
@STEPPING
def test_selected_rows_step_as_they_would_have(kind, rows):
    mixer, past_BTD = make(kind), inputs(3, 4)
    with torch.no_grad():
        follow(mixer, read_rows(mixer, past_BTD), past_BTD, [("select", rows), ("read", 2), ("read", 1)])


@STEPPING
@QUICK
@given(history=histories())
def test_any_history_of_reading_and_selecting_equals_one_call_per_row(kind, history):
    batch, actions = history
    mixer = make(kind)
    with torch.no_grad():
        past_BTD = inputs(batch, 2)
        follow(mixer, read_rows(mixer, past_BTD), past_BTD, [*actions, ("read", 1)])


# Law 5


@STEPPING
@QUICK
@given(
    parts=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 6)), min_size=1, max_size=4),
    actions=histories().map(lambda history: history[1]),
)
def test_rows_joined_after_different_lengths_step_as_they_would_alone(kind, parts, actions):
    mixer = make(kind)
    rows = [inputs(n, length, seed) for seed, (n, length) in enumerate(parts)]
    past = [row for part in rows for row in part]
    n_rows = len(past)
    for number, (what, value) in enumerate(actions):  # the history was drawn for another number of rows
        if what == "select":
            actions[number] = (what, [row % n_rows for row in value])
            n_rows = len(value)
    with torch.no_grad():
        states = [read_rows(mixer, part) for part in rows]
        joined = type(states[0]).join(states)
        follow(mixer, joined, past, [*actions, ("read", 1)])


@STEPPING
def test_a_row_can_join_rows_that_were_joined_and_have_stepped(kind):
    """A server adds a request to a running batch, again and again, and finished rows leave it."""
    mixer = make(kind)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        past, state = [inputs(1, 4)[0]], read_rows(mixer, inputs(1, 4))
        for newcomer in (7, 1, 12, 3):
            new_TD = inputs(1, newcomer, seed=newcomer)[0]
            state = type(state).join([state, read_rows(mixer, new_TD[None])])
            past.append(new_TD)
            for length in (1, 2, 1):
                x_BTD = torch.randn(len(past), length, D, dtype=torch.float64, generator=generator)
                y_BTD = mixer(x_BTD, state=state)
                past = [torch.cat([old, new]) for old, new in zip(past, x_BTD, strict=True)]
                for y_TD, whole_TD in zip(y_BTD, past, strict=True):
                    torch.testing.assert_close(y_TD, mixer(whole_TD[None])[0, -length:], **EXACT)
            if len(past) == 4:
                state.select(torch.tensor([3, 1]))
                past = [past[3], past[1]]


@STEPPING
def test_a_joined_state_has_room_for_its_longest_part_and_keeps_its_parts_unchanged(kind):
    mixer = make(kind)
    with torch.no_grad():
        short, long = inputs(1, 2), inputs(1, 5, seed=2)
        states = [mixer.init_state(1, 4), mixer.init_state(1, 9)]
        for state, x_BTD in zip(states, (short, long), strict=True):
            mixer(x_BTD, state=state)
        joined = type(states[0]).join(states)
        new_BTD = inputs(2, 4, seed=3)
        mixer(new_BTD, state=joined)
        alone_BTD = mixer(new_BTD[:1, :2], state=states[0])  # the part itself has not moved
        torch.testing.assert_close(alone_BTD, mixer(torch.cat([short, new_BTD[:1, :2]], 1))[:, -2:], **EXACT)


# Law 6


@LENGTHS
@ALL
def test_listening_changes_no_bit_of_the_output(kind, causal, length):
    mixer, x_BTD = make(kind, causal).float(), inputs(2, length).float()
    valid_BT = torch.arange(length) < torch.tensor([[length], [length - 2]])
    for valid in (None, valid_BT):
        assert torch.equal(mixer(x_BTD, valid_BT=valid, taps=Recorder()), mixer(x_BTD, valid_BT=valid))


@STEPPING
def test_listening_changes_no_bit_of_a_step(kind):
    mixer, x_BTD = make(kind).float(), inputs(2, SHORT).float()
    with torch.no_grad():
        silent, heard = mixer.init_state(2, SHORT), mixer.init_state(2, SHORT)
        for part in cut(x_BTD, [3, 1, 2]):
            assert torch.equal(mixer(part, state=heard, taps=Recorder()), mixer(part, state=silent))


@ALL
def test_listening_leaves_the_random_numbers_alone(kind, causal):
    mixer, x_BTD = make(kind, causal).float().train(), inputs(2, SHORT).float()
    outputs = []
    for taps in (None, Recorder()):
        torch.manual_seed(3)
        outputs.append(mixer(x_BTD, taps=taps))
        outputs.append(torch.rand(1))
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
