"""The decoder-only model in native code, against the PyTorch model."""

import copy
import random

import pytest
import torch

from tripel.decode import native as native_package
from tripel.decode.candidates import Wish
from tripel.decode.native import NativeDecoder, library, native_decoder
from tripel.decode.native import build as native_build
from tripel.decode.pack import PackedLinear, pack
from tripel.decode.prepare import prepare_decoder
from tripel.errors import DeviceError
from tripel.models.build import build
from tripel.models.config import DecoderConfig, Vocabulary
from tripel.models.decoder import Decoder
from tripel.nn import AttentionConfig, ConvConfig, LSTMConfig, RNNConfig

V = 203
needs_library = pytest.mark.skipif(library("decoder") is None, reason="no C++ compiler here")
ROTARY = {"positions": "none", "mixer": {"rotary": True}}
VARIANTS = {
    "GPT-2": {},
    "Llama": {
        "norm": "rms", "activation": "swiglu", "bias": False, "tie": False, "positions": "none",
        "mixer": {"rotary": True, "n_kv_heads": 2, "bias": False},
    },
    "post-norm, gelu, sinusoids": {"wiring": "post", "activation": "gelu", "positions": "sinusoidal", "embed_scale": True},
    "post-norm, rms": {"wiring": "post", "norm": "rms", "activation": "relu"},
    "no norm, silu": {"wiring": "none", "activation": "silu", "head_bias": True},
    "squared relu, own head with bias": {"activation": "relu_squared", "tie": False, "head_bias": True},
    "swiglu with biases": {"activation": "swiglu"},
    "no feed-forward part": {"d_ff": 0},
    "window": {"mixer": {"window": 5}},
    "window of one": {"mixer": {"window": 1}, "positions": "none"},
    "rotary, window, one shared head": {"positions": "none", "mixer": {"rotary": True, "n_kv_heads": 1, "window": 70}},
    "rotary, another base": {"positions": "none", "mixer": {"rotary": True, "rotary_base": 500.0}},
    "normed queries and keys": {**ROTARY, "mixer": {"rotary": True, "qk_norm": True}},
    "normed, no positions": {"positions": "none", "mixer": {"qk_norm": True, "n_kv_heads": 2}},
}  # fmt: skip


def make(variant="GPT-2", d_model=64, n_heads=4, max_len=200, seed=5):
    torch.manual_seed(seed)
    options = dict(VARIANTS[variant])
    mixer = AttentionConfig(n_heads=n_heads, **options.pop("mixer", {}))
    config = DecoderConfig(
        **{"d_model": d_model, "d_ff": 90, "n_layers": 2, "max_len": max_len, **options}, mixer=mixer
    )
    model = build(config, Vocabulary(source_size=V, target_size=V, pad_id=0, eos_id=3, start_id=3)).eval()
    with torch.no_grad():  # no parameter may be where it was made: all zeros or all ones
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def native(model, precision="float32"):
    return NativeDecoder(model, library("decoder"), precision)


def texts(lengths, seed=1):
    generator = random.Random(seed)
    return [[generator.randrange(1, V) for _ in range(length)] for length in lengths]


@torch.inference_mode()
def logits_of(model, ids):
    """The model's logits after a text read in one go."""
    logits_V = model(torch.tensor([ids]))[0, -1]
    logits_V[model.vocabulary.pad_id] = -torch.inf
    return logits_V


def assert_logits(given, model, read, **tolerance):
    """given: Logits of rows that have read these ids."""
    assert given.logits_NV.shape[0] == len(read)
    for given_V, ids in zip(given.logits_NV, read, strict=True):
        torch.testing.assert_close(given_V[:V], logits_of(model, ids), **(tolerance or {"rtol": 1e-4, "atol": 1e-4}))
        assert bool((given_V[V:] == -torch.inf).all())


@needs_library
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("d_model", "n_heads"), [(64, 4), (40, 4), (256, 2)])
def test_logits_are_those_of_the_model_for_rows_of_any_lengths(variant, d_model, n_heads):
    if variant == "Llama" and n_heads == 2:
        pytest.skip("two heads have none to share")
    model = make(variant, d_model, n_heads)
    read = texts([3, 1, 100, 8])
    session, logits = native(model).open_rows(read, max_len=130)
    assert_logits(logits, model, read)
    for lengths in ([1, 1, 1, 1], [2, 1, 7, 12], [1, 1, 1, 1]):
        new = texts(lengths, seed=sum(lengths))
        read = [before + ids for before, ids in zip(read, new, strict=True)]
        assert_logits(session.read(new, None), model, read)


@needs_library
@pytest.mark.parametrize("variant", ["GPT-2", "Llama", "rotary, window, one shared head"])
def test_however_a_text_is_split_into_reads_its_logits_are_the_same(variant):
    model = make(variant)
    fast, (ids,) = native(model), texts([150])
    for pieces in ([150], [149, 1], [1, 149], [64, 64, 22], [1] * 20 + [130]):
        session, start = None, 0
        for piece in pieces:
            new = [ids[start : start + piece]]
            if session is None:
                session, logits = fast.open_rows(new, max_len=150)
            else:
                logits = session.read(new, None)
            start += piece
        assert_logits(logits, model, [ids])


@needs_library
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_row_gets_the_same_logits_alone_and_among_others(n_threads):
    fast, read = native(make("Llama", 128)), texts([1, 5, 64, 65, 130, 2, 2, 9])
    threads = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        _, together = fast.open_rows(read, max_len=140)
        alone = [fast.open_rows([ids], max_len=140)[1].logits_NV for ids in read]
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(together.logits_NV, torch.cat(alone), rtol=0, atol=1e-5)


@needs_library
def test_kept_rows_go_on_as_they_would_have():
    model = make("Llama")
    read = texts([4, 70, 9])
    session, _ = native(model).open_rows(read, max_len=90, rows_per_prompt=3)
    generator = random.Random(0)
    for kept in ([0, 0, 0, 1, 1, 1, 2, 2, 2], [8, 0, 3, 3, 1], [4, 3, 2, 1, 0], [2, 2, 0], [1]):
        session.keep(kept)
        new = [[generator.randrange(1, V)] for _ in kept]
        read = [read[row] + ids for row, ids in zip(kept, new, strict=True)]
        assert_logits(session.read(new, None), model, read)


@needs_library
def test_rows_added_later_and_rows_of_other_sessions_go_on_as_they_would_alone():
    model = make("Llama")
    fast, first, second, third = native(model), texts([3, 20]), texts([7], seed=2), texts([1, 66], seed=3)
    session, _ = fast.open_rows(first, max_len=100)
    assert_logits(session.add(second), model, second)
    other, _ = fast.open_rows(third, max_len=100)
    session.join(other)
    read, new = first + second + third, texts([1, 1, 2, 1, 1], seed=4)
    read = [before + ids for before, ids in zip(read, new, strict=True)]
    assert_logits(session.read(new, None), model, read)
    assert other.lengths == []


@needs_library
@pytest.mark.parametrize("tie", [True, False])
def test_candidates_are_those_of_the_full_logits(tie):
    fast = native(make("GPT-2" if tie else "squared relu, own head with bias"))
    prompts = texts([3, 1, 8, 30])
    for wish in (Wish(1, [0.0] * 4, 4), Wish(6, [-1.0, -0.5, -2.0, -0.1], 2), Wish(900, [0.0, -9.0, 0.0, 0.0], 1)):
        ids = [[7], [8], [9], [10]]
        given = fast.open_rows(prompts, max_len=40)[0].read(ids, wish)
        expected = fast.open_rows(prompts, max_len=40)[0].read(ids, None).candidates(wish)
        for ours, theirs in zip(given.log_p, expected.log_p, strict=True):
            assert ours[: len(theirs)] == pytest.approx([max(value, -torch.inf) for value in theirs], abs=1e-4)
        for log_p, ours, theirs in (
            (expected.log_p, given.tokens, expected.tokens),
            (expected.log_p, given.rows, expected.rows),
        ):
            for values, a, b in zip(log_p, ours, theirs, strict=True):
                real = [i for i, value in enumerate(values) if value > -1e30]
                assert [a[i] for i in real] == [b[i] for i in real]


# Both precisions round every weight and every product's input. bfloat16 has 8 significant bits, an error of up to 2^-9;
# 8 bits with a scale for every 32 numbers have one of about 1/254 of the block's greatest number. Over two layers and
# the head that adds up to about a hundredth of the largest logit; a wrong layout is off by the whole of it.
@needs_library
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize(("d_model", "n_heads"), [(128, 4), (44, 4)])
def test_lower_precisions_stay_close_to_the_model(variant, precision, d_model, n_heads):
    if d_model == 44 and ("rotary" in variant or "Llama" in variant or "normed" in variant):
        pytest.skip("rotary heads have an even width")
    model = make(variant, d_model, n_heads)
    read = texts([70, 1, 12])
    session, _ = native(model, precision).open_rows(read, max_len=80)
    given = session.read([[5], [6], [7]], None).logits_NV[:, 1:V]
    expected = torch.stack([logits_of(model, [*ids, i]) for i, ids in enumerate(read, start=5)])[:, 1:]
    difference = (given - expected).abs().max() / expected.abs().max()
    assert 0 < difference < 0.05


@needs_library
def test_a_copy_does_not_follow_the_model_and_the_model_is_left_as_it_was():
    model = make()
    before = copy.deepcopy(model.state_dict())
    model.train()
    fast, ids = prepare_decoder(model, "native"), texts([6])
    assert model.training
    first = fast.open_rows(ids, max_len=8)[1].logits_NV
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    assert torch.equal(fast.open_rows(ids, max_len=8)[1].logits_NV, first)


@needs_library
def test_what_the_library_would_trust_is_checked():
    fast = native(make(max_len=16))
    with pytest.raises(ValueError, match="16 positions"):
        fast.open_rows([[1]], max_len=17)
    session, _ = fast.open_rows([[1, 2], [3]], max_len=4)
    for ids, match in (
        ([[1]], "2 rows"),
        ([[1], []], "at least one id"),
        ([[1], [V]], "ids lie in"),
        ([[1], [-1]], "ids lie in"),
        ([[1, 2, 3], [1]], "holds 4 positions"),
    ):
        with pytest.raises(ValueError, match=match):
            session.read(ids, None)
    assert session.lengths == [2, 1]
    with pytest.raises(ValueError, match="holds 4 positions"):
        session.add([[1] * 5])
    for rows in ([2], [-1]):
        with pytest.raises(ValueError, match="2 rows to keep from"):
            session.keep(rows)
    assert session.read([[1], [1]], None).logits_NV.shape[0] == 2


@pytest.fixture
def fresh_library():
    library.cache_clear()
    yield
    library.cache_clear()


def test_without_a_compiler_the_model_is_packed(monkeypatch, fresh_library):
    monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    model = make("Llama")
    fast = prepare_decoder(model, "auto", "int8")
    assert isinstance(fast, Decoder)
    assert isinstance(fast.decoder.blocks[0].mixer.output, PackedLinear)
    with pytest.raises(DeviceError, match="native decoder cannot be used"):
        prepare_decoder(model, "native")


@needs_library
def test_a_library_that_computes_something_else_is_not_used(monkeypatch):
    monkeypatch.setattr(native_package.decoder, "_agrees", lambda *args, **kwargs: False)
    assert native_decoder(make()) is None


MIXERS = [RNNConfig(), LSTMConfig(), ConvConfig(), AttentionConfig(n_heads=4, n_kv_heads=2), AttentionConfig(n_heads=4)]


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.kind)
def test_a_packed_model_steps_as_the_model_does(mixer):
    torch.manual_seed(0)
    config = DecoderConfig(d_model=128, d_ff=1100, n_layers=2, mixer=mixer, positions="none", activation="swiglu")
    model = build(config, Vocabulary(source_size=V, target_size=V, pad_id=0, eos_id=3, start_id=3)).eval()
    fast = prepare_decoder(model, "torch")
    assert fast is not model
    assert not NativeDecoder.supports(model) or mixer.kind == "attention"
    states = model.init_state(2, 12), fast.init_state(2, 12)
    with torch.inference_mode():
        for T in (5, 1, 1, 3):
            ids_NT = torch.randint(V, (2, T))
            expected, given = model.step(ids_NT, states[0]), fast.step(ids_NT, states[1])
            torch.testing.assert_close(given[:, :V], expected, rtol=1e-4, atol=1e-4)
    assert pack(model) is not fast
