"""Tokenizers for a translation, shared and separate."""

from __future__ import annotations

import pytest
from marian_folders import SENTENCES

from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import TokenizerConfig


@pytest.fixture(scope="module")
def tokenizers() -> TokenizerPair:
    return TokenizerPair.train(TokenizerConfig(vocab_size=300), SENTENCES, SENTENCES)


@pytest.fixture(scope="module")
def two_tokenizers() -> TokenizerPair:
    config = TokenizerConfig(kind="bpe", vocab_size=400, shared=False)
    return TokenizerPair.train(config, SENTENCES[:2], SENTENCES[2:])
