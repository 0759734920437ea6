"""The notation of predicates.tsv: a verb with its complements, in one language, as a list of parts.

`an+rufen {O:acc}` -> verb "an+rufen", a slot O marked acc. `haben Hunger=m/1` -> verb "haben" and a noun that a negation
turns into "keinen Hunger". The notation is explained to the person who fills the table in the table's header.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tripel.data.phrasebook.tokens import Language


@dataclass(frozen=True)
class Slot:
    """A place for a noun phrase, place or person. mark: preposition and case, or what the language needs."""

    name: str
    mark: str = ""

    @property
    def preposition(self) -> str:
        """German `auf+acc` -> auf; English and French marks are prepositions themselves."""
        return self.mark.partition("+")[0]

    @property
    def case(self) -> str:
        return self.mark.partition("+")[2]


@dataclass(frozen=True)
class Fixed:
    """A word that belongs to the predicate.

    tag: the number by which it is aligned, None for the verb's own. gender: of a German noun that kein negates (m, f, n, p).
    forms: masculine and feminine where the word agrees with the subject. adjective: True for a French adjective that agrees.
    is_own: a possessive of the subject ("my teeth"). is_definite: stands before nicht.
    """

    text: str
    tag: int | None = None
    gender: str = ""
    forms: tuple[str, str] | None = None
    is_adjective: bool = False
    is_own: bool = False
    is_definite: bool = False


@dataclass(frozen=True)
class Frame:
    """A predicate in one language. subject: which slot is the grammatical subject ("S" unless the language turns it round).
    subject_case: German only; another case than the nominative means that the verb stays in the third person singular.
    particle: English only ("turn on"). reflexive: "" or the case of sich (acc, dat)."""

    verb: str
    parts: tuple[Slot | Fixed, ...]
    subject: str = "S"
    subject_case: str = "nom"
    particle: str = ""
    reflexive: str = ""

    def slot(self, name: str) -> Slot | None:
        return next((p for p in self.parts if isinstance(p, Slot) and p.name == name), None)


_SLOT = re.compile(r"^\{(\w)(?::([^}]*))?\}$")


def parse_frame(text: str, language: Language) -> Frame:
    """Reads one cell of predicates.tsv."""
    words = text.split()
    subject, subject_case = "S", "nom"
    if match := _SLOT.match(words[0]):
        subject, subject_case = match[1], (match[2] or "nom").partition("+")[0] or "nom"
        subject_mark = match[2] or ""
        words = words[1:]
        subject = subject + ("+the" if "+the" in subject_mark else "")
    verb, reflexive, particle = words[0], "", ""
    rest = words[1:]
    tagged = re.match(r"^(.*)/\d+$", verb)  # "go/1 by train/2": the verb itself is always concept 0 of its predicate
    if tagged:
        verb = tagged[1]
    if language == "fr":
        verb, reflexive, rest = _french_verb(verb, rest)
    elif language == "en":
        verb, _, particle = verb.partition("+")
    elif rest and rest[0].startswith("sich"):
        reflexive, rest = rest[0].partition(":")[2] or "acc", rest[1:]
    return Frame(verb, _parts(rest), subject, subject_case, particle, reflexive)


def _french_verb(verb: str, rest: list[str]) -> tuple[str, str, list[str]]:
    if verb.startswith("s'"):
        return verb[2:], "acc", rest
    if verb in ("se", "se:dat"):
        return rest[0], "dat" if verb == "se:dat" else "acc", rest[1:]
    return verb, "", rest


def _parts(words: list[str]) -> tuple[Slot | Fixed, ...]:
    parts: list[Slot | Fixed] = []
    definite = False
    for word in words:
        if word.startswith("["):
            definite, word = True, word[1:]
        closes = word.endswith("]")
        parts.append(_part(word.removesuffix("]"), definite))
        definite = definite and not closes
    return tuple(parts)


def _part(word: str, definite: bool) -> Slot | Fixed:
    if word == "{own}":
        return Fixed("", is_own=True, is_definite=definite)
    if match := _SLOT.match(word):
        return Slot(match[1], (match[2] or "").replace("~", " "))
    form, slash, tag = word.rpartition("/")
    form, number = (form, int(tag)) if slash and tag.isdigit() else (word.replace("/%", ""), None)
    if form.startswith("="):
        return Fixed(form[1:].replace("~", " "), number, is_adjective=True)
    if form.startswith("@"):
        masculine, feminine = form[1:].replace("~", " ").split("@")
        return Fixed(masculine, number, forms=(masculine, feminine))
    form, _, gender = form.partition("=")
    return Fixed(form.replace("~", " "), number, gender, is_definite=definite)
