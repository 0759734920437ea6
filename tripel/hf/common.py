"""What the formats share: reading a config.json of others, and refusing what cannot be said there or here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from tripel.config import Config
from tripel.errors import FormatError
from tripel.models.config import AnyModelConfig, AnyVocabulary

Settings = TypeVar("Settings", bound=BaseModel)
ConfigOfOurs = TypeVar("ConfigOfOurs", bound=Config)


class Understood(NamedTuple):
    """What a folder of others says. tensors: under their names, one for each of rename_to_theirs. notes: for a person, on
    what of the folder was left out."""

    config: AnyModelConfig
    vocabulary: AnyVocabulary
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_settings(kind: type[Settings], settings: Mapping[str, Any], file: str = "config.json") -> Settings:
    """The keys of a file of settings that kind has. Raises FormatError that names the key with a wrong value."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise FormatError(
            f"{file} has a value of {key} that Tripel cannot take",
            given=problem["input"],
            expected=problem["msg"].removeprefix("Value error, "),
            mend="use a model without it; there is no setting that would make Tripel compute the same",
        ) from None


def our_config(kind: type[ConfigOfOurs], values: Mapping[str, Any]) -> ConfigOfOurs:
    """A config of ours with values from a config.json. Raises FormatError when they contradict each other."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise FormatError(
            "config.json describes a model that Tripel cannot build",
            given=error.errors()[0]["msg"].removeprefix("Value error, "),
            expected="sizes that fit together",
            mend="use another model",
        ) from None


def require_expressible(form: str, options: Mapping[str, tuple[object, object]]) -> None:
    """options: for each of ours its value and the one that the format can hold. Raises FormatError naming those that
    differ."""
    needed = {option: pair for option, pair in options.items() if pair[0] != pair[1]}
    if needed:
        raise FormatError(
            f"the {form} format has no word for some options of this model",
            given=", ".join(f"{option}: {value}" for option, (value, _) in needed.items()),
            expected=", ".join(f"{option}: {value}" for option, (_, value) in needed.items()),
            mend="train with the expected options, or keep the run folder: Tripel itself needs no other format",
        )


def mixer_options(name: str, mixer: Config, plain: Config) -> dict[str, tuple[object, object]]:
    """For require_expressible: the options of a mixer beside those of one that the format can hold."""
    if type(mixer) is not type(plain):
        return {f"{name}.kind": (getattr(mixer, "kind", None), getattr(plain, "kind", None))}
    return {f"{name}.{x}": (getattr(mixer, x), getattr(plain, x)) for x in type(plain).model_fields}


def as_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors in float32, the others as they are."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def require_equal(option: str, a: Tensor | None, b: Tensor | None) -> None:
    """Refuse two matrices that an option says to be one, and that differ. Raises FormatError."""
    if a is not None and b is not None and a is not b and not torch.equal(a, b):
        raise FormatError(
            f"config.json says {option}: true, but the weights have different matrices for it",
            given=f"matrices of shapes {list(a.shape)} and {list(b.shape)}",
            expected="equal matrices, or only one of them",
            mend=f"set {option} to false in config.json if the matrices are meant to differ",
        )
