"""The phrasebook under a name: made once, found by recipes, made anew when its grammar changes."""

import pytest

from tripel.data import made
from tripel.data.known import get, list_known
from tripel.data.made import MADE
from tripel.data.names import find_pair
from tripel.data.phrasebook import generate
from tripel.errors import DataError


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A small set, in a cache of the test's own."""
    monkeypatch.setattr(made, "COUNT", 60)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TRIPEL_DATA", raising=False)


@pytest.mark.parametrize("target", ["de", "fr"])
def test_asking_for_a_split_makes_the_set_and_gives_its_files(target, tmp_path):
    files = find_pair(f"phrasebook-{target}/train", "en", target)
    assert files.source.is_relative_to(tmp_path / "cache") and files.target.name == f"train.{target}"
    pairs = generate(target, 60, made.SEED).train
    assert files.source.read_text("utf-8").splitlines() == [pair.source for pair in pairs]
    assert files.target.read_text("utf-8").splitlines() == [pair.target for pair in pairs]
    assert len(find_pair(f"phrasebook-{target}/compositional", "en", target).source.read_text().splitlines()) == 6


def test_a_set_is_made_once_and_again_when_its_grammar_changes(monkeypatch, tmp_path):
    folder = get("phrasebook-de", tmp_path)
    first = (folder / "train.en").stat().st_mtime_ns
    assert get("phrasebook-de", tmp_path) == folder and (folder / "train.en").stat().st_mtime_ns == first
    monkeypatch.setattr(made, "_origin", lambda: "another grammar")
    assert not MADE["phrasebook-de"].is_made(tmp_path)
    get("phrasebook-de", tmp_path)
    assert (folder / "train.en").stat().st_mtime_ns != first and MADE["phrasebook-de"].is_made(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_path_comes_before_the_set_that_would_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phrasebook-de").mkdir()
    for side in ("en", "de"):
        (tmp_path / "phrasebook-de" / f"train.{side}").write_text("a\n")
    assert find_pair("phrasebook-de/train", "en", "de").source.read_text() == "a\n"
    assert not (tmp_path / "cache").exists()


def test_what_is_interrupted_leaves_nothing(monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tripel.data.phrasebook.files.generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get("phrasebook-fr", tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        get("phrasebook-de", tmp_path / "file" / "here")


def test_the_sets_are_listed_with_the_others():
    names = list(list_known().columns[0].cells)
    assert {"multi30k", "phrasebook-de", "phrasebook-fr"} <= set(names)
    with pytest.raises(DataError, match="phrasebook-de"):
        get("phrasebook-d")
