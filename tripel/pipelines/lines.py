"""Texts and lines in, an encoder's answers out, one a line. What `tripel fill`, `classify`, `embed` and `neighbours` run."""

from __future__ import annotations

import io
import json as jsonlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from rich.console import Console
from rich.table import Table

from tripel.errors import InputError
from tripel.pipelines.classify import Classification, Classifier
from tripel.pipelines.embed import Embedder, Neighbour, check_pool
from tripel.pipelines.fill import Filler, Filling
from tripel.storage import atomic_write

# Lines that are read ahead, so that batches are full.
_LOOKAHEAD = 1024
_POOLS = ("mean", "cls", "max", "tokens")


def fill_texts(filler: Filler, texts: Sequence[str], out: TextIO, *, console: Console, top: int, json: bool) -> None:
    """Fill texts given as arguments; every blank's candidates are shown on console."""
    for text in texts:
        filling = filler.fill(text, top)
        out.write((filling.to_json() if json else filling.text) + "\n")
        if not json:
            console.print(_candidates(filling))


def fill_lines(filler: Filler, lines: Iterable[str], out: TextIO, *, top: int, json: bool) -> None:
    """One answer for every line; an empty line for an empty line."""
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r\n")
        if text.strip():
            try:
                filling = filler.fill(text, top)
            except InputError as error:
                raise InputError(
                    f"line {number}: {error.what}", given=error.given, expected=error.expected, mend=error.mend
                ) from None
            out.write((filling.to_json() if json else filling.text) + "\n")
        else:
            out.write("\n")
        if lines is sys.stdin:
            out.flush()


def classify_texts(
    classifier: Classifier, texts: Sequence[str], out: TextIO, *, console: Console, top: int | None, json: bool
) -> None:
    """The label of each text given as an argument; without json, how sure that is goes to console."""
    for answer in classifier.classify(texts, top=top):
        out.write(_label(answer, json))
        if not json:
            shown = ", ".join(f"{label} {p:.1%}" for label, p in answer.probabilities[:5])
            console.print(shown, highlight=False, style="dim", markup=False)
        _tell_dropped([answer.n_dropped], console)


def classify_lines(
    classifier: Classifier, lines: Iterable[str], out: TextIO, *, console: Console, top: int | None, json: bool
) -> None:
    """One label for every line; an empty line for an empty line."""
    lookahead = 1 if lines is sys.stdin else _LOOKAHEAD
    given, dropped = iter(lines), []
    while group := [line.rstrip("\r\n") for line in islice(given, lookahead)]:
        answers: Iterator[Classification] = iter(classifier.classify([text for text in group if text.strip()], top=top))
        for text in group:
            if not text.strip():
                out.write("\n")
                continue
            answer = next(answers)
            dropped.append(answer.n_dropped)
            out.write(_label(answer, json))
        if lookahead == 1:
            out.flush()
    _tell_dropped(dropped, console)


def embed_texts(
    embedder: Embedder,
    texts: Sequence[str],
    output: Path | None,
    *,
    console: Console,
    pool: str | None,
    normalize: bool | None,
) -> None:
    """Write a vector for each text (or, pool `tokens`, for each of its tokens) as .npy or JSONL. Raises InputError."""
    if pool is not None:
        check_pool(pool, _POOLS)
    as_array = output is not None and output.suffix == ".npy"
    if output is not None and not as_array and output.suffix not in (".jsonl", ".json"):
        raise InputError(
            "the form of the output is not known",
            given=output,
            expected="a name that ends in .npy (an array) or .jsonl (one object a text)",
            mend=f"for example {output.with_suffix('.npy')}",
        )
    blank = next((number for number, text in enumerate(texts, start=1) if not text.strip()), None)
    if blank is not None or not texts:
        raise InputError(
            "a text is blank" if texts else "there are no texts",
            given=f"line {blank}" if texts else "0 lines",
            expected="words in every line, so that line n has vector n",
            mend="remove blank lines",
        )
    if pool == "tokens":
        _embed_tokens(embedder, texts, output, as_array, console)
        return
    found = embedder.embed(texts, pool=pool, normalize=normalize)  # type: ignore[arg-type]
    _tell_dropped(found.n_dropped, console)
    if as_array:
        _write_array(output, found.vectors)
        return
    records = ({"text": text, "vector": _short(vector)} for text, vector in zip(texts, found.vectors, strict=True))
    _write_records(output, records)


def write_neighbours(found: Sequence[Neighbour], out: TextIO, *, json: bool) -> None:
    """One word a line with its cosine, or one JSON array."""
    if json:
        out.write(jsonlib.dumps([{"word": n.word, "cosine": n.cosine} for n in found], ensure_ascii=False) + "\n")
        return
    for neighbour in found:
        out.write(f"{neighbour.word}\t{neighbour.cosine:.3f}\n")


def _embed_tokens(
    embedder: Embedder, texts: Sequence[str], output: Path | None, as_array: bool, console: Console
) -> None:
    if as_array and len(texts) > 1:
        raise InputError(
            "an array holds the tokens of one text",
            given=f"{len(texts)} texts for {output}",
            expected="one text, or a name that ends in .jsonl",
            mend="write .jsonl: one object a text, with its pieces and their vectors",
        )
    found = embedder.embed_tokens(texts)
    _tell_dropped([answer.n_dropped for answer in found], console)
    if as_array:
        _write_array(output, found[0].vectors)
        return
    records = (
        {"text": text, "pieces": list(answer.pieces), "vectors": [_short(vector) for vector in answer.vectors]}
        for text, answer in zip(texts, found, strict=True)
    )
    _write_records(output, records)


def _write_array(output: Path | None, vectors: np.ndarray) -> None:
    assert output is not None
    content = io.BytesIO()
    np.save(content, vectors)
    atomic_write(output, content.getvalue())


def _write_records(output: Path | None, records: Iterable[Mapping[str, object]]) -> None:
    lines = (jsonlib.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if output is None:
        sys.stdout.writelines(lines)
    else:
        atomic_write(output, "".join(lines))


def _short(vector: np.ndarray) -> list[float]:
    """Every digit that a float32 has, and no more."""
    return [float(f"{x:.8g}") for x in vector]


def _label(answer: Classification, json: bool) -> str:
    return (jsonlib.dumps(answer.as_dict(), ensure_ascii=False) if json else answer.label) + "\n"


def _tell_dropped(n_dropped: Sequence[int], console: Console) -> None:
    cut = [n for n in n_dropped if n]
    if cut:
        console.print(
            f"note: {len(cut)} of {len(n_dropped)} texts were longer than the model reads; up to {max(cut)} tokens at "
            "their ends were left out",
            highlight=False,
        )


def _candidates(filling: Filling) -> Table:
    table = Table(box=None, pad_edge=False)
    for number in range(len(filling.blanks)):
        table.add_column(f"blank {number + 1}" if len(filling.blanks) > 1 else "candidate")
        table.add_column("", justify="right")
    for row in range(max(map(len, filling.blanks), default=0)):
        cells: list[str] = []
        for blank in filling.blanks:
            cells += [blank[row].word, f"{blank[row].probability:.1%}"] if row < len(blank) else ["", ""]
        table.add_row(*cells)
    return table
