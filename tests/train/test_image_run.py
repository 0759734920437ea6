"""From a recipe and pictures to a run folder, and on from there: resumed, in several processes, fine-tuned."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from running import assert_same_checkpoint, interrupt_at, metrics_of, run, weights_of, without_times

from tripel import checkpoint
from tripel.data.batch import Batch
from tripel.errors import RecipeError
from tripel.models.build import build
from tripel.models.config import ImageVocabulary, ResNetConfig
from tripel.pipelines.load import load
from tripel.recipe import Recipe
from tripel.training.loss import batch_loss_sum, weighted_cross_entropy_sum
from tripel.training.precision import Worker

SIZE = 12
MODELS = {
    "vit": {
        "kind": "vit", "patch_size": 4, "n_layers": 2, "d_model": 32, "d_ff": 64,
        "mixer": {"kind": "attention", "n_heads": 2},
    },
    "resnet": {"kind": "resnet", "stem": "small", "stem_width": 8, "depths": [1, 1], "widths": [8, 16]},
    "hybrid": {
        "kind": "vit", "patch_size": 4, "stem": "conv", "stem_width": 8, "n_layers": 1, "d_model": 32, "d_ff": 64,
        "mixer": {"kind": "attention", "n_heads": 2}, "pool": "mean",
    },
}  # fmt: skip


def picture(label, rng):
    """Bars that lie, stand, or a ring, somewhere, in noise."""
    pixels = rng.integers(0, 60, (SIZE, SIZE))
    at = int(rng.integers(2, SIZE - 2))
    if label == "lying":
        pixels[at - 1 : at + 1, 1:-1] = 220
    elif label == "standing":
        pixels[1:-1, at - 1 : at + 1] = 220
    else:
        pixels[3:9, 3:9] = 220
        pixels[5:7, 5:7] = 20
    return Image.fromarray(pixels.astype(np.uint8))


def write_pictures(folder, n, seed):
    rng = np.random.default_rng(seed)
    for number in range(n):
        label = ("lying", "standing", "ring")[number % 3]
        (folder / label).mkdir(parents=True, exist_ok=True)
        picture(label, rng).save(folder / label / f"{number}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for seed, (name, n) in enumerate((("train", 150), ("valid", 45))):
        write_pictures(folder / name, n, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def recipe(data, overrides=(), model="resnet", augment=None, **train_settings):
    tree = {
        "task": {"kind": "classification", "label_smoothing": 0.05},
        "data": {
            "train": str(data / "train"), "valid": str(data / "valid"), "augment": augment or {"shift": 1}, "workers": 1,
        },
        "model": {"image_size": SIZE, "channels": 1, **MODELS[model]},
        "optim": {"lr": 5e-3, "warmup_steps": 4, "schedule": "constant"},
        "train": {
            "steps": 6, "tokens_per_step": 24, "micro_tokens": 12, "valid_every": 3, "log_every": 2,
            "precision": "float32", **train_settings,
        },
    }  # fmt: skip
    return Recipe.from_yaml(yaml.safe_dump(tree), overrides)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("model", MODELS)
def test_a_classifier_of_pictures_learns_and_its_folder_opens(data, tmp_path, model, optimizer):
    steps = 240 if model == "vit" else 90  # nothing tells it that neighbours belong together
    settings = {"steps": steps, "valid_every": 30, "micro_tokens": 24, "ema": 0.9}
    result, said = run(recipe(data, [f"optim.kind={optimizer}"], model, **settings), tmp_path / "run")
    assert result.metrics["accuracy"] > 0.9
    assert "class frequency" in said and "images/s" in said and "150 training pictures of 3 classes" in said
    loaded = checkpoint.load_run(tmp_path / "run")
    assert loaded.vocabulary.labels == ("lying", "ring", "standing")
    assert 0.1 < loaded.vocabulary.mean[0] < 0.5 and loaded.vocabulary.std[0] > 0.1
    assert load(tmp_path / "run").labels == loaded.vocabulary.labels
    assert "tokenizer" not in (tmp_path / "run" / "recipe.yaml").read_text()
    assert "pictures" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(data, tmp_path, monkeypatch, model, precision):
    changes = {"flip": True, "shift": 1, "erase": 0.5, "mixup": 0.4}
    chosen = recipe(data, model=model, augment=changes, ema=0.9, precision=precision)
    run(chosen, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        assert run(chosen, tmp_path / "parts")[0].reason == "interrupted"
    run(chosen, tmp_path / "parts", resume=True)
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "parts", 6)
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert without_times(metrics_of(tmp_path / "whole")) == without_times(metrics_of(tmp_path / "parts"))


def test_the_statistics_of_batches_are_trained_averaged_and_kept(data, tmp_path):
    run(recipe(data, ema=0.5, average_last=2), tmp_path / "run")
    fresh = build(recipe(data).model, ImageVocabulary(labels=("a", "b", "c"), mean=(0.0,), std=(1.0,))).state_dict()
    kept = checkpoint.load_run(tmp_path / "run").model.state_dict()
    names = [name for name in kept if "running" in name]
    assert names and all(not torch.equal(kept[name], fresh[name]) for name in names)


def test_the_bfloat16_twin_updates_the_masters_own_statistics_in_float32():
    config = ResNetConfig(image_size=8, channels=1, stem="small", stem_width=8, depths=(1,), widths=(8,))
    master = build(config, ImageVocabulary(labels=("a", "b"), mean=(0.0,), std=(1.0,)))
    worker = Worker(master, "bfloat16")
    worker.model.train()(torch.randn(4, 1, 8, 8))
    statistics = master.stages.stem.norm.running_mean
    assert statistics.dtype == torch.float32 and statistics.any()
    assert worker.model.stages.stem.norm.running_mean is statistics


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weighted_loss_is_that_of_pytorch_with_soft_targets(smoothing):
    h_ND, head = torch.randn(5, 4), (torch.randn(3, 4), torch.randn(3))
    targets, shares = torch.tensor([[0, 1], [1, 1], [2, 0], [0, 2], [1, 0]]), torch.rand(5)
    shares = torch.stack([shares, 1 - shares], 1)
    soft = torch.zeros(5, 3).scatter_add_(1, targets, shares)
    expected = F.cross_entropy(F.linear(h_ND, *head), soft, reduction="sum", label_smoothing=smoothing)
    found = weighted_cross_entropy_sum(h_ND, head, targets, shares, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)


def test_with_weights_of_one_the_loss_is_the_plain_one():
    config = ResNetConfig(
        image_size=8, channels=1, stem="small", stem_width=8, depths=(1,), widths=(8,), norm="group", n_groups=4
    )
    model = build(config, ImageVocabulary(labels=("a", "b"), mean=(0.0,), std=(1.0,)))
    inputs, targets = {"pixels_BCHW": torch.randn(4, 1, 8, 8)}, torch.tensor([0, 1, 1, 0])
    losses = [
        batch_loss_sum(model, Batch(inputs, targets, 4, 4, weights=weights), label_smoothing=0.1)
        for weights in (None, torch.ones(4))
    ]
    torch.testing.assert_close(*losses)


def test_class_weights_and_mixing_train(data, tmp_path):
    chosen = recipe(data, ["data.class_weights=balanced"], augment={"cutmix": 1.0, "operations": 2})
    result, _ = run(chosen, tmp_path / "run")
    assert result.step == 6


@pytest.mark.parametrize("model", MODELS)
def test_a_run_can_begin_with_another_and_other_classes(data, tmp_path, model):
    run(recipe(data, model=model), tmp_path / "first")
    write_pictures(tmp_path / "other", 30, 7)
    (tmp_path / "other" / "ring").rename(tmp_path / "other" / "round")
    tree = {
        "task": {"kind": "classification"},
        "init_from": str(tmp_path / "first"),
        "data": {"train": str(tmp_path / "other"), "valid_share": 0.3, "workers": 1},
        "train": {"steps": 2, "tokens_per_step": 8, "valid_every": 2, "precision": "float32"},
    }
    _, said = run(Recipe.from_yaml(yaml.safe_dump(tree)), tmp_path / "second")
    assert "with a new head" in said
    first, second = (checkpoint.load_run(tmp_path / name) for name in ("first", "second"))
    assert second.vocabulary.labels == ("lying", "round", "standing")
    assert (second.vocabulary.mean, second.vocabulary.std) == (first.vocabulary.mean, first.vocabulary.std)
    with pytest.raises(RecipeError, match="image|depths|d_model|widths"):
        key = "widths=[8, 32]" if model == "resnet" else "d_model=64"
        Recipe.from_yaml(yaml.safe_dump(tree), [f"model.{key}"])


def test_a_vision_transformer_goes_on_with_larger_pictures(data, tmp_path):
    run(recipe(data, model="vit"), tmp_path / "first")
    tree = {
        "task": {"kind": "classification"},
        "init_from": str(tmp_path / "first"),
        "data": {"train": str(data / "train"), "valid": str(data / "valid"), "workers": 1},
        "model": {"image_size": 24},
        "train": {"steps": 2, "tokens_per_step": 8, "valid_every": 2, "precision": "float32"},
    }
    run(Recipe.from_yaml(yaml.safe_dump(tree)), tmp_path / "second")
    assert checkpoint.load_run(tmp_path / "second").model.embedding.positions.weight.shape == (37, 32)


def test_a_recipe_of_pictures_has_no_tokenizer(data):
    with pytest.raises(RecipeError, match="no tokenizer section"):
        recipe(data, ["tokenizer.kind=bpe"])


def test_r_drop_and_mixing_exclude_each_other(data):
    with pytest.raises(RecipeError, match="r_drop"):
        recipe(data, ["train.r_drop=1.0"], augment={"mixup": 0.2})
