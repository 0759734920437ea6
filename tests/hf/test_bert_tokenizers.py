"""BERT's tokenizers, from tokenizer.json or from vocab.txt alone: the ids that transformers gives."""

from __future__ import annotations

import itertools
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")

from bert_folders import PIECES, write_vocabulary  # noqa: E402
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy  # noqa: E402

from tripel.errors import TripelError  # noqa: E402
from tripel.hf.wordpiece import wordpiece_tokenizer  # noqa: E402
from tripel.text.tokenizer import UNKNOWN_TEXT, Tokenizer  # noqa: E402

TEXTS = [
    "Two dogs play in the snow.",
    "A man rides an UNWANTED horse, in Zürich!",
    "naïve café; CAFE\u0301 cafe\u0301",
    "東京 is not 京都, snow東京snow",
    "don't I can't ... 12 1212 €1",
    "control\u0000two\u0007 dogs\u200b man\ufffd \u00adhorse",
    "tab\ttwo\nlines\r\nand\u00a0spaces\u3000  in  ",
    "[MASK] [SEP] ## ##want mask</s>",
    "#-'!?[]",
    "snow" * 40,
    "\U0001f415 play \U0001f9d1\u200d\U0001f4bb",
    "",
    " ",
]
SETTINGS = [
    {"do_lower_case": lower, "strip_accents": strip, "tokenize_chinese_chars": apart}
    for lower, strip, apart in itertools.product((True, False), (None, True, False), (True, False))
]


def make(folder: Path, **settings: Any) -> Tokenizer:
    write_vocabulary(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    return wordpiece_tokenizer(folder).source


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_vocabulary_alone_gives_the_ids_of_both_tokenizers_of_transformers(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    ours = make(tmp_path, **settings)
    today = transformers.BertTokenizer.from_pretrained(tmp_path)
    first = BertTokenizerLegacy(str(tmp_path / "vocab.txt"), **settings)
    for text in TEXTS:
        ids = ours.encode(text)
        assert today(text, split_special_tokens=True, add_special_tokens=False).input_ids == ids
        if "[MASK]" not in text:  # the first one looks for special tokens in texts, and composes accents
            composed = unicodedata.normalize("NFC", text)
            assert first.convert_tokens_to_ids(first.tokenize(text)) == ours.encode(composed)
        if ours.unk_id not in ids:
            assert ours.decode(ids) == today.decode(ids, clean_up_tokenization_spaces=False)
            assert ours.decode(ids) == ours.normalize(text)


@given(st.text(max_size=60))
def test_any_text_gives_equal_ids(shared: tuple[Tokenizer, Any], text: str) -> None:
    ours, theirs = shared
    given_ = theirs(text, split_special_tokens=True).input_ids
    assert given_ == [ours.bos_id, *ours.encode(text), ours.eos_id]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    folder = tmp_path_factory.mktemp("bert")
    return make(folder), transformers.BertTokenizer.from_pretrained(folder)


def test_texts_are_decoded_as_a_person_writes_them(shared: tuple[Tokenizer, Any]) -> None:
    ours, _ = shared
    text = "Two dogs, unwanted, play in the snow!"
    assert ours.decode(ours.encode(text)) == "two dogs, unwanted, play in the snow!"
    assert ours.decode(ours.encode("two cats")) == f"two {UNKNOWN_TEXT}"
    stream = ours.stream()
    assert "".join(map(stream.push, ours.encode(text))) + stream.finish() == "two dogs, unwanted, play in the snow!"


def test_special_tokens_are_found_and_words_know_where_they_begin(shared: tuple[Tokenizer, Any]) -> None:
    ours, _ = shared
    assert (ours.pad_id, ours.unk_id, ours.bos_id, ours.eos_id, ours.mask_id) == (0, 1, 2, 3, 4)
    assert ours.special_ids == {0, 1, 2, 3, 4}
    ids = ours.encode("unwanted dogs!")
    assert ours.pieces(ids) == ["un", "##want", "##ed", "dogs", "!"]
    assert ours.word_marks.spaced[ids].tolist() == [True, False, False, True, True]


def test_a_tokenizer_json_of_transformers_is_read_and_neither_cuts_nor_pads(tmp_path: Path) -> None:
    make(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path / "saved")
    content = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    content["truncation"] = {"max_length": 6, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    content["padding"] = {"strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": None}
    content["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    (tmp_path / "saved" / "tokenizer.json").write_text(json.dumps(content))
    ours = Tokenizer.load(tmp_path / "saved" / "tokenizer.json")
    for text in TEXTS:
        assert ours.encode(text) == theirs(text, split_special_tokens=True, add_special_tokens=False).input_ids
    assert ours.encode_batch(TEXTS) == [ours.encode(text) for text in TEXTS]
    ours.save(tmp_path / "again.json")
    assert Tokenizer.load(tmp_path / "again.json").to_json() == ours.to_json()


def test_line_ends_of_windows_and_options_of_special_tokens_are_read(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain")
    named = make(tmp_path / "named", mask_token={"content": "[MASK]", "lstrip": True}, tokenizer_class=None)
    (tmp_path / "named" / "vocab.txt").write_bytes("\r\n".join(PIECES).encode())
    again = wordpiece_tokenizer(tmp_path / "named").source
    assert plain.to_json() == named.to_json() == again.to_json()


@pytest.mark.parametrize(
    ("settings", "pieces", "message"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer"}, PIECES, "tokenizer_class"),
        ({"do_basic_tokenize": False}, PIECES, "do_basic_tokenize"),
        ({}, [piece for piece in PIECES if piece != "[SEP]"], "no token that ends a text"),
        ({}, None, "vocab.txt cannot be read"),
    ],
)
def test_a_tokenizer_that_tripel_cannot_follow_is_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], pieces: list[str] | None, message: str
) -> None:
    make(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    write_vocabulary(tmp_path, pieces or [])
    if pieces is None:
        (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TripelError, match=message):
        wordpiece_tokenizer(tmp_path)
