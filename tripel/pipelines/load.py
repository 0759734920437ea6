"""Open a run folder as the thing a person uses."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from tripel.checkpoint import load_run
from tripel.decode.search import DecodeConfig
from tripel.errors import CheckpointError
from tripel.pipelines.translate import Translator


def load(run: str | Path, *, device: str = "cpu") -> Translator:
    """The Translator of a run folder, with the run's own decoding settings. device: where it works, `cpu` or `cuda`.

    Raises CheckpointError for a folder that is not a run, or is damaged.
    """
    loaded = load_run(run)
    model = loaded.model.to(torch.device(device))
    decode = DecodeConfig()
    if loaded.recipe_yaml is not None:
        try:
            decode = DecodeConfig(**(yaml.safe_load(loaded.recipe_yaml).get("decode") or {}))
        except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                "the run's recipe.yaml cannot be used",
                given=f"{Path(run) / 'recipe.yaml'}: {error}",
                expected="the file that was saved with this model",
                mend="copy the folder again from where the model was trained",
            ) from None
    return Translator(model, loaded.tokenizers, decode)
