"""Data sets that are made here instead of fetched: the phrasebook under a name, so that a recipe can ask for it.

`phrasebook-de/train` and its like are written to the user's cache when they are first asked for, and anew when the
grammar or its words have changed.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from tripel.data.phrasebook.generator import Target
from tripel.errors import DataError

COUNT, SEED = 40_000, 1
_ORIGIN = "made-from"  # the file that says which grammar, words, count and seed the set was made from


@dataclass(frozen=True)
class MadeSet:
    """A set that is made here. what, licence: for people. size: about so many bytes on disk."""

    name: str
    what: str
    licence: str
    target: Target
    size: int

    def is_made(self, directory: Path) -> bool:
        """Whether it is in `directory/name`, and up to date."""
        return _read(directory / self.name / _ORIGIN) == _origin()

    def make(self, directory: Path) -> Path:
        """Its folder `directory/name`, written unless it is there and up to date. Raises DataError."""
        folder = directory / self.name
        if self.is_made(directory):
            return folder
        from tripel.data.phrasebook.files import write  # the grammar is read only when it is needed

        try:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=directory, prefix=f".{self.name}.") as draft:
                whole = Path(draft) / self.name
                write(whole, self.target, COUNT, SEED)
                (whole / _ORIGIN).write_text(_origin(), encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)
                whole.rename(folder)
        except OSError as error:
            raise DataError(
                f"the data set {self.name} cannot be written: {error.strerror or error}",
                file=folder,
                expected=f"a folder that this user may write to, with {self.size / 1e6:.0f} MB of room",
                mend="make room, or set XDG_CACHE_HOME to another folder",
            ) from None
        return folder


def _phrasebook(target: Target, language: str) -> MadeSet:
    what = f"the embedded phrasebook, English to {language}: {COUNT:,} train; valid, test, compositional of 1,000 each"
    return MadeSet(f"phrasebook-{target}", what, "Apache-2.0", target, 6_000_000)


MADE: dict[str, MadeSet] = {made.name: made for made in (_phrasebook("de", "German"), _phrasebook("fr", "French"))}
"""The sets that are made here, by name."""


def _origin() -> str:
    """What the sets are made from."""
    return f"{_grammar()} {COUNT} {SEED}"


@cache
def _grammar() -> str:
    """A hash of everything the phrasebook is made from."""
    digest, waiting = hashlib.sha256(), [resources.files("tripel.data.phrasebook")]
    while waiting:
        entry = waiting.pop()
        if entry.is_dir():
            waiting += sorted(entry.iterdir(), key=lambda e: e.name)
        elif entry.name.endswith((".py", ".tsv", ".yaml")):
            digest.update(entry.name.encode() + b"\0" + entry.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
