"""What every image classifier must do, for each such row of the table of cells and each way of its stem, pool and norm."""

import pytest
import torch

from tripel import checkpoint
from tripel.cells import CELLS
from tripel.data.batch import Batch
from tripel.errors import InputError, RecipeError
from tripel.inspection.taps import Recorder
from tripel.models.build import build
from tripel.models.config import ImageVocabulary, ResNetConfig, ViTConfig
from tripel.models.vision import normalised
from tripel.training.loss import batch_loss_sum

LABELS = ("bird", "fish", "worm")
GREY = ImageVocabulary(labels=LABELS, mean=(0.3,), std=(0.4,))
COLOUR = ImageVocabulary(labels=LABELS, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))
HEADS = {"mixer": {"kind": "attention", "n_heads": 2}}
VIT = {"image_size": 8, "patch_size": 4, "d_model": 16, "d_ff": 24, "n_layers": 2, **HEADS}
RESNET = {"image_size": 16, "stem": "small", "stem_width": 8, "depths": (1, 2), "widths": (8, 16), "n_groups": 4}
OPTIONS = {
    "Vision Transformer": [ViTConfig(**VIT, channels=1), ViTConfig(**VIT, pool="mean", positions="sinusoidal")],
    "Vision Transformer, modern": [
        ViTConfig(**VIT, wiring="post", norm="rms", activation="swiglu", positions="none", pool="max"),
        ViTConfig(**VIT, initialisation="mimetic", norm="rms"),
    ],
    "Hybrid: CNN, then attention": [
        ViTConfig(**VIT, stem="conv", stem_width=4, channels=1),
        ViTConfig(**VIT, stem="conv", stem_width=4, stem_norm="group", wiring="post"),
    ],
    "CNN (ResNet)": [
        ResNetConfig(**RESNET, channels=1),
        ResNetConfig(**RESNET, block="bottleneck", zero_last=False),
        ResNetConfig(**RESNET, block="bottleneck", stride_in_1x1=True, activation="silu"),
        ResNetConfig(**RESNET | {"norm": "group", "image_size": 32, "stem": "imagenet"}, pool="max"),
    ],
}
CONFIGS = [
    pytest.param(config, id=f"{family}-{number}")
    for family, configs in OPTIONS.items()
    for number, config in enumerate(configs)
]
EVERY_CELL = pytest.mark.parametrize("config", CONFIGS)


def make(config, seed=0, **settings):
    torch.manual_seed(seed)
    return build(config.model_copy(update=settings), GREY if config.channels == 1 else COLOUR)


def pictures(config, n=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, config.channels, config.image_size, config.image_size, generator=generator)


def test_every_cell_of_pictures_has_examples_here():
    assert set(OPTIONS) == {cell.family for cell in CELLS if cell.input in ("patches", "feature maps", "pixels")}


@EVERY_CELL
def test_a_model_overfits_one_batch(config):
    model = make(config)
    batch = Batch({"pixels_BCHW": pictures(config)}, torch.arange(6) % 3, 6, 6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss = batch_loss_sum(model, batch, label_smoothing=0.0) / batch.count
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05


@EVERY_CELL
def test_every_parameter_gets_a_gradient(config):
    model = make(config, **({"zero_last": False} if config.kind == "resnet" else {}))
    batch = Batch({"pixels_BCHW": pictures(config)}, torch.arange(6) % 3, 6, 6)
    batch_loss_sum(model, batch, label_smoothing=0.1).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@EVERY_CELL
def test_a_saved_model_opens_with_equal_logits_and_the_statistics_of_its_batches(config, tmp_path):
    model = make(config)
    model.train()(pictures(config, seed=5))
    model.eval()
    checkpoint.save_run(tmp_path / "run", model, None, recipe_yaml=None, card="card")
    loaded = checkpoint.load_run(tmp_path / "run")
    assert loaded.pair is None and loaded.vocabulary == model.vocabulary
    assert torch.equal(loaded.model(pictures(config)), model(pictures(config)))


@EVERY_CELL
def test_taps_change_nothing(config):
    model, recorder = make(config).eval(), Recorder()
    assert torch.equal(model(pictures(config), taps=recorder), model(pictures(config)))
    assert any(name.endswith("resid_post") for name in recorder) and "logits" in recorder


@EVERY_CELL
def test_in_use_the_answer_for_a_picture_does_not_depend_on_its_batch(config):
    model, x = make(config).eval(), pictures(config)
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]), rtol=1e-4, atol=1e-5)


@EVERY_CELL
def test_features_are_pooled_into_what_the_head_sees(config):
    model, x = make(config).eval(), pictures(config)
    h_BND = model.features(x)
    assert h_BND.shape[0] == 6 and h_BND.shape[2] == config.d_model
    torch.testing.assert_close(model.logits(model.pooled(h_BND)), model(x))
    torch.testing.assert_close(model.asked({"pixels_BCHW": x}, None), model.pooled(h_BND))


@EVERY_CELL
def test_pictures_with_other_channels_are_refused_by_name(config):
    with pytest.raises(InputError, match="channel"):
        make(config)(torch.zeros(1, 4 - config.channels, config.image_size, config.image_size))


def test_statistics_that_do_not_fit_the_channels_are_refused():
    with pytest.raises(RecipeError, match="channel"):
        build(ResNetConfig(**RESNET), GREY)


def test_a_vision_transformer_reads_larger_pictures_with_its_positions_resampled():
    model = make(ViTConfig(**VIT, channels=1)).eval()
    assert model.features(torch.zeros(2, 1, 12, 16)).shape == (2, 1 + 3 * 4, 16)
    with pytest.raises(InputError, match="multiples of 4"):
        model(torch.zeros(1, 1, 10, 8))


def test_resampled_positions_of_the_same_grid_are_the_table_itself():
    positions = make(ViTConfig(**VIT, channels=1)).embedding.positions
    assert torch.equal(positions.table(2, 2), positions.weight)
    doubled = positions.table(4, 4)
    assert torch.equal(doubled[0], positions.weight[0]) and doubled.shape == (17, 16)


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_only_normalisation_over_the_batch_sees_the_other_pictures_while_training(kind):
    config = ResNetConfig(**RESNET | {"norm": kind}, channels=1, zero_last=False)
    model, x = make(config).train(), pictures(config)
    alone = torch.cat([model(x[:3]), model(x[3:])])
    assert torch.allclose(alone, model(x), atol=1e-4) == (kind == "group")


def test_pixels_are_normalised_with_the_mean_and_deviation_of_each_channel():
    pixels = torch.tensor([0, 255], dtype=torch.uint8)[None, None, None].expand(1, 3, 1, 2)
    x = normalised(pixels, COLOUR)
    torch.testing.assert_close(x[0, 2, 0], torch.tensor([-0.5 / 0.4, 0.5 / 0.4]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_size": 10}, "not divisible by patch_size"),
        (
            {"stem": "conv", "patch_size": 1, "image_size": 9, "d_model": 18, "positions": "sinusoidal"},
            "divisible by 4",
        ),
        ({"stem": "conv", "patch_size": 3, "image_size": 9}, "power of two"),
    ],
)
def test_a_vision_transformer_whose_patches_do_not_fit_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        ViTConfig(**VIT | settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"depths": (1,)}, "one positive number a stage"),
        ({"block": "bottleneck", "widths": (8, 18)}, "divisible by 4"),
        ({"norm": "group", "n_groups": 3}, "does not divide"),
        ({"image_size": 4, "depths": (1,) * 4, "widths": (8,) * 4}, "stages leave nothing"),
    ],
)
def test_a_resnet_whose_stages_do_not_fit_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        ResNetConfig(**RESNET | settings)
