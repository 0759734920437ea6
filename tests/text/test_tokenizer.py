import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sentences import EVERYTHING, SENTENCES

from tripel.errors import TokenizerError
from tripel.text import Tokenizer, TokenizerConfig, TokenizerPair, clean, normalize

KINDS = ["word", "char", "byte", "bpe", "byte_bpe", "unigram", "wordpiece"]
ANY_TEXT_KINDS = ["byte", "bpe", "byte_bpe", "unigram"]
ODD = [
    "<s> </s> <pad> <unk>",
    "<0x41><0xE2>",
    "☃ 日本語 \U0001f9ea",
    "a\nb\r\nc\td",
    "\u2581x\u2581",
    "\u0301a",
    "'" * 9,
]


def trained(kind, **options):
    size = {"bpe": 700, "byte_bpe": 500, "unigram": 460, "wordpiece": 400}.get(kind, 2000)
    return Tokenizer.train(TokenizerConfig(kind=kind, vocab_size=size, **options), EVERYTHING)


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_is_the_exact_inverse_of_encoding_on_the_training_text(tokenizers, kind):
    tokenizer = tokenizers[kind]
    for text in EVERYTHING:
        assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("kind", ANY_TEXT_KINDS)
@given(text=st.text())
def test_decoding_is_the_exact_inverse_of_encoding_on_any_text(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalize(text)


@pytest.mark.parametrize("kind", ANY_TEXT_KINDS)
@pytest.mark.parametrize("text", ODD)
def test_text_that_looks_like_tokens_of_the_vocabulary_is_still_text(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids) == (text if kind in ("byte", "byte_bpe") else text.replace("\u2581", "_"))


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_the_first_four_and_read_as_nothing(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2, 3)
    assert tokenizer.pieces([0, 1, 2, 3]) == ["<pad>", "<unk>", "<s>", "</s>"]
    ids = tokenizer.encode("a")
    assert tokenizer.decode([2, *ids, 3, 0, 0]) == "a"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("kind", ["word", "char", "wordpiece"])
def test_what_is_not_in_the_vocabulary_is_unknown_and_reads_as_a_double_question_mark(tokenizers, kind):
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode("a ☃ a")
    assert tokenizer.unk_id in ids
    assert tokenizer.decode(ids) == "a \u2047 a"


def test_bpe_without_bytes_has_no_bytes_and_gives_unknown():
    tokenizer = Tokenizer.train(TokenizerConfig(vocab_size=500, byte_fallback=False), EVERYTHING)
    assert tokenizer.token_to_id("<0x41>") is None
    assert tokenizer.unk_id in tokenizer.encode("☃")
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in SENTENCES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_the_same_when_loaded_here_and_in_transformers(tokenizers, kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizers[kind]
    path = tmp_path / "new" / "tokenizer.json"
    tokenizer.save(path)
    again = Tokenizer.load(path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    assert again.to_json() == tokenizer.to_json()
    for text in SENTENCES:
        ids = tokenizer.encode(text)
        assert again.encode(text) == ids
        assert theirs(text, add_special_tokens=False).input_ids == ids
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unigram"])
def test_training_twice_on_the_same_text_gives_the_same_tokenizer(tokenizers, kind):
    assert trained(kind).to_json() == tokenizers[kind].to_json()


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_many_equals_encoding_each(tokenizers, kind):
    tokenizer = tokenizers[kind]
    batch = tokenizer.encode_batch(SENTENCES)
    assert batch == [tokenizer.encode(text) for text in SENTENCES]
    assert [ids for ids, _ in tokenizer.encode_words(SENTENCES)] == batch
    assert tokenizer.decode_batch(batch) == [tokenizer.decode(ids) for ids in batch]


@pytest.mark.parametrize("kind", KINDS)
def test_lower_casing_and_compatibility_forms_are_applied_and_are_what_the_round_trip_is_up_to(kind):
    tokenizer = trained(kind, lowercase=True, normalization="nfkc")
    for text in SENTENCES:
        expected = normalize(text, normalization="nfkc", lowercase=True)
        assert tokenizer.decode(tokenizer.encode(text)) == expected == tokenizer.normalize(text)


def test_punctuation_is_apart_from_words_and_an_apostrophe_goes_with_the_shorter_side(tokenizers):
    pieces = tokenizers["word"].explain("L'homme qu'elle aime n'est pas d'ici, c'est l'ami de Jean.").pieces
    assert {"\u2581L'", "homme", "\u2581qu'", "elle", ",", "."} <= set(pieces)
    assert tokenizers["word"].explain("the children's boots!").pieces[1:] == (
        "\u2581children",
        "'s",
        "\u2581boots",
        "!",
    )


def test_every_byte_of_the_byte_tokenizer_has_the_id_of_its_value_plus_four(tokenizers):
    text = "Grüße, 日本 🙂"
    assert tokenizers["byte"].encode(text) == [4 + value for value in text.encode("utf-8")]
    assert tokenizers["byte"].vocab_size == 260
    assert [tokenizers["byte"].decode([4 + value]) for value in range(128)] == [chr(value) for value in range(128)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_explanation_names_every_piece_with_its_id_and_the_characters_it_stands_for(tokenizers, kind):
    tokenizer = tokenizers[kind]
    text = "The baker's café, 12 🙂\n"
    explanation = tokenizer.explain(text)
    assert list(explanation.ids) == tokenizer.encode(text)
    assert list(explanation.pieces) == tokenizer.pieces(explanation.ids)
    covered = set()
    for start, end in explanation.offsets:
        covered.update(range(start, end))
    assert covered == set(range(len(text)))
    lines = str(explanation).split("\n")
    assert len(lines) == 1 + len(explanation.ids)
    assert json.loads(explanation.to_json())["ids"] == list(explanation.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_ids_reads_as_all_of_them_at_once(tokenizers, kind):
    tokenizer = tokenizers[kind]
    for text in [*SENTENCES, *ODD]:
        ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        stream = tokenizer.stream()
        assert "".join([*(stream.push(i) for i in ids), stream.finish()]) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_stream_of_any_ids_reads_as_all_of_them_at_once_even_where_bytes_are_broken(tokenizers, kind, data):
    tokenizer = tokenizers[kind]
    some = st.integers(0, tokenizer.vocab_size - 1) | st.sampled_from(tokenizer.encode("é☃🙂"))
    ids = data.draw(st.lists(some, max_size=30))
    stream = tokenizer.stream()
    assert "".join([*(stream.push(i) for i in ids), stream.finish()]) == tokenizer.decode(ids)


def test_a_stream_holds_back_a_character_until_its_bytes_are_complete(tokenizers):
    stream = tokenizers["byte"].stream()
    assert [stream.push(i) for i in tokenizers["byte"].encode("aé")] == ["a", "", "é"]


@pytest.mark.parametrize("kind", ["word", "char", "bpe", "byte_bpe", "unigram", "wordpiece"])
@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_training_without_text_is_refused(kind, texts):
    with pytest.raises(TokenizerError, match="without text"):
        Tokenizer.train(TokenizerConfig(kind=kind), texts)


@pytest.mark.parametrize(
    ("kind", "size"), [("bpe", 40), ("bpe", 262), ("unigram", 300), ("byte", 100), ("byte_bpe", 259), ("wordpiece", 9)]
)
def test_a_vocabulary_too_small_for_the_characters_is_refused_with_the_size_it_needs(kind, size):
    with pytest.raises(TokenizerError, match="vocab_size is too small"):
        Tokenizer.train(TokenizerConfig(kind=kind, vocab_size=size), EVERYTHING)


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_is_never_larger_than_asked_for(tokenizers, kind):
    assert tokenizers[kind].vocab_size <= {"bpe": 700, "byte_bpe": 500, "unigram": 460, "wordpiece": 400}.get(
        kind, 2000
    )


def test_dropout_without_merges_and_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="merges of kind bpe"):
        TokenizerConfig(kind="word", dropout=0.1)
    with pytest.raises(ValidationError, match="extra"):
        TokenizerConfig(vocabulary=1)


def test_a_missing_tokenizer_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(TokenizerError, match="missing") as caught:
        Tokenizer.load(tmp_path / "tokenizer.json")
    assert str(tmp_path) in str(caught.value) and caught.value.mend


@pytest.mark.parametrize("damage", ["cut", "empty", "not json", "other json", "binary", "foreign model"])
def test_a_damaged_tokenizer_file_is_said_to_be_damaged(tokenizers, tmp_path, damage):
    whole = tokenizers["bpe"].to_json().encode()
    content = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "not json": b"hello",
        "other json": b'{"a": [1]}',
        "binary": bytes(range(256)),
        "foreign model": whole.replace(b'"type": "BPE"', b'"type": "Magic"'),
    }[damage]
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match="damaged or of another kind") as caught:
        Tokenizer.load(path)
    assert str(path) in str(caught.value) and "to mend" in str(caught.value)


def test_an_unreadable_tokenizer_file_is_said_to_be_unreadable(tmp_path):
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.load(tmp_path)


def test_an_id_outside_the_vocabulary_is_refused(tokenizers):
    with pytest.raises(TokenizerError, match="not in the vocabulary"):
        tokenizers["bpe"].decode([10**6])


def test_special_ids_are_read_from_a_foreign_file_not_assumed(tmp_path):
    library = pytest.importorskip("tokenizers")
    foreign = library.Tokenizer(library.models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    foreign.pre_tokenizer = library.pre_tokenizers.Whitespace()
    foreign.add_special_tokens(["[UNK]", "[SEP]", "[CLS]", "[PAD]"])
    foreign.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (5, 2, 4, 3)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tokenizers, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        tokenizers["char"].save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"] and path.read_text() == "old"


def test_a_shared_pair_is_one_object_and_one_file(tmp_path):
    pair = TokenizerPair.train(TokenizerConfig(kind="char"), SENTENCES, SENTENCES)
    assert pair.shared and pair.source is pair.target
    pair.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]
    assert TokenizerPair.load(tmp_path).shared


def test_a_separate_pair_is_two_files_and_two_vocabularies(tmp_path):
    pair = TokenizerPair.train(TokenizerConfig(kind="char", shared=False), ["abc"], ["xyz"])
    pair.save(tmp_path)
    again = TokenizerPair.load(tmp_path)
    assert not again.shared
    assert again.source.decode(again.source.encode("cab")) == "cab"
    assert again.target.encode("a") == [again.target.unk_id]
    TokenizerPair(pair.source, pair.source).save(tmp_path)
    assert TokenizerPair.load(tmp_path).shared, "a former target tokenizer must not survive"


@pytest.mark.skipif("TRIPEL_DATA" not in os.environ, reason="TRIPEL_DATA does not name a folder with data")
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_is_the_exact_inverse_of_encoding_on_real_captions(kind):
    path = Path(os.environ["TRIPEL_DATA"], "multi30k", "train.fr")
    if not path.exists():
        pytest.skip("TRIPEL_DATA has no multi30k/train.fr")
    texts = path.read_text(encoding="utf-8").split("\n")[:3000]
    size = 100_000 if kind == "word" else 2000
    tokenizer = Tokenizer.train(TokenizerConfig(kind=kind, vocab_size=size), texts)
    texts = [clean(text).text for text in texts]
    assert tokenizer.decode_batch(tokenizer.encode_batch(texts)) == texts


@pytest.mark.parametrize("kind", ["word", "bpe", "unigram", "wordpiece", "byte_bpe", "char", "byte"])
def test_a_tokenizer_for_encoders_ends_with_a_mask_and_frames_texts_for_other_libraries(kind, tmp_path):
    config = TokenizerConfig(kind=kind, vocab_size=400)
    texts = ["the cat sat on the mat", "no dog ran"] * 5
    tokenizer, plain = Tokenizer.train(config, texts, mask=True), Tokenizer.train(config, texts)
    assert tokenizer.mask_id == tokenizer.vocab_size - 1 and tokenizer.vocab_size <= 400
    assert tokenizer.mask_id in tokenizer.special_ids and plain.mask_id is None
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").mask_id == tokenizer.mask_id
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), mask_token="<mask>")
    assert theirs("the cat").input_ids == [tokenizer.bos_id, *tokenizer.encode("the cat"), tokenizer.eos_id]
    masked = theirs("the <mask> sat").input_ids
    assert masked.count(tokenizer.mask_id) == 1 and "<mask>" not in tokenizer.decode(masked)
    assert tokenizer.kind == kind
