import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripel.data import TextDataConfig, encode_stream, load_texts, report_unknown_tokens
from tripel.data import text_reading as reading
from tripel.data import tokens as module
from tripel.errors import DataError, TokenizerError
from tripel.text import Tokenizer, TokenizerConfig

TEXT = "It's a line,  with two spaces.\n\n 'Twas  naïve -- 12 ½ apples; 日本語 🙂🙂\n\tEnd\u00a0 .\r\n"
KINDS = ["char", "byte", "byte_bpe"]
pieces_of_text = st.lists(
    st.sampled_from(
        [" ", "  ", "\n", "\n\n", "\t", "\u00a0", "\u2003", "\x1c", "\x85", "\u0301", "'s", "'", "word", "a"]
    )
    | st.sampled_from(["12", "½", ".", "日本", "🙂", "é", "e", "-", "ﬁ", "\u3000", "'ll", "\r\n", "_"]),
    max_size=60,
).map("".join)


@pytest.fixture(scope="module")
def tokenizers():
    training = [TEXT * 3, "word word words worded 'll 12 a-a e\u0301 日本 \n\n\n  \t"]
    return {kind: Tokenizer.train(TokenizerConfig(kind=kind, vocab_size=320), training) for kind in KINDS}


def source_of(path, content, documents="file"):
    path.write_bytes(content.encode("utf-8"))
    return load_texts(TextDataConfig(train=str(path), documents=documents)).train


@pytest.mark.parametrize("kind", KINDS)
@given(text=pieces_of_text, block=st.integers(1, 30))
def test_encoding_in_pieces_is_encoding_the_document_whole(tokenizers, tmp_path_factory, kind, text, block):
    text = "word " * 40 + text  # or it would count as binary for its control characters
    tokenizer, folder = tokenizers[kind], tmp_path_factory.mktemp("tokens")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK_BYTES", block)
        patch.setattr(reading, "_PIECE", max(1, block // 3))
        stream = encode_stream(source_of(folder / "a.txt", text), tokenizer, cache_dir=folder)
    assert stream.ids.tolist() == [*tokenizer.encode(text.replace("\r\n", "\n")), tokenizer.eos_id]


@pytest.mark.parametrize("kind", KINDS)
def test_a_boundary_stands_after_every_document(tokenizers, tmp_path, kind):
    tokenizer = tokenizers[kind]
    source = source_of(tmp_path / "a.txt", "word\n\n12 apples\nEnd .", "line")
    stream = encode_stream(source, tokenizer, cache_dir=tmp_path)
    expected = []
    for document in ("word", "12 apples", "End ."):
        expected += [*tokenizer.encode(document), tokenizer.eos_id]
    assert stream.ids.tolist() == expected
    assert (stream.n_documents, stream.n_chars, stream.eos_id) == (3, 18, tokenizer.eos_id)
    assert stream.n_tokens == len(stream.ids) == len(expected)


def test_many_small_documents_come_in_their_order(tokenizers, tmp_path):
    lines = [f"word {number}" for number in range(7000)]
    source = source_of(tmp_path / "a.txt", "\n".join(lines), "line")
    stream = encode_stream(source, tokenizers["byte"], cache_dir=tmp_path)
    ends = np.flatnonzero(stream.ids == stream.eos_id)
    texts = [tokenizers["byte"].decode(part.tolist()) for part in np.split(stream.ids, ends)]
    assert texts[:-1] == lines


def test_a_stream_counts_the_text_it_stands_for(tokenizers, tmp_path):
    source = source_of(tmp_path / "a.txt", TEXT)
    stream = encode_stream(source, tokenizers["byte_bpe"], cache_dir=tmp_path)
    text = TEXT.replace("\r\n", "\n")
    assert (stream.n_chars, stream.n_bytes, stream.n_unknown) == (len(text), len(text.encode()), 0)
    assert isinstance(stream.ids, np.memmap) and stream.ids.dtype == np.uint16


def test_a_large_vocabulary_has_wider_tokens(tmp_path, tokenizers, monkeypatch):
    monkeypatch.setattr(tokenizers["byte"], "vocab_size", 70_000)
    stream = encode_stream(source_of(tmp_path / "a.txt", TEXT), tokenizers["byte"], cache_dir=tmp_path)
    assert stream.ids.dtype == np.int32
    assert stream.ids.tolist()[:-1] == tokenizers["byte"].encode(TEXT.replace("\r\n", "\n"))


@pytest.fixture
def encodings(monkeypatch):
    """Counts calls of the tokenizer."""
    calls, real = [], Tokenizer.encode_arrays
    monkeypatch.setattr(Tokenizer, "encode_arrays", lambda self, texts: calls.append(1) or real(self, texts))
    return calls


def test_a_text_is_encoded_once_for_each_tokenizer_and_found_under_its_content(tokenizers, tmp_path, encodings):
    first = encode_stream(source_of(tmp_path / "a.txt", TEXT), tokenizers["byte"], cache_dir=tmp_path / "c")
    n_calls = len(encodings)
    again = encode_stream(source_of(tmp_path / "b.txt", TEXT), tokenizers["byte"], cache_dir=tmp_path / "c")
    assert n_calls and len(encodings) == n_calls and again.ids.tolist() == first.ids.tolist()
    assert (again.n_bytes, again.n_chars, again.n_documents) == (first.n_bytes, first.n_chars, first.n_documents)
    encode_stream(source_of(tmp_path / "a.txt", TEXT), tokenizers["char"], cache_dir=tmp_path / "c")
    encode_stream(source_of(tmp_path / "a.txt", TEXT + "."), tokenizers["byte"], cache_dir=tmp_path / "c")
    assert len(list((tmp_path / "c").glob("*.tokens"))) == 3


@pytest.mark.parametrize("damage", ["cut", "changed", "no facts", "bad facts", "other facts", "empty"])
def test_a_damaged_stream_is_made_again(tokenizers, tmp_path, encodings, damage):
    source = source_of(tmp_path / "a.txt", TEXT)
    whole = encode_stream(source, tokenizers["byte"], cache_dir=tmp_path).ids.tolist()
    tokens, facts = (next(tmp_path.glob(f"*{ending}")) for ending in (".tokens", ".json"))
    content = tokens.read_bytes()
    if damage in ("cut", "changed", "empty"):
        tokens.write_bytes({"cut": content[:-2], "changed": content[:-2] + b"\1\0", "empty": b""}[damage])
    elif damage == "no facts":
        facts.unlink()
    else:
        facts.write_text("{" if damage == "bad facts" else json.dumps({"n_tokens": 1, "unknown_places": []}))
    encodings.clear()
    assert encode_stream(source, tokenizers["byte"], cache_dir=tmp_path).ids.tolist() == whole
    assert encodings
    encodings.clear()
    assert encode_stream(source, tokenizers["byte"], cache_dir=tmp_path).ids.tolist() == whole
    assert not encodings


def test_a_cache_that_cannot_be_written_costs_time_only(tokenizers, tmp_path, caplog):
    source = source_of(tmp_path / "a.txt", TEXT)
    (tmp_path / "file").write_text("not a folder")
    stream = encode_stream(source, tokenizers["byte"], cache_dir=tmp_path / "file")
    assert tokenizers["byte"].decode(stream.ids.tolist()) == TEXT.replace("\r\n", "\n")
    assert "cannot be written" in caplog.text


def test_a_disk_without_room_is_said_to_be_full(tokenizers, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    source = source_of(tmp_path / "a.txt", TEXT)
    monkeypatch.setattr(module._Writer, "written", full)
    with pytest.raises(DataError, match="no room for the tokens.*No space left"):
        encode_stream(source, tokenizers["byte"], cache_dir=tmp_path / "c")
    assert not list((tmp_path / "c").iterdir())


def test_a_tokenizer_that_puts_a_space_before_a_text_is_refused(tmp_path):
    tokenizer = Tokenizer.train(TokenizerConfig(kind="bpe", vocab_size=400), [TEXT])
    with pytest.raises(TokenizerError, match="encoded in pieces") as caught:
        encode_stream(source_of(tmp_path / "a.txt", TEXT), tokenizer, cache_dir=tmp_path)
    assert all(kind in str(caught.value) for kind in KINDS)


def test_unknown_characters_are_counted_with_their_place_and_refused_above_the_share(tokenizers, tmp_path):
    config = TextDataConfig(train=str(tmp_path / "b.txt"))
    stream_of = {}
    for name, content in (("a", "It's\nwith\nΩ two\n" + "a line " * 20), ("b", "Ω\n" * 9 + "word")):
        source = source_of(tmp_path / f"{name}.txt", content)
        stream_of[name] = encode_stream(source, tokenizers["char"], cache_dir=tmp_path)
    report = load_texts(config).report
    report_unknown_tokens(report, stream_of["a"], config)
    (finding,) = report.findings
    assert (finding.count, finding.action, finding.examples) == (1, "kept", (f"{tmp_path}/a.txt:3",))
    with pytest.raises(DataError, match="are unknown .max_unknown_share 0.1"):
        report_unknown_tokens(report, stream_of["b"], config)


@pytest.mark.skipif("TRIPEL_DATA" not in os.environ, reason="TRIPEL_DATA does not name a folder with data")
def test_tiny_shakespeare_is_divided_as_nanogpt_divides_it(tmp_path):
    """Its data/shakespeare_char/readme.md: train has 1003854 tokens, val has 111540; 65 characters."""
    splits = load_texts(TextDataConfig(train="shakespeare/input.txt", valid_share=0.1))
    tokenizer = Tokenizer.train(TokenizerConfig(kind="char"), splits.train.texts())
    train, valid = (encode_stream(part, tokenizer, cache_dir=tmp_path) for part in (splits.train, splits.valid))
    assert (train.n_tokens, valid.n_tokens - 1) == (1_003_854, 111_540)  # the last token is the boundary
    assert tokenizer.vocab_size == 65 + 4 and valid.n_unknown == 0
