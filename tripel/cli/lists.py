"""What there is: families, recipes, data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tripel.cli.app import app, data_app, err, recipes_app


@app.command()
def families() -> None:
    """The families of model that can be built: every supported combination."""
    from tripel.cells import CELLS

    table = Table("family", "what it is", "wiring", "Hugging Face")
    for cell in CELLS:
        mixers = f" with {' or '.join(cell.mixers)}" if cell.mixers else ""
        what = f"{cell.skeleton}{mixers}, {cell.task} of {cell.input}"
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
    with Progress(*columns, console=err) as bars:
        tasks: dict[str, TaskID] = {}

        def show(file: str, done: int, size: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=size or None)
            bars.update(tasks[file], completed=done)

        folder = get(name, directory, progress=show)
    err.print(f"{name} is in {folder}", highlight=False)


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
    err.print(f"the phrasebook is in {out}", highlight=False)
