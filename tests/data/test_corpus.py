import numpy as np
import pytest

from tripel.data import DataConfig, corpus, encode_corpus, load_parallel, sampled_corpus
from tripel.text import Tokenizer, TokenizerConfig, TokenizerPair

PAIRS = [(f"the small dog sees {n} green trees", f"der kleine Hund sieht {n} grüne Bäume") for n in range(60)]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "t.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    config = DataConfig(train=str(folder / "t"))
    return load_parallel(str(folder / "t"), "en", "de", config, training=True)[0]


@pytest.fixture(scope="module")
def tokenizers(text):
    return TokenizerPair.train(TokenizerConfig(vocab_size=400), text.sources, text.targets)


@pytest.fixture
def encodings(monkeypatch):
    """Counts calls of the tokenizer."""
    calls = []
    for name in ("encode_batch", "encode_words"):
        real = getattr(Tokenizer, name)
        monkeypatch.setattr(Tokenizer, name, lambda self, texts, real=real: calls.append(1) or real(self, texts))
    return calls


def rows(one):
    return [(one.source(i).tolist(), one.target(i).tolist()) for i in range(len(one))]


def test_a_corpus_has_the_ids_that_the_tokenizers_give(text, tokenizers, tmp_path):
    one = encode_corpus(text, tokenizers, cache_dir=tmp_path)
    assert rows(one) == [(tokenizers.source.encode(s), tokenizers.target.encode(t)) for s, t in PAIRS]
    assert one.source_lengths.tolist() == [len(source) for source, _ in rows(one)]
    assert one.target_lengths.tolist() == [len(target) for _, target in rows(one)]
    assert one.source(0).dtype == np.int32


def test_a_corpus_is_tokenized_once_and_read_from_the_cache_afterwards(text, tokenizers, tmp_path, encodings):
    first = encode_corpus(text, tokenizers, cache_dir=tmp_path)
    assert encodings
    encodings.clear()
    assert rows(encode_corpus(text, tokenizers, cache_dir=tmp_path)) == rows(first)
    assert not encodings


def test_another_tokenizer_or_text_does_not_meet_the_cache(text, tokenizers, tmp_path, encodings):
    encode_corpus(text, tokenizers, cache_dir=tmp_path)
    other = TokenizerPair.train(TokenizerConfig(vocab_size=380), text.sources, text.targets)
    encodings.clear()
    encode_corpus(text, other, cache_dir=tmp_path)
    encode_corpus(text, TokenizerPair(tokenizers.source, other.target), cache_dir=tmp_path)
    assert len(encodings) == 4 and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "flipped", "other arrays", "wild ids", "a folder"])
def test_a_damaged_cache_is_made_anew(text, tokenizers, tmp_path, damage):
    expected = rows(encode_corpus(text, tokenizers, cache_dir=tmp_path))
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "other arrays":
        np.savez(path, ids=np.zeros(3, np.int32))
    elif damage == "wild ids":
        arrays = dict(np.load(path))
        arrays["target_ids"][5] = 10**6
        np.savez(path, **arrays)
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0x55
        content = {"cut": whole[:-50], "empty": b"", "garbage": b"\1" * 500, "flipped": bytes(flipped)}
        path.write_bytes(content[damage])
    assert rows(encode_corpus(text, tokenizers, cache_dir=tmp_path)) == expected
    if damage != "a folder":
        assert path.stat().st_size == len(whole)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(text, tokenizers, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    one = encode_corpus(text, tokenizers, cache_dir=blocked)
    assert len(one) == len(PAIRS)
    assert "cannot be written" in caplog.text


def test_by_default_encodings_lie_in_the_users_cache(text, tokenizers, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    encode_corpus(text, tokenizers)
    assert len(list((tmp_path / "tripel" / "encoded").iterdir())) == 1


def test_without_dropout_every_epoch_has_the_plain_encoding(text, tokenizers, tmp_path):
    at = sampled_corpus(text, tokenizers, dropout=0.0, seed=1, cache_dir=tmp_path)
    assert rows(at(0)) == rows(at(9)) == rows(encode_corpus(text, tokenizers, cache_dir=tmp_path))


def test_with_dropout_epochs_differ_and_are_the_same_from_the_cache(text, tokenizers, tmp_path, encodings):
    at = sampled_corpus(text, tokenizers, dropout=0.2, seed=1, cache_dir=tmp_path)
    encodings.clear()
    again = sampled_corpus(text, tokenizers, dropout=0.2, seed=1, cache_dir=tmp_path)
    assert not encodings
    assert rows(at(2)) == rows(again(2)) != rows(at(3))
    assert [tokenizers.source.decode(source) for source, _ in rows(at(2))] == [source for source, _ in PAIRS]
    assert [tokenizers.target.decode(target) for _, target in rows(at(2))] == [target for _, target in PAIRS]
    other = sampled_corpus(text, tokenizers, dropout=0.2, seed=2, cache_dir=tmp_path)
    assert rows(other(2)) != rows(at(2))


def test_a_damaged_cache_of_segmentations_is_made_anew(text, tokenizers, tmp_path):
    expected = rows(sampled_corpus(text, tokenizers, dropout=0.2, seed=1, cache_dir=tmp_path)(0))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    assert rows(sampled_corpus(text, tokenizers, dropout=0.2, seed=1, cache_dir=tmp_path)(0)) == expected


def test_the_two_sides_of_a_pair_draw_independently(tmp_path, tokenizers):
    (tmp_path / "t.tsv").write_text("".join(f"{s}\t{s}\n" for s, _ in PAIRS))
    config = DataConfig(train="x", max_copy_share=1)
    same, _ = load_parallel(str(tmp_path / "t"), "en", "de", config, training=True)
    at = sampled_corpus(same, tokenizers, dropout=0.3, seed=1, cache_dir=tmp_path)
    assert any(source != target for source, target in rows(at(0)))
    assert corpus.encoded_folder().name == "encoded"
