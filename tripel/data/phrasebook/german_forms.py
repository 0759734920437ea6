"""German inflection: articles, adjective endings, nouns, verbs. Pure functions of strings and small records.

Terms follow Duden, Die Grammatik: the declension of an adjective is weak after der, mixed after ein, strong without article.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

CASES = ("nom", "acc", "dat", "gen")
GENDERS = ("m", "f", "n", "p")  # p: plural, where German no longer tells genders apart

# rows: nom acc dat gen; columns: m f n p
_DEFINITE = ("der die das die", "den die das die", "dem der dem den", "des der des der")
_INDEFINITE = (" e  e", "en e  e", "em er em en", "es er es er")  # endings of ein-, kein-, mein-
_STRONG = ("er e es e", "en e es e", "em er em en", "en er en er")
_WEAK = ("e e e en", "en e e en", "en en en en", "en en en en")
_MIXED = ("er e es en", "en e es en", "en en en en", "en en en en")
_PRONOUN_ENDING = ("er e es e", "en e es e", "em er em en", "es er es er")  # meiner, meine, mein(e)s standing alone


def _cell(table: tuple[str, ...], case: str, gender: str) -> str:
    return table[CASES.index(case)].split(" ")[GENDERS.index(gender)]


def definite(case: str, gender: str) -> str:
    """der, die, das ..."""
    return _cell(_DEFINITE, case, gender)


def ein_word(stem: str, case: str, gender: str) -> str:
    """ein, kein and the possessives: stem plus the ending of the indefinite article (`mein`, `dat`, `f` -> meiner)."""
    ending = _cell(_INDEFINITE, case, gender)
    return ("eur" if stem == "euer" and ending else stem) + ending


def der_word(stem: str, case: str, gender: str) -> str:
    """dieser, jeder, welcher: stem plus the ending of the strong declension (genitive -es)."""
    return stem + _cell(_PRONOUN_ENDING, case, gender)


def possessive_alone(stem: str, case: str, gender: str) -> str:
    """A possessive without its noun: meiner, meine, meins; but ihres, unseres."""
    ending = _cell(_PRONOUN_ENDING, case, gender)
    if ending == "es" and stem.endswith("ein"):
        ending = "s" if case in ("nom", "acc") else ending
    return ("eur" if stem == "euer" else stem) + ending


def adjective(stem: str, declension: str, case: str, gender: str) -> str:
    """The attributive form. declension: strong, weak or mixed."""
    return stem + _cell({"strong": _STRONG, "weak": _WEAK, "mixed": _MIXED}[declension], case, gender)


def comparative(base: str, given: str) -> str:
    """Predicative comparative; given: "+" or "älter ältest"."""
    if given != "+":
        return given.split()[0]
    return base + ("r" if base.endswith("e") else "er")


def superlative_stem(base: str, given: str) -> str:
    """Stem of the superlative before its ending: schönst-, breitest-, berühmtest-."""
    if given != "+":
        return given.split()[1]
    return base + ("est" if re.search(r"(d|t|s|ß|sch|x|z|eu)$", base) and not base.endswith("end") else "st")


def noun_genitive(singular: str, gender: str, given: str) -> str:
    """Genitive singular. given: "" for the rule, "n" for the weak declension, else the form itself."""
    if given == "n":
        return weak_form(singular)
    if given:
        return given
    if gender == "f":
        return singular
    if singular.endswith("nis"):
        return singular + "ses"
    if re.search(r"(s|ß|x|z)$", singular):
        return singular + "es"
    monosyllable = len(re.findall(r"[aeiouyäöüAEIOUÄÖÜ]+", singular)) == 1
    takes_es = monosyllable and not re.search(r"([aeiou]|[aeiouäöü]h|[lmnr])$", singular)
    return singular + ("es" if takes_es or singular.endswith("sch") else "s")


def weak_form(singular: str) -> str:
    """Accusative, dative and genitive of a weak noun: den Jungen, dem Studenten, des Nachbarn."""
    if singular == "Herr" or re.search(r"(e|ar|er)$", singular):
        return singular + "n"
    return singular + "en"


def dative_plural(plural: str) -> str:
    """Adds -n unless the plural ends in -n or -s."""
    return plural if plural.endswith(("n", "s")) else plural + "n"


_PRONOUNS = {  # person, plural, gender: nom acc dat
    (1, False): "ich mich mir",
    (2, False): "du dich dir",
    (1, True): "wir uns uns",
    (2, True): "ihr euch euch",
    "m": "er ihn ihm",
    "f": "sie sie ihr",
    "n": "es es ihm",
    "p": "sie sie ihnen",
    "formal": "Sie Sie Ihnen",
}
_POSSESSIVES = {(1, False): "mein", (2, False): "dein", (1, True): "unser", (2, True): "euer"}


def pronoun(case: str, person: int, plural: bool, gender: str | None, formal: bool) -> str:
    """Personal pronoun. gender (m, f, n) matters in the third person singular only."""
    if formal:
        row = _PRONOUNS["formal"]
    elif person == 3:
        row = _PRONOUNS["p" if plural else gender or "n"]
    else:
        row = _PRONOUNS[(person, plural)]
    return row.split()[CASES.index(case)]


def reflexive(case: str, person: int, plural: bool, formal: bool) -> str:
    """mich/mir, dich/dir, uns, euch; sich in the third person and with Sie."""
    return "sich" if person == 3 or formal else pronoun(case, person, plural, None, False)


def possessive_stem(person: int, plural: bool, gender: str | None, formal: bool) -> str:
    """mein, dein, sein, ihr, unser, euer, Ihr."""
    if formal:
        return "Ihr"
    if person == 3:
        return "ihr" if plural or gender == "f" else "sein"
    return _POSSESSIVES[(person, plural)]


def relative(case: str, gender: str) -> str:
    """der, die, das as relative pronouns; the dative plural is denen."""
    return "denen" if (case, gender) == ("dat", "p") else definite(case, gender)


@dataclass(frozen=True)
class GermanVerb:
    """A verb's principal parts; what is blank is regular. prefix: the separable one. present, if irregular: six persons."""

    infinitive: str  # without the separable prefix
    prefix: str = ""
    er: str = ""
    preterite: str = ""
    participle: str = ""
    auxiliary: str = "haben"
    present: tuple[str, ...] = ()
    would: str = ""

    @property
    def stem(self) -> str:
        return re.sub(r"e?n$", "", self.infinitive)


_INSEPARABLE = ("be", "emp", "ent", "er", "ge", "hinter", "miss", "über", "unter", "ver", "zer", "wieder")
_VOWEL = re.compile(r"[aeiouäöü]")


def _needs_e(stem: str) -> bool:
    """arbeit-e-t, find-e-t, öffn-e-t, zeichn-e-t; but lern-t, film-t, wohn-t."""
    return bool(re.search(r"[dt]$|[^aeiouäöülrhmn][mn]$|ch[mn]$", stem))


def _is_inseparable(infinitive: str) -> bool:
    """Whether it begins with an unstressed prefix: besuchen, but not bellen (what is left must be a verb with a vowel)."""
    return any(
        infinitive.startswith(p) and _VOWEL.search(re.sub(r"e?n$", "", infinitive[len(p) :])) for p in _INSEPARABLE
    )


@cache
def present(verb: GermanVerb, person: int, plural: bool) -> str:
    """Present indicative without the separable prefix."""
    if verb.present:
        return verb.present[person - 1 + 3 * plural]
    stem, er = verb.stem, verb.er or _regular_er(verb)
    if plural:
        return (stem + ("et" if _needs_e(stem) else "t")) if person == 2 else verb.infinitive
    if person == 1:
        return stem[:-2] + "le" if verb.infinitive.endswith("eln") else stem + "e"
    if person == 3:
        return er
    if stem.endswith("t") and not er.endswith("et"):
        return er + "st"  # hält -> hältst
    base = er[:-1]
    return base + ("t" if base[-1] in "sßzx" else "st")


def _regular_er(verb: GermanVerb) -> str:
    return verb.stem + ("et" if _needs_e(verb.stem) else "t")


@cache
def preterite(verb: GermanVerb, person: int, plural: bool) -> str:
    """Simple past without the separable prefix."""
    first = verb.preterite or verb.stem + ("ete" if _needs_e(verb.stem) else "te")
    return _past_endings(first, person, plural)


def _past_endings(first: str, person: int, plural: bool) -> str:
    if first.endswith("e"):
        return first + (("n", "t", "n") if plural else ("", "st", ""))[person - 1]
    if plural:
        return first + ("en", "et" if first[-1] in "dtsßz" else "t", "en")[person - 1]
    if person == 2:
        return first + ("est" if first[-1] in "dtsßz" else "st")
    return first


@cache
def would(verb: GermanVerb, person: int, plural: bool) -> str:
    """Synthetic subjunctive II (hätte, wäre, könnte); the verb must have one in the table."""
    return _past_endings(verb.would, person, plural)


@cache
def participle(verb: GermanVerb) -> str:
    """Past participle with the separable prefix: angerufen, besucht, telefoniert."""
    if verb.participle:
        return verb.prefix + verb.participle
    stem = verb.stem + ("et" if _needs_e(verb.stem) else "t")
    bare = _is_inseparable(verb.infinitive) or verb.infinitive.endswith("ieren")
    return verb.prefix + ("" if bare else "ge") + stem


def infinitive(verb: GermanVerb) -> str:
    return verb.prefix + verb.infinitive


def zu_infinitive(verb: GermanVerb) -> tuple[str, ...]:
    """("zu", "essen") or, with a separable prefix, ("anzurufen",)."""
    return (f"{verb.prefix}zu{verb.infinitive}",) if verb.prefix else ("zu", verb.infinitive)


@cache
def imperative(verb: GermanVerb, plural: bool, formal: bool) -> str:
    """gib / gebt / geben (followed by Sie); without the separable prefix."""
    if verb.infinitive == "sein":
        return "seien" if formal else "seid" if plural else "sei"
    if formal:
        return verb.infinitive
    if plural:
        return present(verb, 2, True)
    stem = verb.stem
    changed = verb.er.removesuffix("t") if verb.er else stem
    if re.search(r"i", changed) and not re.search(r"i", stem) and not _needs_e(stem):
        return changed  # e becomes i: gib, nimm, lies; umlaut does not carry over: fahr, lauf
    if verb.infinitive.endswith("eln"):
        return stem[:-2] + "le"
    is_regular = not verb.er  # danke, zeige; but komm, geh
    return stem + ("e" if is_regular or _needs_e(stem) else "")
