"""Other libraries' folders: one row per format, read and written through the same table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tripel.hf import marian
from tripel.models.config import ModelConfig, Vocabulary

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Format:
    """A model class of transformers and how it maps to ours. The key in FORMATS is `model_type` in its config.json.

    express: their config.json, or FormatError naming the options that it cannot hold. generation: their
    generation_config.json. rename_to_theirs, rename_to_ours: exact inverses. understand: a folder of theirs as config,
    vocabulary and tensors under their names, one for each of rename_to_theirs. usage: a section of the model card.
    """

    name: str
    express: Callable[[ModelConfig, Vocabulary], dict[str, Any]]
    generation: Callable[[ModelConfig, Vocabulary], dict[str, Any]]
    rename_to_theirs: Callable[[ModelConfig, Tensors], dict[str, Tensor]]
    rename_to_ours: Callable[[ModelConfig, Tensors], dict[str, Tensor]]
    understand: Callable[[Mapping[str, Any], Tensors], tuple[ModelConfig, Vocabulary, dict[str, Tensor]]]
    usage: Callable[..., str]


FORMATS: dict[str, Format] = {
    "marian": Format(
        "Marian",
        marian.express,
        marian.generation,
        marian.rename_to_theirs,
        marian.rename_to_ours,
        marian.understand,
        marian.usage,
    ),
}

FORMAT_OF_KIND: dict[str, str] = {"encoder-decoder": "marian"}
"""The format that can hold a model of each skeleton, if its options allow."""
