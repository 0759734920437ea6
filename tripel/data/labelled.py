"""Texts with labels, for classifiers: TSV, CSV and JSONL, plain or .gz, read by streaming, checked and reported.

    .tsv    label<TAB>text without a header, as the sets of sentence classification have it; or columns under a header line
    .csv    columns under a header line, quoted where they need it
    .jsonl  one object a line

A header names the columns: text_column and label_column, `text` and `label` unless the recipe says otherwise.

    finding               what is done with training data              refused above
    bad UTF-8             dropped                                      max_bad_share, together with the next five
    bad record            dropped (not all columns, no such key)
    over-long line        dropped
    over-long text        dropped (max_chars)
    empty text            dropped
    empty label           dropped
    control characters    replaced by spaces or removed                -
    duplicate             kept, or dropped with drop_duplicates        -
    conflicting labels    (the text stood before, labelled otherwise)  as duplicates
    also in valid, test   kept, or dropped with drop_overlap           -
    unequal classes       told                                         -
    unknown tokens        kept                                         max_unknown_share

Of validation and test data nothing is changed, and only what has no label to be scored by (bad record, empty label) is
left out; they are refused above the same thresholds. Labels are compared as they are written, without outer space. One
class only, and labels that the training set has not, are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from tripel.config import Config
from tripel.data.checks import Action, DataReport, Finding, Tally, check_unknown
from tripel.data.classes import (
    SHARE_STEPS,
    TEXTS,
    LabelsSeen,
    Repeat,
    against,
    classes_of,
    divided,
    findings_of,
    report_classes,
    require_known,
)
from tripel.data.examples import LABEL_COLUMN, TEXT_COLUMN, Example, read_examples
from tripel.data.names import find_labelled
from tripel.errors import DataError
from tripel.text.clean import clean
from tripel.text.rows import IdRows

UNUSABLE = ("bad UTF-8", "bad record", "over-long line", "over-long text", "empty text", "empty label")
"""The findings that make an example of no use for training."""

_UNSCORABLE = ("bad record", "empty label")


class LabelledDataConfig(Config):
    """Which labelled texts, and what is expected of them. Names are resolved as tripel.data.names says.

    text_column, label_column: names of columns (TSV and CSV with a header) or keys (JSONL). valid_share: when valid is
    null, about this share of train, chosen by its texts and hence always the same, is the validation set. max_chars: of a
    text. drop_duplicates: use every training text once, with the label that it has first. drop_overlap: leave out training
    texts that are also in the validation or test set. Shares are of examples or tokens, from 0 to 1; a share of 1 switches a
    refusal off.
    """

    kind: Literal["labelled"] = "labelled"
    train: str | tuple[str, ...]
    valid: str | None = None
    test: str | None = None
    valid_share: float = Field(0.0, ge=0.0, lt=1.0)
    text_column: str = Field(TEXT_COLUMN, min_length=1)
    label_column: str = Field(LABEL_COLUMN, min_length=1)
    max_chars: int = Field(20_000, ge=1, le=60_000)
    max_bad_share: float = Field(0.05, ge=0.0, le=1.0)
    max_unknown_share: float = Field(0.1, ge=0.0, le=1.0)
    drop_duplicates: bool = False
    drop_overlap: bool = False

    @field_validator("train")
    @classmethod
    def _names_something(cls, train: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not train:
            raise ValueError("name at least one training set")
        return train

    @model_validator(mode="after")
    def _one_validation_set(self) -> LabelledDataConfig:
        if self.valid is not None and self.valid_share:
            raise ValueError("valid names a validation set and valid_share asks for another: give one of them")
        return self

    @property
    def train_names(self) -> tuple[str, ...]:
        """The training sets, one or more."""
        return (self.train,) if isinstance(self.train, str) else self.train


@dataclass(frozen=True)
class LabelledText:
    """A set's texts and labels. places: where each was read, as file:line."""

    name: str
    texts: list[str]
    labels: list[str]
    places: list[str]
    _digest: list[str] = field(default_factory=list, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def fingerprint(self) -> str:
        """A hash of the texts: the key of what is derived from them."""
        if not self._digest:
            digest = hashlib.sha256()
            for text in self.texts:  # in CSV and JSONL a text may have lines, so that no character parts texts
                encoded = text.encode("utf-8", "surrogatepass")
                digest.update(b"%d:" % len(encoded) + encoded)
            self._digest.append(digest.hexdigest())
        return self._digest[0]

    def taken(self, indices: Sequence[int], name: str | None = None) -> LabelledText:
        """Some of the examples, in that order."""
        parts = ([side[i] for i in indices] for side in (self.texts, self.labels, self.places))
        return LabelledText(name or self.name, *parts)


@dataclass(frozen=True)
class LabelledSplits:
    """The sets of a recipe, checked singly and against each other. labels: the classes, those of the training set."""

    train: LabelledText
    valid: LabelledText | None
    test: LabelledText | None
    labels: tuple[str, ...]
    report: DataReport


def load_labelled_splits(config: LabelledDataConfig) -> LabelledSplits:
    """Read and check every set a recipe names.

    Raises DataError for what load_labelled raises, for a training set of one class or of hardly an example for each label,
    and for labels in another set that the training set has not.
    """
    report = DataReport(unit=TEXTS.unit)
    parts, seen = [], LabelsSeen()
    for name in config.train_names:
        part, findings = load_labelled(name, config, training=True, seen=seen)
        parts.append(part)
        report.add(findings)
    train = _joined(parts)
    held_out: list[LabelledText | None] = []
    for held_out_name in (config.valid, config.test):
        if held_out_name is None:
            held_out.append(None)
            continue
        text, findings = load_labelled(held_out_name, config, training=False)
        report.add(findings)
        train = against(train, text, _keys, report, drop=config.drop_overlap)
        held_out.append(text)
    valid, test = held_out
    labels = classes_of(train)
    if valid is None and config.valid_share:
        train, valid = divided(train, config.valid_share, _draws(train), TEXTS.unit)
    for other in (valid, test):
        if other is not None:
            require_known(other, labels)
    report_classes(train, report)
    return LabelledSplits(train, valid, test, labels, report)


def load_labelled(
    name: str, config: LabelledDataConfig, *, training: bool, seen: LabelsSeen | None = None
) -> tuple[LabelledText, DataReport]:
    """Read and check one set.

    training: texts are cleaned (see text.clean) and unusable examples dropped; otherwise see above. seen: texts of other
    sets, of which repeats are found as well. Raises DataError when the set cannot be found or read, lacks a column, or a
    check refuses it.
    """
    path = find_labelled(name)
    tally, total, seen = Tally(name), 0, LabelsSeen() if seen is None else seen
    text = LabelledText(name, [], [], [])
    for example in read_examples(path, config.text_column, config.label_column):
        total += 1
        place = f"{path}:{example.line}"
        cleaned = clean(example.text)
        if cleaned.n_controls or cleaned.n_invisible:
            tally("control characters", place)
        label = " ".join(clean(example.label).text.split())
        kind = _unusable(example, cleaned.text, label, config)
        if kind is not None:
            tally(kind, place)
            if training or kind in _UNSCORABLE:
                continue
        repeat = seen.repeat(_key(cleaned.text), label)
        if repeat is not None:
            tally(repeat, place)
            if training and config.drop_duplicates:
                continue
        text.texts.append(cleaned.text.strip() if training else example.text)
        text.labels.append(label)
        text.places.append(place)
    findings = _findings(tally, name, total, config, training=training)
    report = DataReport(findings, {name: (total, len(text))}, "examples")
    report.refuse()
    if not text.texts:
        raise DataError("no example is left", file=path, given=f"{total} examples", mend=f"see the report\n\n{report}")
    return text, report


def report_unknown_texts(
    report: DataReport, text: LabelledText, rows: IdRows, unk_id: int, config: LabelledDataConfig
) -> None:
    """Add a set's share of unknown tokens to a report. Raises DataError when it is above the threshold."""
    findings = check_unknown(text.name, rows, text.places.__getitem__, unk_id, config.max_unknown_share)
    report.add(DataReport(findings))
    report.refuse()


def _unusable(example: Example, text: str, label: str, config: LabelledDataConfig) -> str | None:
    """Which of UNUSABLE holds of an example, if any. text, label: cleaned."""
    if example.problem is not None:
        return example.problem
    if not label:
        return "empty label"
    if not text.strip():
        return "empty text"
    return "over-long text" if len(text) > config.max_chars else None


def _findings(tally: Tally, name: str, total: int, config: LabelledDataConfig, *, training: bool) -> list[Finding]:
    return findings_of(
        tally,
        name,
        total,
        lambda kind: _action(kind, config, training=training),
        unusable=UNUSABLE,
        max_bad_share=config.max_bad_share,
        unit=TEXTS.unit,
    )


def _action(kind: str, config: LabelledDataConfig, *, training: bool) -> Action:
    if kind in _UNSCORABLE or (
        training and (kind in UNUSABLE or (kind in get_args(Repeat) and config.drop_duplicates))
    ):
        return "dropped"
    return "replaced" if training and kind == "control characters" else "kept"


def _joined(parts: list[LabelledText]) -> LabelledText:
    if len(parts) == 1:
        return parts[0]
    return LabelledText(
        ", ".join(part.name for part in parts),
        [text for part in parts for text in part.texts],
        [label for part in parts for label in part.labels],
        [place for part in parts for place in part.places],
    )


def _keys(text: LabelledText) -> list[str]:
    return [_key(written) for written in text.texts]


def _draws(text: LabelledText) -> list[int]:
    """Each text's own hash, as tripel.data.classes.divided takes it."""
    return [int(hashlib.sha256(key.encode("utf-8")).hexdigest()[:12], 16) % SHARE_STEPS for key in _keys(text)]


def _key(text: str) -> str:
    """What counts as the same text: up to cleaning, case and outer space."""
    return clean(text, lowercase=True).text.strip()
