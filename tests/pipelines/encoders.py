"""Small encoders for tests."""

import torch

from tripel.models.build import build
from tripel.models.config import EncoderConfig
from tripel.tasks.masked_token import encoder_vocabulary
from tripel.text.tokenizer import Tokenizer, TokenizerConfig

LINES = [
    "the quick brown fox jumps over the lazy dog",
    "a king and a queen live in a castle",
    "a man and a woman walk into the house",
    "unbelievable, she said; quite unbelievable (really)",
]


def tokenizer_of(kind="wordpiece", vocab_size=None):
    sizes = {"wordpiece": 260, "bpe": 420, "byte_bpe": 400, "word": 120, "unigram": 420, "char": 120}
    config = TokenizerConfig(kind=kind, vocab_size=vocab_size or sizes[kind], lowercase=True)
    return Tokenizer.train(config, LINES * 3, mask=True)


def encoder_of(tokenizer, *, head="masked-token", labels=(), seed=0, **settings):
    torch.manual_seed(seed)
    shape = {"d_model": 16, "d_ff": 32, "n_layers": 2, "mixer": {"kind": "attention", "n_heads": 2}, "max_len": 32}
    vocabulary = encoder_vocabulary(tokenizer, labels)
    config = EncoderConfig(**{**shape, "head": head, "initialisation": "glorot", "dropout": 0.1, **settings})
    return build(config, vocabulary).eval()
