"""Each kind of tokenizer as an object of the `tokenizers` library: normalizer, pre-tokenizer, model, decoder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tripel.errors import TokenizerError
from tripel.text.characters import CharacterTable

if TYPE_CHECKING:
    from tripel.text.tokenizer import TokenizerConfig

SPACE = "\u2581"
SPACE_MARKS = (SPACE, "\u0120")  # ours and SentencePiece's, and that of byte-level BPE
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
MASK = "<mask>"
_SPACED_KINDS = ("word", "bpe", "unigram", "wordpiece")
"""Those that put a space in front of a text."""
_BYTES = [f"<0x{value:02X}>" for value in range(256)]

# Words, numbers and punctuation apart, each with the space before it. An apostrophe goes with its shorter side (l'|eau,
# qu'|il, man|'s, don|'t), so that the longer one is the same piece wherever it stands.
_WORDS = "|".join(
    [
        rf"{SPACE}?(?:\p{{L}}{{1,2}}|\p{{L}}+qu)['\u2019](?=\p{{L}}{{2}})",
        r"['\u2019]\p{L}{1,2}(?![\p{L}\p{M}])",
        rf"{SPACE}?\p{{L}}[\p{{L}}\p{{M}}]*",
        rf"{SPACE}?\p{{N}}+",
        rf"{SPACE}?[^{SPACE}\s\p{{L}}\p{{N}}]+",
        rf"{SPACE}+(?={SPACE})",
        SPACE,
        r"\s+",
    ]
)
# WordPiece gives up on longer words; the square of it bounds its work for one word.
_LONGEST_WORD = 1000
# More than there are in Unicode.
_EVERY_CHARACTER = 1 << 21


def train(config: TokenizerConfig, texts: Iterable[str], *, ends_texts: bool, mask: bool) -> tokenizers.Tokenizer:
    """A trained tokenizer with <pad>, <unk>, <s>, </s> as 0 to 3. ends_texts, mask: see Tokenizer.train."""
    names = (*SPECIALS, MASK) if mask else SPECIALS
    room = config.vocab_size - len(names) + len(SPECIALS)
    backend = _TRAINERS[config.kind](config.model_copy(update={"vocab_size": room}), texts)
    # In other libraries the mask takes the place of a word with the space before it, and what follows gets one in front.
    before, after = config.kind in {*_SPACED_KINDS, "byte_bpe"}, config.kind in _SPACED_KINDS
    backend.add_special_tokens(
        [
            AddedToken(
                name, special=True, normalized=False, lstrip=before and name == MASK, rstrip=after and name == MASK
            )
            for name in names
        ]
    )
    # For other libraries that open the file; our own encode adds no special tokens.
    if mask:
        ends = [(name, SPECIALS.index(name)) for name in ("<s>", "</s>")]
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends
        )
    elif ends_texts:
        backend.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", SPECIALS.index("</s>"))]
        )
    return backend


def character_table(backend: tokenizers.Tokenizer) -> CharacterTable | None:
    """The table that encodes texts for this tokenizer, if a table can: kinds char and byte."""
    content = json.loads(backend.to_str())
    model = content["model"]
    if model.get("type") != "BPE" or model["merges"] or content["pre_tokenizer"] or model.get("byte_fallback"):
        return None
    steps = [step["type"] for step in _steps(content["normalizer"], "normalizers")]
    vocabulary, unknown = model["vocab"], model["vocab"].get(model["unk_token"])
    of_bytes = steps[-1:] == ["ByteLevel"]
    if not set(steps) - {"ByteLevel"} <= {"NFC", "NFKC", "Lowercase"} or "ByteLevel" in steps[:-1]:
        return None
    if of_bytes:
        ids = {value: vocabulary.get(shown) for value, shown in enumerate(_byte_characters())}
        return None if None in ids.values() else CharacterTable(steps[:-1], ids, of_bytes=True, unknown=0)
    ids = {ord(piece): number for piece, number in vocabulary.items() if len(piece) == 1}
    return None if unknown is None else CharacterTable(steps, ids, of_bytes=False, unknown=unknown)


def keeps_text_divisible(backend: tokenizers.Tokenizer) -> bool:
    """Whether a text may be encoded in pieces cut before a space, a line end or the like: nothing is put in front of a
    text, and what stands before a space has no part in what follows. True of char, byte and byte-level BPE."""
    content = json.loads(backend.to_str())
    before = _steps(content["normalizer"], "normalizers")
    apart = _steps(content["pre_tokenizer"], "pretokenizers")
    if any(step["type"] not in {"NFC", "NFKC", "Lowercase", "ByteLevel"} for step in before):
        return False
    if not apart:
        return content["model"]["type"] == "BPE" and not content["model"]["merges"]
    return apart[-1]["type"] == "ByteLevel" and not any(
        step["type"] not in {"ByteLevel", "Split", "Digits"} or step.get("add_prefix_space") for step in apart
    )


def kind(backend: tokenizers.Tokenizer) -> str:
    """The kind of TokenizerConfig that a tokenizer is of, or is nearest to."""
    content = json.loads(backend.to_str())
    model = content["model"]
    if model.get("type") != "BPE":
        return {"Unigram": "unigram", "WordPiece": "wordpiece", "WordLevel": "word"}[model["type"]]
    of_bytes = isinstance(backend.decoder, decoders.ByteLevel)
    if model["merges"]:
        return "byte_bpe" if of_bytes else "bpe"
    return "byte" if of_bytes else "char"


def _steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer as its file has them, sequences laid flat."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part[name] for step in _steps(inner, name)]


def byte_values(ids: Mapping[str, int]) -> dict[str, int]:
    """Piece to byte for a vocabulary that spells unknown characters in bytes, else empty."""
    return {piece: value for value, piece in enumerate(_BYTES)} if all(piece in ids for piece in _BYTES) else {}


def _train_bpe(config: TokenizerConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    backend = _with_words(tokenizers.Tokenizer(models.BPE(unk_token="<unk>")), config)
    n_bytes = len(_BYTES) if config.byte_fallback else 0
    room = config.vocab_size - n_bytes
    trainer = trainers.BpeTrainer(
        vocab_size=max(room, 0),
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIALS),
        # Without bytes every character must be kept, or the training text could not be read back.
        limit_alphabet=max(room // 2, 0) if config.byte_fallback else _EVERY_CHARACTER,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    _require_room(config, backend.get_vocab_size() + n_bytes)
    return _with_bytes(backend) if config.byte_fallback else backend


def _train_unigram(config: TokenizerConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    backend = _with_words(tokenizers.Tokenizer(models.Unigram()), config)
    n_bytes = len(_BYTES) if config.byte_fallback else 0
    trainer = trainers.UnigramTrainer(
        vocab_size=max(config.vocab_size - n_bytes, 0),
        special_tokens=list(SPECIALS),
        unk_token="<unk>",
        show_progress=False,
    )
    try:
        backend.train_from_iterator(texts, trainer)
    except Exception as error:  # the library raises plain Exception for a vocabulary below the alphabet
        raise _too_small(config, "the characters that occur", str(error)) from None
    _require_room(config, backend.get_vocab_size() + n_bytes)
    return _with_bytes(backend) if config.byte_fallback else backend


def _train_word(config: TokenizerConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    backend = _with_words(tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>")), config)
    trainer = trainers.WordLevelTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIALS),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _train_wordpiece(config: TokenizerConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    # The mark is on the pieces that begin a word, as in the other kinds, not "##" on those that go on with it: "##"
    # in the text itself could not be told from it.
    model = models.WordPiece(unk_token="<unk>", continuing_subword_prefix="", max_input_chars_per_word=_LONGEST_WORD)
    backend = _with_words(tokenizers.Tokenizer(model), config)
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIALS),
        continuing_subword_prefix="",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    _require_room(config, backend.get_vocab_size())
    return backend


def _train_char(config: TokenizerConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    normalizer = _unicode_normalizer(config)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    frequent = [item for item in counts.items() if item[1] >= config.min_frequency]
    frequent.sort(key=lambda item: (-item[1], item[0]))
    alphabet = sorted(character for character, _ in frequent[: config.vocab_size - len(SPECIALS)])
    backend = _without_merges([*SPECIALS, *alphabet])
    backend.normalizer = normalizer
    backend.decoder = decoders.Fuse()
    return backend


def _train_byte(config: TokenizerConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    del texts  # there is nothing to learn: the vocabulary is the 256 bytes, byte b as id 4 + b
    if config.vocab_size < len(SPECIALS) + 256:
        raise _too_small(config, "256 bytes and 4 special tokens", f"{len(SPECIALS) + 256} or more")
    backend = _without_merges([*SPECIALS, *_byte_characters()])
    backend.normalizer = normalizers.Sequence([_unicode_normalizer(config), normalizers.ByteLevel()])
    backend.decoder = decoders.ByteLevel()
    return backend


def _train_byte_bpe(config: TokenizerConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    """GPT-2's (Radford et al. 2019, section 2.2): words split by its pattern, in bytes, then merged."""
    n_needed = len(SPECIALS) + 256
    if config.vocab_size < n_needed:
        raise _too_small(config, "256 bytes and 4 special tokens", f"{n_needed} or more")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = _unicode_normalizer(config)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIALS),
        initial_alphabet=_byte_characters(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


_TRAINERS = {
    "word": _train_word,
    "char": _train_char,
    "byte": _train_byte,
    "byte_bpe": _train_byte_bpe,
    "bpe": _train_bpe,
    "unigram": _train_unigram,
    "wordpiece": _train_wordpiece,
}


def _unicode_normalizer(config: TokenizerConfig) -> normalizers.Normalizer:
    steps: list[Any] = []
    if config.normalization != "none":
        steps.append(normalizers.NFC() if config.normalization == "nfc" else normalizers.NFKC())
    if config.lowercase:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(steps)


def _with_words(backend: tokenizers.Tokenizer, config: TokenizerConfig) -> tokenizers.Tokenizer:
    """The parts that word, bpe, unigram and wordpiece share: spaces marked, words apart (see text/tokenizer.py)."""
    backend.normalizer = normalizers.Sequence(
        [
            _unicode_normalizer(config),
            normalizers.Replace(SPACE, "_"),
            normalizers.Replace(" ", SPACE),
            normalizers.Prepend(SPACE),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def _without_merges(pieces: list[str]) -> tokenizers.Tokenizer:
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))


def _with_bytes(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer with the 256 bytes between the special tokens and the rest, and falling back to them."""
    content = json.loads(backend.to_str())
    model = content["model"]
    n_specials = len(SPECIALS)
    model["byte_fallback"] = True
    if model["type"] == "BPE":
        pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
        pieces[n_specials:n_specials] = _BYTES
        model["vocab"] = {piece: number for number, piece in enumerate(pieces)}
    else:
        # Below every real piece: bytes are for what cannot be spelled otherwise.
        score = min(score for _, score in model["vocab"]) - 1.0
        model["vocab"][n_specials:n_specials] = [[piece, score] for piece in _BYTES]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def _byte_characters() -> list[str]:
    """The printable character that the library's byte level shows for each byte (GPT-2's table, Radford et al. 2019):
    printable Latin-1 stands for itself, the others follow from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value if value in printable else next(others)) for value in range(256)]


def _require_room(config: TokenizerConfig, n_needed: int) -> None:
    if n_needed > config.vocab_size:
        raise _too_small(config, "the characters that occur and the special tokens", f"{n_needed} or more")


def _too_small(config: TokenizerConfig, what: str, expected: str) -> TokenizerError:
    return TokenizerError(
        f"tokenizer.vocab_size is too small to hold {what}",
        given=config.vocab_size,
        expected=expected,
        mend="raise tokenizer.vocab_size, or choose tokenizer.kind: char or byte",
    )
