"""What a set of pictures consists of, before any picture is decoded: folder per class, IDX files, CSV of path and label."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripel.data.checks import Tally
from tripel.data.examples import read_examples
from tripel.data.idx import read_idx_pair
from tripel.data.known import KNOWN
from tripel.data.names import ImageFiles, subfolders
from tripel.data.pictures import ENDINGS
from tripel.data.readers import read_lines, unreadable
from tripel.errors import DataError
from tripel.text.clean import clean

UNLABELLED = ("bad UTF-8", "over-long line", "bad record", "empty label")
"""The findings that leave no picture with a label."""
OTHER_FILE = "file that is no picture"

CLASS_NAMES = "labels.txt"
"""Beside IDX files: the names of classes 0, 1, ..., one a line."""

_SHOWN = 8


@dataclass(frozen=True)
class ImageSource:
    """Pictures with labels. originals: a file for each, or an array of grey pictures uint8 [n, height, width] or of
    colours [n, height, width, 3]. places: the files' names, or file:number. n_read: with those that have no label."""

    labels: list[str]
    places: list[str]
    originals: list[Path] | np.ndarray
    n_read: int


def read_source(
    files: ImageFiles, tally: Tally, *, path_column: str, label_column: str, max_pixels: int
) -> ImageSource:
    """List a set's pictures; what has no label is counted by tally.

    Raises DataError for class folders that are empty, for files that cannot be read, and for IDX whose header lies.
    """
    if files.kind == "folder":
        return _of_folder(files.path, tally)
    if files.kind == "csv":
        return _of_csv(files.path, tally, path_column, label_column)
    assert files.labels is not None
    return _of_idx(files.path, files.labels, max_pixels)


def pictures_in(folder: Path, others: Tally | None = None) -> list[Path]:
    """The pictures in a folder and in those in it, sorted, by the endings of their names; nothing hidden. others: counts
    the other files. Raises DataError for a folder that cannot be read."""
    found, seen = [], {os.path.realpath(folder)}
    for here, folders, names in os.walk(folder, onerror=_raise_unreadable, followlinks=True):
        folders[:] = [name for name in _shown(folders) if _is_new(os.path.realpath(os.path.join(here, name)), seen)]
        for name in _shown(names):
            if name.lower().endswith(ENDINGS):
                found.append(Path(here, name))
            elif others is not None:
                others(OTHER_FILE, os.path.join(here, name))
    return found


def _raise_unreadable(error: OSError) -> None:
    raise unreadable(Path(error.filename), None, error)


def _shown(names: list[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def _is_new(path: str, seen: set[str]) -> bool:
    """Whether a folder was not seen before; links may lead in a circle."""
    new = path not in seen
    seen.add(path)
    return new


def _of_folder(folder: Path, tally: Tally) -> ImageSource:
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            tally(OTHER_FILE, str(path))
    found = {path.name: pictures_in(path, tally) for path in subfolders(folder)}
    empty = [label for label, pictures in found.items() if not pictures]
    if empty:
        raise DataError(
            "the folder of a class has no picture",
            file=folder,
            given=", ".join(empty[:_SHOWN]) + (f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""),
            expected=f"files that end in {', '.join(ENDINGS)} in each",
            mend="add pictures of this class, or remove its folder: a class without pictures cannot be learned",
        )
    paths = [path for pictures in found.values() for path in pictures]
    labels = [label for label, pictures in found.items() for _ in pictures]
    return ImageSource(labels, [str(path) for path in paths], paths, len(paths))


def _of_csv(path: Path, tally: Tally, path_column: str, label_column: str) -> ImageSource:
    paths: list[Path] = []
    labels: list[str] = []
    total = 0
    for example in read_examples(path, path_column, label_column, text_option="path_column"):
        total += 1
        label = " ".join(clean(example.label).text.split())
        no_path = None if example.text.strip() else "bad record"
        problem = example.problem or no_path or (None if label else "empty label")
        if problem is not None:
            tally(problem, f"{path}:{example.line}")
            continue
        paths.append(path.parent / example.text.strip())
        labels.append(label)
    return ImageSource(labels, [str(path) for path in paths], paths, total)


def _of_idx(images: Path, labels: Path, max_pixels: int) -> ImageSource:
    pictures, numbers = read_idx_pair(images, labels, max_pixels=max_pixels)
    names = _class_names(labels, int(numbers.max()))
    places = [f"{images}:{number}" for number in range(len(pictures))]
    return ImageSource([names[number] for number in numbers.tolist()], places, pictures, len(pictures))


def _class_names(labels: Path, most: int) -> list[str]:
    """What the numbers up to most stand for: by the file beside them, by what is known of the set, or only themselves."""
    beside = labels.with_name(CLASS_NAMES)
    if beside.is_file():
        names = [" ".join(clean(line.text).text.split()) for line in read_lines(beside)]
        if most >= len(names) or not all(names) or len(set(names)) < len(names):
            raise DataError(
                "the names of classes do not fit the labels",
                file=beside,
                given=f"{len(names)} lines, {len(set(names) - {''})} different names",
                expected=f"a name of its own for each label from 0 to {most}, one a line",
                mend=f"complete the file, or remove it: classes are then named 0 to {most}",
            )
        return names
    known = KNOWN.get(labels.parent.name)
    if known is not None and most < len(known.classes):
        return list(known.classes)
    return [str(number) for number in range(most + 1)]
