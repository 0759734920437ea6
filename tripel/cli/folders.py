"""Run folders in and out of other layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tripel.cli.app import RunFolder, app, err
from tripel.errors import InputError


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A folder in Hugging Face's layout.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder to write.")],
) -> None:
    """Read a Hugging Face model (Marian, GPT-2, Llama, BERT) into a run folder, and check that nothing changed."""
    from tripel.hf.convert import import_folder

    err.print(str(import_folder(folder, out)), highlight=False)


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
    err.print(str(export_folder(run, out)), highlight=False)
