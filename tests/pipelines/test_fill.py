import json

import numpy as np
import pytest
import tokenizers
import torch
from encoders import LINES, encoder_of, tokenizer_of

from tripel.errors import InputError
from tripel.pipelines.fill import Filler
from tripel.text.tokenizer import Tokenizer

KINDS = ["wordpiece", "bpe", "unigram", "word", "byte_bpe"]


@pytest.fixture(scope="module")
def filler():
    tokenizer = tokenizer_of()
    return Filler(encoder_of(tokenizer), tokenizer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("the quick ___ fox jumps", "brown"),
        ("___ king and a queen", "a"),
        ("the lazy ___", "dog"),
        ("unbelievable (___)", "really"),
        ("unbelievable, she ___; quite", "said"),
    ],
)
def test_the_text_around_a_blank_is_encoded_as_it_would_be_with_a_word_in_it(kind, text, word):
    tokenizer = tokenizer_of(kind)
    before, after = text.split("___")
    around = tokenizer.encode_around([before, after])
    whole = tokenizer.encode(before + word + after)
    first, last = (list(part) for part in around.parts)
    assert whole[: len(first)] == first and (not last or whole[-len(last) :] == last)
    middle = whole[len(first) : len(whole) - len(last)]
    assert tokenizer.decode(middle).strip() == word
    spaced = bool(tokenizer.word_marks.spaced[middle[0]])
    assert around.begins_word == (spaced,)


def test_a_sign_that_stands_for_holes_may_be_in_the_text():
    tokenizer = tokenizer_of("bpe")
    around = tokenizer.encode_around(["the \u25a1 ", " fox"])
    assert tokenizer.decode(around.parts[0]).strip() == "the \u25a1" and len(around.parts) == 2


@pytest.mark.parametrize("blank", ["___", "__", "[MASK]", "<mask>", "______"])
def test_every_way_to_write_a_blank_is_one(filler, blank):
    assert filler.fill(f"the {blank} fox").blanks == filler.fill("the ___ fox").blanks


def test_probabilities_are_the_softmax_of_the_models_logits(filler):
    tokenizer, model = filler.tokenizer, filler.model
    ids = [
        tokenizer.bos_id,
        *tokenizer.encode("the quick"),
        tokenizer.mask_id,
        *tokenizer.encode("jumps"),
        tokenizer.eos_id,
    ]
    with torch.no_grad():
        p_V = model(torch.tensor([ids]))[0, ids.index(tokenizer.mask_id)].softmax(-1)
    for candidate in filler.fill("the quick ___ jumps", 20).blanks[0]:
        if candidate.n_pieces == 1:
            matches = [i for i in range(len(p_V)) if tokenizer.decode([i]).strip() == candidate.word]
            assert any(p_V[i].item() == pytest.approx(candidate.probability, rel=1e-4) for i in matches)


def test_a_word_of_several_pieces_has_the_product_of_its_pieces_probabilities():
    tokenizer = tokenizer_of("wordpiece", 60)
    filler = Filler(encoder_of(tokenizer, seed=3), tokenizer)
    longer = [c for c in filler.fill("the ___ dog", 400).blanks[0] if c.n_pieces == 2]
    assert longer
    before, after = tokenizer.encode("the"), tokenizer.encode("dog")
    mask = tokenizer.mask_id

    def log_p(middle, place, piece):
        ids = torch.tensor([[tokenizer.bos_id, *before, *middle, *after, tokenizer.eos_id]])
        with torch.no_grad():
            return filler.model(ids)[0, 1 + len(before) + place].log_softmax(-1)[piece].item()

    for candidate in longer[:5]:
        pairs = [
            (a, b)
            for a in range(tokenizer.vocab_size)
            for b in range(tokenizer.vocab_size)
            if tokenizer.word_marks.spaced[a] and tokenizer.decode([a, b]).strip() == candidate.word
        ]
        products = [np.exp(log_p([mask, mask], 0, a) + log_p([a, mask], 1, b)) for a, b in pairs]
        assert any(p == pytest.approx(candidate.probability, rel=1e-3) for p in products)


def test_candidates_come_best_first_and_are_different_words(filler):
    (candidates,) = filler.fill("the quick ___ fox", 30).blanks
    probabilities = [c.probability for c in candidates]
    assert probabilities == sorted(probabilities, reverse=True) and len({c.word for c in candidates}) == len(candidates)


def test_one_blank_is_filled_with_its_likeliest_candidate_and_the_rest_of_the_text_stays_as_it_was(filler):
    filling = filler.fill("  The Quick ___, fox!  ")
    assert filling.text == f"  The Quick {filling.blanks[0][0].word}, fox!  "


def test_several_blanks_are_filled_the_most_certain_first(filler):
    text = "the ___ fox ___ over the ___ dog"
    filling = filler.fill(text)
    assert len(filling.blanks) == 3 and "___" not in filling.text
    sure = max(range(3), key=lambda n: max(c.probability for c in filling.blanks[n] if c.n_pieces == 1))
    best = next(c.word for c in filling.blanks[sure] if c.n_pieces == 1)
    parts = text.split("___")
    rest = "___".join(parts[: sure + 1]) + best + "___".join(parts[sure + 1 :])
    assert filler.fill(rest).text == filling.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_blank_takes_what_its_place_in_the_text_allows(kind, monkeypatch):
    monkeypatch.setattr("tripel.pipelines.fill.MOST_PIECES", 1)
    tokenizer = tokenizer_of(kind)
    filler = Filler(encoder_of(tokenizer), tokenizer)
    marks = tokenizer.word_marks

    def tried(text):
        return {c.word for c in filler.fill(text, tokenizer.vocab_size).blanks[0]}

    def readable(marked):
        found = (
            tokenizer.decode([i]).strip() for i in np.flatnonzero(marked).tolist() if i not in tokenizer.special_ids
        )
        return {word for word in found if word and "\ufffd" not in word}

    spaced, letters = readable(marks.spaced), readable(~marks.spaced & marks.letter_first)
    assert tried("the ___ fox") == spaced
    assert tried("the fox___ dog") == letters
    assert tried("fox (___)") == readable(~marks.spaced) and "," in tried("fox (___)")


@pytest.mark.parametrize("text", ["the ___ dog", "fox (___)", "un___ly dog"])
def test_words_of_several_pieces_are_made_of_letters(text):
    tokenizer = tokenizer_of("wordpiece", 60)
    filler = Filler(encoder_of(tokenizer), tokenizer)
    longer = [c for c in filler.fill(text, 400).blanks[0] if c.n_pieces > 1]
    assert {c.n_pieces for c in longer} == {2, 3} and all(c.word.isalnum() for c in longer)


def test_what_cannot_be_read_by_itself_is_no_candidate():
    tokenizer = tokenizer_of("byte_bpe")
    filler = Filler(encoder_of(tokenizer), tokenizer)
    words = [c.word for text in ("the ___ fox", "fox___") for c in filler.fill(text, 400).blanks[0]]
    assert all(words) and not any("\ufffd" in word for word in words)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("no blank here", "no blank"),
        ("___", "nothing but blanks"),
        ("  ___ [MASK] ", "nothing but blanks"),
        ("the fox " * 20 + "___", "longer than the model can read"),
        ("a " + "___ " * 65, "too many blanks"),
    ],
)
def test_a_text_that_cannot_be_filled_is_refused_with_the_reason(filler, text, what):
    with pytest.raises(InputError, match=what) as error:
        filler.fill(text)
    if "longer" in what:
        assert "43 tokens" in str(error.value) and "at most 32" in str(error.value)


@pytest.mark.parametrize(("text", "k", "what"), [("a ___", 0, "needs a candidate"), (None, 5, "is not text")])
def test_what_is_no_text_or_no_number_of_candidates_is_refused(filler, text, k, what):
    with pytest.raises(InputError, match=what):
        filler.fill(text, k)


def test_a_model_without_a_mask_token_is_refused():
    tokenizer = tokenizer_of()
    model = encoder_of(tokenizer)
    model.vocabulary = model.vocabulary.model_copy(update={"mask_id": None})
    with pytest.raises(InputError, match="stands for a missing word"):
        Filler(model, tokenizer)


def test_json_has_every_candidate(filler):
    record = json.loads(filler.fill("the ___ fox", 3).to_json())
    assert record["given"] == "the ___ fox" and len(record["blanks"][0]) == 3
    assert set(record["blanks"][0][0]) == {"word", "probability", "pieces"}


def test_a_vocabulary_with_continuation_marks_is_understood(tmp_path):
    """BERT's own: ## before what goes on with a word."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox", "dog", "un", "##ly", "##able", ",", "(", ")"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    theirs = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"))
    theirs.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    filler = Filler(encoder_of(tokenizer), tokenizer)
    assert all(not c.word.startswith("##") for c in filler.fill("the ___ , dog", 50).blanks[0] if c.n_pieces == 1)
    ids = theirs.encode("the [MASK] , dog").ids
    around = tokenizer.encode_around(["the ", " , dog"])
    assert [*around.parts[0], tokenizer.mask_id, *around.parts[1]] == ids[1:-1] and around.begins_word == (True,)
    assert tokenizer.encode_around(["un", " dog"]).begins_word == (False,)


def test_lines_that_a_tokenizer_was_trained_on_can_be_filled_anywhere(filler):
    for line in LINES:
        words = line.split()
        for place in range(len(words)):
            filled = filler.fill(" ".join([*words[:place], "___", *words[place + 1 :]])).text
            assert filled.split()[:place] == words[:place]
