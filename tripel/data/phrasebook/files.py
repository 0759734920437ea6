"""Writes the phrasebook as parallel text files with their word alignments."""

from __future__ import annotations

from pathlib import Path

from tripel.data.phrasebook.generator import SPLITS, Pair, PhrasebookSplits, Target, check_request, generate
from tripel.errors import DataError


def write(directory: str | Path, target: Target, count: int, seed: int) -> PhrasebookSplits:
    """Generates and writes SPLIT.en, SPLIT.de (or .fr) and SPLIT.align for train, valid, test and compositional.

    A line of an .align file is in Pharaoh format, "0-0 1-2 ...": source index, hyphen, target index, both counted from 0
    over the tokens of split_words. The folder is made when absent. Raises DataError when it holds files already or cannot
    be written.
    """
    check_request(target, count)
    folder = Path(directory)
    _prepare(folder)
    splits = generate(target, count, seed)
    try:
        for name in SPLITS:
            _write_split(folder, name, target, getattr(splits, name))
    except OSError as error:
        raise DataError(
            "The phrasebook could not be written.",
            file=folder,
            given=error.strerror or error,
            mend="Choose a folder with enough space that you may write to.",
        ) from error
    return splits


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise DataError(
            "The output folder cannot be used.",
            file=folder,
            given=error.strerror or error,
            expected="a folder that exists or can be made",
            mend="Choose a folder that you may write to.",
        ) from error
    if occupied:
        raise DataError(
            "The output folder is not empty.",
            file=folder,
            expected="an empty or new folder",
            mend="Choose another folder or empty this one.",
        )


def _write_split(folder: Path, name: str, target: Target, pairs: list[Pair]) -> None:
    alignments = (" ".join(f"{i}-{j}" for i, j in pair.alignment) for pair in pairs)
    columns = {
        "en": (pair.source for pair in pairs),
        target: (pair.target for pair in pairs),
        "align": alignments,
    }
    for ending, lines in columns.items():
        (folder / f"{name}.{ending}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
