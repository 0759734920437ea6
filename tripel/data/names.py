"""From a name such as `multi30k/train` to files.

A name is tried as a path, then under $TRIPEL_DATA, then under the user's cache (where `tripel data get` puts sets, and
where those that are made here, such as phrasebook-de/train, are written when they are first asked for).
For a pair of languages the files may be, with or without .gz:

    NAME                        itself a .tsv or .jsonl file
    NAME.en  NAME.de            one line file per language
    NAME.en-de.en  NAME.en-de.de    the same, named after the pair (in either order), as OPUS does
    NAME.tsv  NAME.jsonl

for labelled texts NAME, NAME.tsv, NAME.csv or NAME.jsonl; and for plain text, with or without .gz:

    NAME                        itself a file: .jsonl has one document a line, any other name is text
    NAME.txt  NAME.jsonl
    NAME                        a folder: its .txt and .jsonl files in the order of their names, not those in folders of it

for pictures:

    NAME                        a folder that has a folder of pictures for each class
    NAME-images-idx3-ubyte  NAME-labels-idx1-ubyte      the files of MNIST, or .gz; t10k may stand for test
    NAME  NAME.csv              a table of paths and labels, or .gz
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from tripel.data.known import KNOWN, data_folder, search_folders
from tripel.data.made import MADE
from tripel.errors import DataError

_RECORD_KINDS: dict[str, Literal["tsv", "jsonl"]] = {".tsv": "tsv", ".jsonl": "jsonl"}
_TEXT_ENDINGS = (".txt", ".jsonl")
_LABELLED_ENDINGS = (".tsv", ".csv", ".jsonl")
_IDX_IMAGES, _IDX_LABELS = ("-images-idx3-ubyte", "-images-idx4-ubyte"), "-labels-idx1-ubyte"
_IDX_TEST = {"test": "t10k"}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_LANGUAGE = r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)?"
# How many files are looked at to name near ones in a message: a home folder can hold millions.
_MOST_FILES = 2000


@dataclass(frozen=True)
class PairFiles:
    """Where a parallel set lies. lines: source and target hold one sentence a line each; else they are one file."""

    kind: Literal["lines", "tsv", "jsonl"]
    source: Path
    target: Path


@dataclass(frozen=True)
class ImageFiles:
    """Where a set of pictures lies. path: a folder of class folders, a CSV, or the IDX file of pictures with its labels."""

    kind: Literal["folder", "csv", "idx"]
    path: Path
    labels: Path | None = None


def find_pair(name: str, source: str, target: str) -> PairFiles:
    """The files of a parallel set. Raises DataError that says what was looked for, and what there is instead."""
    bases = _bases(name)
    made = MADE.get(name.split("/")[0])
    for base in bases:
        if made is not None and base.is_relative_to(data_folder()):
            made.make(data_folder())
        found = _pair_at(base, source, target)
        if found is not None:
            return found
    for base in bases:
        languages = _languages(base)
        if languages:
            missing = " and ".join(side for side in (source, target) if side not in languages) or f"{source}-{target}"
            raise DataError(
                f"the data {name} has no side {missing}",
                given=f"source: {source}, target: {target}",
                expected=f"two of {', '.join(sorted(languages))}, which lie in {base.parent}",
                mend="set task.source and task.target to languages that are there, or add the missing file",
            )
    _refuse_single_file(name, bases, source, target)
    raise _not_found(name, bases, f".{source} and .{target}, .{source}-{target}.{source}, .tsv or .jsonl (or .gz)")


def find_text(name: str, language: str | None = None) -> Path:
    """The file of a one-sided text: NAME itself, NAME.txt, NAME.LANGUAGE or a folder NAME with one file, or .gz."""
    bases = _bases(name)
    endings = ["", ".txt", *([f".{language}"] if language else [])]
    for base in bases:
        for ending in endings:
            found = _file(base, ending)
            if found is not None:
                return found
        files = sorted(path for path in base.iterdir() if path.is_file()) if base.is_dir() else []
        if len(files) == 1:
            return files[0]
    raise _not_found(name, bases, " or ".join(ending or "the file itself" for ending in endings))


def find_texts(name: str) -> tuple[Path, ...]:
    """The files of a text: one, or those of a folder, sorted. Raises DataError that says what was looked for."""
    bases = _bases(name)
    for base in bases:
        for ending in ("", *_TEXT_ENDINGS) if base.name else ():
            found = _file(base, ending)
            if found is not None:
                return (found,)
        if base.is_dir():
            files = [path for path in _files_in(base, most=None) if _is_text(path)]
            if files:
                return tuple(files)
    for base in bases:
        if base.is_dir():
            inside = sorted(path.name for path in base.iterdir())
            raise DataError(
                f"the data {name} is a folder without text files",
                given=f"{base} with {', '.join(inside[:8]) or 'nothing in it'}",
                expected="files that end in .txt or .jsonl (or .gz after that)",
                mend="name a file, or a folder in it that has them: folders in a folder are other sets",
            )
    raise _not_found(name, bases, ", ".join(("the file itself", *_TEXT_ENDINGS)) + " (or .gz)")


def find_labelled(name: str) -> Path:
    """The file of labelled texts: NAME itself or NAME.tsv, .csv or .jsonl, or .gz. Raises DataError otherwise."""
    bases = _bases(name)
    for base in bases:
        for ending in ("", *_LABELLED_ENDINGS) if base.name else ():
            found = _file(base, ending)
            if found is not None and found.name.removesuffix(".gz").endswith(_LABELLED_ENDINGS):
                return found
            if found is not None:
                raise DataError(
                    f"the data {name} is not in a form that has labels",
                    given=found,
                    expected=f"a file that ends in {', '.join(_LABELLED_ENDINGS)} (or .gz after that)",
                    mend="name its form in its ending: label<TAB>text lines are .tsv",
                )
    raise _not_found(name, bases, " or ".join(_LABELLED_ENDINGS) + " (or .gz)")


def find_images(name: str) -> ImageFiles:
    """The files of a set of pictures. Raises DataError that says what was looked for, and what there is instead."""
    bases = _bases(name)
    for base in bases:
        found = _images_at(base)
        if found is not None:
            return found
    for base in bases:
        if base.is_dir():
            raise _no_classes(name, base)
        if base.is_file():
            raise DataError(
                f"the data {name} is not in a form that has pictures and labels",
                given=base,
                expected="a folder with a folder of pictures for each class, a .csv, or a pair of IDX files",
                mend="name the folder; of IDX files name what stands before -images-idx3-ubyte",
            )
    sought = f"a folder of class folders, .csv, {_IDX_IMAGES[0]} and {_IDX_LABELS} (or .gz)"
    sets = [path for folder in search_folders() for path in subfolders(folder)]
    near = [f"{path.name}/{part.name}" for path in sets for part in subfolders(path)]
    raise _not_found(name, bases, sought, [*(path.name for path in sets), *near[:_MOST_FILES]])


def is_jsonl(path: Path) -> bool:
    """Whether a file has a JSON document a line, by its name."""
    return path.name.removesuffix(".gz").endswith(".jsonl")


def _is_text(path: Path) -> bool:
    """Whether a file in a folder belongs to the text that the folder is, by its name."""
    return path.name.removesuffix(".gz").endswith(_TEXT_ENDINGS) and not path.name.startswith(".")


def _bases(name: str) -> list[Path]:
    if not name or "\0" in name:
        raise DataError("a data set without a name", given=repr(name), expected="a path, or a name like multi30k/train")
    path = Path(name).expanduser()
    return [path] if path.is_absolute() else [path, *(folder / path for folder in search_folders())]


def _file(base: Path, ending: str) -> Path | None:
    for path in (base.with_name(base.name + ending), base.with_name(base.name + ending + ".gz")):
        if path.is_file():
            return path
    return None


def _pair_at(base: Path, source: str, target: str) -> PairFiles | None:
    if not base.name:
        return None
    kind = _RECORD_KINDS.get(Path(base.name.removesuffix(".gz")).suffix)
    if kind and base.is_file():
        return PairFiles(kind, base, base)
    for stem in ("", f".{source}-{target}", f".{target}-{source}"):
        source_file, target_file = _file(base, f"{stem}.{source}"), _file(base, f"{stem}.{target}")
        if source_file and target_file:
            return PairFiles("lines", source_file, target_file)
    for ending, record_kind in _RECORD_KINDS.items():
        records = _file(base, ending)
        if records:
            return PairFiles(record_kind, records, records)
    return None


def _images_at(base: Path) -> ImageFiles | None:
    if base.is_dir():
        folders = subfolders(base)
        splits = [path for path in folders if path.name in _SPLITS and subfolders(path)]
        # A class may be named train, too; two sets, or nothing but sets, are the layout of ImageNet.
        are_splits = len(splits) > 1 or (splits and all(path.name in _SPLITS for path in folders))
        if folders and not are_splits:
            return ImageFiles("folder", base)
    if not base.name:
        return None
    table = base if base.name.removesuffix(".gz").endswith(".csv") and base.is_file() else _file(base, ".csv")
    if table is not None:
        return ImageFiles("csv", table)
    for stem in (base.name, _IDX_TEST.get(base.name)):
        for ending in _IDX_IMAGES if stem else ():
            images, labels = (
                _file(base.with_name(f"{stem}{ending}"), ""),
                _file(base.with_name(f"{stem}{_IDX_LABELS}"), ""),
            )
            if images and labels:
                return ImageFiles("idx", images, labels)
    return None


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, sorted; none where it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _no_classes(name: str, base: Path) -> DataError:
    """For a folder that is not itself a set of pictures."""
    sets = [path.name for path in subfolders(base)]
    sets += sorted(
        {_stem(path, base) for path in _files_in(base) if _IDX_LABELS in path.name or ".csv" in path.suffixes}
    )
    return DataError(
        f"the data {name} is a folder, not one set of pictures"
        if sets
        else f"the data {name} has no folders of classes",
        given=f"{base} with {', '.join(sorted(path.name for path in base.iterdir())[:8]) or 'nothing in it'}",
        expected=f"one of {', '.join(f'{name}/{part}' for part in sets[:8])}"
        if sets
        else "a folder of pictures for each class, named as the class",
        mend=f"name one of the sets in it, such as {name}/{'train' if 'train' in sets else sets[0]}"
        if sets
        else "put the pictures of each class into a folder of their own, or list them in a CSV of path and label",
    )


def _languages(base: Path) -> set[str]:
    """The languages for which there is a file NAME.LANGUAGE or NAME.PAIR.LANGUAGE."""
    pattern = re.compile(rf"{re.escape(base.name)}(?:\.{_LANGUAGE}-{_LANGUAGE})?\.({_LANGUAGE})(?:\.gz)?")
    matches = [pattern.fullmatch(path.name) for path in _files_in(base.parent)]
    return {match[1] for match in matches if match and match[1] not in ("txt", "tsv", "csv", "gz")}


def _refuse_single_file(name: str, bases: list[Path], source: str, target: str) -> None:
    for base in bases:
        if base.is_file():
            raise DataError(
                f"the data {name} is one file, but a translation needs two sides",
                given=base,
                expected=f"a prefix P for which P.{source} and P.{target} exist, or a .tsv or .jsonl file",
                mend=f"leave the language ending off: {name.removesuffix('.gz').rpartition('.')[0] or name}",
            )
        if base.is_dir():
            inside = sorted({_stem(path, base) for path in _files_in(base)})
            raise DataError(
                f"the data {name} is a folder, not one set",
                given=base,
                expected=f"one of {', '.join(f'{name}/{stem}' for stem in inside[:8])}" if inside else "files in it",
                mend="name one of the sets in the folder",
            )


def _not_found(name: str, bases: list[Path], endings: str, folders: Sequence[str] = ()) -> DataError:
    """folders: those that are sets."""
    names = {_stem(path, folder) for folder in search_folders() for path in _files_in(folder, deep=True)}
    names |= {_stem(path, Path(".")) for path in _files_in(bases[0].parent)} if not bases[0].is_absolute() else set()
    if bases[0].is_absolute():
        names |= {str(bases[0].parent / _stem(path, bases[0].parent)) for path in _files_in(bases[0].parent)}
    near = difflib.get_close_matches(name, names.union(folders), n=3, cutoff=0.5)
    known = name.split("/")[0]
    ways = [f"did you mean {' or '.join(near)}?"] * bool(near)
    ways += [f"tripel data get {known}"] * (known in KNOWN)
    if not ways:
        ways = ["give a path, or put the files under $TRIPEL_DATA; `tripel data list` shows the sets that can be had"]
    return DataError(
        f"there is no data {name}",
        given=" ; ".join(str(base) for base in bases) + f" with {endings}",
        expected="existing files" + (f"; near names: {', '.join(near)}" if near else ""),
        mend=" or else: ".join(ways),
    )


def _files_in(folder: Path, *, deep: bool = False, most: int | None = _MOST_FILES) -> list[Path]:
    """Files in a folder (and in the folders in it), not more than a message needs; none where it cannot be read."""

    def walk() -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                yield path
            elif deep and path.is_dir():
                yield from _files_in(path)

    try:
        return list(islice(walk(), most))
    except OSError:
        return []


def _stem(path: Path, folder: Path) -> str:
    """The name under which a file of a set is asked for: relative, without .gz, language, pair and record kind."""
    name = path.relative_to(folder).as_posix().removesuffix(".gz")
    if name.endswith("-ubyte"):  # test is the name by which t10k is asked for everywhere else
        return re.sub(r"-(?:images|labels)-idx\d-ubyte$", "", name).replace("t10k", "test")
    return re.sub(rf"(?:\.{_LANGUAGE}-{_LANGUAGE})?\.(?:{_LANGUAGE}|tsv|csv|jsonl|txt)$", "", name)
