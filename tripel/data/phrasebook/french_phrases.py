"""French noun phrases, places and adverbials from trees. Contraction and elision happen later, over the whole sentence."""

from __future__ import annotations

from functools import cache

from tripel.data.phrasebook import french_forms as forms
from tripel.data.phrasebook.lexicon import lexicon
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


def noun_phrase(np: NounPhrase, article: str = "") -> list[Token]:
    """A phrase after a preposition, as an object or as a subject; personal pronouns in their stressed form.

    article: what replaces the tree's determiner where the verb or a negation asks for it: "le" the definite one for a bare
    noun, "the" always, "0" none, "de" the negated or governed indefinite.
    """
    mark = (np.number,)
    match np.kind:
        case "pronoun":
            gender = np.grammatical_gender("fr")
            if np.person == 3 and gender is None:
                raise Unsayable("il or elle is not shown")
            return [Token(forms.stressed_pronoun(np.person, np.plural("fr"), gender), mark)]
        case "it":
            return [Token("il", mark)]
        case "name":
            return [Token(np.name, mark)]
        case "title":
            return [Token("Monsieur" if np.gender == "m" else "Madame", (np.number + 1,)), Token(np.name, mark)]
        case "pair":
            first, second = np.members
            return [*noun_phrase(first), Token("et", mark), *noun_phrase(second)]
        case "relative":
            raise Unsayable("a relative pronoun inside its clause")
        case "who" | "whom" | "nobody":
            return [Token("personne" if np.kind == "nobody" else "qui", mark)]
        case "alone":
            return _alone(np)
    return _common(np, article)


def subject(np: NounPhrase) -> list[Token]:
    """The phrase as a subject: je, tu, il; qui for a relative."""
    if np.kind == "pronoun":
        gender = np.grammatical_gender("fr")
        if np.person == 3 and gender is None:
            raise Unsayable("il or elle is not shown")
        return [Token(forms.subject_pronoun(np.person, np.plural("fr") or np.is_formal, gender), (np.number,))]
    if np.kind == "relative":
        return [Token("qui", (np.number,))]
    return noun_phrase(np)


def gender_of(np: NounPhrase) -> str:
    """Gender for agreement. Raises Unsayable when nothing in the English shows it ("I am ready")."""
    gender = np.grammatical_gender("fr")
    if gender is None:
        raise Unsayable("the agreement is not shown")
    return gender


def _alone(np: NounPhrase) -> list[Token]:
    """le mien, la sienne, les leurs."""
    owner, gender, plural = np.owner, gender_of(np), np.plural("fr")
    assert owner is not None
    form = forms.possessive_alone(owner.person, owner.plural("fr") or owner.is_formal, gender, plural)
    article = _definite(gender, plural)
    return [Token(article, (np.number,), is_article=True), Token(form, (np.number, np.number + DETERMINER))]


def _definite(gender: str, plural: bool) -> str:
    return "les" if plural else "la" if gender == "f" else "le"


def _common(np: NounPhrase, article: str) -> list[Token]:
    assert np.noun is not None
    noun, plural = np.noun, np.plural("fr")
    core = _core(np, plural)
    determiner = np.determiner
    if article == "the" or (article in ("le", "0", "de") and determiner in ("a", "bare")):
        determiner = {"the": "the", "le": "the", "0": "0", "de": "de"}[article]
    words = [*_determiner(np, determiner, noun.french_gender, plural, core), *core]
    if determiner == "gen":
        assert np.owner is not None
        mark = Token("de", (np.owner.number + OWNER_MARK,), np.owner.number)
        words += [mark, *noun_phrase(np.owner)]
    return words


def _core(np: NounPhrase, plural: bool) -> list[Token]:
    """The noun between its adjectives."""
    noun = np.noun
    assert noun is not None
    text = noun.french_plural if plural else noun.french
    words = [Token(word, (np.number + NOUN,)) for word in text.split()]
    before: list[Token] = []
    for k, adjective in enumerate(np.adjectives):
        concept = (np.number + ADJECTIVE + k,)
        form = agree(adjective, noun.french_gender, plural, before=words[0].text if adjective.is_before else "")
        if np.is_superlative:
            form = _superlative(adjective, noun.french_gender, plural)
        placed = [Token(word, concept, np.number) for word in form.split()]
        if adjective.is_before:
            before += placed
        else:
            words += placed
    return [*before, *words]


def _superlative(adjective: Adjective, gender: str, plural: bool) -> str:
    """la plus vieille (église), (l'église) la plus célèbre; meilleur. The article of the first kind is that of the noun."""
    if adjective.french_masculine == "bon":
        return forms.adjective("meilleur", "meilleure", gender, plural)
    form = "plus " + agree(adjective, gender, plural)
    return form if adjective.is_before else f"{_definite(gender, plural)} {form}"


def agree(adjective: Adjective, gender: str, plural: bool, before: str = "") -> str:
    return forms.adjective(adjective.french_masculine, adjective.french_feminine, gender, plural, before)


def _determiner(np: NounPhrase, determiner: str, gender: str, plural: bool, core: list[Token]) -> list[Token]:
    mark, head, following = (np.number + DETERMINER,), np.number, core[0].text
    vowel = forms.starts_with_vowel(following, lexicon().aspirated)
    match determiner:
        case "the" | "gen":
            concepts = mark if determiner == "the" and np.determiner == "the" else ()
            return [Token(_definite(gender, plural), concepts, head, is_article=True)]
        case "a" if not plural:
            return [Token("une" if gender == "f" else "un", mark, head)]
        case "this":
            return [Token("ces" if plural else "cette" if gender == "f" else "cet" if vowel else "ce", mark, head)]
        case "own":
            owner = np.owner
            assert owner is not None
            several = owner.plural("fr") or owner.is_formal
            text = forms.possessive(owner.person, several, gender, plural, following, lexicon().aspirated)
            return [Token(text, mark, head)]
        case "number":
            text = np.numeral[2]
            return [Token("une" if text == "un" and gender == "f" else text, mark, head)]
        case "de":
            return [Token("de", (), head)]
        case "0" | "":
            return []
        case "bare" | "a":
            return _partitive(np, gender, plural, head)
    raise Unsayable(f"a French determiner for {determiner}")


def _partitive(np: NounPhrase, gender: str, plural: bool, head: int) -> list[Token]:
    """du, de la, des; de before an adjective that precedes a plural noun (de belles fleurs)."""
    if plural:
        return [Token("de" if any(a.is_before for a in np.adjectives) else "des", (), head)]
    return partitive_article(gender, head)


def partitive_article(gender: str, head: int) -> list[Token]:
    """de + le, de + la: contraction makes du of the first and leaves de l' before a vowel."""
    return [Token("de", (), head), Token(_definite(gender, False), (), head, is_article=True)]


@cache
def _adjectives_by_masculine() -> dict[str, Adjective]:
    return {a.french_masculine: a for a in lexicon().adjectives}


def agreeing_word(masculine: str, np: NounPhrase) -> str:
    """A word of a predicate that agrees with its subject: fier, fière; pressés. Words of one form need no gender."""
    known = _adjectives_by_masculine().get(masculine)
    feminine = known.french_feminine if known is not None else forms.regular_feminine(masculine)
    plural = np.plural("fr")
    gender = "m" if feminine == masculine else gender_of(np)
    return forms.adjective(masculine, feminine, gender, plural)


def location(place: Location) -> list[Token]:
    """à la gare, dans le jardin, à Berlin, d'Italie."""
    concept = place.number + PREPOSITION
    if place.region is not None:
        preposition, *name = place.region.french[place.relation].split()
        return [Token(preposition, (concept,), place.number), *(Token(word, (place.number,)) for word in name)]
    assert place.place is not None and place.phrase is not None
    preposition = place.place.french_at if place.relation == "at" else place.place.french_to
    words = [Token(word, (concept,), place.phrase.number) for word in preposition.split()]
    return [*words, *noun_phrase(place.phrase)]


def adverbial(node: Adverbial) -> list[Token]:
    if node.location is not None:
        return location(node.location)
    assert node.phrase is not None
    return literal(node.phrase.french, node.number, node.number)
