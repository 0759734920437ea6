"""Writing files so that a reader never sees half of one, and where the user's cache lies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes path's place when the block ends well, and leaves no trace when it does not.

    The folder is made if absent. Raises OSError as the file system gives it (full disk, no permission).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file in one go, as atomic_writer does."""
    with atomic_writer(path) as file:
        file.write(content)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/tripel, or ~/.cache/tripel. Not created here."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "tripel"


def umask() -> int:
    """The process's umask: it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
