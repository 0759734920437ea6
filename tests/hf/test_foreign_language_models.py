"""GPT2 and Llama folders that Tripel cannot compute, or that are damaged, are refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import WEIGHTS, drop, edit, point_outside, rewrite, store, stored
from test_language_models import write_theirs

from tripel.errors import CheckpointError, FormatError, TripelError
from tripel.hf.convert import import_folder

WTE = "transformer.wte.weight"
Refusal = tuple[str, Callable[[Path], Any], type[TripelError], str]

BOTH: list[Refusal] = [
    ("no folder", shutil.rmtree, CheckpointError, "there is no such folder"),
    ("no config", lambda f: (f / "config.json").unlink(), CheckpointError, "no config.json"),
    ("other kind", lambda f: edit(f, model_type="opt"), FormatError, "model_type: opt"),
    ("several ends", lambda f: edit(f, eos_token_id=[3, 4]), FormatError, "eos_token_id"),
    ("no end", lambda f: edit(f, eos_token_id=None), FormatError, "one id that ends a text"),
    ("wild end", lambda f: edit(f, eos_token_id=24), CheckpointError, "token id 24 of 24"),
    ("wild begin", lambda f: edit(f, bos_token_id=1 << 40), CheckpointError, f"token id {1 << 40} of 24"),
    ("absurd vocabulary", lambda f: edit(f, vocab_size=1 << 60), FormatError, "vocab_size"),
    ("large vocabulary", lambda f: edit(f, vocab_size=1 << 24), CheckpointError, "of another shape"),
    ("pickled", lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), FormatError, "pytorch_model.bin"),
    ("damaged", lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 100), CheckpointError, "damaged or cut off"),
    ("escape", point_outside, CheckpointError, "model.safetensors.index.json is damaged"),
    ("a head of a classifier", lambda f: store(f, score__weight=torch.ones(2, 16)), CheckpointError, "not expected"),
]
GPT2: list[Refusal] = [
    *BOTH,
    ("activation", lambda f: edit(f, activation_function="tanh"), FormatError, "activation_function"),
    ("scores not scaled", lambda f: edit(f, scale_attn_weights=False), FormatError, "scale_attn_weights"),
    ("layers", lambda f: edit(f, scale_attn_by_inverse_layer_idx=True), FormatError, "scale_attn_by_inverse"),
    ("cross-attention", lambda f: edit(f, add_cross_attention=True), FormatError, "add_cross_attention"),
    ("text for a number", lambda f: edit(f, n_embd="wide"), FormatError, "n_embd"),
    ("heads", lambda f: edit(f, n_head=3), FormatError, "divisible"),
    ("absurd depth", lambda f: edit(f, n_layer=10**9), FormatError, "n_layer"),
    ("many layers", lambda f: edit(f, n_layer=500), CheckpointError, "missing: transformer.h.10.attn.c_attn.bias"),
    ("many positions", lambda f: edit(f, n_positions=1 << 20), CheckpointError, "wpe.weight [32, 16] instead"),
    ("absurd width", lambda f: edit(f, n_inner=1 << 40), FormatError, "n_inner"),
    ("wide", lambda f: edit(f, n_inner=1 << 20), CheckpointError, "mlp.c_fc"),
    ("not a number", lambda f: edit(f, layer_norm_epsilon=float("nan")), FormatError, "layer_norm_epsilon"),
    ("tensor missing", lambda f: drop(f, "transformer.ln_f.bias"), CheckpointError, "missing: transformer.ln_f.bias"),
    ("no embedding", lambda f: drop(f, WTE), CheckpointError, f"missing: {WTE}"),
    ("contradiction", lambda f: store(f, lm_head__weight=torch.ones(24, 16)), FormatError, "tie_word_embeddings"),
    ("no head", lambda f: edit(f, tie_word_embeddings=False), CheckpointError, "missing: lm_head.weight"),
    ("not transposed", lambda f: transpose(f, "transformer.h.0.mlp.c_fc.weight"), CheckpointError, "c_fc.weight [64"),
    (
        "weights not numbers",
        lambda f: store(f, transformer__wte__weight=torch.full((24, 16), float("nan"))),
        FormatError,
        "does not compute",
    ),
]
LLAMA: list[Refusal] = [
    *BOTH,
    ("activation", lambda f: edit(f, hidden_act="gelu"), FormatError, "hidden_act"),
    ("head width", lambda f: edit(f, head_dim=8), FormatError, "head_dim 8"),
    ("rope", lambda f: edit(f, rope_parameters={"rope_type": "llama3", "factor": 8.0}), FormatError, "rope_type"),
    ("old rope", lambda f: edit(f, rope_scaling={"type": "linear", "factor": 2.0}), FormatError, "linear"),
    ("part", lambda f: edit(f, rope_parameters={"partial_rotary_factor": 0.5}), FormatError, "partial_rotary_factor"),
    ("base", lambda f: edit(f, rope_parameters={"rope_theta": -1.0}), FormatError, "rope_theta"),
    ("heads", lambda f: edit(f, num_attention_heads=3, head_dim=None), FormatError, "n_kv_heads"),
    ("odd heads", lambda f: edit(f, num_attention_heads=16, head_dim=1), FormatError, "odd"),
    ("shape", lambda f: edit(f, num_key_value_heads=4), CheckpointError, "k_proj.weight [8, 16] instead of [16, 16]"),
    ("absurd length", lambda f: edit(f, max_position_embeddings=1 << 40), FormatError, "max_position_embeddings"),
    ("many layers", lambda f: edit(f, num_hidden_layers=500), CheckpointError, "missing: model.layers.10."),
    (
        "biases",
        lambda f: edit(f, attention_bias=True),
        CheckpointError,
        "missing: model.layers.0.self_attn.k_proj.bias",
    ),
    ("no head", lambda f: drop(f, "lm_head.weight"), CheckpointError, "missing: lm_head.weight"),
]


def transpose(folder: Path, name: str) -> None:
    rewrite(folder, {key: x.T.contiguous() if key == name else x for key, x in stored(folder).items()})


CASES = [pytest.param("gpt2", *r[1:], id=f"gpt2 {r[0]}") for r in GPT2]
CASES += [pytest.param("llama", *r[1:], id=f"llama {r[0]}") for r in LLAMA]


@pytest.mark.parametrize(("form", "harm", "kind", "message"), CASES)
def test_a_folder_that_tripel_cannot_compute_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, form: str, harm: Callable[[Path], Any], kind: type[TripelError], message: str
) -> None:
    write_theirs(tmp_path / "theirs", form)
    harm(tmp_path / "theirs")
    with pytest.raises(kind) as caught:
        import_folder(tmp_path / "theirs", tmp_path / "run")
    assert message in str(caught.value)
    assert caught.value.mend
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob(".run*"))


def test_a_long_context_that_needs_no_table_is_taken(tmp_path: Path) -> None:
    """2^20 positions of a stream of 512 would be a table of 2 GiB; rotary positions have none."""
    write_theirs(tmp_path / "theirs", "llama", hidden_size=512, max_position_embeddings=1 << 20, num_hidden_layers=1)
    assert import_folder(tmp_path / "theirs", tmp_path / "run").difference <= 1e-5
