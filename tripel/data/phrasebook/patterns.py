"""Sentence patterns: reads patterns/*.yaml, draws the parts of one and writes it in each language."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import yaml

from tripel.data.phrasebook import (
    english_forms,
    english_syntax,
    french_forms,
    french_phrases,
    french_syntax,
    german_forms,
    german_phrases,
    german_syntax,
    sampler,
)
from tripel.data.phrasebook.choose import Draft
from tripel.data.phrasebook.lexicon import lexicon
from tripel.data.phrasebook.sampler import Graded, Part, Spec, Words
from tripel.data.phrasebook.tokens import Language, Token, literal
from tripel.data.phrasebook.tree import PREPOSITION, Adverbial, Clause, Location, NounPhrase, Unsayable
from tripel.errors import DataError

FIXED_WORDS = 1_000_000  # concepts of the words written in a pattern, far above those of the nodes
_END_MARK = 99


@dataclass(frozen=True)
class Pattern:
    """One sentence pattern. parts: descriptions in the order they are drawn; templates: the words around them."""

    name: str
    topic: str
    weight: float
    parts: dict[str, Spec]
    templates: dict[Language, tuple[str, ...]]


@cache
def patterns() -> tuple[Pattern, ...]:
    """All patterns, in the order of the files' names and of their lines. Raises DataError for an incomplete one."""
    found = []
    folder = files("tripel.data.phrasebook") / "patterns"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        for entry in yaml.safe_load(file.read_text(encoding="utf-8")) if file.name.endswith(".yaml") else []:
            found.append(_pattern(entry, file.name))
    return tuple(found)


def _pattern(entry: dict, file: str) -> Pattern:
    missing = [key for key in ("name", "topic", "en", "de", "fr") if key not in entry]
    if missing:
        raise DataError(
            "A sentence pattern is incomplete.",
            file=file,
            given=entry.get("name", entry),
            expected=", ".join(missing),
            mend="Add the missing lines; the head of patterns/people.yaml explains them.",
        )
    templates: dict[Language, tuple[str, ...]] = {
        language: tuple(re.findall(r"\{[^}]*\}|[^\s{}]+", entry[language])) for language in ("en", "de", "fr")
    }
    return Pattern(entry["name"], entry["topic"], entry.get("weight", 1.0), entry.get("parts") or {}, templates)


def draw_parts(pattern: Pattern, draft: Draft) -> dict[str, Part]:
    """The parts of one sentence. Raises Unsayable when they do not go together; the caller draws again."""
    parts: dict[str, Part] = {}
    for name, spec in pattern.parts.items():
        parts[name] = sampler.draw(draft, name, spec, parts)
    return parts


def write(pattern: Pattern, parts: dict[str, Part], language: Language) -> list[Token]:
    """The sentence in one language. Raises Unsayable where the English does not decide it."""
    tokens: list[Token] = []
    for item in pattern.templates[language]:
        if item[0] == "{":
            name, _, form = item[1:-1].partition(":")
            tokens += _render(parts[name], form, language)
        elif item in {".", "?", "!"}:
            tokens.append(Token(item, (FIXED_WORDS + _END_MARK,)))
        else:
            tokens += literal(item, FIXED_WORDS)
    if language == "fr":
        aspirated = lexicon().aspirated
        tokens = french_forms.elide(french_forms.contract(tokens, aspirated), aspirated)
    return tokens


def _render(part: Part, form: str, language: Language) -> list[Token]:
    match part:
        case Clause() if form == "S":
            return english_syntax.noun_phrase(part.subject, "object")
        case Clause():
            syntax = {"en": english_syntax, "de": german_syntax, "fr": french_syntax}[language]
            return syntax.clause(part, form or "main")
        case NounPhrase():
            return _render_phrase(part, form, language)
        case Adverbial():
            return {"en": english_syntax, "de": german_phrases, "fr": french_phrases}[language].adverbial(part)
        case Location():
            return _render_location(part, form, language)
        case Words():
            return literal(_numeral(part, form, language), part.number, part.number)
    return _render_graded(part, form, language)


def _numeral(part: Words, form: str, language: Language) -> str:
    """form: f for the French une, eins for the German number by itself."""
    text = part.text[language]
    return {("f", "un"): "une", ("eins", "ein"): "eins"}.get((form, text), text)


def _render_phrase(np: NounPhrase, form: str, language: Language) -> list[Token]:
    """form: English subject (the default), object or possessive; German case; French subject, or an article to put."""
    if np.person == 2 and np.kind in ("name", "title", "pair"):
        return _vocative(np, form, language)
    if language == "en":
        if form in ("bare", "no"):
            return english_syntax.noun_phrase(replace(np, determiner=form))
        return english_syntax.noun_phrase(np, form or "subject")
    if language == "de":
        case, _, override = (form or "nom").partition(" ")
        return german_phrases.noun_phrase(np, case, override=override)
    return french_phrases.subject(np) if form == "subject" else french_phrases.noun_phrase(np, form)


def _vocative(np: NounPhrase, form: str, language: Language) -> list[Token]:
    """The name; form please: the French s'il te plaît or s'il vous plaît that goes with it."""
    if form == "please":
        pronoun = "vous" if np.is_formal or np.is_plural else "te"
        return literal(f"s'/1 il/1 {pronoun}/1 plaît/1", FIXED_WORDS)
    if language == "en":
        return english_syntax.noun_phrase(np)
    return german_phrases.noun_phrase(np) if language == "de" else french_phrases.noun_phrase(np)


def _render_location(place: Location, form: str, language: Language) -> list[Token]:
    """form: a preposition instead of the place's own (zu, à, from, pour)."""
    if form == "from":
        return _render_location(replace(place, relation="from"), "", language)
    if form == "pour":  # le train pour Paris: a city without its own preposition
        name = [t for t in _render_location(place, "", language) if place.number in t.concepts]
        return [Token("pour", (place.number + PREPOSITION,), place.number), *name]
    if form and place.place is not None:
        own = replace(place.place, german_at=(form, "dat"), german_to=(form, "dat"), french_at=form, french_to=form)
        place = replace(place, place=own)
    return {"en": english_syntax, "de": german_phrases, "fr": french_phrases}[language].location(place)


def _render_graded(part: Graded, form: str, language: Language) -> list[Token]:
    """An adjective in the predicate: base, or form comparative."""
    adjective, mark = part.adjective, (part.number,)
    if language == "en":
        words: tuple[str, ...] = (adjective.english,)
        if form == "comparative":
            words = english_forms.comparative(adjective.english, adjective.english_comparison)
    elif language == "de":
        words = (adjective.german,)
        if form == "comparative":
            words = (german_forms.comparative(adjective.german, adjective.german_comparison),)
    else:
        if form == "comparative" and adjective.french_masculine == "bon":
            words = (french_phrases.agreeing_word("meilleur", part.phrase),)
        else:
            words = tuple(french_phrases.agreeing_word(adjective.french_masculine, part.phrase).split())
            words = ("plus", *words) if form == "comparative" else words
    return [Token(word, mark) for word in words]


__all__ = ["Pattern", "Unsayable", "draw_parts", "patterns", "write"]
