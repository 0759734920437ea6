"""What every pipeline checks of what it is given: texts, and settings that differ in one call."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import ValidationError

from tripel.decode.search import SearchConfig
from tripel.errors import InputError, nearest

MAX_CHARACTERS = 10_000_000
"""The longest text accepted: longer is a file given for a line."""

_SURROGATES = re.compile("[\ud800-\udfff]")

C = TypeVar("C", bound=SearchConfig)


def changed(config: C, settings: dict[str, Any]) -> C:
    """config with some of its fields changed. Raises InputError for a field that it has not, or a wrong value."""
    fields = type(config).model_fields
    unknown = next((name for name in settings if name not in fields), None)
    if unknown is not None:
        close = nearest(unknown, fields)
        raise InputError(
            f"there is no decoding setting {unknown!r}",
            given=unknown,
            expected=", ".join(fields),
            mend=f"did you mean {close}?" if close else None,
        )
    try:
        return type(config)(**{**config.model_dump(), **settings})
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        raise InputError(
            f"decoding setting {name} cannot be used" if name else "these decoding settings do not fit together",
            given=settings.get(name, settings),
            expected=problem["msg"].removeprefix("Value error, "),
        ) from None


def check_text(text: object, kind: str, number: int, mend: str) -> None:
    """Raises InputError for what is not text, or too much of it. mend: what to do with too long a text."""
    if not isinstance(text, str):
        raise InputError(f"{kind} {number} is not text", given=type(text).__name__, expected="a str")
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{kind} {number} is too long for one text",
            given=f"{len(text):,} characters",
            expected=f"at most {MAX_CHARACTERS:,}",
            mend=mend,
        )
    if _SURROGATES.search(text):
        raise InputError(
            f"{kind} {number} is not Unicode text",
            given=ascii(text[:60]),
            expected="characters, without halves of surrogate pairs",
            mend="read it in the encoding it was written in; UTF-8 is what is expected",
        )
