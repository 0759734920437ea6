"""A model from tensors under the names of a format, or under our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tripel.errors import CheckpointError, RecipeError
from tripel.hf import FORMATS
from tripel.hf.rules import mismatch
from tripel.models.build import Model, build
from tripel.models.config import AnyModelConfig, AnyVocabulary, ImageVocabulary, SkeletonConfig
from tripel.nn.embed import Positions

OUR_NAMES = "tripel"
"""Stands for our own names where the name of a format may stand."""
MOST_POSITION_NUMBERS = 1 << 28
"""Numbers in the largest table of sinusoids that is computed: 1 GiB."""


def assemble(
    config: AnyModelConfig, vocabulary: AnyVocabulary, tensors: Mapping[str, Tensor], names: str, *, source: Path
) -> Model:
    """A model made of tensors under the names of a format (or "tripel"), in evaluation mode.

    Nothing is allocated for what the config claims before the tensors are there to fill it. Raises CheckpointError.
    """
    _require_sane(config, vocabulary, source)
    try:
        with torch.device("meta"):
            model = build(config, vocabulary)
    except RecipeError as error:
        raise CheckpointError(error.what, given=error.given, expected=error.expected, mend=error.mend) from None
    form = FORMATS.get(names)
    expected: Mapping[str, Tensor] = model.state_dict()
    problem = mismatch(form.rename_to_theirs(config, expected) if form else expected, tensors)
    if problem is not None:
        raise CheckpointError(
            "the weights do not fit the model that config.json describes",
            given=f"{source}: {problem}",
            expected="the tensors of this model and no others",
            mend="copy config.json and the weights again from the same folder",
        )
    model.load_state_dict(form.rename_to_ours(config, tensors) if form else tensors, assign=True)
    for module in model.modules():
        if isinstance(module, Positions) and module.kind == "sinusoidal":
            module.weight = torch.empty(module.weight.shape)  # type: ignore[assignment]
            module.reset_constants()
    return model.eval()


def _require_sane(config: AnyModelConfig, vocabulary: AnyVocabulary, source: Path) -> None:
    """Bounds that no file of weights proves: a table of sinusoids is computed, and ids index the vocabulary."""
    if isinstance(vocabulary, ImageVocabulary):
        return
    assert isinstance(config, SkeletonConfig)
    smallest = min(vocabulary.source_size, vocabulary.target_size)
    wrong_ids = [
        i for i in (vocabulary.pad_id, vocabulary.eos_id, vocabulary.mask_id) if i is not None and i >= smallest
    ]
    wrong_ids += [vocabulary.start_id] if vocabulary.start_id >= vocabulary.target_size else []
    too_long = config.positions == "sinusoidal" and config.max_len * config.d_model > MOST_POSITION_NUMBERS
    if wrong_ids or too_long:
        raise CheckpointError(
            "config.json describes a model that makes no sense",
            given=f"{source.parent}: "
            + (
                f"token id {wrong_ids[0]} of {smallest}"
                if wrong_ids
                else f"{config.max_len} positions of {config.d_model}"
            ),
            expected="ids inside the vocabulary, and a table of positions below 1 GiB",
            mend="copy config.json again from where the model was trained",
        )
