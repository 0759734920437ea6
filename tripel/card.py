"""The model card that a run folder carries as README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tripel.cells import Cell
from tripel.models.build import Model, count_parameters
from tripel.models.config import ImageVocabulary, ResNetConfig
from tripel.recipe import Recipe
from tripel.tasks.translation import TranslationTask

_USES = {
    "translation": 'model.translate(["..."])',
    "next-token": 'print(model.complete("..."))',
    "masked-token": 'print(model.fill("... ___ ..."))',
    "classification": 'print(model.classify(["..."]))',
    "image-classification": 'print(model.classify(["picture.png"]))',
}
_PIPELINES = {
    "translation": "translation",
    "next-token": "text-generation",
    "masked-token": "fill-mask",
    "classification": "text-classification",
    "image-classification": "image-classification",
}
"""What transformers and its hub call each task."""


def model_card(
    recipe: Recipe,
    cell: Cell,
    model: Model,
    step: int,
    metrics: Mapping[str, float],
    command: str | None,
) -> str:
    """Markdown with a Hugging Face header: data, size, score on the validation set, command, how to use it."""
    task = recipe.task
    use = f"image-{task.kind}" if recipe.reads_images else task.kind
    header = {
        "library_name": "transformers" if cell.format else "tripel",
        "pipeline_tag": _PIPELINES[use],
        **({"language": [task.source, task.target]} if isinstance(task, TranslationTask) else {}),
        "tags": ["tripel", _PIPELINES[use]],
    }
    languages = f": {task.source} to {task.target}" if isinstance(task, TranslationTask) else ""
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    lines += [
        f"# {cell.family}{languages}",
        "",
        f"Trained with Tripel for {step:,} updates of about {recipe.train.tokens_per_step:,} {_counted(recipe)}.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {count_parameters(model):,} |",
        f"| layers | {_layers(recipe)} |",
        _input(recipe, model),
        f"| training data | {', '.join(recipe.data.train_names)} |",
        f"| validation data | {_held_out(recipe)} |",
        *(f"| {name} on the validation data | {value:.4g} |" for name, value in metrics.items()),
        *([f"| command | `{command}` |"] if command else []),
        "",
        "```python",
        "import tripel",
        'model = tripel.load("PATH OF THIS FOLDER")',
        _USES[use],
        "```",
        "",
    ]
    return "\n".join(lines)


def _layers(recipe: Recipe) -> str:
    config = recipe.model
    if isinstance(config, ResNetConfig):
        depths, widths = " + ".join(map(str, config.depths)), ", ".join(map(str, config.widths))
        return f"{depths} {config.block} blocks of {widths} channels"
    layers = " + ".join(str(stack.n_layers) for stack in config.stacks().values())
    return f"{layers}, d_model {config.d_model}, d_ff {config.d_ff}"


def _input(recipe: Recipe, model: Model) -> str:
    """The row on what the model reads."""
    if isinstance(model.vocabulary, ImageVocabulary):
        size, channels = model.config.image_size, model.config.channels  # type: ignore[union-attr]
        return f"| pictures | {size} x {size} pixels, {channels} channel(s), {len(model.vocabulary.labels)} classes |"
    return f"| tokenizer | {recipe.tokenizer.kind}, {model.vocabulary.target_size:,} tokens |"


def _counted(recipe: Recipe) -> str:
    """What train.tokens_per_step counts: an encoder is not asked for every token that it reads."""
    if recipe.reads_images:
        return "pictures"
    return "read tokens" if recipe.model.kind == "encoder" else "predicted tokens"


def _held_out(recipe: Recipe) -> str:
    share = getattr(recipe.data, "valid_share", 0.0)
    return recipe.data.valid or (f"the last {share:.0%} of it" if share else "none")
