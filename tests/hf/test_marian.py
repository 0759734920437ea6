"""Marian folders: transformers and Tripel open each other's, with equal logits and equal greedy answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import drop, edit, point_outside, randomised, store
from torch import Tensor

from tripel.checkpoint import load_model, load_run, save_run
from tripel.decode.engine import generate
from tripel.decode.search import DecodeConfig
from tripel.errors import CheckpointError, FormatError, TripelError
from tripel.hf import FORMATS, marian
from tripel.hf.convert import export_folder, import_folder
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, ModelConfig, StackConfig, Vocabulary
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.nn import AttentionConfig
from tripel.nn.embed import sinusoids
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import TokenizerConfig

transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")

SENTENCES = ["two dogs play in the snow .", "a man rides a horse on the beach .", "zwei hunde spielen im schnee ."]
SOURCE = torch.tensor([[5, 6, 7, 8, 9, 3], [8, 9, 3, 0, 0, 0], [11, 4, 7, 5, 3, 0]])
TARGET = torch.tensor([[2, 7, 8, 5], [2, 9, 10, 6], [2, 4, 4, 11]])


@pytest.fixture(scope="module")
def tokenizers() -> TokenizerPair:
    return TokenizerPair.train(TokenizerConfig(vocab_size=300), SENTENCES, SENTENCES)


@pytest.fixture(scope="module")
def two_tokenizers() -> TokenizerPair:
    config = TokenizerConfig(kind="bpe", vocab_size=400, shared=False)
    return TokenizerPair.train(config, SENTENCES[:2], SENTENCES[2:])


def make_run(folder: Path, tokenizers: TokenizerPair, **options: Any) -> EncoderDecoder:
    torch.manual_seed(0)
    config = EncoderDecoderConfig.model_validate(
        {
            "d_model": 16,
            "d_ff": 24,
            "encoder": StackConfig(n_layers=2, mixer=AttentionConfig(n_heads=2)),
            "decoder": StackConfig(n_layers=1, mixer=AttentionConfig(n_heads=4), d_ff=20),
            "max_len": 32,
            **options,
        }
    )
    source, target = tokenizers.source, tokenizers.target
    vocabulary = Vocabulary(
        source_size=source.vocab_size, target_size=target.vocab_size, pad_id=0, eos_id=3, start_id=2
    )
    model = randomised(build(config, vocabulary))
    save_run(folder, model, tokenizers, recipe_yaml="task: {}\n", card="# A model\n")
    return model


def write_marian(folder: Path, **options: Any) -> Any:
    """A tiny random MarianMTModel with every bias set, saved by transformers."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": 24,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 20,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 4,
        "max_position_embeddings": 32,
        "pad_token_id": 0,
        "eos_token_id": 3,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
        "scale_embedding": True,
        "activation_function": "swish",
    }
    model = transformers.MarianMTModel(transformers.MarianConfig(**{**settings, **options}))
    positions = [m.weight.clone() for m in (model.model.encoder.embed_positions, model.model.decoder.embed_positions)]
    randomised(model)
    with torch.no_grad():
        model.model.encoder.embed_positions.weight.copy_(positions[0])
        model.model.decoder.embed_positions.weight.copy_(positions[1])
        model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    return model


def our_logits(model: EncoderDecoder) -> Tensor:
    with torch.inference_mode():
        return model(SOURCE, TARGET, SOURCE != 0)


def their_logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=SOURCE, attention_mask=(SOURCE != 0).long(), decoder_input_ids=TARGET).logits


@torch.inference_mode()
def our_greedy(model: EncoderDecoder, n_tokens: int) -> list[list[int]]:
    """Greedy search written out here, one sentence at a time."""
    answers = []
    for row_S in SOURCE:
        state = model.start(row_S[row_S != 0][None], max_len=n_tokens + 1)
        ids = [model.vocabulary.start_id]
        while len(ids) <= n_tokens and ids[-1] != model.vocabulary.eos_id:
            logits_V = model.step(torch.tensor([ids[-1:]]), state)[0]
            logits_V[model.vocabulary.pad_id] = -torch.inf
            ids.append(int(logits_V.argmax()))
        answers.append(ids)
    return answers


def their_greedy(model: Any, **options: Any) -> list[list[int]]:
    answers = model.generate(input_ids=SOURCE, attention_mask=(SOURCE != 0).long(), **options).tolist()
    return [answer[: answer.index(3) + 1] if 3 in answer else answer for answer in answers]


EXPRESSIBLE: list[dict[str, Any]] = [
    {},
    {"activation": "gelu", "embed_scale": False},
    {"activation": "silu", "head_bias": True},
    {"sinusoid_order": "interleaved"},
    {"sinusoid_order": "interleaved", "tie": "none", "head_bias": True},
    {"tie": "target", "dropout": 0.0},
    {"tie": "none"},
]


@pytest.mark.parametrize("options", EXPRESSIBLE)
def test_a_run_folder_opens_in_transformers_with_equal_logits_and_greedy_answers(
    tmp_path: Path, tokenizers: TokenizerPair, options: dict[str, Any]
) -> None:
    ours = make_run(tmp_path, tokenizers, **options)
    theirs, info = transformers.MarianMTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert their_logits(theirs).abs().max() > 1
    torch.testing.assert_close(their_logits(theirs), our_logits(ours), rtol=0, atol=1e-4)
    answers = their_greedy(theirs)
    assert answers == our_greedy(ours, 31)  # max_length of the folder counts the start token
    # Random weights repeat themselves, hence no loop guard here.
    settings = DecodeConfig(beam=1, loop_guard=0, max_length_ratio=0, max_length_extra=31)
    sources = [row_S[row_S != 0].tolist() for row_S in SOURCE]
    found = [hypotheses[0].ids for hypotheses in generate(ours, sources, settings)]
    assert found == [[i for i in answer[1:] if i != 3] for answer in answers]


def test_a_run_of_two_vocabularies_opens_in_transformers_with_equal_logits(
    tmp_path: Path, two_tokenizers: TokenizerPair
) -> None:
    ours = make_run(tmp_path, two_tokenizers, tie="target")
    assert ours.vocabulary.source_size != ours.vocabulary.target_size
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path)
    torch.testing.assert_close(their_logits(theirs), our_logits(ours), rtol=0, atol=1e-4)
    assert their_greedy(theirs) == our_greedy(ours, 31)
    assert "tokenizer_target.json" in (tmp_path / "README.md").read_text()


def test_padding_is_never_said_even_where_it_is_the_likeliest(tmp_path: Path, tokenizers: TokenizerPair) -> None:
    model = make_run(tmp_path, tokenizers, head_bias=True)
    assert model.head.bias is not None
    with torch.no_grad():
        model.head.bias[0] = 1000.0
    save_run(tmp_path, model, tokenizers, recipe_yaml=None, card="")
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path)
    answers = their_greedy(theirs, max_new_tokens=8)
    assert answers == our_greedy(model, 8)
    assert all(0 not in answer for answer in answers)


def test_what_transformers_saves_again_still_computes_the_same(tmp_path: Path, tokenizers: TokenizerPair) -> None:
    ours = make_run(tmp_path / "run", tokenizers, sinusoid_order="interleaved", head_bias=True)
    transformers.MarianMTModel.from_pretrained(tmp_path / "run").save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "back")
    torch.testing.assert_close(our_logits(load_model(tmp_path / "back")), our_logits(ours), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pair", ["tokenizers", "two_tokenizers"])
def test_transformers_reads_the_tokenizer_with_equal_ids_and_adds_the_end(
    tmp_path: Path, request: pytest.FixtureRequest, pair: str
) -> None:
    ours: TokenizerPair = request.getfixturevalue(pair)
    make_run(tmp_path, ours, tie="target")
    for theirs in (
        transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
    ):
        for text in (*SENTENCES, "Unseen: naïve 東京 </s>?", "two  spaces"):
            ids = theirs(text, split_special_tokens=True).input_ids
            assert ids == [*ours.source.encode(text), ours.source.eos_id]
        assert theirs.decode(theirs(SENTENCES[0]).input_ids, skip_special_tokens=True) == SENTENCES[0]
        assert (theirs.pad_token_id, theirs.unk_token_id, theirs.eos_token_id) == (0, 1, 3)


FOREIGN: list[dict[str, Any]] = [
    {},
    {"activation_function": "relu", "scale_embedding": False},
    {"activation_function": "gelu"},
    {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 19},
    {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False, "decoder_vocab_size": 19},
    {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    {"share_encoder_decoder_embeddings": True, "tie_word_embeddings": False},
    {"encoder_layers": 3, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8},
    {"pad_token_id": 23, "decoder_start_token_id": 23, "eos_token_id": 0, "forced_eos_token_id": 0},
    {"dropout": 0.3, "attention_dropout": 0.2, "activation_dropout": 0.1, "encoder_layerdrop": 0.1},
    {"normalize_before": True, "normalize_embedding": True, "static_position_embeddings": True},
]


@pytest.mark.parametrize("options", FOREIGN)
def test_a_marian_folder_of_transformers_opens_in_tripel_with_equal_logits(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    theirs = write_marian(tmp_path / "theirs", **options)
    report = import_folder(tmp_path / "theirs", tmp_path / "run")
    assert report.difference <= 1e-5
    torch.testing.assert_close(our_logits(load_model(tmp_path / "run")), their_logits(theirs), rtol=0, atol=1e-4)
    assert any("tokenizer.json" in note for note in report.notes)


def test_greedy_answers_of_an_imported_model_are_those_of_transformers(tmp_path: Path) -> None:
    theirs = write_marian(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "run")
    theirs.generation_config.bad_words_ids = [[0]]
    assert our_greedy(load_model(tmp_path / "run"), 20) == their_greedy(theirs, max_new_tokens=20)


@pytest.mark.parametrize("tables", ["halves", "interleaved", "other", "other in the decoder only"])
def test_tables_of_positions_in_the_file_are_taken_for_what_they_are(tmp_path: Path, tables: str) -> None:
    """Today's transformers computes the tables, but reads them when they are there, whatever is in them."""
    write_marian(tmp_path / "theirs")
    other = torch.randn(32, 16)
    if "other" in tables:
        encoder, decoder = (sinusoids(32, 16, order="halves") if "only" in tables else other), other * 0.5
    else:
        encoder = decoder = sinusoids(32, 16, order=tables)  # type: ignore[arg-type]
    names = ("model__encoder__embed_positions__weight", "model__decoder__embed_positions__weight")
    store(tmp_path / "theirs", **dict(zip(names, (encoder, decoder.clone()), strict=True)))
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path / "theirs").eval()
    torch.testing.assert_close(theirs.model.decoder.embed_positions.weight.data, decoder)
    import_folder(tmp_path / "theirs", tmp_path / "run")
    ours = load_model(tmp_path / "run")
    torch.testing.assert_close(our_logits(ours), their_logits(theirs), rtol=0, atol=1e-4)
    assert ours.config.positions == ("learned" if "other" in tables else "sinusoidal")


def test_pre_norm_weights_with_final_norms_are_read_as_pre_norm(tmp_path: Path) -> None:
    """Marian of transformers is post-norm only; M2M100 is the same model with the norms before, by the same names."""
    torch.manual_seed(0)
    common = {
        "vocab_size": 24,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "max_position_embeddings": 32,
        "activation_function": "relu",
        "scale_embedding": True,
        "pad_token_id": 0,
        "eos_token_id": 3,
        "decoder_start_token_id": 2,
    }
    theirs = randomised(transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(**common)))
    theirs.tie_weights()
    for side in (theirs.model.encoder, theirs.model.decoder):  # its positions begin after the padding's
        side.embed_positions.weights[1:33] = sinusoids(32, 16, order="halves")
    theirs.save_pretrained(tmp_path / "theirs")
    settings = {**common, "model_type": "marian", "normalize_before": True}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(settings))
    import_folder(tmp_path / "theirs", tmp_path / "run")
    ours = load_model(tmp_path / "run")
    assert ours.config.wiring == "pre"
    torch.testing.assert_close(our_logits(ours), their_logits(theirs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    write_marian(tmp_path / "theirs").to(dtype).save_pretrained(tmp_path / "theirs")
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path / "theirs", dtype=torch.float32)
    import_folder(tmp_path / "theirs", tmp_path / "run")
    torch.testing.assert_close(our_logits(load_model(tmp_path / "run")), their_logits(theirs), rtol=0, atol=1e-4)


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    theirs = write_marian(tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="10KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    import_folder(tmp_path / "theirs", tmp_path / "run")
    torch.testing.assert_close(our_logits(load_model(tmp_path / "run")), their_logits(theirs), rtol=0, atol=1e-4)


def test_copies_of_one_matrix_as_older_versions_stored_them_are_read(tmp_path: Path) -> None:
    theirs = write_marian(tmp_path / "theirs")
    matrix = theirs.model.shared.weight.detach()
    names = ("model__encoder__embed_tokens__weight", "model__decoder__embed_tokens__weight", "lm_head__weight")
    store(tmp_path / "theirs", **{name: matrix.clone() for name in names})
    import_folder(tmp_path / "theirs", tmp_path / "run")
    assert load_model(tmp_path / "run").config.tie == "all"
    torch.testing.assert_close(our_logits(load_model(tmp_path / "run")), their_logits(theirs), rtol=0, atol=1e-4)


def test_the_tokenizer_of_an_imported_folder_comes_along(tmp_path: Path, tokenizers: TokenizerPair) -> None:
    write_marian(tmp_path / "theirs", vocab_size=tokenizers.source.vocab_size)
    tokenizers.save(tmp_path / "theirs")
    report = import_folder(tmp_path / "theirs", tmp_path / "run")
    assert report.notes == ()
    assert load_run(tmp_path / "run").tokenizers.source.to_json() == tokenizers.source.to_json()


@pytest.mark.parametrize("options", EXPRESSIBLE)
def test_export_and_import_give_back_the_same_logits(
    tmp_path: Path, tokenizers: TokenizerPair, options: dict[str, Any]
) -> None:
    ours = make_run(tmp_path / "run", tokenizers, **options)
    exported = export_folder(tmp_path / "run", tmp_path / "out")
    assert exported.difference <= 1e-5
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(their_logits(theirs), our_logits(ours), rtol=0, atol=1e-4)
    import_folder(tmp_path / "out", tmp_path / "back")
    torch.testing.assert_close(our_logits(load_run(tmp_path / "back").model), our_logits(ours), rtol=0, atol=1e-5)
    card = (tmp_path / "back" / "README.md").read_text()
    assert card.count("## With transformers") == 1


def test_export_says_what_transformers_cannot_do_with_two_vocabularies(
    tmp_path: Path, two_tokenizers: TokenizerPair
) -> None:
    make_run(tmp_path / "run", two_tokenizers, tie="target")
    assert any("README.md" in note for note in export_folder(tmp_path / "run", tmp_path / "out").notes)


def test_the_settings_of_the_search_survive_export(tmp_path: Path, tokenizers: TokenizerPair) -> None:
    model = make_run(tmp_path / "run", tokenizers)
    search = {"num_beams": 5, "length_penalty": 1.3}
    save_run(tmp_path / "run", model, tokenizers, recipe_yaml=None, card="", search=search)
    export_folder(tmp_path / "run", tmp_path / "out")
    settings = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert (settings.num_beams, settings.length_penalty, settings.bad_words_ids) == (5, 1.3, [[0]])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"wiring": "pre"}, ["model.wiring: pre", "model.wiring: post"]),
        ({"positions": "learned"}, ["model.positions: learned", "model.positions: sinusoidal"]),
        ({"norm_eps": 1e-6}, ["model.norm_eps: 1e-06", "model.norm_eps: 1e-05"]),
        (
            {"encoder": StackConfig(n_layers=1, mixer=AttentionConfig(n_heads=2, bias=False)), "wiring": "pre"},
            ["model.encoder.mixer.bias: False", "model.wiring: pre"],
        ),
    ],
)
def test_export_names_every_option_that_the_format_has_no_word_for(
    tmp_path: Path, tokenizers: TokenizerPair, options: dict[str, Any], named: list[str]
) -> None:
    make_run(tmp_path / "run", tokenizers, **options)
    with pytest.raises(FormatError) as caught:
        export_folder(tmp_path / "run", tmp_path / "out")
    assert all(name in str(caught.value) for name in named)
    assert not (tmp_path / "out").exists()


def test_export_reports_no_success_when_the_check_fails(
    tmp_path: Path, tokenizers: TokenizerPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run", tokenizers)

    def wrong(config: ModelConfig, vocabulary: Vocabulary) -> dict[str, Any]:
        return {**marian.express(config, vocabulary), "scale_embedding": False}

    monkeypatch.setitem(FORMATS, "marian", dataclasses.replace(FORMATS["marian"], express=wrong))
    with pytest.raises(FormatError, match="does not compute what the original does"):
        export_folder(tmp_path / "run", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


REFUSED: list[tuple[str, Callable[[Path], Any], type[TripelError], str]] = [
    ("no folder", shutil.rmtree, CheckpointError, "there is no such folder"),
    ("no config", lambda f: (f / "config.json").unlink(), CheckpointError, "no config.json"),
    ("other kind", lambda f: edit(f, model_type="t5"), FormatError, "model_type: t5"),
    ("no kind", lambda f: edit(f, model_type=None), FormatError, "model_type: None"),
    ("activation", lambda f: edit(f, activation_function="gelu_new"), FormatError, "activation_function"),
    ("several ends", lambda f: edit(f, eos_token_id=[0, 3]), FormatError, "eos_token_id"),
    ("no padding", lambda f: edit(f, pad_token_id=None), FormatError, "pad_token_id"),
    ("text for a number", lambda f: edit(f, d_model="wide"), FormatError, "d_model"),
    ("absurd size", lambda f: edit(f, vocab_size=1 << 60), FormatError, "vocab_size"),
    ("heads", lambda f: edit(f, encoder_attention_heads=3), FormatError, "divisible"),
    (
        "odd width",
        lambda f: edit(f, d_model=17, encoder_attention_heads=1, decoder_attention_heads=1),
        FormatError,
        "odd",
    ),
    ("wild id", lambda f: edit(f, decoder_start_token_id=24), CheckpointError, "token id 24"),
    ("shape", lambda f: edit(f, encoder_ffn_dim=25), CheckpointError, "fc1"),
    ("tensor missing", lambda f: drop(f, "model.encoder.layers.0.fc1.bias"), CheckpointError, "missing: model.enc"),
    ("no embedding", lambda f: drop(f, "model.shared.weight"), CheckpointError, "missing: model.shared.weight"),
    (
        "norm of the embedding",
        lambda f: store(f, model__encoder__layernorm_embedding__weight=torch.ones(16)),
        CheckpointError,
        "not expected: model.encoder.layernorm_embedding.weight",
    ),
    (
        "positions cut off",
        lambda f: store(f, model__encoder__embed_positions__weight=torch.ones(3, 16)),
        CheckpointError,
        "not expected",
    ),
    ("contradiction", lambda f: store(f, lm_head__weight=torch.ones(24, 16)), FormatError, "share_encoder_decoder"),
    (
        "not numbers",
        lambda f: store(f, model__shared__weight=torch.full((24, 16), float("nan"))),
        FormatError,
        "does not compute",
    ),
    ("pickled", lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), FormatError, "pytorch_model.bin"),
    ("damaged", lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 100), CheckpointError, "damaged or cut off"),
    ("escape", point_outside, CheckpointError, "model.safetensors.index.json is damaged"),
]


@pytest.mark.parametrize(("harm", "kind", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_folder_that_tripel_cannot_compute_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, harm: Callable[[Path], Any], kind: type[TripelError], message: str
) -> None:
    write_marian(tmp_path / "theirs")
    harm(tmp_path / "theirs")
    with pytest.raises(kind) as caught:
        import_folder(tmp_path / "theirs", tmp_path / "run")
    assert message in str(caught.value)
    assert caught.value.mend
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob(".run*"))


def test_a_folder_in_use_is_not_written_to(tmp_path: Path, tokenizers: TokenizerPair) -> None:
    make_run(tmp_path / "run", tokenizers)
    write_marian(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match="in use"):
        import_folder(tmp_path / "theirs", tmp_path / "run")
    with pytest.raises(CheckpointError, match="in use"):
        export_folder(tmp_path / "run", tmp_path / "theirs")
