"""The Llama format of Hugging Face's transformers (LlamaForCausalLM), both ways.

A pre-norm decoder with RMSNorm, rotary positions, SwiGLU and shared key-value heads (Touvron et al. 2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor

from tripel.hf.common import Understood, mixer_options, our_config, read_settings, require_expressible
from tripel.hf.language import HEAD, LanguageSettings, generation, stored_tensors, token_ids
from tripel.hf.language import usage as language_usage
from tripel.hf.rules import Rule, to_ours, to_theirs
from tripel.models.config import DecoderConfig, Vocabulary
from tripel.nn import AttentionConfig

__all__ = ["MODEL_CLASS", "express", "generation", "rename_to_ours", "rename_to_theirs", "understand", "usage"]

MODEL_CLASS = "LlamaForCausalLM"
_DEFAULT_BASE = 10_000.0
# A constant, which older versions stored with the weights.
_FREQUENCIES = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


class LlamaSettings(LanguageSettings):
    """The keys of their config.json that change what the model computes, with the defaults of LlamaConfig.

    Rotary positions are spelled rope_theta and rope_scaling before version 5, rope_parameters since.
    """

    vocab_size: int = Field(32000, ge=4, le=1 << 24)
    hidden_size: int = Field(4096, ge=2, le=65536)
    intermediate_size: int = Field(11008, ge=1, le=1 << 20)
    num_hidden_layers: int = Field(32, ge=1, le=1000)
    num_attention_heads: int = Field(32, ge=1, le=65536)
    num_key_value_heads: int | None = Field(None, ge=1, le=65536)
    head_dim: int | None = None
    hidden_act: Literal["silu", "swish"] = "silu"
    max_position_embeddings: int = Field(2048, ge=2, le=1 << 20)
    rms_norm_eps: float = Field(1e-6, gt=0.0)
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    rope_theta: float = Field(_DEFAULT_BASE, gt=1.0)
    rope_type: Literal["default"] = "default"
    partial_rotary_factor: float = Field(1.0, ge=1.0, le=1.0)
    bos_token_id: int | None = Field(1, ge=0)
    eos_token_id: int = Field(2, ge=0)
    tie_word_embeddings: bool = False

    @model_validator(mode="before")
    @classmethod
    def _both_spellings_of_rotary_positions(cls, settings: Any) -> Any:
        keys = ("rope_type", "rope_theta", "partial_rotary_factor")
        found = {key: settings.get(key) for key in keys}
        inner = settings.get("rope_scaling") or settings.get("rope_parameters")  # their order, if both are there
        if isinstance(inner, Mapping):
            inner = {"rope_type": inner.get("type"), **inner}
            found |= {key: inner[key] for key in keys if inner.get(key) is not None}
        rest = {key: value for key, value in settings.items() if key not in keys}
        return rest | {key: value for key, value in found.items() if value is not None}

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> LlamaSettings:
        if self.head_dim is not None and self.head_dim * self.num_attention_heads != self.hidden_size:
            raise ValueError(
                f"head_dim {self.head_dim} is not hidden_size {self.hidden_size} / "
                f"num_attention_heads {self.num_attention_heads}"
            )
        return self


def express(config: DecoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Their config.json for a model of ours. Raises FormatError that names every option the format has no word for."""
    mixer = config.mixer
    plain = AttentionConfig(rotary=True)
    if isinstance(mixer, AttentionConfig):
        kept = {name: getattr(mixer, name) for name in ("n_heads", "n_kv_heads", "bias", "dropout", "rotary_base")}
        plain = AttentionConfig(**kept, rotary=True)
    require_expressible(
        "Llama",
        {
            "model.norm": (config.norm, "rms"),
            "model.wiring": (config.wiring, "pre"),
            "model.positions": (config.positions, "none"),
            "model.activation": (config.activation, "swiglu"),
            "model.d_ff": (config.d_ff, config.d_ff or "1 or more"),
            "model.embed_scale": (config.embed_scale, False),
            "model.head_bias": (config.head_bias, False),
            **mixer_options("model.mixer", mixer, plain),
        },
    )
    return {
        "architectures": [MODEL_CLASS],
        "model_type": "llama",
        "vocab_size": vocabulary.target_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": plain.n_heads,
        "num_key_value_heads": plain.n_kv_heads or plain.n_heads,
        "head_dim": config.d_model // plain.n_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": plain.rotary_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": plain.rotary_base},
        "attention_bias": plain.bias,
        "mlp_bias": config.bias,
        "attention_dropout": plain.dropout,
        "tie_word_embeddings": config.tie,
        **token_ids(vocabulary),
        "use_cache": True,
    }


def rename_to_theirs(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their names."""
    return to_theirs(_rules(config), tensors)


def rename_to_ours(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of rename_to_theirs, bit for bit."""
    return to_ours(_rules(config), tensors)


def understand(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Understood:
    """A Llama folder's config.json and weights, as a config of ours and the weights that rename_to_ours takes.

    Older versions store the rotary frequencies, too. Tensors that mean nothing here are kept, for the caller to refuse.
    Raises FormatError for what Tripel has no word for.
    """
    theirs = read_settings(LlamaSettings, settings)
    stored = stored_tensors(tensors, "model.", "model.embed_tokens.weight", tied=theirs.tie_word_embeddings)
    rest = {name: tensor for name, tensor in stored.items() if not _FREQUENCIES.fullmatch(name)}
    n_heads, n_kv_heads = theirs.num_attention_heads, theirs.num_key_value_heads
    config = our_config(
        DecoderConfig,
        {
            "n_layers": theirs.num_hidden_layers,
            "d_model": theirs.hidden_size,
            "d_ff": theirs.intermediate_size,
            "mixer": {
                "kind": "attention",
                "n_heads": n_heads,
                "n_kv_heads": None if n_kv_heads == n_heads else n_kv_heads,
                "bias": theirs.attention_bias,
                "dropout": theirs.attention_dropout,
                "rotary": True,
                "rotary_base": theirs.rope_theta,
            },
            "wiring": "pre",
            "activation": "swiglu",
            "norm": "rms",
            "norm_eps": theirs.rms_norm_eps,
            "bias": theirs.mlp_bias,
            "positions": "none",
            "tie": theirs.tie_word_embeddings,
            "max_len": theirs.max_position_embeddings,
            "dropout": 0.0,
        },
    )
    return Understood(config, theirs.vocabulary(), rest)


def usage(config: DecoderConfig, *, shared_tokenizer: bool) -> str:
    """A section of the model card: how to run the folder with transformers."""
    del config, shared_tokenizer  # a language model has only one
    return language_usage(MODEL_CLASS)


def _rules(config: DecoderConfig) -> list[Rule]:
    """Our tensors and theirs, for the tensors that a model of this config has."""
    mixer = config.mixer
    assert isinstance(mixer, AttentionConfig)
    d_kv = (mixer.n_kv_heads or mixer.n_heads) * (config.d_model // mixer.n_heads)
    rules = [Rule("tokens.weight", ("model.embed_tokens.weight",))]
    for i in range(config.n_layers):
        ours, theirs = f"decoder.blocks.{i}", f"model.layers.{i}"
        attention, mlp = f"{theirs}.self_attn", f"{theirs}.mlp"
        heads = [f"{attention}.{x}_proj" for x in "qkv"]
        sizes = (config.d_model, d_kv, d_kv)
        rules.append(Rule(f"{ours}.mixer_wiring.norm.weight", (f"{theirs}.input_layernorm.weight",)))
        rules += _map(f"{ours}.mixer.query_key_value", *heads, bias=mixer.bias, sizes=sizes)
        rules += _map(f"{ours}.mixer.output", f"{attention}.o_proj", bias=mixer.bias)
        rules.append(Rule(f"{ours}.feed_forward_wiring.norm.weight", (f"{theirs}.post_attention_layernorm.weight",)))
        rules += _map(f"{ours}.feed_forward.inner", f"{mlp}.gate_proj", f"{mlp}.up_proj", bias=config.bias)
        rules += _map(f"{ours}.feed_forward.outer", f"{mlp}.down_proj", bias=config.bias)
    rules.append(Rule("decoder.final_norm.weight", ("model.norm.weight",)))
    return rules if config.tie else [*rules, Rule("head.weight", (HEAD,))]


def _map(ours: str, *theirs: str, bias: bool, sizes: tuple[int, ...] | None = None) -> list[Rule]:
    kinds = ("weight", "bias") if bias else ("weight",)
    return [Rule(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs), sizes=sizes) for kind in kinds]
