"""BERT folders that Tripel cannot compute, or that are damaged: named, and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from folders import edit, store

pytest.importorskip("transformers", reason="the other side of the comparison is transformers")

from bert_folders import PIECES, write_theirs

from tripel.errors import CheckpointError, FormatError
from tripel.hf.convert import import_folder

REFUSED: list[tuple[str, str, Any, type[Exception], str]] = [
    ("a decoder", "BertForMaskedLM", lambda f: edit(f, is_decoder=True), FormatError, "is_decoder"),
    ("cross-attention", "BertModel", lambda f: edit(f, add_cross_attention=True), FormatError, "add_cross_attention"),
    (
        "relative positions",
        "BertModel",
        lambda f: edit(f, position_embedding_type="relative_key"),
        FormatError,
        "position_embedding_type",
    ),
    ("activation", "BertModel", lambda f: edit(f, hidden_act="tanh"), FormatError, "hidden_act"),
    (
        "task",
        "BertModel",
        lambda f: edit(f, architectures=["BertForQuestionAnswering"]),
        FormatError,
        "QuestionAnswering",
    ),
    (
        "several labels",
        "BertForSequenceClassification",
        lambda f: edit(f, problem_type="multi_label_classification"),
        FormatError,
        "problem_type",
    ),
    (
        "labels",
        "BertForSequenceClassification",
        lambda f: edit(f, id2label={"0": "a", "1": "a"}),
        FormatError,
        "the classes of config.json",
    ),
    (
        "a number",
        "BertForSequenceClassification",
        lambda f: store(f, classifier__weight=torch.ones(1, 16), classifier__bias=torch.ones(1)),
        FormatError,
        "no head that gives a number",
    ),
    ("heads", "BertModel", lambda f: edit(f, num_attention_heads=3), FormatError, "divisible"),
    (
        "no tokenizer",
        "BertModel",
        lambda f: (f / "vocab.txt").unlink(),
        FormatError,
        "which tokens begin and end a text",
    ),
    ("absurd depth", "BertModel", lambda f: edit(f, num_hidden_layers=10**9), FormatError, "num_hidden_layers"),
    ("wild padding", "BertModel", lambda f: edit(f, vocab_size=4), CheckpointError, "token id 4 of 4"),
    (
        "contradiction",
        "BertForMaskedLM",
        lambda f: store(f, cls__predictions__decoder__weight=torch.ones(len(PIECES), 16)),
        FormatError,
        "tie_word_embeddings",
    ),
    (
        "two biases",
        "BertForMaskedLM",
        lambda f: store(f, cls__predictions__decoder__bias=torch.ones(len(PIECES))),
        FormatError,
        "tie_word_embeddings",
    ),
    (
        "no matrix",
        "BertForMaskedLM",
        lambda f: edit(f, tie_word_embeddings=False),
        CheckpointError,
        "missing: cls.predictions.decoder",
    ),
    (
        "a stranger",
        "BertModel",
        lambda f: store(f, qa_outputs__weight=torch.ones(2, 16)),
        CheckpointError,
        "qa_outputs",
    ),
    (
        "two heads",
        "BertForMaskedLM",
        lambda f: store(f, classifier__weight=torch.ones(2, 16)),
        CheckpointError,
        "not expected: classifier.weight",
    ),
    (
        "pickled",
        "BertForMaskedLM",
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        FormatError,
        "BertForMaskedLM.from_pretrained(DIR)",
    ),
]


@pytest.mark.parametrize(("name", "harm", "kind", "message"), [pytest.param(*r[1:], id=r[0]) for r in REFUSED])
def test_a_folder_that_tripel_cannot_compute_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, name: str, harm: Any, kind: type[Exception], message: str
) -> None:
    write_theirs(tmp_path / "theirs", name)
    harm(tmp_path / "theirs")
    with pytest.raises(kind) as caught:
        import_folder(tmp_path / "theirs", tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()
