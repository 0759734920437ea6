"""The byte-level BPE of GPT-2 (Radford et al. 2019) from its two original files, where a folder has no tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from tripel.errors import CheckpointError
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer

VOCABULARY, MERGES = "vocab.json", "merges.txt"


def byte_level_tokenizer(folder: Path, special_ids: Sequence[object]) -> TokenizerPair:
    """The tokenizer of vocab.json (piece to id) and merges.txt (two pieces a line, most wanted first).

    special_ids: ids of config.json that stand for no text; what is not an id is passed over. Raises CheckpointError for
    damaged files, TokenizerError when no token ends a text.
    """
    try:
        vocabulary = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        lines = (folder / MERGES).read_text(encoding="utf-8").split("\n")
        pairs = (line.rstrip("\r").partition(" ") for line in lines if not line.startswith("#version"))
        merges = [(left, right) for left, _, right in pairs if left]
        backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # the library raises plain Exception for a merge of unknown pieces
        raise CheckpointError(
            f"{VOCABULARY} and {MERGES} cannot be read: {error}",
            given=folder,
            expected="an object from pieces to ids, and lines of two pieces of it",
            mend="copy the folder again",
        ) from None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    pieces = {number: piece for piece, number in vocabulary.items()}
    special = dict.fromkeys(pieces[i] for i in special_ids if isinstance(i, int) and i in pieces)
    backend.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    tokenizer = Tokenizer(backend)
    return TokenizerPair(tokenizer, tokenizer)
