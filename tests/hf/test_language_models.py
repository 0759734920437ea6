"""GPT2 and Llama folders: transformers and Tripel open each other's, with equal logits and equal greedy answers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from folders import WEIGHTS, edit, randomised, rewrite, store, stored
from torch import Tensor

from tripel.checkpoint import load_model, load_run, save_run
from tripel.decode.complete import CompletionConfig, complete
from tripel.errors import FormatError
from tripel.hf import FORMATS, llama
from tripel.hf.convert import export_folder, import_folder
from tripel.models.build import build
from tripel.models.config import DecoderConfig, Vocabulary
from tripel.models.decoder import Decoder
from tripel.nn import AttentionConfig, RNNConfig
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer, TokenizerConfig

transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")

TEXTS = ["two dogs play in the snow .", "a man rides a horse on the beach .", "I'm not  here\n\nare you?"]
IDS = torch.tensor([[5, 6, 7, 8, 9, 3, 11], [8, 9, 3, 5, 14, 6, 4], [11, 4, 7, 5, 3, 19, 12]])
PADDED = Vocabulary(source_size=24, target_size=24, pad_id=0, eos_id=3, start_id=3)
UNPADDED = Vocabulary(source_size=24, target_size=24, pad_id=23, eos_id=23, start_id=23)
"""As GPT-2's: one token ends a text and begins the next, none is for padding."""
CLASSES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}


def config_of(form: str, mixer: dict[str, Any] | None = None, **options: Any) -> DecoderConfig:
    own: dict[str, Any] = {"mixer": AttentionConfig(n_heads=4, **(mixer or {}))}
    if form == "llama":
        mixer = {"n_kv_heads": 2, "rotary": True, "bias": False, **(mixer or {})}
        own = {"mixer": AttentionConfig(n_heads=4, **mixer), "bias": False}
        own |= {"norm": "rms", "positions": "none", "activation": "swiglu"}
    return DecoderConfig.model_validate({"n_layers": 2, "d_model": 16, "d_ff": 20, "max_len": 32, **own, **options})


def make_run(folder: Path, config: DecoderConfig, vocabulary: Vocabulary = PADDED) -> Decoder:
    torch.manual_seed(0)
    model = randomised(build(config, vocabulary))
    save_run(folder, model, None, recipe_yaml="task: {}\n", card="# A model\n")
    return cast(Decoder, model)


def open_theirs(folder: Path, form: str) -> Any:
    """Through the class that config.json names, with nothing left over or missing."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == CLASSES[form]
    assert not any(info.values()), info
    return model.eval()


def write_theirs(folder: Path, form: str, **options: Any) -> Any:
    """A tiny random model with every weight set, saved by transformers."""
    torch.manual_seed(0)
    common: dict[str, Any] = {"vocab_size": 24, "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
    if form == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
        config = transformers.GPT2Config(**{**common, **sizes, **options})
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 32}
        config = transformers.LlamaConfig(**{**common, **sizes, **options})
    model = randomised(getattr(transformers, CLASSES[form])(config))
    model.save_pretrained(folder)
    return model


def our_logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(IDS)


def their_logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


@torch.inference_mode()
def our_greedy(model: Decoder, length: int) -> list[list[int]]:
    """Greedy search written out here, one prompt at a time, until a text has `length` tokens."""
    answers, banned = [], model.vocabulary.padding_id
    for prompt in IDS.tolist():
        ids, new, state = list(prompt), list(prompt), model.init_state(1, length)
        while len(ids) < length and (ids == prompt or ids[-1] != model.vocabulary.eos_id):
            logits_V = model.step(torch.tensor([new]), state)[0]
            if banned is not None:
                logits_V[banned] = -torch.inf
            new = [int(logits_V.argmax())]
            ids += new
        answers.append(ids)
    return answers


def their_greedy(model: Any, **options: Any) -> list[list[int]]:
    """Each prompt alone: nothing is padded."""
    mask = torch.ones_like(IDS[:1])
    return [model.generate(row[None], attention_mask=mask, do_sample=False, **options)[0].tolist() for row in IDS]


EXPRESSIBLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("gpt2", {}, {}),
    ("gpt2", {}, {"tie": False, "d_ff": 48, "norm_eps": 1e-3}),
    ("gpt2", {"dropout": 0.3}, {"activation": "relu", "dropout": 0.2, "variational_dropout": True}),
    ("gpt2", {"n_kv_heads": 4}, {"activation": "gelu"}),
    ("gpt2", {}, {"activation": "silu", "n_layers": 1}),
    ("gpt2", {}, {"activation": "relu_squared", "initialisation": "glorot"}),
    ("llama", {}, {}),
    ("llama", {}, {"tie": False, "norm_eps": 1e-3}),
    ("llama", {"n_kv_heads": None}, {"n_layers": 1}),
    ("llama", {"n_kv_heads": 1, "bias": True}, {"d_ff": 48}),
    ("llama", {"rotary_base": 500.0}, {"bias": True, "tie": False}),
    ("llama", {"dropout": 0.1, "bias": True}, {"bias": True, "dropout": 0.2}),
]


@pytest.mark.parametrize("vocabulary", [PADDED, UNPADDED], ids=["padded", "unpadded"])
@pytest.mark.parametrize(("form", "mixer", "options"), EXPRESSIBLE)
def test_a_run_folder_opens_in_transformers_with_equal_logits_and_greedy_answers(
    tmp_path: Path, form: str, mixer: dict[str, Any], options: dict[str, Any], vocabulary: Vocabulary
) -> None:
    ours = make_run(tmp_path, config_of(form, mixer, **options), vocabulary)
    theirs = open_theirs(tmp_path, form)
    assert their_logits(theirs).abs().max() > 1
    torch.testing.assert_close(our_logits(ours), their_logits(theirs), rtol=0, atol=1e-4)
    answers = our_greedy(ours, 32)
    assert answers == their_greedy(theirs)  # up to the max_length of the folder, which is the context
    settings = CompletionConfig(sample=False, max_new_tokens=32 - IDS.shape[1], loop_guard=0)
    found = [hypotheses[0].ids for hypotheses in complete(ours, IDS.tolist(), settings)]
    eos_id, n_prompt = vocabulary.eos_id, IDS.shape[1]
    assert [list(ids) for ids in found] == [a[:-1] if eos_id in a[n_prompt:] else a for a in answers]


@pytest.mark.parametrize("form", CLASSES)
def test_the_model_without_its_head_opens_too(tmp_path: Path, form: str) -> None:
    ours = make_run(tmp_path, config_of(form))
    theirs = transformers.AutoModel.from_pretrained(tmp_path)
    with torch.inference_mode():
        h_BTD, expected_BTD = ours.features(IDS), theirs(input_ids=IDS).last_hidden_state
    torch.testing.assert_close(h_BTD, expected_BTD, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", CLASSES)
def test_what_transformers_saves_again_still_computes_the_same(tmp_path: Path, form: str) -> None:
    ours = make_run(tmp_path / "run", config_of(form, tie=False))
    open_theirs(tmp_path / "run", form).save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "back")
    back = load_model(tmp_path / "back")
    assert torch.equal(our_logits(back), our_logits(ours))
    assert back.vocabulary == ours.vocabulary


FOREIGN: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}),
    ("gpt2", {"n_inner": 28, "activation_function": "relu", "layer_norm_epsilon": 1e-3}),
    ("gpt2", {"activation_function": "gelu", "tie_word_embeddings": False}),
    ("gpt2", {"activation_function": "gelu_pytorch_tanh", "reorder_and_upcast_attn": True}),
    ("gpt2", {"activation_function": "swish", "resid_pdrop": 0.3, "attn_pdrop": 0.2, "embd_pdrop": 0.0}),
    ("gpt2", {"pad_token_id": None, "bos_token_id": 23, "eos_token_id": 23}),
    ("gpt2", {"bos_token_id": None, "eos_token_id": [3]}),
    ("llama", {}),
    ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    ("llama", {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    ("llama", {"rope_theta": 300.0, "rms_norm_eps": 1e-3}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}),
    ("llama", {"attention_dropout": 0.2, "hidden_act": "swish", "head_dim": 4}),
    ("llama", {"pad_token_id": None, "num_attention_heads": 2}),
    ("llama", {"pad_token_id": -1, "num_hidden_layers": 1}),
]


@pytest.mark.parametrize(("form", "options"), FOREIGN)
def test_a_folder_of_transformers_opens_in_tripel_with_equal_logits_and_greedy_answers(
    tmp_path: Path, form: str, options: dict[str, Any]
) -> None:
    theirs = write_theirs(tmp_path / "theirs", form, **options)
    report = import_folder(tmp_path / "theirs", tmp_path / "run")
    assert report.difference <= 1e-5
    assert report.format in CLASSES[form]
    assert any("tokenizer.json" in note for note in report.notes)
    ours = cast(Decoder, load_model(tmp_path / "run"))
    torch.testing.assert_close(our_logits(ours), their_logits(theirs), rtol=0, atol=1e-4)
    banned = {} if ours.vocabulary.padding_id is None else {"bad_words_ids": [[ours.vocabulary.padding_id]]}
    pad_id = ours.vocabulary.pad_id
    assert our_greedy(ours, 32) == their_greedy(theirs, max_length=32, pad_token_id=pad_id, **banned)
    torch.testing.assert_close(their_logits(open_theirs(tmp_path / "run", form)), their_logits(theirs))


@pytest.mark.parametrize("version", ["rope_theta before 5", "rope_parameters since", "neither"])
def test_both_spellings_of_the_rotary_base_are_read(tmp_path: Path, version: str) -> None:
    write_theirs(tmp_path / "theirs", "llama")
    settings = json.loads((tmp_path / "theirs" / "config.json").read_text())
    del settings["rope_parameters"]
    if "theta" in version:
        settings |= {"rope_theta": 300.0, "rope_scaling": None}
    elif "parameters" in version:
        settings |= {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(settings))
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "theirs").eval()
    import_folder(tmp_path / "theirs", tmp_path / "run")
    ours = load_model(tmp_path / "run")
    assert cast(Any, ours.config).mixer.rotary_base == (10_000.0 if version == "neither" else 300.0)
    torch.testing.assert_close(our_logits(ours), their_logits(theirs), rtol=0, atol=1e-4)


def in_several_files(folder: Path, form: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("*.safetensors"))) > 1


def with_the_head_stored(folder: Path, form: str) -> None:
    store(folder, lm_head__weight=stored(folder)[embedding_of(form)].clone())


def with_the_head_alone(folder: Path, form: str) -> None:
    tensors = stored(folder)
    tensors["lm_head.weight"] = tensors.pop(embedding_of(form))
    rewrite(folder, tensors)


def without_a_prefix(folder: Path, form: str) -> None:
    prefix = "transformer." if form == "gpt2" else "model."
    rewrite(folder, {name.removeprefix(prefix): tensor for name, tensor in stored(folder).items()})


def with_constants(folder: Path, form: str) -> None:
    """Causal masks in GPT-2, rotary frequencies in Llama: what older versions stored."""
    if form == "gpt2":
        mask = torch.ones(1, 1, 32, 32, dtype=torch.uint8).tril()
        for i in range(2):
            store(folder, **{f"transformer__h__{i}__attn__bias": mask.clone()})
            store(folder, **{f"transformer__h__{i}__attn__masked_bias": torch.tensor(-1e4)})
    else:
        store(folder, **{f"model__layers__{i}__self_attn__rotary_emb__inv_freq": torch.ones(2) for i in range(2)})


def as_openai_stored_it(folder: Path, form: str) -> None:
    with_constants(folder, form)
    without_a_prefix(folder, form)


def embedding_of(form: str) -> str:
    return "transformer.wte.weight" if form == "gpt2" else "model.embed_tokens.weight"


LAYOUTS = [
    *(in_several_files, with_the_head_stored, with_the_head_alone),
    *(without_a_prefix, with_constants, as_openai_stored_it),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", CLASSES)
def test_older_and_other_layouts_of_the_same_weights_are_read(tmp_path: Path, form: str, layout: Any) -> None:
    theirs = write_theirs(tmp_path / "theirs", form, tie_word_embeddings=True)
    layout(tmp_path / "theirs", form)
    import_folder(tmp_path / "theirs", tmp_path / "run")
    torch.testing.assert_close(our_logits(load_model(tmp_path / "run")), their_logits(theirs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_read_as_float32(tmp_path: Path, form: str, dtype: torch.dtype) -> None:
    write_theirs(tmp_path / "theirs", form).to(dtype).save_pretrained(tmp_path / "theirs")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32).eval()
    import_folder(tmp_path / "theirs", tmp_path / "run")
    torch.testing.assert_close(our_logits(load_model(tmp_path / "run")), their_logits(theirs), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("form", "mixer", "options"), EXPRESSIBLE)
def test_export_and_import_give_back_the_same_model(
    tmp_path: Path, form: str, mixer: dict[str, Any], options: dict[str, Any]
) -> None:
    ours = make_run(tmp_path / "run", config_of(form, mixer, **options))
    exported = export_folder(tmp_path / "run", tmp_path / "out")
    assert (exported.difference, exported.format) == (0.0, FORMATS[form].name)
    torch.testing.assert_close(our_logits(ours), their_logits(open_theirs(tmp_path / "out", form)), rtol=0, atol=1e-4)
    edit(tmp_path / "out", tripel=None)
    import_folder(tmp_path / "out", tmp_path / "back")
    back = load_model(tmp_path / "back")
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in ours.state_dict().items())
    assert back.vocabulary == ours.vocabulary


def test_sampling_settings_survive_export(tmp_path: Path) -> None:
    model = make_run(tmp_path / "run", config_of("gpt2"))
    search = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
    save_run(tmp_path / "run", model, None, recipe_yaml=None, card="", search=search)
    export_folder(tmp_path / "run", tmp_path / "out")
    settings = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert (settings.do_sample, settings.temperature, settings.top_p, settings.bad_words_ids) == (True, 0.7, 0.9, [[0]])


INEXPRESSIBLE: list[tuple[DecoderConfig, list[str]]] = [
    (config_of("gpt2", norm="rms"), ["not in GPT2: model.norm: rms", "for GPT2: model.norm: layer"]),
    (config_of("gpt2", wiring="post"), ["model.wiring: post"]),
    (config_of("gpt2", positions="sinusoidal"), ["model.positions: sinusoidal", "for GPT2: model.positions: learned"]),
    (config_of("gpt2", activation="swiglu", bias=False), ["GPT2: model.activation: swiglu, model.bias: False"]),
    (config_of("gpt2", d_ff=0), ["model.d_ff: 0"]),
    (config_of("gpt2", embed_scale=True, head_bias=True), ["model.embed_scale: True, model.head_bias: True"]),
    (config_of("gpt2", {"rotary": True, "window": 5}), ["model.mixer.window: 5", "model.mixer.rotary: True"]),
    (config_of("gpt2", {"n_kv_heads": 2, "bias": False}), ["model.mixer.n_kv_heads: 2, model.mixer.bias: False"]),
    (config_of("llama", {"window": 5}), ["not in Llama: model.mixer.window: 5", "model.mixer.window: None"]),
    (config_of("llama", {"qk_norm": True}), ["not in Llama: model.mixer.qk_norm: True"]),
    (config_of("llama", {"rotary": False}), ["not in Llama: model.mixer.rotary: False"]),
    (config_of("llama", norm="layer"), ["not in Llama: model.norm: layer", "for Llama: model.norm: rms"]),
    (config_of("llama", activation="silu"), ["not in Llama: model.activation: silu"]),
    (config_of("gpt2", mixer=None).model_copy(update={"mixer": RNNConfig()}), ["model.mixer.kind: rnn"]),
]


@pytest.mark.parametrize(("config", "named"), INEXPRESSIBLE)
def test_export_names_every_option_that_neither_format_has_a_word_for(
    tmp_path: Path, config: DecoderConfig, named: list[str]
) -> None:
    ours = make_run(tmp_path / "run", config)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_type"] == "tripel"
    assert torch.equal(our_logits(load_model(tmp_path / "run")), our_logits(ours))
    with pytest.raises(FormatError) as caught:
        export_folder(tmp_path / "run", tmp_path / "out")
    for name in named:
        assert name in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_export_reports_no_success_when_the_check_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run", config_of("llama"))

    def wrong(config: DecoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
        return {**llama.express(config, vocabulary), "rope_parameters": {"rope_theta": 3.0}}

    monkeypatch.setitem(FORMATS, "llama", dataclasses.replace(FORMATS["llama"], express=wrong))
    with pytest.raises(FormatError, match="does not compute what the original does"):
        export_folder(tmp_path / "run", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("form", CLASSES)
@pytest.mark.parametrize("kind", ["char", "byte", "byte_bpe"])
def test_transformers_reads_the_tokenizer_with_equal_ids_and_adds_nothing(tmp_path: Path, form: str, kind: Any) -> None:
    tokenizer = Tokenizer.train(TokenizerConfig(kind=kind, vocab_size=300), TEXTS, ends_texts=False)
    size = tokenizer.vocab_size
    vocabulary = Vocabulary(source_size=size, target_size=size, pad_id=0, eos_id=3, start_id=3)
    model = build(config_of(form), vocabulary)
    save_run(tmp_path, model, TokenizerPair(tokenizer, tokenizer), recipe_yaml=None, card="# A model\n")
    for theirs in (
        transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
    ):
        for text in (*TEXTS, "Unseen: naïve 東京 </s>?", " two  spaces ", "", "\n"):
            assert theirs(text, split_special_tokens=True).input_ids == tokenizer.encode(text)
        assert theirs.decode(theirs(TEXTS[2]).input_ids, skip_special_tokens=True) == TEXTS[2]
        ids = (theirs.pad_token_id, theirs.unk_token_id, theirs.bos_token_id, theirs.eos_token_id)
        assert ids == (0, 1, 3, 3)
        assert theirs.model_max_length == 32
    assert "## With transformers" in (tmp_path / "README.md").read_text()
    assert CLASSES[form] in (tmp_path / "README.md").read_text()
    assert load_run(tmp_path).tokenizers.source.to_json() == tokenizer.to_json()


def test_a_token_that_ends_texts_and_pads_is_said_and_learnt(tmp_path: Path) -> None:
    """GPT-2 has one token for both; it would never end a text if it were treated as padding."""
    theirs = write_theirs(tmp_path / "theirs", "gpt2", pad_token_id=None, bos_token_id=23, eos_token_id=23)
    with torch.no_grad():
        theirs.transformer.ln_f.weight.zero_()
        theirs.transformer.ln_f.bias.copy_(theirs.transformer.wte.weight[23] * 10)
    theirs.save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "run")
    ours = cast(Decoder, load_model(tmp_path / "run"))
    assert [ids[-1] for ids in their_greedy(theirs, max_length=32, pad_token_id=23)] == [23] * 3
    answers = complete(ours, IDS.tolist(), CompletionConfig(sample=False, max_new_tokens=9))
    assert [hypotheses[0].finish_reason for hypotheses in answers] == ["stop"] * 3
    ours.tokens(torch.tensor([[23, 5]])).sum().backward()
    assert ours.tokens.weight.grad is not None
    assert ours.tokens.weight.grad[23].tolist() == [1.0] * 16
