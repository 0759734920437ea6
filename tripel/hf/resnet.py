"""ResNetForImageClassification of transformers: a ResNet with the stem for ImageNet and batch normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from tripel.errors import FormatError
from tripel.hf.common import Understood, as_float32, our_config, read_settings, require_expressible
from tripel.hf.images import classes, labels_of, picture_usage, read_vocabulary
from tripel.hf.rules import Rule, to_ours, to_theirs
from tripel.models.config import ImageVocabulary, ResNetConfig

MODEL_CLASS = "ResNetForImageClassification"
_COUNTER = "num_batches_tracked"
"""What torch.nn.BatchNorm2d counts and neither model uses."""


class ResNetSettings(BaseModel):
    """The keys of their config.json that change what the model computes, with the defaults of their ResNetConfig."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    architectures: list[Literal["ResNetForImageClassification"]] | None = None
    num_channels: Literal[1, 3] = 3
    embedding_size: int = Field(64, ge=1, le=8192)
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    hidden_act: Literal["relu", "gelu", "silu", "swish"] = "relu"
    downsample_in_first_stage: Literal[False] = False
    downsample_in_bottleneck: bool = False
    id2label: dict[str, str] = {}


def express(config: ResNetConfig, vocabulary: ImageVocabulary) -> dict[str, Any]:
    """Their config.json for a model of ours. Raises FormatError that names every option the format has no word for."""
    require_expressible(
        "ResNet",
        {
            "model.stem": (config.stem, "imagenet"),
            "model.norm": (config.norm, "batch"),
            "model.norm_eps": (config.norm_eps, 1e-5),
            "model.pool": (config.pool, "mean"),
            "model.dropout": (config.dropout, 0.0),
        },
    )
    return {
        "architectures": [MODEL_CLASS],
        "model_type": "resnet",
        "num_channels": config.channels,
        "embedding_size": config.stem_width,
        "hidden_sizes": list(config.widths),
        "depths": list(config.depths),
        "layer_type": config.block,
        "hidden_act": config.activation,
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": config.stride_in_1x1,
        **classes(vocabulary),
    }


def rename_to_theirs(config: ResNetConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their names, with the counters that they have beside each norm."""
    theirs = to_theirs(_rules(config), tensors)
    means = [name for name in theirs if name.endswith(".running_mean")]
    counters = {name.replace("running_mean", _COUNTER): torch.tensor(0) for name in means}
    return theirs | counters


def rename_to_ours(config: ResNetConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of rename_to_theirs, bit for bit; counters are forgotten."""
    return to_ours(_rules(config), tensors)


def understand(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Understood:
    """A ResNet folder's config.json and weights, as a config of ours and the weights that rename_to_ours takes.

    Raises FormatError for what Tripel has no word for, and for a folder without a head for classes.
    """
    theirs = read_settings(ResNetSettings, settings)
    rest = as_float32(tensors)
    head = rest.get("classifier.1.weight")
    if head is None or head.dim() != 2:
        raise FormatError(
            "the folder has no head for classes",
            given=f"architectures: {settings.get('architectures')}, no matrix classifier.1.weight",
            expected=MODEL_CLASS,
            mend="import a model that was fine-tuned to classify pictures",
        )
    labels, named = labels_of(theirs.id2label, len(head))
    vocabulary, side, notes = read_vocabulary(settings, labels, theirs.num_channels, None)
    config = our_config(
        ResNetConfig,
        {
            "image_size": side,
            "channels": theirs.num_channels,
            "stem": "imagenet",
            "stem_width": theirs.embedding_size,
            "block": theirs.layer_type,
            "depths": theirs.depths,
            "widths": theirs.hidden_sizes,
            "norm": "batch",
            "activation": "silu" if theirs.hidden_act == "swish" else theirs.hidden_act,
            "stride_in_1x1": theirs.downsample_in_bottleneck,
            "pool": "mean",
        },
    )
    for name in [name for name in rest if name.endswith(".running_mean")]:  # files of old versions have no counters
        rest[name.replace("running_mean", _COUNTER)] = torch.tensor(0)
    return Understood(config, vocabulary, rest, (*named, *notes))


def usage(config: ResNetConfig, *, shared_tokenizer: bool) -> str:
    """A section of the model card: how to run the folder with transformers."""
    del shared_tokenizer  # a model of pictures has no tokenizer
    return picture_usage(config.channels)


def _rules(config: ResNetConfig) -> list[Rule]:
    """Our tensors and theirs."""
    rules = _conv_norm("stages.stem", "resnet.embedder.embedder")
    n_in = config.stem_width
    for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
        for j in range(depth):
            ours, theirs = f"stages.stages.{i}.{j}", f"resnet.encoder.stages.{i}.layers.{j}"
            for k in range(2 if config.block == "basic" else 3):
                rules += _conv_norm(f"{ours}.layers.{k}", f"{theirs}.layer.{k}")
            if n_in != width or (i and not j):
                rules += _conv_norm(f"{ours}.shortcut", f"{theirs}.shortcut")
            n_in = width
    return [*rules, *(Rule(f"head.linear.{kind}", (f"classifier.1.{kind}",)) for kind in ("weight", "bias"))]


def _conv_norm(ours: str, theirs: str) -> list[Rule]:
    of_norm = ("weight", "bias", "running_mean", "running_var")
    return [
        Rule(f"{ours}.conv.weight", (f"{theirs}.convolution.weight",)),
        *(Rule(f"{ours}.norm.{kind}", (f"{theirs}.normalization.{kind}",)) for kind in of_norm),
    ]
