"""The base of every configuration class: frozen, closed to unknown keys. Defaults live only in its subclasses."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen pydantic model that refuses unknown keys. Its subclasses live next to the code they configure."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
