import pytest

from tripel.data.names import find_pair, find_text
from tripel.errors import DataError


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The three places a name is looked up in: here, $TRIPEL_DATA, the cache."""
    here, data, cache = (tmp_path / name for name in ("here", "data", "cache"))
    for folder in (here, data / "set", cache / "tripel" / "data" / "set"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("TRIPEL_DATA", str(data))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return here, data, cache / "tripel" / "data"


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")


def test_a_name_is_a_path_first_then_below_tripel_data_then_in_the_cache(folders):
    here, data, cache = folders
    for folder in (cache, data, here):
        touch(folder / "set" / "train.en", folder / "set" / "train.de")
        found = find_pair("set/train", "en", "de")
        assert found.source.resolve() == folder / "set" / "train.en"
        assert found.target.resolve() == folder / "set" / "train.de"
    assert find_pair(str(data / "set" / "train"), "de", "en").source == data / "set" / "train.de"


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["t.en", "t.de"], "lines"),
        (["t.en.gz", "t.de"], "lines"),
        (["t.en-de.en", "t.en-de.de"], "lines"),
        (["t.de-en.en.gz", "t.de-en.de.gz"], "lines"),
        (["t.tsv"], "tsv"),
        (["t.jsonl.gz"], "jsonl"),
    ],
)
def test_each_way_of_naming_files_is_found(folders, names, kind):
    _, data, _ = folders
    touch(*(data / "set" / name for name in names))
    found = find_pair("set/t", "en", "de")
    assert found.kind == kind
    assert [found.source.name, found.target.name] == (names if len(names) == 2 else names * 2)


@pytest.mark.parametrize("name", ["t.tsv", "t.jsonl", "t.tsv.gz"])
def test_a_record_file_may_be_named_itself(folders, name):
    touch(folders[1] / "set" / name)
    assert find_pair(f"set/{name}", "en", "de").source.name == name


def test_an_unknown_language_names_those_there_are(folders):
    touch(*(folders[1] / "set" / f"train.{language}" for language in ("en", "de", "fr")))
    with pytest.raises(DataError, match="no side xx") as caught:
        find_pair("set/train", "en", "xx")
    assert "de, en, fr" in str(caught.value)


def test_a_missing_pair_names_the_languages_there_are(folders):
    touch(*(folders[1] / "set" / f"train.en-de.{language}" for language in ("en", "de")))
    with pytest.raises(DataError, match="no side fr") as caught:
        find_pair("set/train", "en", "fr")
    assert "de, en" in str(caught.value)


def test_a_wrong_name_says_where_it_was_looked_for_and_what_is_near(folders):
    _, data, cache = folders
    touch(data / "set" / "train.en", data / "set" / "train.de")
    with pytest.raises(DataError, match="no data set/trian") as caught:
        find_pair("set/trian", "en", "de")
    message = str(caught.value)
    assert str(data / "set" / "trian") in message and str(cache / "set" / "trian") in message
    assert "did you mean set/train?" in message


def test_a_wrong_absolute_path_names_what_is_near(folders):
    data = folders[1]
    touch(data / "set" / "train.en", data / "set" / "train.de")
    with pytest.raises(DataError, match="did you mean") as caught:
        find_pair(str(data / "set" / "trains"), "en", "de")
    assert str(data / "set" / "train") in caught.value.mend


def test_a_known_set_that_is_not_here_says_how_to_get_it(folders):
    with pytest.raises(DataError, match="tripel data get multi30k"):
        find_pair("multi30k/train", "en", "de")


def test_a_folder_names_the_sets_in_it(folders):
    touch(*(folders[1] / "set" / name for name in ("train.en", "train.de", "val.en-de.en", "val.en-de.de")))
    with pytest.raises(DataError, match="is a folder") as caught:
        find_pair("set", "en", "de")
    assert "set/train, set/val" in str(caught.value)


def test_one_side_of_a_set_says_to_leave_the_ending_off(folders):
    touch(folders[1] / "set" / "notes.txt")
    with pytest.raises(DataError, match="two sides"):
        find_pair("set/notes.txt", "en", "de")


@pytest.mark.parametrize("name", ["", "a\0b", ".", "/", "..", "~"])
def test_a_strange_name_is_refused_not_a_crash(folders, name):
    with pytest.raises(DataError):
        find_pair(name, "en", "de")


@pytest.mark.parametrize("stored", ["book.txt", "book", "book.txt.gz", "book.en", "book/input.txt"])
def test_a_one_sided_text_is_found_by_name(folders, stored):
    touch(folders[1] / stored)
    assert find_text("book", "en") == folders[1] / stored


def test_a_missing_text_is_refused(folders):
    with pytest.raises(DataError, match="no data book"):
        find_text("book")
