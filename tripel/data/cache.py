"""Arrays computed once and kept in the user's cache, under a key made of everything they were computed from."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tripel.files import atomic_writer

_log = logging.getLogger(__name__)


def cache_key(*parts: object) -> str:
    """A file name that stands for the parts: equal for equal parts only."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def cached(
    path: Path,
    compute: Callable[[], Mapping[str, np.ndarray]],
    valid: Callable[[Mapping[str, np.ndarray]], bool],
) -> Mapping[str, np.ndarray]:
    """The arrays stored at path, else those of compute, which are then stored there.

    A file that is damaged, or whose arrays valid refuses, is computed again. A cache that cannot be written costs
    time at the next start, never the run.
    """
    stored = _stored(path)
    if stored is not None and valid(stored):
        return stored
    arrays = compute()
    try:
        with atomic_writer(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        _log.warning("%s cannot be written (%s): it will be computed again at the next start", path, error.strerror)
    return arrays


def _stored(path: Path) -> dict[str, np.ndarray] | None:
    try:
        # The zip's checksums find damage that leaves the form intact.
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, NotImplementedError) as error:
        _log.warning("%s is damaged (%s) and is computed again", path, error)
        return None
