"""The fast ways to compute a model: native code and packed weights, against the model itself."""

import copy
import random
import subprocess

import pytest
import torch
import torch.nn.functional as F

from tripel.decode import DecodeConfig, generate, prepare
from tripel.decode import native as native_package
from tripel.decode.candidates import Logits, Wish
from tripel.decode.native import build as native_build
from tripel.decode.native import library, native_model
from tripel.decode.pack import PackedLinear, pack, packing_works
from tripel.decode.session import TensorSession, open_session
from tripel.decode.workers import each
from tripel.errors import DeviceError
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.nn import AttentionConfig

V = 103
VARIANTS = {
    "paper": {},
    "pre-norm, gelu": {"wiring": "pre", "activation": "gelu", "sinusoid_order": "interleaved"},
    "no norm, silu, learned": {"wiring": "none", "positions": "learned", "activation": "silu", "tie": "none"},
    "head bias, no positions": {"head_bias": True, "positions": "none", "tie": "target", "embed_scale": False},
}
needs_library = pytest.mark.skipif(library() is None, reason="no C++ compiler here")


def make(variant, d_model=64, n_heads=2, seed=5):
    torch.manual_seed(seed)
    encoder = StackConfig(n_layers=2, mixer=AttentionConfig(n_heads=n_heads, bias=variant == "paper"))
    config = EncoderDecoderConfig(
        d_model=d_model, d_ff=70, encoder=encoder, decoder=encoder.model_copy(update={"d_ff": 34}), max_len=64,
        **VARIANTS[variant],
    )  # fmt: skip
    model = build(config, Vocabulary(source_size=V, target_size=V, pad_id=0, eos_id=3, start_id=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def sentences(n, seed=1):
    generator = random.Random(seed)
    return [[generator.randrange(4, V) for _ in range(generator.randrange(1, 20))] + [3] for _ in range(n)]


@needs_library
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("d_model", "n_heads"), [(64, 2), (40, 4), (128, 2)])
@torch.inference_mode()
def test_native_logits_are_those_of_the_model_whatever_rows_are_kept(variant, d_model, n_heads):
    model = make(variant, d_model, n_heads)
    sources = sentences(3)
    native = prepare(model, "native").open(sources, max_len=9, rows_per_sentence=2)
    plain = open_session(model, sources, max_len=9, rows_per_sentence=1)
    generator = random.Random(0)
    for kept, width in (([0, 1, 2], 2), ([0, 0, 1, 1, 2, 2], 1), ([1, 0, 3, 2, 4, 4], 1), ([2, 3, 4, 5], 1)):
        plain.keep(kept)
        native.keep(kept)
        ids = [[generator.randrange(4, V) for _ in range(width)] for _ in kept]
        expected, given = plain.read(ids, None).logits_NV, native.read(ids, None).logits_NV
        torch.testing.assert_close(given[:, :V], expected, rtol=1e-4, atol=1e-4)
        assert bool((given[:, V:] == -torch.inf).all())


@needs_library
@torch.inference_mode()
def test_native_candidates_are_those_of_the_full_logits():
    model = make("paper")
    sources = sentences(4)
    native = prepare(model, "native").open(sources, max_len=9, rows_per_sentence=1)
    again = prepare(model, "native").open(sources, max_len=9, rows_per_sentence=1)
    for wish in (Wish(1, [0.0] * 4, 4), Wish(6, [-1.0, -0.5, -2.0, -0.1], 2), Wish(500, [0.0, -9.0, 0.0, 0.0], 1)):
        ids = [[7], [8], [9], [10]]
        given = native.read(ids, wish)
        expected = again.read(ids, None).candidates(wish)
        n = len(expected.log_p[0])
        for ours, theirs in zip(given.log_p, expected.log_p, strict=True):
            assert ours[:n] == pytest.approx(theirs, abs=1e-4)
        finite = [[value > -1e30 for value in values] for values in expected.log_p]
        for ours, theirs in ((given.tokens, expected.tokens), (given.rows, expected.rows)):
            for a, b, real in zip(ours, theirs, finite, strict=True):
                assert [x for x, ok in zip(a, real, strict=False) if ok] == [
                    x for x, ok in zip(b, real, strict=True) if ok
                ]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("engine", [pytest.param("native", marks=needs_library), "torch"])
@pytest.mark.parametrize("beam", [1, 4])
def test_every_engine_gives_the_answers_of_the_model(variant, engine, beam):
    model = make(variant)
    fast = prepare(model, engine)
    config = DecodeConfig(beam=beam, n_best=beam, max_length_ratio=1.0, max_length_extra=6)
    sources = sentences(12)
    ours, plain = generate(fast, sources, config), generate(model, sources, config)
    assert [[a.ids for a in answers] for answers in ours] == [[a.ids for a in answers] for answers in plain]
    for a, b in zip(ours, plain, strict=True):
        assert [x.score for x in a] == pytest.approx([x.score for x in b], abs=1e-4)
        assert [x.finish_reason for x in a] == [x.finish_reason for x in b]


@needs_library
@pytest.mark.parametrize("settings", [{"sample": True, "n_best": 3}, {"beam": 3, "no_repeat_ngram": 2}])
def test_the_native_engine_obeys_settings_that_need_all_logits(settings):
    model = make("paper")
    config = DecodeConfig(**settings, max_length_extra=6)
    prefixes = [[5, 6]] * 6
    ours = generate(prepare(model, "native"), sentences(6), config, prefixes=prefixes)
    plain = generate(model, sentences(6), config, prefixes=prefixes)
    assert [[a.ids for a in answers] for answers in ours] == [[a.ids for a in answers] for answers in plain]


@needs_library
def test_native_answers_do_not_depend_on_the_batch_or_the_workers():
    fast, sources = prepare(make("paper"), "native"), sentences(40)
    for config in (DecodeConfig(beam=1), DecodeConfig(beam=3)):
        together = [answer for (answer,) in generate(fast, sources, config)]
        small = [answer for (answer,) in generate(fast, sources, config, batch_tokens=100, workers=3)]
        alone = [generate(fast, [source], config)[0][0] for source in sources]
        for others in (small, alone):
            assert [(a.ids, a.finish_reason) for a in together] == [(a.ids, a.finish_reason) for a in others]
            # Where the loop guard steps in, PyTorch sums what else the library does: another last bit.
            assert [a.score for a in together] == pytest.approx([a.score for a in others], abs=1e-6)


@needs_library
@torch.inference_mode()
def test_bfloat16_products_stay_close_to_float32():
    model = make("paper", 128, 4)
    sources = sentences(3)
    half = prepare(model, "native", "bfloat16").open(sources, max_len=3, rows_per_sentence=1)
    expected = open_session(model, sources, max_len=3, rows_per_sentence=1).read([[5], [6], [7]], None).logits_NV
    given = half.read([[5], [6], [7]], None).logits_NV[:, :V]
    difference = (given - expected)[:, 1:].abs().max()
    assert 0 < difference < 0.05 * expected[:, 1:].abs().max()


def test_preparing_leaves_the_model_as_it_was():
    model = make("paper")
    before = copy.deepcopy(model.state_dict())
    names = [name for name, _ in model.named_modules()]
    for engine in ("auto", "torch", "plain"):
        generate(prepare(model, engine), sentences(2), DecodeConfig(beam=2))
    assert [name for name, _ in model.named_modules()] == names
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training is False


def test_a_plain_model_follows_its_weights_and_a_prepared_one_does_not():
    model = make("no norm, silu, learned")
    plain, fast = prepare(model, "plain"), prepare(model)
    source, config = sentences(1), DecodeConfig(beam=1)
    first = generate(fast, source, config)
    with torch.no_grad():
        model.head.weight.neg_()
    assert generate(fast, source, config) == first
    assert generate(plain, source, config) != first


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize(("n_out", "n_in"), [(96, 64), (640, 512)])
def test_a_packed_linear_map_is_the_linear_map(rows, n_out, n_in):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(n_out, n_in), torch.randn(n_out), torch.randn(2, rows, n_in)
    torch.testing.assert_close(PackedLinear(weight, bias)(x), F.linear(x, weight, bias), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(PackedLinear(weight, None)(x), F.linear(x, weight), rtol=1e-4, atol=1e-3)


def test_without_the_private_operators_packing_falls_back(monkeypatch):
    monkeypatch.setattr("tripel.decode.pack._reorder", lambda weight: weight / 0)
    packing_works.cache_clear()
    try:
        assert not packing_works()
        model = make("paper")
        config = DecodeConfig(beam=2)
        assert [a[0].ids for a in generate(pack(model), sentences(3), config)] == [
            a[0].ids for a in generate(model, sentences(3), config)
        ]
    finally:
        packing_works.cache_clear()


@pytest.fixture
def fresh_library():
    library.cache_clear()
    yield
    library.cache_clear()


def test_the_native_engine_can_be_switched_off(monkeypatch, fresh_library):
    monkeypatch.setenv(native_build.SWITCH, "0")
    model = make("paper")
    assert library() is None
    assert isinstance(open_session(prepare(model), sentences(1), max_len=4, rows_per_sentence=1), TensorSession)
    with pytest.raises(DeviceError, match="native decoder cannot be used"):
        prepare(model, "native")


@pytest.mark.parametrize("trouble", ["no compiler", "a compiler that fails", "no room"])
def test_whatever_goes_wrong_with_compiling_decoding_works_without(trouble, monkeypatch, fresh_library, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if trouble == "no compiler":
        monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    elif trouble == "a compiler that fails":
        run = subprocess.run

        def failing(command, **options):
            return run([*command, "--no-such-option"] if "-shared" in command else command, **options)

        monkeypatch.setattr(native_build.subprocess, "run", failing)
    else:
        (tmp_path / "cache").write_text("a file where the folder should be")
    assert library() is None
    assert prepare(make("paper")) is not None
    assert not list(tmp_path.rglob("*.so"))


@needs_library
def test_a_library_that_computes_something_else_is_not_used(monkeypatch):
    model = make("paper")
    monkeypatch.setattr(native_package.model, "_agrees", lambda *args, **kwargs: False)
    assert native_model(model) is None


def test_workers_give_results_in_order_and_raise_what_they_meet():
    threads = torch.get_num_threads()
    assert list(each(lambda x: x * x, range(20), 3)) == [(x, x * x) for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(each(lambda x: 1 // x, [1, 0, 2], 2))
    assert torch.get_num_threads() == threads


def test_logits_never_offer_padding():
    logits = torch.zeros(1, 5)
    logits[0, 0] = 9.0
    assert Logits(logits, 0).candidates(Wish(4, [0.0], 1)).tokens[0].count(0) == 0
