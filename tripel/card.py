"""The model card that a run folder carries as README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tripel.models.build import count_parameters
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.recipe import Cell, Recipe


def model_card(
    recipe: Recipe,
    cell: Cell,
    model: EncoderDecoder,
    step: int,
    metrics: Mapping[str, float],
    command: str | None,
) -> str:
    """Markdown with a Hugging Face header: data, size, score on the validation set, command, how to use it."""
    task, config = recipe.task, recipe.model
    header = {
        "library_name": "transformers" if cell.format == "Marian" else "tripel",
        "pipeline_tag": task.kind,
        "language": [task.source, task.target],
        "tags": ["tripel", "translation"],
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    lines += [
        f"# {cell.family}: {task.source} to {task.target}",
        "",
        f"Trained with Tripel for {step:,} updates of about {recipe.train.tokens_per_step:,} target tokens.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {count_parameters(model):,} |",
        f"| layers | {config.encoder.n_layers} + {config.decoder.n_layers}, d_model {config.d_model}, d_ff {config.d_ff} |",
        f"| tokenizer | {recipe.tokenizer.kind}, {model.vocabulary.target_size:,} tokens |",
        f"| training data | {', '.join(recipe.data.train_names)} |",
        f"| validation data | {recipe.data.valid or 'none'} |",
        *(f"| {name} on the validation data | {value:.4g} |" for name, value in metrics.items()),
        *([f"| command | `{command}` |"] if command else []),
        "",
        "```python",
        "import tripel",
        'model = tripel.load("PATH OF THIS FOLDER")',
        'model.translate(["..."])',
        "```",
        "",
    ]
    return "\n".join(lines)
