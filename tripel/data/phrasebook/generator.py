"""Distinct sentence pairs in four splits that do not depend on how many are asked for.

    sentence ── holds a held-out pair of words? ── yes, in grammatical relation ──> compositional
                        │                        └─ yes, by chance ──────────────> nowhere
                        no ── hash of the English sentence ──> train | valid | test

A pair of words (a verb and its noun, an adjective and its noun) is held out when its hash says so, hence in every run; no
sentence of train, valid or test contains both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from random import Random
from typing import Literal

from tripel.data.phrasebook import choose
from tripel.data.phrasebook.choose import Draft
from tripel.data.phrasebook.lexicon import lexicon
from tripel.data.phrasebook.patterns import Pattern, Unsayable, draw_parts, patterns, write
from tripel.data.phrasebook.records import Lexicon
from tripel.data.phrasebook.tokens import align, surface
from tripel.errors import DataError, nearest

Target = Literal["de", "fr"]
TARGETS: tuple[Target, ...] = ("de", "fr")
SPLITS = ("train", "valid", "test", "compositional")

HELD_OUT_SHARE = 0.04  # of the word pairs that may be held out
VALID_SHARE, TEST_SHARE = 0.03, 0.03  # of the sentences without a held-out pair
MAX_HELD_OUT_SENTENCES = 1000  # in each of valid, test and compositional
_MIN_PARTNERS = 6  # a word keeps enough other partners for its meaning to be learned
_CONTRACTED_SHARE = 0.35
_MAX_FRUITLESS_DRAWS = 20_000  # in a row: nothing new is left to say


@dataclass(frozen=True)
class Pair:
    """A sentence, its translation, and which words translate which.

    alignment: sorted (source index, target index), counted over split_words(source, "en") and split_words(target, target
    language). split: train, valid, test or compositional. words: keys of the verbs (v:), nouns (n:) and adjectives (a:)
    used. held_out: the pairs of these that no training sentence holds.
    """

    source: str
    target: str
    alignment: list[tuple[int, int]]
    pattern: str
    split: str
    words: frozenset[str]
    held_out: tuple[tuple[str, str], ...] = ()


@dataclass
class PhrasebookSplits:
    train: list[Pair] = field(default_factory=list)
    valid: list[Pair] = field(default_factory=list)
    test: list[Pair] = field(default_factory=list)
    compositional: list[Pair] = field(default_factory=list)


def generate(target: Target, count: int, seed: int) -> PhrasebookSplits:
    """count training pairs, and a tenth of that (at most 1000) for each of valid, test and compositional.

    Deterministic: the same arguments give the same pairs; a smaller count gives the beginning of a larger one's training
    list. All sentences of all splits differ. Raises DataError for an unknown target or a count out of range.
    """
    check_request(target, count)
    held = max(1, min(MAX_HELD_OUT_SENTENCES, count // 10))
    splits = PhrasebookSplits()
    seen: set[str] = set()
    random = Random(f"{target} {seed}")
    fruitless = 0
    missing = dict(zip(SPLITS, (count, held, held, held), strict=True))
    while any(missing.values()):
        pair = realize(_choose_pattern(random), target, random, lambda split: missing[split] > 0)
        if pair is None or pair.source in seen:
            fruitless += 1
            if fruitless > _MAX_FRUITLESS_DRAWS:
                raise DataError(
                    "The phrasebook ran out of new sentences.",
                    given=count,
                    expected=f"at most {len(splits.train)}",
                    mend="Ask for fewer sentences.",
                )
            continue
        fruitless = 0
        seen.add(pair.source)
        getattr(splits, pair.split).append(pair)
        missing[pair.split] -= 1
    return splits


def check_target(target: str) -> None:
    """Raises DataError unless the phrasebook translates into that language."""
    if target not in TARGETS:
        close = nearest(target, TARGETS)
        raise DataError(
            "The phrasebook does not translate into this language.",
            given=target,
            expected=" or ".join(TARGETS),
            mend=f"Use --target {close or 'de'}.",
        )


def check_request(target: str, count: int) -> None:
    """Raises DataError unless there are that many training sentences into that language."""
    check_target(target)
    if not 1 <= count <= capacity(target):
        raise DataError(
            "The phrasebook cannot make that many training sentences.",
            given=count,
            expected=f"between 1 and {capacity(target)}",
            mend="Choose a smaller --count.",
        )


def split_of(source: str, words: frozenset[str], held_out: tuple[tuple[str, str], ...]) -> str:
    """The split of a sentence, by hash of its words alone; "" for one that holds a held-out pair only by chance."""
    if held_out:
        return "compositional"
    if _has_held_out_words(words):
        return ""
    share = _hash_share(source)
    return "valid" if share < VALID_SHARE else "test" if share < VALID_SHARE + TEST_SHARE else "train"


def _hash_share(text: str) -> float:
    """Uniform in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


@cache
def _is_held_out(first: str, noun: str) -> bool:
    """Whether a verb or adjective and a noun are kept apart in training."""
    partners = _partners()
    enough = len(partners.get(first, ())) >= _MIN_PARTNERS and len(partners.get(noun, ())) >= _MIN_PARTNERS
    return enough and _hash_share(f"{first} {noun}") < HELD_OUT_SHARE


def _has_held_out_words(words: frozenset[str]) -> bool:
    nouns = [w for w in words if w.startswith("n:")]
    return any(_is_held_out(w, noun) for w in words if not w.startswith("n:") for noun in nouns)


@cache
def _partners() -> dict[str, set[str]]:
    """The words that each verb, adjective and noun can be combined with."""
    book = lexicon()
    found: dict[str, set[str]] = {}

    def combine(first: str, noun: str) -> None:
        found.setdefault(first, set()).add(noun)
        found.setdefault(noun, set()).add(first)

    for predicate, choice in ((p, c) for p in book.predicates for c in p.objects if c.determiners):
        for noun in choose.nouns_of(book, choice.source):
            combine(f"v:{predicate.key}", f"n:{noun.english}")
    for english, adjectives in book.adjectives_of.items():
        for adjective in adjectives:
            combine(f"a:{adjective.english}", f"n:{english}")
    return found


@cache
def _pattern_weights() -> list[float]:
    return list(accumulate(p.weight for p in patterns()))


def _choose_pattern(random: Random) -> Pattern:
    return random.choices(patterns(), cum_weights=_pattern_weights())[0]


def realize(
    pattern: Pattern, target: Target, random: Random, wanted: Callable[[str], bool] = lambda split: True
) -> Pair | None:
    """One pair of a pattern; None when the parts drawn for it do not go together or its split is not wanted."""
    draft = Draft(random, is_contracted=random.random() < _CONTRACTED_SHARE)
    try:
        parts = draw_parts(pattern, draft)
        tokens = write(pattern, parts, "en")
        source, words = surface(tokens, "en"), frozenset(draft.words)
        held_out = tuple(dict.fromkeys(pair for pair in draft.related if _is_held_out(*pair)))
        split = split_of(source, words, held_out)
        if not split or not wanted(split):
            return None
        translation = write(pattern, parts, target)
    except Unsayable:
        return None
    alignment = align(tokens, translation)
    return Pair(source, surface(translation, target), alignment, pattern.name, split, words, held_out)


@cache
def capacity(target: Target) -> int:
    """A lower bound of the number of distinct English sentences, counted for one pattern alone.

    Pattern "did": somebody did something to something, at some time. Subjects, noun phrases with determiner and at most one
    adjective, and times are multiplied; every combination is another English sentence and can be drawn. The share that is
    held out of training is taken off.
    """
    book = lexicon()
    times = 1 + len(book.phrases_by_group["past"])
    total = sum(choose.sayable_subjects(book) * n * times for n in _objects_of_past_verbs(book))
    return int(total * (1 - HELD_OUT_SHARE) ** 4 * (1 - VALID_SHARE - TEST_SHARE)) if target in TARGETS else 0


def _objects_of_past_verbs(book: Lexicon) -> list[int]:
    """For each verb of persons with one object slot, how many objects it can have."""
    counts = []
    for predicate in book.predicates:
        slots = {choice.slot for choice in predicate.objects}
        if "p" in predicate.tenses and "person" in predicate.subject.split() and slots == {"O"}:
            counts.append(sum(choose.number_of_objects(book, choice) for choice in predicate.objects))
    return counts


__all__ = ["SPLITS", "TARGETS", "Pair", "PhrasebookSplits", "Target", "capacity", "check_request", "generate"]
