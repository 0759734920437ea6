"""BERT folders: transformers and Tripel open each other's, with equal logits and vectors."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import edit, rewrite, stored

transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")

from bert_folders import (  # noqa: E402
    CLASSES,
    LABELS,
    PIECES,
    VOCABULARY,
    config_of,
    make_run,
    our_outputs,
    require_close,
    their_outputs,
    write_theirs,
)

from tripel.checkpoint import load_model, load_run, save_run  # noqa: E402
from tripel.errors import CheckpointError, FormatError  # noqa: E402
from tripel.hf import FORMATS, bert  # noqa: E402
from tripel.hf.convert import export_folder, import_folder  # noqa: E402
from tripel.models.build import build  # noqa: E402
from tripel.models.config import EncoderConfig, Vocabulary  # noqa: E402
from tripel.nn import RNNConfig  # noqa: E402
from tripel.tasks.masked_token import encoder_vocabulary  # noqa: E402
from tripel.text.pair import TokenizerPair  # noqa: E402
from tripel.text.tokenizer import Tokenizer, TokenizerConfig  # noqa: E402

WORDS = "bert.embeddings.word_embeddings.weight"
BIAS, DECODER = "cls.predictions.bias", "cls.predictions.decoder"
OPENERS = {
    "BertForMaskedLM": "AutoModelForMaskedLM",
    "BertForSequenceClassification": "AutoModelForSequenceClassification",
}


def open_theirs(folder: Path, head: str, config: EncoderConfig | None = None) -> Any:
    """Through the class that config.json names, with nothing left over, and nothing missing but an unused pooler."""
    opener = getattr(transformers, OPENERS.get(CLASSES[head], "AutoModel"))
    extra = {"add_pooling_layer": False} if head == "none" and config is not None and not config.pooler else {}
    model, info = opener.from_pretrained(folder, output_loading_info=True, **extra)
    assert type(model).__name__ == CLASSES[head]
    assert not any(info.values()), info
    return model.eval()


EXPRESSIBLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("masked-token", {}, {}),
    ("masked-token", {}, {"tie": False, "activation": "relu", "norm_eps": 1e-3}),
    ("masked-token", {"dropout": 0.2}, {"activation": "gelu_tanh", "token_types": 3, "d_ff": 40, "pool": "mean"}),
    ("masked-token", {"n_kv_heads": 4}, {"activation": "relu_squared", "initialisation": "glorot", "dropout": 0.3}),
    ("classes", {}, {}),
    ("classes", {"dropout": 0.1}, {"activation": "silu", "n_layers": 1, "variational_dropout": True}),
    ("none", {}, {}),
    ("none", {}, {"pooler": False}),
    ("none", {}, {"pooler": False, "pool": "mean", "normalize": True, "head_transform": False}),
]


@pytest.mark.parametrize(("head", "mixer", "options"), EXPRESSIBLE)
def test_a_run_folder_opens_in_transformers_with_equal_outputs_and_comes_back_the_same(
    tmp_path: Path, head: str, mixer: dict[str, Any], options: dict[str, Any]
) -> None:
    config = config_of(head, mixer, **options)
    ours = make_run(tmp_path / "run", config)
    require_close(our_outputs(ours), their_outputs(open_theirs(tmp_path / "run", head, config)))
    exported = export_folder(tmp_path / "run", tmp_path / "out")
    assert (exported.difference, exported.format) == (0.0, "Bert")
    require_close(our_outputs(ours), their_outputs(open_theirs(tmp_path / "out", head, config)))
    edit(tmp_path / "out", tripel=None)
    import_folder(tmp_path / "out", tmp_path / "back")
    back = load_model(tmp_path / "back")
    assert back.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in ours.state_dict().items())
    assert back.vocabulary == VOCABULARY.model_copy(update={} if head == "classes" else {"labels": ()})
    if head == "none":
        assert (back.config.pool, back.config.normalize) == (config.pool, config.normalize)


def test_classes_keep_their_names_on_both_sides(tmp_path: Path) -> None:
    make_run(tmp_path, config_of("classes"))
    theirs = open_theirs(tmp_path, "classes")
    assert theirs.config.id2label == dict(enumerate(LABELS))
    assert theirs.config.label2id == {label: number for number, label in enumerate(LABELS)}
    assert theirs.config.problem_type == "single_label_classification"


@pytest.mark.parametrize("head", CLASSES)
def test_what_transformers_saves_again_still_computes_the_same(tmp_path: Path, head: str) -> None:
    ours = make_run(tmp_path / "run", config_of(head, **({"tie": False} if head == "masked-token" else {})))
    open_theirs(tmp_path / "run", head).save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "back")
    assert torch.equal(our_outputs(load_model(tmp_path / "back")), our_outputs(ours))


FOREIGN: list[tuple[str, dict[str, Any]]] = [
    ("BertForMaskedLM", {}),
    ("BertForMaskedLM", {"tie_word_embeddings": False, "hidden_act": "relu", "layer_norm_eps": 1e-3}),
    ("BertForMaskedLM", {"hidden_act": "gelu_new", "type_vocab_size": 4, "intermediate_size": 40}),
    ("BertForPreTraining", {}),
    ("BertForPreTraining", {"tie_word_embeddings": False, "hidden_act": "gelu_pytorch_tanh"}),
    ("BertForSequenceClassification", {"num_labels": 4, "classifier_dropout": 0.3}),
    (
        "BertForSequenceClassification",
        {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}, "hidden_act": "swish"},
    ),
    ("BertModel", {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2}),
    ("BertModel", {"pooler": False, "num_attention_heads": 2, "num_hidden_layers": 1}),
]


@pytest.mark.parametrize(("name", "options"), FOREIGN)
def test_a_folder_of_transformers_opens_in_tripel_with_equal_outputs_and_goes_back(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    theirs = write_theirs(tmp_path / "theirs", name, **options)
    report = import_folder(tmp_path / "theirs", tmp_path / "run")
    assert (report.difference, report.format) == (0.0, "Bert")
    run = load_run(tmp_path / "run")
    require_close(our_outputs(run.model), their_outputs(theirs))
    head = {"BertForPreTraining": "masked-token", **{name: head for head, name in CLASSES.items()}}[name]
    require_close(their_outputs(open_theirs(tmp_path / "run", head, run.config)), their_outputs(theirs))
    vocabulary = run.vocabulary
    assert (vocabulary.pad_id, vocabulary.start_id, vocabulary.eos_id, vocabulary.mask_id) == (0, 2, 3, 4)
    if "id2label" in options:
        assert vocabulary.labels == ("no", "yes")
    elif head == "classes":
        assert vocabulary.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
    told = " ".join(report.notes)
    assert ("classifier_dropout 0.3" in told) == ("classifier_dropout" in options)
    assert ("pooler was left out" in told) == ("whether two sentences" in told) == (name == "BertForPreTraining")


def with_tensorflows_names(folder: Path) -> None:
    """As the first BERTs were published: gamma and beta, positions stored, the pooler of a model that has no use for it."""
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in stored(folder).items()
    }
    tensors["bert.embeddings.position_ids"] = torch.arange(32)[None]
    tensors["bert.pooler.dense.weight"] = torch.ones(16, 16)
    rewrite(folder, tensors)


def with_the_matrix_and_bias_stored_twice(folder: Path) -> None:
    tensors = stored(folder)
    twice = {f"{DECODER}.weight": tensors[WORDS].clone(), f"{DECODER}.bias": tensors[BIAS].clone()}
    rewrite(folder, tensors | twice)


def with_the_bias_under_its_other_name(folder: Path) -> None:
    tensors = stored(folder)
    tensors[f"{DECODER}.bias"] = tensors.pop(BIAS)
    rewrite(folder, tensors)


def without_architectures(folder: Path) -> None:
    edit(folder, architectures=None)


LAYOUTS = [
    *(with_tensorflows_names, with_the_matrix_and_bias_stored_twice),
    *(with_the_bias_under_its_other_name, without_architectures),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_older_and_other_layouts_of_the_same_weights_are_read(tmp_path: Path, layout: Any) -> None:
    theirs = write_theirs(tmp_path / "theirs", "BertForMaskedLM")
    layout(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "run")
    require_close(our_outputs(load_model(tmp_path / "run")), their_outputs(theirs))


def test_half_precision_weights_in_several_files_are_read_as_float32(tmp_path: Path) -> None:
    theirs = write_theirs(tmp_path / "theirs", "BertForMaskedLM").to(torch.bfloat16)
    (tmp_path / "theirs" / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="10KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    import_folder(tmp_path / "theirs", tmp_path / "run")
    require_close(our_outputs(load_model(tmp_path / "run")), their_outputs(theirs.float()))


INEXPRESSIBLE: list[tuple[EncoderConfig, list[str]]] = [
    (config_of("masked-token", wiring="pre"), ["model.wiring: pre", "model.wiring: post"]),
    (config_of("masked-token", norm="rms", bias=False), ["model.norm: rms, model.bias: False"]),
    (
        config_of("masked-token", {"rotary": True}, positions="none"),
        ["model.positions: none", "model.mixer.rotary: True"],
    ),
    (config_of("masked-token", {"bias": False, "window": 5}), ["model.mixer.bias: False, model.mixer.window: 5"]),
    (config_of("masked-token", activation="swiglu"), ["model.activation: swiglu"]),
    (config_of("masked-token", d_ff=0), ["model.d_ff: 0"]),
    (
        config_of("masked-token", embed_scale=True, embedding_norm=False),
        ["model.embed_scale: True, model.embedding_norm"],
    ),
    (config_of("masked-token", token_types=0), ["model.token_types: 0"]),
    (
        config_of("masked-token", head_transform=False, head_bias=False),
        ["model.head_transform: False, model.head_bias"],
    ),
    (config_of("classes", pooler=False), ["model.pooler: False"]),
    (config_of("classes", pool="mean"), ["model.pool: mean"]),
    (config_of("none", pool="max"), ["model.pool: max"]),
    (config_of("classes").model_copy(update={"mixer": RNNConfig()}), ["model.mixer.kind: rnn"]),
]


@pytest.mark.parametrize(("config", "named"), INEXPRESSIBLE)
def test_export_names_every_option_that_the_format_has_no_word_for_and_the_run_keeps_our_names(
    tmp_path: Path, config: EncoderConfig, named: list[str]
) -> None:
    ours = make_run(tmp_path / "run", config)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_type"] == "tripel"
    assert torch.equal(our_outputs(load_model(tmp_path / "run")), our_outputs(ours))
    with pytest.raises(FormatError) as caught:
        export_folder(tmp_path / "run", tmp_path / "out")
    for name in named:
        assert name in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_export_reports_no_success_when_the_check_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run", config_of("masked-token"))

    def wrong(config: EncoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
        return {**bert.express(config, vocabulary), "layer_norm_eps": 0.1}

    monkeypatch.setitem(FORMATS, "bert", dataclasses.replace(FORMATS["bert"], express=wrong))
    with pytest.raises(FormatError, match="does not compute what the original does"):
        export_folder(tmp_path / "run", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("head", CLASSES)
@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_run_with_a_tokenizer_of_ours_is_used_by_transformers_as_its_card_says(
    tmp_path: Path, kind: Any, head: str
) -> None:
    texts = ["two dogs play in the snow .", "a man rides a horse on the beach ."]
    tokenizer = Tokenizer.train(TokenizerConfig(kind=kind, vocab_size=400), texts, mask=True)
    config = config_of(head)
    model = build(config, encoder_vocabulary(tokenizer, LABELS)).eval()
    save_run(tmp_path, model, TokenizerPair(tokenizer, tokenizer), recipe_yaml=None, card="# A model\n")
    assert not (tmp_path / "generation_config.json").exists()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (*texts, "Unseen: naïve 東京 </s>?", ""):
        given = theirs(text, split_special_tokens=True)
        assert given.input_ids == [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        assert given.keys() == {"input_ids", "token_type_ids", "attention_mask"}
    names = (theirs.pad_token, theirs.unk_token, theirs.cls_token, theirs.sep_token, theirs.mask_token)
    assert names == ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    assert theirs.model_max_length == 32
    card = (tmp_path / "README.md").read_text()
    if head == "none":
        assert "AutoModel.from_pretrained(folder)" in card
        return
    task = "fill-mask" if head == "masked-token" else "text-classification"
    assert f'pipeline("{task}", model=".")' in card
    answer = transformers.pipeline(task, model=str(tmp_path))
    if head == "classes":
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(texts[0]), tokenizer.eos_id]])
        with torch.inference_mode():
            weights = model(ids).softmax(-1)[0]
        (given,) = answer([texts[0]])
        assert (given["label"], round(given["score"], 4)) == (LABELS[weights.argmax()], round(float(weights.max()), 4))
    else:
        parts = [tokenizer.encode("two dogs"), [tokenizer.mask_id], tokenizer.encode("in the snow .")]
        ids = torch.tensor([[tokenizer.bos_id, *itertools.chain(*parts), tokenizer.eos_id]])
        with torch.inference_mode():
            best = model(ids)[0, len(parts[0]) + 1].softmax(-1).topk(3)
        given = answer("two dogs <mask> in the snow .", top_k=3)
        assert [candidate["token"] for candidate in given] == best.indices.tolist()
        assert [candidate["score"] for candidate in given] == pytest.approx(best.values.tolist(), abs=1e-6)


def test_a_tokenizer_with_other_special_tokens_does_not_fit(tmp_path: Path) -> None:
    write_theirs(tmp_path / "theirs", "BertForMaskedLM")
    import_folder(tmp_path / "theirs", tmp_path / "run")
    run = load_run(tmp_path / "run")
    other = run.vocabulary.model_copy(update={"mask_id": PIECES.index("mask")})
    model = build(run.config, other)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        save_run(tmp_path / "other", model, run.tokenizers, recipe_yaml=None, card="")
