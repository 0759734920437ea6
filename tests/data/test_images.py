"""Sets of pictures: every form of set gives the same pictures, what is wrong with them is told or refused, and what is kept
in the cache never stands for other pictures."""

import gzip
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tripel.data import decoding, image_store
from tripel.data.images import ImageDataConfig, Statistics, load_image_splits, load_images
from tripel.data.names import find_images
from tripel.errors import DataError
from tripel.files import cache_folder

SIZE = 6


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPEL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """Worker processes, also for few pictures; those that were started."""
    monkeypatch.setattr(decoding, "_FEW", 0)
    workers = []
    start = decoding._Worker.__init__

    def noted(self, form):
        start(self, form)
        workers.append(self._process)

    monkeypatch.setattr(decoding._Worker, "__init__", noted)
    return workers


def picture(seed, width=SIZE, height=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, bytes):
        path.write_bytes(pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def folders(root, n=12, classes=("cat", "dog"), first=0, **sizes):
    """n pictures, their classes in turn; in the order in which they are read."""
    for i in range(first, first + n):
        put(root / classes[i % len(classes)] / f"{i:03}.png", picture(i, **sizes))
    return str(root)


def config(train, **settings):
    return ImageDataConfig(train=train, **settings)


def load(name, *, training=True, size=SIZE, channels=3, **settings):
    return load_images(str(name), config(str(name), **settings), image_size=size, channels=channels, training=training)


def splits(train, *, size=SIZE, channels=3, **settings):
    return load_image_splits(config(train, **settings), image_size=size, channels=channels)


def all_of(images):
    return images.pixels(np.arange(len(images)))


def rows_of(images):
    """What each picture is, whatever its number."""
    return sorted(zip((pixels.tobytes() for pixels in all_of(images)), images.labels, strict=True))


def findings(report):
    return {finding.kind: (finding.count, finding.action) for finding in report.findings}


def idx(values):
    values = np.asarray(values, np.uint8)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def put_idx(folder, pixels, numbers, stem="train", packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in ((f"images-idx{np.ndim(pixels)}", pixels), ("labels-idx1", numbers)):
        content = idx(values)
        path = folder / f"{stem}-{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder / stem


# Forms of sets.


def test_a_folder_a_csv_and_idx_files_give_the_same_pictures(folder):
    pictures = [picture(i) for i in range(12)]
    table = folder / "pictures.csv"
    table.write_text(
        "id,label,path\n" + "".join(f"{i},{i % 2},set/{i % 2}/{i:03}.png\n" for i in range(12)), encoding="utf-8"
    )
    sets = [
        load(folders(folder / "set", classes=("0", "1")))[0],
        load(table)[0],
        load(put_idx(folder / "a", pictures, np.arange(12) % 2))[0],
        load(put_idx(folder / "b", pictures, np.arange(12) % 2, packed=False))[0],
    ]
    for images in sets:
        assert rows_of(images) == sorted((x.transpose(2, 0, 1).tobytes(), str(i % 2)) for i, x in enumerate(pictures))
        assert (images.size, images.channels, len(images)) == (SIZE, 3, 12)
        assert sorted(images.digests) == sorted(sets[0].digests)


def test_pictures_have_the_size_and_channels_that_the_model_asks_for(folder):
    name = folders(folder / "set", width=9, height=5)
    for training in (False, True):
        for channels in (1, 3):
            images = load(name, training=training, size=7, channels=channels, fit="crop", crop_share=0.5)[0]
            assert all_of(images).shape == (12, channels, 7, 7) and all_of(images).dtype == np.uint8
    grey = put_idx(folder / "g", [picture(i)[..., 0] for i in range(4)], [0, 1, 0, 1])
    images = load(grey, size=9)[0]
    assert all_of(images).shape == (4, 3, 9, 9) and (all_of(images)[:, 0] == all_of(images)[:, 2]).all()


def test_nested_folders_belong_to_their_class_and_hidden_and_other_files_do_not(folder):
    name = folders(folder / "set")
    put(folder / "set/cat/more/deep/x.JPG", picture(50))
    put(folder / "set/cat/.hidden.png", picture(51))
    put(folder / "set/.cache/x.png", picture(52))
    put(folder / "set/cat/.thumbnails/x.png", picture(53))
    put(folder / "set/dog/notes.txt", b"hello")
    put(folder / "set/readme.md", b"hello")
    put(folder / "elsewhere/x.png", picture(54))
    (folder / "set/cat/linked").symlink_to(folder / "elsewhere")
    (folder / "elsewhere/round").symlink_to(folder / "set/cat")
    images, report = load(name)
    assert len(images) == 14 and images.labels.count("cat") == 8
    assert findings(report) == {"file that is no picture": (2, "dropped")}


def test_paths_in_a_csv_may_be_absolute_and_its_columns_have_other_names(folder):
    folders(folder / "elsewhere", n=2)
    (folder / "data/a.csv").write_text(
        "Finding;file\n".replace(";", ",") + f"cat,{folder / 'elsewhere/cat/000.png'}\ndog,../elsewhere/dog/001.png\n",
        encoding="utf-8",
    )
    images, _ = load("a", path_column="file", label_column="Finding")
    assert images.labels == ["cat", "dog"] and len(rows_of(images)) == 2
    with pytest.raises(DataError, match="has no column path") as error:
        load("a", label_column="Finding")
    assert "data.path_column" in error.value.mend


@pytest.mark.parametrize("name", ["mnist/train", "mnist/test"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_found_by_what_stands_before_their_names(folder, name, packed):
    stem = {"mnist/train": "train", "mnist/test": "t10k"}[name]
    put_idx(folder / "data/mnist", [picture(i)[..., 0] for i in range(4)], [3, 10, 9, 3], stem, packed)
    images, _ = load(name, channels=1)
    assert images.labels == ["3", "10", "9", "3"] and images.places[1].endswith(":1")


def test_numbered_classes_are_named_by_a_file_beside_them(folder):
    name = put_idx(folder / "m", [picture(i)[..., 0] for i in range(3)], [2, 0, 1])
    (folder / "m/labels.txt").write_text("zero\none\ntwo\n", encoding="utf-8")
    assert load(name, channels=1)[0].labels == ["two", "zero", "one"]
    for wrong in ("zero\none\n", "zero\nzero\ntwo\n", "zero\n\ntwo\n"):
        (folder / "m/labels.txt").write_text(wrong, encoding="utf-8")
        with pytest.raises(DataError, match=r"labels.txt: the names of classes do not fit"):
            load(name, channels=1)


def test_classes_are_sorted_numbers_by_value(folder):
    name = folders(folder / "set", n=22, classes=tuple(str(i) for i in range(11)))
    assert splits(name).labels == tuple(str(i) for i in range(11))
    assert splits(folders(folder / "other")).labels == ("cat", "dog")


# Names.


def test_a_name_is_found_below_tripel_data(folder):
    folders(folder / "data/pets/train")
    assert find_images("pets/train").path == folder / "data/pets/train"
    with pytest.raises(DataError, match="there is no data pets/trian") as error:
        find_images("pets/trian")
    assert "pets/train" in error.value.mend


def test_a_folder_that_holds_sets_names_them(folder):
    for part in ("train", "val"):
        folders(folder / "data/pets" / part, n=2)
    put_idx(folder / "data/numbers", [picture(0)], [0])
    put_idx(folder / "data/numbers", [picture(0)], [0], "t10k")
    for name, parts in (("pets", "pets/train, pets/val"), ("numbers", "numbers/test, numbers/train")):
        with pytest.raises(DataError, match=f"{name} is a folder, not one set") as error:
            find_images(name)
        assert parts in error.value.expected and f"{name}/train" in error.value.mend


def test_a_class_may_be_named_as_sets_are(folder):
    name = folders(folder / "vehicles", classes=("bus", "train"))
    assert splits(name).labels == ("bus", "train")


def test_a_folder_without_classes_and_a_file_of_another_form_are_refused(folder):
    put(folder / "flat/a.png", picture(0))
    with pytest.raises(DataError, match="no folders of classes"):
        find_images("flat")
    with pytest.raises(DataError, match="not in a form that has pictures"):
        find_images("flat/a.png")


# Checks.


def test_an_empty_class_folder_is_refused_by_name(folder):
    name = folders(folder / "set")
    put(folder / "set/bird/readme.txt", b"to come")
    (folder / "set/fish").mkdir()
    with pytest.raises(DataError, match="folder of a class has no picture") as error:
        load(name)
    assert error.value.given == "bird, fish"


def test_one_class_only_is_refused(folder):
    with pytest.raises(DataError, match="one class only"):
        splits(folders(folder / "set", classes=("cat",)))


def test_labels_that_training_has_not_are_refused_with_their_place(folder):
    train, test = folders(folder / "train"), folders(folder / "test", n=3, classes=("cat", "bird", "dog"))
    with pytest.raises(DataError, match="labels that the training set has not") as error:
        splits(train, test=test)
    assert f"'bird' at {folder / 'test/bird/001.png'}" in str(error.value)


BAD = {
    "truncated": lambda folder, good: good[: len(good) // 2],
    "not a picture": lambda folder, good: b"<html>not found</html>",
    "empty": lambda folder, good: b"",
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("cause", BAD)
def test_a_picture_that_cannot_be_read_is_named_with_the_cause_and_skipped(folder, cause, training):
    name = folders(folder / "set", n=30, width=40, height=40)
    path = folder / "set/cat/004.png"
    put(path, BAD[cause](folder, path.read_bytes()))
    images, report = load(name, training=training)
    (finding,) = report.findings
    assert finding.kind == ("unreadable picture" if training else "unreadable picture, not scored")
    assert (finding.count, finding.action) == (1, "dropped")
    assert finding.examples[0].startswith(f"{path} (") and (
        "damaged" in str(finding) or "not a picture" in str(finding)
    )
    assert len(images) == 29 and str(path) not in images.places and images.digests.all()
    assert report.sizes == {name: (30, 29)}
    with pytest.raises(DataError, match="unreadable picture in 1 of 30 pictures"):
        load(name, training=training, max_bad_share=0.03)


def test_a_missing_file_a_large_picture_and_rows_without_label_count_as_bad(folder):
    folders(folder / "set", n=2)
    put(folder / "set/cat/large.png", picture(7, 50, 50))
    (folder / "a.csv").write_text(
        "path,label\nset/cat/000.png,cat\nset/dog/001.png,dog\nset/none.png,dog\nset/cat/large.png,cat\n"
        "set/cat/000.png,\n,cat\nset/cat/000.png\n",
        encoding="utf-8",
    )
    images, report = load("a", max_pixels=400, max_bad_share=0.9)
    assert images.labels == ["cat", "dog"] and report.sizes == {"a": (7, 2)}
    assert findings(report) == {
        "unreadable picture": (2, "dropped"),
        "empty label": (1, "dropped"),
        "bad record": (2, "dropped"),
    }
    (finding,) = [finding for finding in report.findings if finding.kind == "unreadable picture"]
    assert "no such file" in finding.examples[0] and "too large" in finding.examples[1]
    with pytest.raises(DataError, match="max_bad_share 0.05"):
        load("a", max_pixels=400)


def test_a_set_of_which_nothing_is_left_is_refused(folder):
    (folder / "a.csv").write_text("path,label\n,cat\n", encoding="utf-8")
    (folder / "b.csv").write_text("path,label\nnone.png,cat\n", encoding="utf-8")
    for name in ("a", "b"):
        with pytest.raises(DataError, match="no picture is left"):
            load(name, max_bad_share=1.0)


@pytest.mark.parametrize("drop", [False, True])
def test_repeats_and_conflicting_labels_are_told_also_between_sets_and_dropped_if_asked_for(folder, drop):
    first, second = folders(folder / "first"), folders(folder / "second", n=4, first=20)
    put(folder / "first/cat/again.bmp", picture(0))  # in another form, under another name
    put(folder / "second/dog/000.png", picture(0))
    train = splits((first, second), drop_duplicates=drop)
    action = "dropped" if drop else "kept"
    assert findings(train.report) == {"duplicate": (1, action), "conflicting labels": (1, action)}
    assert len(train.train) == (16 if drop else 18)
    assert findings(load(first, training=False, drop_duplicates=True)[1])["duplicate"] == (1, "kept")


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("stored", [None, 9])
def test_training_pictures_that_are_in_another_set_are_told_and_dropped_if_asked_for(folder, drop, stored):
    train, test = folders(folder / "train"), folders(folder / "test", n=3, first=10)
    found = splits(train, test=test, drop_overlap=drop, stored_size=stored)
    assert findings(found.report)[f"also in {test}"] == (2, "dropped" if drop else "kept")
    assert len(found.train) == (10 if drop else 12) and len(found.test) == 3


def test_pictures_smaller_than_the_model_sees_are_told(folder):
    name = folders(folder / "set", n=10, width=8, height=8)
    put(folder / "set/cat/thin.png", picture(90, 30, 5))
    _, report = load(name, size=8)
    (finding,) = report.findings
    assert (finding.kind, finding.count, finding.action) == ("smaller than 8 x 8", 1, "kept")
    assert "(30 x 5)" in finding.examples[0]


def test_unequal_classes_are_told(folder):
    name = folders(folder / "set", n=40, classes=("cat",))
    put(folder / "set/dog/1.png", picture(99))
    assert any(kind.startswith("unequal classes: cat 40, dog 1") for kind in findings(splits(name).report))


# Shares.


def numbered(folder, n=400):
    return put_idx(folder / "numbers", [picture(i, 4, 4)[..., 0] for i in range(n)], np.arange(n) % 4)


def test_the_validation_share_is_drawn_by_the_pictures_alone_and_parts_the_training_set(folder):
    name = str(numbered(folder))
    whole, found = splits(name, channels=1, size=4), splits(name, channels=1, size=4, valid_share=0.25)
    assert rows_of(whole.train) == sorted(rows_of(found.train) + rows_of(found.valid))
    assert len(found.valid) == pytest.approx(100, abs=45)
    other = put_idx(
        folder / "turned", [picture(i, 4, 4)[..., 0] for i in range(399, -1, -1)], np.arange(399, -1, -1) % 4
    )
    turned = splits(str(other), channels=1, size=4, valid_share=0.25)
    assert rows_of(turned.valid) == rows_of(found.valid)


def test_smaller_shares_of_the_training_set_are_inside_larger_ones_and_keep_every_class(folder):
    name, before = str(numbered(folder)), set()
    for share in (0.01, 0.05, 0.25, 1.0):
        found = splits(name, channels=1, size=4, valid_share=0.25, train_share=share)
        rows, counts = set(found.train.places), [found.train.labels.count(label) for label in "0123"]
        assert before <= rows and len(rows) == len(found.train)
        assert found.labels == ("0", "1", "2", "3") and min(counts) >= 1
        assert len(rows) == pytest.approx(share * 300, rel=0.15, abs=4)
        assert not rows & set(found.valid.places)
        before = rows


def test_a_validation_set_and_a_share_exclude_each_other():
    with pytest.raises(ValidationError, match="give one of them"):
        ImageDataConfig(train="a", valid="b", valid_share=0.1)
    with pytest.raises(ValidationError, match="at least one training set"):
        ImageDataConfig(train=())


def test_given_statistics_are_as_many_means_as_deviations():
    assert config("a", normalise={"mean": [0.5], "std": [0.25]}).normalise == Statistics(mean=(0.5,), std=(0.25,))
    for wrong in ({"mean": [0.5], "std": [1, 1]}, {"mean": [0.5], "std": [0]}, "other"):
        with pytest.raises(ValidationError):
            config("a", normalise=wrong)


def test_validation_pictures_that_are_cut_from_the_training_set_have_the_size_that_the_model_sees(folder):
    parts = folders(folder / "a", n=60, width=20, height=16), folders(folder / "b", n=60, first=60, width=20, height=16)
    settings = {"fit": "crop", "crop_share": 0.8, "valid_share": 0.3}
    found = splits(parts, size=6, stored_size=12, **settings)
    assert found.train.size == 12 and found.valid.size == 6
    direct = splits(parts, size=6, **settings).valid
    assert found.valid.places == direct.places and (all_of(found.valid) == all_of(direct)).all()


# What is read back.


def test_some_of_a_set_are_its_pictures_in_that_order(folder):
    images = splits((folders(folder / "a", n=5), folders(folder / "b", n=5, first=5))).train
    pixels, chosen = all_of(images), [7, 0, 4, 9]
    part = images.taken(chosen, "part")
    assert (all_of(part) == pixels[chosen]).all() and part.name == "part"
    assert part.places == [images.places[i] for i in chosen] and part.labels == [images.labels[i] for i in chosen]
    assert (images.pixels(np.array([3, 3, 8])) == pixels[[3, 3, 8]]).all()
    assert images.taken(range(10)).fingerprint == images.fingerprint != part.fingerprint


@pytest.mark.parametrize("cache_gib", [4.0, 0.0])
def test_statistics_are_the_mean_and_deviation_of_all_pixels(folder, cache_gib):
    images = splits((folders(folder / "a", n=5), folders(folder / "b", n=5, first=5)), cache_gib=cache_gib).train
    for part in (images, images.taken([1, 2, 8])):
        mean, std = part.statistics()
        pixels = all_of(part).astype(np.float64) / 255
        assert mean == pytest.approx(pixels.mean((0, 2, 3))) and std == pytest.approx(pixels.std((0, 2, 3)))


# The cache.


def kept():
    return sorted(path.suffix for path in (cache_folder() / "pictures").glob("*"))


@pytest.fixture
def looked(monkeypatch):
    """The originals that were decoded."""
    found = []
    look_at = decoding.look_at
    monkeypatch.setattr(decoding, "look_at", lambda original, form: found.append(original) or look_at(original, form))
    return found


def test_pictures_are_decoded_once_and_again_when_one_of_them_changes(folder, looked):
    name = folders(folder / "set")
    first = all_of(load(name)[0])
    assert len(looked) == 12 and kept() == [".npz", ".pixels"]
    assert (all_of(load(name)[0]) == first).all() and len(looked) == 12
    path = folder / "set/cat/000.png"
    times = path.stat()
    put(path, picture(77))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = all_of(load(name)[0])
    assert (
        len(looked) == 24 and (changed[0] == picture(77).transpose(2, 0, 1)).all() and (changed[1:] == first[1:]).all()
    )


@pytest.mark.parametrize(
    "other", [{"size": 7}, {"channels": 1}, {"fit": "crop", "crop_share": 0.5}, {"resample": "bicubic"}]
)
def test_what_was_kept_for_one_form_is_not_taken_for_another(folder, looked, other):
    name = folders(folder / "set", width=9)
    before = all_of(load(name)[0])
    after = all_of(load(name, **other)[0])
    assert len(looked) == 24 and (before.shape != after.shape or (before != after).any())


@pytest.mark.parametrize("damage", ["flipped", "cut short", "removed", "table cut short"])
def test_a_damaged_cache_is_made_again(folder, looked, damage):
    name = folders(folder / "set")
    before = all_of(load(name)[0]).copy()
    path = next((cache_folder() / "pictures").glob("*.npz" if "table" in damage else "*.pixels"))
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:] if damage == "flipped" else content[: len(content) // 2])
    assert (all_of(load(name)[0]) == before).all() and len(looked) == 24
    assert (all_of(load(name)[0]) == before).all() and len(looked) == 24


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(folder, looked):
    name = folders(folder / "set")
    (folder / "cache").write_bytes(b"in the way")
    first, second = (all_of(load(name)[0]) for _ in range(2))
    assert (first == second).all() and len(rows_of(load(name)[0])) == 12


def test_over_the_limit_pictures_are_decoded_when_they_are_read(folder, looked):
    name = folders(folder / "set")
    put(folder / "set/cat/bad.png", b"bad")
    pixels = all_of(load(name, max_bad_share=0.5)[0])
    looked.clear()
    images, report = load(name, max_bad_share=0.5, cache_gib=0.0)
    assert len(looked) == 13 and findings(report) == {"unreadable picture": (1, "dropped")}
    assert (images.pixels(np.array([11, 2, 2])) == pixels[[11, 2, 2]]).all() and len(looked) == 16
    load(name, max_bad_share=0.5, cache_gib=0.0)
    assert len(looked) == 16 and kept().count(".pixels") == 1
    shutil.rmtree(folder / "set/cat")
    with pytest.raises(DataError, match="could be read at the start and now cannot: there is no such file"):
        images.pixels(np.array([0]))


def test_idx_of_the_right_size_needs_no_cache(folder):
    load(numbered(folder), channels=1, size=4)
    assert kept() == []


# Processes.


@pytest.mark.parametrize("cache_gib", [4.0, 0.0])
def test_worker_processes_read_what_this_process_reads(folder, started, cache_gib):
    name = folders(folder / "set", n=40, width=9)
    put(folder / "set/cat/bad.png", b"bad")
    put(folder / "set/dog/with\nünusual name.png", picture(90))
    alone, first = load(name, workers=1, cache_gib=cache_gib)
    expected = all_of(alone)
    shutil.rmtree(cache_folder())
    beside, second = load(name, workers=2, cache_gib=cache_gib)
    assert (all_of(beside) == expected).all() and str(first) == str(second)
    assert beside.places == alone.places and len(beside) == 41
    assert len(started) == (2 if cache_gib else 4)  # to look at them once, and to read them


def test_worker_processes_end_with_their_work(folder, started):
    load(folders(folder / "set", n=40), workers=2)
    assert len(started) == 2 and all(process.poll() is not None for process in started)


def test_an_interruption_ends_the_workers_and_keeps_nothing(folder, started, monkeypatch):
    def interrupted(pixels):
        raise KeyboardInterrupt

    monkeypatch.setattr(image_store, "_moments_of_each", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(folders(folder / "set", n=40), workers=2)
    assert len(started) == 2 and all(process.poll() is not None for process in started)
    assert kept() == []


def test_a_worker_ends_when_nobody_is_there_to_ask(started):
    worker = decoding._Worker(decoding.Form(SIZE, 3, "stretch", 1.0, "bilinear", 100))
    assert worker.is_ready()
    started[0].stdin.close()
    assert started[0].wait(timeout=60) == 0
    worker.end()


def test_a_worker_does_not_load_torch():
    code = "import sys, tripel.data.decoding; sys.exit('torch' in sys.modules)"
    root = str(Path(decoding.__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_a_worker_that_dies_names_the_picture_and_the_way_out(folder, started, monkeypatch):
    name = folders(folder / "set", n=40)
    read = decoding._Worker.read
    monkeypatch.setattr(decoding._Worker, "read", lambda self, files: (self._process.kill(), read(self, files))[1])
    with pytest.raises(DataError, match=r"\.png: the process that was reading this picture ended") as error:
        load(name, workers=2)
    assert error.value.given == "signal 9" and "data.workers" in error.value.mend
    assert all(process.poll() is not None for process in started)
    assert kept() == []


def test_a_worker_may_be_let_go_by_several_threads_at_once(started):
    worker = decoding._Worker(decoding.Form(6, 3, "stretch", 1.0, "bilinear", 1000))
    together, reading = threading.Barrier(2), worker._errors.read

    class Slow:
        def __getattr__(self, name, errors=worker._errors):
            return getattr(errors, name)

        def read(self):
            time.sleep(0.2)  # long enough for the other to come by
            return reading()

    worker._errors = Slow()

    def let_go(_):
        together.wait()
        worker.end()

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(let_go, range(2))) == [None, None]
    assert started[0].poll() is not None


@pytest.mark.parametrize("interpreter", ["/nonexistent/python", shutil.which("false")])
def test_where_no_worker_can_be_started_this_process_reads(folder, started, monkeypatch, caplog, interpreter):
    monkeypatch.setattr(sys, "executable", interpreter)
    images, _ = load(folders(folder / "set", n=40), workers=2)
    assert len(images) == 40 and "process" in caplog.text


SCRIPT = """
    from pathlib import Path
    from tripel.data import decoding
    decoding._FEW = 0
    print("begun")
    form = decoding.Form(6, 3, "stretch", 1.0, "bilinear", 1000)
    with decoding.Decoder(sorted(Path("set").rglob("*.png")), form, 2) as decoder:
        seen = [looked for part in decoder.read(range(20)) for looked, pixels in part]
        assert len(decoder._workers) == 2
    print(sum(looked.width for looked in seen))
"""


@pytest.mark.parametrize("how", ["script without a main guard", "-c", "standard input"])
def test_workers_do_not_run_the_users_code_again(folder, how):
    folders(folder / "set", n=20)
    code = textwrap.dedent(SCRIPT)
    (folder / "script.py").write_text(code, encoding="utf-8")
    arguments = {"-c": ["-c", code], "standard input": ["-"]}.get(how, ["script.py"])
    root = str(Path(decoding.__file__).parents[2])
    result = subprocess.run(
        [sys.executable, *arguments], input=code, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root}
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "begun\n120\n", "")


# Real data.


@pytest.mark.skipif("TRIPEL_DATA" not in os.environ, reason="needs real data: set TRIPEL_DATA")
def test_fashion_mnist_is_read_whole(monkeypatch):
    monkeypatch.setenv("TRIPEL_DATA", REAL)
    found = load_image_splits(
        config("fashion-mnist/train", test="fashion-mnist/test", valid_share=0.1), image_size=28, channels=1
    )
    assert len(found.train) + len(found.valid) == 60_000 and len(found.test) == 10_000
    assert found.labels[0] == "Ankle boot" and len(found.labels) == 10
    assert {found.test.labels.count(label) for label in found.labels} == {1000}
    whole = load("fashion-mnist/train", size=28, channels=1)[0]
    (mean,), (std,) = whole.statistics()
    assert mean == pytest.approx(0.2860, abs=5e-5) and std == pytest.approx(0.3530, abs=5e-5)
    assert whole.labels[:3] == ["Ankle boot", "T-shirt/top", "T-shirt/top"]  # as the set's README shows them


REAL = os.environ.get("TRIPEL_DATA", "")
