"""The model card that a run folder carries as README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tripel.models.build import Model, count_parameters
from tripel.recipe import Cell, Recipe
from tripel.tasks.translation import TranslationTask

_USES = {
    "translation": 'model.translate(["..."])',
    "next-token": 'print(model.complete("..."))',
    "masked-token": 'print(model.fill("... ___ ..."))',
    "classification": 'print(model.classify(["..."]))',
}
_PIPELINES = {
    "translation": "translation",
    "next-token": "text-generation",
    "masked-token": "fill-mask",
    "classification": "text-classification",
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
    task, config = recipe.task, recipe.model
    header = {
        "library_name": "transformers" if cell.format else "tripel",
        "pipeline_tag": _PIPELINES[task.kind],
        **({"language": [task.source, task.target]} if isinstance(task, TranslationTask) else {}),
        "tags": ["tripel", _PIPELINES[task.kind]],
    }
    languages = f": {task.source} to {task.target}" if isinstance(task, TranslationTask) else ""
    layers = " + ".join(str(stack.n_layers) for stack in config.stacks().values())
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    lines += [
        f"# {cell.family}{languages}",
        "",
        f"Trained with Tripel for {step:,} updates of about {recipe.train.tokens_per_step:,} {_counted(recipe)} tokens.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {count_parameters(model):,} |",
        f"| layers | {layers}, d_model {config.d_model}, d_ff {config.d_ff} |",
        f"| tokenizer | {recipe.tokenizer.kind}, {model.vocabulary.target_size:,} tokens |",
        f"| training data | {', '.join(recipe.data.train_names)} |",
        f"| validation data | {_held_out(recipe)} |",
        *(f"| {name} on the validation data | {value:.4g} |" for name, value in metrics.items()),
        *([f"| command | `{command}` |"] if command else []),
        "",
        "```python",
        "import tripel",
        'model = tripel.load("PATH OF THIS FOLDER")',
        _USES[task.kind],
        "```",
        "",
    ]
    return "\n".join(lines)


def _counted(recipe: Recipe) -> str:
    """What train.tokens_per_step counts: an encoder is not asked for every token that it reads."""
    return "read" if recipe.model.kind == "encoder" else "predicted"


def _held_out(recipe: Recipe) -> str:
    share = getattr(recipe.data, "valid_share", 0.0)
    return recipe.data.valid or (f"the last {share:.0%} of it" if share else "none")
