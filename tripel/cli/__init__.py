"""The command line. Imports torch only inside commands, so that --help is instant.

Standard output carries answers and nothing else; everything for the person goes to standard error.
"""

from __future__ import annotations

import sys
from typing import NoReturn

# isort: off
from tripel.cli import training, writing, reading, folders, lists  # noqa: F401  (the order of `tripel --help`)

# isort: on
from tripel.cli.app import app, err
from tripel.errors import TripelError

__all__ = ["app", "main"]


def main() -> NoReturn:
    """Entry point: user errors are printed without a traceback and exit 2."""
    try:
        app(standalone_mode=True)
    except TripelError as error:
        err.print("[bold red]error:[/] ", end="")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:  # `tripel ... | head`
        sys.stdout = None  # type: ignore[assignment]
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that may not be written to
        # What is left in standard output cannot be written either.
        sys.stdout = None  # type: ignore[assignment]
        named = f"{error.filename}: " if error.filename else ""
        err.print("[bold red]error:[/] ", end="")
        err.print(
            f"the system refused: {named}{error.strerror or error}", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)
    sys.exit(0)
