"""Pictures with labels, for image classifiers: a folder per class, IDX files or a CSV, checked and reported.

    finding                   what is done                                      refused above
    unreadable picture        dropped, its cause told (see pictures)            max_bad_share, together with the next four
    bad record                dropped (CSV: a row without path or label)
    bad UTF-8                 dropped (CSV)
    over-long line            dropped (CSV)
    empty label               dropped (CSV)
    file that is no picture   passed over (in folders)                          -
    duplicate                 kept, or dropped with drop_duplicates             -
    conflicting labels        (the same picture stood before, labelled otherwise)  as duplicates
    also in valid, test       kept, or dropped with drop_overlap                -
    smaller than the model    enlarged                                          -
    unequal classes           told                                              -

Repeats are dropped from training data alone. What cannot be read, or has no label, is dropped from validation and test
data as well: it is not scored, and the report says so. One class only, an empty class folder, and labels that the training
set has not, are refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, field_validator, model_validator

from tripel.config import Config
from tripel.data.augment import AugmentConfig
from tripel.data.checks import Action, DataReport, Finding, Tally
from tripel.data.classes import (
    SHARE_STEPS,
    LabelsSeen,
    Repeat,
    Wording,
    against,
    classes_of,
    divided,
    findings_of,
    report_classes,
    require_known,
)
from tripel.data.decoding import Form, Originals
from tripel.data.image_sources import OTHER_FILE, UNLABELLED, ImageSource, read_source
from tripel.data.image_store import JoinedPixels, Pixels, Prepared, prepare, shares
from tripel.data.names import find_images
from tripel.data.pictures import Fit, Resample
from tripel.errors import DataError

_UNREADABLE = "unreadable picture"
_UNUSABLE = (_UNREADABLE, *UNLABELLED)
_PICTURES = Wording(
    "picture",
    "name a folder that has a folder of pictures for each class, or a CSV with their labels (data.label_column)",
    "look whether the right column is read as the label (data.label_column), or whether folders stand for pictures",
)


class Statistics(Config):
    """Mean and standard deviation of each channel, of pixels that count from 0 to 1."""

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _as_many(self) -> Statistics:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"{len(self.mean)} means and {len(self.std)} deviations: give one of each for every channel"
            )
        return self


class ImageDataConfig(Config):
    """Which pictures, how they are brought to the model's size, and what is expected of them. Names are resolved as
    tripel.data.names says.

    path_column, label_column: of a CSV. valid_share: when valid is null, about this share of train, chosen by its pictures
    and hence always the same, is the validation set. train_share: of what then is the training set, use only this share of
    every class; the pictures of a smaller share are among those of a larger one.
    fit: stretch makes any picture square; crop brings its shorter side to the size divided by crop_share and cuts out the
    centre. stored_size: training pictures are kept at this side length (null: the model's image_size), so that random crops
    have more to see. augment: how training pictures are changed at random. class_weights: balanced makes all classes count
    alike. normalise: what is taken away from pixels and what they are divided by: the training set's mean and deviation
    (data), 0.5 (half), ImageNet's (imagenet), nothing (none), or numbers.
    max_pixels: of one picture. max_bad_share: what may be unreadable, from 0 to 1. drop_duplicates: use every training
    picture once, with the label that it has first. drop_overlap: leave out training pictures that are also in the validation
    or test set. cache_gib: the pixels of a set are kept in the user's cache up to so many GiB, else they are decoded each
    time. workers: processes that decode, 0: one for each core, 1: none beside this one.
    """

    kind: Literal["images"] = "images"
    train: str | tuple[str, ...]
    valid: str | None = None
    test: str | None = None
    valid_share: float = Field(0.0, ge=0.0, lt=1.0)
    train_share: float = Field(1.0, gt=0.0, le=1.0)
    path_column: str = Field("path", min_length=1)
    label_column: str = Field("label", min_length=1)
    fit: Fit = "stretch"
    crop_share: float = Field(1.0, gt=0.0, le=1.0)
    resample: Resample = "bilinear"
    stored_size: int | None = Field(None, ge=1, le=4096)
    augment: AugmentConfig = AugmentConfig()
    class_weights: Literal["none", "balanced"] = "none"
    normalise: Literal["data", "half", "imagenet", "none"] | Statistics = "data"
    max_pixels: int = Field(50_000_000, ge=1, le=1 << 31)
    max_bad_share: float = Field(0.05, ge=0.0, le=1.0)
    drop_duplicates: bool = False
    drop_overlap: bool = False
    cache_gib: float = Field(4.0, ge=0.0)
    workers: int = Field(0, ge=0, le=256)

    @field_validator("train")
    @classmethod
    def _names_something(cls, train: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not train:
            raise ValueError("name at least one training set")
        return train

    @model_validator(mode="after")
    def _one_validation_set(self) -> ImageDataConfig:
        if self.valid is not None and self.valid_share:
            raise ValueError("valid names a validation set and valid_share asks for another: give one of them")
        return self

    @property
    def train_names(self) -> tuple[str, ...]:
        """The training sets, one or more."""
        return (self.train,) if isinstance(self.train, str) else self.train


@dataclass(frozen=True)
class ImageSet:
    """A set's pictures and labels. places: where each was read, a file or file:number. size, channels: of its pixels.

    source, rows, digests: where the pixels are, which of them belong to the set, and what stands for each picture.
    """

    name: str
    labels: list[str]
    places: list[str]
    size: int
    channels: int
    source: Pixels = field(repr=False)
    rows: np.ndarray = field(repr=False)
    digests: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """A hash of the pictures, whatever files they came from: the key of what is derived from them."""
        content = self.digests.astype(">u8").tobytes()
        return hashlib.sha256(f"{self.size} {self.channels} ".encode() + content).hexdigest()

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Some of the pictures, uint8 [len(rows), channels, size, size]."""
        return self.source.read(self.rows[rows])

    def taken(self, indices: Sequence[int], name: str | None = None) -> ImageSet:
        """Some of the pictures, in that order."""
        chosen = np.asarray(indices, np.int64)
        return ImageSet(
            name or self.name,
            [self.labels[i] for i in indices],
            [self.places[i] for i in indices],
            self.size,
            self.channels,
            self.source,
            self.rows[chosen],
            self.digests[chosen],
        )

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all pixels, which count from 0 to 1."""
        levels, squares = self.source.moments(self.rows) / (len(self) * self.size**2)
        std = np.sqrt(np.maximum(squares - levels**2, 0.0))
        return tuple((levels / 255).tolist()), tuple((std / 255).tolist())


@dataclass(frozen=True)
class ImageSplits:
    """The sets of a recipe, checked singly and against each other. labels: the classes, those of the training set."""

    train: ImageSet
    valid: ImageSet | None
    test: ImageSet | None
    labels: tuple[str, ...]
    report: DataReport


def load_image_splits(config: ImageDataConfig, *, image_size: int, channels: int) -> ImageSplits:
    """Read and check every set a recipe names, for a model that sees image_size x image_size pixels.

    Training pictures have config.stored_size, validation and test pictures image_size. Raises DataError for what
    load_images raises, for a training set of one class, and for labels in another set that the training set has not.
    """
    report, seen = DataReport(unit=_PICTURES.unit), LabelsSeen()
    parts = []
    for name in config.train_names:
        form = _form(config, config.stored_size or image_size, channels)
        part = _load(name, config, form, image_size, seen, training=True)
        parts.append(part)
        report.add(part.report)
    train = _joined(parts)
    held_out: list[ImageSet | None] = []
    for held_out_name in (config.valid, config.test):
        if held_out_name is None:
            held_out.append(None)
            continue
        images, findings = load_images(held_out_name, config, image_size=image_size, channels=channels, training=False)
        report.add(findings)
        train = against(train, images, _keys, report, drop=config.drop_overlap)
        held_out.append(images)
    valid, test = held_out
    labels = classes_of(train, _PICTURES)
    if valid is None and config.valid_share:
        draws = [key % SHARE_STEPS for key in _keys(train)]
        train, valid = divided(train, config.valid_share, draws, _PICTURES.unit)
        if train.size != image_size:
            valid = _in_form(valid, [part.originals for part in parts], _form(config, image_size, channels), config)
    train = _shared_out(train, config.train_share, report)
    for other in (valid, test):
        if other is not None:
            require_known(other, labels)
    report_classes(train, report)
    return ImageSplits(train, valid, test, labels, report)


def load_images(
    name: str, config: ImageDataConfig, *, image_size: int, channels: int, training: bool
) -> tuple[ImageSet, DataReport]:
    """Read and check one set. training: what is repeated is dropped if asked for, and the pixels have config.stored_size.

    Raises DataError when the set cannot be found or read, or a check refuses it.
    """
    form = _form(config, config.stored_size or image_size if training else image_size, channels)
    loaded = _load(name, config, form, image_size, LabelsSeen(), training=training)
    return loaded.images, loaded.report


@dataclass(frozen=True)
class _Loaded:
    """A set, and what its pixels were made from."""

    images: ImageSet
    originals: Originals
    report: DataReport


def _load(
    name: str, config: ImageDataConfig, form: Form, image_size: int, seen: LabelsSeen, *, training: bool
) -> _Loaded:
    """seen: the pictures of sets before this, of which repeats are found as well."""
    files, tally = find_images(name), Tally(name)
    columns = {"path_column": config.path_column, "label_column": config.label_column}
    source = read_source(files, tally, **columns, max_pixels=config.max_pixels)
    prepared = prepare(source.originals, form, cache_gib=config.cache_gib, workers=config.workers)
    kept = _kept(source, prepared, tally, seen, drop_repeats=training and config.drop_duplicates)
    report = DataReport(unit=_PICTURES.unit, sizes={name: (source.n_read, len(kept))})
    report.findings += _findings(tally, name, source.n_read, config, training=training)
    report.refuse()
    if not kept:
        given = f"{source.n_read} pictures"
        raise DataError("no picture is left", file=files.path, given=given, mend=f"see the report\n\n{report}")
    report.findings += _smaller(name, prepared, source.places, image_size)
    labels, places = ([side[index] for index in kept] for side in (source.labels, source.places))
    rows = np.asarray(kept, np.int64)
    images = ImageSet(name, labels, places, form.size, form.channels, prepared.pixels, rows, prepared.digests[rows])
    return _Loaded(images, source.originals, report)


def _form(config: ImageDataConfig, size: int, channels: int) -> Form:
    return Form(size, channels, config.fit, config.crop_share, config.resample, config.max_pixels)


def _kept(source: ImageSource, prepared: Prepared, tally: Tally, seen: LabelsSeen, *, drop_repeats: bool) -> list[int]:
    """The numbers of the pictures that are used."""
    kept = []
    for index, (label, number) in enumerate(zip(source.labels, prepared.digests.tolist(), strict=True)):
        if index in prepared.problems:
            tally(_UNREADABLE, f"{source.places[index]} ({prepared.problems[index]})")
            continue
        repeat = seen.repeat(number, label)
        if repeat is not None:
            tally(repeat, source.places[index])
            if drop_repeats:
                continue
        kept.append(index)
    return kept


def _findings(tally: Tally, name: str, total: int, config: ImageDataConfig, *, training: bool) -> list[Finding]:
    def action(kind: str) -> Action:
        repeated = training and config.drop_duplicates and kind in get_args(Repeat)
        return "dropped" if kind in _UNUSABLE or kind == OTHER_FILE or repeated else "kept"

    found = findings_of(
        tally, name, total, action, unusable=_UNUSABLE, max_bad_share=config.max_bad_share, unit=_PICTURES.unit
    )
    if training:
        return found
    return [replace(row, kind=f"{row.kind}, not scored") if row.kind in _UNUSABLE else row for row in found]


def _smaller(name: str, prepared: Prepared, places: list[str], image_size: int) -> list[Finding]:
    """Of pictures that have fewer pixels than the model sees: it cannot see more than there is."""
    shorter = prepared.sizes.min(axis=1)
    small = np.flatnonzero((shorter < image_size) & (shorter > 0))
    if not len(small):
        return []
    first = tuple(f"{places[row]} ({prepared.sizes[row, 0]} x {prepared.sizes[row, 1]})" for row in small[:3])
    kind = f"smaller than {image_size} x {image_size}"
    return [Finding(name, kind, len(small), len(prepared.sizes), "kept", first)]


def _joined(parts: list[_Loaded]) -> ImageSet:
    if len(parts) == 1:
        return parts[0].images
    sets, lengths = [part.images for part in parts], [len(part.originals) for part in parts]
    starts = np.cumsum([0, *lengths[:-1]])
    return ImageSet(
        ", ".join(images.name for images in sets),
        [label for images in sets for label in images.labels],
        [place for images in sets for place in images.places],
        sets[0].size,
        sets[0].channels,
        JoinedPixels([images.source for images in sets], lengths),
        np.concatenate([images.rows + start for images, start in zip(sets, starts, strict=True)]),
        np.concatenate([images.digests for images in sets]),
    )


def _in_form(images: ImageSet, originals: list[Originals], form: Form, config: ImageDataConfig) -> ImageSet:
    """The same pictures made anew in another form. originals: of the sets that images is part of, in their order."""
    pixels: list[Pixels] = []
    lengths: list[int] = []
    rows = np.empty_like(images.rows)
    for k, own, mine in shares(images.rows, [len(part) for part in originals]):
        part = originals[k]
        chosen = part[own] if isinstance(part, np.ndarray) else [part[row] for row in own]
        rows[mine] = sum(lengths) + np.arange(len(own))
        pixels.append(prepare(chosen, form, cache_gib=config.cache_gib, workers=config.workers).pixels)
        lengths.append(len(own))
    return replace(images, size=form.size, source=JoinedPixels(pixels, lengths), rows=rows)


def _shared_out(train: ImageSet, share: float, report: DataReport) -> ImageSet:
    """Of every class the pictures whose digests come first, so that a smaller share is part of a larger one."""
    if share == 1.0:
        return train
    labels = np.array(train.labels)
    kept = []
    for label in dict.fromkeys(train.labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(train.digests[members], kind="stable")]
        kept.append(members[: math.ceil(share * len(members))])
    rows = np.sort(np.concatenate(kept))
    left_out = len(train) - len(rows)
    report.findings.append(Finding(train.name, f"beyond train_share {share:g}", left_out, len(train), "dropped"))
    return train.taken(rows.tolist(), f"{train.name}, {share:.2%} of it")


def _keys(images: ImageSet) -> list[int]:
    return images.digests.tolist()  # type: ignore[no-any-return]
