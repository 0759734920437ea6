"""Words of a generated sentence: what each expresses, how they are written together, how two sentences align.

A token carries the numbers of the concepts it expresses ("ate" the verb and its past, "hat" the past, "gegessen" the verb).
Two tokens of a translation pair are aligned when they share a concept. A function word that has no counterpart (the German
"sich", the partitive "du") is aligned through its head instead.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal, NamedTuple

Language = Literal["en", "de", "fr"]

ELIDED = r"(?:[cdjlmnstCDJLMNST]|[Qq]u|[Ll]orsqu|[Pp]uisqu)'"
_WORD = r"\w+(?:-\w+)*"
_SPLIT = {
    "en": re.compile(rf"(?:Mr|Mrs)\.|o'clock|\w+(?=n't\b)|n't\b|'(?:s|m|re|ll|d|ve)\b|{_WORD}|[^\w\s]"),
    "de": re.compile(rf"{_WORD}|[^\w\s]"),
    "fr": re.compile(rf"[Aa]ujourd'hui|{ELIDED}|{_WORD}|[^\w\s]"),
}
_ELIDED_END = re.compile(rf"^{ELIDED}$")
_ENGLISH_SUFFIX = re.compile(r"^(?:n't|'(?:s|m|re|ll|d|ve))$")
_CLOSING = set(".,?!;:”")
_OPENING = set("“„«")
_GERMAN_CLOSING = "“"


class Token(NamedTuple):
    """A word or punctuation mark. concepts: what it expresses; head: the concept it leans on when nothing else aligns."""

    text: str
    concepts: tuple[int, ...] = ()
    head: int = -1
    is_article: bool = False  # the French le, la, les that contract with de and à; the pronouns of the same form do not


def split_words(text: str, language: Language) -> list[str]:
    """The tokens whose indices the alignments count from 0: whitespace words with the punctuation split off.

    English contractions are split before n't and 's, 'm, 're, 'll, 'd (`do n't`, `Anna 's`); "Mr.", "Mrs." and "o'clock"
    stay whole; a French elided word (l', j', qu') is a token of its own; hyphenated words stay whole.
    """
    return _SPLIT[language].findall(text)


def surface(tokens: list[Token], language: Language) -> str:
    """The sentence as it is written: capital at its start and after a full stop, spaces as the language puts them."""
    out: list[str] = []
    starts, glue = True, True
    for token in tokens:
        text = token.text
        is_left, is_right, opens = _glue(text, language)
        if not (glue or is_left):
            out.append(" ")
        if starts and text[0].isalpha():
            text = text[0].upper() + text[1:]
            starts = False
        out.append(text)
        glue = is_right
        starts = starts or opens
    return "".join(out)


@cache
def _glue(text: str, language: Language) -> tuple[bool, bool, bool]:
    """Whether a token is written onto the one before it, onto the one after it, and whether a sentence starts after it."""
    opens = text in _OPENING and not (language == "de" and text == _GERMAN_CLOSING)
    starts = opens or text in {".", "?", "!"}
    if language == "fr":  # the French quotation, question and exclamation marks stand apart
        return text in {".", ","}, _ELIDED_END.match(text) is not None, starts
    is_left = not opens and (text in _CLOSING or text == _GERMAN_CLOSING)
    suffix = language == "en" and _ENGLISH_SUFFIX.match(text) is not None
    return is_left or suffix, opens, starts


def align(source: list[Token], target: list[Token]) -> list[tuple[int, int]]:
    """Sorted (source index, target index) pairs: shared concepts first, heads for what is left over."""
    sources, targets = _positions(source), _positions(target)
    links = {(i, j) for concept, places in sources.items() for i in places for j in targets.get(concept, ())}
    linked_i, linked_j = {i for i, _ in links}, {j for _, j in links}
    for i, token in enumerate(source):
        if i not in linked_i and token.head >= 0:
            links.update([(i, j) for j in targets.get(token.head, ())])
    for j, token in enumerate(target):
        if j not in linked_j and token.head >= 0:
            links.update([(i, j) for i in sources.get(token.head, ())])
    return sorted(links)


def _positions(tokens: list[Token]) -> dict[int, list[int]]:
    at: dict[int, list[int]] = {}
    for i, token in enumerate(tokens):
        for concept in token.concepts:
            at.setdefault(concept, []).append(i)
    return at


def literal(text: str, base: int, default: int | None = None) -> list[Token]:
    """Tokens of fixed words as the data files write them. `word/3` expresses concept base + 3; `word` expresses `default`
    (nothing when that is None)."""
    head = -1 if default is None else default
    plain = () if default is None else (default,)
    return [
        Token(form, tuple([base + tag for tag in tags]) or plain, head if tags else -1) for form, tags in _tagged(text)
    ]


@cache
def _tagged(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    words = []
    for word in text.split():
        form, slash, tags = word.rpartition("/")
        words.append((form, tuple(int(t) for t in tags.split(","))) if slash else (word, ()))
    return tuple(words)
