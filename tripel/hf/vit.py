"""ViTForImageClassification of transformers: a Vision Transformer with learned positions and a class token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor

from tripel.errors import FormatError
from tripel.hf.common import (
    Understood,
    as_float32,
    mixer_options,
    our_config,
    read_settings,
    require_expressible,
)
from tripel.hf.images import classes, labels_of, picture_usage, read_vocabulary
from tripel.hf.rules import Rule, to_ours, to_theirs
from tripel.models.config import ImageVocabulary, ViTConfig
from tripel.nn.attention import AttentionConfig

MODEL_CLASS = "ViTForImageClassification"
_EMBEDDINGS = "vit.embeddings"
_PATCHES, _TOKEN = f"{_EMBEDDINGS}.patch_embeddings.projection.weight", f"{_EMBEDDINGS}.cls_token"
_OUR_PATCHES, _OUR_TOKEN = "embedding.stem.output.weight", "embedding.class_token"
_OUR_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_THEIR_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu"}
_UNUSED = ("vit.pooler.dense.weight", "vit.pooler.dense.bias", "vit.embeddings.mask_token")
"""What some files have beside the weights of a classifier, which does not use it."""


def _one_side(value: Any) -> Any:
    """Sizes may be written as height and width."""
    return value[0] if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else value


_Side = Annotated[int, BeforeValidator(_one_side)]


class ViTSettings(BaseModel):
    """The keys of their config.json that change what the model computes, with the defaults of their ViTConfig."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    architectures: list[Literal["ViTForImageClassification"]] | None = None
    hidden_size: int = Field(768, ge=2, le=65536)
    num_hidden_layers: int = Field(12, ge=1, le=1000)
    num_attention_heads: int = Field(12, ge=1, le=65536)
    intermediate_size: int = Field(3072, ge=1, le=1 << 20)
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "swish"] = "gelu"
    hidden_dropout_prob: float = Field(0.0, ge=0.0, lt=1.0)
    attention_probs_dropout_prob: float = Field(0.0, ge=0.0, lt=1.0)
    layer_norm_eps: float = Field(1e-12, gt=0.0)
    image_size: _Side = Field(224, ge=4, le=4096)
    patch_size: _Side = Field(16, ge=1, le=512)
    num_channels: Literal[1, 3] = 3
    qkv_bias: bool = True
    id2label: dict[str, str] = {}


def express(config: ViTConfig, vocabulary: ImageVocabulary) -> dict[str, Any]:
    """Their config.json for a model of ours. Raises FormatError that names every option the format has no word for."""
    mixer, plain = config.mixer, AttentionConfig()
    if isinstance(mixer, AttentionConfig):
        shared = mixer.n_kv_heads if mixer.n_kv_heads == mixer.n_heads else None
        plain = AttentionConfig(n_heads=mixer.n_heads, n_kv_heads=shared, dropout=mixer.dropout)
    options: dict[str, tuple[object, object]] = {
        "model.stem": (config.stem, "patch"),
        "model.pool": (config.pool, "cls"),
        "model.positions": (config.positions, "learned"),
        "model.wiring": (config.wiring, "pre"),
        "model.norm": (config.norm, "layer"),
        "model.bias": (config.bias, True),
        "model.variational_dropout": (config.variational_dropout, False),
        **mixer_options("model.mixer", mixer, plain),
    }
    if config.activation not in _THEIR_ACTIVATIONS:
        options["model.activation"] = (config.activation, "gelu")
    if not config.d_ff:
        options["model.d_ff"] = (config.d_ff, 4 * config.d_model)
    require_expressible("ViT", options)
    return {
        "architectures": [MODEL_CLASS],
        "model_type": "vit",
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": plain.n_heads,
        "intermediate_size": config.d_ff,
        "hidden_act": _THEIR_ACTIVATIONS[config.activation],
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": plain.dropout,
        "layer_norm_eps": config.norm_eps,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.channels,
        "qkv_bias": True,
        **classes(vocabulary),
    }


def rename_to_theirs(config: ViTConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their names; the map of patches is a convolution there."""
    theirs = to_theirs(_rules(config), tensors)
    patch = (config.channels, config.patch_size, config.patch_size)
    theirs[_PATCHES] = theirs[_PATCHES].unflatten(1, patch)
    theirs[_TOKEN] = theirs[_TOKEN][None, None]
    return theirs


def rename_to_ours(config: ViTConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of rename_to_theirs, bit for bit."""
    ours = to_ours(_rules(config), tensors)
    ours[_OUR_PATCHES] = ours[_OUR_PATCHES].flatten(1)
    ours[_OUR_TOKEN] = ours[_OUR_TOKEN].flatten()
    return ours


def understand(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Understood:
    """A ViT folder's config.json and weights, as a config of ours and the weights that rename_to_ours takes.

    Raises FormatError for what Tripel has no word for, and for a folder without a head for classes.
    """
    theirs = read_settings(ViTSettings, settings)
    rest = as_float32({name: tensor for name, tensor in tensors.items() if name not in _UNUSED})
    head = rest.get("classifier.weight")
    if head is None or head.dim() != 2:
        raise FormatError(
            "the folder has no head for classes",
            given=f"architectures: {settings.get('architectures')}, no matrix classifier.weight",
            expected=MODEL_CLASS,
            mend="import a model that was fine-tuned to classify pictures",
        )
    if not theirs.qkv_bias:  # ours has all biases of attention or none, and their output map has one
        for i in range(theirs.num_hidden_layers):
            for x in ("query", "key", "value"):
                name = f"vit.encoder.layer.{i}.attention.attention.{x}"
                if f"{name}.weight" in rest:
                    rest[f"{name}.bias"] = rest[f"{name}.weight"].new_zeros(theirs.hidden_size)
    config = our_config(
        ViTConfig,
        {
            "image_size": theirs.image_size,
            "channels": theirs.num_channels,
            "patch_size": theirs.patch_size,
            "n_layers": theirs.num_hidden_layers,
            "d_model": theirs.hidden_size,
            "d_ff": theirs.intermediate_size,
            "mixer": {
                "kind": "attention",
                "n_heads": theirs.num_attention_heads,
                "dropout": theirs.attention_probs_dropout_prob,
            },
            "wiring": "pre",
            "activation": _OUR_ACTIVATIONS[theirs.hidden_act],
            "norm": "layer",
            "norm_eps": theirs.layer_norm_eps,
            "positions": "learned",
            "dropout": theirs.hidden_dropout_prob,
            "stem": "patch",
            "pool": "cls",
        },
    )
    labels, named = labels_of(theirs.id2label, len(head))
    vocabulary, _, notes = read_vocabulary(settings, labels, theirs.num_channels, theirs.image_size)
    return Understood(config, vocabulary, rest, (*named, *notes))


def usage(config: ViTConfig, *, shared_tokenizer: bool) -> str:
    """A section of the model card: how to run the folder with transformers."""
    del shared_tokenizer  # a model of pictures has no tokenizer
    return picture_usage(config.channels)


def _rules(config: ViTConfig) -> list[Rule]:
    """Our tensors and theirs."""
    rules = [
        Rule(_OUR_PATCHES, (_PATCHES,)),
        Rule("embedding.stem.output.bias", (f"{_EMBEDDINGS}.patch_embeddings.projection.bias",)),
        Rule(_OUR_TOKEN, (_TOKEN,)),
        Rule("embedding.positions.weight", (f"{_EMBEDDINGS}.position_embeddings",), as_row=True),
    ]
    for i in range(config.n_layers):
        ours, theirs = f"encoder.blocks.{i}", f"vit.encoder.layer.{i}"
        attention = f"{theirs}.attention"
        rules += _map(
            f"{ours}.mixer.query_key_value", *(f"{attention}.attention.{x}" for x in ("query", "key", "value"))
        )
        rules += _map(f"{ours}.mixer.output", f"{attention}.output.dense")
        rules += _map(f"{ours}.mixer_wiring.norm", f"{theirs}.layernorm_before")
        rules += _map(f"{ours}.feed_forward.inner", f"{theirs}.intermediate.dense")
        rules += _map(f"{ours}.feed_forward.outer", f"{theirs}.output.dense")
        rules += _map(f"{ours}.feed_forward_wiring.norm", f"{theirs}.layernorm_after")
    return [*rules, *_map("encoder.final_norm", "vit.layernorm"), *_map("head.linear", "classifier")]


def _map(ours: str, *theirs: str) -> list[Rule]:
    return [Rule(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs)) for kind in ("weight", "bias")]
