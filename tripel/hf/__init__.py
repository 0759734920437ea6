"""Other libraries' folders: one row per format, read and written through the same table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tripel.errors import FormatError
from tripel.hf import bert, gpt2, llama, marian, resnet, vit
from tripel.hf.common import Understood
from tripel.models.config import AnyModelConfig, AnyVocabulary

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Format:
    """A kind of model of transformers and how it maps to ours. The key in FORMATS is `model_type` in its config.json.

    Each is asked only about models of the skeleton that has it in FORMATS_OF_KIND. model_class: that opens its folders,
    unless config.json names one. express: their config.json, or FormatError naming the options that it cannot hold.
    generation: their generation_config.json, None for models that write nothing. rename_to_theirs, rename_to_ours: exact
    inverses. understand: a folder of theirs. usage: a section of the model card.
    """

    name: str
    model_class: str
    express: Callable[[Any, Any], dict[str, Any]]
    generation: Callable[[Any, Any], dict[str, Any]] | None
    rename_to_theirs: Callable[[Any, Tensors], dict[str, Tensor]]
    rename_to_ours: Callable[[Any, Tensors], dict[str, Tensor]]
    understand: Callable[[Mapping[str, Any], Tensors], Understood]
    usage: Callable[..., str]


FORMATS: dict[str, Format] = {
    "marian": Format(
        "Marian",
        marian.MODEL_CLASS,
        marian.express,
        marian.generation,
        marian.rename_to_theirs,
        marian.rename_to_ours,
        marian.understand,
        marian.usage,
    ),
    "gpt2": Format(
        "GPT2",
        gpt2.MODEL_CLASS,
        gpt2.express,
        gpt2.generation,
        gpt2.rename_to_theirs,
        gpt2.rename_to_ours,
        gpt2.understand,
        gpt2.usage,
    ),
    "llama": Format(
        "Llama",
        llama.MODEL_CLASS,
        llama.express,
        llama.generation,
        llama.rename_to_theirs,
        llama.rename_to_ours,
        llama.understand,
        llama.usage,
    ),
    "bert": Format(
        "Bert",
        bert.MODEL_CLASSES["none"],
        bert.express,
        None,
        bert.rename_to_theirs,
        bert.rename_to_ours,
        bert.understand,
        bert.usage,
    ),
    "vit": Format(
        "ViT",
        vit.MODEL_CLASS,
        vit.express,
        None,
        vit.rename_to_theirs,
        vit.rename_to_ours,
        vit.understand,
        vit.usage,
    ),
    "resnet": Format(
        "ResNet",
        resnet.MODEL_CLASS,
        resnet.express,
        None,
        resnet.rename_to_theirs,
        resnet.rename_to_ours,
        resnet.understand,
        resnet.usage,
    ),
}

FORMATS_OF_KIND: dict[str, tuple[str, ...]] = {
    "encoder-decoder": ("marian",),
    "decoder": ("gpt2", "llama"),
    "encoder": ("bert",),
    "vit": ("vit",),
    "resnet": ("resnet",),
}
"""The formats that can hold a model of each kind, if its options allow."""


def express(config: AnyModelConfig, vocabulary: AnyVocabulary) -> tuple[str, dict[str, Any]]:
    """The first format that can hold a model, and its config.json there.

    Raises FormatError that names, for each format of the skeleton, the options that it has no word for.
    """
    refusals: dict[str, FormatError] = {}
    for name in FORMATS_OF_KIND[config.kind]:
        try:
            return name, FORMATS[name].express(config, vocabulary)
        except FormatError as error:
            refusals[FORMATS[name].name] = error
    if len(refusals) == 1:
        raise next(iter(refusals.values()))
    raise FormatError(
        "no format of transformers has words for all options of this model",
        given="; ".join(f"not in {name}: {error.given}" for name, error in refusals.items()),
        expected="; or ".join(f"for {name}: {error.expected}" for name, error in refusals.items()),
        mend="train with the options of one of them, or keep the run folder: Tripel itself needs no other format",
    )
