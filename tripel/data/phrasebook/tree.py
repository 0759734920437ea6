"""What a sentence says, before any language says it: noun phrases, adverbials and clauses, made by the sampler.

Every node has a number; the words that express it carry number + k, so that words of two languages that express the same
thing can be found again. Nodes are spaced by STEP.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tripel.data.phrasebook.records import Adjective, Noun, Phrase, Place, Predicate, Region
from tripel.data.phrasebook.tokens import Language

STEP = 32
# what of a clause a word expresses, added to the clause's number; fixed words of a predicate are TAG + their own number
VERB, AUX, NOT, MODAL, TO, OBJECT_PREPOSITION, TAG = 0, 1, 2, 3, 4, 5, 10
# what of a noun phrase
NOUN, DETERMINER, ADJECTIVE, PREPOSITION, OWNER_MARK = 0, 1, 2, 6, 7


class Unsayable(Exception):
    """The sentence would need something the English does not show (the gender of "I"), or that a language lacks. The
    sampler catches it and draws another sentence; it never leaves this package."""


@dataclass(slots=True)
class NounPhrase:
    """kind: noun, name, title (Mr. Weber), pronoun, pair, relative, what, whom, who, nobody, alone (mine), it (the weather).

    determiner: a, the, bare, own (possessive of owner), this, number, gen (owner's), no. For kinds without a noun, person,
    plural, gender and formal say what the verb agrees with.
    """

    number: int
    kind: str
    noun: Noun | None = None
    determiner: str = ""
    is_plural: bool = False
    adjectives: tuple[Adjective, ...] = ()
    is_superlative: bool = False  # said of the first adjective
    owner: NounPhrase | None = None
    name: str = ""
    person: int = 3
    gender: str | None = None
    is_formal: bool = False
    members: tuple[NounPhrase, ...] = ()
    antecedent: NounPhrase | None = None
    numeral: tuple[str, str, str] = ("", "", "")

    def plural(self, language: Language) -> bool:
        """Grammatical number; some nouns have their own in one language ("glasses", die Brille)."""
        if self.antecedent is not None:
            return self.antecedent.plural(language)
        if self.noun is not None and self.noun.number[language]:
            return self.noun.number[language] == "pl"
        return self.is_plural

    def grammatical_gender(self, language: Language) -> str | None:
        """Gender for agreement in German (m, f, n) or French (m, f); None where nothing in the English shows it."""
        if self.kind == "pair":
            genders = [m.grammatical_gender(language) for m in self.members]
            return "m" if "m" in genders else None if None in genders else "f"
        if self.antecedent is not None:
            return self._antecedent_gender(language)
        if self.noun is not None:
            return self.noun.german_gender if language == "de" else self.noun.french_gender
        return self.gender

    def _antecedent_gender(self, language: Language) -> str | None:
        """A pronoun for a girl is sie, though Mädchen is neuter; a relative pronoun keeps to the grammar (das)."""
        assert self.antecedent is not None
        noun = self.antecedent.noun
        if self.kind != "relative" and language == "de" and noun is not None and noun.gender == "f":
            return "f"
        return self.antecedent.grammatical_gender(language)

    def english_gender(self) -> str:
        """he, she, it (n), they (p)."""
        if self.plural("en"):
            return "p"
        who = self.antecedent or self
        if who.noun is None:
            if who.gender is None:
                raise Unsayable("the gender of a person is not shown")
            return who.gender
        if who.noun.gender is not None:
            return who.noun.gender
        if who.noun.classes & {"child", "baby"}:
            raise Unsayable("he, she or it for a child")
        return "n"

    def is_pronoun(self) -> bool:
        return self.kind == "pronoun"

    def is_indefinite(self) -> bool:
        """What kein negates, and the French partitive."""
        return self.kind == "noun" and self.determiner in ("a", "bare")


@dataclass(slots=True)
class Location:
    """At or to a place: a noun phrase with the place's prepositions, or a region. relation: at, to, from."""

    number: int
    relation: str
    phrase: NounPhrase | None = None
    place: Place | None = None
    region: Region | None = None


@dataclass(slots=True)
class Adverbial:
    """When, how often, how or where: a phrase of the table or a location."""

    number: int
    kind: str  # time, freq, manner, place
    phrase: Phrase | None = None
    location: Location | None = None


@dataclass(slots=True)
class Clause:
    """A subject and what is said of it.

    tense: present, progressive, past, narrative (the German simple past), was-doing, perfect, just, will, going, would,
    hypothetical. negation: "", not, never, anymore, yet. modal: "", can, must, have-to, should, want, would-like, may, like.
    """

    number: int
    predicate: Predicate
    subject: NounPhrase
    slots: dict[str, NounPhrase | Location] = field(default_factory=dict)
    tense: str = "present"
    negation: str = ""
    modal: str = ""
    adverbials: tuple[Adverbial, ...] = ()
    front: Adverbial | None = None
    is_contracted: bool = False

    def noun_phrases(self) -> dict[str, NounPhrase]:
        """Slots filled by noun phrases, with the subject as S."""
        phrases = {name: value for name, value in self.slots.items() if isinstance(value, NounPhrase)}
        return {"S": self.subject, **phrases}
