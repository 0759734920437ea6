"""What models write: translations, completions, and how likely they find a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tripel.cli.app import Ensemble, Overrides, RunFolder, app, err, key_values
from tripel.errors import InputError


@app.command()
def translate(
    run: RunFolder,
    text: Annotated[list[str] | None, typer.Argument(help="Texts; without any, lines of standard input.")] = None,
    input: Annotated[Path | None, typer.Option("--input", "-i", help="Read lines from this file (.gz too).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write answers to this file.")] = None,
    format: Annotated[str, typer.Option(help="lines, tsv (source and answer) or jsonl.")] = "lines",
    beam: Annotated[int | None, typer.Option(help="Beam width; 1 is greedy.")] = None,
    n_best: Annotated[int | None, typer.Option(help="Answers per text.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw instead of searching.")] = False,
    temperature: Annotated[float | None, typer.Option(help="For --sample.")] = None,
    top_k: Annotated[int | None, typer.Option(help="For --sample.")] = None,
    top_p: Annotated[float | None, typer.Option(help="For --sample.")] = None,
    min_p: Annotated[float | None, typer.Option(help="For --sample.")] = None,
    seed: Annotated[int | None, typer.Option(help="For --sample.")] = None,
    prefix: Annotated[str, typer.Option(help="Every answer to a text given as argument begins with this.")] = "",
    stream: Annotated[bool, typer.Option("--stream", help="Print words as they are found.")] = False,
    ensemble: Ensemble = None,
    overrides: Overrides = None,
) -> None:
    """Translate texts, files, or lines of standard input, one answer a line; at a terminal, what is typed."""
    from tripel.pipelines import files, prompt
    from tripel.pipelines.load import load_translator

    settings = {
        "beam": beam,
        "n_best": n_best,
        "sample": sample or None,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": seed,
    }
    chosen = {name: value for name, value in settings.items() if value is not None} | key_values(overrides)
    if text and input is not None:
        raise InputError("texts and --input exclude each other", given=input, mend="leave one of them out")
    _refuse_idle_options(bool(text), stream, format, prefix, chosen)
    translator = load_translator(run, ensemble=ensemble or ())
    with files.writing(output) as out:
        if prompt.wanted(text, input) and format == "lines":
            prompt.converse(translator, out, console=err, settings=chosen)
            return
        if text and not stream:
            files.translate_texts(translator, text, out, console=err, prefix=prefix, settings=chosen)
            return
        with files.reading(input) as lines:
            if stream:
                texts = text or (line.rstrip("\r\n") for line in lines)
                files.stream_texts(translator, texts, out, prefix=prefix, settings=chosen)
            else:
                files.translate_stream(translator, lines, out, console=err, line_format=format, settings=chosen)


def _refuse_idle_options(texts: bool, stream: bool, format: str, prefix: str, settings: dict[str, Any]) -> None:
    """Raise InputError for options of `tripel translate` that would be without effect on this input."""
    several = settings.get("n_best", 1) != 1
    for idle, option, meant in (
        (prefix and not texts, "--prefix", "texts given as arguments"),
        (several and (not texts or stream), "n_best above 1", "texts given as arguments, without --stream"),
        (
            format != "lines" and (texts or stream),
            f"--format {format}",
            "lines of a file or of standard input, no --stream",
        ),
    ):
        if idle:
            raise InputError(f"{option} has no effect here", given=option, expected=meant, mend="leave it out")


@app.command()
def complete(
    run: RunFolder,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Without any, lines of standard input.")
    ] = None,
    input: Annotated[Path | None, typer.Option("--input", "-i", help="Read prompts, one a line (.gz too).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write answers to this file.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens that follow a prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token every time.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens; 0: from all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest that reach this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Draw from those at least p times as likely as the best.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: say less again.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text (\\n: a line break).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every draw.")] = None,
    samples: Annotated[int | None, typer.Option(help="Answers to each prompt.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Draw nothing: the likeliest token every time.")] = False,
    echo: Annotated[
        bool | None, typer.Option("--echo/--no-echo", help="Begin with the prompt; for prompts given as arguments.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One object a prompt, with every token's probability.")] = False,
    top: Annotated[int | None, typer.Option(help="With --json: the likeliest tokens of every step, too.")] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print an answer when it is complete.")] = False,
    overrides: Overrides = None,
) -> None:
    """Go on with prompts, or with lines of standard input, one answer a line; at a terminal, with what is typed."""
    from tripel.pipelines import completions, files, prompt
    from tripel.pipelines.load import load_completer

    settings = {
        "max_new_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": tuple(map(completions.unescaped, stop)) if stop else None,
        "seed": seed,
        "n": samples,
        "sample": False if greedy else None,
        "top": top,
    }
    chosen = {name: value for name, value in settings.items() if value is not None} | key_values(overrides)
    if prompts and input is not None:
        raise InputError("prompts and --input exclude each other", given=input, mend="leave one of them out")
    if top is not None and not json:
        raise InputError("--top needs --json", given=f"--top {top}", mend="add --json")
    completer = load_completer(run)
    with files.writing(output) as out:
        if prompt.wanted(prompts, input) and not json:
            prompt.converse(completer, out, console=err, settings=chosen, what="the beginning of a text")
            return
        if prompts:
            form = completions.Form(json, echo=echo is not False, stream=not no_stream)
            completions.complete_texts(completer, prompts, out, console=err, form=form, settings=chosen)
            return
        with files.reading(input) as lines:
            form = completions.Form(json, echo=echo is True)
            completions.complete_lines(completer, lines, out, console=err, form=form, settings=chosen)


@app.command()
def score(
    run: RunFolder,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Without any, all of standard input, as one text.")
    ] = None,
    input: Annotated[Path | None, typer.Option("--input", "-i", help="Score this file, as one text (.gz too).")] = None,
    json: Annotated[bool, typer.Option("--json", help="One object a text.")] = False,
    top: Annotated[int, typer.Option(min=0, max=1000, help="With --json: the likeliest in every place, too.")] = 0,
) -> None:
    """How likely a language model finds a text: every token's probability, perplexity and bits per byte."""
    from tripel.pipelines import completions
    from tripel.pipelines.load import load_completer

    if texts and input is not None:
        raise InputError("texts and --input exclude each other", given=input, mend="leave one of them out")
    if top and not json:
        raise InputError("--top needs --json", given=f"--top {top}", mend="add --json")
    completer = load_completer(run)
    given = texts or [completions.whole_text(input)]
    completions.score_texts(completer, given, sys.stdout, console=err, json=json, top=top)
