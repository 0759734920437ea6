"""Tokenizers read from .spm files and vocab.json, against MarianTokenizer of transformers, which uses sentencepiece."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tripel.checkpoint import load_run
from tripel.errors import CheckpointError, FormatError
from tripel.hf.convert import import_folder
from tripel.hf.sentencepiece import marian_tokenizers, read_model
from tripel.text.pair import TokenizerPair

sentencepiece = pytest.importorskip("sentencepiece", reason="writes the .spm files")
transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")

ENGLISH = ["Two dogs play in the snow.", "A man rides a brown horse on the beach.", "The snow is white, isn't it?"]
GERMAN = ["Zwei Hunde spielen im Schnee.", "Ein Mann reitet ein Pferd am Strand.", "Der Schnee ist weiß, nicht wahr?"]


def train(folder: Path, name: str, lines: list[str], **options: Any) -> set[str]:
    """Write a .spm file; its ordinary pieces."""
    settings_ = {"vocab_size": 60, "hard_vocab_limit": False, "bos_id": -1, "minloglevel": 2, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20), model_prefix=str(folder / name), **settings_
    )
    (folder / f"{name}.model").rename(folder / f"{name}.spm")
    (folder / f"{name}.vocab").unlink()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
    return {pieces.id_to_piece(i) for i in range(len(pieces))} - {"<unk>", "</s>"}


def write_folder(folder: Path, **options: Any) -> dict[str, int]:
    folder.mkdir(exist_ok=True)
    pieces = train(folder, "source", ENGLISH, **options) | train(folder, "target", GERMAN, **options)
    # Marian counts by frequency; any order unlike that of the models will do.
    ids = {piece: i for i, piece in enumerate(["</s>", "<unk>", *sorted(pieces), ">>fra<<", "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(ids))
    return ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("marian")
    write_folder(path)
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> TokenizerPair:
    return marian_tokenizers(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    return transformers.MarianTokenizer(*files)


ODD = ["", " ", "  two   dogs ", "ﬁne ½ n", "naïve 東京 x東y", ">>fra<< Two dogs", "a\u00a0b\tc", "▁", "a ß"]


@pytest.mark.parametrize("text", ENGLISH + ODD)
def test_source_ids_are_those_of_marian_tokenizer(text: str, ours: TokenizerPair, theirs: Any) -> None:
    assert [*ours.source.encode(text), ours.source.eos_id] == theirs(text).input_ids


@pytest.mark.parametrize("text", [*GERMAN, "", " ", "  Zwei   Hunde ", "▁", "東京 a"])
def test_target_ids_are_those_of_marian_tokenizer(text: str, ours: TokenizerPair, theirs: Any) -> None:
    assert [*ours.target.encode(text), ours.target.eos_id] == theirs(text_target=text).input_ids


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="Two dgsplayinhe.,'東京ＡＢＣ ½é", max_size=40))
def test_ids_of_any_text_are_those_of_marian_tokenizer(text: str, ours: TokenizerPair, theirs: Any) -> None:
    assert [*ours.source.encode(text), ours.source.eos_id] == theirs(text).input_ids


def test_decoding_gives_the_text_that_marian_tokenizer_gives(ours: TokenizerPair, theirs: Any) -> None:
    for text in GERMAN:
        ids = ours.target.encode(text)
        assert ours.target.decode(ids) == text == theirs.decode(ids, skip_special_tokens=True)


def test_special_tokens_are_found_by_name(folder: Path, ours: TokenizerPair) -> None:
    ids = json.loads((folder / "vocab.json").read_text())
    tokenizer = ours.source
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (ids["<pad>"], ids["</s>"], ids["<unk>"])
    assert tokenizer.vocab_size == len(ids)


def test_a_whole_marian_folder_is_imported_with_its_tokenizers(tmp_path: Path) -> None:
    ids = write_folder(tmp_path / "theirs")
    torch.manual_seed(0)
    pad = ids["<pad>"]
    config = transformers.MarianConfig(
        vocab_size=len(ids),
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=ids["</s>"],
        forced_eos_token_id=ids["</s>"],
    )
    transformers.MarianMTModel(config).save_pretrained(tmp_path / "theirs")
    report = import_folder(tmp_path / "theirs", tmp_path / "run")
    assert report.notes == ()
    run = load_run(tmp_path / "run")
    expected = marian_tokenizers(tmp_path / "theirs")
    assert run.tokenizers.source.encode(ENGLISH[0]) == expected.source.encode(ENGLISH[0])
    assert run.tokenizers.target.encode(GERMAN[0]) == expected.target.encode(GERMAN[0])


def test_separate_vocabularies_are_read(tmp_path: Path) -> None:
    source, target = train(tmp_path, "source", ENGLISH), train(tmp_path, "target", GERMAN)
    for name, pieces in (("vocab.json", source), ("target_vocab.json", target)):
        ids = {piece: i for i, piece in enumerate(["</s>", "<unk>", "<pad>", *sorted(pieces)])}
        (tmp_path / name).write_text(json.dumps(ids))
    ours = marian_tokenizers(tmp_path)
    assert (ours.source.vocab_size, ours.target.vocab_size) == (len(source) + 3, len(target) + 3)
    assert ours.target.decode(ours.target.encode(GERMAN[0])) == GERMAN[0]


def test_the_unigram_model_is_read_as_sentencepiece_reads_it(folder: Path) -> None:
    model = read_model(folder / "source.spm")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    scores = {reference.id_to_piece(i): reference.get_score(i) for i in range(len(reference))}
    assert model.scores == {p: s for p, s in scores.items() if p not in ("<unk>", "</s>")}
    assert len(model.charsmap) > 1000


def change_ids(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    ids = json.loads((folder / "vocab.json").read_text())
    change(ids)
    (folder / "vocab.json").write_text(json.dumps(ids))


@pytest.mark.parametrize(
    ("harm", "kind", "message"),
    [
        (lambda f: (f / "source.spm").write_bytes(b""), CheckpointError, "it has no pieces"),
        (lambda f: (f / "source.spm").write_bytes(b"\xff" * 40), CheckpointError, "source.spm is missing or damaged"),
        (lambda f: (f / "target.spm").unlink(), CheckpointError, "target.spm is missing or damaged"),
        (
            lambda f: (f / "source.spm").write_bytes((f / "source.spm").read_bytes()[:100]),
            CheckpointError,
            "it is cut off",
        ),
        (lambda f: train(f, "source", ENGLISH, model_type="bpe"), FormatError, "not a plain unigram model"),
        (lambda f: train(f, "source", ENGLISH, user_defined_symbols=["<x>"]), FormatError, "defined by the user"),
        (lambda f: change_ids(f, lambda ids: ids.pop("▁the", ids.pop("."))), FormatError, "that have no id"),
        (lambda f: change_ids(f, lambda ids: ids.pop("<pad>")), FormatError, "no <pad>"),
        (lambda f: change_ids(f, lambda ids: ids.update({".": 3})), FormatError, "two pieces of one id"),
        (lambda f: change_ids(f, lambda ids: ids.update({".": 1 << 40})), CheckpointError, "vocab.json is damaged"),
        (lambda f: change_ids(f, lambda ids: ids.update({".": "x"})), CheckpointError, "vocab.json is damaged"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused(
    tmp_path: Path, harm: Callable[[Path], Any], kind: type[Exception], message: str
) -> None:
    write_folder(tmp_path)
    harm(tmp_path)
    with pytest.raises(kind, match=message):
        marian_tokenizers(tmp_path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(st.integers(0, 1 << 20), st.integers(0, 255), max_size=4), length=st.integers(0, 1 << 20)
)
def test_any_damage_to_a_model_of_pieces_is_an_error_a_stranger_understands_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, changes: dict[int, int], length: int
) -> None:
    data = bytearray((folder / "source.spm").read_bytes())
    for place, value in changes.items():
        data[place % len(data)] = value
    file = tmp_path_factory.getbasetemp() / "damaged.spm"
    file.write_bytes(data[: length % (len(data) + 1)] if length % 2 else data)
    try:
        read_model(file)
    except (CheckpointError, FormatError) as error:
        assert error.mend
