"""The BERT format of Hugging Face's transformers, both ways: BertForMaskedLM, BertForSequenceClassification, BertModel.

A post-norm encoder with learned positions and token types (Devlin et al. 2019). Which of the three a folder is, its
weights tell: what the model is asked, hence its head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from tripel.errors import FormatError
from tripel.hf.common import (
    Understood,
    as_float32,
    mixer_options,
    our_config,
    read_settings,
    require_equal,
    require_expressible,
)
from tripel.hf.rules import Rule, to_ours, to_theirs
from tripel.models.config import EncoderConfig, HeadKind, Pooling, Vocabulary
from tripel.nn import AttentionConfig
from tripel.nn.block import Activation

MODEL_CLASSES: dict[HeadKind, str] = {
    "masked-token": "BertForMaskedLM",
    "classes": "BertForSequenceClassification",
    "none": "BertModel",
}
_HEADS: dict[str, HeadKind] = {
    "BertForPreTraining": "masked-token",
    **{name: head for head, name in MODEL_CLASSES.items()},
}
_OUR_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
    "swish": "silu",
}
_THEIR_ACTIVATIONS: dict[Activation, str] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_new",
    "relu": "relu",
    "relu_squared": "relu2",
    "silu": "silu",
}
_BODY = "bert."
_PREDICTIONS = "cls.predictions."
_DECODER = f"{_PREDICTIONS}decoder.weight"
_BIAS, _DECODER_BIAS = f"{_PREDICTIONS}bias", f"{_PREDICTIONS}decoder.bias"
# Numbers of positions, which older versions stored with the weights.
_CONSTANTS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")


class SentenceSettings(BaseModel):
    """How a folder of sentence-transformers makes one vector of a text."""

    model_config = ConfigDict(frozen=True)

    pool: Pooling
    normalize: bool


class BertSettings(BaseModel):
    """The keys of their config.json that change what the model computes, with the defaults of BertConfig.

    Which tokens begin and end a text, pad it and hide others, is for the folder's tokenizer to say (or for a config.json of
    ours). sentence_transformers: not of config.json, but of the files beside it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    architectures: list[
        Literal["BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification", "BertModel"]
    ] = []
    vocab_size: int = Field(30522, ge=4, le=1 << 24)
    hidden_size: int = Field(768, ge=2, le=65536)
    num_hidden_layers: int = Field(12, ge=1, le=1000)
    num_attention_heads: int = Field(12, ge=1, le=65536)
    intermediate_size: int = Field(3072, ge=1, le=1 << 20)
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2", "silu", "swish"] = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0.0, lt=1.0)
    attention_probs_dropout_prob: float = Field(0.1, ge=0.0, lt=1.0)
    classifier_dropout: float | None = Field(None, ge=0.0, lt=1.0)
    max_position_embeddings: int = Field(512, ge=2, le=1 << 20)
    type_vocab_size: int = Field(2, ge=1, le=1 << 16)
    layer_norm_eps: float = Field(1e-12, gt=0.0)
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False
    add_cross_attention: Literal[False] = False
    tie_word_embeddings: bool = True
    problem_type: Literal["single_label_classification"] | None = None
    id2label: dict[str, str] = {}
    pad_token_id: int | None = Field(0, ge=0)
    bos_token_id: int | None = Field(None, ge=0)
    eos_token_id: int | None = Field(None, ge=0)
    mask_token_id: int | None = Field(None, ge=0)
    sentence_transformers: SentenceSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, settings: Any) -> Any:
        maybe_null = ("architectures", "id2label", "position_embedding_type")
        return {key: value for key, value in settings.items() if key not in maybe_null or value is not None}


def express(config: EncoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Their config.json for a model of ours. Raises FormatError that names every option the format has no word for."""
    mixer = config.mixer
    plain = AttentionConfig()
    if isinstance(mixer, AttentionConfig):
        shared = mixer.n_kv_heads if mixer.n_kv_heads == mixer.n_heads else None
        plain = AttentionConfig(n_heads=mixer.n_heads, n_kv_heads=shared, dropout=mixer.dropout)
    require_expressible("Bert", {**_options(config), **mixer_options("model.mixer", mixer, plain)})
    return {
        "architectures": [MODEL_CLASSES[config.head]],
        "model_type": "bert",
        "vocab_size": vocabulary.target_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": plain.n_heads,
        "intermediate_size": config.d_ff,
        "hidden_act": _THEIR_ACTIVATIONS[config.activation],
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": plain.dropout,
        "classifier_dropout": None,
        "max_position_embeddings": config.max_len,
        "type_vocab_size": config.token_types,
        "layer_norm_eps": config.norm_eps,
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "tie_word_embeddings": config.tie,
        **(_classes(vocabulary) if config.head == "classes" else {}),
        "pad_token_id": vocabulary.padding_id,
        "bos_token_id": vocabulary.start_id,
        "eos_token_id": vocabulary.eos_id,
        "mask_token_id": vocabulary.mask_id,
    }


def rename_to_theirs(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their names. The bias of an untied masked-token head is there under both names that it has."""
    theirs = to_theirs(_rules(config), tensors)
    if config.head == "masked-token" and not config.tie:
        theirs[_DECODER_BIAS] = theirs[_BIAS].clone()
    return theirs


def rename_to_ours(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of rename_to_theirs, bit for bit."""
    return to_ours(_rules(config), tensors)


def understand(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Understood:
    """A BERT folder's config.json and weights, as a config of ours and the weights that rename_to_ours takes.

    Folders of the model without a head have names without "bert." in front; those made from TensorFlow's weights call the
    norms' parameters gamma and beta. The next-sentence head, and what of a pooler or head has no use, is left out and
    told. Tensors that mean nothing here are kept, for the caller to refuse. Raises FormatError for what Tripel has no word
    for.
    """
    theirs = read_settings(BertSettings, settings)
    rest = _stored(tensors)
    head = _head(theirs, rest)
    notes = _leave_out(theirs, head, rest)
    if head == "masked-token":
        _take_matrices(theirs, rest)
    pooler = f"{_BODY}pooler.dense.weight" in rest or head == "classes"
    sentence = theirs.sentence_transformers
    config = our_config(
        EncoderConfig,
        {
            "n_layers": theirs.num_hidden_layers,
            "d_model": theirs.hidden_size,
            "d_ff": theirs.intermediate_size,
            "mixer": {
                "kind": "attention",
                "n_heads": theirs.num_attention_heads,
                "dropout": theirs.attention_probs_dropout_prob,
            },
            "wiring": "post",
            "activation": _OUR_ACTIVATIONS[theirs.hidden_act],
            "norm": "layer",
            "norm_eps": theirs.layer_norm_eps,
            "positions": "learned",
            "tie": theirs.tie_word_embeddings,
            "max_len": theirs.max_position_embeddings,
            "dropout": theirs.hidden_dropout_prob,
            "token_types": theirs.type_vocab_size,
            "head": head,
            # Only a pooler makes the first position's vector stand for a text; without one, the mean says more of it.
            "pool": sentence.pool if sentence else "cls" if pooler else "mean",
            "pooler": pooler,
            "normalize": sentence is not None and sentence.normalize,
        },
    )
    vocabulary = _vocabulary(theirs, rest, head)
    return Understood(config, vocabulary, _under_names_of(config, rest), notes)


def usage(config: EncoderConfig, *, shared_tokenizer: bool) -> str:
    """A section of the model card: how to run the folder with transformers."""
    del shared_tokenizer  # an encoder has only one
    pipelines = {
        "masked-token": ("fill-mask", 'print(model(f"... {model.tokenizer.mask_token} ..."))'),
        "classes": ("text-classification", 'print(model("..."))'),
    }
    if config.head in pipelines:
        task, line = pipelines[config.head]
        code = f'from transformers import pipeline\n\nmodel = pipeline("{task}", model=".")\n{line}'
    else:
        answer = "pooler_output" if config.has_pooler else "last_hidden_state"
        code = f"""from transformers import AutoModel, AutoTokenizer

folder = "."
model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
print(model(**tokenizer("...", return_tensors="pt")).{answer})"""
    return f"## With transformers\n\n```python\n{code}\n```\n"


def _options(config: EncoderConfig) -> dict[str, tuple[object, object]]:
    """For require_expressible: the options beside the mixer's. Those that a head has no use for are not asked."""
    options: dict[str, tuple[object, object]] = {
        "model.norm": (config.norm, "layer"),
        "model.wiring": (config.wiring, "post"),
        "model.positions": (config.positions, "learned"),
        "model.activation": (
            config.activation,
            config.activation if config.activation in _THEIR_ACTIVATIONS else " or ".join(_THEIR_ACTIVATIONS),
        ),
        "model.bias": (config.bias, True),
        "model.d_ff": (config.d_ff, config.d_ff or "1 or more"),
        "model.embed_scale": (config.embed_scale, False),
        "model.embedding_norm": (config.embedding_norm, True),
        "model.token_types": (config.token_types, config.token_types or "1 or more"),
    }
    if config.head == "masked-token":
        options["model.head_transform"] = (config.head_transform, True)
        options["model.head_bias"] = (config.head_bias, True)
    elif config.head == "classes":
        options["model.pooler"] = (config.pooler, True)
    if config.has_pooler:
        options["model.pool"] = (config.pool, "cls")
    return options


def _classes(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "id2label": {str(number): label for number, label in enumerate(vocabulary.labels)},
        "label2id": {label: number for number, label in enumerate(vocabulary.labels)},
        "problem_type": "single_label_classification",
    }


def _rules(config: EncoderConfig) -> list[Rule]:
    """Our tensors and theirs, for the tensors that a model of this config has."""
    body = "" if config.head == "none" else _BODY
    table = f"{body}embeddings"
    rules = [
        Rule("tokens.weight", (f"{table}.word_embeddings.weight",)),
        Rule("embedding.positions.weight", (f"{table}.position_embeddings.weight",)),
        Rule("embedding.types.weight", (f"{table}.token_type_embeddings.weight",)),
        *_map("embedding.norm", f"{table}.LayerNorm"),
    ]
    for i in range(config.n_layers):
        ours, theirs = f"encoder.blocks.{i}", f"{body}encoder.layer.{i}"
        attention = f"{theirs}.attention"
        rules += _map(f"{ours}.mixer.query_key_value", *(f"{attention}.self.{x}" for x in ("query", "key", "value")))
        rules += _map(f"{ours}.mixer.output", f"{attention}.output.dense")
        rules += _map(f"{ours}.mixer_wiring.norm", f"{attention}.output.LayerNorm")
        rules += _map(f"{ours}.feed_forward.inner", f"{theirs}.intermediate.dense")
        rules += _map(f"{ours}.feed_forward.outer", f"{theirs}.output.dense")
        rules += _map(f"{ours}.feed_forward_wiring.norm", f"{theirs}.output.LayerNorm")
    if config.has_pooler:
        rules += _map("pooler", f"{body}pooler.dense")
    if config.head == "masked-token":
        rules += _map("head.transform", f"{_PREDICTIONS}transform.dense")
        rules += _map("head.norm", f"{_PREDICTIONS}transform.LayerNorm")
        rules += [] if config.tie else [Rule("head.vocabulary.weight", (_DECODER,))]
        rules.append(Rule("head.vocabulary.bias", (_BIAS,)))
    elif config.head == "classes":
        rules += _map("head.linear", "classifier")
    return rules


def _map(ours: str, *theirs: str) -> list[Rule]:
    return [Rule(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs)) for kind in ("weight", "bias")]


def _stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a folder under today's names of a model with a head."""
    rest = {}
    for name, tensor in as_float32(tensors).items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        name = _BODY + name if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
        if name not in _CONSTANTS:
            rest[name] = tensor
    return rest


def _head(theirs: BertSettings, rest: Mapping[str, Tensor]) -> HeadKind:
    """By the weights; where they have two heads or none, by config.json. A folder that makes sentence vectors uses none."""
    if theirs.sentence_transformers is not None:
        return "none"
    predicts, classifies = any(name.startswith(_PREDICTIONS) for name in rest), "classifier.weight" in rest
    if predicts != classifies:
        return "masked-token" if predicts else "classes"
    return _HEADS[theirs.architectures[0]] if theirs.architectures else "masked-token" if predicts else "none"


def _leave_out(theirs: BertSettings, head: HeadKind, rest: dict[str, Tensor]) -> tuple[str, ...]:
    """Remove from rest what the model has no use for, and say so."""
    reasons = {"cls.seq_relationship.": "the head that tells whether two sentences follow each other was left out"}
    if head == "masked-token":
        reasons[f"{_BODY}pooler."] = "the pooler was left out: filling in hidden tokens does not use it"
    elif theirs.sentence_transformers is not None:
        reasons[f"{_BODY}pooler."] = "the pooler was left out: the folder makes vectors of texts without it"
        reasons["cls."] = reasons["classifier."] = "the head was left out: the folder is for vectors of texts"
    notes: dict[str, None] = {}
    if head == "classes" and theirs.classifier_dropout not in (None, theirs.hidden_dropout_prob):
        notes[f"classifier_dropout {theirs.classifier_dropout} was left out: the head's dropout is the model's"] = None
    for prefix, reason in reasons.items():
        for name in [name for name in rest if name.startswith(prefix)]:
            del rest[name]
            notes[reason] = None
    return tuple(notes)


def _take_matrices(theirs: BertSettings, rest: dict[str, Tensor]) -> None:
    """Keep one copy of what a masked-token head may store twice: a tied matrix, and its bias.

    With untied matrices theirs computes with the decoder's own bias; tied, the two are one.
    """
    inner, outer = rest.get(_DECODER_BIAS), rest.get(_BIAS)
    if theirs.tie_word_embeddings:
        embedding = f"{_BODY}embeddings.word_embeddings.weight"
        if _DECODER in rest:
            matrix = rest.pop(_DECODER)
            require_equal("tie_word_embeddings", rest.setdefault(embedding, matrix), matrix)
        require_equal("tie_word_embeddings", inner, outer)
        rest.pop(_DECODER_BIAS, None)
    bias = outer if inner is None else inner
    if bias is not None:
        rest[_BIAS] = bias
        if not theirs.tie_word_embeddings:
            rest[_DECODER_BIAS] = bias


def _under_names_of(config: EncoderConfig, rest: dict[str, Tensor]) -> dict[str, Tensor]:
    if config.head != "none":
        return rest
    return {name.removeprefix(_BODY): tensor for name, tensor in rest.items()}


def _vocabulary(theirs: BertSettings, rest: Mapping[str, Tensor], head: HeadKind) -> Vocabulary:
    start_id, eos_id, pad_id = theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id
    if start_id is None or eos_id is None:
        raise FormatError(
            "the folder does not say which tokens begin and end a text",
            given="neither tokenizer.json nor vocab.txt beside config.json",
            expected="the tokenizer that the model was trained with",
            mend="put it there: AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIR) of transformers does",
        )
    return Vocabulary(
        source_size=theirs.vocab_size,
        target_size=theirs.vocab_size,
        pad_id=eos_id if pad_id is None else pad_id,
        eos_id=eos_id,
        start_id=start_id,
        mask_id=theirs.mask_token_id,
        labels=_labels(theirs, rest) if head == "classes" else (),
    )


def _labels(theirs: BertSettings, rest: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The classes' names in the order of the head's rows; those of config.json, or as transformers names them."""
    matrix = rest.get("classifier.weight")
    n_classes = matrix.shape[0] if matrix is not None and matrix.dim() else 0
    names = theirs.id2label or {str(number): f"LABEL_{number}" for number in range(n_classes)}
    labels = tuple(names[str(number)] for number in range(n_classes) if str(number) in names)
    if not len(set(labels)) == n_classes == len(names) or n_classes < 2:
        raise FormatError(
            "the classes of config.json do not fit the head",
            given=f"{len(names)} names in id2label for {n_classes} rows of classifier.weight",
            expected="two classes or more, and for each a name of its own",
            mend="name every class once in id2label; Tripel has no head that gives a number (num_labels: 1)",
        )
    return labels
