"""The inflection tables of the phrasebook against forms from the school grammars (Duden, Bescherelle)."""

import pytest

from tripel.data.phrasebook import english_forms as en
from tripel.data.phrasebook import french_forms as fr
from tripel.data.phrasebook import german_forms as de
from tripel.data.phrasebook.lexicon import lexicon
from tripel.data.phrasebook.tokens import Token

BOOK = lexicon()
SIX = [(1, False), (2, False), (3, False), (1, True), (2, True), (3, True)]


def _six(conjugate, verb):
    return " ".join(conjugate(verb, person, plural) for person, plural in SIX)


@pytest.mark.parametrize(
    ("gender", "strong", "weak", "mixed"),
    [
        ("m", "kalter kalten kaltem kalten", "kalte kalten kalten kalten", "kalter kalten kalten kalten"),
        ("f", "kalte kalte kalter kalter", "kalte kalte kalten kalten", "kalte kalte kalten kalten"),
        ("n", "kaltes kaltes kaltem kalten", "kalte kalte kalten kalten", "kaltes kaltes kalten kalten"),
        ("p", "kalte kalte kalten kalter", "kalten kalten kalten kalten", "kalten kalten kalten kalten"),
    ],
)
def test_german_adjective_endings_follow_the_three_declensions(gender, strong, weak, mixed):
    for declension, forms in (("strong", strong), ("weak", weak), ("mixed", mixed)):
        assert " ".join(de.adjective("kalt", declension, case, gender) for case in de.CASES) == forms


def test_german_articles_decline():
    assert " ".join(de.definite(case, "m") for case in de.CASES) == "der den dem des"
    assert " ".join(de.ein_word("kein", case, "p") for case in de.CASES) == "keine keine keinen keiner"
    assert de.ein_word("euer", "acc", "m") == "euren"
    assert de.ein_word("euer", "nom", "m") == "euer"
    assert de.relative("dat", "p") == "denen"
    assert [de.possessive_alone("mein", "nom", g) for g in "mfnp"] == ["meiner", "meine", "meins", "meine"]
    assert [de.possessive_alone("ihr", "nom", g) for g in "mfnp"] == ["ihrer", "ihre", "ihres", "ihre"]
    assert [de.possessive_alone(stem, "acc", "n") for stem in ("dein", "unser", "euer")] == [
        "deins",
        "unseres",
        "eures",
    ]


@pytest.mark.parametrize(
    ("noun", "genitive", "plural", "dative_plural"),
    [
        ("boy", "Jungen", "Jungen", "Jungen"),
        ("student", "Studenten", "Studenten", "Studenten"),
        ("neighbor", "Nachbarn", "Nachbarn", "Nachbarn"),
        ("house", "Hauses", "Häuser", "Häusern"),
        ("mother", "Mutter", "Mütter", "Müttern"),
        ("car", "Autos", "Autos", "Autos"),
        ("table", "Tisches", "Tische", "Tischen"),
        ("teacher", "Lehrers", "Lehrer", "Lehrern"),
        ("secret", "Geheimnisses", "Geheimnisse", "Geheimnissen"),
    ],
)
def test_german_nouns_decline(noun, genitive, plural, dative_plural):
    record = BOOK.nouns[noun]
    assert record.german_genitive == genitive
    assert record.german_plural == plural
    assert de.dative_plural(record.german_plural) == dative_plural


@pytest.mark.parametrize(
    ("verb", "present", "preterite", "participle"),
    [
        ("essen", "esse isst isst essen esst essen", "aß aßest aß aßen aßet aßen", "gegessen"),
        ("fahren", "fahre fährst fährt fahren fahrt fahren", "fuhr fuhrst fuhr fuhren fuhrt fuhren", "gefahren"),
        ("spielen", "spiele spielst spielt spielen spielt spielen", None, "gespielt"),
        ("arbeiten", "arbeite arbeitest arbeitet arbeiten arbeitet arbeiten", None, "gearbeitet"),
        ("öffnen", "öffne öffnest öffnet öffnen öffnet öffnen", None, "geöffnet"),
        ("tanzen", "tanze tanzt tanzt tanzen tanzt tanzen", None, "getanzt"),
        ("klingeln", "klingle klingelst klingelt klingeln klingelt klingeln", None, "geklingelt"),
        ("wandern", "wandere wanderst wandert wandern wandert wandern", None, "gewandert"),
        ("halten", "halte hältst hält halten haltet halten", None, "gehalten"),
        ("lesen", "lese liest liest lesen lest lesen", None, "gelesen"),
        ("besuchen", None, "besuchte besuchtest besuchte besuchten besuchtet besuchten", "besucht"),
        ("bellen", None, None, "gebellt"),
        ("fotografieren", None, None, "fotografiert"),
        ("an+rufen", "rufe rufst ruft rufen ruft rufen", None, "angerufen"),
        ("auf+räumen", None, None, "aufgeräumt"),
        ("sein", "bin bist ist sind seid sind", "war warst war waren wart waren", "gewesen"),
        ("können", "kann kannst kann können könnt können", "konnte konntest konnte konnten konntet konnten", "gekonnt"),
    ],
)
def test_german_verbs_conjugate(verb, present, preterite, participle):
    record = BOOK.german_verb(verb)
    if present is not None:
        assert _six(de.present, record) == present
    if preterite is not None:
        assert _six(de.preterite, record) == preterite
    assert de.participle(record) == participle


def test_german_auxiliaries_are_those_of_motion_and_change():
    auxiliary = {
        v: BOOK.german_verb(v).auxiliary for v in ("kommen", "auf+stehen", "stehen", "ein+schlafen", "schlafen")
    }
    assert auxiliary == {
        "kommen": "sein", "auf+stehen": "sein", "stehen": "haben", "ein+schlafen": "sein", "schlafen": "haben"
    }  # fmt: skip


def test_german_infinitives_and_imperatives_of_separable_verbs():
    assert de.zu_infinitive(BOOK.german_verb("an+rufen")) == ("anzurufen",)
    assert de.zu_infinitive(BOOK.german_verb("essen")) == ("zu", "essen")
    imperatives = {
        "geben": "gib",
        "lesen": "lies",
        "fahren": "fahr",
        "öffnen": "öffne",
        "danken": "danke",
        "spielen": "spiele",
    }
    assert {v: de.imperative(BOOK.german_verb(v), False, False) for v in imperatives} == imperatives


def test_german_comparison_takes_the_umlaut_and_the_extra_e():
    adjectives = {a.english: a for a in BOOK.adjectives}
    old, hot, high = adjectives["old"], adjectives["hot"], adjectives["high"]
    assert de.comparative(old.german, old.german_comparison) == "älter"
    assert de.superlative_stem(hot.german, hot.german_comparison) == "heißest"
    assert high.german_stem == "hoh"
    assert de.comparative(high.german, high.german_comparison) == "höher"
    assert de.superlative_stem("spannend", "+") == "spannendst"
    assert de.superlative_stem("neu", "+") == "neuest"


@pytest.mark.parametrize(
    ("verb", "conjugation", "forms"),
    [
        ("manger", fr.present, "mange manges mange mangeons mangez mangent"),
        ("manger", fr.imperfect, "mangeais mangeais mangeait mangions mangiez mangeaient"),
        ("commencer", fr.present, "commence commences commence commençons commencez commencent"),
        ("acheter", fr.future, "achèterai achèteras achètera achèterons achèterez achèteront"),
        ("préférer", fr.present, "préfère préfères préfère préférons préférez préfèrent"),
        ("préférer", fr.future, "préférerai préféreras préférera préférerons préférerez préféreront"),
        ("appeler", fr.present, "appelle appelles appelle appelons appelez appellent"),
        ("jeter", fr.future, "jetterai jetteras jettera jetterons jetterez jetteront"),
        ("nettoyer", fr.present, "nettoie nettoies nettoie nettoyons nettoyez nettoient"),
        ("envoyer", fr.future, "enverrai enverras enverra enverrons enverrez enverront"),
        ("finir", fr.present, "finis finis finit finissons finissez finissent"),
        ("attendre", fr.present, "attends attends attend attendons attendez attendent"),
        ("attendre", fr.future, "attendrai attendras attendra attendrons attendrez attendront"),
        ("être", fr.imperfect, "étais étais était étions étiez étaient"),
        ("faire", fr.subjunctive, "fasse fasses fasse fassions fassiez fassent"),
        ("prendre", fr.subjunctive, "prenne prennes prenne prenions preniez prennent"),
        ("finir", fr.subjunctive, "finisse finisses finisse finissions finissiez finissent"),
        ("vouloir", fr.conditional, "voudrais voudrais voudrait voudrions voudriez voudraient"),
        ("aller", fr.future, "irai iras ira irons irez iront"),
    ],
)
def test_french_verbs_conjugate(verb, conjugation, forms):
    assert _six(conjugation, BOOK.french_verb(verb)) == forms


def test_french_participles_and_auxiliaries():
    participles = {
        "manger": "mangé",
        "finir": "fini",
        "vendre": "vendu",
        "prendre": "pris",
        "ouvrir": "ouvert",
        "lire": "lu",
    }
    assert {v: fr.participle(BOOK.french_verb(v)) for v in participles} == participles
    assert BOOK.french_verb("tomber").auxiliary == "être"
    assert BOOK.french_verb("manger").auxiliary == "avoir"


def test_french_participles_agree():
    assert [fr.participle_agreement("allé", g, p) for g in "mf" for p in (False, True)] == [
        "allé",
        "allés",
        "allée",
        "allées",
    ]
    assert [fr.participle_agreement("pris", g, p) for g in "mf" for p in (False, True)] == [
        "pris",
        "pris",
        "prise",
        "prises",
    ]


def test_french_imperatives_of_er_verbs_drop_the_s():
    second = {"manger": "mange", "aller": "va", "finir": "finis", "ouvrir": "ouvre", "prendre": "prends"}
    assert {v: fr.imperative(BOOK.french_verb(v), 2, False) for v in second} == second
    assert fr.imperative(BOOK.french_verb("aller"), 1, True) == "allons"


def test_french_plurals_of_nouns_and_adjectives():
    plurals = {"chien": "chiens", "gâteau": "gâteaux", "jeu": "jeux", "cheval": "chevaux", "nez": "nez", "fils": "fils"}
    assert {word: fr.plural(word) for word in plurals} == plurals


@pytest.mark.parametrize(
    ("masculine", "feminine", "before", "forms"),
    [
        ("beau", "belle", "arbre", "bel belle beaux belles"),
        ("nouveau", "nouvelle", "hôtel", "nouvel nouvelle nouveaux nouvelles"),
        ("vieux", "vieille", "homme", "vieil vieille vieux vieilles"),
        ("vieux", "vieille", "chien", "vieux vieille vieux vieilles"),
        ("petit", "petite", "ami", "petit petite petits petites"),
        ("marron", "marron", "", "marron marron marron marron"),
    ],
)
def test_french_adjectives_agree_and_meet_vowels(masculine, feminine, before, forms):
    found = [fr.adjective(masculine, feminine, g, p, before) for p in (False, True) for g in "mf"]
    assert " ".join(found) == forms


def _written(words: str) -> str:
    tokens = [Token(w.removesuffix("^"), is_article=w.endswith("^")) for w in words.split()]
    return " ".join(t.text for t in fr.elide(fr.contract(tokens, BOOK.aspirated), BOOK.aspirated))


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("je aime le^ ami", "j' aime l' ami"),
        ("à le^ marché", "au marché"),
        ("de les^ pommes", "des pommes"),
        ("à le^ hôpital", "à l' hôpital"),
        ("de la^ eau", "de l' eau"),
        ("de le voir", "de le voir"),
        ("que elle ne habite", "qu' elle n' habite"),
        ("si il pleut", "s' il pleut"),
        ("si elle vient", "si elle vient"),
        ("le^ haut mur", "le haut mur"),
        ("le^ homme", "l' homme"),
    ],
)
def test_french_articles_and_pronouns_contract_and_elide(words, written):
    assert _written(words) == written


def test_french_possessives_avoid_the_hiatus():
    assert fr.possessive(1, False, "f", False, "amie") == "mon"
    assert fr.possessive(1, False, "f", False, "sœur") == "ma"
    assert fr.possessive(1, False, "f", False, "haute", BOOK.aspirated) == "ma"
    assert fr.possessive(3, True, "m", True, "amis") == "leurs"
    assert fr.possessive_alone(3, False, "f", False) == "sienne"


def test_english_inflection():
    assert [en.third_person(v) for v in ("eat", "go", "watch", "carry", "play", "be")] == [
        "eats", "goes", "watches", "carries", "plays", "is"
    ]  # fmt: skip
    progressive = {
        "write": "writing",
        "run": "running",
        "eat": "eating",
        "lie": "lying",
        "jog": "jogging",
        "be": "being",
    }
    assert {v: en.ing(v, BOOK.english_verb(v)[0]) for v in progressive} == progressive
    assert [en.regular_past(v) for v in ("cook", "dance", "carry", "play")] == ["cooked", "danced", "carried", "played"]
    assert [en.plural(n) for n in ("dog", "box", "story", "boy", "church")] == [
        "dogs",
        "boxes",
        "stories",
        "boys",
        "churches",
    ]
    assert [en.indefinite(w) for w in ("apple", "university", "umbrella", "hour", "dog")] == [
        "an",
        "a",
        "an",
        "an",
        "a",
    ]
    assert en.comparative("big", "+") == ("bigger",)
    assert en.comparative("happy", "+") == ("happier",)
    assert en.superlative("famous", "more") == ("most", "famous")


def test_the_lexicon_is_as_large_as_promised():
    frames = [p.frames for p in BOOK.predicates]
    assert len(BOOK.nouns) >= 350
    assert len({f["de"].verb for f in frames}) >= 150
    assert len({f["fr"].verb for f in frames}) >= 150
    assert len({a.english for a in BOOK.adjectives}) >= 100


def test_every_class_that_a_table_names_has_nouns():
    missing = [
        (p.key, choice.source)
        for p in BOOK.predicates
        for choice in p.objects
        if choice.determiners and choice.source not in BOOK.by_class and choice.source not in BOOK.nouns
    ]
    people = {"person", "plural", "singular", "it", "noun"}
    missing += [(p.key, s) for p in BOOK.predicates for s in p.subject.split() if s not in people | set(BOOK.by_class)]
    missing += [(p.key, p.place_class) for p in BOOK.predicates if p.place_class and p.place_class not in BOOK.by_class]
    missing += [(p.key, p.manner) for p in BOOK.predicates if p.manner and p.manner not in BOOK.phrases_by_group]
    missing += [(a.english, c) for a in BOOK.adjectives for c in a.classes if c[0] != "~" and c not in BOOK.by_class]
    assert missing == []
