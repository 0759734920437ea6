"""Tripel trains, runs and looks inside every family of sequence model.

import tripel
model = tripel.load("runs/en-de")
model.translate(["Two dogs play in the snow."])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Completer",
    "Embedder",
    "Filler",
    "ImageClassifier",
    "Recipe",
    "Translator",
    "TripelError",
    "load",
    "train",
]

if TYPE_CHECKING:
    from tripel.errors import TripelError
    from tripel.pipelines.classify import Classifier
    from tripel.pipelines.complete import Completer
    from tripel.pipelines.embed import Embedder
    from tripel.pipelines.fill import Filler
    from tripel.pipelines.images import ImageClassifier
    from tripel.pipelines.load import load
    from tripel.pipelines.translate import Translator
    from tripel.recipe import Recipe
    from tripel.run import train

_HOMES = {
    "Classifier": "tripel.pipelines.classify",
    "Completer": "tripel.pipelines.complete",
    "Embedder": "tripel.pipelines.embed",
    "Filler": "tripel.pipelines.fill",
    "ImageClassifier": "tripel.pipelines.images",
    "Recipe": "tripel.recipe",
    "Translator": "tripel.pipelines.translate",
    "TripelError": "tripel.errors",
    "load": "tripel.pipelines.load",
    "train": "tripel.run",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use: `import tripel` alone loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tripel' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
