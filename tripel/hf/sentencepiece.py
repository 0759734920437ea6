"""Tokenizers of Marian folders: source.spm, target.spm and vocab.json, as tokenizers of the `tokenizers` library.

A .spm file is a SentencePiece model (Kudo and Richardson 2018), a protobuf message of which a few fields are read here.
It cuts text into pieces; vocab.json gives each piece the number that the network knows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from tripel.errors import CheckpointError, FormatError
from tripel.storage import read_json
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer

SOURCE_MODEL, TARGET_MODEL = "source.spm", "target.spm"
VOCABULARY, TARGET_VOCABULARY = "vocab.json", "target_vocab.json"
_SPECIALS = ("<unk>", "<pad>", "</s>")
_LARGEST_FILE = 64 << 20
_LARGEST_VOCABULARY = 1 << 24
_SPACE = "\u2581"
_UNREACHABLE = "\U000f0000"
"""A private character in front of a piece that this side's model does not have, so that no text can contain it."""
_UNKNOWN_PENALTY = 10.0
"""By how much SentencePiece likes an unknown character less than its rarest piece. It then hands it on as it stands, so
that Marian finds its id if the other side has it. (Several in a row it hands on as one, which is then unknown; here
each gets its id. No tokenizer.json can tell the two apart.)"""

# Numbers in sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK = 3, 35
_CHARSMAP, _DUMMY_PREFIX, _REMOVE_SPACES = 2, 3, 4
_UNIGRAM = 1
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3


@dataclass
class SentencePieceModel:
    """What a .spm file says. scores: of its ordinary pieces. charsmap: its table of normalisation, as it stores it."""

    scores: dict[str, float] = field(default_factory=dict)
    charsmap: bytes = b""
    dummy_prefix: bool = True
    remove_spaces: bool = True


def marian_tokenizers(folder: Path) -> TokenizerPair:
    """The tokenizers of a Marian folder without tokenizer.json.

    Raises FormatError when some text of known characters would get other ids than in the original, CheckpointError
    when a file is damaged.
    """
    source_ids = _read_ids(folder / VOCABULARY)
    separate = (folder / TARGET_VOCABULARY).exists()
    target_ids = _read_ids(folder / TARGET_VOCABULARY) if separate else source_ids
    return TokenizerPair(
        Tokenizer(_backend(folder / SOURCE_MODEL, source_ids)), Tokenizer(_backend(folder / TARGET_MODEL, target_ids))
    )


def read_model(path: Path) -> SentencePieceModel:
    """Read a .spm file of kind unigram. Raises FormatError for another kind, CheckpointError for a damaged file."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"larger than {_LARGEST_FILE} bytes")
        return _parse(path, path.read_bytes())
    except (OSError, ValueError, IndexError, TypeError, struct.error) as error:
        raise CheckpointError(
            f"{path.name} is missing or damaged: {error}",
            given=path,
            expected="a model of SentencePiece",
            mend="copy the folder again",
        ) from None


def _parse(path: Path, data: bytes) -> SentencePieceModel:
    model = SentencePieceModel()
    for number, value in _fields(data):
        if number == _PIECES:
            entry = dict(_fields(_bytes(value)))
            kind = entry.get(_TYPE, _NORMAL)
            if kind == _NORMAL:
                (score,) = struct.unpack("<f", _bytes(entry.get(_SCORE, b"\0\0\0\0")))
                model.scores[_bytes(entry.get(_TEXT, b"")).decode("utf-8")] = score
            elif kind not in (_UNKNOWN, _CONTROL):
                raise _unlike_the_original(path, "pieces that are bytes or defined by the user", "ordinary pieces only")
        elif number == _TRAINER:
            trainer = dict(_fields(_bytes(value)))
            if trainer.get(_MODEL_TYPE, _UNIGRAM) != _UNIGRAM or trainer.get(_BYTE_FALLBACK, 0):
                raise _unlike_the_original(path, "a model that is not a plain unigram model", "model_type: unigram")
        elif number == _NORMALIZER:
            normalizer = dict(_fields(_bytes(value)))
            model.charsmap = _bytes(normalizer.get(_CHARSMAP, b""))
            model.dummy_prefix = bool(normalizer.get(_DUMMY_PREFIX, 1))
            model.remove_spaces = bool(normalizer.get(_REMOVE_SPACES, 1))
    if not model.scores:
        raise ValueError("it has no pieces")
    return model


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: whole numbers as int, everything else as its bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError("it is not a protobuf message")
        if length > len(data) - place:
            raise ValueError("it is cut off")
        yield number, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of at most ten bytes, seven bits in each, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it is not a protobuf message")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("a field has another kind than it should")
    return value


def _read_ids(path: Path) -> dict[str, int]:
    ids = read_json(path)
    if not all(isinstance(i, int) and 0 <= i < _LARGEST_VOCABULARY for i in ids.values()):
        raise CheckpointError(
            f"{path.name} is damaged: not every piece has a number",
            given=path,
            expected="an object from pieces to ids",
            mend="copy the folder again",
        )
    missing = [name for name in _SPECIALS if name not in ids]
    if missing or len(set(ids.values())) != len(ids):
        raise _unlike_the_original(path, f"no {missing[0]}" if missing else "two pieces of one id", "one id a piece")
    return ids


def _backend(path: Path, ids: Mapping[str, int]) -> tokenizers.Tokenizer:
    model = read_model(path)
    strangers = sorted(model.scores.keys() - ids.keys())
    if strangers:
        # The original cuts these out of the text and then calls them unknown; a tokenizer.json has no way to say that.
        given = f"{len(strangers)} pieces of {path.name} that have no id, such as {strangers[0]!r}"
        raise _unlike_the_original(path, given, f"every piece of {path.name} in the vocabulary")
    lowest = min(model.scores.values())
    pieces = [(f"{_UNREACHABLE}{i}", lowest) for i in range(max(ids.values()) + 1)]
    # ">>fra<<" in front of a text tells a model of several target languages which one is wanted.
    codes = [piece for piece in ids if piece.startswith(">>") and piece.endswith("<<")]
    for piece, i in ids.items():
        if len(piece) == 1 and piece not in model.scores:
            pieces[i] = (piece, lowest - _UNKNOWN_PENALTY)
        else:
            known = piece in model.scores or piece in _SPECIALS or piece in codes
            pieces[i] = (piece if known else _UNREACHABLE + piece, model.scores.get(piece, lowest))
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=ids["<unk>"], byte_fallback=False))
    backend.normalizer = _normalizer(model)
    scheme = "always" if model.dummy_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in _SPECIALS])
    backend.add_tokens([AddedToken(code, normalized=False, special=False) for code in codes])
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", ids["</s>"])]
    )
    return backend


def _normalizer(model: SentencePieceModel) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_spaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    return normalizers.Sequence(steps)


def _unlike_the_original(path: Path, given: str, expected: str) -> FormatError:
    return FormatError(
        f"{path.name} cannot be turned into a tokenizer.json that gives the same ids",
        given=given,
        expected=expected,
        mend="make a tokenizer.json for this model with other software and put it into the folder",
    )
