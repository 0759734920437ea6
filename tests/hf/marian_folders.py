"""Marian runs of ours and folders of theirs, tiny and random, and what each computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from folders import randomised
from torch import Tensor

from tripel.checkpoint import save_run
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.nn import AttentionConfig
from tripel.text.pair import TokenizerPair

transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")

SENTENCES = ["two dogs play in the snow .", "a man rides a horse on the beach .", "zwei hunde spielen im schnee ."]
SOURCE = torch.tensor([[5, 6, 7, 8, 9, 3], [8, 9, 3, 0, 0, 0], [11, 4, 7, 5, 3, 0]])
TARGET = torch.tensor([[2, 7, 8, 5], [2, 9, 10, 6], [2, 4, 4, 11]])


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
