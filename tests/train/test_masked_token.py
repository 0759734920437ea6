"""Masked-token prediction: what is hidden, how often, and the same in every validation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from running import interrupt_at, run, weights_of

from tripel.data.batch import IGNORE
from tripel.errors import TokenizerError
from tripel.models.build import build
from tripel.models.config import EncoderConfig
from tripel.recipe import Recipe
from tripel.tasks.baseline import frequency_baseline, token_counts
from tripel.tasks.masked_token import (
    MaskedTokenTask,
    MaskedWindowLoader,
    MaskedWindows,
    Masker,
    encoder_vocabulary,
    word_starts,
)
from tripel.text.tokenizer import Tokenizer, TokenizerConfig
from tripel.training.loss import batch_loss_sum

WORDS = "the unbelievable cat didn't see anotherwordlike this, nor “quoted” ones; 1984 was (quite) fine."
KINDS = ("wordpiece", "bpe", "unigram", "word", "byte_bpe")


def tokenizer_of(kind="wordpiece", vocab_size=300):
    texts = [WORDS, "a b c d e f g h i j k l m n o p q r s t u v w x y z", "the cat sat on the mat"] * 3
    return Tokenizer.train(TokenizerConfig(kind=kind, vocab_size=vocab_size), texts, mask=True)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(vocab_size=80)


@pytest.fixture(scope="module")
def stream(tokenizer):
    rng = np.random.default_rng(0)
    words = np.array(WORDS.split())
    return np.array(tokenizer.encode(" ".join(words[rng.integers(0, len(words), 3000)])), np.uint16)


def windows_of(stream, tokenizer, length=62, **task):
    masker = Masker(MaskedTokenTask(**task), tokenizer)
    return MaskedWindows(stream, length, masker, encoder_vocabulary(tokenizer))


@pytest.mark.parametrize("kind", KINDS)
def test_words_begin_where_the_tokenizer_parts_them(kind):
    """Against the library's own pre-tokenizer; only apostrophes, with which it has its own way, are left out."""
    tokenizer = tokenizer_of(kind, vocab_size=600)
    text = WORDS.replace("didn't", "did not")
    ids, words = tokenizer.encode_words([text])[0]
    expected = [True] + [a != b for a, b in zip(words, words[1:], strict=False)]
    if kind == "byte_bpe":  # which spells a curly quote in bytes that are not one word in our eyes
        text = text.replace("“", "").replace("”", "")
        ids, words = tokenizer.encode_words([text])[0]
        expected = [True] + [a != b for a, b in zip(words, words[1:], strict=False)]
    found = word_starts(np.array(ids), tokenizer)
    # Punctuation signs that stand together are one word there and several here.
    marks = tokenizer.word_marks
    lettered = marks.letter_first[ids]
    assert [a for a, letter in zip(found, lettered, strict=True) if letter] == [
        b for b, letter in zip(expected, lettered, strict=True) if letter
    ]


@pytest.mark.parametrize("whole_words", [True, False])
@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_the_share_that_is_hidden_is_the_rate_and_is_masked_randomised_and_kept_80_10_10(
    stream, tokenizer, rate, whole_words
):
    windows = windows_of(stream, tokenizer, mask_rate=rate, whole_words=whole_words)
    n_read, was, shown = 0, [], []
    for start in range(0, len(stream) - 62, 62):
        batch = windows.batch(np.array([start]), 62, 7)
        n_read += batch.tokens
        hidden = batch.targets_BT != IGNORE
        was.append(batch.targets_BT[hidden])
        shown.append(batch.inputs["ids_BT"][hidden])
    was, shown = torch.cat(was), torch.cat(shown)
    n = len(was)
    assert n / n_read == pytest.approx(rate, rel=0.08)
    deviation = math.sqrt(0.8 * 0.2 / n)
    assert (shown == tokenizer.mask_id).float().mean() == pytest.approx(0.8, abs=5 * deviation)
    assert (shown == was).float().mean() == pytest.approx(0.1, abs=5 * deviation)


def test_whole_words_are_hidden_whole_and_special_tokens_never(stream, tokenizer):
    masker, rng = Masker(MaskedTokenTask(mask_rate=0.3), tokenizer), np.random.default_rng(1)
    ids = stream[:400].astype(np.int64)
    ids[::50] = tokenizer.eos_id
    starts = word_starts(ids, tokenizer) | (ids == tokenizer.eos_id)
    word_of = np.cumsum(starts | np.concatenate([[False], ids[:-1] == tokenizer.eos_id])) - 1
    for _ in range(20):
        inputs, targets = masker.hide(ids, rng)
        hidden = targets != IGNORE
        assert not hidden[ids == tokenizer.eos_id].any()
        for word in np.unique(word_of[hidden]):
            assert hidden[word_of == word].all()
        assert (inputs[~hidden] == ids[~hidden]).all() and (targets[hidden] == ids[hidden]).all()


def test_one_token_at_least_is_hidden_in_a_text_of_one_word(tokenizer):
    masker = Masker(MaskedTokenTask(), tokenizer)
    ids = np.array(tokenizer.encode("unbelievable"))
    assert (masker.hide(ids, np.random.default_rng(0))[1] == ids).all()


def test_every_epoch_hides_other_tokens_validation_always_the_same_and_ranks_share_one_step(stream, tokenizer):
    windows = windows_of(stream, tokenizer)

    def loader(rank=0, world_size=1):
        return MaskedWindowLoader(
            windows, tokens_per_step=496, micro_tokens=248, seed=3, rank=rank, world_size=world_size
        )

    def examples(batches):
        return {
            start: (ids.tolist(), targets.tolist())
            for batch in batches
            for start, ids, targets in zip(batch.rows, batch.inputs["ids_BT"], batch.targets_BT, strict=True)
        }

    first, again, second = (loader().steps_of(epoch) for epoch in (0, 0, 1))
    steps = [[examples(epoch.batches(step)) for step in range(3)] for epoch in (first, again, second)]
    assert steps[0] == steps[1] != steps[2]
    whole = steps[0][0]
    shares = [examples(loader(rank, 3).steps_of(0).batches(0)) for rank in range(3)]
    assert {start: row for share in shares for start, row in share.items()} == whole
    assert sum(map(len, shares)) == len(whole)
    read = sum(batch.tokens for batch in windows_of(stream, tokenizer, mask_rate=0.5).validation())
    hidden = sum(batch.count for batch in windows_of(stream, tokenizer, mask_rate=0.5).validation())
    assert hidden / read == pytest.approx(0.15, rel=0.1)
    once, twice = ([batch.targets_BT for batch in windows.validation()] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def test_the_loss_is_the_cross_entropy_of_the_hidden_tokens_alone(stream, tokenizer):
    windows = windows_of(stream, tokenizer)
    torch.manual_seed(0)
    config = EncoderConfig(n_layers=1, d_model=16, d_ff=16, mixer={"kind": "attention", "n_heads": 2}, max_len=64)
    model = build(config, encoder_vocabulary(tokenizer)).eval()
    batch = next(windows.validation())
    with torch.no_grad():
        logits_BTV = model(**batch.inputs)
        expected = F.cross_entropy(logits_BTV.flatten(0, 1), batch.targets_BT.flatten(), reduction="sum")
        torch.testing.assert_close(batch_loss_sum(model, batch, label_smoothing=0.0), expected)


def test_word_frequency_is_the_cross_entropy_of_the_counts():
    train, valid = np.array([4, 4, 4, 5, 6, 6]), np.array([4, 6, 7])
    counts = token_counts(train, 8)
    assert counts.tolist() == [0, 0, 0, 0, 3, 1, 2, 0]
    baseline = frequency_baseline("word frequency", counts, valid)
    assert baseline.loss == pytest.approx(-np.mean(np.log(np.array([4, 3, 1]) / 14)))
    assert baseline.accuracy == pytest.approx(1 / 3)


def test_a_tokenizer_without_a_mask_is_refused():
    plain = Tokenizer.train(TokenizerConfig(kind="word", vocab_size=50), [WORDS])
    with pytest.raises(TokenizerError, match="hides another"):
        Masker(MaskedTokenTask(), plain)


RECIPE = """
task: {kind: masked-token, mask_rate: 0.2}
data: {train: TRAIN, valid_share: 0.1}
tokenizer: {kind: wordpiece, vocab_size: 90}
model:
  {n_layers: 1, d_model: 32, d_ff: 64, mixer: {kind: attention, n_heads: 2, rotary: true}, positions: none, max_len: 32,
   dropout: 0.0}
optim: {kind: adamw, lr: 1.0e-3, schedule: warmup_stable_decay, warmup_steps: 20}
train: {steps: STEPS, tokens_per_step: 600, micro_tokens: 300, valid_every: 60, log_every: 20, precision: float32}
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("book") / "book.txt"
    days = ["monday brings rain", "tuesday brings snow", "friday brings sun"]
    rng = np.random.default_rng(0)
    path.write_text("\n".join(days[i] for i in rng.integers(0, 3, 3000)) + "\n", encoding="utf-8")
    return path


def test_a_run_learns_what_neighbours_tell(book, tmp_path):
    whole, said = run(Recipe.from_yaml(RECIPE.replace("TRAIN", str(book)).replace("STEPS", "600")), tmp_path / "run")
    assert whole.metrics["accuracy"] > 0.55  # the day is known from the weather and the weather from the day
    assert "word frequency alone scores loss" in said and "word frequency: loss" in said


def test_an_interrupted_and_resumed_run_ends_like_an_uninterrupted_one(book, tmp_path, monkeypatch):
    chosen = Recipe.from_yaml(RECIPE.replace("TRAIN", str(book)).replace("STEPS", "20"))
    whole, _ = run(chosen, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)
        assert run(chosen, tmp_path / "parts")[0].reason == "interrupted"
    second, _ = run(chosen, tmp_path / "parts", resume=True)
    assert second.metrics == whole.metrics
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_better_than_word_frequency_is_named(book, tmp_path):
    text = RECIPE.replace("TRAIN", str(book)).replace("1.0e-3", "1.0e-9").replace("STEPS", "3")
    assert "no better than word frequency" in run(Recipe.from_yaml(text), tmp_path / "run")[1]
