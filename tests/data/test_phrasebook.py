"""The phrasebook as a corpus: determinism, splits, alignments, capacity, files, and the phenomena it is there for."""

import random
import re
import subprocess
import sys
from functools import cache

import pytest

from tripel.data import phrasebook
from tripel.data.phrasebook import choose, generator, split_words
from tripel.data.phrasebook.patterns import patterns
from tripel.errors import DataError

LANGUAGES = ("de", "fr")


@cache
def _corpus(language):
    """One corpus for all the tests that only look at it."""
    return phrasebook.generate(language, 2500, seed=3)


@pytest.fixture(scope="module", params=LANGUAGES)
def corpus(request):
    return request.param, _corpus(request.param)


def _all_pairs(splits):
    return [pair for name in phrasebook.SPLITS for pair in getattr(splits, name)]


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others():
    first, second = phrasebook.generate("de", 60, seed=1), phrasebook.generate("de", 60, seed=1)
    assert first == second
    assert {p.source for p in first.train} != {p.source for p in phrasebook.generate("de", 60, seed=2).train}


def test_a_smaller_count_gives_the_beginning_of_a_larger_one():
    small, large = phrasebook.generate("fr", 40, seed=5), phrasebook.generate("fr", 120, seed=5)
    assert small.train == large.train[:40]
    assert small.test == large.test[: len(small.test)]


def test_no_sentence_is_in_two_splits_or_twice_in_one(corpus):
    _, splits = corpus
    sources = [pair.source for pair in _all_pairs(splits)]
    assert len(sources) == len(set(sources))
    assert [len(getattr(splits, name)) for name in phrasebook.SPLITS] == [2500, 250, 250, 250]


def test_a_sentence_keeps_its_split_whatever_the_seed_and_count():
    split = {}
    for seed, count in ((1, 600), (2, 400), (3, 2500)):
        for pair in _all_pairs(phrasebook.generate("de", count, seed=seed)):
            assert split.setdefault(pair.source, pair.split) == pair.split


def test_one_english_sentence_has_one_translation(corpus):
    language, splits = corpus
    rng = random.Random(4)
    drawn = (generator.realize(pattern, language, rng) for pattern in patterns() for _ in range(40))
    translation = {}
    for pair in [*_all_pairs(splits), *(p for p in drawn if p is not None)]:
        assert translation.setdefault(pair.source, pair.target) == pair.target


def test_compositional_sentences_hold_words_never_seen_together_in_training(corpus):
    _, splits = corpus
    known = [pair.words for pair in splits.train + splits.valid + splits.test]
    assert all(pair.held_out for pair in splits.compositional)
    for first, second in {held for pair in splits.compositional for held in pair.held_out}:
        assert not any(first in words and second in words for words in known)


def test_the_words_of_a_compositional_pair_are_seen_in_training_by_themselves(corpus):
    _, splits = corpus
    known = set().union(*(pair.words for pair in splits.train))
    held = {word for pair in splits.compositional for words in pair.held_out for word in words}
    assert len(held & known) >= 0.9 * len(held)  # the rest are rare words: this corpus is a twentieth of the usual one


def test_alignments_point_into_the_words_and_reach_nearly_all_of_them(corpus):
    language, splits = corpus
    words = aligned = 0
    for pair in _all_pairs(splits):
        source, target = split_words(pair.source, "en"), split_words(pair.target, language)
        assert pair.alignment == sorted(set(pair.alignment))
        assert all(0 <= i < len(source) and 0 <= j < len(target) for i, j in pair.alignment)
        for tokens, reached in ((source, {i for i, _ in pair.alignment}), (target, {j for _, j in pair.alignment})):
            countable = [k for k, token in enumerate(tokens) if re.match(r"\w", token)]
            words += len(countable)
            aligned += sum(k in reached for k in countable)
    assert aligned / words > 0.97


def test_nouns_and_adjectives_are_aligned_with_their_translations():
    book = choose.lexicon()
    target_forms = {n.english: {n.german, n.german_plural, n.german_plural + "n"} for n in book.nouns.values()}
    checked = 0
    for pair in _corpus("de").train:
        source, target = split_words(pair.source, "en"), split_words(pair.target, "de")
        for key in pair.words:
            noun = key[2:]
            if key.startswith("n:") and source.count(noun) == 1 and " " not in noun:
                reached = {target[j] for i, j in pair.alignment if source[i] == noun}
                form = target_forms.get(noun, set()) & set(target)
                if form:
                    assert form & reached, pair
                    checked += 1
    assert checked > 1000


def test_split_words_finds_the_tokens_that_the_grammar_put_together():
    english = split_words("Anna's brother doesn't eat; it's two o'clock, Mr. Weber.", "en")
    assert " ".join(english) == "Anna 's brother does n't eat ; it 's two o'clock , Mr. Weber ."
    french = split_words("Aujourd'hui, j'ai vu l'homme qu'elle aime : va-t-il bien ?", "fr")
    assert " ".join(french) == "Aujourd'hui , j' ai vu l' homme qu' elle aime : va-t-il bien ?"
    assert split_words("„Ich gehe“, sagt sie.", "de") == ["„", "Ich", "gehe", "“", ",", "sagt", "sie", "."]


def test_capacity_is_above_ten_million():
    for language in LANGUAGES:
        assert phrasebook.capacity(language) > 10_000_000


def test_capacity_counts_only_distinct_objects_that_are_really_drawn():
    book = choose.lexicon()
    repair = next(p for p in book.predicates if p.key == "repair {O}")
    counted = sum(choose.number_of_objects(book, choice) for choice in repair.objects)
    drawn = set()
    rng = random.Random(1)
    for _ in range(20_000):
        draft = choose.Draft(rng)
        try:
            subject = choose.person(draft, "she")
            np = choose.fill(draft, rng.choice(repair.objects), repair, subject)
        except choose.Unsayable:
            continue
        drawn.add((np.noun.english, np.determiner, np.is_plural, tuple(a.english for a in np.adjectives)))
    assert len(drawn) >= 0.9 * counted


def test_the_patterns_are_many_and_cover_the_promised_topics():
    found = patterns()
    assert len(found) >= 60
    assert len({p.name for p in found}) == len(found)
    topics = {"people", "food", "travel", "weather", "work", "family", "feelings", "directions", "plans"}
    assert {p.topic for p in found} == topics


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_pattern_can_be_said(language):
    rng = random.Random(1)
    for pattern in patterns():
        assert any(generator.realize(pattern, language, rng) for _ in range(400)), pattern.name


PHENOMENA = {
    "de": {
        "verb second after a fronted phrase": r"^(Morgen|Gestern|Heute) (wird|hat|ist|haben|werden|sind)\b",
        "verb last after a conjunction": r", (weil|dass|ob) .*\b(hat|ist|wird|kann|muss|haben|sind)\.$",
        "relative clause": r", (der|die|das|den) .*, (ist|wohnt|lebt|arbeitet|war|sind|waren)\b",
        "separable verb apart": r"\b(ruft|räumt|zieht|schaltet|führt|fährt|sieht|fing|rief)\b.* (an|auf|aus|ein|ab)[.,?]",
        "separable verb together": r"(anzurufen|aufzuräumen|einzuschalten|auszuschalten|vorzubereiten)",
        "perfect with sein": r"\b(ist|sind|bin|bist|seid)\b.*\b(gegangen|gefahren|geschwommen|gekommen|gereist)\b",
        "perfect with haben": r"\b(hat|haben|habe|hast|habt)\b.*\bge\w+t\b",
        "modal with the infinitive at the end": r"\b(kann|will|muss|soll\w*|möchte)\b.* \w+en\.$",
        "kein": r"\bkein\w*\b",
        "dative experiencer": r"\bgef(ä|a)ll\w* (mir|dir|ihm|ihr|uns|ihnen)\b",
        "comparison": r"\b\w+er als\b",
        "formal address": r"^(Herr|Frau) \w+, .*\bSie\b",
        "genitive": r"\b(des|meines|meiner|seines|ihres)\b",
        "idiom": r"Daumen|Katze aus dem Sack|Fliegen mit einer Klappe|Trübsal|siebten Himmel",
    },
    "fr": {
        "adjective before the noun": r"\b(petit|vieux|vieil|belle|grand|jolie|nouveau|nouvelle)s? \w+",
        "adjective after the noun": r"\b\w+ (rouge|bleu|sale|célèbre|intéressant|difficile)e?s?\b",
        "elision": r"\b[lLdDjJ]'\w|\b[qQ]u'\w",
        "contraction": r"\b(au|aux|du|des)\b",
        "ne ... pas": r"\b(ne |n')\w+ pas\b",
        "ne ... jamais or plus": r"\b(ne |n')\w+ (jamais|plus)\b",
        "clitic pronoun": r"\b(le|la|les|lui|leur|me|te|nous) \w+(e|ent|ai|ons|a)\b|\bl'(ai|a|as|ont)\b",
        "participle agrees with être": r"\b(est|sont) (allée|partie|restée|restés|arrivés|rentrée|rentrés)s?\b",
        "participle agrees with an object before it": r"\bqu.*\b(a|ont|ai|as|avez|avons) \w+(ée|és|ées|ue|us|ues)\b",
        "subjunctive": r"[Bb]ien qu.* (soit|soient|ait|aient|pleuve|fasse|neige)\b",
        "formal address": r"^(Monsieur|Madame) \w+, .*\bvous\b",
        "manquer turns the sentence round": r"\b(me|te|lui|leur|nous) manque(nt)?\b|manque(nt)? à\b",
        "idiom": r"pleut des cordes|croise|d'une pierre deux coups|aux anges|broie|la glace",
    },
}


@pytest.mark.parametrize(
    ("language", "phenomenon"), [(lang, name) for lang, names in PHENOMENA.items() for name in names]
)
def test_the_corpus_holds_the_phenomenon(language, phenomenon):
    targets = [pair.target for pair in _corpus(language).train]
    assert sum(re.search(PHENOMENA[language][phenomenon], sentence) is not None for sentence in targets) >= 2


KNOWN = [  # pattern, target, English, translation by hand; \w stands for whoever the sentence is about
    (
        "train-to-leaves",
        "de",
        r"^The train .* leaves at half past six\.$",
        r"^Der Zug nach .* fährt um halb sieben ab\.$",
    ),
    (
        "train-to-leaves",
        "fr",
        r"^The train .* leaves at half past six\.$",
        r"^Le train pour .* part à six heures et demie\.$",
    ),
    ("none-left-plural", "de", r"^There are no apples left\.$", r"^Es sind keine Äpfel mehr da\.$"),
    ("none-left-plural", "fr", r"^There are no apples left\.$", r"^Il n'y a plus de pommes\.$"),
    ("job", "de", r"^She is a doctor\.$", r"^Sie ist Ärztin\.$"),
    ("job", "fr", r"^She is a cook\.$", r"^Elle est cuisinière\.$"),
    ("is", "de", r"^\w+ is not hungry\.$", r"^\w+ hat keinen Hunger\.$"),
    ("is", "fr", r"^She is not hungry\.$", r"^Elle n'a pas faim\.$"),
    ("hurts", "de", r"^Her arm hurts\.$", r"^Der Arm tut ihr weh\.$"),
    ("hurts", "fr", r"^Her arm hurts\.$", r"^Elle a mal au bras\.$"),
    ("misses", "fr", r"^I miss my sister\.$", r"^Ma sœur me manque\.$"),
    ("weather-question", "fr", r"^What is the weather like in Italy\?$", r"^Quel temps fait-il en Italie \?$"),
]


@pytest.mark.parametrize(("name", "language", "source", "target"), KNOWN)
def test_known_sentences_are_translated_as_a_person_would(name, language, source, target):
    pattern = next(p for p in patterns() if p.name == name)
    rng = random.Random(2)
    pairs = (generator.realize(pattern, language, rng) for _ in range(15_000))
    pair = next(p for p in pairs if p is not None and re.search(source, p.source))
    assert re.search(target, pair.target)


@pytest.mark.parametrize(
    ("language", "address", "wrong"),
    [
        ("de", r"^(Herr|Frau) \w+, ", r"\b(du|dich|dir|dein\w*|euch|eure?\w*)\b"),
        ("de", r"^\w+ und \w+, ", r"\b(du|dich|dir|dein\w*|Sie|Ihnen|Ihre?\w*)\b"),
        ("fr", r"^(Monsieur|Madame) \w+, ", r"\b(tu|te|toi|ton|ta|tes)\b|\bt'"),
        ("fr", r"^\w+ et \w+, ", r"\b(tu|te|toi|ton|ta|tes)\b|\bt'"),
    ],
)
def test_who_is_spoken_to_is_spoken_to_in_one_way(language, address, wrong):
    rng = random.Random(3)
    spoken = [p for p in patterns() if any("address" in spec for spec in p.parts.values())]
    pairs = (generator.realize(rng.choice(spoken), language, rng) for _ in range(6_000))
    addressed = [p.target for p in pairs if p is not None and re.search(address, p.target)]
    assert len(addressed) > 500
    assert [sentence for sentence in addressed if re.search(wrong, sentence)] == []


def test_it_writes_parallel_files_and_alignments(tmp_path):
    splits = phrasebook.write(tmp_path / "out", "fr", 50, seed=1)
    for name in phrasebook.SPLITS:
        pairs = getattr(splits, name)
        lines = {
            e: (tmp_path / "out" / f"{name}.{e}").read_text(encoding="utf-8").split("\n") for e in ("en", "fr", "align")
        }
        assert lines["en"] == [p.source for p in pairs] + [""]
        assert lines["fr"] == [p.target for p in pairs] + [""]
        assert lines["align"][0] == " ".join(f"{i}-{j}" for i, j in pairs[0].alignment)


def test_an_unknown_target_names_those_there_are():
    with pytest.raises(DataError, match="de or fr"):
        phrasebook.generate("es", 10, seed=1)


@pytest.mark.parametrize("count", [0, -1, 10**12])
def test_a_count_out_of_range_names_the_range(count):
    with pytest.raises(DataError, match="between 1 and"):
        phrasebook.generate("de", count, seed=1)


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        phrasebook.write(tmp_path, "de", 10, seed=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be used"):
        phrasebook.write(tmp_path / "file" / "out", "de", 10, seed=1)


def test_the_phrasebook_needs_no_torch():
    code = "import sys, tripel.data.phrasebook as p; p.generate('de', 5, seed=1); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
