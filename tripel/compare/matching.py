"""Models of different families, made equally large."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import ValidationError

from tripel.errors import RecipeError
from tripel.models.build import build, count_parameters
from tripel.models.config import (
    AnyModelConfig,
    AnyVocabulary,
    ResNetConfig,
    StackedConfig,
    TextModelConfig,
    ViTConfig,
)
from tripel.recipe import Recipe

TOLERANCE = 0.03
"""The share by which numbers of parameters may differ and still be called equal."""

_CLOSE = 0.01
"""The share from which a width of a finer grain is no longer looked for."""

_GRAINS = (16, 8, 4, 2, 1)
_WIDEST = 65536
_FARTHEST = 1024


def n_parameters(recipe: Recipe, vocabulary: AnyVocabulary) -> int:
    """Parameters of the model that a recipe describes; nothing is allocated."""
    return _count(recipe.model, vocabulary)


def match_parameters(recipe: Recipe, n_wanted: int, vocabulary: AnyVocabulary) -> Recipe:
    """The recipe with d_model, and what is given in proportion to it, so that it has n_wanted parameters within TOLERANCE.

    d_model of a residual convolutional network is the width of its last stage. Widths that are multiples of 16 or 8 are
    preferred: products of such are fast. Raises RecipeError when no width does.
    """
    model = recipe.model
    if _error(model, n_wanted, vocabulary) <= TOLERANCE:
        return recipe
    width = _real_width(model, n_wanted, vocabulary)
    best: AnyModelConfig = model
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
        if isinstance(candidate, StackedConfig) and candidate.d_ff:
            tuned = _with_feed_forward(candidate, n_wanted, vocabulary)
            if tuned is not None:
                return recipe.model_copy(update={"model": tuned})
    raise RecipeError(
        "no width gives this model as many parameters as the first recipe's",
        given=f"{_count(best, vocabulary):,} parameters with d_model {best.d_model}",
        expected=f"{n_wanted:,} within {TOLERANCE:.0%}",
        mend="change the depth or a width of one of the recipes, or compare without --match",
    )


def _error(model: AnyModelConfig, n_wanted: int, vocabulary: AnyVocabulary) -> float:
    return abs(_count(model, vocabulary) / n_wanted - 1)


def _real_width(model: AnyModelConfig, n_wanted: int, vocabulary: AnyVocabulary) -> float:
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


def _valid_width(model: AnyModelConfig, d_model: int) -> int:
    """The nearest width that the model can have: heads must divide it."""
    for distance in range(_FARTHEST):
        for width in (d_model + distance, d_model - distance):
            if 2 <= width <= _WIDEST and _scaled(model, width) is not None:
                return width
    return model.d_model


def _scaled(model: AnyModelConfig, d_model: int) -> AnyModelConfig | None:
    """The model with this width; None where it cannot have it."""
    share = d_model / model.d_model
    if isinstance(model, ResNetConfig):
        return _scaled_stages(model, share)
    tree = model.model_dump()
    tree["d_model"], tree["d_ff"] = d_model, _in_grain(model.d_ff, share)
    for stack in (tree, *(tree[name] for name in model.stacks() if isinstance(tree.get(name), dict))):
        if stack is not tree and stack.get("d_ff"):
            stack["d_ff"] = _in_grain(stack["d_ff"], share)
        mixer = stack.get("mixer", {})
        if mixer.get("d_hidden"):
            mixer["d_hidden"] = max(round(mixer["d_hidden"] * share), 1)
    if tree.get("stem") == "conv":
        tree["stem_width"] = max(round(tree["stem_width"] * share), 1)
    return _valid(model, tree)


def _scaled_stages(model: ResNetConfig, share: float) -> AnyModelConfig | None:
    """The network with all its channels times share, as far as groups and bottlenecks divide them. All but the last stage's
    are multiples of 8 where they are many, which convolutions are faster with."""
    needed = math.lcm(4 if model.block == "bottleneck" else 1, model.n_groups if model.norm == "group" else 1)

    def scaled(width: int, wanted: int = 8) -> int:
        grain = math.lcm(needed, wanted if width * share >= 4 * wanted else 1)
        return max(round(width * share / grain), 1) * grain

    *inner, last = model.widths
    widths = (*(scaled(width) for width in inner), scaled(last, 1))
    return _valid(model, model.model_dump() | {"stem_width": scaled(model.stem_width), "widths": widths})


def _valid(model: AnyModelConfig, tree: dict[str, Any]) -> AnyModelConfig | None:
    try:
        return type(model).model_validate(tree)
    except ValidationError:
        return None


def _in_grain(d_ff: int, share: float) -> int:
    """d_ff times share; a multiple of 8 stays one, which products are faster with."""
    grain = 8 if d_ff % 8 == 0 and d_ff * share >= 64 else 1
    return round(d_ff * share / grain) * grain


def widths_changed(old: AnyModelConfig, new: AnyModelConfig) -> list[str]:
    """The widths that match_parameters gave a model, as `d_model 64 -> 96`."""
    before, after = old.model_dump(), new.model_dump()
    changed = [key for key in ("d_model", "d_ff", "stem_width", "widths") if before.get(key) != after.get(key)]
    return [f"{key} {_plain(before[key])} -> {_plain(after[key])}" for key in changed]


def _plain(width: Any) -> str:
    return " ".join(map(str, width)) if isinstance(width, (list, tuple)) else str(width)


def _with_feed_forward(
    model: TextModelConfig | ViTConfig, n_wanted: int, vocabulary: AnyVocabulary
) -> AnyModelConfig | None:
    """The model with the d_ff that gives it n_wanted parameters, where a width of its own steps is too coarse."""
    n = _count(model, vocabulary)
    per_unit = _count(model.model_copy(update={"d_ff": model.d_ff + 1}), vocabulary) - n
    d_ff = model.d_ff + round((n_wanted - n) / max(per_unit, 1))
    tuned = model.model_copy(update={"d_ff": d_ff})
    return tuned if d_ff >= 1 and _error(tuned, n_wanted, vocabulary) <= TOLERANCE else None


def _count(model: AnyModelConfig, vocabulary: AnyVocabulary) -> int:
    with torch.device("meta"):
        return count_parameters(build(model, vocabulary))
