"""Folders of timm (its config.json has an `architecture`, no `model_type`), read as if transformers had written them.

torchvision's ResNets have the same names of weights: their folder needs a config.json of {"architecture": "resnet18"}.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from tripel.errors import FormatError
from tripel.hf.common import read_settings
from tripel.hf.images import KEY

# The heads of the widths that Dosovitskiy et al. 2021 and Touvron et al. 2021 name.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
_OF_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_OF_VIT = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj.weight": "vit.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "vit.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "vit.layernorm.weight",
    "norm.bias": "vit.layernorm.bias",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}
_OF_RESNET = {"conv1": "embedder.embedder.convolution", "bn1": "embedder.embedder.normalization"}
_PARTS = {"conv": "convolution", "bn": "normalization", "downsample.0": "convolution", "downsample.1": "normalization"}


class _Pretrained(BaseModel):
    """How pictures are prepared, with timm's defaults."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_pct: float = Field(0.875, gt=0, le=1)
    interpolation: str = "bicubic"
    label_names: list[str] = []


class _Settings(BaseModel):
    """The keys of their config.json that are used."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    architecture: str
    pretrained_cfg: _Pretrained = _Pretrained()
    model_args: dict[str, Any] = {}


def is_timm(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of timm's."""
    return "model_type" not in settings and isinstance(settings.get("architecture"), str)


def as_transformers(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """The format of a folder of timm, and its config.json and weights as transformers would have them. Raises FormatError
    for architectures that are neither a plain Vision Transformer nor a plain ResNet."""
    theirs = read_settings(_Settings, settings)
    if "patch_embed.proj.weight" in tensors:
        return "vit", *_vit(theirs, tensors)
    if "conv1.weight" in tensors and "fc.weight" in tensors:
        return "resnet", *_resnet(theirs, tensors)
    raise _refused(theirs, f"tensors such as {', '.join(sorted(tensors)[:3])}")


def _vit(theirs: _Settings, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    strange = sorted(name for name in tensors if name not in _OF_VIT and not name.startswith("blocks."))
    if strange or "cls_token" not in tensors or "head.weight" not in tensors or "pos_embed" not in tensors:
        given = ", ".join(strange[:3]) or "no cls_token, pos_embed or head.weight"
        raise _refused(theirs, f"{given} (pooling by mean, register tokens, or other additions)")
    renamed = {_OF_VIT[name]: tensor for name, tensor in tensors.items() if name in _OF_VIT}
    n_layers = 0
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name):
            n_layers = max(n_layers, int(match[1]) + 1)
            layer = f"vit.encoder.layer.{match[1]}"
            if match[2] == "attn.qkv":
                for part, x in zip(tensor.chunk(3), ("query", "key", "value"), strict=True):
                    renamed[f"{layer}.attention.attention.{x}.{match[3]}"] = part.contiguous()
                continue
            if match[2] not in _OF_BLOCK:
                raise _refused(theirs, name)
            renamed[f"{layer}.{_OF_BLOCK[match[2]]}.{match[3]}"] = tensor
        elif name.startswith("blocks."):
            raise _refused(theirs, name)
    width, channels, patch_size, _ = tensors["patch_embed.proj.weight"].shape
    n_heads = theirs.model_args.get("num_heads", _HEADS.get(width))
    if not isinstance(n_heads, int):
        raise _refused(theirs, f"width {width}, whose number of heads config.json does not say (model_args.num_heads)")
    inner = tensors.get("blocks.0.mlp.fc1.weight")
    config = {
        "hidden_size": width,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "intermediate_size": 4 * width if inner is None else len(inner),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": math.isqrt(max(tensors["pos_embed"].shape[1] - 1, 1)) * patch_size,
        "patch_size": patch_size,
        "num_channels": channels,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        **_shared(theirs),
    }
    return config, renamed


def _resnet(theirs: _Settings, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    renamed: dict[str, Tensor] = {}
    depths: dict[int, int] = {}
    for name, tensor in tensors.items():
        stem, kind = name.rsplit(".", 1)
        if stem == "fc":
            renamed[f"classifier.1.{kind}"] = tensor
        elif stem in _OF_RESNET:
            renamed[f"resnet.{_OF_RESNET[stem]}.{kind}"] = tensor
        elif match := re.fullmatch(r"layer([1-9])\.(\d+)\.(?:(conv|bn)([123])|(downsample\.[01]))", stem):
            stage, block = int(match[1]) - 1, int(match[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
            part = f"layer.{int(match[4]) - 1}" if match[4] else "shortcut"
            place = f"resnet.encoder.stages.{stage}.layers.{block}.{part}"
            renamed[f"{place}.{_PARTS[match[3] or match[5]]}.{kind}"] = tensor
        else:
            raise _refused(theirs, name)
    bottleneck = "layer1.0.conv3.weight" in tensors
    if tensors["conv1.weight"].shape[-1] != 7 or sorted(depths) != list(range(len(depths))):
        raise _refused(
            theirs, f"a first convolution of {tensors['conv1.weight'].shape[-1]} x ..., stages {sorted(depths)}"
        )
    last = "conv3" if bottleneck else "conv2"
    config = {
        "num_channels": tensors["conv1.weight"].shape[1],
        "embedding_size": len(tensors["conv1.weight"]),
        "hidden_sizes": [len(tensors[f"layer{stage + 1}.0.{last}.weight"]) for stage in sorted(depths)],
        "depths": [depths[stage] for stage in sorted(depths)],
        "layer_type": "bottleneck" if bottleneck else "basic",
        "hidden_act": "relu",
        **_shared(theirs),
    }
    return config, {name: torch.tensor(0) if name.endswith("tracked") else x for name, x in renamed.items()}


def _shared(theirs: _Settings) -> dict[str, Any]:
    """The names of classes, and how pictures are prepared: made a little larger, then the centre cut out."""
    prepared = theirs.pretrained_cfg
    side = prepared.input_size[-1]
    return {
        "id2label": {str(number): label for number, label in enumerate(prepared.label_names)},
        KEY: {
            "image_processor_type": "timm",
            "size": {"shortest_edge": math.floor(side / prepared.crop_pct)},
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
            "resample": 2 if prepared.interpolation == "bilinear" else 3,
            "image_mean": prepared.mean,
            "image_std": prepared.std,
        },
    }


def _refused(theirs: _Settings, given: str) -> FormatError:
    return FormatError(
        "Tripel does not know this architecture of timm",
        given=f"{theirs.architecture} with {given}",
        expected="a plain Vision Transformer (vit_*_patch*) with a class token, or a plain ResNet (resnet18 to resnet152)",
        mend="import a model of one of these kinds",
    )
