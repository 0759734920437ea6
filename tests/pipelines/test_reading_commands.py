"""The commands of encoders, as a person types them."""

import gzip
import json

import numpy as np
import pytest
from encoders import LINES, encoder_of, tokenizer_of

import tripel
from tripel.checkpoint import save_run
from tripel.pipelines.load import load_classifier, load_completer, load_embedder, load_filler, load_translator
from tripel.text.pair import TokenizerPair

LABELS = ("animals", "people")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("runs"), tokenizer_of()
    for head in ("masked-token", "classes", "none"):
        model = encoder_of(tokenizer, head=head, labels=LABELS if head == "classes" else ())
        save_run(folder / head, model, TokenizerPair(tokenizer, tokenizer), recipe_yaml=None, card="# an encoder\n")
    return folder


def test_a_run_opens_as_what_it_is_for(runs):
    assert isinstance(tripel.load(runs / "masked-token"), tripel.Filler)
    assert isinstance(tripel.load(runs / "classes"), tripel.Classifier)
    assert type(tripel.load(runs / "none")) is tripel.Embedder
    for name in ("masked-token", "classes", "none"):
        assert load_embedder(runs / name).embed(["fox"]).vectors.shape == (1, 16)


@pytest.mark.parametrize(
    ("load", "head", "is_", "command"),
    [
        (load_translator, "masked-token", "fills blanks", "tripel fill"),
        (load_completer, "classes", "a classifier", "tripel classify"),
        (load_filler, "classes", "a classifier", "tripel classify"),
        (load_classifier, "masked-token", "fills blanks", "tripel fill"),
        (load_filler, "none", "an encoder", "tripel embed"),
    ],
)
def test_a_run_of_another_kind_is_named_with_its_command(runs, load, head, is_, command):
    with pytest.raises(tripel.TripelError, match=is_) as error:
        load(runs / head)
    assert command in str(error.value)


def test_only_translators_are_an_ensemble(runs, tripel_):
    with pytest.raises(tripel.TripelError, match="only translators can be an ensemble"):
        tripel.load(runs / "none", ensemble=[runs / "none"])
    code, out, err = tripel_("translate", runs / "none", "a fox", "--ensemble", runs / "none")
    assert (code, out) == (2, "") and "only translators" in err


def test_fill_writes_the_filled_text_and_shows_candidates_beside_it(runs, tripel_):
    code, out, err = tripel_("fill", runs / "masked-token", "the ___ fox", "--top", 3)
    assert code == 0 and out.count("\n") == 1 and out.endswith("fox\n") and err.count("%") == 3
    code, out, _ = tripel_("fill", runs / "masked-token", "--json", stdin="the ___ fox\n\na [MASK] and a ___\n")
    lines = out.split("\n")
    assert code == 0 and lines[1] == "" and len(json.loads(lines[2])["blanks"]) == 2


def test_fill_names_the_line_without_a_blank(runs, tripel_):
    code, _, err = tripel_("fill", runs / "masked-token", stdin="the ___ fox\nthe fox\n")
    assert code == 2 and "line 2: there is no blank" in err


def test_classify_writes_one_label_a_line(runs, tripel_, tmp_path):
    code, out, err = tripel_("classify", runs / "classes", *LINES)
    assert code == 0 and set(out.split()) <= set(LABELS) and len(out.split()) == len(LINES) and "%" in err
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress("\n".join([*LINES, "", "fox"]).encode()))
    code, _, _ = tripel_(
        "classify", runs / "classes", "-i", tmp_path / "in.txt.gz", "-o", tmp_path / "out.txt", "--json"
    )
    rows = (tmp_path / "out.txt").read_text().split("\n")
    assert code == 0 and rows[len(LINES)] == ""
    probabilities = json.loads(rows[0])["probabilities"]
    assert set(probabilities) == set(LABELS) and sum(probabilities.values()) == pytest.approx(1)


def test_probabilities_are_the_softmax_of_the_models_logits_whatever_else_is_asked(runs):
    import torch

    classifier = load_classifier(runs / "classes")
    for text, answer in zip(LINES, classifier.classify(LINES), strict=True):
        tokenizer = classifier.tokenizer
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]])
        with torch.no_grad():
            p_C = classifier.model(ids)[0].softmax(-1)
        assert dict(answer.probabilities) == pytest.approx(dict(zip(LABELS, p_C.tolist(), strict=True)), abs=1e-5)


def test_a_model_that_was_just_built_classifies_too():
    tokenizer = tokenizer_of()
    classifier = tripel.Classifier(encoder_of(tokenizer, head="classes", labels=LABELS), tokenizer)
    (answer,) = classifier.classify(["the quick fox"], top=1)
    assert answer.label in LABELS and len(answer.probabilities) == 1


def test_embed_writes_an_array_or_objects(runs, tripel_, tmp_path):
    lines = "\n".join(LINES)
    assert tripel_("embed", runs / "none", "-o", tmp_path / "v.npy", stdin=lines)[0] == 0
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.dtype == np.float32 and vectors.shape == (len(LINES), 16)
    code, out, _ = tripel_("embed", runs / "none", stdin=lines)
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [r["text"] for r in records] == LINES
    np.testing.assert_allclose([r["vector"] for r in records], vectors, rtol=1e-6)
    code, out, _ = tripel_("embed", runs / "none", "fox", "--pool", "tokens")
    record = json.loads(out)
    assert len(record["pieces"]) == len(record["vectors"])


def test_embed_tells_what_was_cut(runs, tripel_):
    assert "were longer than the model reads" in tripel_("embed", runs / "none", "fox " * 60)[2]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["fox", "--pool", "meen"], "did you mean mean"),
        (["fox", "-o", "v.txt"], "the form of the output is not known"),
        (["fox", " "], "a text is blank"),
        (["fox", "dog", "--pool", "tokens", "-o", "v.npy"], "the tokens of one text"),
    ],
)
def test_embed_refuses_what_it_cannot_do_with_the_reason(runs, tripel_, words, what):
    code, _, err = tripel_("embed", runs / "none", *words)
    assert code == 2 and what in err


def test_neighbours_are_words_with_cosines(runs, tripel_):
    code, out, _ = tripel_("neighbours", runs / "none", "king", "--top", 3)
    assert code == 0 and len(out.splitlines()) == 3 and all("\t" in line for line in out.splitlines())
    code, out, _ = tripel_("neighbours", runs / "none", "king", "--minus", "man", "--plus", "woman", "--json")
    assert code == 0 and {"word", "cosine"} == set(json.loads(out)[0])
    assert tripel_("neighbours", runs / "none", "king", "--sentence", LINES[1], "--top", 2)[0] == 0
    twice = ("--sentence", LINES[1], "--sentence", "the king")
    assert tripel_("neighbours", runs / "none", "king", *twice, "--top", 2)[0] == 0


def test_a_map_is_drawn_and_its_coordinates_printed_if_asked_for(runs, tripel_, tmp_path):
    code, out, _ = tripel_("map", runs / "none", "king", "queen", "dog", "-o", tmp_path / "map.png", "--json")
    assert code == 0 and len(json.loads(out)["points"]) == 3 and (tmp_path / "map.png").exists()


def test_words_prints_the_scores(runs, tripel_, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPEL_DATA", str(tmp_path))
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "EN-WS-353-ALL.txt").write_text("king\tqueen\t9\nman\twoman\t8.5\nfox\thouse\t1\n")
    code, out, _ = tripel_("words", runs / "none")
    assert code == 0 and "Spearman" in out and "3 of 3" in out
    assert json.loads(tripel_("words", runs / "none", "--json", "--contextual")[1])["contextual"]
