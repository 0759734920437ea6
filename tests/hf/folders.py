"""What the tests of all formats do with folders and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

WEIGHTS = "model.safetensors"


def randomised(model: torch.nn.Module) -> Any:
    """Norms and biases away from ones and zeros, so that a mistaken name or order shows; logits of a trained size."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in model.parameters():
            noise = torch.randn(tensor.shape, generator=generator) * 0.3
            tensor.copy_(tensor + noise if tensor.dim() == 1 else noise)
    return model.eval()


def edit(folder: Path, **values: Any) -> None:
    """Change config.json."""
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **values}))


def stored(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder."""
    return safetensors.torch.load_file(folder / WEIGHTS)


def rewrite(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Replace the weights of a folder."""
    safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def store(folder: Path, **tensors: Tensor) -> None:
    """Add tensors to the weights of a folder, dots written as two underscores."""
    rewrite(folder, stored(folder) | {name.replace("__", "."): tensor for name, tensor in tensors.items()})


def drop(folder: Path, name: str) -> None:
    """Remove a tensor from the weights of a folder."""
    rewrite(folder, {other: tensor for other, tensor in stored(folder).items() if other != name})


def point_outside(folder: Path) -> None:
    """An index of weights that names a file outside of the folder."""
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../outside.safetensors"}}')
