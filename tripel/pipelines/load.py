"""Open a run folder as the thing a person uses."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
import yaml

from tripel.checkpoint import LoadedRun, load_run
from tripel.decode.complete import CompletionConfig
from tripel.decode.search import DecodeConfig, SearchConfig
from tripel.errors import CheckpointError, InputError
from tripel.models.decoder import Decoder
from tripel.pipelines.complete import Completer
from tripel.pipelines.translate import Translator

C = TypeVar("C", bound=SearchConfig)


def load(run: str | Path, *, device: str = "cpu") -> Translator | Completer:
    """What a run folder is for: a Translator, or the Completer of a language model, with the run's own decoding settings.

    device: where it works, `cpu` or `cuda`. Raises CheckpointError for a folder that is not a run, or is damaged.
    """
    loaded = load_run(run)
    model = loaded.model.to(torch.device(device))
    if isinstance(model, Decoder):
        return Completer(model, loaded.tokenizers.target, _decode(run, loaded, CompletionConfig))
    return Translator(model, loaded.tokenizers, _decode(run, loaded, DecodeConfig))


def load_translator(run: str | Path, *, device: str = "cpu") -> Translator:
    """As load; raises InputError when the run is not a translator."""
    model = load(run, device=device)
    if not isinstance(model, Translator):
        raise _wrong_use(run, "a language model", "a translator", "tripel complete")
    return model


def load_completer(run: str | Path, *, device: str = "cpu") -> Completer:
    """As load; raises InputError when the run is not a language model."""
    model = load(run, device=device)
    if not isinstance(model, Completer):
        raise _wrong_use(run, "a translator", "a language model", "tripel translate")
    return model


def _decode(run: str | Path, loaded: LoadedRun, kind: type[C]) -> C:
    if loaded.recipe_yaml is None:
        return kind()
    try:
        return kind(**(yaml.safe_load(loaded.recipe_yaml).get("decode") or {}))
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "the run's recipe.yaml cannot be used",
            given=f"{Path(run) / 'recipe.yaml'}: {error}",
            expected="the file that was saved with this model",
            mend="copy the folder again from where the model was trained",
        ) from None


def _wrong_use(run: str | Path, is_: str, needed: str, command: str) -> InputError:
    return InputError(
        f"this run is {is_}", given=run, expected=f"a run folder of {needed}", mend=f"use `{command} {run} ...`"
    )
