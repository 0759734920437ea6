"""German noun phrases, prepositional phrases and adverbials from trees."""

from __future__ import annotations

from tripel.data.phrasebook import german_forms as forms
from tripel.data.phrasebook.records import Adjective
from tripel.data.phrasebook.tokens import Token, literal
from tripel.data.phrasebook.tree import (
    ADJECTIVE,
    DETERMINER,
    NOUN,
    OWNER_MARK,
    PREPOSITION,
    Adverbial,
    Location,
    NounPhrase,
    Unsayable,
)


def noun_phrase(np: NounPhrase, case: str = "nom", *, override: str = "", with_kein: bool = False) -> list[Token]:
    """The phrase in a case. override: "the" puts the definite article, "0" none, whatever the tree says. with_kein: ein and
    the missing article become kein."""
    mark = (np.number,)
    match np.kind:
        case "pronoun" | "it":
            return [Token(_pronoun(np, case), mark)]
        case "name":
            return [Token(np.name, mark)]
        case "title":
            herr = "Herr" if case == "nom" else "Herrn"
            return [Token(herr if np.gender == "m" else "Frau", (np.number + 1,)), Token(np.name, mark)]
        case "pair":
            first, second = np.members
            return [*noun_phrase(first, case), Token("und", mark), *noun_phrase(second, case)]
        case "relative":
            return [Token(forms.relative(case, _gender(np)), mark)]
        case "who" | "whom":
            return [Token({"nom": "wer", "acc": "wen", "dat": "wem"}[case], mark)]
        case "nobody":
            return [Token("niemand", mark)]
        case "what":
            if case != "acc":
                raise Unsayable("was in another case than the accusative")
            return [Token("was", mark)]
        case "alone":
            text = forms.possessive_alone(_owner_stem(np), case, _gender(np))
            return [Token(text, (np.number, np.number + DETERMINER))]
    return _common(np, case, override, with_kein)


def _gender(np: NounPhrase) -> str:
    """Column of the declension tables: m, f, n, or p for the plural."""
    if np.plural("de"):
        return "p"
    gender = np.grammatical_gender("de")
    assert gender is not None
    return gender


def _pronoun(np: NounPhrase, case: str) -> str:
    if np.kind == "it":
        return "es"
    gender = None if np.person < 3 or np.plural("de") else np.grammatical_gender("de")
    return forms.pronoun(case, np.person, np.plural("de"), gender, np.is_formal)


def owner_stem(owner: NounPhrase) -> str:
    """The possessive that goes with an owner: mein, dein, sein, ihr ..."""
    gender = None if owner.person < 3 or owner.plural("de") else _natural_gender(owner)
    return forms.possessive_stem(owner.person, owner.plural("de"), gender, owner.is_formal)


def _owner_stem(np: NounPhrase) -> str:
    assert np.owner is not None
    return owner_stem(np.owner)


def _natural_gender(owner: NounPhrase) -> str | None:
    """seine for a boy and ihre for a girl, though Mädchen is neuter."""
    english = owner.english_gender()
    return english if english in ("m", "f") else owner.grammatical_gender("de")


def _common(np: NounPhrase, case: str, override: str, with_kein: bool) -> list[Token]:
    assert np.noun is not None
    gender = _gender(np)
    determiner = override or np.determiner
    if determiner == "gen":
        return _owned(np, case)
    article, declension = _article(np, determiner, case, gender, with_kein)
    words = [Token(article, (np.number + DETERMINER,), np.number)] if article else []
    return [*words, *_adjectives_and_noun(np, case, gender, declension)]


def _article(np: NounPhrase, determiner: str, case: str, gender: str, with_kein: bool) -> tuple[str, str]:
    """(article, declension of a following adjective)."""
    if with_kein or determiner in ("no", "kein"):
        return forms.ein_word("kein", case, gender), "mixed"
    match determiner:
        case "the":
            return forms.definite(case, gender), "weak"
        case "this":
            return forms.der_word("dies", case, gender), "weak"
        case "a" if gender != "p":
            return forms.ein_word("ein", case, gender), "mixed"
        case "own":
            return forms.ein_word(_owner_stem(np), case, gender), "mixed"
        case "number":
            numeral = np.numeral[1]
            if numeral == "ein":
                return forms.ein_word("ein", case, gender), "mixed"
            return numeral, "strong"
    return "", "strong"


def _adjectives_and_noun(np: NounPhrase, case: str, gender: str, declension: str) -> list[Token]:
    words = [
        Token(forms.adjective(stem, declension, case, gender), (np.number + ADJECTIVE + k,), np.number)
        for k, stem in enumerate(_stem(a, np.is_superlative) for a in np.adjectives)
    ]
    return [*words, Token(noun_form(np, case), (np.number + NOUN,))]


def _stem(adjective: Adjective, is_superlative: bool) -> str:
    if is_superlative:
        return forms.superlative_stem(adjective.german, adjective.german_comparison)
    return adjective.german_stem


def noun_form(np: NounPhrase, case: str) -> str:
    noun = np.noun
    assert noun is not None
    if np.plural("de"):
        return forms.dative_plural(noun.german_plural) if case == "dat" else noun.german_plural
    if noun.is_weak and case != "nom":
        return forms.weak_form(noun.german)
    return noun.german_genitive if case == "gen" else noun.german


def _owned(np: NounPhrase, case: str) -> list[Token]:
    """Annas neues Auto; das neue Auto meines Bruders; das neue Auto von Annas Bruder."""
    owner, gender = np.owner, _gender(np)
    assert owner is not None
    if owner.kind == "name":
        head = Token(owner.name + "s", (owner.number, owner.number + OWNER_MARK))
        return [head, *_adjectives_and_noun(np, case, gender, "strong")]
    owned = [Token(forms.definite(case, gender), (), np.number), *_adjectives_and_noun(np, case, gender, "weak")]
    if owner.determiner == "gen":
        return [*owned, Token("von", (owner.number + OWNER_MARK,), owner.number), *noun_phrase(owner, "dat")]
    genitive = noun_phrase(owner, "gen")
    last = genitive[-1]
    genitive[-1] = last._replace(concepts=(*last.concepts, owner.number + OWNER_MARK))
    return [*owned, *genitive]


_CONTRACTED = {
    ("in", "dem"): "im",
    ("an", "dem"): "am",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
    ("bei", "dem"): "beim",
    ("von", "dem"): "vom",
    ("in", "das"): "ins",
    ("an", "das"): "ans",
}


def with_preposition(preposition: str, words: list[Token], concept: int, head: int) -> list[Token]:
    """Preposition before a phrase, drawn together with its article: am, im, zur. The last word of "in der Nähe von" is what
    contracts."""
    *before, last = preposition.split()
    tokens = [Token(word, (concept,), head) for word in before]
    first = words[0]
    joined = _CONTRACTED.get((last, first.text))
    if joined:
        return [*tokens, Token(joined, (concept, *first.concepts), head), *words[1:]]
    return [*tokens, Token(last, (concept,), head), *words]


def location(place: Location, preposition: str = "") -> list[Token]:
    """am Bahnhof, zur Post, nach Berlin, aus Italien. preposition: one that the verb asks for, with the dative (am Museum
    aussteigen)."""
    concept = place.number + PREPOSITION
    if place.region is not None:
        first, *name = place.region.german[place.relation].split()
        return [Token(first, (concept,), place.number), *(Token(word, (place.number,)) for word in name)]
    assert place.place is not None and place.phrase is not None
    own, case = place.place.german_at if place.relation == "at" else place.place.german_to
    preposition, case = (preposition, "dat") if preposition else (own, case)
    return with_preposition(preposition, noun_phrase(place.phrase, case), concept, place.phrase.number)


def adverbial(node: Adverbial) -> list[Token]:
    if node.location is not None:
        return location(node.location)
    assert node.phrase is not None
    return literal(node.phrase.german, node.number, node.number)
