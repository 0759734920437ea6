"""Models of different families, made equally large."""

from __future__ import annotations

import math

import torch
from pydantic import ValidationError

from tripel.errors import RecipeError
from tripel.models.build import build, count_parameters
from tripel.models.config import SkeletonConfig, Vocabulary
from tripel.recipe import Recipe

TOLERANCE = 0.03
"""The share by which numbers of parameters may differ and still be called equal."""

_CLOSE = 0.01
"""The share from which a width of a finer grain is no longer looked for."""

_GRAINS = (16, 8, 4, 2, 1)
_WIDEST = 65536
_FARTHEST = 1024


def n_parameters(recipe: Recipe, vocabulary: Vocabulary) -> int:
    """Parameters of the model that a recipe describes; nothing is allocated."""
    return _count(recipe.model, vocabulary)


def match_parameters(recipe: Recipe, n_wanted: int, vocabulary: Vocabulary) -> Recipe:
    """The recipe with d_model, and what is given in proportion to it, so that it has n_wanted parameters within TOLERANCE.

    Widths that are multiples of 16 or 8 are preferred: products of such are fast. Raises RecipeError when no width does.
    """
    model = recipe.model
    if _error(model, n_wanted, vocabulary) <= TOLERANCE:
        return recipe
    width = _real_width(model, n_wanted, vocabulary)
    best: SkeletonConfig = model
    for grain in _GRAINS:
        below = max(int(width // grain) * grain, grain)
        for d_model in (below, below + grain):
            scaled = _scaled(model, d_model)
            if scaled is not None and _error(scaled, n_wanted, vocabulary) < _error(best, n_wanted, vocabulary):
                best = scaled
        if _error(best, n_wanted, vocabulary) <= _CLOSE:
            break
    if _error(best, n_wanted, vocabulary) <= TOLERANCE:
        return recipe.model_copy(update={"model": best})
    nearest = _scaled(model, _valid_width(model, round(width)))
    for candidate in (best, nearest):
        if candidate is not None and candidate.d_ff:
            tuned = _with_feed_forward(candidate, n_wanted, vocabulary)
            if tuned is not None:
                return recipe.model_copy(update={"model": tuned})
    raise RecipeError(
        "no width gives this model as many parameters as the first recipe's",
        given=f"{_count(best, vocabulary):,} parameters with d_model {best.d_model}",
        expected=f"{n_wanted:,} within {TOLERANCE:.0%}",
        mend="change n_layers or d_ff of one of the recipes, or compare without --match",
    )


def _error(model: SkeletonConfig, n_wanted: int, vocabulary: Vocabulary) -> float:
    return abs(_count(model, vocabulary) / n_wanted - 1)


def _real_width(model: SkeletonConfig, n_wanted: int, vocabulary: Vocabulary) -> float:
    """About the d_model that is wanted: parameters grow between linearly and with the square of it."""
    low, high = 1.0, float(_WIDEST)
    while high / low > 1.002:
        middle = math.sqrt(low * high)
        d_model = _valid_width(model, round(middle))
        scaled = _scaled(model, d_model)
        # What the width between two that are possible would have.
        n = 0.0 if scaled is None else _count(scaled, vocabulary) * (middle / d_model) ** 2
        low, high = (middle, high) if n < n_wanted else (low, middle)
    return math.sqrt(low * high)


def _valid_width(model: SkeletonConfig, d_model: int) -> int:
    """The nearest width that the model can have: heads must divide it."""
    for distance in range(_FARTHEST):
        for width in (d_model + distance, d_model - distance):
            if 2 <= width <= _WIDEST and _scaled(model, width) is not None:
                return width
    return model.d_model


def _scaled(model: SkeletonConfig, d_model: int) -> SkeletonConfig | None:
    """The model with this width; None where it cannot have it."""
    share = d_model / model.d_model
    tree = model.model_dump()
    tree["d_model"], tree["d_ff"] = d_model, _in_grain(model.d_ff, share)
    for stack in (tree, *(tree[name] for name in model.stacks() if isinstance(tree.get(name), dict))):
        if stack is not tree and stack.get("d_ff"):
            stack["d_ff"] = _in_grain(stack["d_ff"], share)
        mixer = stack.get("mixer", {})
        if mixer.get("d_hidden"):
            mixer["d_hidden"] = max(round(mixer["d_hidden"] * share), 1)
    try:
        return type(model).model_validate(tree)
    except ValidationError:
        return None


def _in_grain(d_ff: int, share: float) -> int:
    """d_ff times share; a multiple of 8 stays one, which products are faster with."""
    grain = 8 if d_ff % 8 == 0 and d_ff * share >= 64 else 1
    return round(d_ff * share / grain) * grain


def _with_feed_forward(model: SkeletonConfig, n_wanted: int, vocabulary: Vocabulary) -> SkeletonConfig | None:
    """The model with the d_ff that gives it n_wanted parameters, where a width of its own steps is too coarse."""
    n = _count(model, vocabulary)
    per_unit = _count(model.model_copy(update={"d_ff": model.d_ff + 1}), vocabulary) - n
    d_ff = model.d_ff + round((n_wanted - n) / max(per_unit, 1))
    tuned = model.model_copy(update={"d_ff": d_ff})
    return tuned if d_ff >= 1 and _error(tuned, n_wanted, vocabulary) <= TOLERANCE else None


def _count(model: SkeletonConfig, vocabulary: Vocabulary) -> int:
    with torch.device("meta"):
        return count_parameters(build(model, vocabulary))  # type: ignore[arg-type]
