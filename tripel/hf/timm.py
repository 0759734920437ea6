"""Folders of timm (its config.json has an `architecture`, no `model_type`), read as if transformers had written them.

torchvision's ResNets have the same names of weights: their folder needs a config.json of {"architecture": "resnet18"}.
Equal names of weights do not mean an equal model: what a name or an argument changes beside the weights is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from tripel.errors import FormatError
from tripel.hf.common import read_settings
from tripel.hf.images import KEY

_RESNETS = re.compile(r"(tv_|gluon_|ssl_|swsl_)?resnet\d+(_v1b)?(\.\w+)?")
# The heads of the widths that Dosovitskiy et al. 2021 and Touvron et al. 2021 name.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
# Arguments that the weights' shapes show, or that change training only; and the plain value of those that are not off.
_SHOWN = {
    *("num_classes", "in_chans", "img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias"),
    *("layers", "channels", "stem_width", "weight_init", "fix_init", "zero_init_last", "strict_img_size"),
    *("dynamic_img_size", "dynamic_img_pad", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate"),
    *("attn_drop_rate", "drop_path_rate", "drop_block_rate"),
}
_PLAIN: dict[str, dict[str, Any]] = {
    "vit": {
        **{"global_pool": "token", "act_layer": "gelu", "proj_bias": True},
        **{"class_token": True, "pos_embed": "learn", "final_norm": True},
    },
    "resnet": {
        **{"global_pool": "avg", "act_layer": "relu", "norm_layer": "batchnorm2d", "output_stride": 32},
        **{"cardinality": 1, "base_width": 64, "block_reduce_first": 1, "down_kernel_size": 1, "stem_type": ""},
    },
}
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
_NEEDED = ("cls_token", "pos_embed", "norm.weight", "head.weight")
_OF_RESNET = {"conv1": "embedder.embedder.convolution", "bn1": "embedder.embedder.normalization"}
_PARTS = {"conv": "convolution", "bn": "normalization", "downsample.0": "convolution", "downsample.1": "normalization"}
_RESAMPLES = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}

_Side = Annotated[int, Field(ge=1, le=4096)]


class Translation(NamedTuple):
    """A folder of timm as transformers would have written it. settings: config.json, with the preprocessor's under KEY."""

    format: Literal["vit", "resnet"]
    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


class _Pretrained(BaseModel):
    """How pictures are prepared, with timm's defaults."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    input_size: tuple[int, _Side, _Side] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_pct: float = Field(0.875, ge=0.1, le=1)
    crop_mode: Literal["center", "squash", "border"] = "center"
    interpolation: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] = "bicubic"


class _Settings(BaseModel):
    """The keys of their config.json that are used. label_names: of classes, or by their numbers."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    architecture: str
    global_pool: str | None = None
    label_names: list[str] | dict[str, str] = []
    label_descriptions: dict[str, str] = {}
    pretrained_cfg: _Pretrained | None = None
    model_args: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _of_all_times(cls, settings: Any) -> Any:
        """Once all keys stood in pretrained_cfg, or all beside `architecture`."""
        inner = settings.get("pretrained_cfg")
        if inner is None:
            flat = {key: value for key, value in settings.items() if key in _Pretrained.model_fields}
            inner = flat or None
            settings = {**settings, "label_names": settings.get("label_names") or settings.get("labels")}
        beside = inner if isinstance(inner, Mapping) else {}
        for key in ("label_names", "label_descriptions"):
            settings = {**settings, key: settings.get(key) or beside.get(key)}
        if isinstance(inner, Mapping):
            inner = {key: value for key, value in inner.items() if value is not None}
        return {key: value for key, value in {**settings, "pretrained_cfg": inner}.items() if value is not None}


def is_timm(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of timm's."""
    return "model_type" not in settings and isinstance(settings.get("architecture"), str)


def as_transformers(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Translation:
    """A folder of timm as transformers would have written it. Raises FormatError, which says why, for models that are
    neither a plain Vision Transformer nor a plain ResNet."""
    theirs = read_settings(_Settings, settings)
    if "patch_embed.proj.weight" in tensors:
        _require_plain(theirs, "vit")
        config, renamed = _vit(theirs, tensors)
        form: Literal["vit", "resnet"] = "vit"
    elif "conv1.weight" in tensors and "fc.weight" in tensors:
        if not _RESNETS.fullmatch(theirs.architecture):
            raise _refused(theirs, "layers that the names of its weights may not show")
        _require_plain(theirs, "resnet")
        config, renamed = _resnet(theirs, tensors)
        form = "resnet"
    else:
        raise _refused(theirs, f"tensors such as {', '.join(sorted(tensors)[:3])}")
    prepared, notes = _prepared(theirs)
    return Translation(form, {**config, **prepared}, renamed, notes)


def _require_plain(theirs: _Settings, form: Literal["vit", "resnet"]) -> None:
    """Refuse arguments that change what a model computes, and not its weights' shapes."""
    given = {"global_pool": theirs.global_pool, **theirs.model_args}
    strange = {
        key: value
        for key, value in given.items()
        if key not in _SHOWN and value not in (_PLAIN[form].get(key, False), None, {}, [])
    }
    if strange:
        raise _refused(theirs, ", ".join(f"{key}: {value}" for key, value in strange.items()))


def _vit(theirs: _Settings, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    strange = sorted(name for name in tensors if name not in _OF_VIT and not name.startswith("blocks."))
    lacking = [name for name in _NEEDED if name not in tensors]
    if strange or lacking:
        given = ", ".join([*strange[:3], *(f"no {name}" for name in lacking)])
        raise _refused(theirs, f"{given} (pooling by mean, register tokens, or other additions)")
    renamed = {_OF_VIT[name]: tensor for name, tensor in tensors.items() if name in _OF_VIT}
    n_layers = 0
    for name, tensor in tensors.items():
        if name in _OF_VIT:
            continue
        match = re.fullmatch(r"blocks\.(\d{1,4})\.(.+)\.(weight|bias)", name)
        if match is None or not tensor.dim() or (match[2] != "attn.qkv" and match[2] not in _OF_BLOCK):
            raise _refused(theirs, name)
        n_layers = max(n_layers, int(match[1]) + 1)
        layer = f"vit.encoder.layer.{match[1]}"
        if match[2] == "attn.qkv":
            for part, x in zip(tensor.tensor_split(3), ("query", "key", "value"), strict=True):
                renamed[f"{layer}.attention.attention.{x}.{match[3]}"] = part.contiguous()
        else:
            renamed[f"{layer}.{_OF_BLOCK[match[2]]}.{match[3]}"] = tensor
    return _vit_config(theirs, tensors, n_layers), renamed


def _vit_config(theirs: _Settings, tensors: Mapping[str, Tensor], n_layers: int) -> dict[str, Any]:
    patches, positions = tensors["patch_embed.proj.weight"], tensors["pos_embed"]
    if patches.dim() != 4 or positions.dim() != 3:
        raise _refused(theirs, f"patches {list(patches.shape)}, positions {list(positions.shape)}")
    width, channels, patch_size, _ = patches.shape
    n_heads = theirs.model_args.get("num_heads", _HEADS.get(width))
    if not isinstance(n_heads, int):
        raise _refused(theirs, f"width {width}, whose number of heads config.json does not say (model_args.num_heads)")
    n_patches = positions.shape[1] - 1
    side = math.isqrt(max(n_patches, 0))
    if not side or side * side != n_patches:
        raise _refused(theirs, f"{n_patches + 1} positions (none for the class token, or pictures that are no square)")
    inner = tensors.get("blocks.0.mlp.fc1.weight")
    return {
        "hidden_size": width,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "intermediate_size": 4 * width if inner is None else len(inner),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "num_channels": channels,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
    }


def _resnet(theirs: _Settings, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    renamed: dict[str, Tensor] = {}
    depths: dict[int, int] = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        if stem == "fc":
            renamed[f"classifier.1.{kind}"] = tensor
        elif stem in _OF_RESNET:
            renamed[f"resnet.{_OF_RESNET[stem]}.{kind}"] = tensor
        elif match := re.fullmatch(r"layer([1-9])\.(\d{1,4})\.(?:(conv|bn)([123])|(downsample\.[01]))", stem):
            stage, block = int(match[1]) - 1, int(match[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
            part = f"layer.{int(match[4]) - 1}" if match[4] else "shortcut"
            place = f"resnet.encoder.stages.{stage}.layers.{block}.{part}"
            renamed[f"{place}.{_PARTS[match[3] or match[5]]}.{kind}"] = tensor
        else:
            raise _refused(theirs, name)
    first, last = tensors["conv1.weight"], "conv3" if "layer1.0.conv3.weight" in tensors else "conv2"
    widest = [tensors.get(f"layer{stage + 1}.0.{last}.weight") for stage in range(len(depths))]
    if first.dim() != 4 or first.shape[-1] != 7 or any(x is None or x.dim() != 4 for x in widest):
        raise _refused(theirs, f"a first convolution {list(first.shape)}, stages {[x + 1 for x in sorted(depths)]}")
    config = {
        "num_channels": first.shape[1],
        "embedding_size": len(first),
        "hidden_sizes": [len(x) for x in widest if x is not None],
        "depths": [depths[stage] for stage in sorted(depths)],
        "layer_type": "bottleneck" if last == "conv3" else "basic",
        "hidden_act": "relu",
    }
    return config, {name: torch.tensor(0) if name.endswith("tracked") else x for name, x in renamed.items()}


def _prepared(theirs: _Settings) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The names of classes, and how pictures are prepared: made a little larger, then the centre cut out."""
    prepared, notes = theirs.pretrained_cfg, list[str]()
    if prepared is None:
        prepared = _Pretrained()
        notes.append("config.json has no pretrained_cfg: pictures are prepared with timm's defaults")
    _, high, wide = prepared.input_size
    if high != wide:
        raise _refused(theirs, f"pictures of {high} x {wide} pixels, which are no square")
    if prepared.crop_mode == "border":
        notes.append("timm puts a rim around pictures; Tripel cuts out their centre")
    named = theirs.label_names if isinstance(theirs.label_names, dict) else dict(enumerate(theirs.label_names))
    if not named:
        notes.append("config.json has no label_names: the classes are called LABEL_0, LABEL_1 ...")
    larger = math.floor(high / prepared.crop_pct)
    squashed = {"height": larger, "width": larger} if prepared.crop_mode == "squash" else {"shortest_edge": larger}
    settings = {
        "image_processor_type": "timm",
        "size": squashed,
        "do_center_crop": True,
        "crop_size": {"height": high, "width": wide},
        "resample": _RESAMPLES[prepared.interpolation],
        "image_mean": prepared.mean,
        "image_std": prepared.std,
    }
    # ImageNet's names are numbers of synsets, described beside them.
    labels = {str(number): theirs.label_descriptions.get(name, name) for number, name in named.items()}
    return {"id2label": labels, KEY: settings}, tuple(notes)


def _refused(theirs: _Settings, given: str) -> FormatError:
    return FormatError(
        "Tripel does not know this architecture of timm",
        given=f"{theirs.architecture} with {given}",
        expected="a plain Vision Transformer (vit_*_patch*) with a class token, or a plain ResNet (resnet18 to resnet152)",
        mend="import a model of one of these kinds",
    )
