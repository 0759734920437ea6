"""ViT and ResNet folders of transformers, and those of timm: equal logits, both ways, and pictures prepared alike."""

import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    ResNetForImageClassification,
    ResNetModel,
    ViTForImageClassification,
    ViTModel,
)
from transformers import ResNetConfig as TheirResNet
from transformers import ViTConfig as TheirViT

from tripel import checkpoint
from tripel.data.pictures import fitted, read_picture
from tripel.errors import FormatError
from tripel.hf.convert import export_folder, import_folder
from tripel.hf.images import PREPROCESSOR
from tripel.models.build import build
from tripel.models.config import ImageVocabulary, ResNetConfig, ViTConfig
from tripel.models.vision import normalised

LABELS = {0: "bird", 1: "fish", 2: "worm"}
NAMED = {"id2label": LABELS, "label2id": {label: number for number, label in LABELS.items()}}
VITS = {
    "plain": {"layer_norm_eps": 1e-6},
    "grey, tanh": {"num_channels": 1, "hidden_act": "gelu_new"},
    "without biases of attention": {"qkv_bias": False},
}
RESNETS = {
    "basic": {"layer_type": "basic", "depths": [1, 2]},
    "bottleneck": {"layer_type": "bottleneck", "depths": [2, 1]},
    "grey, stride in the first": {"downsample_in_bottleneck": True, "num_channels": 1, "depths": [1, 1]},
}
THEIRS = [("vit", name) for name in VITS] + [("resnet", name) for name in RESNETS]


def their_model(kind, name, seed=0):
    torch.manual_seed(seed)
    if kind == "vit":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        model = ViTForImageClassification(TheirViT(**sizes, image_size=16, patch_size=4, **NAMED, **VITS[name]))
    else:
        settings = TheirResNet(embedding_size=8, hidden_sizes=[16, 32], **NAMED, **RESNETS[name])
        model = ResNetForImageClassification(settings)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return model.eval()


def pictures(channels, size=16, n=3):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(3))


def logits(model, x):
    with torch.inference_mode():
        found = model(x)
    return found if isinstance(found, torch.Tensor) else found.logits


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
    assert "image-classification" in (tmp_path / "README.md").read_text()


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
    from tripel.hf import express

    with pytest.raises(FormatError, match=re.escape(option)):
        express(config, ImageVocabulary(labels=("a",), mean=(0.5,) * 3, std=(0.5,) * 3))


SETTINGS = {
    "stretched": {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "resample": 2,
        "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
    },
    "shortest edge": {
        "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 16}, "crop_pct": 0.8, "resample": 3,
        "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
    },
    "centre": {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "do_center_crop": True,
        "crop_size": {"height": 16, "width": 16}, "resample": 3,
        "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_picture_becomes_the_numbers_that_their_processor_makes_of_it(kind, name, tmp_path):
    from transformers import AutoImageProcessor

    their_model(kind, next(iter({"vit": VITS, "resnet": RESNETS}[kind]))).save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / PREPROCESSOR).write_text(json.dumps(SETTINGS[name]))
    import_folder(tmp_path / "theirs", tmp_path / "run")
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


def to_timm(kind, tensors):
    """Their tensors under timm's names, written from timm's source code (vision_transformer.py, resnet.py)."""
    renamed = {}
    if kind == "vit":
        plain = {
            "vit.embeddings.cls_token": "cls_token", "vit.embeddings.position_embeddings": "pos_embed",
            "vit.embeddings.patch_embeddings.projection.": "patch_embed.proj.", "vit.layernorm.": "norm.",
            "classifier.": "head.", "layernorm_before": "norm1", "layernorm_after": "norm2",
            "attention.output.dense": "attn.proj", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2",
            "vit.encoder.layer.": "blocks.",
        }  # fmt: skip
        for name, tensor in tensors.items():
            if match := re.fullmatch(r"vit\.encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)", name):
                parts = [tensors[name.replace("query", x)] for x in ("query", "key", "value")]
                renamed[f"blocks.{match[1]}.attn.qkv.{match[2]}"] = torch.cat(parts)
            elif "attention.attention" not in name:
                for old, new in plain.items():
                    name = name.replace(old, new)
                renamed[name] = tensor
        return renamed
    for name, tensor in tensors.items():
        name = re.sub(r"resnet\.embedder\.embedder\.convolution", "conv1", name)
        name = re.sub(r"resnet\.embedder\.embedder\.normalization", "bn1", name)
        name = re.sub(r"resnet\.encoder\.stages\.(\d)\.layers\.", lambda m: f"layer{int(m[1]) + 1}.", name)
        name = re.sub(r"layer\.(\d)\.convolution", lambda m: f"conv{int(m[1]) + 1}", name)
        name = re.sub(r"layer\.(\d)\.normalization", lambda m: f"bn{int(m[1]) + 1}", name)
        name = name.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")
        renamed[name.replace("classifier.1", "fc")] = tensor
    return renamed


@pytest.mark.parametrize(("kind", "name"), [("vit", "plain"), ("resnet", "basic"), ("resnet", "bottleneck")])
def test_a_folder_of_timm_has_equal_logits(kind, name, tmp_path):
    theirs = their_model(kind, name)
    theirs.save_pretrained(tmp_path / "theirs")
    tensors = to_timm(kind, load_file(tmp_path / "theirs" / "model.safetensors"))
    (tmp_path / "timm").mkdir()
    save_file({key: x.contiguous() for key, x in tensors.items()}, tmp_path / "timm" / "model.safetensors")
    prepared = {"input_size": [3, 16, 16], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "crop_pct": 0.8}
    settings = {
        "architecture": "resnet18" if kind == "resnet" else "vit_tiny_patch4_16",
        "pretrained_cfg": {**prepared, "interpolation": "bilinear", "label_names": list(LABELS.values())},
        "model_args": {"num_heads": 2},
    }
    (tmp_path / "timm" / "config.json").write_text(json.dumps(settings))
    import_folder(tmp_path / "timm", tmp_path / "run")
    run = checkpoint.load_run(tmp_path / "run")
    x = pictures(3)
    torch.testing.assert_close(logits(run.model, x), logits(theirs, x), rtol=1e-4, atol=1e-4)
    vocabulary = run.vocabulary
    assert (vocabulary.labels, vocabulary.mean) == (tuple(LABELS.values()), (0.5, 0.4, 0.3))
    assert (vocabulary.fit, vocabulary.crop_share, vocabulary.resample) == ("crop", 0.8, "bilinear")


_BY_TIMM = """
import json, sys
from unittest.mock import MagicMock
for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets",
             "torchvision.datasets.folder", "torchvision.ops", "torchvision.ops.misc", "torchvision.models",
             "torchvision.models.feature_extraction", "torchvision.utils"):
    sys.modules[name] = MagicMock()  # timm imports it for its data, which is not used here
import timm, torch
from safetensors.torch import save_file
name, folder = sys.argv[1:]
torch.manual_seed(0)
model = timm.create_model(name, num_classes=4).eval()
x = torch.randn(2, 3, 224, 224)
with torch.inference_mode():
    save_file({"x": x, "logits": model(x)}, f"{folder}/expected.safetensors")
save_file(model.state_dict(), f"{folder}/model.safetensors")
json.dump({"architecture": name, "num_classes": 4}, open(f"{folder}/config.json", "w"))
"""


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "resnet50"])
def test_models_that_timm_itself_builds_have_equal_logits(name, tmp_path):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed (pip install --no-deps timm)")
    (tmp_path / "timm").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _BY_TIMM, name, str(tmp_path / "timm")], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"timm cannot be imported here: {done.stderr.splitlines()[-1]}")
    import_folder(tmp_path / "timm", tmp_path / "run")
    expected = load_file(tmp_path / "timm" / "expected.safetensors")
    found = logits(checkpoint.load_run(tmp_path / "run").model, expected["x"])
    torch.testing.assert_close(found, expected["logits"], rtol=1e-4, atol=1e-4)


def test_additions_of_timm_are_named(tmp_path):
    theirs = their_model("vit", "plain")
    theirs.save_pretrained(tmp_path / "theirs")
    tensors = to_timm("vit", load_file(tmp_path / "theirs" / "model.safetensors"))
    (tmp_path / "timm").mkdir()
    save_file({**tensors, "reg_token": torch.zeros(1, 4, 16)}, tmp_path / "timm" / "model.safetensors")
    (tmp_path / "timm" / "config.json").write_text(json.dumps({"architecture": "vit_small_reg4"}))
    with pytest.raises(FormatError, match="reg_token"):
        import_folder(tmp_path / "timm", tmp_path / "run")
