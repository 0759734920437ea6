"""Open a run folder as the thing a person uses."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
import yaml

from tripel.checkpoint import LoadedRun, load_run
from tripel.decode.complete import CompletionConfig
from tripel.decode.prepare import prepare_encoder
from tripel.decode.search import DecodeConfig, SearchConfig
from tripel.errors import CheckpointError, InputError
from tripel.models.decoder import Decoder
from tripel.models.encoder import Encoder
from tripel.pipelines.classify import Classifier
from tripel.pipelines.complete import Completer
from tripel.pipelines.embed import Embedder
from tripel.pipelines.fill import Filler
from tripel.pipelines.translate import Translator

C = TypeVar("C", bound=SearchConfig)
P = TypeVar("P", Translator, Completer, Embedder, Filler, Classifier)
_OF_HEAD: dict[str, type[Embedder]] = {"masked-token": Filler, "classes": Classifier, "none": Embedder}
# What each is called, and the command that it is for. Subclasses before their base.
_USES: dict[type, tuple[str, str]] = {
    Translator: ("a translator", "tripel translate"),
    Completer: ("a language model", "tripel complete"),
    Filler: ("a model that fills blanks", "tripel fill"),
    Classifier: ("a classifier", "tripel classify"),
    Embedder: ("an encoder", "tripel embed"),
}


def load(run: str | Path, *, device: str = "cpu") -> Translator | Completer | Embedder:
    """What a run folder is for: a Translator, a Completer, or of an encoder a Filler, a Classifier or an Embedder, with the
    run's own decoding settings.

    device: where it works, `cpu` or `cuda`. Raises CheckpointError for a folder that is not a run, or is damaged.
    """
    loaded = load_run(run)
    model = loaded.model.to(torch.device(device))
    if isinstance(model, Encoder):
        return _OF_HEAD[model.config.head](prepare_encoder(model), loaded.tokenizers.target)
    if isinstance(model, Decoder):
        return Completer(model, loaded.tokenizers.target, _decode(run, loaded, CompletionConfig))
    return Translator(model, loaded.tokenizers, _decode(run, loaded, DecodeConfig))


def load_translator(run: str | Path, *, device: str = "cpu") -> Translator:
    """As load; raises InputError when the run is not a translator."""
    return _load_as(Translator, run, device)


def load_completer(run: str | Path, *, device: str = "cpu") -> Completer:
    """As load; raises InputError when the run is not a language model."""
    return _load_as(Completer, run, device)


def load_filler(run: str | Path, *, device: str = "cpu") -> Filler:
    """As load; raises InputError when the run was not trained to fill blanks."""
    return _load_as(Filler, run, device)


def load_classifier(run: str | Path, *, device: str = "cpu") -> Classifier:
    """As load; raises InputError when the run is not a classifier."""
    return _load_as(Classifier, run, device)


def load_embedder(run: str | Path, *, device: str = "cpu") -> Embedder:
    """As load; raises InputError when the run is not an encoder; whatever its head, it gives vectors."""
    return _load_as(Embedder, run, device)


def _load_as(wanted: type[P], run: str | Path, device: str) -> P:
    model = load(run, device=device)
    if isinstance(model, wanted):
        return model
    is_, command = next(use for kind, use in _USES.items() if isinstance(model, kind))
    raise InputError(
        f"this run is {is_}",
        given=run,
        expected=f"a run folder of {_USES[wanted][0]}",
        mend=f"use `{command} {run} ...`",
    )


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
