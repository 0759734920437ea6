"""Encoding a text in which some words are left out."""

from __future__ import annotations

from dataclasses import dataclass

import tokenizers

from tripel.text.backends import SPACE_MARKS

# Signs that no tokenizer here joins with letters; the first that a text does not contain stands for its holes.
_STAND_INS = ("\u25a1", "\u25a2", "\u25c7", "\u25c8", "\u2610")


@dataclass(frozen=True)
class HoledText:
    """The ids between a text's holes: parts[i] before hole i, the last after all. begins_word: of each hole, whether a word
    begins there (after a space or at the start), as against the middle of one."""

    parts: tuple[tuple[int, ...], ...]
    begins_word: tuple[bool, ...]


def encode_around(backend: tokenizers.Tokenizer, segments: list[str]) -> HoledText:
    """The ids of a text given as the segments around its holes, as they would be if words stood in those."""
    whole = "".join(segments)
    hole = next((sign for sign in _STAND_INS if sign not in whole), _STAND_INS[0])
    text = hole.join(segment.replace(hole, "") for segment in segments)
    spelled = _words(backend, hole)[-1].lstrip("".join(SPACE_MARKS))
    parts: list[list[int]] = [[]]
    begins_word: list[bool] = []
    continued = getattr(backend.model, "continuing_subword_prefix", None) == "##"
    for word in _words(backend, text):
        inner = word.split(spelled)
        for number, piece in enumerate(inner):
            if number:
                parts.append([])
            space = number < len(inner) - 1 and piece in SPACE_MARKS
            if piece and not space:
                parts[-1] += [token.id for token in backend.model.tokenize(piece)]
            if number < len(inner) - 1:
                begins_word.append(space or (continued and not piece))
    return HoledText(tuple(map(tuple, parts)), tuple(begins_word))


def _words(backend: tokenizers.Tokenizer, text: str) -> list[str]:
    text = backend.normalizer.normalize_str(text) if backend.normalizer else text
    if backend.pre_tokenizer is None:
        return [text]
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
