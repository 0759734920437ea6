"""What is checked when pairs are read, how it is reported, and when it stops the run.

    finding               what is done                         refused above
    bad UTF-8             dropped                              max_bad_share, together with the next five
    bad record            dropped (not two columns, not the keys expected)
    empty side            dropped
    over-long line        dropped (max_words, max_chars)
    length ratio          dropped (max_length_ratio)
    control characters    replaced by spaces or removed        -
    duplicate pair        kept, or dropped with drop_duplicates  -
    target copies source  kept                                 max_copy_share
    also in valid, test   kept, or dropped with drop_overlap   -      (the pair, or one of its sides)
    unrelated lengths     (the sides' lengths do not go together)  below min_length_correlation
    unknown tokens        kept                                 max_unknown_share

"Dropped" is for training data. Of validation and test data nothing is dropped or changed, since a score on part of a
set is not a score on it; they are refused above the same thresholds. Line files of different length are never read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from pydantic import Field, field_validator
from rich.console import Console
from rich.table import Table

from tripel.config import Config
from tripel.errors import DataError
from tripel.text.rows import IdRows

Action = Literal["kept", "dropped", "replaced", "refused"]

UNUSABLE = ("bad UTF-8", "bad record", "empty side", "over-long line", "length ratio")
"""The findings that make a pair of no use for training."""

_MOST_EXAMPLES = 3
# Below this many characters a side counts as this long: "Ja." may well stand for "Yes, of course."
_SHORT_SIDE = 20
# A correlation over fewer pairs says little.
_PAIRS_FOR_CORRELATION = 500


class DataConfig(Config):
    """Which data, and what is expected of it. Names are resolved as tripel.data.names says.

    max_words, max_chars: of either side. max_length_ratio: characters of the longer side to those of the shorter.
    Shares are of all pairs of the set, from 0 to 1; a share of 1 switches a refusal off.
    """

    kind: Literal["parallel"] = "parallel"
    train: str | tuple[str, ...]
    valid: str | None = None
    test: str | None = None
    max_words: int = Field(250, ge=1)
    max_chars: int = Field(2500, ge=1, le=60_000)
    max_length_ratio: float = Field(6.0, ge=1.0)
    max_bad_share: float = Field(0.05, ge=0.0, le=1.0)
    max_copy_share: float = Field(0.25, ge=0.0, le=1.0)
    max_unknown_share: float = Field(0.1, ge=0.0, le=1.0)
    min_length_correlation: float = Field(0.1, ge=-1.0, le=1.0)
    drop_duplicates: bool = False
    drop_overlap: bool = False

    @field_validator("train")
    @classmethod
    def _names_something(cls, train: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not train:
            raise ValueError("name at least one training set")
        return train

    @property
    def train_names(self) -> tuple[str, ...]:
        """The training sets, one or more."""
        return (self.train,) if isinstance(self.train, str) else self.train


@dataclass(frozen=True)
class Finding:
    """One kind of finding in one set. share: of total. examples: the first ones, each with its file and line."""

    name: str
    kind: str
    count: int
    total: int
    action: Action
    examples: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def share(self) -> float:
        """count as a share of total."""
        return self.count / max(self.total, 1)


@dataclass
class DataReport:
    """What the checks found, set by set. Prints as a table; an empty table means clean data."""

    findings: list[Finding] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By set: read, used; in units."""
    unit: str = "pairs"

    def add(self, other: DataReport) -> None:
        """Take over another report's rows."""
        self.findings += other.findings
        self.sizes |= other.sizes

    def refuse(self) -> None:
        """Raise DataError with the table if any finding is refused."""
        refused = [finding for finding in self.findings if finding.action == "refused"]
        if refused:
            first = refused[0]
            raise DataError(
                f"the data {first.name} is refused: " + "; ".join(f.reason or f.kind for f in refused),
                given=(", ".join(first.examples) or None),
                expected="data below the thresholds of the recipe's data section",
                mend=f"clean the data, or raise the threshold if it is meant to be so\n\n{self}",
            )

    def to_json(self) -> str:
        """The report as a JSON object: sizes and findings."""
        rows = [asdict(finding) | {"share": finding.share} for finding in self.findings]
        sizes = {name: {"read": read, "used": used} for name, (read, used) in self.sizes.items()}
        return json.dumps({"sizes": sizes, "findings": rows}, ensure_ascii=False, indent=1)

    def __rich__(self) -> Table:
        read = ", ".join(f"{name} {used:,} of {total:,}" for name, (total, used) in self.sizes.items())
        table = Table(title=f"{self.unit} used: {read}", title_justify="left")
        table.add_column("data", overflow="fold")
        table.add_column("finding")
        table.add_column("count", justify="right")
        table.add_column("share", justify="right")
        table.add_column("action")
        table.add_column("first at", overflow="fold")
        for row in self.findings:
            share = f"{row.share:.2%}" if row.total else ""
            table.add_row(row.name, row.kind, f"{row.count:,}", share, row.action, "\n".join(row.examples))
        if not self.findings:
            table.add_row("all", "nothing found", "0", "", "", "")
        return table

    def __str__(self) -> str:
        console = Console(width=120, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip("\n")


class Tally:
    """Counts findings of a set while it is read, with the place of the first ones."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def __call__(self, kind: str, place: str) -> None:
        """Count one. place: where, as file:line."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _MOST_EXAMPLES:
            examples.append(place)

    def counts(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """By finding: how often, and where first."""
        return {kind: (count, tuple(self._examples[kind])) for kind, count in self._counts.items()}

    def findings(self, total: int, config: DataConfig, *, training: bool) -> list[Finding]:
        """The rows of this set, with what was done and what is refused."""
        n_bad = sum(self._counts.get(kind, 0) for kind in UNUSABLE)
        bad = n_bad > config.max_bad_share * total
        copies = self._counts.get("target copies source", 0) > config.max_copy_share * total
        rows = []
        for kind, (count, examples) in self.counts().items():
            action, reason = _action(kind, config, training=training), None
            if kind in UNUSABLE and bad:
                action = "refused"
                reason = f"{kind} in {count} of {total} pairs (max_bad_share {config.max_bad_share})"
            if kind == "target copies source" and copies:
                action = "refused"
                reason = f"target equals source in {count} of {total} pairs (max_copy_share {config.max_copy_share})"
            rows.append(Finding(self._name, kind, count, total, action, examples, reason))
        return rows


def unusable(source: str, target: str, config: DataConfig) -> str | None:
    """Which of UNUSABLE holds of a cleaned pair, if any."""
    if not source.strip() or not target.strip():
        return "empty side"
    n_source, n_target = len(source), len(target)
    longer, shorter = max(n_source, n_target), min(n_source, n_target)
    # A line of n characters has at most n / 2 words and a bit: most lines need no splitting.
    if longer > config.max_chars:
        return "over-long line"
    if longer >= 2 * config.max_words and max(len(source.split()), len(target.split())) > config.max_words:
        return "over-long line"
    if longer > config.max_length_ratio * max(shorter, _SHORT_SIDE):
        return "length ratio"
    return None


def check_lengths(name: str, sources: Sequence[str], targets: Sequence[str], config: DataConfig) -> list[Finding]:
    """Whether long sources have long targets. They do in every aligned set (0.9 in captions), and do not after a
    shift by one line: the error that no check on single pairs sees."""
    lengths = np.array([[len(text) for text in side] for side in (sources, targets)], np.float64)
    if lengths.shape[1] < _PAIRS_FOR_CORRELATION or (lengths.std(axis=1) == 0).any():
        return []
    correlation = float(np.corrcoef(lengths).ravel()[1])
    if correlation >= config.min_length_correlation:
        return []
    reason = (
        f"the lengths of the two sides do not go together (correlation {correlation:.2f}, "
        f"min_length_correlation {config.min_length_correlation}): the lines are probably shifted or shuffled"
    )
    return [Finding(name, "unrelated lengths", len(sources), len(sources), "refused", (), reason)]


def check_unknown(
    name: str,
    rows: IdRows,
    place: Callable[[int], str],
    unk_id: int,
    max_share: float,
    *,
    side: str | None = None,
) -> list[Finding]:
    """The share of unknown tokens in a set, or on one side of it. place: gives a row's file:line for the message."""
    unknown = rows.ids == unk_id
    n_unknown, n_tokens = int(unknown.sum()), len(rows.ids)
    if not n_unknown:
        return []
    hit = np.searchsorted(rows.offsets, np.flatnonzero(unknown), side="right") - 1
    examples = [place(int(row)) for row in np.unique(hit)[:_MOST_EXAMPLES]]
    refused = n_unknown > max_share * n_tokens
    share = f"{n_unknown / n_tokens:.0%} of the {f'{side} ' if side else ''}tokens"
    reason = f"{share} are unknown (max_unknown_share {max_share})"
    action: Action = "refused" if refused else "kept"
    kind = f"unknown tokens, {side}" if side else "unknown tokens"
    return [Finding(name, kind, n_unknown, n_tokens, action, tuple(examples), reason if refused else None)]


def _action(kind: str, config: DataConfig, *, training: bool) -> Action:
    if not training:
        return "kept"
    if kind in UNUSABLE or (kind == "duplicate pair" and config.drop_duplicates):
        return "dropped"
    return "replaced" if kind == "control characters" else "kept"
