"""The command line. Imports torch only inside commands, so that --help is instant.

Standard output carries answers and nothing else; everything for the person goes to standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from tripel.errors import InputError, TripelError

app = typer.Typer(
    name="tripel",
    help="Train, run and look inside every family of sequence model, on your own data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Data sets known by name, and the embedded phrasebook.", no_args_is_help=True)
recipes_app = typer.Typer(help="Recipes that ship with the package.", invoke_without_command=True)
app.add_typer(data_app, name="data")
app.add_typer(recipes_app, name="recipes")

_err = Console(stderr=True)

RunFolder = Annotated[Path, typer.Argument(help="A run folder: what `tripel train` wrote.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, e.g. train.steps=2000.")
]


def main() -> NoReturn:
    """Entry point: user errors are printed without a traceback and exit 2."""
    try:
        app(standalone_mode=True)
    except TripelError as error:
        _err.print("[bold red]error:[/] ", end="")
        _err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:  # `tripel ... | head`
        sys.stdout = None  # type: ignore[assignment]
        sys.exit(0)
    sys.exit(0)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (`tripel recipes`) or the path of a YAML file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder to write.")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard the run in --out and begin anew.")] = False,
) -> None:
    """Train a model from a recipe into a run folder."""
    from tripel.recipe import Recipe
    from tripel.run import train as train_recipe

    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other")
    chosen = Recipe.load(recipe, overrides or [])
    command = " ".join(["tripel train", recipe, "--out", str(out), *(f"--set {o}" for o in overrides or [])])
    result = train_recipe(chosen, out, resume=resume, overwrite=overwrite, console=_err, command=command)
    if result.reason == "interrupted":
        raise typer.Exit(130)


@app.command()
def demo(
    target: Annotated[str, typer.Option(help="de or fr: the language to translate into.")] = "de",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run folder.", show_default="runs/demo or runs/demo-fr")
    ] = None,
) -> None:
    """From nothing to a translator in minutes, on the embedded phrasebook; no download."""
    from tripel.demo import demo as show_demo

    folder = out or Path("runs", "demo" if target == "de" else f"demo-{target}")
    if not show_demo(target, folder, Console()):
        raise typer.Exit(130)


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
    chosen = {name: value for name, value in settings.items() if value is not None} | _key_values(overrides)
    if text and input is not None:
        raise InputError("texts and --input exclude each other", given=input, mend="leave one of them out")
    translator = load_translator(run)
    with files.writing(output) as out:
        if prompt.wanted(text, input) and format == "lines":
            prompt.converse(translator, out, console=_err, settings=chosen)
            return
        if text and not stream:
            files.translate_texts(translator, text, out, console=_err, prefix=prefix, settings=chosen)
            return
        with files.reading(input) as lines:
            if stream:
                texts = text or (line.rstrip("\r\n") for line in lines)
                files.stream_texts(translator, texts, out, prefix=prefix, settings=chosen)
            else:
                files.translate_stream(translator, lines, out, line_format=format, settings=chosen)


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
    chosen = {name: value for name, value in settings.items() if value is not None} | _key_values(overrides)
    if prompts and input is not None:
        raise InputError("prompts and --input exclude each other", given=input, mend="leave one of them out")
    if top is not None and not json:
        raise InputError("--top needs --json", given=f"--top {top}", mend="add --json")
    completer = load_completer(run)
    with files.writing(output) as out:
        if prompt.wanted(prompts, input) and not json:
            prompt.converse(completer, out, console=_err, settings=chosen, what="the beginning of a text")
            return
        if prompts:
            form = completions.Form(json, echo=echo is not False, stream=not no_stream)
            completions.complete_texts(completer, prompts, out, console=_err, form=form, settings=chosen)
            return
        with files.reading(input) as lines:
            form = completions.Form(json, echo=echo is True)
            completions.complete_lines(completer, lines, out, console=_err, form=form, settings=chosen)


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
    completions.score_texts(completer, given, sys.stdout, console=_err, json=json, top=top)


@app.command()
def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="valid, test, or the name of a data set.")] = "test",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the hypotheses.")] = None,
    beam: Annotated[int | None, typer.Option(help="Beam width; 1 is greedy.")] = None,
    overrides: Overrides = None,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Score a model: sacreBLEU and chrF with signatures, and lower-cased tokenized BLEU beside them."""
    from tripel.evaluate import evaluate as evaluate_run

    settings = _key_values(overrides) | ({"beam": beam} if beam is not None else {})
    result = evaluate_run(run, split, settings=settings, hypotheses=output)
    if json:
        print(result.to_json())
    else:
        Console().print(result)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Two or more: names or paths.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write: a run folder each, and the report.")],
    data: Annotated[
        str | None, typer.Option(help="Text to train all of them on, instead of the recipes' own data.")
    ] = None,
    valid: Annotated[str | None, typer.Option(help="Validation data that go with --data; else its last tenth.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Seconds of training each: 90s, 5m, 1h.", show_default="5m")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates each, instead of --budget.")] = None,
    match: Annotated[str | None, typer.Option(help="parameters: scale widths to the first one's number.")] = None,
    overrides: Overrides = None,
) -> None:
    """Train several models on the same data with the same budget, and show what each of them makes of it."""
    from tripel.compare import compare as compare_recipes

    comparison = compare_recipes(
        recipes, out, data=data, valid=valid, budget=budget, steps=steps, match=match, overrides=overrides or [],
        console=_err,
    )  # fmt: skip
    if comparison is None:
        raise typer.Exit(130)
    Console().print(comparison)


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A folder in Hugging Face's layout.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder to write.")],
) -> None:
    """Read a Hugging Face model (Marian, GPT-2, Llama) into a run folder, and check that nothing changed."""
    from tripel.hf.convert import import_folder

    _err.print(str(import_folder(folder, out)), highlight=False)


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    to: Annotated[str, typer.Option("--to", help="The layout: huggingface.")] = "huggingface",
) -> None:
    """Write a run in another layout, and check that nothing changed."""
    from tripel.hf.convert import export_folder

    if to != "huggingface":
        raise InputError(f"there is no layout {to!r}", given=to, expected="huggingface", mend="use --to huggingface")
    _err.print(str(export_folder(run, out)), highlight=False)


@app.command()
def families() -> None:
    """The families of model that can be built: every supported combination."""
    from tripel.recipe import CELLS

    table = Table("family", "what it is", "wiring", "Hugging Face")
    for cell in CELLS:
        what = f"{cell.skeleton} with {' or '.join(cell.mixers)}, {cell.task} of {cell.input}"
        table.add_row(cell.family, what, " or ".join(cell.wirings), cell.format or "-")
    Console().print(table)


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """List the recipes that ship with the package, with the first line of each."""
    if context.invoked_subcommand is None:
        from tripel.recipe import read_recipe, recipe_names

        table = Table("recipe", "what it does")
        for name in recipe_names():
            table.add_row(name, read_recipe(name).splitlines()[0].lstrip("# "))
        Console().print(table)


@recipes_app.command("show")
def show_recipe(name: Annotated[str, typer.Argument(help="A recipe's name.")]) -> None:
    """Print a recipe: the place to begin one of your own."""
    from tripel.recipe import read_recipe

    print(read_recipe(name), end="")


@app.command()
def doctor() -> None:
    """What this machine has, and whether training works on it: overfits one batch."""
    from tripel.doctor import examine

    if not examine(Console()):
        raise typer.Exit(1)


@data_app.command("list")
def data_list() -> None:
    """The data sets known by name: size, licence, where they are."""
    from tripel.data.known import list_known

    Console().print(list_known())


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="A name from `tripel data list`.")],
    directory: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; the user's cache by default.")] = None,
) -> None:
    """Download a data set, resuming where an earlier download stopped, and check it."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    from tripel.data.known import get

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_err) as bars:
        tasks: dict[str, TaskID] = {}

        def show(file: str, done: int, size: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=size or None)
            bars.update(tasks[file], completed=done)

        folder = get(name, directory, progress=show)
    _err.print(f"{name} is in {folder}", highlight=False)


@data_app.command("phrasebook")
def data_phrasebook(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    target: Annotated[str, typer.Option(help="de or fr; the source is English.")] = "de",
    count: Annotated[int, typer.Option(help="Training pairs.")] = 50_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 1,
) -> None:
    """Write the embedded phrasebook: parallel files with train, valid, test and compositional splits, and alignments."""
    from tripel.data.phrasebook import write

    write(out, target, count, seed)  # type: ignore[arg-type]
    _err.print(f"the phrasebook is in {out}", highlight=False)


def _key_values(overrides: list[str] | None) -> dict[str, Any]:
    """`beam=3` (or `decode.beam=3`) to decode settings."""
    import yaml

    pairs = [override.removeprefix("decode.").partition("=") for override in overrides or []]
    for key, equals, _ in pairs:
        if not equals:
            raise InputError("--set needs KEY=VALUE", given=key, mend="for example --set length_penalty=0.8")
    return {key: yaml.safe_load(value) for key, _, value in pairs}
