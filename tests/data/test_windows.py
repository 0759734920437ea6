from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tripel.data import windows
from tripel.data.windows import WindowLoader, plan_windows, valid_batches
from tripel.errors import DataError


def make_loader(n_tokens=5000, **options):
    """A loader on the stream 0, 1, 2 ...: an id says where it stands."""
    defaults = {"context": 16, "tokens_per_step": 130, "micro_tokens": 50, "seed": 3}
    return WindowLoader(np.arange(n_tokens, dtype=np.uint16), **defaults | options)


def take(loader, n):
    steps = iter(loader)
    try:
        return list(islice(steps, n))
    finally:
        steps.close()


def starts(step):
    return [start for batch in step for start in batch.rows]


def described(steps):
    return [[(batch.rows, batch.inputs["ids_BT"].tolist(), batch.carried) for batch in step] for step in steps]


@pytest.mark.parametrize("carry_state", [False, True])
def test_targets_are_the_inputs_one_token_later(carry_state):
    for step in take(make_loader(carry_state=carry_state), 40):
        for batch in step:
            ids_BT = batch.inputs["ids_BT"]
            assert ids_BT.dtype == batch.targets_BT.dtype == torch.int64
            assert torch.equal(batch.targets_BT, ids_BT + 1)
            assert torch.equal(ids_BT, torch.tensor(batch.rows)[:, None] + torch.arange(16))
            assert batch.count == batch.tokens == ids_BT.numel()


sizes = {
    "n_tokens": st.integers(2, 400),
    "context": st.integers(1, 60),
    "budget": st.integers(1, 300),
    "seed": st.integers(0, 5),
    "epoch": st.integers(0, 3),
    "carry_state": st.booleans(),
}


@given(**sizes)
def test_every_token_is_predicted_at_most_once_an_epoch_and_few_are_left_out(
    n_tokens, context, budget, seed, epoch, carry_state
):
    options = {"context": context, "tokens_per_step": budget, "seed": seed, "epoch": epoch, "carry_state": carry_state}
    if n_tokens < context + 1:
        with pytest.raises(DataError, match="shorter than one training window"):
            plan_windows(n_tokens, **options)
        return
    plan = plan_windows(n_tokens, **options)
    assert plan.n_steps >= 1 and 0 <= plan.offset < context
    predicted = [
        start + t for step in range(plan.n_steps) for start in plan.starts(step) for t in range(1, context + 1)
    ]
    assert len(predicted) == len(set(predicted)) == plan.tokens
    assert plan.offset + 1 <= min(predicted) and max(predicted) < n_tokens
    rows = {len(plan.starts(step)) for step in range(plan.n_steps)}
    assert rows == {plan.rows} and plan.rows <= max(1, budget // context)
    # What is left out: before the offset, a window that is not whole (in each row), and a step that is not.
    left_out = plan.offset + (plan.rows * (context + 1) if carry_state else (plan.rows + 1) * context)
    assert n_tokens - 1 - plan.tokens <= left_out


def test_a_step_has_the_windows_that_its_tokens_allow_in_micro_batches_that_theirs_do():
    (step,) = take(make_loader(), 1)
    assert sum(len(batch.rows) for batch in step) == 8  # 130 // 16
    assert all(len(batch.rows) <= 3 for batch in step)  # 50 // 16
    (step,) = take(make_loader(tokens_per_step=1, micro_tokens=1), 1)
    assert [len(batch.rows) for batch in step] == [1]


def test_an_epoch_is_shuffled_and_each_is_cut_at_another_place():
    plans = [make_loader().plan(epoch) for epoch in range(8)]
    assert len({plan.offset for plan in plans}) > 3
    first = [start for step in range(plans[0].n_steps) for start in plans[0].starts(step).tolist()]
    assert first != sorted(first) and len(set(first)) == len(first)
    assert make_loader(seed=4).plan(0).starts(0).tolist() != plans[0].starts(0).tolist()


def test_the_stream_goes_on_over_epochs():
    loader = make_loader(700)
    n_first = loader.plan(0).n_steps
    steps = take(loader, n_first + 2)
    assert loader.state_dict() == {"epoch": 1, "step_in_epoch": 2}
    assert starts(steps[n_first]) == loader.plan(1).starts(0).tolist()


@pytest.mark.parametrize("carry_state", [False, True])
@pytest.mark.parametrize("done", [0, 1, 4, 5, 6, 13])
def test_a_loader_resumed_after_any_step_goes_on_exactly(done, carry_state):
    options = {"n_tokens": 700, "carry_state": carry_state}
    whole = described(take(make_loader(**options), 20))
    first = make_loader(**options)
    take(first, done)
    second = make_loader(**options)
    second.load_state_dict(first.state_dict())
    assert described(take(second, 20 - done)) == whole[done:]


@pytest.mark.parametrize("carry_state", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 11])
def test_the_ranks_together_have_the_rows_of_one_in_the_same_steps(world_size, carry_state):
    alone = take(make_loader(carry_state=carry_state), 9)
    ranks = [take(make_loader(carry_state=carry_state, rank=r, world_size=world_size), 9) for r in range(world_size)]
    for step, *shares in zip(alone, *ranks, strict=True):
        assert starts(step) == [start for share in shares for start in starts(share)]
        sizes = [len(starts(share)) for share in shares]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rank", [0, 1])
def test_with_carried_state_every_row_goes_on_where_it_ended_in_the_same_micro_batch(rank):
    loader = make_loader(2000, carry_state=True, rank=rank, world_size=2)
    n_first = loader.plan(0).n_steps
    steps = take(loader, 2 * n_first)
    assert n_first > 5
    for number, step in enumerate(steps):
        assert {batch.carried for batch in step} == {number % n_first > 0}
    for before, after in zip(steps[: n_first - 1], steps[1:n_first], strict=True):
        for one, other in zip(before, after, strict=True):
            assert torch.equal(other.inputs["ids_BT"][:, 0], one.targets_BT[:, -1])
    shapes = {tuple(len(batch.rows) for batch in step) for step in steps}
    assert len(shapes) == 1, "also from one epoch to the next"


def test_without_carried_state_batches_say_nothing_of_it():
    assert {batch.carried for step in take(make_loader(), 3) for batch in step} == {None}


def test_a_text_that_is_too_short_is_refused_with_what_would_do():
    with pytest.raises(DataError, match="shorter than one training window") as caught:
        make_loader(16).plan(0)
    assert "16 tokens" in str(caught.value) and "at least 17" in str(caught.value)
    assert "data.context to 15" in str(caught.value)
    with pytest.raises(DataError):
        take(make_loader(16), 1)
    assert make_loader(17).plan(0).tokens == 16


@given(
    n_tokens=st.integers(0, 300),
    context=st.integers(1, 50),
    batch_tokens=st.integers(1, 200),
    carry_state=st.booleans(),
)
def test_validation_predicts_every_token_but_the_first_once(n_tokens, context, batch_tokens, carry_state):
    ids = np.arange(n_tokens)
    predicted, ends = [], None
    for batch in valid_batches(ids, context, batch_tokens, carry_state=carry_state):
        assert torch.equal(batch.targets_BT, batch.inputs["ids_BT"] + 1)
        assert batch.count <= max(batch_tokens, context)
        predicted += batch.targets_BT.flatten().tolist()
        assert (batch.carried is None) != carry_state
        if batch.carried:
            assert torch.equal(batch.inputs["ids_BT"][:, 0], ends)
        ends = batch.targets_BT[:, -1]
    assert sorted(predicted) == list(range(1, n_tokens))


def test_giving_mapped_pages_back_changes_nothing_that_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "_SMALL_BYTES", 0)
    monkeypatch.setattr(windows, "_WINDOWS_MAPPED", 3)
    np.arange(5000, dtype=np.uint16).tofile(tmp_path / "ids")
    mapped = np.memmap(tmp_path / "ids", np.uint16, "r")
    options = {"context": 16, "tokens_per_step": 130, "micro_tokens": 50, "seed": 3}
    assert described(take(WindowLoader(mapped, **options), 60)) == described(take(make_loader(), 60))
    targets = [batch.targets_BT.flatten() for batch in valid_batches(mapped, 16, 50)]
    assert torch.equal(torch.cat(targets), torch.arange(1, 5000))
