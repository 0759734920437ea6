import threading
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripel.data import Loader, make_plan
from tripel.errors import DataError


def lengths(n, seed=0):
    """Like captions: target lengths around 15, source lengths that go with them."""
    rng = np.random.default_rng(seed)
    target = rng.poisson(13, n) + 2
    return np.maximum(1, target + rng.integers(-4, 5, n)), target


def plan(source, target, **options):
    defaults = {"tokens_per_step": 2000, "micro_tokens": 500, "seed": 1, "epoch": 0}
    return make_plan(np.asarray(source), np.asarray(target), **defaults | options)


def members(one):
    return [[micro.tolist() for micro in step] for step in one.steps]


sizes = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=200)


@given(sizes=sizes, budget=st.integers(1, 500), micro=st.integers(1, 200), seed=st.integers(0, 9))
def test_every_example_is_in_exactly_one_micro_batch_which_is_within_its_limit(sizes, budget, micro, seed):
    source, target = np.array(sizes).T
    one = plan(source, target, tokens_per_step=budget, micro_tokens=micro, seed=seed)
    everything = [index for step in one.steps for rows in step for index in rows]
    assert sorted(everything) == list(range(len(sizes)))
    assert all(len(rows) for step in one.steps for rows in step) and all(one.steps)
    for step, tokens, padded in zip(one.steps, one.target_tokens, one.padded_tokens, strict=True):
        assert tokens.tolist() == [target[rows].sum() for rows in step]
        for rows, size in zip(step, padded, strict=True):
            assert size == len(rows) * max(source[rows].max(), target[rows].max())
            assert size <= min(micro, budget) or len(rows) == 1


def test_a_plan_is_a_function_of_seed_and_epoch():
    source, target = lengths(3000)
    assert members(plan(source, target)) == members(plan(source, target))
    assert members(plan(source, target, epoch=1)) != members(plan(source, target))
    assert members(plan(source, target, seed=2)) != members(plan(source, target))


def test_steps_are_near_the_budget_of_target_tokens():
    one = plan(*lengths(5000))
    tokens = np.array([step.sum() for step in one.target_tokens])
    assert tokens.mean() == pytest.approx(2000, rel=0.02)
    assert (abs(tokens - 2000) <= 500).all()


def test_length_buckets_keep_padding_small_and_yet_a_step_mixes_lengths():
    source, target = lengths(29_000)
    one = plan(source, target, tokens_per_step=8192, micro_tokens=2048)
    assert 0 < one.padding_share < 0.05
    padded = sum(len(rows) * (source[rows].max() + target[rows].max()) for step in one.steps for rows in step)
    assert one.padding_share == pytest.approx(1 - (source.sum() + target.sum()) / padded)
    spread = np.mean([np.std(target[np.concatenate(step)]) for step in one.steps])
    assert spread > 0.7 * np.std(target)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_the_shares_of_the_ranks_make_up_the_step_and_are_balanced(world_size):
    one = plan(*lengths(3000))
    for index, step in enumerate(one.steps):
        shares = [one.share(index, rank, world_size) for rank in range(world_size)]
        dealt = sorted(row for share in shares for micro in share for row in micro.tolist())
        assert dealt == sorted(row for micro in step for row in micro.tolist())
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        whole = {tuple(micro.tolist()) for micro in step}
        n_whole = sum(tuple(micro.tolist()) in whole for share in shares for micro in share)
        assert n_whole >= len(step) // world_size * world_size, "only what is left over is divided"


def test_the_shares_of_the_ranks_are_nearly_equal_work():
    one = plan(*lengths(3000))
    _, target = lengths(3000)
    work = np.array(
        [
            [sum(len(micro) * target[micro].max() for micro in one.share(index, rank, 2)) for rank in range(2)]
            for index in range(len(one.steps))
        ]
    )
    assert work.max(axis=1).sum() < 1.1 * work.mean(axis=1).sum()


def test_an_example_longer_than_the_budget_is_a_micro_batch_by_itself():
    one = plan([5, 5, 9000], [5, 5, 9000])
    assert [2] in [micro for step in members(one) for micro in step]


def test_no_examples_are_refused():
    with pytest.raises(DataError, match="nothing to train on"):
        plan(np.zeros(0, int), np.zeros(0, int))


@dataclass
class Numbers:
    """A corpus that knows only lengths; another one in each epoch."""

    epoch: int
    source_lengths: np.ndarray
    target_lengths: np.ndarray


def make_corpus(epoch):
    return Numbers(epoch, *lengths(600, seed=epoch))


def collate(corpus, rows):
    return corpus.epoch, tuple(rows.tolist())


def make_loader(**options):
    defaults = {"tokens_per_step": 1000, "micro_tokens": 250, "seed": 3}
    return Loader(options.pop("make_corpus", make_corpus), options.pop("collate", collate), **defaults | options)


def take(loader, n):
    steps = iter(loader)
    try:
        return list(islice(steps, n))
    finally:
        steps.close()


def test_steps_go_on_over_epochs_each_with_its_own_corpus_and_every_example():
    loader = make_loader()
    n_first = len(loader.plan(0)[1].steps)
    steps = take(loader, n_first + 3)
    assert {epoch for step in steps[:n_first] for epoch, _ in step} == {0}
    assert {epoch for step in steps[n_first:] for epoch, _ in step} == {1}
    assert sorted(row for step in steps[:n_first] for _, rows in step for row in rows) == list(range(600))
    assert loader.state_dict() == {"epoch": 1, "step_in_epoch": 3}


@pytest.mark.parametrize("done", [0, 1, 4, 9, 10, 11, 23])
def test_a_loader_resumed_after_any_step_goes_on_exactly(done):
    whole = take(make_loader(), 40)
    first = make_loader()
    take(first, done)
    second = make_loader()
    second.load_state_dict(first.state_dict())
    assert take(second, 40 - done) == whole[done:]


def test_the_state_counts_what_was_handed_out_not_what_was_prepared():
    loader = make_loader()
    steps = iter(loader)
    for n in range(1, 4):
        next(steps)
        assert loader.state_dict() == {"epoch": 0, "step_in_epoch": n}
    steps.close()
    assert take(loader, 1) == take(make_loader(), 4)[3:]


def test_two_ranks_together_have_the_steps_of_one():
    alone = take(make_loader(), 15)
    ranks = [take(make_loader(rank=rank, world_size=2), 15) for rank in range(2)]
    for step, *shares in zip(alone, *ranks, strict=True):
        assert sorted(rows_of(step)) == sorted(row for share in shares for row in rows_of(share))


def rows_of(batches):
    return [row for _, rows in batches for row in rows]


def test_a_rank_may_have_nothing_in_a_step():
    """When there are more ranks than sentences in a step."""
    shares = [take(make_loader(tokens_per_step=20, micro_tokens=20, rank=rank, world_size=40), 3) for rank in range(40)]
    assert [] in [step for share in shares for step in share]


@pytest.mark.parametrize("where", ["make_corpus", "collate"])
def test_an_error_in_the_background_is_raised_where_the_loader_is_iterated(where):
    def fail(*_):
        raise DataError("the data has gone")

    with pytest.raises(DataError, match="has gone"):
        take(make_loader(**{where: fail}), 1)


def test_steps_before_an_error_are_still_handed_out():
    def fail_later(epoch):
        if epoch:
            raise OSError("disk")
        return make_corpus(epoch)

    loader = make_loader(make_corpus=fail_later)
    n_first = len(loader.plan(0)[1].steps)
    steps = iter(loader)
    assert len(list(islice(steps, n_first))) == n_first
    with pytest.raises(OSError, match="disk"):
        next(steps)


def test_closing_an_iteration_ends_its_thread():
    steps = iter(make_loader())
    next(steps)
    assert "tripel-loader" in [thread.name for thread in threading.enumerate()]
    steps.close()
    assert "tripel-loader" not in [thread.name for thread in threading.enumerate()]


def test_no_more_than_a_few_steps_are_prepared_ahead():
    made = []
    steps = iter(make_loader(collate=lambda corpus, rows: made.append(1)))
    n_micros = len(next(steps))
    threading.Event().wait(0.3)
    steps.close()
    assert len(made) <= 8 * (n_micros + 2)


def test_a_place_that_does_not_exist_is_refused():
    loader = make_loader()
    loader.load_state_dict({"epoch": 0, "step_in_epoch": 10**6})
    with pytest.raises(DataError, match="does not exist"):
        take(loader, 1)
