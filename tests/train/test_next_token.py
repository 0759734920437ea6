import math

import numpy as np
import pytest
import torch

from tripel.data import TextDataConfig, encode_stream, load_texts
from tripel.errors import DataError
from tripel.tasks.next_token import NextTokenTask, language_vocabulary, text_loss
from tripel.text import Tokenizer, TokenizerConfig

TEXT = "abcab cabba é ccab\n" * 20


@pytest.fixture(params=["char", "byte", "byte_bpe"])
def tokenizer(request):
    return Tokenizer.train(TokenizerConfig(kind=request.param, vocab_size=280), [TEXT])


@pytest.fixture
def stream(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    return encode_stream(load_texts(TextDataConfig(train=str(tmp_path / "a.txt"))).train, tokenizer, cache_dir=tmp_path)


def made_up(batch):
    """A loss that depends on the token and its place in the window."""
    T = batch.targets_BT.shape[1]
    return batch.targets_BT.float() / 100 + 1.0 / (1 + torch.arange(T))


def test_a_language_model_reads_the_boundary_before_a_text(tokenizer):
    vocabulary = language_vocabulary(tokenizer)
    assert vocabulary.source_size == vocabulary.target_size == tokenizer.vocab_size
    assert vocabulary.start_id == vocabulary.eos_id == tokenizer.eos_id and vocabulary.pad_id == tokenizer.pad_id
    assert NextTokenTask().label_smoothing == 0


@pytest.mark.parametrize("context", [1, 7, 64, 10_000])
@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_losses_are_over_every_token_but_the_first_and_bytes_are_those_of_the_text(
    stream, tokenizer, context, batch_tokens
):
    found = text_loss(made_up, stream, tokenizer, context=context, batch_tokens=batch_tokens)
    context = min(context, stream.n_tokens - 1)
    targets = np.asarray(stream.ids[1:], np.float64) / 100
    places = np.arange(len(targets)) % context
    losses = targets + 1.0 / (1 + places)
    assert found.n_predicted == stream.n_tokens - 1
    assert found.nats_per_token == pytest.approx(losses.mean(), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(losses.mean()), rel=1e-5)
    first = tokenizer.decode([int(stream.ids[0])])
    n_bytes = len(TEXT.encode()) - len(first.encode())
    assert found.bits_per_byte == pytest.approx(losses.sum() / math.log(2) / n_bytes, rel=1e-6)
    expected = [losses[places == place].mean() for place in range(context)]
    assert found.nats_per_position == pytest.approx(expected, rel=1e-5)
    assert found.metrics() == {
        "valid_loss": found.nats_per_token,
        "perplexity": found.perplexity,
        "bits_per_byte": found.bits_per_byte,
    }


def test_a_uniform_guess_costs_as_many_bits_a_byte_as_the_alphabet_says(tmp_path):
    """Of 256 equal bytes each costs 8 bits; the boundary at the end costs as much and has no byte."""
    tokenizer = Tokenizer.train(TokenizerConfig(kind="byte"), [])
    (tmp_path / "a.txt").write_text(TEXT)
    stream = encode_stream(
        load_texts(TextDataConfig(train=str(tmp_path / "a.txt"))).train, tokenizer, cache_dir=tmp_path
    )
    uniform = text_loss(lambda b: torch.full(b.targets_BT.shape, math.log(256)), stream, tokenizer, context=32)
    assert uniform.perplexity == pytest.approx(256)
    n = len(TEXT.encode())
    assert uniform.bits_per_byte == pytest.approx(8 * n / (n - 1))


def test_a_text_of_one_token_cannot_be_predicted(stream, tokenizer):
    from dataclasses import replace

    with pytest.raises(DataError, match="too short to be predicted"):
        text_loss(made_up, replace(stream, ids=stream.ids[:1]), tokenizer, context=4)


def test_with_carried_state_the_same_tokens_are_predicted(stream, tokenizer):
    marks = []

    def losses(batch):
        marks.append(batch.carried)
        return batch.targets_BT.float()

    carried = text_loss(losses, stream, tokenizer, context=5, batch_tokens=20, carry_state=True)
    plain = text_loss(lambda b: b.targets_BT.float(), stream, tokenizer, context=5, batch_tokens=20)
    assert carried.nats == plain.nats and carried.n_predicted == plain.n_predicted
    assert marks[0] is False and True in marks
