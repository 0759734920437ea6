"""Whole Marian folders exported, imported and refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import drop, edit, point_outside, store
from marian_folders import (
    EXPRESSIBLE,
    make_run,
    our_logits,
    their_logits,
    write_marian,
)

from tripel.checkpoint import load_run, save_run
from tripel.errors import CheckpointError, FormatError, TripelError
from tripel.hf import FORMATS, marian
from tripel.hf.convert import export_folder, import_folder
from tripel.models.config import ModelConfig, StackConfig, Vocabulary
from tripel.nn import AttentionConfig
from tripel.text.pair import TokenizerPair

transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")


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
        ({"norm": "rms"}, ["model.norm: rms", "model.norm: layer"]),
        ({"activation": "swiglu", "bias": False}, ["model.activation: swiglu"]),
        ({"d_ff": 0}, ["d_ff: 0", "d_ff: 1 or more"]),
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
