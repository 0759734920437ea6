import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentences import EVERYTHING, SENTENCES

from tripel.errors import TokenizerError
from tripel.text import SegmentationSampler, Tokenizer, TokenizerConfig

TEXTS = [*SENTENCES, "unseen ☃ snowman", "-" * 300, "", "  x"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TokenizerConfig(vocab_size=900), EVERYTHING)


@pytest.fixture(scope="module")
def sampler(tokenizer):
    return SegmentationSampler.build(tokenizer, TEXTS, dropout=0.3, seed=7)


def rows(sample):
    return [sample[i].tolist() for i in range(len(sample))]


def test_without_dropout_a_sample_is_the_encoding(tokenizer):
    sample = SegmentationSampler.build(tokenizer, TEXTS, dropout=0.0, seed=1).sample(5)
    assert rows(sample) == tokenizer.encode_batch(TEXTS)


def test_with_vanishing_dropout_our_merges_make_the_librarys_encoding(tokenizer):
    sample = SegmentationSampler.build(tokenizer, TEXTS, dropout=1e-12, seed=1, pool_size=2).sample(5)
    assert rows(sample) == tokenizer.encode_batch(TEXTS)


@given(words=st.lists(st.text("abehnrstü'", min_size=1, max_size=12), min_size=1, max_size=8))
def test_our_merges_make_the_librarys_encoding_of_any_words(tokenizer, words):
    sample = SegmentationSampler.build(tokenizer, words, dropout=1e-12, seed=1, pool_size=1).sample(0)
    assert rows(sample) == tokenizer.encode_batch(words)


def test_every_sample_reads_as_the_text_it_stands_for(tokenizer, sampler):
    for epoch in range(5):
        assert tokenizer.decode_batch(rows(sampler.sample(epoch))) == [tokenizer.normalize(text) for text in TEXTS]


def test_every_segmentation_is_made_by_merges_from_the_words_characters(tokenizer, sampler):
    made = {merged for _, _, merged in tokenizer.merges}
    for start, size in zip(sampler.pool_starts, sampler.pool_sizes, strict=True):
        pool = [sampler.segments[row].tolist() for row in range(start, start + size)]
        assert len({"".join(tokenizer.pieces(segment)) for segment in pool}) == 1
        for piece in {piece for segment in pool for piece in segment}:
            assert piece in made or len(tokenizer.pieces([piece])[0]) == 1 or tokenizer.is_byte(piece)


def test_samples_are_the_same_for_the_same_seed_and_epoch_and_differ_otherwise(tokenizer, sampler):
    again = SegmentationSampler.build(tokenizer, TEXTS, dropout=0.3, seed=7)
    other = SegmentationSampler.build(tokenizer, TEXTS, dropout=0.3, seed=8)
    assert rows(again.sample(3)) == rows(sampler.sample(3))
    assert rows(sampler.sample(4)) != rows(sampler.sample(3))
    assert rows(other.sample(3)) != rows(sampler.sample(3))


def test_occurrences_of_a_word_in_one_epoch_are_drawn_separately(tokenizer):
    sampler = SegmentationSampler.build(tokenizer, ["children"] * 50, dropout=0.3, seed=1)
    assert len({tuple(row) for row in rows(sampler.sample(0))}) > 1


def test_a_skipped_merge_is_as_likely_as_dropout_says():
    config = TokenizerConfig(vocab_size=9, byte_fallback=False)
    tokenizer = Tokenizer.train(config, ["ab"] * 9)
    assert len(tokenizer.merges) == 2, "three symbols, of which one pair merges first, then the other"
    sampler = SegmentationSampler.build(tokenizer, ["ab"] * 4000, dropout=0.25, seed=3, pool_size=4000)
    lengths = sampler.sample(0).lengths
    assert np.mean(lengths == 3) == pytest.approx(0.25, abs=0.03)
    assert np.mean(lengths == 2) == pytest.approx(0.75 * 0.25, abs=0.03)


def test_a_word_of_one_symbol_and_a_very_long_word_have_one_segmentation(sampler, tokenizer):
    sizes = {
        "".join(tokenizer.pieces(sampler.segments[start])): size
        for start, size in zip(sampler.pool_starts, sampler.pool_sizes, strict=True)
    }
    assert sizes["\u2581" + "-" * 300] == 1
    assert sizes["\u2581"] == 1
    assert sizes["\u2581children"] >= 32


def test_a_sampler_is_the_same_when_stored_and_restored(sampler, tokenizer):
    arrays = sampler.to_arrays()
    assert SegmentationSampler.fits(arrays, n_texts=len(TEXTS), vocab_size=tokenizer.vocab_size)
    assert rows(SegmentationSampler.from_arrays(arrays, 7).sample(2)) == rows(sampler.sample(2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ids", 10**6),
        ("ids", -1),
        ("pool_starts", 10**9),
        ("pool_sizes", 0),
        ("occurrences", -2),
        ("text_starts", 10**9),
    ],
)
def test_stored_arrays_that_are_not_sound_do_not_fit(sampler, tokenizer, name, value):
    arrays = {key: array.copy() for key, array in sampler.to_arrays().items()}
    arrays[name][3] = value
    assert not SegmentationSampler.fits(arrays, n_texts=len(TEXTS), vocab_size=tokenizer.vocab_size)
    assert not SegmentationSampler.fits({}, n_texts=len(TEXTS), vocab_size=tokenizer.vocab_size)


def test_a_tokenizer_without_merges_is_refused():
    with pytest.raises(TokenizerError, match="needs a tokenizer with merges"):
        SegmentationSampler.build(Tokenizer.train(TokenizerConfig(kind="word"), SENTENCES), TEXTS, dropout=0.1, seed=1)
