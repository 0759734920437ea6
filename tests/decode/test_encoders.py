"""Encoders prepared for inference give the model's hidden states, whatever computes them."""

import pytest
import torch

from tripel.decode import pack as pack_module
from tripel.decode.native import NativeEncoder, native_encoder
from tripel.decode.native.build import library
from tripel.decode.prepare import prepare_encoder
from tripel.errors import DeviceError
from tripel.inspection.taps import Recorder
from tripel.models.build import build
from tripel.models.config import EncoderConfig, Vocabulary

VOCABULARY = Vocabulary(
    source_size=97, target_size=97, pad_id=0, eos_id=3, start_id=2, mask_id=4, labels=("no", "yes", "perhaps")
)
ATTENTION = {"kind": "attention", "n_heads": 4}
OPTIONS = {
    "bert": {},
    "wide": {"d_model": 384, "d_ff": 512, "mixer": {"kind": "attention", "n_heads": 6}},
    "modern": {
        "mixer": {**ATTENTION, "rotary": True, "bias": False}, "wiring": "pre", "activation": "swiglu", "bias": False,
        "positions": "none", "token_types": 0, "norm_eps": 1e-5,
    },
    "rms": {"norm": "rms", "norm_eps": 1e-5, "activation": "relu", "embedding_norm": False, "wiring": "pre"},
    "grouped": {"mixer": {**ATTENTION, "n_kv_heads": 2, "qk_norm": True}, "positions": "sinusoidal", "embed_scale": True},
    "window": {"mixer": {**ATTENTION, "window": 3}},
    "squared": {"activation": "relu_squared", "wiring": "pre"},
    "tanh": {"activation": "gelu_tanh"},
    "lstm": {"mixer": {"kind": "lstm"}, "wiring": "pre", "positions": "none"},
    "conv": {"mixer": {"kind": "conv", "kernel": 3}, "wiring": "pre"},
}  # fmt: skip
HEADS = ("masked-token", "classes", "none")


def make(option, head="none"):
    torch.manual_seed(0)
    shape = {"n_layers": 2, "d_model": 64, "d_ff": 96, "max_len": 40, "mixer": ATTENTION, "initialisation": "glorot"}
    return build(EncoderConfig(**{**shape, "head": head, **OPTIONS[option]}), VOCABULARY).eval()


def batch_of(n=5, longest=17):
    generator = torch.Generator().manual_seed(1)
    ids_BT = torch.randint(5, 97, (n, longest), generator=generator)
    lengths_B = torch.randint(1, longest + 1, (n,), generator=generator)
    lengths_B[0] = longest
    valid_BT = torch.arange(longest) < lengths_B[:, None]
    return ids_BT.masked_fill(~valid_BT, 0), valid_BT


def prepared(model, engine, precision="float32"):
    if engine == "native" and (model.config.mixer.kind != "attention" or library("encoder") is None):
        pytest.skip("no native encoder for this mixer, or no compiler")
    return prepare_encoder(model, engine, precision)


@pytest.mark.parametrize("engine", ["native", "torch", "auto"])
@pytest.mark.parametrize("option", OPTIONS)
def test_hidden_states_are_the_models_with_padding_and_without(option, engine):
    model = make(option)
    fast = prepared(model, engine)
    ids_BT, valid_BT = batch_of()
    with torch.inference_mode():
        given, expected = fast.features(ids_BT, valid_BT), model.features(ids_BT, valid_BT)
        torch.testing.assert_close(given[valid_BT], expected[valid_BT], rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(fast.features(ids_BT), model.features(ids_BT), rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(fast.features(ids_BT[:1, :1]), model.features(ids_BT[:1, :1]), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("head", HEADS)
def test_heads_and_token_types_are_the_models(head, engine):
    model = make("bert", head)
    fast = prepared(model, engine)
    ids_BT, valid_BT = batch_of()
    types_BT = (torch.arange(17) > 6).long().expand(5, 17)
    with torch.inference_mode():
        given, expected = fast(ids_BT, valid_BT, types_BT), model(ids_BT, valid_BT, types_BT)
    if head == "masked-token":
        given, expected = given[valid_BT], expected[valid_BT]
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize(("engine", "precision"), [("native", "bfloat16"), ("torch", "bfloat16"), ("native", "int8")])
@pytest.mark.parametrize("option", ["bert", "wide", "modern"])
def test_smaller_numbers_give_nearly_the_same_hidden_states(option, engine, precision):
    model = make(option)
    fast = prepared(model, engine, precision)
    ids_BT, valid_BT = batch_of()
    with torch.inference_mode():
        given, expected = fast.features(ids_BT, valid_BT)[valid_BT], model.features(ids_BT, valid_BT)[valid_BT]
    assert given.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(given, expected, dim=-1).min() > 0.99


def test_an_answer_does_not_depend_on_the_number_of_texts():
    model = make("wide")
    fast = prepared(model, "auto")
    ids_BT, valid_BT = batch_of(40, 39)
    with torch.inference_mode():
        together = fast.features(ids_BT, valid_BT)
        for row in range(0, 40, 7):
            alone = fast.features(ids_BT[row : row + 1], valid_BT[row : row + 1])
            torch.testing.assert_close(alone[0][valid_BT[row]], together[row][valid_BT[row]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [7, 90], ids=["threads share a product", "threads read texts of their own"])
def test_hidden_states_do_not_depend_on_the_number_of_threads(n):
    model = make("wide")
    fast, (ids_BT, valid_BT) = prepared(model, "native"), batch_of(n, 39)
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            given = [(torch.set_num_threads(k), fast.features(ids_BT, valid_BT))[1] for k in (1, 2, 5)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(given[0], given[1]) and torch.equal(given[0], given[2])


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_taps_are_those_of_the_model(engine):
    model = make("bert")
    ids_BT, _ = batch_of()
    mine, theirs = Recorder(), Recorder()
    with torch.inference_mode():
        prepared(model, engine).features(ids_BT, taps=mine)
        model.features(ids_BT, taps=theirs)
    assert set(mine) == set(theirs) and all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_without_packing_operators_and_without_a_compiler_all_is_still_there(monkeypatch):
    monkeypatch.setenv("TRIPEL_NATIVE", "0")
    monkeypatch.setattr(pack_module, "packing_works", lambda *_: False)
    library.cache_clear() if hasattr(library, "cache_clear") else None
    model, (ids_BT, valid_BT) = make("wide"), batch_of()
    fast = prepare_encoder(model)
    assert not isinstance(fast, NativeEncoder)
    with torch.inference_mode():
        given, expected = fast.features(ids_BT, valid_BT), model.features(ids_BT, valid_BT)
    torch.testing.assert_close(given[valid_BT], expected[valid_BT], rtol=1e-4, atol=2e-5)
    with pytest.raises(DeviceError, match="native encoder cannot be used here"):
        prepare_encoder(model, "native")
    with pytest.raises(DeviceError):
        prepare_encoder(model, "auto", "int8")
    monkeypatch.undo()
    library.cache_clear() if hasattr(library, "cache_clear") else None


def test_what_the_library_cannot_compute_is_left_to_pytorch():
    assert native_encoder(make("lstm")) is None
    model = make("bert")
    fast = prepared(model, "native")
    with pytest.raises((IndexError, RuntimeError)):
        fast.features(torch.tensor([[5, 97]]))
    ids_BT, _ = batch_of()
    holes_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    holes_BT[:, 3] = False
    with torch.inference_mode():
        given, expected = fast.features(ids_BT, holes_BT), model.features(ids_BT, holes_BT)
    torch.testing.assert_close(given[holes_BT], expected[holes_BT], rtol=1e-4, atol=2e-5)
