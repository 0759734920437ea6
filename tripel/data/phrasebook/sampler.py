"""Draws the parts of a sentence pattern: clauses, noun phrases, phrases, places.

A pattern (patterns/*.yaml) names its parts and says of each what it may be; the notation is explained at the head of
patterns/people.yaml. This module turns one such description into trees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from tripel.data.phrasebook import choose
from tripel.data.phrasebook.choose import Draft
from tripel.data.phrasebook.lexicon import lexicon
from tripel.data.phrasebook.records import Adjective, Noun, Phrase, Predicate
from tripel.data.phrasebook.tree import Adverbial, Clause, Location, NounPhrase, Unsayable
from tripel.errors import DataError, nearest

Spec = dict[str, Any]


@dataclass(frozen=True)
class Words:
    """Ready words in the notation of the tables, by language: a number, a time of day."""

    number: int
    text: dict[str, str]


@dataclass(frozen=True)
class Graded:
    """An adjective said of a noun phrase, to be compared in the template."""

    number: int
    adjective: Adjective
    phrase: NounPhrase


Part = Clause | NounPhrase | Adverbial | Location | Words | Graded

LETTER = {  # tense of a pattern: the letter of predicates.tsv that allows it
    "progressive": "g",
    "was-doing": "g",
    "habitual": "h",
    "used-to": "h",
    "present": "s",
    "was": "s",
    "hypothetical": "s",
    "past": "p",
    "narrative": "p",
    "perfect": "r",
    "just": "r",
    "will": "f",
    "going": "f",
    "would": "m",
    "modal": "m",
    "infinitive": "t",
    "imperative": "i",
    "simple": "gs",
    "simple-habit": "h",
    "simple-now": "pf",
}
_TREE_TENSE = {
    "habitual": "present",
    "modal": "present",
    "infinitive": "present",
    "imperative": "present",
    "was": "past",
    "simple": "present",
    "simple-habit": "present",
    "simple-now": "present",
}
_TIME_GROUP = {
    "progressive": "now",
    "past": "past",
    "narrative": "past",
    "will": "future",
    "going": "future",
    "modal": "future",
}
_DEFAULT_SHARES = {"time": 0.4, "place": 0.3, "manner": 0.15, "front": 0.3}


def draw(draft: Draft, name: str, spec: Spec, parts: dict[str, Part]) -> Part:
    """One part of a pattern. parts: those drawn before it, to which it may refer."""
    if "do" in spec:
        return _clause(draft, name, spec, parts)
    if "np" in spec:
        return _thing(draft, spec)
    if "who" in spec:
        return _person(draft, spec["who"], parts)
    if "phrase" in spec:
        phrase = draft.random.choice(draft.book.phrases_by_group[spec["phrase"]])
        if f"a:{phrase.english}" in draft.words:
            raise Unsayable("the same adjective twice")
        return Adverbial(draft.node(), "time", phrase)
    if "place" in spec:
        return choose.place(draft, spec["relation"], draft.random.choice(spec["place"].split()))
    if "beside" in spec:
        return _beside(draft, spec, parts)
    if "number" in spec:
        return _number(draft, *spec["number"])
    if "clock" in spec:
        en, de, fr = draft.random.choice(choose.CLOCK)
        return Words(draft.node(), {"en": en, "de": de, "fr": fr})
    if "adjective" in spec:
        return _graded(draft, spec, parts)
    return _address(draft, spec["address"])


def _thing(draft: Draft, spec: Spec) -> NounPhrase:
    owner = choose.person(draft, spec["owner"]) if "owner" in spec else None
    source = draft.random.choice(spec["np"].split())
    np = choose.thing(draft, source, spec.get("det", "t"), owner=owner, adjective_share=spec.get("adj", 0.0))
    if "among" in spec:
        choose.describe(draft, np, among=spec["among"])
    if spec.get("degree") == "superlative":
        if len(np.adjectives) != 1 or not np.adjectives[0].is_gradable or "~absolute" in np.adjectives[0].classes:
            raise Unsayable("nothing to grade")
        np.is_superlative = True
    return np


def _person(draft: Draft, who: str, parts: dict[str, Part]) -> NounPhrase:
    """who: a kind of person, or a reference to an earlier part: N the same phrase, A.S a clause's subject, N.he a pronoun
    for it, N.who a relative pronoun, N.alone a possessive ("mine")."""
    if who in ("whom", "what"):
        return NounPhrase(draft.node(), who, gender="m")
    if who == "it":
        return NounPhrase(draft.node(), "it", gender="n")
    if not who[0].isupper() or who == "I":
        return choose.person(draft, who)
    name, *path = who.split(".")
    part = parts[name]
    if path and path[0] in ("S", "O", "I"):
        assert isinstance(part, Clause)
        part, path = part.noun_phrases()[path[0]], path[1:]
    assert isinstance(part, NounPhrase)
    return _referring(draft, part, path[0]) if path else part


def _referring(draft: Draft, np: NounPhrase, how: str) -> NounPhrase:
    if how == "alone":
        assert np.owner is not None
        same = _kind_of(np.owner)
        kinds = [k for k in ("I", "you", "he", "she", "we") if k != same and {k, same} != {"I", "we"}]
        owner = choose.person(draft, draft.random.choice(kinds))
        if owner.person == 3 and np.owner.person == 3:
            raise Unsayable("his and his")
        return NounPhrase(draft.node(), "alone", is_plural=np.is_plural, owner=owner, antecedent=np)
    if how == "owner":
        assert np.owner is not None
        return np.owner
    if how == "kin":  # the woman ... is my aunt
        return choose.person(draft, f"kin-{np.english_gender()}")
    if how == "name":  # my mother's name
        return choose.person(draft, f"name-{np.english_gender()}")
    if how == "me":  # what somebody says of himself
        return NounPhrase(draft.node(), "pronoun", person=1, gender=np.english_gender())
    return choose.referring(draft, np, {"he": "pronoun", "who": "relative"}[how])


def _beside(draft: Draft, spec: Spec, parts: dict[str, Part]) -> Location:
    """Behind the church, next to the bank: a relation of relations.tsv to an earlier phrase."""
    np = parts[spec["beside"]]
    assert isinstance(np, NounPhrase)
    return Location(draft.node(), "at", np, draft.book.relations[draft.random.choice(spec["how"].split())])


def _kind_of(np: NounPhrase) -> str:
    return {(1, False): "I", (1, True): "we", (2, False): "you"}.get((np.person, np.is_plural), "")


def _number(draft: Draft, low: int, high: int) -> Words:
    value, en, de, fr = draft.random.choice([row for row in choose.NUMERALS if low <= row[0] <= high])
    return Words(draft.node(), {"en": en, "de": de, "fr": fr, "value": str(value)})


def _graded(draft: Draft, spec: Spec, parts: dict[str, Part]) -> Graded:
    np = parts[spec["adjective"]]
    assert isinstance(np, NounPhrase)
    if "group" in spec:
        pool = [a for a in draft.book.adjectives if f"~{spec['group']}" in a.classes]
    else:
        assert np.noun is not None
        pool = [a for a in draft.book.adjectives_of[np.noun.english] if a not in np.adjectives]
    if "among" in spec:
        pool = [a for a in pool if f"~{spec['among']}" in a.classes]
    pool = [a for a in pool if a.is_gradable and "~absolute" not in a.classes]
    if not pool:
        raise Unsayable("no adjective goes with this noun")
    adjective = draft.random.choice(pool)
    if f"a:{adjective.english}" in draft.words:
        raise Unsayable("the same adjective twice")
    draft.words.add(f"a:{adjective.english}")
    if np.noun is not None:
        draft.related.append((f"a:{adjective.english}", f"n:{np.noun.english}"))
    return Graded(draft.node(), adjective, np)


def _address(draft: Draft, kinds: str) -> NounPhrase:
    """Somebody spoken to, who shows how: informal (Anna), formal (Mr. Weber), plural (Anna and Tom)."""
    match draft.random.choice(kinds.split()):
        case "informal":
            np = choose.person(draft, "name")
        case "formal":
            np = choose.person(draft, "title")
            np.is_formal = True
        case _:
            np = choose.person(draft, "pair")
            if np.person == 1:
                raise Unsayable("speaking to oneself")
    np.person = 2
    draft.addressed = np
    return np


@cache
def _candidates(
    groups: str, letters: str, slots: str, without_reflexives: bool, subject: frozenset[str]
) -> tuple[Predicate, ...]:
    """Predicates of any of the groups that allow one of the tenses, have these slots, and may be said of the subject (the
    classes of subject that it is; none for a subject still to be chosen)."""
    book = lexicon()
    for group in groups.split():
        if group not in book.by_group:
            raise DataError(
                "A sentence pattern asks for a group that no predicate has.",
                given=group,
                expected=f"for instance {nearest(group, book.by_group)}",
                mend="See the column groups of predicates.tsv.",
            )
    found = [p for group in groups.split() for p in book.by_group[group]]
    return tuple(
        dict.fromkeys(
            p
            for p in found
            if set(letters) & set(p.tenses)
            and set(slots) <= {choice.slot for choice in p.objects}
            and not (without_reflexives and p.frames["de"].reflexive)
            and (not subject or subject & set(p.subject.split()))
        )
    )


def _clause(draft: Draft, name: str, spec: Spec, parts: dict[str, Part]) -> Clause:
    tenses = _tenses(draft, spec.get("tense", "present"))
    given = _person(draft, spec["who"], parts) if "who" in spec else None
    letters = "".join(LETTER[t] for t in tenses)
    pool = _candidates(spec["do"], letters, "".join(spec.get("fill", {})), "reflexive" in spec, _kind_of_subject(given))
    if not pool:
        raise Unsayable("nothing to say of this subject")
    predicate = draft.random.choice(pool)
    tense = draft.random.choice([t for t in tenses if set(LETTER[t]) & set(predicate.tenses)])
    draft.tenses[name] = tense
    subject = given if given is not None else _subject(draft, predicate, spec)
    c = Clause(draft.node(), predicate, subject, tense=_TREE_TENSE.get(tense, tense))
    c.is_contracted = draft.is_contracted
    if f"v:{predicate.key}" in draft.words:
        raise Unsayable("the same verb twice")
    draft.words.add(f"v:{predicate.key}")
    if subject.kind == "noun" and subject.noun is not None:
        draft.related.append((f"v:{predicate.key}", f"n:{subject.noun.english}"))
    if "modal" in spec:
        c.modal = draft.random.choice(spec["modal"].split())
        c.tense = spec.get("modal-tense", "present")
    _negate(draft, c, spec)
    _fill_slots(draft, c, spec, parts, tense in ("habitual", "simple-habit", "used-to"))
    _add_adverbials(draft, c, spec, tense)
    return c


def _tenses(draft: Draft, wanted: str | dict[str, dict[str, str]]) -> list[str]:
    """The tenses a clause may have: names, or what another's tense asks for ({A: {progressive: present, past: was}})."""
    if isinstance(wanted, str):
        return wanted.split()
    ((name, by_tense),) = wanted.items()
    tense = draft.tenses[name]
    return by_tense.get(tense, tense).split()


def _kind_of_subject(np: NounPhrase | None) -> frozenset[str]:
    """The classes of subject (column subject of predicates.tsv) that a phrase belongs to."""
    if np is None:
        return frozenset()
    if np.kind == "it":
        return frozenset({"it"})
    noun = np.antecedent.noun if np.antecedent is not None else np.noun
    return _subject_classes(noun, np.is_plural)


@cache
def _subject_classes(noun: Noun | None, is_plural: bool) -> frozenset[str]:
    classes = set() if noun is None else {*noun.classes, "noun"}
    if noun is None or noun.classes & {"adult", "human", "child", "family"}:
        classes |= {"person", "plural" if is_plural else "singular"}
    return frozenset(classes)


def _subject(draft: Draft, predicate: Predicate, spec: Spec) -> NounPhrase:
    source = draft.random.choice(predicate.subject.split())
    if source == "person":
        return choose.person(draft, spec.get("people", "any"))
    if source == "plural":
        return choose.person(draft, "several")
    if source == "singular":
        return choose.person(draft, "gendered")
    if source == "it":
        return NounPhrase(draft.node(), "it", gender="n")
    return choose.thing(draft, source, spec.get("det", "t"), adjective_share=spec.get("adj", 0.2))


def _negate(draft: Draft, c: Clause, spec: Spec) -> None:
    if "neg" not in spec or "n" in c.predicate.tenses:
        return
    for kind, share in spec["neg"].items():
        if draft.chance(share):
            c.negation = kind
            return


def _fill_slots(draft: Draft, c: Clause, spec: Spec, parts: dict[str, Part], is_habit: bool) -> None:
    """Slots given by the pattern first; the rest by what the verb goes with."""
    given = spec.get("fill", {})
    for slot in dict.fromkeys(choice.slot for choice in c.predicate.objects) | dict.fromkeys(given):
        if slot in given:
            c.slots[slot] = _given_filler(draft, c, slot, given[slot], parts)
            continue
        choice = draft.random.choice([o for o in c.predicate.objects if o.slot == slot])
        general = c.modal in ("like", "prefer") or is_habit
        usual = not c.negation and c.subject.kind != "nobody"
        c.slots[slot] = choose.fill(draft, choice, c.predicate, c.subject, usual, general)


def _given_filler(draft: Draft, c: Clause, slot: str, who: str, parts: dict[str, Part]) -> NounPhrase:
    np = _person(draft, who, parts)
    noun = np.antecedent.noun if np.antecedent is not None else np.noun
    if noun is None or np.kind == "alone":
        return np
    choices = [o for o in c.predicate.objects if o.slot == slot]
    if not any(o.source in noun.classes or o.source == noun.english for o in choices):
        raise Unsayable("the verb does not go with this noun")
    draft.related.append((f"v:{c.predicate.key}", f"n:{noun.english}"))
    return np


def _add_adverbials(draft: Draft, c: Clause, spec: Spec, tense: str) -> None:
    """Time, frequency, place and manner, where verb, tense and negation leave room for them."""
    share = {name: spec.get(name, default) for name, default in _DEFAULT_SHARES.items()}
    nodes: list[Adverbial] = []
    if "add" in spec:
        nodes.append(_from_table(draft, spec["add"]))
    elif (group := _time_group(draft, c, tense)) and draft.chance(
        spec.get("time", 1.0) if tense == "habitual" else share["time"]
    ):
        nodes.append(_from_table(draft, group, c.predicate))
    if "clock" in spec:
        nodes.append(_at_clock(draft))
    if not c.negation:
        if c.predicate.place_class and draft.chance(share["place"]):
            location = choose.place(draft, "at", c.predicate.place_class)
            nodes.insert(0, Adverbial(draft.node(), "place", location=location))
        if c.predicate.manner and draft.chance(share["manner"]):
            nodes.insert(0, _from_table(draft, c.predicate.manner))
    c.adverbials = tuple(nodes)
    frontable = [n for n in nodes if n.phrase is not None and "front" in n.phrase.groups]
    if frontable and draft.chance(share["front"]) and c.subject.kind not in ("relative", "who"):
        c.front = frontable[0]


def _time_group(draft: Draft, c: Clause, tense: str) -> str:
    if tense == "habitual" and "d" in c.predicate.tenses and not c.negation:
        return "now-and-then"
    if tense == "habitual":
        return "" if c.negation == "never" else "habit" if c.negation or draft.chance(0.55) else "now-and-then"
    if tense == "perfect" and not c.negation:
        return "already"
    if tense == "progressive" and c.negation:
        return ""
    return _TIME_GROUP.get(tense, "")


def _from_table(draft: Draft, group: str, predicate: Predicate | None = None) -> Adverbial:
    """predicate: one of a fixed time of day (to have breakfast) takes only phrases that name no other, one of the moment (to
    laugh) no longer stretch of time."""
    phrases = draft.book.phrases_by_group[group]
    if predicate is not None and "o" in predicate.tenses and group == "now":
        phrases = draft.book.phrases_by_group["instant"]
    elif predicate is not None and "d" in predicate.tenses and group in ("past", "future", "now"):
        phrases = [p for p in phrases if "day" in p.groups]
    phrase = draft.random.choice(phrases)
    return Adverbial(draft.node(), phrase.kind, phrase)


def _at_clock(draft: Draft) -> Adverbial:
    en, de, fr = draft.random.choice(choose.CLOCK)
    phrase = Phrase(frozenset(), "time", f"at/9 {en}", "end", f"um/9 {de}", f"à/9 {fr}", "end")
    return Adverbial(draft.node(), "time", phrase)
