"""What the commands share: the application, its streams, and the arguments that several of them take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tripel.errors import InputError

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

err = Console(stderr=True)

RunFolder = Annotated[Path, typer.Argument(help="A run folder: what `tripel train` wrote.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, e.g. train.steps=2000.")
]

Ensemble = Annotated[
    list[Path] | None,
    typer.Option(
        "--ensemble",
        metavar="RUN",
        help="One more translator that chooses every token together with the first; repeatable.",
    ),
]


def key_values(overrides: list[str] | None) -> dict[str, Any]:
    """`beam=3` (or `decode.beam=3`) to decode settings."""
    import yaml

    pairs = [override.removeprefix("decode.").partition("=") for override in overrides or []]
    for key, equals, _ in pairs:
        if not equals:
            raise InputError("--set needs KEY=VALUE", given=key, mend="for example --set length_penalty=0.8")
    return {key: yaml.safe_load(value) for key, _, value in pairs}
