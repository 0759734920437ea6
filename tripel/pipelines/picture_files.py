"""Files and folders of pictures in, labels out, one a line. What `tripel classify` runs for pictures."""

from __future__ import annotations

import json as jsonlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tripel.data.checks import Tally
from tripel.data.image_sources import OTHER_FILE, pictures_in
from tripel.data.pictures import ENDINGS
from tripel.errors import DataError, InputError, TripelError
from tripel.pipelines.images import TOP, ImageClassifier, PictureClassification, UnreadPicture

_BAR = 24  # characters of a probability of 1


def classify_paths(
    classifier: ImageClassifier,
    given: Sequence[str],
    out: TextIO,
    *,
    console: Console,
    top: int | None,
    json: bool,
) -> int:
    """The label of each picture given as an argument, itself or within a folder, after its path; of a single file the label
    alone, and probabilities on console.

    Returns how many could not be read, each of which is named on console. Raises DataError when none of the paths exists, or
    there is only one and no picture there.
    """
    if not any(map(os.path.exists, given)):
        _require_there(Path(given[0]))  # perhaps the words of a text
    if len(given) == 1 and not os.path.isdir(given[0]):
        (answer,) = classifier.classify(given, top=top or TOP)
        out.write(_json(answer) if json else f"{answer.label}\n")
        if not json:
            console.print(_probabilities(answer))
        telling = _Telling(console, classifier)
        telling.answered(answer)
        return telling.end()
    telling = _Telling(console, classifier)
    return _classify(classifier, _expanded(given, telling, alone=len(given) == 1), out, telling, top=top, json=json)


def classify_listed(
    classifier: ImageClassifier, lines: Iterable[str], out: TextIO, *, console: Console, top: int | None, json: bool
) -> int:
    """As classify_paths, for lines that are paths; blank ones are passed over. At a terminal each is answered at once."""
    typed, telling = lines is sys.stdin, _Telling(console, classifier)
    given = (path for line in lines if (path := line.rstrip("\r\n")).strip())
    return _classify(classifier, _expanded(given, telling), out, telling, top=top, json=json, at_once=typed)


def refuse_pictures(given: Sequence[str]) -> None:
    """Raise InputError when what was given to a classifier of texts are files of pictures, whose names are not meant."""
    found = [path for path in given if path.lower().endswith(ENDINGS) and os.path.isfile(path)]
    if found:
        raise InputError(
            "this run classifies texts, not pictures",
            given=", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else ""),
            expected="texts",
            mend="use a run that was trained on pictures; texts that are names of files can be given by --input",
        )


def in_one_line(source: str) -> str:
    """A path as the first of several columns, in UTF-8."""
    return re.sub(r"[\t\r\n]", " ", _printable(source))


class _Telling:
    """What the person is told beside the answers: what could not be read as it happens, the rest once, at the end."""

    def __init__(self, console: Console, classifier: ImageClassifier) -> None:
        self._console, self._classifier = console, classifier
        self._n_answers, self._n_unread, self._changes = 0, 0, Counter[str]()
        self.others = Tally("folders")

    def unread(self, error: TripelError) -> None:
        self._n_unread += 1
        self._say(f"not read: {error.what}" + ("" if error.given is None else f": {error.given}"), style="red")

    def answered(self, answer: PictureClassification) -> None:
        self._n_answers += 1
        self._changes.update(answer.changes)

    def end(self) -> int:
        """Returns how many could not be read."""
        config, fit = self._classifier.model.config, self._classifier.model.vocabulary.fit
        done = "resized, whatever their proportions" if fit == "stretch" else "resized, and the centre cut out"
        for change, said in (
            ("resized", f"not of the model's {config.image_size} x {config.image_size} pixels: {done}"),
            ("made grey", "in colours: made grey, as the model sees nothing else"),
            ("made coloured", "grey: given to a model of colours as they are"),
        ):
            if count := self._changes[change]:
                self._say(f"note: {_of(count, self._n_answers)} {said}")
        if OTHER_FILE in (others := self.others.counts()):
            count, first = others[OTHER_FILE]
            are = "file is no picture by its name" if count == 1 else "files are no pictures by their names"
            self._say(f"note: passed over: {count:,} {are}: {', '.join(first[:1])}{' ...' * (count > 1)}")
        if self._n_unread:
            total = self._n_unread + self._n_answers
            self._say(f"error: {self._n_unread:,} of {total:,} could not be read", style="red")
        return self._n_unread

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(_printable(text), style=style, markup=False, highlight=False, soft_wrap=True)


def _classify(
    classifier: ImageClassifier,
    paths: Iterable[Path],
    out: TextIO,
    telling: _Telling,
    *,
    top: int | None,
    json: bool,
    at_once: bool = False,
) -> int:
    for answer in classifier.answers(paths, top=top or TOP, at_once=at_once):
        if isinstance(answer, UnreadPicture):
            telling.unread(answer.error)
            continue
        telling.answered(answer)
        out.write(_json(answer) if json else f"{in_one_line(answer.source)}\t{answer.label}\n")
        if at_once:
            out.flush()
    return telling.end()


def _expanded(given: Iterable[str], telling: _Telling, *, alone: bool = False) -> Iterator[Path]:
    """Files, and the pictures in folders. What is not there is told, or raised if nothing else was asked for."""
    for path in map(Path, given):
        try:
            _require_there(path)
            if not os.path.isdir(path):
                yield path
                continue
            found = pictures_in(path, telling.others)
            _require_some(path, found)
        except DataError as error:
            if alone:
                raise
            telling.unread(error)
            continue
        yield from found


def _require_there(path: Path) -> None:
    if not os.path.exists(path):  # unlike Path.exists, no error for a text that is too long for a name
        raise DataError(
            "there is no such file or folder",
            file=path,
            expected="pictures or folders of them: this run classifies pictures",
            mend="check the name",
        )


def _require_some(folder: Path, found: Sequence[Path]) -> None:
    if not found:
        raise DataError(
            "there is no picture in the folder",
            file=folder,
            expected=f"files that end in {', '.join(ENDINGS)}",
            mend="name another folder, or the files themselves if their names end otherwise",
        )


def _json(answer: PictureClassification) -> str:
    fields = {**answer.as_dict(), "path": _printable(answer.source)}
    return jsonlib.dumps(fields, ensure_ascii=False) + "\n"


def _of(count: int, total: int) -> str:
    return "the picture was" if total == 1 else f"{count:,} of {total:,} pictures {'was' if count == 1 else 'were'}"


def _printable(text: str) -> str:
    """Names of files may have bytes that are not UTF-8, which Python keeps as halves of surrogate pairs."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _probabilities(answer: PictureClassification) -> Table:
    table = Table("class", "probability", "", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for label, p in answer.probabilities:
        table.add_row(escape(label), f"{p:.1%}", "█" * round(_BAR * p))
    return table
