"""What encoders read out of texts: missing words, vectors, words that are near, classes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tripel.cli.app import RunFolder, app, err
from tripel.errors import InputError

Texts = Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Without any, lines of standard input.")]
Input = Annotated[Path | None, typer.Option("--input", "-i", help="Read lines from this file (.gz too).")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write answers to this file.")]
Contextual = Annotated[
    bool, typer.Option("--contextual", help="Vectors of the last layer, not rows of the embedding's matrix.")
]


@app.command()
def fill(
    run: RunFolder,
    texts: Texts = None,
    input: Input = None,
    output: Output = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Candidates for each blank.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="One object a text, with every candidate.")] = False,
) -> None:
    """Fill the blanks of a text, written ___ or [MASK], with what fits on both sides."""
    from tripel.pipelines import files, lines
    from tripel.pipelines.load import load_filler

    _one_source(texts, input)
    filler = load_filler(run)
    with files.writing(output) as out:
        if texts:
            lines.fill_texts(filler, texts, out, console=err, top=top, json=json)
            return
        with files.reading(input) as read:
            lines.fill_lines(filler, read, out, top=top, json=json)


@app.command()
def classify(
    run: RunFolder,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT or PICTURE]...",
            help="Texts; or files of pictures and folders of them. Without any, lines of standard input.",
        ),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="Read lines from this file (.gz too): texts, or pictures' paths."),
    ] = None,
    output: Output = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Only the likeliest classes (of texts: all, of pictures: 5).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One object a text or picture, with probabilities.")] = False,
) -> None:
    """Say which class a text or picture is of: one label a line, after the picture's path if there are several."""
    from tripel.pipelines import files, lines, picture_files
    from tripel.pipelines.images import ImageClassifier
    from tripel.pipelines.load import load_any_classifier

    _one_source(given, input)
    classifier = load_any_classifier(run)
    if not isinstance(classifier, ImageClassifier):
        picture_files.refuse_pictures(given or ())
    n_unread = 0
    with files.writing(output) as out, files.reading(input) if not given else nullcontext(()) as read:
        if isinstance(classifier, ImageClassifier):
            if given:
                n_unread = picture_files.classify_paths(classifier, given, out, console=err, top=top, json=json)
            else:
                n_unread = picture_files.classify_listed(classifier, read, out, console=err, top=top, json=json)
        elif given:
            lines.classify_texts(classifier, given, out, console=err, top=top, json=json)
        else:
            lines.classify_lines(classifier, read, out, console=err, top=top, json=json)
    if n_unread:
        raise typer.Exit(2)


@app.command()
def embed(
    run: RunFolder,
    texts: Texts = None,
    input: Input = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .npy file, or .jsonl; without it JSONL is printed.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="mean, cls or max over a text's tokens; tokens: a vector for each of them.")
    ] = None,
    normalize: Annotated[
        bool | None, typer.Option("--normalize/--no-normalize", help="Make vectors of length 1.")
    ] = None,
) -> None:
    """Turn texts into vectors."""
    from tripel.pipelines import files, lines
    from tripel.pipelines.load import load_embedder

    _one_source(texts, input)
    embedder = load_embedder(run)
    if texts:
        lines.embed_texts(embedder, texts, output, console=err, pool=pool, normalize=normalize)
        return
    with files.reading(input) as read:
        given = [line.rstrip("\r\n") for line in read]
    lines.embed_texts(embedder, given, output, console=err, pool=pool, normalize=normalize)


@app.command()
def neighbours(
    run: RunFolder,
    word: Annotated[str, typer.Argument(help="The word to look around.")],
    plus: Annotated[list[str] | None, typer.Option(help="Add a word: king --minus man --plus woman.")] = None,
    minus: Annotated[list[str] | None, typer.Option(help="Take a word away.")] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many words.")] = 10,
    contextual: Contextual = False,
    sentence: Annotated[
        list[str] | None, typer.Option(help="The word as it stands in this sentence; several are averaged.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One array of words with cosines.")] = False,
) -> None:
    """The vocabulary's words whose vectors are nearest to a word's."""
    from tripel.pipelines import lines
    from tripel.pipelines.load import load_embedder

    found = load_embedder(run).neighbours(
        word, top, plus=plus or (), minus=minus or (), contextual=contextual, sentences=sentence or ()
    )
    lines.write_neighbours(found, sys.stdout, json=json)


@app.command("map")
def map_(
    run: RunFolder,
    words: Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="The words to draw.")] = None,
    input: Annotated[Path | None, typer.Option("--input", "-i", help="Words from this file, one a line.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")] = Path("map.png"),
    contextual: Contextual = False,
    json: Annotated[bool, typer.Option("--json", help="Print the coordinates, too.")] = False,
) -> None:
    """Draw words as points in the plane, near where their vectors are near."""
    from tripel.inspection.map import word_map
    from tripel.pipelines import files
    from tripel.pipelines.load import load_embedder

    _one_source(words, input)
    if not words:
        with files.reading(input) as read:
            words = [line.strip() for line in read if line.strip()]
    words = list(dict.fromkeys(words))
    embedder = load_embedder(run)
    space = embedder.space(contextual)
    drawn = word_map(words, space.centred(embedder.words(words, contextual=contextual)))
    drawn.save(output)
    if json:
        print(drawn.to_json())
    err.print(f"the map is in {output}", highlight=False)


@app.command()
def words(
    run: RunFolder,
    data: Annotated[
        str, typer.Option(help="The folder of EN-SIMLEX-999, EN-WS-353-ALL and questions-words.")
    ] = "words",
    contextual: Contextual = False,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """How much meaning word vectors carry: agreement with human judgement, and analogies."""
    from tripel.pipelines.load import load_embedder
    from tripel.pipelines.words import score_words

    scores = score_words(load_embedder(run), data, contextual=contextual)
    if json:
        print(scores.to_json())
    else:
        Console().print(scores)


def _one_source(texts: list[str] | None, input: Path | None) -> None:
    if texts and input is not None:
        raise InputError("texts and --input exclude each other", given=input, mend="leave one of them out")
