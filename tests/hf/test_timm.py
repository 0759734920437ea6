"""timm's folders: equal logits, whichever way they are stored, and what cannot be taken over is named."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
import torch
from image_folders import LABELS, logits, pictures, their_model, to_timm
from safetensors.torch import load_file, save_file

from tripel import checkpoint
from tripel.errors import FormatError
from tripel.hf.convert import import_folder

PREPARED = {"input_size": [3, 16, 16], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "crop_pct": 0.8}
SETTINGS = {
    "vit": {"architecture": "vit_tiny_patch4_16", "model_args": {"num_heads": 2}},
    "resnet": {"architecture": "resnet18"},
}


def tensors_of(theirs, kind, folder):
    theirs.save_pretrained(folder / "theirs")
    return {
        name: x.contiguous() for name, x in to_timm(kind, load_file(folder / "theirs" / "model.safetensors")).items()
    }


def write_timm(folder, kind, tensors, **settings):
    """A folder of timm. settings: of config.json, beside those that every folder of the kind has."""
    folder.mkdir(exist_ok=True)
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": PREPARED, **SETTINGS[kind], **settings}))
    return folder


@pytest.mark.parametrize(("kind", "name"), [("vit", "plain"), ("resnet", "basic"), ("resnet", "bottleneck")])
def test_a_folder_of_timm_has_equal_logits(kind, name, tmp_path):
    theirs = their_model(kind, name)
    prepared = {**PREPARED, "interpolation": "bilinear", "label_names": list(LABELS.values())}
    folder = write_timm(tmp_path / "timm", kind, tensors_of(theirs, kind, tmp_path), pretrained_cfg=prepared)
    assert import_folder(folder, tmp_path / "run").notes == ()
    run = checkpoint.load_run(tmp_path / "run")
    x = pictures(3)
    torch.testing.assert_close(logits(run.model, x), logits(theirs, x), rtol=1e-4, atol=1e-4)
    vocabulary = run.vocabulary
    assert (vocabulary.labels, vocabulary.mean) == (tuple(LABELS.values()), (0.5, 0.4, 0.3))
    assert (vocabulary.fit, vocabulary.crop_share, vocabulary.resample) == ("crop", 0.8, "bilinear")


_BY_TIMM = """
import sys
from unittest.mock import MagicMock
for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets",
             "torchvision.datasets.folder", "torchvision.ops", "torchvision.ops.misc", "torchvision.models",
             "torchvision.models.feature_extraction", "torchvision.utils"):
    sys.modules[name] = MagicMock()  # timm imports it for its data, which is not used here
import timm, torch
from safetensors.torch import save_file
from timm.models import save_for_hf
for name, channels in (("vit_tiny_patch16_224", 3), ("resnet18", 3), ("resnet50", 1)):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, in_chans=channels).eval()
    x = torch.randn(2, channels, 224, 224)
    save_for_hf(model, f"{sys.argv[1]}/{name}", {"label_names": ["a", "b", "c", "d"]}, safe_serialization=True)
    with torch.inference_mode():
        save_file({"x": x, "logits": model(x)}, f"{sys.argv[1]}/{name}-expected")
"""


@pytest.fixture(scope="module")
def folders_by_timm(tmp_path_factory):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed (pip install --no-deps timm)")
    folder = tmp_path_factory.mktemp("by-timm")
    done = subprocess.run([sys.executable, "-c", _BY_TIMM, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"timm cannot be imported here: {done.stderr.splitlines()[-1]}")
    return folder


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "resnet50"])
def test_folders_that_timm_itself_writes_have_equal_logits(name, folders_by_timm, tmp_path):
    assert import_folder(folders_by_timm / name, tmp_path / "run").notes == ()
    run = checkpoint.load_run(tmp_path / "run")
    expected = load_file(folders_by_timm / f"{name}-expected")
    torch.testing.assert_close(logits(run.model, expected["x"]), expected["logits"], rtol=1e-4, atol=1e-4)
    theirs = json.loads((folders_by_timm / name / "config.json").read_text())["pretrained_cfg"]
    vocabulary = run.vocabulary
    assert (vocabulary.labels, vocabulary.mean) == (("a", "b", "c", "d"), tuple(theirs["mean"]))
    assert (vocabulary.resample, run.model.config.image_size) == (theirs["interpolation"], theirs["input_size"][-1])
    assert int(224 / vocabulary.crop_share) == int(224 / theirs["crop_pct"])


class Harmful:
    """What makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "deit.pth", "weights.pt"])
def test_a_pickled_file_is_named_and_not_opened(file, tmp_path):
    folder = write_timm(tmp_path / "timm", "resnet", None)
    torch.save({"fc.weight": Harmful(folder / "harm")}, folder / file)
    with pytest.raises(FormatError, match=f"(?s){re.escape(file)}.*save_file"):
        import_folder(folder, tmp_path / "run")
    assert not (folder / "harm").exists() and not (tmp_path / "run").exists()


NAMES = ["n01", "n02", "n03"]
DESCRIBED = {"n01": "bird", "n02": "fish", "n03": "worm"}


@pytest.mark.parametrize(
    "settings",
    [
        {"label_names": NAMES, "label_descriptions": DESCRIBED},
        {"pretrained_cfg": {**PREPARED, "label_names": NAMES, "label_descriptions": DESCRIBED}},
        {"label_names": {"0": "bird", "1": "fish", "2": "worm"}},
        {"pretrained_cfg": None, **PREPARED, "labels": list(DESCRIBED.values())},
    ],
    ids=["beside", "inside", "by number", "all in one, as once"],
)
def test_names_of_classes_are_found_wherever_timm_has_put_them(settings, tmp_path):
    folder = write_timm(
        tmp_path / "timm", "resnet", tensors_of(their_model("resnet", "basic"), "resnet", tmp_path), **settings
    )
    if settings.get("pretrained_cfg", PREPARED) is None:
        (folder / "config.json").write_text(
            json.dumps({**SETTINGS["resnet"], **PREPARED, "labels": settings["labels"]})
        )
    assert import_folder(folder, tmp_path / "run").notes == ()
    vocabulary = checkpoint.load_run(tmp_path / "run").vocabulary
    assert (vocabulary.labels, vocabulary.mean) == (("bird", "fish", "worm"), (0.5, 0.4, 0.3))


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"pretrained_cfg": None}, "no pretrained_cfg"),
        ({"label_names": None}, "LABEL_0"),
        ({"pretrained_cfg": {**PREPARED, "crop_mode": "border"}}, "rim"),
        ({"pretrained_cfg": {**PREPARED, "crop_mode": "squash"}}, "stretches"),
        ({"pretrained_cfg": {**PREPARED, "interpolation": "lanczos"}}, "`lanczos`"),
    ],
)
def test_what_a_folder_of_timm_leaves_open_or_does_otherwise_is_told(settings, note, tmp_path):
    tensors = tensors_of(their_model("resnet", "basic"), "resnet", tmp_path)
    folder = write_timm(tmp_path / "timm", "resnet", tensors, **{"label_names": ["a", "b", "c"], **settings})
    (found,) = import_folder(folder, tmp_path / "run").notes
    assert note in found


def test_squashed_pictures_of_which_nothing_is_cut_are_stretched(tmp_path):
    prepared = {**PREPARED, "crop_mode": "squash", "crop_pct": 1.0}
    tensors = tensors_of(their_model("resnet", "basic"), "resnet", tmp_path)
    settings = {"pretrained_cfg": prepared, "label_names": ["a", "b", "c"]}
    assert import_folder(write_timm(tmp_path / "timm", "resnet", tensors, **settings), tmp_path / "run").notes == ()
    assert checkpoint.load_run(tmp_path / "run").vocabulary.fit == "stretch"


@pytest.mark.parametrize(
    ("kind", "settings", "part"),
    [
        ("vit", {"global_pool": "avg"}, "global_pool: avg"),
        ("vit", {"model_args": {"num_heads": 2, "act_layer": "quick_gelu"}}, "act_layer: quick_gelu"),
        ("vit", {"model_args": {}}, "model_args.num_heads"),
        ("resnet", {"global_pool": "max"}, "global_pool: max"),
        ("resnet", {"model_args": {"output_stride": 8}}, "output_stride: 8"),
        ("resnet", {"architecture": "resnetaa50"}, "resnetaa50"),
        ("resnet", {"architecture": "resnetblur18"}, "resnetblur18"),
        ("resnet", {"pretrained_cfg": {**PREPARED, "input_size": [3, 16, 20]}}, "16 x 20"),
        ("resnet", {"pretrained_cfg": {**PREPARED, "crop_pct": 1e-300}}, "crop_pct"),
        ("resnet", {"pretrained_cfg": {**PREPARED, "input_size": [3, 1 << 40, 1 << 40]}}, "input_size"),
    ],
)
def test_what_weights_do_not_show_is_refused_by_name(kind, settings, part, tmp_path):
    tensors = tensors_of(their_model(kind, {"vit": "plain", "resnet": "basic"}[kind]), kind, tmp_path)
    with pytest.raises(FormatError, match=re.escape(part)):
        import_folder(write_timm(tmp_path / "timm", kind, tensors, **settings), tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "name", "tensor", "part"),
    [
        ("vit", "reg_token", torch.zeros(1, 4, 16), "reg_token"),
        ("vit", "blocks.0.ls1.gamma", torch.zeros(16), "blocks.0.ls1.gamma"),
        ("vit", "blocks.0.attn.qkv.bias", torch.tensor(0.0), "blocks.0.attn.qkv.bias"),
        ("vit", "pos_embed", torch.zeros(1, 16, 16), "16 positions"),
        ("vit", "pos_embed", torch.zeros(16), "positions [16]"),
        ("vit", "norm.weight", None, "no norm.weight"),
        ("resnet", "conv1.weight", torch.zeros(8, 3, 3, 3), "[8, 3, 3, 3]"),
        ("resnet", "maxpool.weight", torch.zeros(8), "maxpool.weight"),
        ("resnet", "alone", torch.zeros(8), "alone"),
        ("resnet", "layer4.0.conv1.weight", torch.zeros(8, 8, 3, 3), "stages [1, 2, 4]"),
    ],
)
def test_other_weights_than_those_of_a_plain_model_are_named(kind, name, tensor, part, tmp_path):
    tensors = tensors_of(their_model(kind, {"vit": "plain", "resnet": "basic"}[kind]), kind, tmp_path)
    tensors = {key: x for key, x in tensors.items() if key != name} | ({} if tensor is None else {name: tensor})
    with pytest.raises(FormatError, match=re.escape(part)):
        import_folder(write_timm(tmp_path / "timm", kind, tensors), tmp_path / "run")


def test_the_card_says_which_library_wrote_the_model(tmp_path):
    tensors = tensors_of(their_model("resnet", "basic"), "resnet", tmp_path)
    import_folder(write_timm(tmp_path / "timm", "resnet", tensors), tmp_path / "run")
    assert "model of timm" in (tmp_path / "run" / "README.md").read_text()
