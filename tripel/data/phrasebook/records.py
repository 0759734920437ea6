"""The records of the lexicon: nouns, adjectives, predicates, phrases, places, verbs, and the classes they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field

from tripel.data.phrasebook import english_forms
from tripel.data.phrasebook.frames import Frame
from tripel.data.phrasebook.french_forms import FrenchVerb
from tripel.data.phrasebook.german_forms import GermanVerb
from tripel.data.phrasebook.tokens import Language


@dataclass(frozen=True, eq=False)
class Noun:
    """A noun in three languages. number: per language "sg" or "pl" where only that exists, else ""."""

    english: str
    english_plural: str
    classes: frozenset[str]
    german: str
    german_plural: str
    german_genitive: str
    german_gender: str
    is_weak: bool
    french: str
    french_plural: str
    french_gender: str
    number: dict[Language, str]

    @property
    def is_mass(self) -> bool:
        return self.number["en"] == "sg"

    @property
    def gender(self) -> str | None:
        """Natural gender: m, f, or None for what English calls it (and for child and baby)."""
        return "m" if "male" in self.classes else "f" if "female" in self.classes else None


@dataclass(frozen=True, eq=False)
class Adjective:
    english: str
    english_comparison: str
    classes: tuple[str, ...]
    german: str
    german_comparison: str
    german_stem: str
    french_masculine: str
    french_feminine: str
    is_before: bool  # stands before the French noun
    french_predicate: str  # masculine used after être ("la robe est neuve", but "une nouvelle robe")

    @property
    def is_gradable(self) -> bool:
        return self.english_comparison != "-"


@dataclass(frozen=True)
class Phrase:
    """An adverb or adverbial phrase. The words are still in the notation of the table (word/tag)."""

    groups: frozenset[str]
    kind: str
    english: str
    english_position: str
    german: str
    french: str
    french_position: str


@dataclass(frozen=True)
class ObjectChoice:
    """One way to fill a slot: a noun class with determiner codes, people, others, or a place ("at:class", "to:class")."""

    slot: str
    source: str
    determiners: str
    adjectives: bool
    excluded: frozenset[str] = frozenset()  # adjectives that would contradict the verb


@dataclass(frozen=True, eq=False)
class Predicate:
    """What is said of a subject: a verb and its complements in three languages, and whom and what it may be said of."""

    key: str
    groups: frozenset[str]
    tenses: str
    subject: str
    objects: tuple[ObjectChoice, ...]
    place_class: str
    manner: str
    frames: dict[Language, Frame]


@dataclass(frozen=True)
class Place:
    """The prepositions a place takes. german: (preposition, case)."""

    english: str
    german_at: tuple[str, str]
    german_to: tuple[str, str]
    french_at: str
    french_to: str


@dataclass(frozen=True)
class Region:
    """A city or country with ready-made phrases by relation: at, to, from."""

    classes: frozenset[str]
    english: str
    german: dict[str, str]
    french: dict[str, str]


@dataclass
class Lexicon:
    nouns: dict[str, Noun]
    adjectives: list[Adjective]
    predicates: list[Predicate]
    phrases: list[Phrase]
    places: dict[str, Place]
    relations: dict[str, Place]  # next-to, behind ...
    regions: list[Region]
    first_names: list[tuple[str, str]]
    last_names: list[str]
    jobs: list[tuple[str, ...]]
    german_verbs: dict[str, GermanVerb]
    english_verbs: dict[str, tuple[str, str]]
    french_verbs: dict[str, FrenchVerb]
    aspirated: frozenset[str]
    by_class: dict[str, list[Noun]] = field(default_factory=dict)
    by_group: dict[str, list[Predicate]] = field(default_factory=dict)
    phrases_by_group: dict[str, list[Phrase]] = field(default_factory=dict)
    adjectives_of: dict[str, list[Adjective]] = field(default_factory=dict)  # by English noun
    regions_by_class: dict[str, list[Region]] = field(default_factory=dict)

    def german_verb(self, infinitive: str) -> GermanVerb:
        """`an+rufen` inherits the forms of `rufen` but not its auxiliary where the table says so."""
        if infinitive not in self.german_verbs:
            prefix, _, base = infinitive.rpartition("+")
            self.german_verbs[infinitive] = derived_verb(prefix, base, self.german_verbs.get(base), "")
        return self.german_verbs[infinitive]

    def french_verb(self, infinitive: str) -> FrenchVerb:
        return self.french_verbs.setdefault(infinitive, FrenchVerb(infinitive))

    def english_verb(self, base: str) -> tuple[str, str]:
        """Past and past participle."""
        if base not in self.english_verbs:
            past = english_forms.regular_past(base)
            self.english_verbs[base] = (past, past)
        return self.english_verbs[base]


def derived_verb(prefix: str, base: str, plain: GermanVerb | None, auxiliary: str) -> GermanVerb:
    if plain is None:
        return GermanVerb(base, prefix, auxiliary=auxiliary or "haben")
    return GermanVerb(
        base, prefix, plain.er, plain.preterite, plain.participle, auxiliary or plain.auxiliary, plain.present
    )
