"""Image classifiers prepared for inference give the model's hidden states, whatever computes them."""

import pytest
import torch
import torch.nn.functional as F

from tripel.decode import pack as pack_module
from tripel.decode import prepare_images as prepare_module
from tripel.decode.native.build import library
from tripel.decode.prepare_images import FoldedConv, PackedConv, prepare_images
from tripel.errors import DeviceError, InputError
from tripel.inspection.taps import Recorder
from tripel.models.build import build
from tripel.models.config import ImageVocabulary, ResNetConfig, ViTConfig
from tripel.nn.resnet import BatchNorm

ATTENTION = {"kind": "attention", "n_heads": 4}
VIT = {"image_size": 16, "channels": 3, "patch_size": 4, "n_layers": 2, "d_model": 64, "d_ff": 96, "mixer": ATTENTION}
RESNET = {"image_size": 16, "channels": 3, "stem": "small", "stem_width": 16, "depths": (2, 1), "widths": (16, 32)}
OPTIONS = {
    "vit": {**VIT, "initialisation": "glorot"},
    "vit mean, sinusoidal": {**VIT, "pool": "mean", "positions": "sinusoidal"},
    "vit behind convolutions": {**VIT, "stem": "conv", "stem_width": 8},
    "vit behind convolutions, group norm": {**VIT, "stem": "conv", "stem_width": 8, "stem_norm": "group"},
    "vit modern": {
        **VIT,
        "activation": "swiglu",
        "norm": "rms",
        "mixer": {**ATTENTION, "n_kv_heads": 2, "bias": False},
    },
    "vit post": {**VIT, "wiring": "post", "activation": "gelu_tanh"},
    "lstm over patches": {**VIT, "mixer": {"kind": "lstm"}, "pool": "mean"},
    "resnet": RESNET,
    "resnet imagenet": {**RESNET, "stem": "imagenet", "image_size": 32},
    "resnet bottleneck": {**RESNET, "block": "bottleneck"},
    "resnet gelu": {**RESNET, "activation": "gelu"},
    "resnet group norm": {**RESNET, "norm": "group", "n_groups": 4},
}
VITS, RESNETS = ([name for name in OPTIONS if name.startswith(kind)] for kind in ("vit", "resnet"))


def make(option):
    """A model in evaluation mode whose batch norms have statistics and scales of their own."""
    torch.manual_seed(0)
    config = (ResNetConfig if option in RESNETS else ViTConfig)(**OPTIONS[option])
    vocabulary = ImageVocabulary(labels=("cat", "dog", "newt"), mean=(0.5,) * 3, std=(0.2,) * 3)
    model = build(config, vocabulary).train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
        model(torch.randn(8, 3, config.image_size, config.image_size) * 3 + 1)
    return model.eval()


def pictures(model, n=5, side=None):
    side = side or model.config.image_size
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def prepared(model, engine, precision="float32"):
    known = model.config.kind == "vit" and model.config.mixer.kind == "attention"
    if engine == "native" and not (known and library("encoder")):
        pytest.skip("no native code for this model, or no compiler")
    return prepare_images(model, engine, precision)


def close(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("engine", ["auto", "native", "torch"])
@pytest.mark.parametrize("option", OPTIONS)
@torch.inference_mode()
def test_hidden_states_and_logits_are_the_models(option, engine):
    model = make(option)
    fast = prepared(model, engine)
    for n in (5, 1, 0):
        pixels = pictures(model, n)
        before = pixels.clone()
        close(fast.features(pixels), model.features(pixels)) if n else None
        assert fast.features(pixels).shape == model.features(pixels).shape
        close(fast(pixels), model(pixels)) if n else None
        assert torch.equal(pixels, before)


@pytest.mark.parametrize("option", ["vit", "vit behind convolutions", "resnet"])
@torch.inference_mode()
def test_pictures_of_another_size_give_the_models_hidden_states(option):
    model = make(option)
    pixels = pictures(model, 3, side=24)
    close(prepare_images(model).features(pixels), model.features(pixels))


@pytest.mark.parametrize(
    ("option", "engine", "precision"),
    [(option, engine, "bfloat16") for option in OPTIONS for engine in ("torch", "auto")]
    + [(option, "native", "int8") for option in VITS],
)
@torch.inference_mode()
def test_smaller_numbers_give_nearly_the_same_hidden_states(option, engine, precision):
    model = make(option)
    fast, pixels = prepared(model, engine, precision), pictures(model)
    given, expected = fast.features(pixels), model.features(pixels)
    assert given.dtype == torch.float32
    assert F.cosine_similarity(given, expected, dim=-1).min() > 0.98


@pytest.mark.parametrize("option", ["vit", "resnet"])
@pytest.mark.parametrize("engine", ["auto", "torch"])
@torch.inference_mode()
def test_an_answer_does_not_depend_on_the_number_of_pictures(option, engine, monkeypatch):
    monkeypatch.setattr(prepare_module, "TOGETHER", 96 * 16 * 3)  # three pictures at a time
    model = make(option)
    fast, pixels = prepare_images(model, engine), pictures(model, 11)
    together = fast(pixels)
    for row in range(0, 11, 3):
        close(fast(pixels[row : row + 1])[0], together[row])


@pytest.mark.parametrize("option", VITS)
@torch.inference_mode()
def test_logits_are_those_of_all_hidden_states_whatever_the_last_block_leaves_out(option):
    model = make(option)
    fast, pixels = prepare_images(model), pictures(model, 70)
    close(fast(pixels), fast.logits(fast.pooled(fast.features(pixels))))
    asked = model.config.pool == "cls" and fast.of_class_token is not None
    assert asked == (model.config.pool == "cls" and library("encoder") is not None)


@pytest.mark.parametrize("option", ["vit", "resnet"])
@torch.inference_mode()
def test_taps_are_those_of_the_model(option):
    model = make(option)
    pixels, mine, theirs = pictures(model), Recorder(), Recorder()
    prepare_images(model).features(pixels, taps=mine)
    model.features(pixels, taps=theirs)
    assert set(mine) == set(theirs) and all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("option", ["vit", "resnet"])
def test_a_gradient_of_the_pixels_is_the_models(option):
    model = make(option)
    given, expected = (
        torch.autograd.grad(m(pixels)[:, 0].sum(), pixels)[0]
        for m, pixels in ((m, pictures(model).requires_grad_()) for m in (prepare_images(model), model))
    )
    assert torch.equal(given, expected)


@pytest.mark.parametrize("option", ["vit behind convolutions", "resnet"])
def test_the_model_itself_stays_as_it_was(option):
    model = make(option).train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    fast = prepare_images(model, precision="bfloat16")
    with torch.inference_mode():
        fast(pictures(model))
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in fast.modules())
    assert all(torch.equal(x, before[name]) and x.dtype == torch.float32 for name, x in model.state_dict().items())
    model(pictures(model)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_no_batch_norm_is_left_to_compute():
    fast = prepare_images(make("resnet"))
    assert not any(isinstance(module, BatchNorm) for module in fast.body.modules())
    assert any(isinstance(module, PackedConv | FoldedConv) for module in fast.body.modules())


@pytest.mark.parametrize("option", OPTIONS)
@torch.inference_mode()
def test_without_private_operators_and_without_a_compiler_all_is_still_there(option, monkeypatch):
    monkeypatch.setattr(pack_module, "packing_works", lambda *_: False)
    monkeypatch.setattr(prepare_module, "conv_packing_works", lambda _: False)
    monkeypatch.setattr("tripel.decode.native.layers.library", lambda _: None)
    model = make(option)
    fast, pixels = prepare_images(model), pictures(model)
    assert not any(isinstance(module, PackedConv) for module in fast.modules())
    close(fast.features(pixels), model.features(pixels))
    for engine, precision in (("native", "float32"), ("auto", "int8")):
        with pytest.raises(DeviceError, match="native code cannot be used here"):
            prepare_images(model, engine, precision)


def test_a_private_operator_that_fails_or_errs_is_done_without(monkeypatch):
    prepare_module.conv_packing_works.cache_clear()
    monkeypatch.setattr(
        prepare_module, "_convolution", lambda x, *_: F.conv2d(x, torch.zeros(32, 16, 3, 3), None, 2, 1)
    )
    assert not prepare_module.conv_packing_works(torch.float32)
    prepare_module.conv_packing_works.cache_clear()
    monkeypatch.setattr(prepare_module, "_reorder", lambda *_: 1 / 0)
    assert not prepare_module.conv_packing_works(torch.float32)
    monkeypatch.undo()
    prepare_module.conv_packing_works.cache_clear()


def test_plain_is_the_model_and_a_resnet_has_no_native_code():
    model = make("resnet")
    assert prepare_images(model, "plain") is model
    with pytest.raises(DeviceError, match="resnet on cpu"):
        prepare_images(model, "native")


@pytest.mark.parametrize("option", ["vit", "resnet"])
def test_pictures_of_other_channels_are_refused_as_by_the_model(option):
    with pytest.raises(InputError, match="cannot take pictures"):
        prepare_images(make(option)).features(torch.zeros(2, 1, 16, 16))


@pytest.mark.parametrize("option", RESNETS)
def test_a_residual_networks_gradient_is_that_of_its_equations(option):
    """Training writes over what no backward pass needs; here nothing is written over."""
    model = make(option).double().train()
    stages, pixels = model.stages, pictures(model).double()
    activation = F.gelu if option == "resnet gelu" else F.relu

    def conv_norm(layer, x):
        y, norm = F.conv2d(x, layer.conv.weight, None, layer.conv.stride, layer.conv.padding), layer.norm
        if not isinstance(norm, BatchNorm):
            return F.group_norm(y, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return F.batch_norm(y, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)

    def plain(x):
        x = activation(conv_norm(stages.stem, x))
        x = F.max_pool2d(x, 3, 2, 1) if stages.pooled_stem else x
        for stage in stages.stages:
            for block in stage:
                y = x
                for layer in block.layers[:-1]:
                    y = activation(conv_norm(layer, y))
                other = x if block.shortcut is None else conv_norm(block.shortcut, x)
                x = activation(conv_norm(block.layers[-1], y) + other)
        return x

    probe = torch.randn_like(stages(pixels))
    given = torch.autograd.grad((stages(pixels) * probe).sum(), list(stages.parameters()))
    expected = torch.autograd.grad((plain(pixels) * probe).sum(), list(stages.parameters()))
    for mine, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
