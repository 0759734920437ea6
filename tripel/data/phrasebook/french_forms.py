"""French inflection: articles, adjectives, nouns, verbs, and the spelling of their meeting (elision, contraction).

Rules after Grevisse, Le Bon Usage. Irregular forms are in words/verbs_fr.tsv.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tripel.data.phrasebook.tokens import Token

_VOWEL = re.compile(r"^[aàâeéèêiîïoôuùûyœæh]", re.IGNORECASE)
_ELIDES = {"je", "me", "te", "se", "le", "la", "de", "ne", "que", "lorsque", "puisque", "jusque"}


def starts_with_vowel(word: str, aspirated: frozenset[str] = frozenset()) -> bool:
    """Whether elision happens before the word: a vowel or mute h. The y of yaourt-like words does not occur here."""
    return bool(_VOWEL.match(word)) and word.lower() not in aspirated


def elide(tokens: list[Token], aspirated: frozenset[str]) -> list[Token]:
    """le ami -> l' ami; que elle -> qu' elle; si il -> s' il; over a whole sentence."""
    out: list[Token] = []
    for token, following in zip(tokens, [*tokens[1:], Token(".")], strict=True):
        word = token.text.lower()
        meets_vowel = word in _ELIDES and starts_with_vowel(following.text, aspirated)
        if meets_vowel or (word == "si" and following.text in ("il", "ils")):
            token = token._replace(text=token.text[:-1] + "'")
        out.append(token)
    return out


_CONTRACTED = {("à", "le"): "au", ("à", "les"): "aux", ("de", "le"): "du", ("de", "les"): "des"}


def contract(tokens: list[Token], aspirated: frozenset[str]) -> list[Token]:
    """à le -> au, de les -> des, where le and les are articles; not before a vowel (à l'ami)."""
    out: list[Token] = []
    for position, token in enumerate(tokens):
        if token.is_article and out and (out[-1].text, token.text) in _CONTRACTED:
            following = tokens[position + 1].text if position + 1 < len(tokens) else ""
            if token.text == "le" and starts_with_vowel(following, aspirated):
                out.append(token)
                continue
            preposition = out.pop()
            concepts = tuple(dict.fromkeys(preposition.concepts + token.concepts))
            out.append(Token(_CONTRACTED[preposition.text, token.text], concepts, preposition.head))
        else:
            out.append(token)
    return out


def plural(word: str) -> str:
    """Regular plural of a noun or adjective: chats, nez, bateaux, jeux, journaux."""
    if word.endswith(("s", "x", "z")):
        return word
    if word.endswith(("eau", "eu", "œu")) and word not in ("bleu", "pneu"):
        return word + "x"
    if word.endswith("al") and word not in ("bal", "carnaval", "festival"):
        return word[:-2] + "aux"
    return word + "s"


_BEFORE_VOWEL = {"beau": "bel", "nouveau": "nouvel", "vieux": "vieil"}
INVARIABLE = {"marron", "bon marché", "en colère", "en bonne santé"}


def adjective(masculine: str, feminine: str, gender: str, is_plural: bool, before: str = "") -> str:
    """Agreement. before: the word it stands in front of, for bel, nouvel, vieil."""
    if masculine in INVARIABLE:
        return masculine
    if is_plural:
        return plural(feminine if gender == "f" else masculine)
    if gender == "f":
        return feminine
    if before and starts_with_vowel(before):
        return _BEFORE_VOWEL.get(masculine, masculine)
    return masculine


def regular_feminine(masculine: str) -> str:
    """Feminine of the adjectives named in verb complements: fier, fière; amoureux, amoureuse; neuf, neuve; pressé(e)."""
    if masculine.endswith("e"):
        return masculine
    for ending, feminine in (("eux", "euse"), ("er", "ère"), ("f", "ve")):
        if masculine.endswith(ending):
            return masculine.removesuffix(ending) + feminine
    return masculine + "e"


def participle_agreement(participle: str, gender: str, is_plural: bool) -> str:
    """allé, allée, allés, allées; pris, prise, pris, prises."""
    form = participle + ("e" if gender == "f" else "")
    if form.startswith("dû") and len(form) > 2:
        form = "du" + form[2:]
    return form if not is_plural or form.endswith("s") else form + "s"


_SUBJECT = {1: ("je", "nous"), 2: ("tu", "vous")}
_DIRECT = {1: ("me", "nous"), 2: ("te", "vous")}
_STRESSED = {1: ("moi", "nous"), 2: ("toi", "vous")}


def subject_pronoun(person: int, is_plural: bool, gender: str | None) -> str:
    if person < 3:
        return _SUBJECT[person][is_plural]
    return ("elle" if gender == "f" else "il") + ("s" if is_plural else "")


def clitic(role: str, person: int, is_plural: bool, gender: str | None) -> str:
    """Object pronoun before the verb. role: direct, indirect or reflexive."""
    if person < 3:
        return _DIRECT[person][is_plural]
    if role == "reflexive":
        return "se"
    if role == "indirect":
        return "leur" if is_plural else "lui"
    return "les" if is_plural else "la" if gender == "f" else "le"


CLITIC_ORDER = ("me", "te", "se", "nous", "vous", "le", "la", "les", "lui", "leur", "y", "en")


def stressed_pronoun(person: int, is_plural: bool, gender: str | None) -> str:
    """After a preposition or que: moi, toi, lui, elle, eux, elles."""
    if person < 3:
        return _STRESSED[person][is_plural]
    if is_plural:
        return "elles" if gender == "f" else "eux"
    return "elle" if gender == "f" else "lui"


def possessive(
    person: int,
    owner_plural: bool,
    gender: str,
    is_plural: bool,
    following: str,
    aspirated: frozenset[str] = frozenset(),
) -> str:
    """mon, ma, mes, notre ...; mon, ton, son also before a feminine that begins with a vowel (ma haute clôture)."""
    if owner_plural:
        return (("notre", "nos"), ("votre", "vos"), ("leur", "leurs"))[person - 1][is_plural]
    letter = "mts"[person - 1]
    if is_plural:
        return letter + "es"
    return letter + ("a" if gender == "f" and not starts_with_vowel(following, aspirated) else "on")


_ALONE = {  # le mien: person -> masculine, feminine (one owner); nôtre, vôtre, leur (several)
    1: ("mien", "mienne", "nôtre"),
    2: ("tien", "tienne", "vôtre"),
    3: ("sien", "sienne", "leur"),
}


def possessive_alone(person: int, owner_plural: bool, gender: str, is_plural: bool) -> str:
    """mien, mienne, miens, nôtre, leurs: what follows le, la, les."""
    masculine, feminine, several = _ALONE[person]
    form = several if owner_plural else feminine if gender == "f" else masculine
    return form + ("s" if is_plural else "")


@dataclass(frozen=True)
class FrenchVerb:
    """Principal parts; what is blank is regular."""

    infinitive: str
    present: tuple[str, ...] = ()
    participle: str = ""
    future: str = ""
    auxiliary: str = "avoir"
    subjunctive: tuple[str, ...] = ()


_ER = ("e", "es", "e", "ons", "ez", "ent")
_IR = ("is", "is", "it", "issons", "issez", "issent")
_RE = ("s", "s", "", "ons", "ez", "ent")
_IMPERFECT = ("ais", "ais", "ait", "ions", "iez", "aient")
_FUTURE = ("ai", "as", "a", "ons", "ez", "ont")


def _silent(stem: str, infinitive: str) -> str:
    """The stem of an -er verb before a silent e: achèt-, préfèr-, jett-, appell-, nettoi-."""
    if infinitive.endswith(("eler", "eter")) and infinitive not in ("acheter", "geler", "peler"):
        return stem + stem[-1]
    if infinitive.endswith("yer"):
        return stem[:-1] + "i"
    if re.search(r"[eé][^aeiouéèêœ]$|é(?:gl|br|ch|tr|gn)$", stem):
        return re.sub(r"[eé]([^aeiouéèêœ]+)$", r"è\1", stem)
    return stem


@cache
def present(verb: FrenchVerb, person: int, is_plural: bool) -> str:
    index = person - 1 + 3 * is_plural
    if verb.present:
        return verb.present[index]
    stem, ending = verb.infinitive[:-2], verb.infinitive[-2:]
    if ending == "ir":
        return stem + _IR[index]
    if ending == "re":
        return stem + _RE[index]
    if index == 3:
        return _before_a_or_o(stem) + "ons"
    return (stem if index == 4 else _silent(stem, verb.infinitive)) + _ER[index]


def _before_a_or_o(stem: str) -> str:
    """mangeons, commençons."""
    return stem + "e" if stem.endswith("g") else stem[:-1] + "ç" if stem.endswith("c") else stem


@cache
def imperfect(verb: FrenchVerb, person: int, is_plural: bool) -> str:
    index = person - 1 + 3 * is_plural
    if verb.infinitive == "être":
        return "ét" + _IMPERFECT[index]
    stem = present(verb, 1, True).removesuffix("ons")
    if _IMPERFECT[index].startswith("i"):  # mangions, commencions: the helping letter goes
        stem = stem[:-1] if stem.endswith("ge") else stem[:-1] + "c" if stem.endswith("ç") else stem
    return stem + _IMPERFECT[index]


def _future_stem(verb: FrenchVerb) -> str:
    if verb.future:
        return verb.future
    if verb.infinitive.endswith("er") and not re.search(r"é[^aeiou]+er$", verb.infinitive):
        return _silent(verb.infinitive[:-2], verb.infinitive) + "er"
    return verb.infinitive.removesuffix("e")


@cache
def future(verb: FrenchVerb, person: int, is_plural: bool) -> str:
    return _future_stem(verb) + _FUTURE[person - 1 + 3 * is_plural]


@cache
def conditional(verb: FrenchVerb, person: int, is_plural: bool) -> str:
    return _future_stem(verb) + _IMPERFECT[person - 1 + 3 * is_plural]


@cache
def subjunctive(verb: FrenchVerb, person: int, is_plural: bool) -> str:
    """Present subjunctive: the stem of the third person plural; nous and vous as in the imperfect."""
    index = person - 1 + 3 * is_plural
    if verb.subjunctive:
        return verb.subjunctive[index]
    if is_plural and person < 3:
        return imperfect(verb, person, True)
    return present(verb, 3, True).removesuffix("ent") + ("e", "es", "e", "", "", "ent")[index]


@cache
def participle(verb: FrenchVerb) -> str:
    """Masculine singular past participle."""
    if verb.participle:
        return verb.participle
    stem, ending = verb.infinitive[:-2], verb.infinitive[-2:]
    return stem + {"er": "é", "ir": "i", "re": "u"}[ending]


@cache
def imperative(verb: FrenchVerb, person: int, is_plural: bool) -> str:
    """Second person, and first person plural (allons). -er verbs drop the s of the singular: mange, va."""
    if verb.infinitive in ("être", "avoir"):
        return {"être": ("sois", "soyez", "soyons"), "avoir": ("aie", "ayez", "ayons")}[verb.infinitive][
            2 if person == 1 else int(is_plural)
        ]
    form = present(verb, person, is_plural)
    drops = verb.infinitive.endswith("er") or form.endswith("es")
    return form[:-1] if not is_plural and person == 2 and drops and form.endswith("s") else form
