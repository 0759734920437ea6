"""Fine-tuning: a run that begins with another's weights and tokenizer (`init_from`) and, for another task, a new head.

A model of pictures keeps its origin's mean and deviation of pixels; a Vision Transformer may go on with pictures of another
size, its positions resampled (Dosovitskiy et al. 2021, section 3.2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tripel.checkpoint import LoadedRun, read_entry
from tripel.errors import RecipeError
from tripel.models.build import Model
from tripel.models.config import ImageVocabulary
from tripel.models.vision import VisionTransformer
from tripel.text.pair import TokenizerPair

# Of a model's settings, those that are not its origin's to decide: what it is asked, and how it is trained.
_FREE = {"head", "head_transform", "pool", "pooler", "dropout", "variational_dropout", "initialisation", "normalize"}
_FREE_OF_PICTURES = {"dropout", "initialisation", "image_size", "zero_last"}
_POSITIONS = "embedding.positions.weight"
_NEW_PARTS = ("head", "pooler")


def with_origin(tree: dict[str, Any]) -> dict[str, Any]:
    """A recipe's tree, made whole if it has an init_from: the model and the tokenizer are that run's, and settings that do
    not change what the weights mean (dropout, pool, head) may differ.

    A recipe as a run folder has it is whole already, and its origin may be gone. Raises CheckpointError for a folder that
    is no run, RecipeError naming a setting that its weights do not allow.
    """
    run, given = tree.get("init_from"), tree.get("model") or {}
    if not isinstance(run, str) or not isinstance(given, dict) or "norm_eps" in given:
        return tree
    entry = read_entry(Path(run))
    model = {key: value for key, value in entry.model.model_dump(mode="json").items() if key != "head"}
    pictures = isinstance(entry.vocabulary, ImageVocabulary)
    _require_agreement(run, given, model, "model", _FREE_OF_PICTURES if pictures else _FREE)
    if isinstance(entry.vocabulary, ImageVocabulary):
        kept = entry.vocabulary.model_dump(mode="json", include={"mean", "std"})
        return {**tree, "model": _merged(model, given), "data": {**(tree.get("data") or {}), "normalise": kept}}
    tokenizer = TokenizerPair.load(run).target
    return {
        **tree,
        "model": _merged(model, given),
        "tokenizer": {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size},
    }


def take_over(model: Model, origin: LoadedRun, run: str) -> str:
    """Copy the origin's weights into a model of its config; what was done, in words for a person.

    A head for other classes, or of another kind, begins anew, and so does a pooler that the origin lacks.
    """
    own, theirs = model.state_dict(), origin.model.state_dict()
    if isinstance(model, VisionTransformer) and isinstance(origin.model, VisionTransformer) and _POSITIONS in own:
        table = origin.model.embedding.positions.table(model.config.side, model.config.side)
        assert table is not None
        theirs[_POSITIONS] = table.detach()
    keep_head = origin.vocabulary.labels == model.vocabulary.labels
    taken = {
        name: tensor
        for name, tensor in theirs.items()
        if name in own and own[name].shape == tensor.shape and (keep_head or not name.startswith("head."))
    }
    missing = [name for name in own if name not in taken]
    if any(not name.startswith(_NEW_PARTS) for name in missing):
        raise RecipeError(
            "the weights of init_from do not fit the model",
            given=f"{run}: {', '.join(missing[:3])}",
            expected="a model with the settings of that run",
            mend="leave the model section out of the recipe: it is that run's",
        )
    model.load_state_dict(taken, strict=False)
    new = sorted({name.split(".")[0] for name in missing})
    return f"beginning with the weights of {run}" + (f", with a new {' and '.join(new)}" if new else "")


def _require_agreement(
    run: str, given: Mapping[str, Any], model: Mapping[str, Any], path: str, free: Collection[str]
) -> None:
    for key, value in given.items():
        own = model.get(key)
        if isinstance(value, dict) and isinstance(own, dict):
            _require_agreement(run, value, own, f"{path}.{key}", free)
        elif key in model and key not in free and value != own:
            raise RecipeError(
                f"{path}.{key} is not that of the run in init_from",
                given=value,
                expected=f"{own}, as {run} has it",
                mend=f"leave {path}.{key} out of the recipe, or begin without init_from",
            )


def _merged(model: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(model[key], value) for key, value in given.items() if isinstance(model.get(key), dict)}
    return {**model, **given, **both}
