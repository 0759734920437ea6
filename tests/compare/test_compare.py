"""`tripel compare` whole, on small models: equal budgets, going on after a stop, and a report that tells what is so."""

import base64
import io
import json
import os
import re
import shutil
import signal
import xml.etree.ElementTree as ET

import pytest
import torch
from made import write_recipe, write_text
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from tripel import checkpoint
from tripel.compare import Comparison, compare, generation
from tripel.compare.contestant import Pace
from tripel.errors import DataError, InputError, RecipeError, TripelError
from tripel.evaluate import evaluate
from tripel.models.build import count_parameters
from tripel.pipelines.load import load
from tripel.recipe import Recipe
from tripel.run import train
from tripel.training.log import RunLog

STEPS = 12
NAMES = ("gpt", "lstm", "conv")
PICTURES = ("loss_seconds", "loss_tokens", "position", "memory", "token_time")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with text.txt and recipes; and a cache of the tests' own."""
    folder = tmp_path_factory.mktemp("home")
    write_text(folder / "text.txt")
    for name in NAMES:
        write_recipe(folder, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(generation, "_REPEATS", 1)
        patch.setattr(generation, "_TOKENS", 16)
        yield folder


def run(home, names, out, **options):
    said = io.StringIO()
    settings = {"data": home / "text.txt", **options}
    result = compare([home / f"{name}.yaml" for name in names], out, console=Console(file=said, width=120), **settings)
    return result, said.getvalue()


@pytest.fixture(scope="module")
def compared(home, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "compared"
    result, said = run(home, NAMES, out, steps=STEPS)
    return out, result, said


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]


def interrupt_after(monkeypatch, n_updates):
    """A SIGTERM comes with this update, counted over all runs."""
    advance, seen = RunLog.advance, []

    def interrupting(self, step):
        advance(self, step)
        seen.append(step)
        if len(seen) == n_updates:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunLog, "advance", interrupting)


def weights_of(folder):
    return load_file(folder / "model.safetensors")


# What training side by side must not change


def test_every_contestant_has_the_same_number_of_updates_and_of_tokens(compared):
    results = compared[1].results
    assert [result.name for result in results] == list(NAMES)
    assert {result.numbers["updates"] for result in results} == {STEPS}
    assert len({result.numbers["training_tokens"] for result in results}) == 1


def test_a_contestant_learns_what_it_would_have_learnt_alone(compared, tmp_path):
    for name in ("gpt", "lstm"):
        train(Recipe.load(compared[0] / name / "recipe.yaml"), tmp_path / name, console=Console(file=io.StringIO()))
        alone, beside = weights_of(tmp_path / name), weights_of(compared[0] / name)
        assert all(torch.equal(alone[key], beside[key]) for key in alone)


def test_a_run_is_validated_about_ten_times(compared):
    for name in NAMES:
        n_validations = sum("valid_loss" in record for record in metrics_of(compared[0] / name))
        assert 5 <= n_validations <= 11


def test_all_have_the_first_ones_tokenizer(compared):
    texts = {(compared[0] / name / "tokenizer.json").read_text() for name in (*NAMES, ".")}
    assert len(texts) == 1


def test_a_run_of_a_comparison_is_a_run_like_any_other(compared):
    for name in NAMES:
        assert load(compared[0] / name).complete("the ", max_new_tokens=5).text
        assert "tripel compare" in (compared[0] / name / "README.md").read_text(encoding="utf-8")


# A budget of time


def test_with_a_budget_of_time_all_train_as_long_and_their_schedules_end_with_it(home, tmp_path):
    out = tmp_path / "timed"
    result, said = run(home, ("gpt", "lstm"), out, budget="1.5s")
    for contestant in result.results:
        recipe = Recipe.load(out / contestant.name / "recipe.yaml")
        records = metrics_of(out / contestant.name)
        slowest = max(
            record["seconds"] - before["seconds"] for before, record in zip(records, records[1:], strict=False)
        )
        assert 1.5 - slowest <= contestant.numbers["training_seconds"] <= 1.5 + 2 * slowest
        assert recipe.train.steps == contestant.numbers["updates"] == records[-1]["step"]
        assert sum(record["step"] == recipe.train.steps and "valid_loss" in record for record in records) == 1
        last = [record for record in records if "lr" in record][-1]
        assert last["lr"] < 0.05 * recipe.optim.lr
    assert "1.5 seconds of training each" in said


def test_a_warm_up_longer_than_the_run_is_shortened(home, tmp_path):
    slow = write_recipe(tmp_path, "slow", optim={"warmup_steps": 4000})
    comparison = compare(
        [home / "gpt.yaml", slow],
        tmp_path / "out",
        data=home / "text.txt",
        steps=20,
        console=Console(file=io.StringIO()),
    )
    assert Recipe.load(tmp_path / "out" / "slow" / "recipe.yaml").optim.warmup_steps == 2
    assert "slow: optim.warmup_steps: 4000 -> 2, for a run as short as this" in comparison.notes
    assert Recipe.load(tmp_path / "out" / "gpt" / "recipe.yaml").optim.warmup_steps == 2


# Going on


def test_an_interrupted_comparison_goes_on_and_ends_like_an_uninterrupted_one(home, compared, tmp_path, monkeypatch):
    out = tmp_path / "parts"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 15)
        result, said = run(home, NAMES, out, steps=STEPS)
    assert result is None and "type the same command again" in said
    steps = {name: checkpoint.newest_valid(out / name).step for name in NAMES}
    assert all(1 <= step <= STEPS for step in steps.values()) and min(steps.values()) < STEPS
    assert not (out / "comparison.html").exists()
    torch.manual_seed(12345)  # what happened in between must not matter
    result, said = run(home, NAMES, out, steps=STEPS)
    assert "goes on from step" in said
    for name in NAMES:
        whole, parts = weights_of(compared[0] / name), weights_of(out / name)
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    for one, other in zip(compared[1].results, result.results, strict=True):
        assert one.curves["loss_tokens"] == other.curves["loss_tokens"]


def test_an_interrupted_budget_of_time_is_not_begun_anew(home, tmp_path, monkeypatch):
    out = tmp_path / "timed"
    with monkeypatch.context() as patch:
        patch.setattr("tripel.compare.race.calibrate", lambda run, seconds, stop: Pace(100, 1.0))
        interrupt_after(patch, 6)
        assert run(home, ("gpt", "lstm"), out, budget="1s")[0] is None
    result, _ = run(home, ("gpt", "lstm"), out, budget="1s")
    for contestant in result.results:
        steps = [record["step"] for record in metrics_of(out / contestant.name) if "lr" in record]
        assert steps == sorted(set(steps)) and steps[0] <= 2
        assert 0.9 <= contestant.numbers["training_seconds"] <= 1.5


def test_finished_runs_are_used_as_they_are_and_others_join_them(home, tmp_path):
    out = tmp_path / "grown"
    run(home, ("gpt", "lstm"), out, steps=4)
    before = {name: (out / name / "model.safetensors").stat().st_mtime_ns for name in ("gpt", "lstm")}
    result, said = run(home, NAMES, out, steps=4)
    assert said.count("is trained already") == 2 and len(result.results) == 3
    assert before == {name: (out / name / "model.safetensors").stat().st_mtime_ns for name in before}


def test_a_finished_run_that_was_removed_is_trained_again(home, tmp_path):
    out = tmp_path / "out"
    first, _ = run(home, ("gpt", "lstm"), out, steps=2)
    shutil.rmtree(out / "lstm")
    second, said = run(home, ("gpt", "lstm"), out, steps=2)
    assert said.count("is trained already") == 1
    assert first.results[1].numbers["valid_loss"] == second.results[1].numbers["valid_loss"]


def test_who_fails_stops_the_others_with_everything_saved(home, tmp_path, monkeypatch):
    wild = write_recipe(tmp_path, "wild", train={"tokens_per_step": 64})
    advance = RunLog.advance

    def failing(self, step):
        advance(self, step)
        if self._path.parent.name == "wild" and step == 2:
            raise TripelError("the loss is not finite at step 2", mend="lower optim.lr")

    monkeypatch.setattr(RunLog, "advance", failing)
    with pytest.raises(TripelError, match="wild: the loss is not finite"):
        compare(
            [home / "gpt.yaml", wild],
            tmp_path / "out",
            data=home / "text.txt",
            steps=200,
            console=Console(file=io.StringIO()),
        )
    step = checkpoint.newest_valid(tmp_path / "out" / "gpt").step
    monkeypatch.setattr(RunLog, "advance", advance)
    assert 1 <= step <= 200


# The report


def test_the_numbers_are_those_of_the_run_folders(compared):
    out, comparison, _ = compared
    for result in comparison.results:
        folder = out / result.name
        validations = [record for record in metrics_of(folder) if "valid_loss" in record]
        assert result.numbers["updates"] == validations[-1]["step"]
        assert result.numbers["training_tokens"] == validations[-1]["tokens"]
        assert result.curves["loss_seconds"].y == tuple(record["valid_loss"] for record in validations)
        assert result.numbers["valid_loss"] == pytest.approx(min(r["valid_loss"] for r in validations), rel=1e-5)
        assert result.numbers["parameters"] == count_parameters(load(folder).model)
        assert result.numbers["bits_per_byte"] == pytest.approx(evaluate(folder, "valid").loss.bits_per_byte, rel=1e-5)


def test_the_memory_counted_is_that_of_keys_values_or_hidden_units(compared):
    memory = {result.name: result.curves["memory"] for result in compared[1].results}
    row_length = 8  # the int64 that counts the positions of a row
    d_model, n_layers, n_bytes = 16, 2, 4
    assert memory["gpt"].x[-1] == 16
    assert memory["gpt"].y == tuple(2 * n * d_model * n_layers * n_bytes + row_length for n in memory["gpt"].x)
    assert memory["lstm"].x == (64, 128, 256, 512, 1024, 2048, 4096)
    assert set(memory["lstm"].y) == {2 * d_model * n_layers * n_bytes + row_length}
    # A convolution holds its last inputs, and the newest that they were joined with.
    assert set(memory["conv"].y) == {(2 + 1 + 4 + 1) * d_model * n_bytes + row_length}


def test_the_report_is_complete(compared):
    out, comparison, said = compared
    for name in PICTURES:
        with Image.open(out / f"{name}.png") as picture:
            assert picture.format == "PNG" and picture.width >= 1000
    assert Comparison.from_json((out / "comparison.json").read_text(encoding="utf-8")) == comparison
    assert all(result.sample for result in comparison.results) and comparison.prompt
    assert {"processor", "tripel", "torch", "python"} <= comparison.facts.keys()
    assert f"--steps {STEPS}" in comparison.command and str(out) in comparison.command
    assert f"the page is {out / 'comparison.html'}" in said


def test_the_page_is_well_formed_and_needs_nothing_else(compared):
    text = (compared[0] / "comparison.html").read_text(encoding="utf-8")
    page = ET.fromstring(text.removeprefix("<!DOCTYPE html>"))
    sources = [image.get("src") for image in page.iter("img")]
    assert len(sources) == len(PICTURES)
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert not list(page.iter("script")) and not list(page.iter("link"))
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", text)
    captions = ["".join(caption.itertext()) for caption in page.iter("figcaption")]
    assert all(all(name in caption for name in NAMES) for caption in captions[2:])


def test_the_table_and_the_page_show_the_same_numbers(compared):
    comparison = compared[1]
    console = Console(file=io.StringIO(), width=200)
    console.print(comparison.table)
    shown, page, fragment = console.file.getvalue(), comparison.to_html(), comparison._repr_html_()
    for result in comparison.results:
        for text in (f"{result.numbers['valid_loss']:.4f}", f"{result.numbers['parameters']:,}"):
            assert text in shown and text in page and text in fragment


def test_a_sample_with_markup_and_control_characters_stays_text(compared):
    nasty = compared[1].results[0].model_copy(update={"sample": "</pre><script>alert(1)</script>\x00\x1b[2J&amp;"})
    comparison = compared[1].model_copy(update={"results": (nasty, *compared[1].results[1:])})
    page = ET.fromstring(comparison.to_html().removeprefix("<!DOCTYPE html>"))
    assert not list(page.iter("script"))


def test_what_was_made_equal_is_told(home, tmp_path):
    other = write_recipe(tmp_path, "other", tokenizer={"kind": "byte"}, train={"tokens_per_step": 64})
    options = {"data": home / "text.txt", "valid": home / "text.txt", "steps": 2}
    said = io.StringIO()
    comparison = compare([home / "gpt.yaml", other], tmp_path / "out", console=Console(file=said, width=200), **options)
    (note,) = [note for note in comparison.notes if note.startswith("other: tokenizer")]
    assert "tokenizer.kind: byte -> char" in note and "train.tokens_per_step: 64 -> 128" in note
    assert note in said.getvalue()


# What is refused


@pytest.mark.parametrize(
    ("names", "options", "error", "complaint"),
    [
        (("gpt",), {}, InputError, "at least two recipes"),
        (("gpt", "gpt"), {}, InputError, "two contestants have the name gpt"),
        (("gpt", "gtp"), {}, RecipeError, "there is no recipe"),
        (("gpt", "lstm"), {"budget": "5"}, InputError, "cannot be understood"),
        (("gpt", "lstm"), {"budget": "-5m"}, InputError, "cannot be understood"),
        (("gpt", "lstm"), {"budget": "0s"}, InputError, "cannot be understood"),
        (("gpt", "lstm"), {"budget": "5m", "steps": 3}, InputError, "exclude each other"),
        (("gpt", "lstm"), {"steps": 0}, InputError, "positive number"),
        (("gpt", "lstm"), {"match": "flops"}, RecipeError, "nothing of that name to match"),
        (("gpt", "lstm"), {"overrides": ["train.stesp=3"]}, RecipeError, "did you mean steps"),
        (("gpt", "lstm"), {"data": "nowhere.txt"}, DataError, "there is no data"),
        (("gpt", "lstm"), {"data": None, "valid": "x.txt"}, RecipeError, "without training data"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_written(home, tmp_path, names, options, error, complaint):
    with pytest.raises(error, match=complaint):
        run(home, names, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_recipes_for_different_tasks_or_one_without_a_comparison_are_refused(home, tmp_path):
    with pytest.raises(InputError, match="different tasks"):
        compare([home / "gpt.yaml", "translate-en-de"], tmp_path / "out")
    with pytest.raises(InputError, match="task translation cannot be compared"):
        compare(["translate-en-fr", "translate-en-de"], tmp_path / "out")


def test_without_data_the_recipes_own_must_be_the_same(home, tmp_path):
    text = str(home / "text.txt")
    here, there = (write_recipe(tmp_path, name, data={"train": text}) for name in ("gpt", "lstm"))
    result = compare([here, there], tmp_path / "same", steps=2, console=Console(file=io.StringIO()))
    assert result.data == text and "last 10%" in result.valid
    there = write_recipe(tmp_path, "lstm", data={"train": text, "documents": "line"})
    with pytest.raises(InputError, match="data.documents: file -> line|data.documents: line -> file"):
        compare([here, there], tmp_path / "different", steps=2)


def test_a_text_too_short_for_one_of_them_is_refused_with_its_name(home, tmp_path):
    long = write_recipe(tmp_path, "long", model={"max_len": 8192})
    with pytest.raises(DataError, match="long: the text is shorter than one training window"):
        compare([home / "gpt.yaml", long], tmp_path / "out", data=home / "text.txt", steps=2)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_left_as_it_is(home, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match="something else than a comparison"):
        run(home, ("gpt", "lstm"), tmp_path, steps=2)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"steps": STEPS + 1}, "budget"),
        ({"steps": STEPS, "match": "parameters"}, "matched"),
        ({"steps": STEPS, "overrides": ["optim.lr=0.1"]}, "optim.lr"),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused_and_nothing_is_lost(home, compared, options, difference):
    out = compared[0]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"another comparison(.|\n)*{difference}"):
        run(home, NAMES, out, **options)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_changed_data_are_another_comparison(home, tmp_path):
    text = write_text(tmp_path / "text.txt", seed=2)
    recipes = [home / "gpt.yaml", home / "lstm.yaml"]
    compare(recipes, tmp_path / "out", data=text, steps=2, console=Console(file=io.StringIO()))
    write_text(text, seed=3)
    with pytest.raises(InputError, match="another comparison"):
        compare(recipes, tmp_path / "out", data=text, steps=2, console=Console(file=io.StringIO()))
