"""The base of every configuration class: frozen, closed to unknown keys. Defaults live only in its subclasses."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen pydantic model that refuses unknown keys. Its subclasses live next to the code they configure."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def follow(root: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """A pydantic location below root without the kinds that it names where several classes may stand (`data.text.trian`),
    and the keys that may stand where its last part does."""
    here: list[type[BaseModel]] = [root]
    path: list[str] = []
    keys: list[str] = []
    for name in map(str, location):
        tagged = [cls for cls in here if _kind(cls) == name] if len(here) > 1 else []
        if tagged:
            here = tagged
            continue
        path.append(name)
        keys = list(dict.fromkeys(key for cls in here for key in cls.model_fields))
        fields = [cls.model_fields[name] for cls in here if name in cls.model_fields]
        here = [cls for field in fields for cls in _classes(field.annotation)]
    return path, keys


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """The config classes that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [cls for part in typing.get_args(annotation) for cls in _classes(part)]


def _kind(cls: type[BaseModel]) -> str | None:
    field = cls.model_fields.get("kind")
    return None if field is None else field.default
