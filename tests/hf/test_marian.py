"""Marian folders: transformers and Tripel open each other's, with equal logits and equal greedy answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import randomised, store
from marian_folders import (
    EXPRESSIBLE,
    SENTENCES,
    SOURCE,
    make_run,
    our_greedy,
    our_logits,
    their_greedy,
    their_logits,
    write_marian,
)

from tripel.checkpoint import load_model, load_run, save_run
from tripel.decode.engine import generate
from tripel.decode.search import DecodeConfig
from tripel.hf.convert import import_folder
from tripel.nn.embed import sinusoids
from tripel.text.pair import TokenizerPair

transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")


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
