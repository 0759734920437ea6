"""The Marian format of Hugging Face's transformers (MarianMTModel), both ways.

A post-norm encoder-decoder as Vaswani et al. 2017 describe it, with sinusoidal positions whose sines stand before the
cosines. Marian NMT: Junczys-Dowmunt et al. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from tripel.hf.common import (
    Understood,
    as_float32,
    mixer_options,
    our_config,
    read_settings,
    require_equal,
    require_expressible,
)
from tripel.hf.rules import Rule, permute_stream, to_ours, to_theirs
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.nn import AttentionConfig
from tripel.nn.block import Activation
from tripel.nn.embed import sinusoids

MODEL_CLASS = "MarianMTModel"
_OUR_ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "gelu": "gelu", "swish": "silu", "silu": "silu"}
_THEIR_ACTIVATIONS: dict[Activation, str] = {"relu": "relu", "gelu": "gelu", "silu": "swish"}
_NORM_EPS = 1e-5  # torch's default, which their LayerNorms use and their config does not name
_SIDES = (("encoder", "source"), ("decoder", "target"))


class MarianSettings(BaseModel):
    """The keys of their config.json that change what the model computes, with the defaults of MarianConfig.

    normalize_before is of old files: MarianMTModel of today ignores it, and so does this reader unless the weights
    have the final norms that a pre-norm stack needs.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    vocab_size: int = Field(58101, ge=4, le=1 << 24)
    decoder_vocab_size: int | None = Field(None, ge=4, le=1 << 24)
    max_position_embeddings: int = Field(1024, ge=2, le=1 << 20)
    d_model: int = Field(1024, ge=2, le=65536)
    encoder_layers: int = Field(12, ge=1, le=1000)
    decoder_layers: int = Field(12, ge=1, le=1000)
    encoder_ffn_dim: int = Field(4096, ge=1, le=1 << 20)
    decoder_ffn_dim: int = Field(4096, ge=1, le=1 << 20)
    encoder_attention_heads: int = Field(16, ge=1, le=65536)
    decoder_attention_heads: int = Field(16, ge=1, le=65536)
    activation_function: Literal["relu", "gelu", "swish", "silu"] = "gelu"
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    attention_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    scale_embedding: bool = False
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    normalize_before: bool = False
    pad_token_id: int = Field(58100, ge=0)
    eos_token_id: int = Field(0, ge=0)
    decoder_start_token_id: int = Field(58100, ge=0)


def express(config: EncoderDecoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Their config.json for a model of ours. Raises FormatError that names every option the format has no word for."""
    _require_expressible(config)
    encoder, decoder = config.encoder, config.decoder
    of_encoder, of_decoder = (cast(AttentionConfig, stack.mixer) for stack in (encoder, decoder))
    return {
        "architectures": [MODEL_CLASS],
        "model_type": "marian",
        "is_encoder_decoder": True,
        "vocab_size": vocabulary.source_size,
        "decoder_vocab_size": vocabulary.target_size,
        "max_position_embeddings": config.max_len,
        "d_model": config.d_model,
        "encoder_layers": encoder.n_layers,
        "decoder_layers": decoder.n_layers,
        "encoder_ffn_dim": encoder.d_ff or config.d_ff,
        "decoder_ffn_dim": decoder.d_ff or config.d_ff,
        "encoder_attention_heads": of_encoder.n_heads,
        "decoder_attention_heads": of_decoder.n_heads,
        "activation_function": _THEIR_ACTIVATIONS[config.activation],
        "dropout": config.dropout,
        "attention_dropout": of_encoder.dropout,
        "activation_dropout": 0.0,
        "scale_embedding": config.embed_scale,
        "static_position_embeddings": True,
        "normalize_before": False,
        "share_encoder_decoder_embeddings": config.tie == "all",
        "tie_word_embeddings": config.tie != "none",
        **_tokens(vocabulary),
        "use_cache": True,
    }


def generation(config: EncoderDecoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Their generation_config.json under which generate() searches as we do: greedily, and padding is never said.

    forced_eos_token_id is null because an answer that we cut at its limit has no end token either.
    """
    banned = {"bad_words_ids": [[vocabulary.pad_id]]} if vocabulary.pad_id != vocabulary.eos_id else {}
    return {**_tokens(vocabulary), **banned, "do_sample": False, "num_beams": 1, "max_length": config.max_len}


def rename_to_theirs(config: EncoderDecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their names, and the residual stream in the order of their sinusoids."""
    rules = _rules(config)
    theirs = to_theirs(rules, tensors)
    return permute_stream(rules, theirs, _halves_of_interleaved(config)) if _permuted(config) else theirs


def rename_to_ours(config: EncoderDecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of rename_to_theirs, bit for bit."""
    rules = _rules(config)
    if _permuted(config):
        tensors = permute_stream(rules, tensors, _halves_of_interleaved(config).argsort())
    return to_ours(rules, tensors)


def understand(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Understood:
    """A Marian folder's config.json and weights, as a config of ours and the weights that rename_to_ours takes.

    Older and newer versions store different copies of the same matrices: one of each is kept. Tensors that mean nothing
    here are kept too, for the caller to refuse. Raises FormatError for what Tripel has no word for.
    """
    theirs = read_settings(MarianSettings, settings)
    rest = as_float32(tensors)
    embeddings, tie = _take_embeddings(theirs, rest)
    bias = rest.pop("final_logits_bias", None)
    has_bias = bias is not None and bool(bias.any())
    if has_bias:
        rest["final_logits_bias"] = cast(Tensor, bias)
    kinds = _take_positions(theirs, rest)
    config = _config(
        theirs,
        tie=tie,
        head_bias=has_bias,
        positions="learned" if "learned" in kinds else "sinusoidal",
        wiring="pre" if theirs.normalize_before and "model.encoder.layer_norm.weight" in rest else "post",
    )
    rest |= embeddings
    if "interleaved" in kinds:
        rest = permute_stream(_rules(config), rest, _halves_of_interleaved(config))
    return Understood(config, _vocabulary(theirs), rest)


def usage(config: EncoderDecoderConfig, *, shared_tokenizer: bool) -> str:
    """A section of the model card: how to run the folder with transformers, and what transformers cannot do with it."""
    del config  # every model of the format is used alike
    decode = "tokenizer" if shared_tokenizer else "target_tokenizer"
    second = (
        ""
        if shared_tokenizer
        else """target_tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer_target.json")
"""
    )
    note = (
        ""
        if shared_tokenizer
        else """
Source and target have vocabularies of their own. transformers keeps one tokenizer per folder and opens the source's;
`pipeline("translation")` would decode with it and give nonsense, so open the target's as above.
"""
    )
    return f"""## With transformers

```python
from transformers import MarianMTModel, PreTrainedTokenizerFast

folder = "."
model = MarianMTModel.from_pretrained(folder)
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
{second}ids = tokenizer("...", return_tensors="pt").input_ids
print({decode}.decode(model.generate(ids)[0], skip_special_tokens=True))
```

Answers may be up to max_length tokens long there; Tripel's limit grows with the length of the source.
{note}"""


def _rules(config: EncoderDecoderConfig) -> list[Rule]:
    """Our tensors and theirs, for the tensors that a model of this config has."""
    rules = _embedding_rules(config)
    for side, _ in _SIDES:
        for i in range(getattr(config, side).n_layers):
            rules += _layer_rules(f"{side}.blocks.{i}", f"model.{side}.layers.{i}", cross=side == "decoder")
        if config.wiring == "pre":
            rules += _pair(f"{side}.final_norm", f"model.{side}.layer_norm", weight_dim=0, bias_dim=0)
    if config.head_bias:
        rules.append(Rule("head.bias", ("final_logits_bias",), as_row=True))
    return rules


def _embedding_rules(config: EncoderDecoderConfig) -> list[Rule]:
    if config.tie == "all":
        rules = [Rule("target_tokens.weight", ("model.shared.weight",), stream_dim=1)]
    else:
        rules = [
            Rule("source_tokens.weight", ("model.encoder.embed_tokens.weight",), stream_dim=1),
            Rule("target_tokens.weight", ("model.decoder.embed_tokens.weight",), stream_dim=1),
        ]
    if config.tie == "none":
        rules.append(Rule("head.weight", ("lm_head.weight",), stream_dim=1))
    if config.positions == "learned":
        rules += [
            Rule(f"{ours}_embedding.positions.weight", (f"model.{side}.embed_positions.weight",), stream_dim=1)
            for side, ours in _SIDES
        ]
    return rules


def _layer_rules(ours: str, theirs: str, *, cross: bool) -> list[Rule]:
    attention = f"{theirs}.self_attn"
    rules = _pair(f"{ours}.mixer.query_key_value", *(f"{attention}.{x}_proj" for x in "qkv"), weight_dim=1)
    rules += _pair(f"{ours}.mixer.output", f"{attention}.out_proj", weight_dim=0, bias_dim=0)
    rules += _pair(f"{ours}.mixer_wiring.norm", f"{theirs}.self_attn_layer_norm", weight_dim=0, bias_dim=0)
    if cross:
        attention = f"{theirs}.encoder_attn"
        rules += _pair(f"{ours}.cross.query", f"{attention}.q_proj", weight_dim=1)
        rules += _pair(f"{ours}.cross.key_value", f"{attention}.k_proj", f"{attention}.v_proj", weight_dim=1)
        rules += _pair(f"{ours}.cross.output", f"{attention}.out_proj", weight_dim=0, bias_dim=0)
        rules += _pair(f"{ours}.cross_wiring.norm", f"{theirs}.encoder_attn_layer_norm", weight_dim=0, bias_dim=0)
    rules += _pair(f"{ours}.feed_forward.inner", f"{theirs}.fc1", weight_dim=1)
    rules += _pair(f"{ours}.feed_forward.outer", f"{theirs}.fc2", weight_dim=0, bias_dim=0)
    rules += _pair(f"{ours}.feed_forward_wiring.norm", f"{theirs}.final_layer_norm", weight_dim=0, bias_dim=0)
    return rules


def _pair(ours: str, *theirs: str, weight_dim: int, bias_dim: int | None = None) -> list[Rule]:
    return [
        Rule(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), stream_dim=weight_dim),
        Rule(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs), stream_dim=bias_dim),
    ]


def _require_expressible(config: EncoderDecoderConfig) -> None:
    options: dict[str, tuple[object, object]] = {
        "model.wiring": (config.wiring, "post"),
        "model.norm": (config.norm, "layer"),
        "model.positions": (config.positions, "sinusoidal"),
        "model.norm_eps": (config.norm_eps, _NORM_EPS),
        "model.bias": (config.bias, True),
        "model.activation": (
            config.activation,
            config.activation if config.activation in _THEIR_ACTIVATIONS else " or ".join(_THEIR_ACTIVATIONS),
        ),
    }
    for side, _ in _SIDES:
        stack: StackConfig = getattr(config, side)
        d_ff = config.d_ff if stack.d_ff is None else stack.d_ff
        options[f"model.{side}.d_ff"] = (d_ff, d_ff or "1 or more")
        mixer, plain = stack.mixer, AttentionConfig()
        if isinstance(mixer, AttentionConfig):
            plain = AttentionConfig(n_heads=mixer.n_heads, dropout=mixer.dropout)
        options |= mixer_options(f"model.{side}.mixer", mixer, plain)
    require_expressible("Marian", options)


def _tokens(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "pad_token_id": vocabulary.pad_id,
        "bos_token_id": None,
        "eos_token_id": vocabulary.eos_id,
        "decoder_start_token_id": vocabulary.start_id,
        "forced_eos_token_id": None,
    }


def _permuted(config: EncoderDecoderConfig) -> bool:
    return config.positions == "sinusoidal" and config.sinusoid_order == "interleaved"


def _halves_of_interleaved(config: EncoderDecoderConfig) -> Tensor:
    """Where each coordinate of a stream with all sines first stands in one where sines and cosines alternate."""
    return torch.cat([torch.arange(0, config.d_model, 2), torch.arange(1, config.d_model, 2)])


def _take_embeddings(theirs: MarianSettings, rest: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Remove every copy of the embedding and head matrices from rest; return the distinct ones, and `tie`.

    A matrix that several parts use is stored once, under a name that depends on the version of transformers.
    """
    shared = rest.pop("model.shared.weight", None)
    source = rest.pop("model.encoder.embed_tokens.weight", shared)
    target = rest.pop("model.decoder.embed_tokens.weight", shared)
    head = rest.pop("lm_head.weight", target if theirs.tie_word_embeddings else None)
    names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    if not theirs.tie_word_embeddings:
        return {name: x for name, x in zip(names, (source, target, head), strict=True) if x is not None}, "none"
    if not theirs.share_encoder_decoder_embeddings:
        require_equal("tie_word_embeddings", target, head)
        return {name: x for name, x in zip(names, (source, target), strict=False) if x is not None}, "target"
    used = [x for x in (shared, source, target, head) if x is not None]
    for matrix in used[1:]:
        require_equal("share_encoder_decoder_embeddings", used[0], matrix)
    return ({"model.shared.weight": used[0]} if used else {}), "all"


def _take_positions(theirs: MarianSettings, rest: dict[str, Tensor]) -> set[str]:
    """What kinds of tables the folder stores for its two sides; sinusoids, which we compute, are removed from rest."""
    length, width = theirs.max_position_embeddings, theirs.d_model
    names = [f"model.{side}.embed_positions.weight" for side, _ in _SIDES]
    stored = {name: rest[name] for name in names if name in rest}
    if not stored or width % 2 or any(table.shape != (length, width) for table in stored.values()):
        return set()  # absent: they are sinusoids; of another shape: left over, for the caller to refuse
    tables = {order: sinusoids(length, width, order=order) for order in ("halves", "interleaved")}

    def kind(table: Tensor | None) -> str:
        if table is None:
            return "halves"
        return next((o for o, t in tables.items() if torch.allclose(table, t, rtol=0, atol=1e-4)), "learned")

    kinds = {kind(rest.get(name)) for name in names}
    if len(kinds) == 1 and "learned" not in kinds:
        for name in stored:
            del rest[name]
        return kinds
    for name in names:
        rest.setdefault(name, tables["halves"])
    return {"learned"}


def _config(theirs: MarianSettings, *, tie: str, head_bias: bool, positions: str, wiring: str) -> EncoderDecoderConfig:
    encoder, decoder = (
        StackConfig(
            n_layers=getattr(theirs, f"{side}_layers"),
            mixer=AttentionConfig(n_heads=getattr(theirs, f"{side}_attention_heads"), dropout=theirs.attention_dropout),
            d_ff=None
            if side == "encoder" or theirs.decoder_ffn_dim == theirs.encoder_ffn_dim
            else theirs.decoder_ffn_dim,
        )
        for side, _ in _SIDES
    )
    return our_config(
        EncoderDecoderConfig,
        {
            "d_model": theirs.d_model,
            "d_ff": theirs.encoder_ffn_dim,
            "encoder": encoder,
            "decoder": decoder,
            "wiring": wiring,
            "activation": _OUR_ACTIVATIONS[theirs.activation_function],
            "norm_eps": _NORM_EPS,
            "positions": positions,
            "embed_scale": theirs.scale_embedding,
            "tie": tie,
            "head_bias": head_bias,
            "max_len": theirs.max_position_embeddings,
            "dropout": theirs.dropout,
        },
    )


def _vocabulary(theirs: MarianSettings) -> Vocabulary:
    target = theirs.vocab_size if theirs.share_encoder_decoder_embeddings else theirs.decoder_vocab_size
    return Vocabulary(
        source_size=theirs.vocab_size,
        target_size=target or theirs.vocab_size,
        pad_id=theirs.pad_token_id,
        eos_id=theirs.eos_token_id,
        start_id=theirs.decoder_start_token_id,
    )
