"""English inflection: nouns, verbs, comparison, pronouns. Irregular forms are in words/verbs_en.tsv and nouns.tsv."""

from __future__ import annotations

import re

_SIBILANT = re.compile(r"(s|x|z|ch|sh)$")


def plural(noun: str) -> str:
    """Regular plural: dogs, boxes, stories, days."""
    if _SIBILANT.search(noun):
        return noun + "es"
    return re.sub(r"([^aeiou])y$", r"\1ie", noun) + "s"


def third_person(verb: str) -> str:
    """eats, goes, watches, carries; has and is are irregular."""
    if verb in ("have", "be"):
        return {"have": "has", "be": "is"}[verb]
    if _SIBILANT.search(verb) or verb.endswith("o"):
        return verb + "es"
    return re.sub(r"([^aeiou])y$", r"\1ie", verb) + "s"


def regular_past(verb: str) -> str:
    """cooked, danced, carried."""
    if verb.endswith("e"):
        return verb + "d"
    return re.sub(r"([^aeiou])y$", r"\1i", verb) + "ed"


def ing(verb: str, past: str) -> str:
    """eating, writing, running, lying. A consonant doubles where it does in the past (stopped) and in cut, put, get, run."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and verb != "be" and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    doubles = past == verb + verb[-1] + "ed" or verb in _DOUBLING
    return verb + (verb[-1] if doubles else "") + "ing"


_DOUBLING = {"cut", "hit", "put", "get", "run", "win", "begin", "swim", "sit", "forget", "let"}


def comparative(base: str, given: str) -> tuple[str, ...]:
    """Words of the comparative. given: +, more, or "better best"."""
    if given == "more":
        return ("more", base)
    return (given.split()[0],) if given != "+" else (_graded(base) + "er",)


def superlative(base: str, given: str) -> tuple[str, ...]:
    """Words of the superlative, without the article."""
    if given == "more":
        return ("most", base)
    return (given.split()[1],) if given != "+" else (_graded(base) + "est",)


def _graded(base: str) -> str:
    """big- big(g)er, happ(i)er, nic(e)r."""
    if base.endswith("e"):
        return base[:-1]
    if base.endswith("y"):
        return re.sub(r"([^aeiou])y$", r"\1i", base)
    return base + base[-1] if re.search(r"^[^aeiou]*[aeiou][bdgmnpt]$", base) else base


def indefinite(following: str) -> str:
    """a or an, by sound: an hour, a university, a uniform, an umbrella."""
    word = following.lower()
    if word.startswith(("hour", "honest")):
        return "an"
    return "a" if word.startswith(("uni", "use", "eur", "one")) or word[0] not in "aeiou" else "an"


SUBJECT = {(1, False): "I", (2, False): "you", (1, True): "we", (2, True): "you"}
OBJECT = {(1, False): "me", (2, False): "you", (1, True): "us", (2, True): "you"}
POSSESSIVE = {(1, False): "my", (2, False): "your", (1, True): "our", (2, True): "your"}
POSSESSIVE_ALONE = {(1, False): "mine", (2, False): "yours", (1, True): "ours", (2, True): "yours"}
THIRD = {  # subject, object, possessive, possessive alone
    "m": ("he", "him", "his", "his"),
    "f": ("she", "her", "her", "hers"),
    "n": ("it", "it", "its", "its"),
    "p": ("they", "them", "their", "theirs"),
}
