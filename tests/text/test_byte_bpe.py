"""Byte-level BPE beside three others who do it: the library's own trainer, transformers, and tiktoken."""

import json
import sys
import unicodedata

import pytest
import tokenizers as library
from hypothesis import given
from hypothesis import strategies as st
from sentences import EVERYTHING, SENTENCES

from tripel.errors import TokenizerError
from tripel.text import Tokenizer, TokenizerConfig

SIZE = 420
TRICKY = [
    *SENTENCES,
    "I'm sure they've said we'll go, he'd DON'T it's 'tis 'S 's",
    "one  two   three    four ",
    "line\nline\n\nline \n line\n \n\n",
    "\ttabs\t\tand\r\nCRLF\r",
    "日本語とEnglishと한국어 mixed",
    "Привет, мир! שלום עולם مرحبا",
    "👩\u200d👩\u200d👧 🙂🙂 ☃️",
    "x = foo(bar[0], 'a_b') ** 2;  # 3.14 ½ ²",
    "\u00a0no-break\u2003em\u3000ideographic\u0085next\u2028line \x1c\x1f",
    "Ġ Ċ ġ Ā",
    "<|endoftext|> </s> <s>",
    "e\u0301 \u1e69 s\u0323\u0307 \u212b \uac00 \u1100\u1161",
    "\U0010ffff\ufffd\x00\x7f",
]
any_text = st.text() | st.text(st.sampled_from("ab 's\n\t.1é\u00a0\u0301日🙂"))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TokenizerConfig(kind="byte_bpe", vocab_size=SIZE), EVERYTHING)


@pytest.fixture(scope="module")
def vocabulary(tokenizer):
    return json.loads(tokenizer.to_json())["model"]


@pytest.fixture(scope="module")
def plain():
    """Without Unicode normalization, as GPT-2 has it."""
    return Tokenizer.train(TokenizerConfig(kind="byte_bpe", vocab_size=SIZE, normalization="none"), EVERYTHING)


@given(text=any_text)
def test_decoding_is_the_exact_inverse_of_encoding_on_any_text(tokenizer, plain, text):
    assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalize(text)
    assert plain.decode(plain.encode(text)) == text == plain.normalize(text)


@pytest.mark.parametrize("text", TRICKY)
def test_normalizing_is_unicode_composition_and_nothing_else(tokenizer, text):
    assert tokenizer.normalize(text) == unicodedata.normalize("NFC", text)


def test_the_256_bytes_follow_the_four_special_tokens(tokenizer):
    assert tokenizer.pieces(range(4)) == ["<pad>", "<unk>", "<s>", "</s>"]
    assert set(tokenizer.pieces(range(4, 260))) == set(library.pre_tokenizers.ByteLevel.alphabet())
    assert len(tokenizer.merges) == tokenizer.vocab_size - 260


def test_training_learns_what_the_library_s_byte_level_bpe_learns(vocabulary):
    theirs = library.ByteLevelBPETokenizer(unicode_normalizer="nfc")
    theirs.train_from_iterator(
        EVERYTHING, vocab_size=SIZE, min_frequency=1, special_tokens=["<pad>", "<unk>", "<s>", "</s>"]
    )
    model = json.loads(theirs.to_str())["model"]
    assert vocabulary["vocab"] == model["vocab"]
    assert vocabulary["merges"] == model["merges"]


def test_transformers_encodes_with_the_vocabulary_as_we_do(plain):
    transformers = pytest.importorskip("transformers")
    model = json.loads(plain.to_json())["model"]
    theirs = transformers.GPT2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        split_special_tokens=True,
    )
    for text in TRICKY:
        ids = theirs(text, add_special_tokens=False).input_ids
        assert plain.encode(text) == ids, text
        assert plain.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False), text


@pytest.fixture(scope="module")
def openai(plain):
    """OpenAI's own encoder with our vocabulary: it wants the bytes of each piece in the order of the merges."""
    tiktoken = pytest.importorskip("tiktoken")
    convert = pytest.importorskip("transformers.convert_slow_tokenizer")
    from tiktoken_ext.openai_public import r50k_pat_str

    byte_of = {shown: value for value, shown in convert.bytes_to_unicode().items()}
    ranks = {bytes(byte_of[mark] for mark in plain.pieces([i])[0]): i for i in range(4, plain.vocab_size)}
    return tiktoken.Encoding("ours", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})


@given(text=any_text)
def test_openai_s_own_encoder_gives_the_same_ids(plain, openai, text):
    assert plain.encode(text) == openai.encode(text, disallowed_special=())


@pytest.mark.parametrize("text", TRICKY)
def test_openai_s_own_encoder_gives_the_same_ids_on_tricky_text(plain, openai, text):
    assert plain.encode(text) == openai.encode(text, disallowed_special=())


def test_a_stream_gives_each_character_when_its_last_byte_has_come(plain):
    ids = plain.encode("a日🙂b")
    stream = plain.stream()
    assert [text for text in (stream.push(i) for i in ids) if text] == ["a", "日", "🙂", "b"]


@given(text=any_text)
def test_a_stream_of_a_text_s_ids_reads_as_the_text(plain, text):
    stream = plain.stream()
    assert "".join([*(stream.push(i) for i in plain.encode(text)), stream.finish()]) == text


@pytest.fixture
def gpt2_like(plain, tmp_path):
    """A tokenizer.json laid out as GPT-2's: no normalizer, one special token, which is the last."""
    content = json.loads(plain.to_json())
    pieces = plain.pieces(range(4, plain.vocab_size))
    content["model"]["vocab"] = {piece: number for number, piece in enumerate([*pieces, "<|endoftext|>"])}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": len(pieces), "content": "<|endoftext|>", **special}]
    content["normalizer"] = None
    content["post_processor"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": False,
        "use_regex": True,
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return Tokenizer.load(path)


def test_gpt2_s_only_special_token_is_begin_end_padding_and_boundary(gpt2_like, plain):
    end = gpt2_like.vocab_size - 1
    assert gpt2_like.bos_id == gpt2_like.eos_id == gpt2_like.pad_id == gpt2_like.unk_id == end
    assert gpt2_like.special_ids == {end}
    assert gpt2_like.keeps_text_divisible
    for text in TRICKY:
        ids = gpt2_like.encode(text)
        assert ids == [number - 4 for number in plain.encode(text)] and end not in ids
        assert gpt2_like.decode([end, *ids, end]) == text == gpt2_like.normalize(text)


def test_a_vocabulary_of_bytes_alone_is_possible_and_one_smaller_is_refused():
    bytes_only = Tokenizer.train(TokenizerConfig(kind="byte_bpe", vocab_size=260), EVERYTHING)
    assert bytes_only.vocab_size == 260 and len(bytes_only.encode("é🙂 a")) == 8
    with pytest.raises(TokenizerError, match="vocab_size is too small"):
        Tokenizer.train(TokenizerConfig(kind="byte_bpe", vocab_size=259), EVERYTHING)


# The table behind kinds char and byte.


@pytest.fixture(scope="module", params=["char", "byte"])
def small(request):
    return Tokenizer.train(TokenizerConfig(kind=request.param), [*EVERYTHING, "".join(map(chr, range(0x2FF)))])


@given(text=any_text)
def test_the_table_gives_what_the_tokenizer_gives(small, text):
    (ids,) = small.encode_arrays([text])
    assert ids.tolist() == small.encode(text)


def test_the_table_gives_what_the_tokenizer_gives_on_every_character_alone_and_before_a_mark(small):
    characters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000 and (c < 0x3200 or c % 97 == 0)]
    texts = [c + mark for c in characters for mark in ("", "\u0301", "\u3099", "\u0327")]
    for text, ids in zip(texts, small.encode_arrays(texts), strict=True):
        expected = small.encode(text)
        assert ids.tolist() == expected, [hex(ord(c)) for c in text]


@pytest.mark.parametrize("options", [{"normalization": "nfkc"}, {"lowercase": True}, {"normalization": "none"}])
@pytest.mark.parametrize("kind", ["char", "byte"])
def test_the_table_minds_other_normalizations(kind, options):
    tokenizer = Tokenizer.train(TokenizerConfig(kind=kind, **options), EVERYTHING)
    for text, ids in zip(TRICKY, tokenizer.encode_arrays(TRICKY), strict=True):
        assert ids.tolist() == tokenizer.encode(text)


@pytest.mark.parametrize("kind", ["word", "bpe", "unigram", "wordpiece"])
def test_kinds_that_put_a_space_before_a_text_are_not_for_streams_of_tokens(kind):
    size = {"bpe": 700, "unigram": 460, "wordpiece": 400}.get(kind, 2000)
    assert not Tokenizer.train(TokenizerConfig(kind=kind, vocab_size=size), EVERYTHING).keeps_text_divisible


@pytest.mark.parametrize("normalization", ["nfc", "nfkc"])
def test_no_character_composes_with_a_space_before_it_nor_ends_as_a_space(normalization):
    """By which a text may be cut before a space after a character that is none."""
    normalize = library.normalizers.NFC() if normalization == "nfc" else library.normalizers.NFKC()
    everything = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    characters = [c for c in everything if not c.isspace()]
    alone = [normalize.normalize_str(c) for c in characters]
    assert not any(text[-1].isspace() for text in alone)
    for mark in " \n":
        assert normalize.normalize_str(mark.join(characters)) == mark.join(alone)
