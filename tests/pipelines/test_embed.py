import itertools
import json

import numpy as np
import pytest
import torch
from encoders import LINES, encoder_of, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tripel.errors import DataError, InputError
from tripel.inspection.map import word_map
from tripel.pipelines.embed import Embedder, WordSpace, unit
from tripel.pipelines.words import (
    read_analogies,
    read_pairs,
    score_analogies,
    score_similarity,
    score_words,
    spearman,
)


@pytest.fixture(scope="module")
def embedder():
    tokenizer = tokenizer_of()
    return Embedder(encoder_of(tokenizer, head="none"), tokenizer)


@pytest.mark.parametrize("pool", ["mean", "cls", "max"])
def test_a_vector_is_the_pool_of_the_last_hidden_states_and_does_not_depend_on_the_other_texts(embedder, pool):
    texts = [*LINES, "fox", "a queen"]
    together = embedder.embed(texts, pool=pool).vectors
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(embedder.embed([text], pool=pool).vectors[0], vector, atol=1e-5)
        ids = [embedder.tokenizer.bos_id, *embedder.tokenizer.encode(text), embedder.tokenizer.eos_id]
        with torch.no_grad():
            h_TD = embedder.model.features(torch.tensor([ids]))[0]
        expected = {"mean": h_TD.mean(0), "cls": h_TD[0], "max": h_TD.amax(0)}[pool]
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_normalized_vectors_have_length_1(embedder):
    np.testing.assert_allclose(
        np.linalg.norm(embedder.embed(LINES, normalize=True).vectors, axis=1), np.ones(len(LINES)), rtol=1e-6
    )


def test_the_models_own_way_is_the_default():
    tokenizer = tokenizer_of()
    model = encoder_of(tokenizer, head="none", pool="max", normalize=True)
    given = Embedder(model, tokenizer)
    np.testing.assert_array_equal(given.embed(LINES).vectors, given.embed(LINES, pool="max", normalize=True).vectors)
    filler = Embedder(encoder_of(tokenizer), tokenizer)
    np.testing.assert_array_equal(filler.embed(LINES).vectors, filler.embed(LINES, pool="mean").vectors)


def test_a_text_that_is_too_long_is_cut_and_the_number_of_dropped_tokens_told(embedder):
    n = len(embedder.tokenizer.encode("fox " * 50))
    found = embedder.embed(["fox", "fox " * 50])
    assert found.n_dropped == (0, n - 30)
    assert embedder.embed_tokens(["fox " * 50])[0].n_dropped == n - 30


def test_every_token_has_its_own_vector(embedder):
    answers = embedder.embed_tokens(LINES)
    for line, answer in zip(LINES, answers, strict=True):
        ids = [embedder.tokenizer.bos_id, *embedder.tokenizer.encode(line), embedder.tokenizer.eos_id]
        assert list(answer.pieces) == embedder.tokenizer.pieces(ids) and answer.vectors.shape == (len(ids), 16)
        np.testing.assert_allclose(
            answer.vectors.mean(axis=0), embedder.embed([line], pool="mean").vectors[0], atol=1e-5
        )


def test_static_vectors_are_rows_of_the_embedding_and_their_means(embedder):
    ids = embedder.tokenizer.encode("unbelievable")
    rows = embedder.model.tokens.weight.detach().numpy()[ids]
    np.testing.assert_allclose(embedder.words(["unbelievable"])[0], rows.mean(axis=0), rtol=1e-6)


def test_a_word_alone_is_a_sentence_of_it(embedder):
    np.testing.assert_allclose(
        embedder.words(["castle"], contextual=True)[0], embedder.word_in("castle", "castle"), atol=1e-6
    )
    assert not np.allclose(embedder.word_in("king", LINES[1]), embedder.word_in("king", "king"), atol=1e-3)
    with pytest.raises(InputError, match="does not stand in the sentence"):
        embedder.word_in("dog", LINES[1])


def test_neighbours_are_the_words_with_the_largest_cosines_and_not_those_asked_for(embedder):
    space = embedder.space()
    found = embedder.neighbours("king", 4)
    vectors = dict(zip(space.words, space.vectors, strict=True))
    cosines = {word: float(vector @ vectors["king"]) for word, vector in vectors.items() if word != "king"}
    assert [n.word for n in found] == sorted(cosines, key=lambda w: -cosines[w])[:4]
    assert [n.cosine for n in found] == pytest.approx([cosines[n.word] for n in found], abs=1e-5)
    asked = {"king", "man", "woman"}
    assert not asked & {n.word for n in embedder.neighbours("king", 30, plus=["woman"], minus=["man"])}
    assert all(word.isalpha() for word in space.words)


def test_contextual_neighbours_are_found_for_a_word_in_a_sentence(embedder):
    assert len(embedder.neighbours("king", 3, contextual=True)) == 3
    assert len(embedder.neighbours("king", 3, sentences=[LINES[1]])) == 3


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "byte_bpe", "unigram", "word"])
def test_a_word_by_itself_has_the_pieces_that_it_has_within_a_text(kind):
    tokenizer = tokenizer_of(kind)
    embedder = Embedder(encoder_of(tokenizer, head="none"), tokenizer)
    ids = tokenizer.encode("live in a castle")[len(tokenizer.encode("live in a")) :]
    rows = embedder.model.tokens.weight.detach().numpy()[ids]
    np.testing.assert_allclose(embedder.words(["castle"])[0], rows.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "byte_bpe", "unigram", "word"])
@pytest.mark.parametrize(
    ("sentence", "before", "upto"),
    [
        ("A King and a king", "A", "A King"),
        ("a queen, (king)", "a queen, (", "a queen, (king"),
        ("king", "", "king"),
        ("the kings and a king live", "the kings and a", "the kings and a king"),
    ],
)
def test_a_word_is_found_in_a_sentence_whatever_stands_around_it(kind, sentence, before, upto):
    tokenizer = tokenizer_of(kind)
    embedder = Embedder(encoder_of(tokenizer, head="none"), tokenizer)
    span = slice(1 + len(tokenizer.encode(before)), 1 + len(tokenizer.encode(upto)))
    expected = embedder.embed_tokens([sentence])[0].vectors[span].mean(axis=0)
    np.testing.assert_allclose(embedder.word_in("king", sentence), expected, atol=1e-6)


def test_a_word_in_several_sentences_has_the_mean_of_its_vectors(embedder):
    sentences = [LINES[1], "the king and the dog", "king"]
    single = np.stack([embedder.word_in("king", sentence) for sentence in sentences])
    np.testing.assert_allclose(embedder.word_in("king", *sentences), single.mean(axis=0), atol=1e-5)


def test_a_word_beyond_the_models_positions_is_refused_with_the_number(embedder):
    with pytest.raises(InputError, match="does not read any more") as error:
        embedder.word_in("king", "fox " * 40 + "king")
    assert "first 30 tokens" in str(error.value)


@pytest.mark.parametrize(
    ("texts", "settings_", "what"),
    [
        ("fox", {}, "one text was given for many"),
        (["fox", 3], {}, "text 2 is not text"),
        (["\ud800"], {}, "text 1 is not Unicode"),
        (["fox"], {"pool": "men"}, "no pool 'men'"),
    ],
)
def test_what_is_no_list_of_texts_or_no_pool_is_refused(embedder, texts, settings_, what):
    with pytest.raises(InputError, match=what):
        embedder.embed(texts, **settings_)


def test_a_vocabulary_without_words_is_named():
    tokenizer = tokenizer_of("char")
    with pytest.raises(InputError, match="no whole words"):
        Embedder(encoder_of(tokenizer), tokenizer).neighbours("king")


def test_an_empty_word_is_refused(embedder):
    with pytest.raises(InputError, match="a word is empty"):
        embedder.neighbours(" ")


# How much meaning there is


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=12))
def test_spearman_is_pearsons_correlation_of_mean_ranks(pairs):
    def ranks(values):
        return [np.mean([sorted(values).index(v) + 1 + i for i in range(values.count(v))]) for v in values]

    a, b = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    found = spearman(np.array(a), np.array(b))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1], abs=1e-9)


def test_similarity_counts_covered_pairs_by_themselves(embedder):
    pairs = [("king", "queen", 9.0), ("man", "woman", 8.0), ("king", "dog", 1.0), ("king", "zebra", 2.0)]
    found = score_similarity(embedder, pairs, "made")
    assert (found.n_pairs, found.n_covered) == (4, 3)
    space = embedder.space()
    vectors = dict(zip(space.words, space.vectors, strict=True))
    cosines = np.array([vectors[a] @ vectors[b] for a, b, _ in pairs[:3]])
    assert found.covered == pytest.approx(spearman(cosines, np.array([9.0, 8.0, 1.0])))


def test_analogies_are_solved_where_vectors_say_so_and_leave_the_given_words_out():
    rng = np.random.default_rng(0)
    royal, male, female = rng.normal(size=(3, 8))
    words = ["king", "queen", "man", "woman", "dog"]
    vectors = np.stack([royal + male, royal + female, male, female, rng.normal(size=8) * 0.1]).astype(np.float32)
    space = WordSpace(words, unit(vectors), np.zeros(8, np.float32))
    sections = [
        ("royal", [("man", "king", "woman", "queen"), ("Man", "King", "Woman", "Queen")]),
        ("none", [("a", "b", "c", "d")]),
    ]
    found = score_analogies(space, sections, "made")
    assert (found.accuracy, found.n_questions, found.n_covered) == (1.0, 3, 2)
    assert found.sections == (("royal", 2, 1.0), ("none", 0, 0.0))


def test_the_word_sets_are_found_and_read(embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPEL_DATA", str(tmp_path))
    (tmp_path / "words").mkdir()
    with pytest.raises(DataError):
        score_words(embedder)
    (tmp_path / "words" / "EN-SIMLEX-999.txt").write_text(
        "king\tqueen\t9\nman\twoman\t8.5\nfox\thouse\t1\n", encoding="utf-8"
    )
    (tmp_path / "words" / "questions-words.txt").write_text(": family\nman king woman queen\n", encoding="utf-8")
    scores = score_words(embedder)
    assert [s.name for s in scores.similarity] == ["EN-SIMLEX-999"] and scores.analogies.n_covered == 1
    assert json.loads(scores.to_json())["similarity"][0]["n_covered"] == 3


def test_scores_that_are_no_numbers_are_null_and_a_damaged_set_is_not_passed_over(embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPEL_DATA", str(tmp_path))
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "EN-SIMLEX-999.txt").write_text("king\tzebra\t9\nzebra\tgnu\t1\n", encoding="utf-8")
    (row,) = json.loads(score_words(embedder).to_json())["similarity"]
    assert row["n_covered"] == 0 and row["covered"] is None and row["all"] in (1.0, -1.0)
    (tmp_path / "words" / "questions-words.txt").write_text("king queen\n", encoding="utf-8")
    with pytest.raises(DataError, match="not an analogy"):
        score_words(embedder)


def test_a_damaged_word_set_is_refused_with_its_line(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("king\tqueen\t9\nking queen\n", encoding="utf-8")
    with pytest.raises(DataError, match="x.txt:2: this line is not two words and a score"):
        read_pairs(path)
    path.write_text(": a\nking queen\n", encoding="utf-8")
    with pytest.raises(DataError, match="x.txt:2: this line is not an analogy"):
        read_analogies(path)


# Maps


def test_a_map_shows_the_two_directions_of_most_variance():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(20, 6)) * np.array([9, 5, 1, 1, 1, 1])
    drawn = word_map([str(i) for i in range(20)], vectors)
    centred = vectors - vectors.mean(axis=0)
    values = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    assert drawn.shares == pytest.approx(tuple(values[:2] / values.sum()))
    np.testing.assert_allclose((drawn.points**2).sum(axis=0), values[:2])


def test_a_map_is_a_picture_and_its_labels_cover_neither_each_other_nor_points(tmp_path, monkeypatch):
    import tripel.inspection.map as module

    boxes, set_labels = [], module._label
    monkeypatch.setattr(module, "_label", lambda *given: boxes.extend(set_labels(*given)))
    vectors = np.random.default_rng(2).normal(size=(60, 2)) ** 3  # crowded in the middle
    drawn = word_map([f"word{i}" for i in range(60)], vectors)
    drawn.save(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads(drawn.to_json())["points"]) == len(boxes) == 60
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize(("n", "what"), [(2, "needs more words"), (501, "cannot be read")])
def test_too_few_or_too_many_words_are_no_map(n, what):
    with pytest.raises(InputError, match=what):
        word_map([str(i) for i in range(n)], np.zeros((n, 4)))
