"""BERT's tokenizer (Devlin et al. 2019) from its vocabulary alone, where a folder has no tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import tokenizers
from pydantic import BaseModel, ConfigDict, field_validator
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from tripel.errors import CheckpointError
from tripel.hf.common import read_settings
from tripel.storage import read_json
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer

PIECES, SETTINGS = "vocab.txt", "tokenizer_config.json"


class WordPieceSettings(BaseModel):
    """The keys of a tokenizer_config.json that change the ids, with the defaults of BertTokenizer. strip_accents None: as
    do_lower_case says."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    tokenizer_class: Literal["BertTokenizer", "BertTokenizerFast"] | None = None
    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    do_basic_tokenize: Literal[True] = True
    pad_token: str = "[PAD]"
    unk_token: str = "[UNK]"
    cls_token: str = "[CLS]"
    sep_token: str = "[SEP]"
    mask_token: str = "[MASK]"

    @field_validator("pad_token", "unk_token", "cls_token", "sep_token", "mask_token", mode="before")
    @classmethod
    def _with_options(cls, value: Any) -> Any:
        return value.get("content") if isinstance(value, dict) else value


def wordpiece_tokenizer(folder: Path) -> TokenizerPair:
    """The tokenizer of vocab.txt (a piece a line, its id the number of the line) and, if there, tokenizer_config.json.

    Raises CheckpointError for damaged files, FormatError that names a setting with which the ids would differ,
    TokenizerError when no token ends a text.
    """
    settings = read_settings(WordPieceSettings, read_json(folder / SETTINGS) if (folder / SETTINGS).exists() else {})
    try:
        lines = (folder / PIECES).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        vocabulary = {piece: number for number, piece in enumerate(lines)}
        backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=settings.unk_token))
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(
            f"{PIECES} cannot be read: {error}",
            given=folder,
            expected="a piece of text in UTF-8 on each line",
            mend="copy the folder again",
        ) from None
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.tokenize_chinese_chars,
        strip_accents=settings.strip_accents,
        lowercase=settings.do_lower_case,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    begin, end = settings.cls_token, settings.sep_token
    special = (settings.pad_token, settings.unk_token, begin, end, settings.mask_token)
    backend.add_special_tokens(
        [AddedToken(piece, special=True, normalized=False) for piece in special if piece in vocabulary]
    )
    if begin in vocabulary and end in vocabulary:
        # For other libraries that open the file; our own encode adds no special tokens.
        backend.post_processor = processors.TemplateProcessing(
            single=[begin, "$A", end],
            pair=[begin, "$A", end, "$B:1", f"{end}:1"],
            special_tokens=[(piece, vocabulary[piece]) for piece in (begin, end)],
        )
    tokenizer = Tokenizer(backend)
    return TokenizerPair(tokenizer, tokenizer)
