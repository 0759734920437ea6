"""Draws noun phrases: who does something, to whom, with what thing. Everything random about words is here; clauses and
sentences are in sampler.py.

The words that a sentence is made of are noted as keys ("n:apple", "v:eat {O}", "a:red"), with the pairs of them that stand
in a grammatical relation; the splits are cut along these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from random import Random

from tripel.data.phrasebook.lexicon import lexicon, read_table
from tripel.data.phrasebook.records import Adjective, Lexicon, Noun, ObjectChoice, Predicate
from tripel.data.phrasebook.tree import STEP, Location, NounPhrase, Unsayable

ADJECTIVE_SHARE, SECOND_ADJECTIVE_SHARE = 0.3, 0.12
NUMERALS = [(int(n), en, de, fr) for n, en, de, fr in read_table("numbers.tsv", 4)]
CLOCK = read_table("clock.tsv", 3)
_DETERMINERS = {  # code of predicates.tsv: determiner, plural
    "a": ("a", False),
    "t": ("the", False),
    "T": ("the", True),
    "P": ("bare", True),
    "n": ("number", True),
    "m": ("own", False),
    "s": ("this", False),
    "S": ("this", True),
    "g": ("gen", False),
}
_PRONOUNS = {
    "I": (1, False, None),
    "you": (2, False, None),
    "he": (3, False, "m"),
    "she": (3, False, "f"),
    "we": (1, True, None),
    "they": (3, True, "m"),
}
# who can be asked for: kinds of people with their weights
_WHO = {
    "any": "I:7 you:2 he:6 she:6 we:6 they:5 name:18 title:3 kin:14 family:4 role:7 human-adult:3 pair:6",
    "asked": "you:6 he:5 she:5 they:4 name:16 title:2 kin:12 family:4 role:7 human-adult:3 couple:4",
    "third": "he:5 she:5 they:3 name:18 title:3 kin:14 family:4 role:7 human-adult:3 pair:5",
    "single": "he:5 she:5 name:18 title:2 kin:14 role:7 human-adult:2",
    "gendered": "he:4 she:4 name:16 title:3 kin:14",
    "named": "name:18 title:3 kin:14 role:5",
    "several": "we:3 they:3 family:4 pair:8 children:2",
    "noun": "kin:10 role:6 family:2",
    "stranger": "human-adult:5 adult-role:6",
    "young-one": "young:6 child:2 children:3",
    "people": "me:4 you:3 him:3 her:3 us:3 them:3 name:16 title:3 kin:12 family:4 role:8 friend:4",
    "aged": "he:2 she:2 name:8",
    "somebody": "I:4 you:2 he:3 she:3 we:3 they:2",
    "one": "I:4 you:2 he:3 she:3",
    "searcher": "I:4 he:3 she:3 we:3 they:2",
    "woman": "name-f:5 kin-f:5",
    "man": "name-m:5 kin-m:5",
}
_OBJECT_PRONOUNS = {"me": "I", "him": "he", "her": "she", "us": "we", "them": "they"}


@dataclass
class Draft:
    """A sentence in the making: its random numbers, node numbers and the words used so far."""

    random: Random
    book: Lexicon = field(default_factory=lexicon)
    next_number: int = 0
    words: set[str] = field(default_factory=set)
    related: list[tuple[str, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    tenses: dict[str, str] = field(default_factory=dict)  # of the clauses drawn so far, by part name
    is_contracted: bool = False
    addressed: NounPhrase | None = None  # who is spoken to by name: every "you" and "your" after it means them

    def node(self) -> int:
        self.next_number += STEP
        return self.next_number

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def use(self, noun: Noun) -> None:
        """Each noun at most once in a sentence."""
        key = f"n:{noun.english}"
        if key in self.words:
            raise Unsayable("the same noun twice")
        self.words.add(key)

    def new_name(self, gender: str | None = None) -> tuple[str, str]:
        name, its_gender = self.random.choice(self.book.first_names)
        if name in self.names or (gender is not None and gender != its_gender):
            return self.new_name(gender)
        self.names.add(name)
        return name, its_gender


def nouns_of(book: Lexicon, source: str) -> list[Noun]:
    """The nouns of a class, or the single noun of that name."""
    return book.by_class.get(source) or [book.nouns[source.removeprefix("=")]]


def weighted(draft: Draft, table: str) -> str:
    names, weights = _weights(table)
    return draft.random.choices(names, cum_weights=weights)[0]


@cache
def _weights(table: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    items = [item.split(":") for item in table.split()]
    return tuple(name for name, _ in items), tuple(accumulate(float(weight) for _, weight in items))


def person(draft: Draft, who: str = "any", *, owner: NounPhrase | None = None) -> NounPhrase:
    """Somebody. who: a key of _WHO, or one kind (I, she, name, kin ...). owner: whose "own" relatives are."""
    kind = weighted(draft, _WHO[who]) if who in _WHO else who
    kind = _OBJECT_PRONOUNS.get(kind, kind)
    if kind in ("nobody", "who"):
        return NounPhrase(draft.node(), kind, gender="m")
    if kind == "generic":  # whoever it may be: the understood subject of an infinitive
        return NounPhrase(draft.node(), "pronoun")
    if kind == "you" and draft.addressed is not None:
        return referring(draft, draft.addressed, "pronoun")
    if kind in _PRONOUNS:
        person_, plural, gender = _PRONOUNS[kind]
        return NounPhrase(draft.node(), "pronoun", person=person_, is_plural=plural, gender=gender)
    match kind.split("-"):
        case ["name", *wanted]:
            name, gender = draft.new_name(wanted[0] if wanted else None)
            return NounPhrase(draft.node(), "name", name=name, gender=gender)
        case ["title"]:
            name = draft.random.choice(draft.book.last_names)
            return NounPhrase(draft.node(), "title", name=name, gender=draft.random.choice("mf"))
        case ["pair"]:
            return _pair(draft)
        case ["couple"]:
            return _couple(draft)
        case ["kin", *wanted]:
            return _relative(draft, wanted[0] if wanted else None, owner)
    return _somebody(draft, kind, owner)


def referring(draft: Draft, np: NounPhrase, kind: str) -> NounPhrase:
    """A personal or relative pronoun for a phrase."""
    return NounPhrase(
        draft.node(),
        kind,
        is_plural=np.is_plural,
        person=np.person,
        gender=np.gender,
        is_formal=np.is_formal,
        antecedent=np,
    )


def _pair(draft: Draft) -> NounPhrase:
    if draft.chance(0.25):
        members = (_relative(draft, None, None), person(draft, "I"))
        gender = members[0].grammatical_gender("fr")
        return NounPhrase(
            draft.node(), "pair", person=1, is_plural=True, gender=gender if gender == "m" else None, members=members
        )
    return _couple(draft)


def _couple(draft: Draft) -> NounPhrase:
    members = (person(draft, "name"), person(draft, "name"))
    return NounPhrase(draft.node(), "pair", is_plural=True, members=members)


def _relative(draft: Draft, gender: str | None, owner: NounPhrase | None) -> NounPhrase:
    pool = [n for n in nouns_of(draft.book, "kin") + nouns_of(draft.book, "partner") if gender in (None, n.gender)]
    noun = draft.random.choice(pool)
    draft.use(noun)
    if owner is not None and not _fits_owner(noun, owner):
        raise Unsayable("not this person's")
    if owner is None and draft.chance(0.15):
        married_to = {"m": "f", "f": "m"}[noun.gender or "m"] if "partner" in noun.classes else None
        name, its_gender = draft.new_name(married_to)
        holder = NounPhrase(draft.node(), "name", name=name, gender=its_gender)
        return NounPhrase(draft.node(), "noun", noun, "gen", owner=holder)
    return NounPhrase(draft.node(), "noun", noun, "own", owner=owner or _some_owner(draft, noun))


def _fits_owner(noun: Noun, owner: NounPhrase) -> bool:
    """Husbands and wives, skirts and blouses are given to whom a reader expects them of."""
    if not noun.classes & {"partner", "womenswear"}:
        return True
    if owner.is_plural:
        return False
    gender = owner.english_gender() if owner.person == 3 else owner.gender
    if gender is None:
        return True
    return gender == ("f" if "womenswear" in noun.classes or noun.gender == "m" else "m")


def _some_owner(draft: Draft, noun: Noun) -> NounPhrase:
    """my, your, his, her, our: wives have husbands."""
    choices = ["I", "I", "I", "you", "he", "she", "we"]
    if "partner" in noun.classes:
        choices = ["I", "he"] if noun.gender == "f" else ["I", "she"]
    return person(draft, draft.random.choice(choices))


def _somebody(draft: Draft, kind: str, owner: NounPhrase | None) -> NounPhrase:
    book, plural = draft.book, False
    if kind == "children":
        kind, plural = "child", True
    noun = draft.random.choice(nouns_of(book, kind))
    draft.use(noun)
    determiner = "the"
    if kind in ("family", "friend") or (kind == "role" and draft.chance(0.5)):
        determiner = "own"
    np = NounPhrase(draft.node(), "noun", noun, determiner, plural or noun.number["en"] == "pl")
    if determiner == "own":
        np.owner = owner or person(draft, draft.random.choice(["I", "I", "I", "you", "he", "she", "we"]))
    elif kind in ("human-adult", "young", "adult-role", "role") and draft.chance(0.25):
        describe(draft, np)
    return np


def describe(draft: Draft, np: NounPhrase, excluded: frozenset[str] = frozenset(), among: str = "") -> None:
    """Gives a noun one adjective that goes with it, seldom two (a small red car). among: only those of this group."""
    assert np.noun is not None
    choices = [a for a in draft.book.adjectives_of[np.noun.english] if a.english not in excluded]
    if among:
        choices = [a for a in choices if f"~{among}" in a.classes]
    if not choices:
        return
    first = draft.random.choice(choices)
    adjectives = [first]
    colors = [a for a in choices if "colored" in a.classes and a is not first]
    if first.is_before and colors and draft.chance(SECOND_ADJECTIVE_SHARE / ADJECTIVE_SHARE):
        adjectives.append(draft.random.choice(colors))
    for adjective in adjectives:
        _note(draft, adjective, np.noun)
    np.adjectives = tuple(adjectives)


def _note(draft: Draft, adjective: Adjective, noun: Noun) -> None:
    key = f"a:{adjective.english}"
    if key in draft.words:
        raise Unsayable("the same adjective twice")
    draft.words.add(key)
    draft.related.append((key, f"n:{noun.english}"))


def allowed(noun: Noun, code: str) -> bool:
    """Whether the noun can stand with a determiner of predicates.tsv in all three languages."""
    determiner, plural = _DETERMINERS[code]
    english = noun.number["en"]
    if "pairwear" in noun.classes and not plural and determiner != "own":
        return False  # nobody buys a shoe
    if english == "sg":
        return determiner in ("the", "bare", "own", "this", "gen") and not (plural and determiner != "bare")
    if english == "pl":
        return determiner in ("the", "bare", "own", "this") and (plural or determiner in ("the", "own", "this"))
    return not (plural and "sg" in (noun.number["de"], noun.number["fr"]))


def thing(
    draft: Draft,
    source: str,
    codes: str,
    *,
    owner: NounPhrase | None = None,
    adjective_share: float = ADJECTIVE_SHARE,
    excluded: frozenset[str] = frozenset(),
) -> NounPhrase:
    """A noun of the class with one of the determiners. owner: the possessor of "own" ("Anna reads her book")."""
    noun = draft.random.choice(nouns_of(draft.book, source))
    code = draft.random.choice(codes)
    if not allowed(noun, code):
        raise Unsayable("this noun does not take this determiner")
    draft.use(noun)
    determiner, plural = _DETERMINERS[code]
    if noun.number["en"]:
        plural = noun.number["en"] == "pl"
    np = NounPhrase(draft.node(), "noun", noun, determiner, plural)
    if owner is not None and not _fits_owner(noun, owner):
        raise Unsayable("not this person's")
    if determiner in ("a", "the") and not plural and owner is not None and owner.is_plural and "worn" in noun.classes:
        raise Unsayable("one coat for several people")
    if determiner == "own":
        if owner is not None and owner.kind == "nobody":
            raise Unsayable("nobody's own")
        np.owner = owner if owner is not None and owner.kind != "who" else person(draft, "I")
        if np.owner.is_plural and "personal" in noun.classes:  # we put on our sweaters
            if "one-each" in noun.classes or noun.number["en"] or "sg" in (noun.number["de"], noun.number["fr"]):
                raise Unsayable("one pair of glasses for several people")
            np.is_plural = True
    elif determiner == "gen":
        np.owner = person(draft, draft.random.choice(["name", "name", "kin"]))
    elif determiner == "number":
        few = 3 if "kin" in noun.classes else 6
        np.numeral = draft.random.choice(NUMERALS[1:few])[1:]
    if draft.chance(adjective_share):
        describe(draft, np, excluded)
    return np


def place(draft: Draft, relation: str, source: str) -> Location:
    """At, to or from a place of the class: a noun of places.tsv or a region."""
    book = draft.book
    regions = book.regions_by_class.get(source, [])
    nouns = [n for n in book.by_class.get(source, []) if n.english in book.places]
    pick = draft.random.randrange(len(regions) + len(nouns))
    if pick < len(regions):
        region = regions[pick]
        if f"n:{region.english}" in draft.words:
            raise Unsayable("the same place twice")
        draft.words.add(f"n:{region.english}")
        return Location(draft.node(), relation, region=region)
    noun = nouns[pick - len(regions)]
    draft.use(noun)
    np = NounPhrase(draft.node(), "noun", noun, "the")
    return Location(draft.node(), relation, np, book.places[noun.english])


def fill(
    draft: Draft,
    choice: ObjectChoice,
    predicate: Predicate,
    subject: NounPhrase,
    usual: bool = True,
    general: bool = False,
) -> NounPhrase | Location:
    """What stands in a slot of a predicate, noted as a pair with its verb. usual: numerals too, but not in a negation ("not
    three apples"). general: of things in general, where the verb allows it ("she likes to sing songs")."""
    if choice.source.startswith(("at:", "to:")):
        relation, _, source = choice.source.partition(":")
        return place(draft, relation, source)
    if choice.source in ("people", "others"):
        return _other_person(draft, subject, may_be_own=choice.source == "people")
    codes = choice.determiners
    if general:
        codes = "P" if "P" in codes else codes.replace("a", "").replace("n", "") or "t"
    elif not usual:
        codes = codes.replace("n", "") or "t"
    code = draft.random.choice(codes)
    # what is not eaten or liked is named without praise or blame: no one "doesn't like delicious cakes"
    is_plain = not usual and (code in "aP" or "s" in predicate.tenses)
    share = 0.0 if is_plain else ADJECTIVE_SHARE * choice.adjectives
    np = thing(draft, choice.source, code, owner=subject, adjective_share=share, excluded=choice.excluded)
    assert np.noun is not None
    draft.related.append((f"v:{predicate.key}", f"n:{np.noun.english}"))
    return np


def _other_person(draft: Draft, subject: NounPhrase, *, may_be_own: bool = True) -> NounPhrase:
    """Somebody other than the subject; relatives are the subject's own, or never (nobody says that he knows his mother)."""
    owner = subject if subject.kind in ("pronoun", "name", "title") or subject.person == 1 else None
    np = person(draft, "people", owner=owner if may_be_own and draft.chance(0.7) else None)
    if not may_be_own and np.owner is not None and np.owner.kind == "pronoun" and np.owner.person == subject.person:
        raise Unsayable("one's own mother is known")
    same = np.kind == "pronoun" and np.person < 3 and np.person == subject.person
    same_third = np.kind == "pronoun" and np.person == 3 and subject.kind == "pronoun" and subject.person == 3
    if same or same_third:
        raise Unsayable("a reflexive")
    spouse_of = subject.owner if subject.noun is not None and "partner" in subject.noun.classes else None
    if spouse_of is not None and np.kind == "pronoun" and np.person == spouse_of.person:
        raise Unsayable("my wife visits me")
    return np


def sayable_subjects(book: Lexicon) -> int:
    """How many different subjects every predicate of persons can have in every language: first names, and relatives of my,
    his and her."""
    return len(book.first_names) + 3 * len(nouns_of(book, "kin"))


def number_of_objects(book: Lexicon, choice: ObjectChoice) -> int:
    """How many different English phrases `fill` can draw for a choice: each noun with each determiner, plain and with each
    adjective; own, owner's and numbers counted once."""
    if choice.source.startswith(("at:", "to:")) or choice.source in ("people", "others"):
        return 0
    return sum(
        1 + choice.adjectives * sum(a.english not in choice.excluded for a in book.adjectives_of[noun.english])
        for noun in nouns_of(book, choice.source)
        for code in dict.fromkeys(choice.determiners)
        if allowed(noun, code)
    )
