"""ViT and ResNet folders of transformers: equal logits, both ways, and pictures prepared alike."""

import ast
import json
import re

import numpy as np
import pytest
import torch
from folders import edit, randomised, store
from image_folders import LABELS, RESNETS, THEIRS, VITS, logits, pictures, their_model
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, ResNetModel, ViTModel
from transformers import ResNetConfig as TheirResNet
from transformers import ViTConfig as TheirViT
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

from tripel import checkpoint
from tripel.data.pictures import fitted, read_picture
from tripel.errors import FormatError
from tripel.hf import express
from tripel.hf.convert import export_folder, import_folder, largest_difference
from tripel.hf.images import KEY, PREPROCESSOR, preprocessor, read_vocabulary
from tripel.models.build import build
from tripel.models.config import ImageVocabulary, ResNetConfig, ViTConfig
from tripel.models.vision import normalised


@pytest.mark.parametrize(("kind", "name"), THEIRS)
def test_their_folder_becomes_a_run_with_equal_logits_and_goes_back_unchanged(kind, name, tmp_path):
    theirs = their_model(kind, name)
    theirs.save_pretrained(tmp_path / "theirs")
    conversion = import_folder(tmp_path / "theirs", tmp_path / "run")
    assert PREPROCESSOR in str(conversion)
    run = checkpoint.load_run(tmp_path / "run")
    assert run.vocabulary.labels == tuple(LABELS.values())
    x = pictures(run.model.config.channels)
    torch.testing.assert_close(logits(run.model, x), logits(theirs, x), rtol=1e-4, atol=1e-4)
    export_folder(tmp_path / "run", tmp_path / "back")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "back").eval()
    assert type(again) is type(theirs) and again.config.id2label == LABELS
    torch.testing.assert_close(logits(again, x), logits(theirs, x), rtol=1e-5, atol=1e-5)
    if name != "without biases of attention":
        before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "back"))
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_a_run_folder_itself_opens_in_transformers(tmp_path):
    vocabulary = ImageVocabulary(labels=("a", "b"), mean=(0.3,), std=(0.4,))
    sizes = {"image_size": 8, "channels": 1, "patch_size": 4, "n_layers": 1, "d_model": 16, "d_ff": 24}
    model = build(ViTConfig(**sizes, mixer={"kind": "attention", "n_heads": 2}), vocabulary).eval()
    checkpoint.save_run(tmp_path, model, None, recipe_yaml=None, card="# card\n")
    theirs = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    x = pictures(1, 8)
    torch.testing.assert_close(logits(theirs, x), logits(model, x), rtol=1e-4, atol=1e-4)
    settings = json.loads((tmp_path / PREPROCESSOR).read_text())
    assert settings["image_mean"] == [0.3] and settings["size"] == {"height": 8, "width": 8}


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_code_on_the_card_prints_our_answer(channels, fit, tmp_path, monkeypatch, capsys):
    mean, std = (0.3, 0.4, 0.5)[:channels], (0.4, 0.2, 0.3)[:channels]
    vocabulary = ImageVocabulary(labels=("a", "b"), mean=mean, std=std, fit=fit)
    sizes = {"image_size": 8, "channels": channels, "patch_size": 4, "n_layers": 1, "d_model": 16, "d_ff": 24}
    model = randomised(build(ViTConfig(**sizes, mixer={"kind": "attention", "n_heads": 2}), vocabulary))
    checkpoint.save_run(tmp_path, model, None, recipe_yaml=None, card="# card\n")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    printed = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    shares = printed if isinstance(printed, dict) else {answer["label"]: answer["score"] for answer in printed}
    picture = read_picture(tmp_path / "picture.png", channels=channels, max_pixels=100)
    ours = fitted(picture, 8, fit=fit, crop_share=1.0, resample="bilinear")
    expected = logits(model, normalised(torch.from_numpy(ours.copy())[None], vocabulary)).softmax(dim=-1)[0]
    assert [shares["a"], shares["b"]] == pytest.approx(expected.tolist(), abs=1e-4)


def test_positions_for_pictures_of_another_size_are_theirs(tmp_path):
    theirs = their_model("vit", "plain")
    theirs.save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "run")
    x = pictures(3, 28)
    with torch.inference_mode():
        expected = theirs(x, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(logits(checkpoint.load_run(tmp_path / "run").model, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [ViTModel, ResNetModel])
def test_a_folder_without_a_head_is_refused(kind, tmp_path):
    model = ViTModel(TheirViT(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4))
    if kind is ResNetModel:
        model = ResNetModel(TheirResNet(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"))
    model.save_pretrained(tmp_path / "theirs")
    with pytest.raises(FormatError):
        import_folder(tmp_path / "theirs", tmp_path / "run")


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (ViTConfig(image_size=32, pool="mean"), "model.pool: mean"),
        (ViTConfig(image_size=32, stem="conv"), "model.stem: conv"),
        (ViTConfig(image_size=32, positions="sinusoidal"), "model.positions: sinusoidal"),
        (ViTConfig(image_size=32, activation="swiglu"), "model.activation: swiglu"),
        (ViTConfig(image_size=32, mixer={"kind": "attention", "n_heads": 12, "rotary": True}), "rotary"),
        (ResNetConfig(stem="small"), "model.stem: small"),
        (ResNetConfig(norm="group"), "model.norm: group"),
        (ResNetConfig(pool="max"), "model.pool: max"),
        (ResNetConfig(dropout=0.1), "model.dropout: 0.1"),
    ],
)
def test_options_without_a_word_there_are_named(config, option):
    with pytest.raises(FormatError, match=re.escape(option)):
        express(config, ImageVocabulary(labels=("a",), mean=(0.5,) * 3, std=(0.5,) * 3))


COLOURS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3}
SQUARE = {"height": 16, "width": 16}
CENTRE = {"do_center_crop": True, "crop_size": SQUARE}
SETTINGS = {
    "stretched": {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "resample": 2},
    "shortest edge": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 16}, "crop_pct": 0.8},
    "centre": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, **CENTRE},
    "centre of as large a square": {"image_processor_type": "DeiTImageProcessor", "size": SQUARE, **CENTRE},
    "a number, square": {"image_processor_type": "ViTImageProcessor", "size": 16},
    "a number, shorter side": {
        "image_processor_type": "CLIPImageProcessor", "size": 20, "do_center_crop": True, "crop_size": 16,
    },
    "a number, ConvNext": {"image_processor_type": "ConvNextImageProcessor", "size": 16, "crop_pct": 0.8},
    "two numbers": {"image_processor_type": "ViTImageProcessor", "size": [16, 16]},
    "pixels of 0 to 2": {
        "image_processor_type": "ViTImageProcessor", "size": SQUARE, "rescale_factor": 2 / 255,
        "image_mean": [0.2, 0.4, 0.6], "image_std": [0.8, 1.0, 1.2],
    },
    "not normalised": {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "do_normalize": False},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_picture_becomes_the_numbers_that_their_processor_makes_of_it(kind, name, tmp_path):
    their_model(kind, next(iter({"vit": VITS, "resnet": RESNETS}[kind]))).save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / PREPROCESSOR).write_text(json.dumps(COLOURS | SETTINGS[name]))
    assert import_folder(tmp_path / "theirs", tmp_path / "run").notes == ()
    run = checkpoint.load_run(tmp_path / "run")
    vocabulary = run.vocabulary
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((45, 35), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "picture.png")
    picture = read_picture(tmp_path / "picture.png", channels=3, max_pixels=10_000)
    pixels = fitted(picture, 16, fit=vocabulary.fit, crop_share=vocabulary.crop_share, resample=vocabulary.resample)
    ours = normalised(torch.from_numpy(pixels)[None], vocabulary)
    export_folder(tmp_path / "run", tmp_path / "back")
    for folder in ("theirs", "back"):
        processor = AutoImageProcessor.from_pretrained(tmp_path / folder, backend="pil")
        expected = torch.as_tensor(np.array(processor(smooth, return_tensors="np")["pixel_values"]))
        torch.testing.assert_close(ours, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("side", [383, 384])
def test_their_processor_of_resnets_stretches_from_384_pixels_on(side):
    theirs = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": side}, "crop_pct": 0.875}
    vocabulary, _, _ = read_vocabulary({KEY: COLOURS | theirs}, ("a",), 3, None)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((45, 35), Image.Resampling.BICUBIC)
    ours = fitted(smooth, side, fit=vocabulary.fit, crop_share=vocabulary.crop_share, resample=vocabulary.resample)
    processor = ConvNextImageProcessorPil(**COLOURS, size={"shortest_edge": side}, crop_pct=0.875)
    expected = torch.as_tensor(np.array(processor(smooth, return_tensors="np")["pixel_values"]))
    found = normalised(torch.from_numpy(ours)[None], vocabulary)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("side", [32, 224, 299])
def test_the_size_before_the_centre_is_cut_out_comes_back_to_the_pixel(side):
    config = ResNetConfig(image_size=side)
    for shorter in range(side, 3 * side):
        size = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": shorter},
            "do_center_crop": True,
        }
        theirs = {**size, "crop_size": {"height": side, "width": side}}
        vocabulary, found, notes = read_vocabulary({KEY: theirs}, ("a",), 3, None)
        assert (found, notes) == (side, ())
        assert preprocessor(config, vocabulary)["size"] == {"shortest_edge": shorter}


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"size": SQUARE, "resample": 1}, "the folder says `lanczos`"),
        ({"size": SQUARE, "do_resize": False}, "leaves pictures at their size"),
        ({"size": {"shortest_edge": 16}}, "shortest_edge 16; Tripel makes squares of them"),
        (
            {"size": {"shortest_edge": 16, "longest_edge": 20}, **CENTRE},
            "longest_edge 20; Tripel makes squares of them",
        ),
        ({"size": {"height": 20, "width": 20}, **CENTRE}, "stretches pictures before"),
        ({"size": {"shortest_edge": 12}, **CENTRE}, "black rim"),
        ({"size": {"height": 20, "width": 20}}, "brought to the model's 16 pixels; the folder prepares them with 20"),
    ],
)
def test_what_is_done_otherwise_to_pictures_is_told(settings, note, tmp_path):
    their_model("vit", "plain").save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / PREPROCESSOR).write_text(json.dumps(settings))
    (found,) = import_folder(tmp_path / "theirs", tmp_path / "run").notes
    assert note in found


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"size": {"height": 16, "width": 20}}, "16 x 20"),
        ({"size": {"height": 1 << 20, "width": 1 << 20}}, "size.height"),
        ({"do_rescale": False}, "do_rescale"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"rescale_offset": True}, "rescale_offset"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"crop_pct": 1e-300}, "crop_pct"),
        ({"resample": 9}, "resample"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std"),
        ({"image_mean": [0.5]}, "image_mean"),
    ],
)
def test_a_preparation_that_cannot_be_had_is_refused_by_name(settings, part, tmp_path):
    their_model("vit", "plain").save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / PREPROCESSOR).write_text(json.dumps(settings))
    with pytest.raises(FormatError, match=re.escape(part)) as caught:
        import_folder(tmp_path / "theirs", tmp_path / "run")
    assert PREPROCESSOR in str(caught.value) and not (tmp_path / "run").exists()


def test_grey_pictures_take_a_mean_of_three_equal_numbers_and_no_other():
    theirs = {"size": SQUARE, "image_mean": [0.2] * 3, "image_std": [0.4] * 3}
    vocabulary, _, _ = read_vocabulary({KEY: theirs}, ("a",), 1, 16)
    assert (vocabulary.mean, vocabulary.std) == ((0.2,), (0.4,))
    with pytest.raises(FormatError, match="image_mean"):
        read_vocabulary({KEY: theirs | {"image_mean": [0.2, 0.3, 0.2]}}, ("a",), 1, 16)


def test_classes_of_one_name_are_told_apart(tmp_path):
    their_model("vit", "plain").save_pretrained(tmp_path / "theirs")
    edit(tmp_path / "theirs", id2label={"0": "crane (2)", "1": "crane", "2": "crane"})
    conversion = import_folder(tmp_path / "theirs", tmp_path / "run")
    assert checkpoint.load_run(tmp_path / "run").vocabulary.labels == ("crane (2)", "crane", "crane (2) (2)")
    assert "told apart by their numbers: crane (2) (2)" in str(conversion)
    edit(tmp_path / "theirs", id2label={"0": "crane", "1": "heron"})
    with pytest.raises(FormatError, match="2 names in id2label for 3 classes"):
        import_folder(tmp_path / "theirs", tmp_path / "other")


def test_what_a_classifier_does_not_use_is_left_out_and_sizes_may_be_pairs(tmp_path):
    theirs = their_model("vit", "plain")
    theirs.save_pretrained(tmp_path / "theirs")
    pooler = {"vit__pooler__dense__weight": torch.ones(16, 16), "vit__pooler__dense__bias": torch.ones(16)}
    store(tmp_path / "theirs", **pooler, vit__embeddings__mask_token=torch.ones(1, 1, 16))
    edit(tmp_path / "theirs", image_size=[16, 16], patch_size=[4, 4])
    import_folder(tmp_path / "theirs", tmp_path / "run")
    x = pictures(3)
    torch.testing.assert_close(logits(checkpoint.load_run(tmp_path / "run").model, x), logits(theirs, x))
    edit(tmp_path / "theirs", image_size=[16, 32])
    with pytest.raises(FormatError, match="image_size"):
        import_folder(tmp_path / "theirs", tmp_path / "other")


def test_a_resnet_that_claims_large_pictures_is_compared_on_small_ones():
    sizes = {"stem_width": 8, "depths": (1,), "widths": (8,)}
    model = build(
        ResNetConfig(image_size=4096, **sizes), ImageVocabulary(labels=("a",), mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    assert largest_difference(model, model) == 0.0
    assert seen and max(seen) <= 256
