"""Training, scoring and comparing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tripel.cli.app import Ensemble, Overrides, RunFolder, app, err, key_values


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
    result = train_recipe(chosen, out, resume=resume, overwrite=overwrite, console=err, command=command)
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
def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="valid, test, or the name of a data set.")] = "test",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the answers.")] = None,
    beam: Annotated[int | None, typer.Option(help="Beam width; 1 is greedy.")] = None,
    ensemble: Ensemble = None,
    overrides: Overrides = None,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Score a model: BLEU and chrF with signatures, loss and perplexity, or accuracy with a table of classes."""
    from tripel.evaluate import evaluate as evaluate_run

    settings = key_values(overrides) | ({"beam": beam} if beam is not None else {})
    result = evaluate_run(run, split, settings=settings, hypotheses=output, ensemble=ensemble or ())
    if json:
        print(result.to_json())
    else:
        Console().print(result)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Two or more: names or paths.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write: a run folder each, and the report.")],
    data: Annotated[
        str | None, typer.Option(help="Data to train all of them on, instead of the recipes' own: text, or pictures.")
    ] = None,
    valid: Annotated[str | None, typer.Option(help="Validation data that go with --data; else a tenth of it.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Seconds of training each: 90s, 5m, 1h.", show_default="5m")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates each, instead of --budget.")] = None,
    match: Annotated[str | None, typer.Option(help="parameters: scale widths to the first one's number.")] = None,
    shares: Annotated[
        str | None,
        typer.Option(
            help="Images: percentages of the training data to train on besides; 100 leaves it out.",
            show_default="1,5,25,100",
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Train several models on the same data with the same budget, and show what each of them makes of it."""
    from tripel.compare import compare as compare_recipes

    comparison = compare_recipes(
        recipes, out, data=data, valid=valid, budget=budget, steps=steps, match=match, shares=shares,
        overrides=overrides or [], console=err,
    )  # fmt: skip
    if comparison is None:
        raise typer.Exit(130)
    Console().print(comparison)


@app.command()
def doctor() -> None:
    """What this machine has, and whether training works on it: overfits one batch."""
    from tripel.doctor import examine

    if not examine(Console()):
        raise typer.Exit(1)
