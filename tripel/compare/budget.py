"""How long each contestant of a comparison trains: equally many seconds, or equally many updates."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tripel.errors import InputError

DEFAULT = "5m"
_UNITS = (("hour", 3600), ("minute", 60), ("second", 1))
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_LONGEST = 30 * 24 * 3600
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smh])")
_MOST_STEPS = 1 << 40


@dataclass(frozen=True)
class Budget:
    """One of seconds of training and updates, the other None. Time for validation and saving does not count.

    validations: about how often a run is validated within it.
    """

    seconds: float | None = None
    steps: int | None = None
    validations: int = 10

    @classmethod
    def of(cls, budget: str | None, steps: int | None) -> Budget:
        """From what a person wrote: `5m`, `90s`, `1h30m`, or a number of updates. Raises InputError."""
        if budget is not None and steps is not None:
            raise InputError(
                "a budget of time and a number of updates exclude each other",
                given=f"--budget {budget} --steps {steps}",
                expected="one of them",
                mend="leave one of them out",
            )
        if steps is None:
            return cls(seconds=_parse(DEFAULT if budget is None else budget))
        if not 1 <= steps <= _MOST_STEPS:
            raise InputError(
                "--steps must be a positive number of updates", given=steps, mend="for example --steps 2000"
            )
        return cls(steps=steps)

    def share(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent, from 0 to 1."""
        spent = seconds / self.seconds if self.seconds is not None else step / (self.steps or 1)
        return min(spent, 1.0)

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{self.steps:,} updates each"
        name, unit = next(((name, n) for name, n in _UNITS if self.seconds >= n), _UNITS[-1])
        n = self.seconds / unit
        return f"{n:g} {name}{'s' if n != 1 else ''} of training each"


def _parse(text: str) -> float:
    if not re.fullmatch(f"(?:{_PART.pattern})+", text.strip()):
        raise _refused(text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    if not 0 < seconds <= _LONGEST:
        raise _refused(text)
    return seconds


def _refused(text: str) -> InputError:
    return InputError(
        "the budget cannot be understood",
        given=f"--budget {text}",
        expected="a time of at most 30 days with its unit, such as 90s, 5m or 1h",
        mend="write for example --budget 5m",
    )
