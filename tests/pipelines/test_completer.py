"""Completing and scoring text: stop strings, streams, windows, what is told of tokens, and what is refused."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tripel.errors import InputError
from tripel.models.build import build
from tripel.models.config import DecoderConfig, Vocabulary
from tripel.nn import AttentionConfig, LSTMConfig
from tripel.pipelines.complete import Completer
from tripel.pipelines.stops import StopText, first_stop
from tripel.text.tokenizer import Tokenizer, TokenizerConfig

TEXT = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer – öäü 你好 😀\n"
KINDS = ("char", "byte", "byte_bpe", "bpe")
TOKENIZERS = {kind: Tokenizer.train(TokenizerConfig(kind=kind, vocab_size=420), [TEXT] * 3) for kind in KINDS}


def completer(kind="char", mixer=None, max_len=48):
    tokenizer = TOKENIZERS[kind]
    torch.manual_seed(2)
    positions = "learned" if mixer is None else "none"
    config = DecoderConfig(
        d_model=32, d_ff=32, n_layers=2, mixer=mixer or AttentionConfig(n_heads=2), positions=positions,
        max_len=max_len, initialisation="glorot", tie=False, head_bias=True,
    )  # fmt: skip
    model = build(config, vocabulary_of(tokenizer)).eval()
    with torch.no_grad():
        model.head.weight.mul_(3)
        model.head.bias[tokenizer.unk_id] = -100
    return Completer(model, tokenizer)


def vocabulary_of(tokenizer):
    size = tokenizer.vocab_size
    return Vocabulary(
        source_size=size, target_size=size, pad_id=tokenizer.pad_id, eos_id=tokenizer.eos_id, start_id=tokenizer.eos_id
    )


class Speaker:
    """A language model that says one text after every prompt."""

    unbounded = True

    def __init__(self, tokenizer, text, n_prompt=1):
        self.vocabulary, self.n_prompt = vocabulary_of(tokenizer), n_prompt
        self.ids = [*tokenizer.encode(text), tokenizer.eos_id]

    def init_state(self, batch, max_len):
        return Count([0] * batch)

    def step(self, ids_NT, state):
        state.rows = [n + ids_NT.shape[1] for n in state.rows]
        logits_NV = torch.zeros(len(state.rows), self.vocabulary.target_size)
        for row, n in enumerate(state.rows):
            logits_NV[row, self.ids[n - self.n_prompt]] = 30.0
        return logits_NV


class Count:
    def __init__(self, rows):
        self.rows = rows

    def select(self, rows_N):
        self.rows = [self.rows[i] for i in rows_N.tolist()]


def saying(kind, text, prompt="T"):
    tokenizer = TOKENIZERS[kind]
    speaker = Speaker(tokenizer, text, len(tokenizer.encode(prompt)))
    return Completer(speaker, tokenizer, engine="plain")


@pytest.mark.parametrize("kind", KINDS)
def test_one_prompt_gives_one_completion_and_many_give_as_many_in_order(kind):
    model, prompts = completer(kind), ["To be", "", "not to be: that", "T"]
    together = model.complete(prompts, n=2, max_new_tokens=30)
    assert [c.prompt for c in together] == prompts
    for prompt, completion in zip(prompts, together, strict=True):
        alone = model.complete(prompt, n=2, max_new_tokens=30)
        assert [s.text for s in alone.samples] == [s.text for s in completion.samples]
        assert str(alone) == alone.text == alone.samples[0].text
        assert alone.ids == alone.samples[0].ids and alone.log_probs == alone.samples[0].log_probs
        assert alone.finish_reason == alone.samples[0].finish_reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [{}, {"temperature": 0}, {"sample": False, "beam": 3}, {"stop": ("e", "to b")}])
def test_the_pieces_of_a_stream_join_to_the_text_of_the_completion(kind, way):
    model = completer(kind)
    for prompt in ("To be", "", "Whether 'tis", "öä 你好 😀"):
        pieces = list(model.stream(prompt, max_new_tokens=60, **way))
        assert "".join(pieces) == model.complete(prompt, max_new_tokens=60, **way).text
        assert all(pieces)


def test_the_first_piece_of_a_stream_comes_before_the_last_token_is_chosen(monkeypatch):
    model, steps = completer(), []
    model = Completer(model.model, model.tokenizer, engine="plain")
    step = model.model.step
    monkeypatch.setattr(model.model, "step", lambda *args: (steps.append(1), step(*args))[1])
    next(model.stream("To be"))
    assert len(steps) <= 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("question", " be, or not to be: that is the "),
        ("be: that is", " be, or not to "),
        (("xyz", "\n", "mind"), " be, or not to be: that is the question."),
        ("ü 你", None),
        ("😀", None),
        (("e, o", "be"), " "),  # the one that is complete first
        (("be", " be"), ""),  # the longer of two that end together
        ("never said", None),
    ],
)
def test_a_text_ends_before_a_stop_string_that_lies_across_tokens(kind, stop, expected):
    said = " be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer – öäü 你好 😀"
    model = saying(kind, said, "To" if kind == "bpe" else "T")
    prompt = "To" if kind == "bpe" else "T"
    answer = model.complete(prompt, stop=stop)
    whole = model.complete(prompt).text
    stops = (stop,) if isinstance(stop, str) else stop
    place = first_stop(whole, stops)
    assert answer.text == (whole if place is None else whole[:place])
    if expected is not None and kind != "bpe":
        assert answer.text == expected
    assert answer.finish_reason == "stop"
    assert "".join(model.stream(prompt, stop=stop)) == answer.text
    if not answer.text.endswith("�"):
        context = model.tokenizer.encode(prompt)
        begun = model.tokenizer.decode([*context, *answer.ids])[len(prompt) :]
        assert begun.startswith(answer.text) or "�" in begun


def test_a_stop_string_in_the_prompt_or_across_its_end_does_not_count():
    model = saying("char", "be or not\nto", "be\n\n")
    assert model.complete("be\n\n", stop="\n").text == "be or not"
    assert model.complete("be\n\n", stop="\nbe").text == "be or not\nto"


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["char", "byte", "byte_bpe"]),
    said=st.text("abtoe: é你😀\n", max_size=40),
    stops=st.lists(st.text("abtoe: é你😀\n", min_size=1, max_size=4), max_size=3),
)
def test_what_is_held_back_is_only_what_may_become_a_stop_string(kind, said, stops):
    tokenizer = TOKENIZERS["byte"] if kind == "char" else TOKENIZERS[kind]
    said = tokenizer.normalize(said)
    reader, given_out, seen = StopText(tokenizer, [], stops), "", ""
    for token_id in tokenizer.encode(said):
        given_out += reader.push(token_id)
        seen += tokenizer.pieces([token_id])[0]
        assert said.startswith(given_out)
        assert first_stop(given_out, stops) is None
        if reader.stopped:
            break
    given_out += reader.finish()
    by_character = next(
        (first_stop(said[:n], stops) for n in range(len(said) + 1) if first_stop(said[:n], stops) is not None), None
    )
    assert given_out == (said if by_character is None else said[:by_character])
    assert reader.stopped == (by_character is not None)


def test_the_length_limit_is_told():
    model = saying("char", " be, or not")
    assert model.complete("T", max_new_tokens=4).finish_reason == "length"
    assert model.complete("T", max_new_tokens=4).text == " be,"
    assert model.complete("T", max_new_tokens=11).finish_reason == "length"
    assert model.complete("T", max_new_tokens=12).finish_reason == "stop"


def test_an_empty_prompt_begins_after_the_boundary_token(monkeypatch):
    model, read = completer(), []
    model = Completer(model.model, model.tokenizer, engine="plain")
    step = model.model.step
    monkeypatch.setattr(model.model, "step", lambda ids, state: (read.append(ids.tolist()), step(ids, state))[1])
    assert model.complete("", max_new_tokens=3).prompt == ""
    assert read[0] == [[model.tokenizer.eos_id]]


def test_a_prompt_longer_than_the_context_slides_and_says_so():
    model = completer(max_len=16)
    answer = model.complete(TEXT[:40], max_new_tokens=20)
    assert answer.n_dropped >= 24 and len(answer.ids) == 20
    with pytest.raises(InputError, match="do not fit into this model's context"):
        model.complete(TEXT[:40], on_overflow="error")
    with pytest.raises(InputError, match="do not fit into this model's context"):
        model.stream(TEXT[:40], on_overflow="error")
    assert model.complete("To", max_new_tokens=5).n_dropped == 0
    assert completer(mixer=LSTMConfig(), max_len=16).complete(TEXT[:40]).n_dropped == 0


def test_unknown_characters_are_named_and_bytes_know_every_character():
    model = completer("char")
    with pytest.raises(InputError, match="prompt 2 has characters that this model does not know") as caught:
        model.complete(["To", "Zwöl Χ Z"])
    assert "'Z', 'w', 'Χ'" in str(caught.value)
    assert "byte" in str(caught.value)
    with pytest.raises(InputError, match="prompt 1 has characters"):
        model.stream("Χ")
    for kind in ("byte", "byte_bpe", "bpe"):
        assert completer(kind).complete("Χ \x00 \u200b", max_new_tokens=2).finish_reason in ("length", "stop")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(b"bytes", "prompt 1 is not text"), (None, "prompt 1 is not text"), ("\ud800", "prompt 1 is not Unicode text")],
)
def test_what_is_not_text_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        completer().complete([wrong])
    with pytest.raises(InputError, match=message.replace("prompt", "text")):
        completer().score([wrong])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temprature": 1}, "did you mean temperature"),
        ({"temperature": -1}, "temperature cannot be used"),
        ({"top_p": 2}, "top_p cannot be used"),
        ({"top_k": "many"}, "top_k cannot be used"),
        ({"n": 0}, "decoding setting n cannot be used"),
        ({"stop": [""]}, "empty stop string"),
        ({"stop": 3}, "stop cannot be used"),
        ({"sample": False, "n": 2}, "n 2 is more than beam 1"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_computed(wrong, message):
    with pytest.raises(InputError, match=message):
        completer().complete("To", **wrong)
    if "n" not in wrong:  # a stream is one sample
        with pytest.raises(InputError, match=message):
            completer().stream("To", **wrong)


def test_the_json_of_a_completion_has_every_token_with_its_probability():
    model = completer()
    answer = model.complete("To be", n=2, top=3, max_new_tokens=5)
    value = json.loads(answer.to_json())
    assert list(value) == ["prompt", "samples"] and value["prompt"] == "To be" and len(value["samples"]) == 2
    for sample, told in zip(answer.samples, value["samples"], strict=True):
        assert list(told) == ["text", "finish_reason", "n_dropped", "tokens"]
        assert told["text"] == sample.text == "".join(token["piece"] for token in told["tokens"])
        assert [token["log_prob"] for token in told["tokens"]] == list(sample.log_probs)
        for token in told["tokens"]:
            assert list(token) == ["id", "piece", "log_prob", "top"]
            assert len(token["top"]) == 3 and list(token["top"][0]) == ["id", "piece", "log_prob"]
            assert token["log_prob"] <= token["top"][0]["log_prob"] <= 0
    assert "top" not in json.loads(model.complete("To be").to_json())["samples"][0]["tokens"][0]
    assert "\n" not in answer.to_json()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_score_is_the_log_softmax_of_the_model_and_its_sums(kind):
    model, text = completer(kind, max_len=128), "To be, or not to be ö 😀\n"
    score = model.score(text)
    ids = model.tokenizer.encode(text)
    log_p = model.model(torch.tensor([[model.tokenizer.eos_id, *ids[:-1]]]))[0].log_softmax(-1)
    expected = log_p.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
    assert score.log_probs == pytest.approx(expected, abs=1e-4)
    assert list(score.ids) == ids and score.n_tokens == len(ids) and score.n_bytes == len(text.encode())
    assert score.perplexity == pytest.approx(math.exp(-sum(expected) / len(ids)), rel=1e-4)
    assert score.bits_per_byte == pytest.approx(-sum(expected) / math.log(2) / len(text.encode()), rel=1e-4)
    assert score.bits_per_byte * score.n_bytes == pytest.approx(
        math.log2(score.perplexity) * score.n_tokens, rel=1e-9
    )  # both are bits for the whole text
    assert {i for a, b in score.offsets for i in range(a, b)} == set(range(len(text)))
    assert model.score([text, "To"])[0].log_probs == pytest.approx(score.log_probs, abs=1e-4)


def test_a_score_tells_the_likeliest_tokens_and_what_it_did_not_know():
    model = completer("char")
    score = model.score("To Zeus", top=2)
    assert score.unknown == ("Z",) and "'Z'" in score.note
    assert model.score("To").note is None
    value = json.loads(score.to_json())
    assert list(value) == [
        "text", "n_tokens", "n_bytes", "log_prob", "perplexity", "bits_per_byte", "tokens", "unknown",
    ]  # fmt: skip
    assert list(value["tokens"][0]) == ["id", "piece", "start", "end", "log_prob", "top"]
    assert [token["piece"] for token in value["tokens"]] == ["T", "o", " ", "<unk>", "e", "u", "s"]
    assert len(value["tokens"][0]["top"]) == 2
    assert value["log_prob"] == pytest.approx(sum(token["log_prob"] for token in value["tokens"]))


def test_a_text_without_anything_cannot_be_scored():
    with pytest.raises(InputError, match="text 2 is empty"):
        completer().score(["To", ""])
