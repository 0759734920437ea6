"""BERT folders, made by transformers and by us, and what both sides make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import transformers
from folders import randomised
from torch import Tensor

from tripel.checkpoint import save_run
from tripel.models.build import build
from tripel.models.config import EncoderConfig, Vocabulary
from tripel.models.encoder import Encoder
from tripel.nn import AttentionConfig

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [
    *SPECIAL,
    *("two", "dogs", "play", "in", "the", "snow", "a", "man", "rides", "horse", "un", "##want", "##ed", "##able"),
    *(".", ",", "!", "?", "'", "-", "#", "naive", "cafe", "café", "Zürich", "zurich", "東", "京", "##都", "東京"),
    *("t", "##s", "don", "m", "i", "I", "can", "##not", "1", "##2", "€", "##", "[", "]", "mask"),
]
V, LABELS = len(PIECES), ("bird", "fish", "worm")
VOCABULARY = Vocabulary(source_size=V, target_size=V, pad_id=0, eos_id=3, start_id=2, mask_id=4, labels=LABELS)
CLASSES = {"masked-token": "BertForMaskedLM", "classes": "BertForSequenceClassification", "none": "BertModel"}

IDS = torch.tensor([[2, 5, 6, 4, 8, 9, 3], [2, 11, 12, 3, 0, 0, 0], [2, 13, 11, 3, 14, 7, 3]])
VALID = IDS != 0
TYPES = torch.tensor([[0] * 7, [0] * 7, [0, 0, 0, 0, 1, 1, 1]])


def write_vocabulary(folder: Path, pieces: list[str] = PIECES) -> None:
    """vocab.txt, which alone makes a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")


def write_theirs(folder: Path, name: str, pooler: bool = True, **options: Any) -> Any:
    """A tiny random model of transformers' class `name` with every weight set, saved by it, and a vocabulary."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    sizes |= {"vocab_size": V, "max_position_embeddings": 32}
    config = transformers.BertConfig(**{**sizes, **options})
    extra = {} if pooler else {"add_pooling_layer": False}
    model = randomised(getattr(transformers, name)(config, **extra))
    model.tie_weights()
    model.save_pretrained(folder)
    write_vocabulary(folder)
    return model


def config_of(head: str, mixer: dict[str, Any] | None = None, **options: Any) -> EncoderConfig:
    sizes = {"n_layers": 2, "d_model": 16, "d_ff": 24, "max_len": 32, "head": head}
    return EncoderConfig.model_validate({**sizes, "mixer": AttentionConfig(n_heads=4, **(mixer or {})), **options})


def make_run(folder: Path, config: EncoderConfig) -> Encoder:
    torch.manual_seed(0)
    model = randomised(build(config, VOCABULARY))
    save_run(folder, model, None, recipe_yaml="task: {}\n", card="# A model\n")
    return cast(Encoder, model)


def our_outputs(model: Any) -> Tensor:
    """Logits, or what a model without a head gives, where it stands for real tokens."""
    with torch.inference_mode():
        return _of_tokens(model(IDS, VALID, TYPES))


def their_outputs(model: Any) -> Tensor:
    with torch.inference_mode():
        given = model(input_ids=IDS, attention_mask=VALID.long(), token_type_ids=TYPES)
    for name in ("prediction_logits", "logits", "pooler_output", "last_hidden_state"):
        if getattr(given, name, None) is not None:
            return _of_tokens(getattr(given, name))
    raise AssertionError(given)


def _of_tokens(y: Tensor) -> Tensor:
    return y[VALID] if y.dim() == 3 else y


def require_close(a: Tensor, b: Tensor) -> None:
    assert a.abs().max() > 0.5
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
