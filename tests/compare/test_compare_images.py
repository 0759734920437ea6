"""`tripel compare` of image classifiers: compute that is counted, shares of the training set, and a report that fits."""

import io
import json
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from made import write_recipe
from made_images import SIDE, write_image_recipe, write_pictures
from rich.console import Console
from test_compare import interrupt_after, metrics_of, weights_of

from tripel import checkpoint
from tripel.compare import Comparison, compare
from tripel.compare.comparison import PAGE
from tripel.compare.flops import count_flops
from tripel.compare.images import ImageContest
from tripel.compare.matching import TOLERANCE, match_parameters, n_parameters
from tripel.compare.shares import MOST_EPOCHS, asked_shares
from tripel.data.batch import Batch
from tripel.errors import DataError, InputError, RecipeError
from tripel.models.config import ImageVocabulary
from tripel.recipe import Recipe
from tripel.run import train

STEPS, SHARES = 12, "20,50,100"
NAMES = ("vit", "cnn")
N_CLASSES = 4
VOCABULARY = ImageVocabulary(labels=("0", "1", "2", "3"), mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with pictures and recipes; and a cache of the tests' own."""
    folder = tmp_path_factory.mktemp("home")
    data = write_pictures(folder / "pictures")
    for name in NAMES:
        write_image_recipe(folder, name, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def run(home, out, *, drawn=False, **options):
    """The comparison and what it said; without its pictures and page unless they are looked at, which take the longest."""
    said = io.StringIO()
    recipes = [home / f"{name}.yaml" for name in NAMES]
    with pytest.MonkeyPatch.context() as patch:
        if not drawn:
            patch.setattr(Comparison, "save", lambda self, out: out / PAGE)
        return compare(recipes, out, console=Console(file=said, width=120), **options), said.getvalue()


@pytest.fixture(scope="module")
def compared(home, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "compared"
    result, said = run(home, out, drawn=True, steps=STEPS, shares=SHARES)
    return out, result, said


def seen_in(folder):
    return metrics_of(folder)[-1]["tokens"]


# Compute


def recipe_of(tmp_path, name, **sections):
    return Recipe.load(write_image_recipe(tmp_path, name, "nowhere", **sections))


def counted(recipe, n=2):
    size = recipe.model.image_size
    torch.manual_seed(1)
    pixels = torch.randn(n, 1, size, size)
    targets = torch.arange(n) % N_CLASSES
    batch = Batch(inputs={"pixels_BCHW": pixels}, targets_BT=targets, count=n, tokens=n, rows=tuple(range(n)))
    return count_flops(recipe, batch, VOCABULARY)


def vit_flops(T, D, F, P, n_layers=1):
    """Forward, by hand: two for each multiplication in patches, maps, two products of attention, and head. T: patches."""
    stem, maps, attention = 2 * T * P * P * D, 2 * T * (4 * D * D + 2 * D * F), 4 * T * T * D
    return stem, stem + n_layers * (maps + attention) + 2 * D * N_CLASSES


def conv_flops(kernel, n_in, n_out, side):
    return 2 * kernel**2 * n_in * n_out * side**2


@pytest.mark.parametrize(("d_model", "d_ff", "n_layers"), [(16, 32, 1), (32, 96, 3)])
def test_the_flops_of_a_vit_are_those_counted_by_hand(tmp_path, d_model, d_ff, n_layers):
    model = {"d_model": d_model, "d_ff": d_ff, "n_layers": n_layers}
    flops = counted(recipe_of(tmp_path, "vit", model=model))
    stem, forward = vit_flops((SIDE // 2) ** 2, d_model, d_ff, 2, n_layers)
    assert flops.inference == forward
    # Backward: by the input and by the weight of every product, but nobody asks for the gradient of the pixels.
    assert flops.training == 3 * forward - stem


def test_attention_over_many_patches_is_counted_though_a_fused_kernel_does_it(tmp_path):
    recipe = recipe_of(tmp_path, "vit", model={"image_size": 36})
    stem, forward = vit_flops(18**2, 16, 32, 2)
    assert counted(recipe).inference == forward
    assert counted(recipe).training == 3 * forward - stem


def test_the_flops_of_a_resnet_are_those_counted_by_hand(tmp_path):
    flops = counted(recipe_of(tmp_path, "cnn"))
    stem = conv_flops(3, 1, 8, SIDE)
    first = 2 * conv_flops(3, 8, 8, SIDE)
    second = conv_flops(3, 8, 16, SIDE // 2) + conv_flops(3, 16, 16, SIDE // 2) + conv_flops(1, 8, 16, SIDE // 2)
    forward = stem + first + second + 2 * 16 * N_CLASSES
    assert flops.inference == forward
    assert flops.training == 3 * forward - stem


@pytest.mark.parametrize("name", NAMES)
def test_flops_of_a_picture_depend_neither_on_its_batch_nor_on_the_precision(tmp_path, name):
    recipe = recipe_of(tmp_path, name)
    in_bfloat16 = recipe_of(tmp_path, name, train={"precision": "bfloat16"})
    assert counted(recipe, 2) == counted(recipe, 6) == counted(in_bfloat16, 4)


def test_what_muon_multiplies_is_counted_for_each_update(tmp_path):
    adamw, muon = (counted(recipe_of(tmp_path, "vit", optim={"kind": kind})) for kind in ("adamw", "muon"))
    assert adamw.update == 0 and muon.training == adamw.training
    # Five iterations of x x^T, its square, and a product with x, for each map: patches, q, k, v, output, two more, head.
    maps = [(4, 16), *[(16, 16)] * 4, *[(16, 32)] * 2, (4, 16)]
    assert muon.update == sum(5 * (2 * 2 * r * r * c + 2 * r**3) for r, c in maps)
    assert muon.of_run(images=10, updates=3) == 10 * muon.training + 3 * muon.update


def test_r_drop_costs_a_second_pass(tmp_path):
    plain = counted(recipe_of(tmp_path, "vit"))
    twice = counted(recipe_of(tmp_path, "vit", model={"dropout": 0.1}, train={"r_drop": 1.0}))
    assert twice.training == 2 * plain.training


def test_the_compute_of_a_run_is_that_of_its_pictures(compared):
    for result in compared[1].results:
        numbers, curves = result.numbers, result.curves
        assert curves["accuracy_flops"].y == curves["accuracy_images"].y == curves["accuracy_seconds"].y
        each = numbers["training_flops_per_image"]
        assert curves["accuracy_flops"].x == tuple(n * each for n in curves["accuracy_images"].x)
        assert numbers["training_flops"] == STEPS * 16 * each


# Shares of the training data


def test_at_each_share_all_see_equally_many_pictures_and_few_pictures_are_not_seen_for_ever(compared):
    out, comparison, _ = compared
    for result in comparison.results:
        for size, seen in zip(*(getattr(result.curves["seen_examples"], axis) for axis in "xy"), strict=True):
            assert abs(seen - min(STEPS * 16, MOST_EPOCHS * size)) < 16
    vit, cnn = (result.curves["seen_examples"] for result in comparison.results)
    assert vit == cnn


def test_a_small_share_is_seen_a_bounded_number_of_times(home, tmp_path, monkeypatch):
    monkeypatch.setattr("tripel.compare.shares.MOST_EPOCHS", 2)
    result, said = run(home, tmp_path / "out", steps=STEPS, shares="20")
    for contestant in result.results:
        (size,), (seen,) = contestant.curves["seen_examples"].x, contestant.curves["seen_examples"].y
        assert seen <= 2 * size + 16 < STEPS * 16
    assert "no example more than 2 times" in said


def test_runs_on_shares_are_runs_like_any_other_on_some_of_the_pictures(compared, tmp_path):
    out, comparison, _ = compared
    sizes = comparison.results[0].curves["accuracy_examples"].x
    assert list(sizes) == sorted(sizes) and len(sizes) == 3
    recipe = Recipe.load(out / "share-20" / "vit" / "recipe.yaml")
    assert recipe.data.train_share == pytest.approx(0.2)
    train(recipe, tmp_path / "alone", console=Console(file=io.StringIO()))
    alone, beside = weights_of(tmp_path / "alone"), weights_of(out / "share-20" / "vit")
    assert all(torch.equal(alone[key], beside[key]) for key in alone)


def test_a_run_on_all_data_counts_as_the_share_of_100(compared):
    out, comparison, _ = compared
    assert not (out / "share-100").exists()
    for result in comparison.results:
        assert result.curves["accuracy_examples"].y[-1] == result.numbers["accuracy"]


def test_with_a_budget_of_time_shares_have_the_slowest_ones_pictures(home, tmp_path):
    out = tmp_path / "timed"
    result, _ = run(home, out, budget="0.6s", shares="50,100")
    seen = {contestant.name: contestant.numbers["training_images"] for contestant in result.results}
    slowest = min(seen, key=seen.__getitem__)
    for contestant in result.results:
        at_50, at_100 = contestant.curves["seen_examples"].y
        assert at_50 == at_100 == seen[slowest]
    trained_again = {path.name for path in (out / "share-100").iterdir() if path.is_dir()}
    assert trained_again == {name for name in NAMES if seen[name] != seen[slowest]}


def test_without_smaller_shares_there_is_no_curve_of_them(home, tmp_path):
    result, _ = run(home, tmp_path / "out", steps=2, shares="100")
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith("share-")]
    assert "accuracy_examples" not in result.results[0].curves
    assert "accuracy_examples" not in {picture.name for picture in result.pictures}
    assert not [column for column in result.columns if column.title.startswith("accuracy with")]


def test_more_shares_can_be_asked_for_later(home, tmp_path):
    out = tmp_path / "out"
    run(home, out, steps=2, shares="50")
    result, said = run(home, out, steps=2, shares="20,50")
    assert said.count("is trained already") == 4
    assert len(result.results[0].curves["accuracy_examples"].x) == 2


def test_an_interrupted_race_on_a_share_goes_on_and_ends_like_an_uninterrupted_one(
    home, compared, tmp_path, monkeypatch
):
    out = tmp_path / "parts"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2 * STEPS + 5)
        result, said = run(home, out, steps=STEPS, shares=SHARES)
    assert result is None and "type the same command again" in said
    assert checkpoint.newest_valid(out / "share-20" / "vit") is not None
    result, said = run(home, out, steps=STEPS, shares=SHARES)
    assert "goes on from step" in said
    for name in (*NAMES, *(f"share-{percent}/{name}" for percent in (20, 50) for name in NAMES)):
        whole, parts = weights_of(compared[0] / name), weights_of(out / name)
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    for one, other in zip(compared[1].results, result.results, strict=True):
        assert one.curves["accuracy_examples"] == other.curves["accuracy_examples"]


@pytest.mark.parametrize("text", ["", "0", "101", "1;5", "-5", "1,,5", "nan", "1e1", ",".join(map(str, range(1, 30)))])
def test_shares_that_are_no_percentages_are_refused(text):
    with pytest.raises(InputError, match="cannot be understood"):
        asked_shares(text, ImageContest())


def test_shares_are_percentages_in_any_order():
    contest = ImageContest()
    assert asked_shares("25, 5%,0.5,5", contest) == (0.5, 5.0, 25.0)
    assert asked_shares(None, contest) == (1.0, 5.0, 25.0, 100.0)
    assert asked_shares("100", contest) == ()


def test_models_of_text_are_not_compared_on_shares(tmp_path):
    recipes = [write_recipe(tmp_path, name) for name in ("gpt", "lstm")]
    with pytest.raises(InputError, match="only image classifiers"):
        compare(recipes, tmp_path / "out", shares="1,100")
    assert not (tmp_path / "out").exists()


# The report


def test_the_numbers_are_those_of_the_run_folders(compared):
    out, comparison, _ = compared
    assert comparison.task == "image-classification" and comparison.prompt == ""
    for result in comparison.results:
        validations = [record for record in metrics_of(out / result.name) if "accuracy" in record]
        assert result.numbers["training_images"] == validations[-1]["tokens"] == STEPS * 16
        assert result.curves["accuracy_images"].y == tuple(record["accuracy"] for record in validations)
        assert result.numbers["accuracy"] == pytest.approx(max(record["accuracy"] for record in validations), abs=0.03)
        assert result.numbers["inference_images_per_second"] > 0


def test_the_report_is_complete_and_needs_nothing_else(compared):
    out, comparison, _ = compared
    assert Comparison.from_json((out / "comparison.json").read_text(encoding="utf-8")) == comparison
    names = [picture.name for picture in comparison.pictures]
    assert {"accuracy_images", "accuracy_flops", "accuracy_examples", "accuracy_seconds"} <= set(names)
    assert all((out / f"{name}.png").stat().st_size > 10_000 for name in names)
    text = (out / "comparison.html").read_text(encoding="utf-8")
    page = ET.fromstring(text.removeprefix("<!DOCTYPE html>"))
    assert len(list(page.iter("img"))) == len(names) and not list(page.iter("script"))
    captions = ["".join(caption.itertext()) for caption in page.iter("figcaption")]
    assert all(all(name in caption for name in NAMES) for caption in captions)
    assert f"tripel classify {out / 'vit'} picture.png" in text
    assert "In their own words" not in text


def test_the_table_and_the_page_show_the_same_numbers(compared):
    comparison = compared[1]
    console = Console(file=io.StringIO(), width=200)
    console.print(comparison)
    shown, page = console.file.getvalue(), comparison.to_html()
    for result in comparison.results:
        accuracies = [f"{100 * y:.2f} %" for y in result.curves["accuracy_examples"].y]
        for text in (f"{100 * result.numbers['accuracy']:.2f} %", f"{result.numbers['parameters']:,}", *accuracies):
            assert text in shown and text in page


def test_what_the_contestants_differ_in_is_told_and_what_they_may_not_is_made_equal(home, tmp_path):
    pictures = home / "pictures" / "made"
    changed = {"augment": {"shift": 1}, "normalise": "half"}
    other = write_image_recipe(tmp_path, "other", pictures, data=changed, train={"tokens_per_step": 8})
    said = io.StringIO()
    options = {"steps": 2, "shares": "100", "console": Console(file=said, width=300)}
    comparison = compare([home / "cnn.yaml", other], tmp_path / "out", **options)
    assert any("cnn not at all; other shift 1" in note for note in comparison.notes)
    assert any("train.tokens_per_step: 8 -> 16" in note for note in comparison.notes)
    for name in ("cnn", "other"):
        stored = Recipe.load(tmp_path / "out" / name / "recipe.yaml")
        assert stored.data.augment.shift == (name == "other") and stored.data.valid_share == 0.25


def test_given_data_take_the_place_of_the_recipes_own(home, tmp_path):
    data = write_pictures(tmp_path / "mine", n_each=20, seed=5)
    result, _ = run(home, tmp_path / "out", data=data, steps=2, shares="100")
    assert result.data == str(data) and "10%" in result.valid
    result, _ = run(home, tmp_path / "both", data=data, valid=home / "pictures" / "made", steps=2, shares="100")
    assert result.valid == str(home / "pictures" / "made")


# Equal sizes


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("vit", {}),
        ("vit", {"stem": "conv", "stem_width": 8}),
        ("cnn", {}),
        ("cnn", {"norm": "group"}),
        ("cnn", {"block": "bottleneck", "widths": [32, 64], "depths": [2, 3]}),
    ],
)
@pytest.mark.parametrize("n_wanted", [20_000, 300_000, 5_000_000])
def test_a_model_of_images_is_scaled_to_a_number_of_parameters(tmp_path, name, model, n_wanted):
    recipe = recipe_of(tmp_path, name, model=model)
    matched = match_parameters(recipe, n_wanted, VOCABULARY)
    assert abs(n_parameters(matched, VOCABULARY) / n_wanted - 1) <= TOLERANCE
    if name == "cnn":
        ratios = np.array(matched.model.widths) / np.array(recipe.model.widths)
        assert ratios.max() / ratios.min() < 1.4 and matched.model.depths == recipe.model.depths


def test_matched_contestants_have_as_many_parameters(home, tmp_path):
    result, said = run(home, tmp_path / "out", steps=2, shares="100", match="parameters")
    vit, cnn = (contestant.numbers["parameters"] for contestant in result.results)
    assert abs(cnn / vit - 1) <= TOLERANCE and "cnn: stem_width 8 ->" in said


# What is refused


def test_texts_and_pictures_are_not_compared(home, tmp_path):
    with pytest.raises(InputError, match="different tasks"):
        compare([home / "vit.yaml", write_recipe(tmp_path, "gpt")], tmp_path / "out")
    with pytest.raises(InputError, match="different tasks"):
        compare([home / "vit.yaml", "trec"], tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"shares": "0"}, InputError, "cannot be understood"),
        ({"data": "nowhere"}, DataError, "there is no data"),
        ({"overrides": ["model.channels=2"]}, RecipeError, "channels"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_written(home, tmp_path, options, error, complaint):
    with pytest.raises(error, match=complaint):
        run(home, tmp_path / "out", steps=2, **options)
    assert not (tmp_path / "out").exists()


def test_a_comparison_that_is_gone_on_with_must_be_the_same(home, compared, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(compared[0], out)
    with pytest.raises(InputError, match="another comparison"):
        run(home, out, steps=STEPS, shares=SHARES, overrides=["data.augment.flip=true"])
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    assert plan["seen"] == STEPS * 16 and {"vit", "share-20/vit"} <= plan["runs"].keys()
