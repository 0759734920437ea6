"""Open a run folder as the thing a person uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch
import yaml

from tripel.checkpoint import LoadedRun, load_run
from tripel.config import Config
from tripel.data.images import ImageDataConfig
from tripel.decode.complete import CompletionConfig
from tripel.decode.prepare import prepare_encoder
from tripel.decode.prepare_images import prepare_images
from tripel.decode.search import DecodeConfig
from tripel.errors import CheckpointError, InputError
from tripel.models.decoder import Decoder
from tripel.models.encoder import Encoder
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.models.vision import VisionModel
from tripel.pipelines.classify import Classifier
from tripel.pipelines.complete import Completer
from tripel.pipelines.embed import Embedder
from tripel.pipelines.fill import Filler
from tripel.pipelines.images import MAX_PIXELS, ImageClassifier
from tripel.pipelines.translate import Translator
from tripel.text.pair import TokenizerPair

Loaded = Translator | Completer | Embedder | ImageClassifier
C = TypeVar("C", bound=Config)
P = TypeVar("P", bound=Loaded)
_OF_HEAD: dict[str, type[Embedder]] = {"masked-token": Filler, "classes": Classifier, "none": Embedder}
# What each is called, and the command that it is for. Subclasses before their base.
_USES: dict[type, tuple[str, str]] = {
    Translator: ("a translator", "tripel translate"),
    Completer: ("a language model", "tripel complete"),
    Filler: ("a model that fills blanks", "tripel fill"),
    Classifier: ("a classifier of texts", "tripel classify"),
    ImageClassifier: ("a classifier of pictures", "tripel classify"),
    Embedder: ("an encoder", "tripel embed"),
}


def load(run: str | Path, *, device: str = "cpu", ensemble: Sequence[str | Path] = ()) -> Loaded:
    """What a run folder is for: a Translator, a Completer, of an encoder a Filler, a Classifier or an Embedder, or an
    ImageClassifier; with the run's own decoding settings.

    device: where it works, `cpu` or `cuda`. ensemble: for a translator, more runs of the same tokenizer, which choose every
    token together with the first. Raises CheckpointError for a folder that is not a run, or is damaged, and InputError
    for runs that cannot be an ensemble.
    """
    loaded = load_run(run)
    model = loaded.model.to(torch.device(device))
    if ensemble and not isinstance(model, EncoderDecoder):
        raise InputError(
            "only translators can be an ensemble", given=run, expected="run folders of translators", mend="give one run"
        )
    if isinstance(model, VisionModel):
        data = _section(run, loaded, "data", ImageDataConfig)
        return ImageClassifier(prepare_images(model), max_pixels=data.max_pixels if data else MAX_PIXELS)
    if isinstance(model, Encoder):
        return _OF_HEAD[model.config.head](prepare_encoder(model), loaded.tokenizers.target)
    if isinstance(model, Decoder):
        return Completer(
            model, loaded.tokenizers.target, _section(run, loaded, "decode", CompletionConfig) or CompletionConfig()
        )
    settings = _section(run, loaded, "decode", DecodeConfig) or DecodeConfig()
    others = [_member(other, run, loaded.tokenizers).to(torch.device(device)) for other in ensemble]
    return Translator(model, loaded.tokenizers, settings, ensemble=others)


def load_translator(run: str | Path, *, device: str = "cpu", ensemble: Sequence[str | Path] = ()) -> Translator:
    """As load; raises InputError when the run is not a translator."""
    return _load_as(run, device, Translator, ensemble=ensemble)


def load_completer(run: str | Path, *, device: str = "cpu") -> Completer:
    """As load; raises InputError when the run is not a language model."""
    return _load_as(run, device, Completer)


def load_filler(run: str | Path, *, device: str = "cpu") -> Filler:
    """As load; raises InputError when the run was not trained to fill blanks."""
    return _load_as(run, device, Filler)


def load_classifier(run: str | Path, *, device: str = "cpu") -> Classifier:
    """As load; raises InputError when the run is not a classifier of texts."""
    return _load_as(run, device, Classifier)


def load_image_classifier(run: str | Path, *, device: str = "cpu") -> ImageClassifier:
    """As load; raises InputError when the run is not a classifier of pictures."""
    return _load_as(run, device, ImageClassifier)


def load_any_classifier(run: str | Path, *, device: str = "cpu") -> Classifier | ImageClassifier:
    """As load; raises InputError when the run classifies neither texts nor pictures."""
    return cast("Classifier | ImageClassifier", _load_as(run, device, Classifier, ImageClassifier))


def load_embedder(run: str | Path, *, device: str = "cpu") -> Embedder:
    """As load; raises InputError when the run is not an encoder; whatever its head, it gives vectors."""
    return _load_as(run, device, Embedder)


def _load_as(run: str | Path, device: str, *wanted: type[P], ensemble: Sequence[str | Path] = ()) -> P:
    model = load(run, device=device, ensemble=ensemble)
    if isinstance(model, wanted):
        return model
    is_, command = next(use for kind, use in _USES.items() if isinstance(model, kind))
    raise InputError(
        f"this run is {is_}",
        given=run,
        expected=f"a run folder of {' or '.join(_USES[kind][0] for kind in wanted)}",
        mend=f"use `{command} {run} ...`",
    )


def _member(run: str | Path, first: str | Path, tokenizers: TokenizerPair) -> EncoderDecoder:
    """The model of a run that joins an ensemble. Raises InputError when it does not read and write the first's tokens."""
    loaded = load_run(run)
    if not isinstance(loaded.model, EncoderDecoder):
        raise InputError(
            "only translators can be an ensemble",
            given=run,
            expected="a run folder of a translator",
            mend="leave this run out",
        )
    if not loaded.tokenizers.equals(tokenizers):
        raise InputError(
            "the runs of an ensemble have different tokenizers",
            given=f"{run} beside {first}",
            expected="runs whose tokenizer.json files are the same",
            mend="train them on the same data with the same `tokenizer` section and another `train.seed` each",
        )
    return loaded.model


def _section(run: str | Path, loaded: LoadedRun, name: str, kind: type[C]) -> C | None:
    """A section of the run's recipe; None for a model without one, which was imported."""
    if loaded.recipe_yaml is None:
        return None
    try:
        return kind(**(yaml.safe_load(loaded.recipe_yaml).get(name) or {}))
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "the run's recipe.yaml cannot be used",
            given=f"{Path(run) / 'recipe.yaml'}: {error}",
            expected="the file that was saved with this model",
            mend="copy the folder again from where the model was trained",
        ) from None
