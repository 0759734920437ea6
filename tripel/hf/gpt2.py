"""The GPT-2 format of Hugging Face's transformers (GPT2LMHeadModel), both ways.

A pre-norm decoder with learned positions and LayerNorm (Radford et al. 2019). Its linear maps are stored transposed,
with inputs first, as OpenAI's TensorFlow code had them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from tripel.hf.common import Understood, mixer_options, our_config, read_settings, require_expressible
from tripel.hf.language import HEAD, LanguageSettings, generation, stored_tensors, token_ids
from tripel.hf.language import usage as language_usage
from tripel.hf.rules import Rule, to_ours, to_theirs
from tripel.models.config import DecoderConfig, Vocabulary
from tripel.nn import AttentionConfig
from tripel.nn.block import Activation

__all__ = ["MODEL_CLASS", "express", "generation", "rename_to_ours", "rename_to_theirs", "understand", "usage"]

MODEL_CLASS = "GPT2LMHeadModel"
_OUR_ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
    "swish": "silu",
}
_THEIR_ACTIVATIONS: dict[Activation, str] = {
    "gelu_tanh": "gelu_new",
    "gelu": "gelu",
    "relu": "relu",
    "relu_squared": "relu2",
    "silu": "silu",
}
# Causal masks, which older versions stored with the weights.
_MASK = re.compile(r"transformer\.h\.\d+\.attn\.(masked_)?bias")


class GPT2Settings(LanguageSettings):
    """The keys of their config.json that change what the model computes, with the defaults of GPT2Config."""

    vocab_size: int = Field(50257, ge=4, le=1 << 24)
    n_positions: int = Field(1024, ge=2, le=1 << 20)
    n_embd: int = Field(768, ge=2, le=65536)
    n_layer: int = Field(12, ge=1, le=1000)
    n_head: int = Field(12, ge=1, le=65536)
    n_inner: int | None = Field(None, ge=1, le=1 << 20)
    activation_function: Literal["gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "relu2", "silu", "swish"] = "gelu_new"
    resid_pdrop: float = Field(0.1, ge=0.0, lt=1.0)
    attn_pdrop: float = Field(0.1, ge=0.0, lt=1.0)
    layer_norm_epsilon: float = Field(1e-5, gt=0.0)
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    add_cross_attention: Literal[False] = False
    bos_token_id: int | None = Field(50256, ge=0)
    eos_token_id: int = Field(50256, ge=0)
    tie_word_embeddings: bool = True


def express(config: DecoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Their config.json for a model of ours. Raises FormatError that names every option the format has no word for."""
    mixer = config.mixer
    plain = AttentionConfig()
    if isinstance(mixer, AttentionConfig):
        shared = mixer.n_kv_heads if mixer.n_kv_heads == mixer.n_heads else None
        plain = AttentionConfig(n_heads=mixer.n_heads, n_kv_heads=shared, dropout=mixer.dropout)
    require_expressible(
        "GPT2",
        {
            "model.norm": (config.norm, "layer"),
            "model.wiring": (config.wiring, "pre"),
            "model.positions": (config.positions, "learned"),
            "model.activation": (
                config.activation,
                config.activation if config.activation in _THEIR_ACTIVATIONS else " or ".join(_THEIR_ACTIVATIONS),
            ),
            "model.bias": (config.bias, True),
            "model.d_ff": (config.d_ff, config.d_ff or "1 or more"),
            "model.embed_scale": (config.embed_scale, False),
            "model.head_bias": (config.head_bias, False),
            **mixer_options("model.mixer", mixer, plain),
        },
    )
    return {
        "architectures": [MODEL_CLASS],
        "model_type": "gpt2",
        "vocab_size": vocabulary.target_size,
        "n_positions": config.max_len,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": plain.n_heads,
        "n_inner": config.d_ff,
        "activation_function": _THEIR_ACTIVATIONS[config.activation],
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": plain.dropout,
        "layer_norm_epsilon": config.norm_eps,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "tie_word_embeddings": config.tie,
        **token_ids(vocabulary),
        "use_cache": True,
    }


def rename_to_theirs(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their names, linear maps transposed."""
    return to_theirs(_rules(config), tensors)


def rename_to_ours(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of rename_to_theirs, bit for bit."""
    return to_ours(_rules(config), tensors)


def understand(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Understood:
    """A GPT-2 folder's config.json and weights, as a config of ours and the weights that rename_to_ours takes.

    Folders of the model without its head have names without "transformer." in front, as OpenAI's weights do; older ones
    store the causal masks too. Tensors that mean nothing here are kept, for the caller to refuse. Raises FormatError for
    what Tripel has no word for.
    """
    theirs = read_settings(GPT2Settings, settings)
    stored = stored_tensors(tensors, "transformer.", "transformer.wte.weight", tied=theirs.tie_word_embeddings)
    rest = {name: tensor for name, tensor in stored.items() if not _MASK.fullmatch(name)}
    config = our_config(
        DecoderConfig,
        {
            "n_layers": theirs.n_layer,
            "d_model": theirs.n_embd,
            "d_ff": theirs.n_inner or 4 * theirs.n_embd,
            "mixer": {"kind": "attention", "n_heads": theirs.n_head, "dropout": theirs.attn_pdrop},
            "wiring": "pre",
            "activation": _OUR_ACTIVATIONS[theirs.activation_function],
            "norm": "layer",
            "norm_eps": theirs.layer_norm_epsilon,
            "positions": "learned",
            "tie": theirs.tie_word_embeddings,
            "max_len": theirs.n_positions,
            "dropout": theirs.resid_pdrop,
        },
    )
    return Understood(config, theirs.vocabulary(), rest)


def usage(config: DecoderConfig, *, shared_tokenizer: bool) -> str:
    """A section of the model card: how to run the folder with transformers."""
    del config, shared_tokenizer  # a language model has only one
    return language_usage(MODEL_CLASS)


def _rules(config: DecoderConfig) -> list[Rule]:
    """Our tensors and theirs, for the tensors that a model of this config has."""
    rules = [
        Rule("tokens.weight", ("transformer.wte.weight",)),
        Rule("embedding.positions.weight", ("transformer.wpe.weight",)),
    ]
    for i in range(config.n_layers):
        ours, theirs = f"decoder.blocks.{i}", f"transformer.h.{i}"
        rules += _pair(f"{ours}.mixer_wiring.norm", f"{theirs}.ln_1")
        rules += _pair(f"{ours}.mixer.query_key_value", f"{theirs}.attn.c_attn", transposed=True)
        rules += _pair(f"{ours}.mixer.output", f"{theirs}.attn.c_proj", transposed=True)
        rules += _pair(f"{ours}.feed_forward_wiring.norm", f"{theirs}.ln_2")
        rules += _pair(f"{ours}.feed_forward.inner", f"{theirs}.mlp.c_fc", transposed=True)
        rules += _pair(f"{ours}.feed_forward.outer", f"{theirs}.mlp.c_proj", transposed=True)
    rules += _pair("decoder.final_norm", "transformer.ln_f")
    return rules if config.tie else [*rules, Rule("head.weight", (HEAD,))]


def _pair(ours: str, theirs: str, *, transposed: bool = False) -> list[Rule]:
    return [
        Rule(f"{ours}.weight", (f"{theirs}.weight",), transposed=transposed),
        Rule(f"{ours}.bias", (f"{theirs}.bias",)),
    ]
