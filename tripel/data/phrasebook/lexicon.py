"""Reads the tables in words/ once and hands them out as records (records.py) with the classes they belong to."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from importlib.resources import files

import yaml

from tripel.data.phrasebook import english_forms, french_forms, german_forms
from tripel.data.phrasebook.frames import parse_frame
from tripel.data.phrasebook.french_forms import FrenchVerb
from tripel.data.phrasebook.german_forms import GermanVerb
from tripel.data.phrasebook.records import (
    Adjective,
    Lexicon,
    Noun,
    ObjectChoice,
    Phrase,
    Place,
    Predicate,
    Region,
    derived_verb,
)
from tripel.errors import DataError

_WORDS = files("tripel.data.phrasebook") / "words"


def read_table(name: str, n_columns: int) -> list[tuple[str, ...]]:
    """Rows of a tab-separated table, blank columns filled in. Raises DataError with file and line for a row too long."""
    rows = []
    for number, line in enumerate((_WORDS / name).read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) > n_columns:
            raise DataError(
                "A row of the phrasebook has too many columns.",
                file=name,
                line=number,
                given=len(cells),
                expected=f"at most {n_columns}, separated by tabs",
                mend="Compare it with the header of the table.",
            )
        rows.append(tuple(cell.strip() for cell in cells) + ("",) * (n_columns - len(cells)))
    return rows


@cache
def lexicon() -> Lexicon:
    """The lexicon, read once per process."""
    families = _families()
    nouns, aspirated = _nouns(families)
    adjectives = [_adjective(row) for row in read_table("adjectives.tsv", 10)]
    aspirated |= {form for row in read_table("adjectives.tsv", 10) for form in _aspirated_forms(row[6], row[7])}
    geography = read_table("geography.tsv", 7)
    aspirated |= {word.lower() for row in geography for word in _aspirated_forms(*row[6].split())}
    names = read_table("names.tsv", 3)
    book = Lexicon(
        nouns=nouns,
        adjectives=adjectives,
        predicates=[_predicate(row) for row in read_table("predicates.tsv", 8)],
        phrases=[Phrase(frozenset(g.split()), *rest) for g, *rest in read_table("phrases.tsv", 7)],
        places={row[0]: _place(row) for row in read_table("places.tsv", 5)},
        relations={name: _place(("", en, de, de, fr)) for name, en, de, fr in read_table("relations.tsv", 4)},
        regions=[
            Region(
                frozenset(k.split()),
                en,
                {"at": at, "to": to, "from": of},
                {"at": f_at, "to": f_at, "from": f_of.replace("*", "")},
            )
            for k, en, at, to, of, f_at, f_of in geography
        ],
        first_names=[(name, gender) for kind, name, gender in names if kind == "first"],
        last_names=[name for kind, name, _ in names if kind == "last"],
        jobs=read_table("jobs.tsv", 5),
        german_verbs=_german_verbs(),
        english_verbs={base: (past, part) for base, past, part in read_table("verbs_en.tsv", 3)},
        french_verbs={
            i: FrenchVerb(i, tuple(p.split()), part, fut, aux or "avoir", tuple(subj.split()))
            for i, p, part, fut, aux, subj in read_table("verbs_fr.tsv", 6)
        },
        aspirated=aspirated,
    )
    _generated_predicates(book)
    _index(book)
    return book


def _families() -> dict[str, list[str]]:
    return yaml.safe_load((_WORDS / "classes.yaml").read_text(encoding="utf-8"))


def _nouns(families: dict[str, list[str]]) -> tuple[dict[str, Noun], frozenset[str]]:
    nouns: dict[str, Noun] = {}
    _check_families(families)
    aspirated = {"huit", "huitième", "onze", "onzième", "oui"}
    for row in read_table("nouns.tsv", 8):
        en, en_pl, classes, de, de_pl, de_gen, fr, fr_pl = row
        article, german = de.split(" ", 1)
        fr_gender, french = fr.split(" ", 1)
        aspirated |= _aspirated_forms(french)
        french = french.removeprefix("*")
        gender = {"der": "m", "die": "f", "das": "n"}[article]
        members = set(classes.split())
        for family, parts in families.items():
            if f"={en}" in parts or members.intersection(parts):
                members.add(family)
        noun = Noun(
            en,
            en if en_pl in "-=" else english_forms.plural(en) if en_pl == "+" else en_pl,
            frozenset(members),
            german,
            german if de_pl in "-=" else de_pl,
            german_forms.noun_genitive(german, gender, de_gen),
            gender,
            de_gen == "n",
            french,
            french if fr_pl in ("-", "=") else fr_pl or french_forms.plural(french),
            fr_gender,
            {"en": _only(en_pl), "de": _only(de_pl), "fr": _only(fr_pl)},
        )
        nouns[en] = noun
    return nouns, frozenset(aspirated)


def _check_families(families: dict[str, list[str]]) -> None:
    """A family must not be called like a class of nouns.tsv: each would take in the other's members."""
    written = {name for row in read_table("nouns.tsv", 8) for name in row[2].split()}
    for name in families:
        if name in written:
            raise DataError(
                "A class of the phrasebook has two meanings.",
                file="classes.yaml",
                given=name,
                expected="a name that no noun of nouns.tsv carries",
                mend="Rename it here.",
            )


def _adjective(row: tuple[str, ...]) -> Adjective:
    en, comparison, classes, de, de_comparison, stem, masculine, feminine, position, after_be = row
    m, f = (form.removeprefix("*").replace("~", " ") for form in (masculine, feminine))
    return Adjective(
        en, comparison, tuple(classes.split()), de, de_comparison, stem or de, m, f, position == "before", after_be or m
    )


def _aspirated_forms(*words: str) -> set[str]:
    """Singular and plural of the words that a star marks: le haut mur, les hauts murs."""
    bare = [word[1:] for word in words if word.startswith("*")]
    return {form for word in bare for form in (word, french_forms.plural(word))}


def _only(plural: str) -> str:
    return {"-": "sg", "=": "pl"}.get(plural, "")


def _german_verbs() -> dict[str, GermanVerb]:
    verbs: dict[str, GermanVerb] = {}
    for infinitive, er, preterite, participle, auxiliary, present, would in read_table("verbs_de.tsv", 7):
        prefix, _, base = infinitive.rpartition("+")
        if prefix:
            verbs[infinitive] = derived_verb(prefix, base, verbs.get(base), auxiliary)
        else:
            verbs[infinitive] = GermanVerb(
                base, "", er, preterite, participle, auxiliary or "haben", tuple(present.split()), would
            )
    return verbs


def _place(row: tuple[str, ...]) -> Place:
    _, en, at, to, fr = row
    at_preposition, _, at_case = at.partition("+")
    to_preposition, _, to_case = to.partition("+")
    fr_at, _, fr_to = fr.partition("=")
    return Place(en, (at_preposition, at_case), (to_preposition, to_case), fr_at, fr_to or fr_at)


def _predicate(row: tuple[str, ...]) -> Predicate:
    groups, tenses, subject, objects, adverbs, en, de, fr = row
    marks = adverbs.split()
    return Predicate(
        key=en,
        groups=frozenset(groups.split()),
        tenses=tenses,
        subject=subject,
        objects=tuple(_object_choice(text) for text in objects.split()),
        place_class=next((m[1:] for m in marks if m.startswith("@")), ""),
        manner=next((m[1:] for m in marks if m.startswith("~")), ""),
        frames={"en": parse_frame(en, "en"), "de": parse_frame(de, "de"), "fr": parse_frame(fr, "fr")},
    )


def _object_choice(text: str) -> ObjectChoice:
    slot, _, source = text.partition("=")
    if source.startswith(("at:", "to:")) or source in ("people", "others"):
        return ObjectChoice(slot, source, "", False)
    source, _, determiners = source.rpartition(":")
    determiners, _, excluded = determiners.partition("!")
    has_adjectives = not determiners.endswith("-")
    return ObjectChoice(slot, source, determiners.removesuffix("-"), has_adjectives, frozenset(excluded.split(",")))


def _generated_predicates(book: Lexicon) -> None:
    """To be with an adjective, a comparison or an occupation: one predicate each, from their own tables."""
    for adjective in book.adjectives:
        quality = "quality judged" if "~judged" in adjective.classes else "quality"
        for group in adjective.classes:
            subject = "person" if group.startswith("~") else group
            name = group.removeprefix("~") if group.startswith("~") else quality
            book.predicates.append(_be(adjective, name, subject))
        if adjective.is_gradable and "~person" in adjective.classes:
            book.predicates.append(_compared(adjective))
    for en, m, f, fr_m, fr_f in book.jobs:
        book.predicates.append(
            _predicate(
                (
                    "job",
                    "s",
                    "singular",
                    "",
                    "",
                    f"be {en}/1",
                    f"sein @{m.replace(' ', '~')}@{f}/1",
                    f"être @{fr_m}@{fr_f}/1",
                )
            )
        )


def _be(adjective: Adjective, group: str, subject: str) -> Predicate:
    fr = adjective.french_predicate.replace(" ", "~")
    en, de = adjective.english, adjective.german
    return _predicate((group, "s", subject, "", "", f"be {en}/1", f"sein {de}/1", f"être ={fr}/1"))


def _compared(adjective: Adjective) -> Predicate:
    words = english_forms.comparative(adjective.english, adjective.english_comparison)
    en = "be " + " ".join(f"{w}/1" for w in words) + " than/2 {O}"
    de = f"sein {german_forms.comparative(adjective.german, adjective.german_comparison)}/1 als/2 {{O:nom}}"
    fr = f"être plus/1 ={adjective.french_masculine}/1 que/2 {{O:than}}"
    return _predicate(("compare-person", "s", "singular", "O=people", "", en, de, fr))


def _index(book: Lexicon) -> None:
    by_class: dict[str, list[Noun]] = defaultdict(list)
    for noun in book.nouns.values():
        for name in sorted(noun.classes):
            by_class[name].append(noun)
    by_group: dict[str, list[Predicate]] = defaultdict(list)
    for predicate in book.predicates:
        for name in sorted(predicate.groups):
            by_group[name].append(predicate)
    phrases: dict[str, list[Phrase]] = defaultdict(list)
    for phrase in book.phrases:
        for name in sorted(phrase.groups):
            phrases[name].append(phrase)
    regions: dict[str, list[Region]] = defaultdict(list)
    for region in book.regions:
        for name in sorted(region.classes):
            regions[name].append(region)
    book.by_class, book.by_group, book.phrases_by_group = dict(by_class), dict(by_group), dict(phrases)
    book.regions_by_class = dict(regions)
    book.adjectives_of = {
        noun.english: [a for a in book.adjectives if noun.classes.intersection(a.classes)]
        for noun in book.nouns.values()
    }
