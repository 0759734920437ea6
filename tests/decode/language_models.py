"""A tiny language model of every kind of mixer, and prompts for them."""

from __future__ import annotations

import random

import torch

from tripel.models.build import build
from tripel.models.config import DecoderConfig, Vocabulary
from tripel.nn import AttentionConfig, ConvConfig, LSTMConfig, RNNConfig

V, EOS_ID = 50, 3
MODELS = {
    "attention": {"mixer": AttentionConfig(n_heads=4)},
    "modern": {
        "mixer": AttentionConfig(n_heads=4, n_kv_heads=2, rotary=True, window=9, qk_norm=True),
        "positions": "none", "activation": "swiglu", "norm": "rms",
    },
    "rnn": {"mixer": RNNConfig(), "positions": "none"},
    "lstm": {"mixer": LSTMConfig(d_hidden=24), "positions": "none", "wiring": "none", "d_ff": 0},
    "conv": {"mixer": ConvConfig(kernel=3, dilation=(1, 2)), "positions": "none", "d_ff": 0},
}  # fmt: skip


def make(name, *, max_len=64, vocabulary=None, **changes):
    """A tiny model in float64, far from uniform: so that no two tokens are nearly as likely, and texts end."""
    torch.manual_seed(7)
    config = {"d_model": 32, "d_ff": 48, "n_layers": 2, "initialisation": "glorot", **MODELS[name], **changes}
    vocabulary = vocabulary or Vocabulary(source_size=V, target_size=V, pad_id=0, eos_id=EOS_ID, start_id=EOS_ID)
    model = build(DecoderConfig(**config, tie=False, max_len=max_len, dropout=0.1), vocabulary).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def prompts_of(n, seed=0, longest=15):
    generator = random.Random(seed)
    return [[generator.randrange(4, V) for _ in range(generator.randrange(longest))] for _ in range(n)]
