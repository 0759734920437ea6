"""The parts of a comparison by themselves: budgets, equal sizes, bins, labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import MODELS, write_recipe

from tripel.compare.budget import Budget
from tripel.compare.matching import TOLERANCE, match_parameters, n_parameters
from tripel.compare.next_token import binned
from tripel.compare.pictures import _LEAST_GAP, _apart
from tripel.errors import RecipeError
from tripel.models.build import build, count_parameters
from tripel.models.config import Vocabulary
from tripel.recipe import Recipe

VOCABULARY = Vocabulary(source_size=80, target_size=80, pad_id=0, eos_id=3, start_id=3)


@pytest.mark.parametrize(
    ("text", "seconds", "said"),
    [
        ("90s", 90, "1.5 minutes of training each"),
        ("5m", 300, "5 minutes of training each"),
        ("1h", 3600, "1 hour of training each"),
        ("1h30m", 5400, "1.5 hours of training each"),
        ("0.5s", 0.5, "0.5 seconds of training each"),
    ],
)
def test_a_budget_is_a_time_with_its_unit(text, seconds, said):
    budget = Budget.of(text, None)
    assert (budget.seconds, budget.steps, str(budget)) == (seconds, None, said)
    assert Budget.of(None, None).seconds == 300


def test_the_share_of_a_budget_never_passes_one():
    assert Budget.of("10s", None).share(step=1, seconds=5) == 0.5
    assert Budget.of(None, 10).share(step=5, seconds=1e9) == 0.5
    assert Budget.of("10s", None).share(step=1, seconds=11) == 1.0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("n_wanted", [60_000, 1_000_000, 30_000_000])
def test_a_model_is_scaled_to_a_number_of_parameters(tmp_path, name, n_wanted):
    recipe = Recipe.load(write_recipe(tmp_path, name))
    matched = match_parameters(recipe, n_wanted, VOCABULARY)
    n = n_parameters(matched, VOCABULARY)
    assert abs(n / n_wanted - 1) <= TOLERANCE
    if n_wanted <= 1_000_000:
        assert n == count_parameters(build(matched.model, VOCABULARY))
    ratio = recipe.model.d_ff / recipe.model.d_model
    assert matched.model.d_ff == pytest.approx(ratio * matched.model.d_model, abs=4)
    assert matched.model_dump(exclude={"model"}) == recipe.model_dump(exclude={"model"})


def test_heads_and_rotary_pairs_still_divide_a_scaled_width(tmp_path):
    mixer = {"kind": "attention", "n_heads": 6, "rotary": True}
    recipe = Recipe.load(write_recipe(tmp_path, "gpt", model={"d_model": 24, "d_ff": 96, "mixer": mixer}))
    matched = match_parameters(recipe, 150_000, VOCABULARY)
    assert matched.model.d_model % 12 == 0
    assert abs(n_parameters(matched, VOCABULARY) / 150_000 - 1) <= TOLERANCE


def test_where_widths_are_too_coarse_the_feed_forward_part_makes_up_for_it(tmp_path):
    mixer = {"kind": "attention", "n_heads": 16}
    recipe = Recipe.load(write_recipe(tmp_path, "gpt", model={"d_model": 32, "d_ff": 128, "mixer": mixer}))
    for n_wanted in (20_000, 24_000, 28_000, 40_000, 60_000):
        assert abs(n_parameters(match_parameters(recipe, n_wanted, VOCABULARY), VOCABULARY) / n_wanted - 1) <= TOLERANCE


def test_a_model_that_cannot_be_made_so_small_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no width gives this model"):
        match_parameters(Recipe.load(write_recipe(tmp_path, "lstm")), 60, VOCABULARY)


def test_a_model_of_the_right_size_stays_as_it_is(tmp_path):
    recipe = Recipe.load(write_recipe(tmp_path, "conv"))
    assert match_parameters(recipe, n_parameters(recipe, VOCABULARY), VOCABULARY) is recipe


@given(st.integers(1, 3000))
def test_bins_have_every_position_once(n):
    values = np.arange(1, n + 1, dtype=float)
    curve = binned(values)
    assert curve.x == curve.y, "the mean place of a bin is the mean of its places"
    assert len(curve.x) <= 32 and list(curve.x) == sorted(curve.x)
    assert curve.x[0] == 1.0 or n > 1000 or len(curve.x) == 1 or curve.x[0] < 2


def test_a_constant_stays_constant_in_bins():
    assert set(binned(np.full(777, 2.5)).y) == {2.5}


@given(st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_labels_keep_their_order_and_distance(heights):
    placed = _apart(heights, 0.0, 200.0)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    gaps = [placed[b] - placed[a] for a, b in zip(order, order[1:], strict=False)]
    assert all(gap >= _LEAST_GAP - 1e-6 for gap in gaps)
    assert min(placed) >= -1e-6 and max(placed) <= 200 + 1e-6
