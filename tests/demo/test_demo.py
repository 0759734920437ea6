"""`tripel demo` whole, on a small phrasebook and a small model: trained, shown, used again, interrupted."""

import io
import os
import signal

import pytest
from PIL import Image
from rich.console import Console

import tripel.demo
from tripel.data import made
from tripel.demo import demo, demo_recipe
from tripel.errors import DataError, InputError
from tripel.training.log import RunLog

SMALL = (
    "train.steps=6", "train.valid_every=3", "train.log_every=2", "train.tokens_per_step=256", "train.micro_tokens=256",
    "tokenizer.vocab_size=300", "model.d_model=16", "model.d_ff=16", "model.encoder.n_layers=1",
    "model.decoder.n_layers=1", "decode.max_length_ratio=1",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "COUNT", 400)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("TRIPEL_DATA", raising=False)
        load, recipe = tripel.demo.Recipe.load, tripel.demo.Recipe
        patch.setattr(
            tripel.demo, "Recipe", type("Small", (recipe,), {"load": lambda name, sets: load(name, [*sets, *SMALL])})
        )
        yield


def run(out, target="de", width=80):
    console = Console(file=io.StringIO(), width=width)
    return demo(target, out, console), console.file.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "demo"
    finished, said = run(out)
    assert finished
    return out, said


def test_it_trains_scores_translates_and_shows_where_it_looked(trained):
    out, said = trained
    assert "from nothing" in said and "writing the phrasebook" in said
    assert said.count("for example") == 2, "one sample translation at every validation"
    assert "from the same phrasebook" in said and "never seen together" in said
    with Image.open(out / "attention.png") as picture:
        assert picture.format == "PNG"
    for command in (f"tripel translate {out}", f"tripel evaluate {out}", "tripel train translate-en-de"):
        assert command in said


def test_a_second_run_reuses_the_model_and_says_so(trained):
    out, first = trained
    before = (out / "model.safetensors").read_bytes()
    finished, said = run(out)
    assert finished and "trained already" in said and "step" not in said
    assert (out / "model.safetensors").read_bytes() == before
    assert said[said.index("How good") :] == first[first.index("How good") :]


def test_ctrl_c_saves_and_the_same_command_goes_on_to_the_same_model(trained, tmp_path, monkeypatch):
    training = RunLog.training

    def press(self, record, left):
        training(self, record, left)
        if record["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "training", press)
        finished, said = run(tmp_path / "demo")
    assert not finished and "nothing is lost" in said
    finished, said = run(tmp_path / "demo")
    assert finished and "resuming from step" in said
    assert (tmp_path / "demo/model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()


def test_ctrl_c_before_training_leaves_what_the_next_run_can_use(tmp_path, monkeypatch):
    def press(*_):
        raise KeyboardInterrupt

    for where in (
        "tripel.jobs.translation.load_splits",
        "tripel.jobs.translation.encode_corpus",
        "tripel.run.storage.replaced_files",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, press)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "demo")
    assert run(tmp_path / "demo")[0]


def test_french_and_a_narrow_pipe(tmp_path):
    finished, said = run(tmp_path / "demo-fr", "fr", width=40)
    assert finished and "English into French" in said and "translate-en-fr" in said and "\x1b" not in said


def test_an_unknown_language_names_those_there_are(tmp_path):
    with pytest.raises(DataError, match="de or fr"):
        demo_recipe("es")


def test_a_folder_with_something_else_is_left_alone(trained, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out, target in ((tmp_path, "de"), (trained[0], "fr")):
        with pytest.raises(InputError, match="something else"):
            run(out, target)
    assert (tmp_path / "notes.txt").read_text() == "mine"
