"""Classes of pictures, from files, from Pillow and from arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from vision import LABELS, SIDE, classifier_model, noise, png, write_noise

import tripel
from tripel.checkpoint import save_run
from tripel.data.pictures import fitted, read_picture
from tripel.errors import DataError, InputError
from tripel.pipelines.images import ImageClassifier, UnreadPicture
from tripel.pipelines.load import load_classifier, load_completer, load_image_classifier


@pytest.fixture(scope="module")
def grey():
    return ImageClassifier(classifier_model())


@pytest.fixture(scope="module")
def coloured():
    return ImageClassifier(classifier_model(channels=3))


def probabilities_of(answer):
    return np.array([dict(answer.probabilities)[label] for label in LABELS])


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_probabilities_are_the_softmax_of_the_models_logits(kind, channels):
    model = classifier_model(kind, channels)
    pixels = noise(5, channels, SIDE, SIDE)
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (model.vocabulary.mean, model.vocabulary.std))
    with torch.no_grad():
        expected = model((torch.from_numpy(pixels) / 255 - mean) / std).double().softmax(-1).numpy()
    pictures = [x[0] if channels == 1 else x.transpose(1, 2, 0) for x in pixels]
    for answer, p_C in zip(ImageClassifier(model).classify(pictures, top=None), expected, strict=True):
        np.testing.assert_allclose(probabilities_of(answer), p_C, atol=1e-6)
        assert answer.label == LABELS[p_C.argmax()] and answer.changes == ()
        assert [p for _, p in answer.probabilities] == sorted((p for _, p in answer.probabilities), reverse=True)


def test_an_answer_does_not_depend_on_what_else_is_asked(grey, tmp_path):
    paths = write_noise(tmp_path, 300)
    together = grey.classify(paths, top=None)
    assert [answer.source for answer in together] == list(map(str, paths))
    for path, answer in list(zip(paths, together, strict=True))[::50]:
        (alone,) = grey.classify([path], top=None)
        assert alone.label == answer.label
        np.testing.assert_allclose(probabilities_of(alone), probabilities_of(answer), atol=1e-6)


def test_a_picture_is_the_same_from_a_file_from_pillow_and_as_an_array(coloured, tmp_path):
    pixels = noise(SIDE, SIDE, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    given = [str(tmp_path / "a.png"), tmp_path / "a.png", Image.open(tmp_path / "a.png"), pixels]
    answers = coloured.classify(given)
    assert [answer.source for answer in answers] == [str(tmp_path / "a.png")] * 2 + ["picture 3", "picture 4"]
    for answer in answers:
        assert dict(answer.probabilities) == pytest.approx(dict(answers[0].probabilities))


def pictures_of_all_forms():
    grey, colours = noise(11, 9), noise(11, 9, 3)
    alpha = noise(11, 9, 4)
    yield "L", Image.fromarray(grey)
    yield "1", Image.fromarray(grey).convert("1")
    yield "LA", Image.fromarray(alpha).convert("LA")
    yield "16 bits", Image.fromarray(noise(11, 9).astype(np.uint16) * 256 + 77)
    yield "RGB", Image.fromarray(colours)
    yield "RGBA", Image.fromarray(alpha)
    yield "palette", Image.fromarray(colours).quantize(16)
    yield "CMYK", Image.fromarray(colours).convert("CMYK")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("form", "picture"), list(pictures_of_all_forms()))
def test_a_picture_of_any_form_is_taken_as_data_of_that_form_are(tmp_path, channels, form, picture):
    path = tmp_path / ("a.tiff" if form == "CMYK" else "a.png")
    picture.save(path)
    classifier = ImageClassifier(classifier_model(channels=channels))
    as_data = read_picture(path, channels=channels, max_pixels=1000)
    pixels = fitted(as_data, SIDE, fit="stretch", crop_share=1.0, resample="bilinear")
    (answer,) = classifier.classify([path], top=None)
    np.testing.assert_allclose(probabilities_of(answer), classifier.probabilities([pixels[None].copy()])[0], atol=1e-12)


def test_what_had_to_be_changed_is_told(grey, coloured):
    same, wide = noise(SIDE, SIDE), noise(SIDE, 20)
    colours = noise(SIDE, SIDE, 3)
    of_grey = np.repeat(same[:, :, None], 3, axis=2)
    found = [answer.changes for answer in grey.classify([same, wide, colours, of_grey])]
    assert found == [(), ("resized",), ("made grey",), ()]
    found = [answer.changes for answer in coloured.classify([same, wide, colours])]
    assert found == [("made coloured",), ("resized", "made coloured"), ()]


def test_pictures_are_brought_to_the_models_size_as_its_data_were():
    model = classifier_model(fit="crop", crop_share=1.0)
    middle = noise(SIDE, SIDE)
    wide = np.concatenate([np.zeros((SIDE, 6), np.uint8), middle, np.full((SIDE, 6), 255, np.uint8)], axis=1)
    whole, cut = ImageClassifier(model).classify([middle, wide], top=None)
    assert dict(whole.probabilities) == pytest.approx(dict(cut.probabilities))


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([(), (1,), (3,), (4,)]),
    st.sampled_from(["stretch", "crop"]),
)
def test_an_array_of_any_size_has_a_class(height, width, channels, fit):
    classifier = ImageClassifier(classifier_model(fit=fit))
    (answer,) = classifier.classify([noise(height, width, *channels)], top=None)
    assert sum(p for _, p in answer.probabilities) == pytest.approx(1)


def test_the_likeliest_five_are_given_unless_another_number_is_asked_for(grey):
    for top, expected in ((None, 6), (2, 2), (99, 6)):
        assert len(grey.classify([noise(8, 8)], top=top)[0].probabilities) == expected
    (answer,) = grey.classify([noise(8, 8)])
    assert len(answer.probabilities) == 5 and answer.as_dict()["probabilities"] == dict(answer.probabilities)


@pytest.fixture
def bad_files(tmp_path):
    whole = write_noise(tmp_path, 1, 40, 40)[0].read_bytes()
    contents = {
        "huge.png": png(60_000, 60_000),
        "cut.png": whole[: len(whole) // 2],
        "text.png": b"no picture at all",
        "empty.png": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("huge.png", "too large.*60,000 x 60,000"),
        ("cut.png", "damaged or cut short"),
        ("text.png", "not a picture"),
        ("empty.png", "not a picture"),
        ("folder.png", "cannot be read.*[Dd]irectory"),
        ("nowhere.png", "no such file"),
        ("n" * 400, "cannot be read.*too long"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_cause(grey, bad_files, name, what):
    with pytest.raises(DataError, match=f"(?s){name}.*{what}"):
        grey.classify([noise(8, 8), bad_files / name])


@pytest.mark.parametrize(
    ("picture", "what"),
    [
        (noise(8, 8).astype(np.float32), r"float32 \[8, 8\]"),
        (noise(3, 8, 8), r"\[3, 8, 8\]"),
        (noise(0, 8), r"\[0, 8\]"),
        (noise(2, 8, 8, 3), r"\[2, 8, 8, 3\]"),
        (Image.new("L", (0, 4)), "no pixels"),
        (torch.zeros(3, 8, 8), "Tensor"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_number(grey, picture, what):
    with pytest.raises(InputError, match=f"(?s)picture 2.*{what}"):
        grey.classify([noise(8, 8), picture])


def test_a_picture_of_pillows_that_turns_out_damaged_is_refused_by_its_number(grey, bad_files):
    with pytest.raises(InputError, match="picture 1: the picture is damaged"):
        grey.classify([Image.open(bad_files / "cut.png")])


@pytest.mark.parametrize("one", ["a.png", noise(8, 8), Image.new("L", (8, 8))])
def test_one_picture_in_the_place_of_many_is_refused(grey, one):
    with pytest.raises(InputError, match="one picture was given for many"):
        grey.classify(one)


def test_no_classes_at_all_cannot_be_asked_for(grey):
    with pytest.raises(InputError, match="top is too small"):
        grey.classify([noise(8, 8)], top=0)


def test_nothing_is_answered_with_nothing(grey):
    assert grey.classify([]) == []


def test_what_cannot_be_read_keeps_its_place_among_the_answers(grey, bad_files):
    paths = [bad_files / name for name in ("cut.png", "0.png", "text.png", "0.png")]
    found = list(grey.answers(paths))
    assert [isinstance(answer, UnreadPicture) for answer in found] == [True, False, True, False]
    assert [answer.source for answer in found] == list(map(str, paths))


@pytest.mark.parametrize("at_once", [True, False])
def test_pictures_are_read_ahead_unless_each_is_to_be_answered_at_once(grey, at_once):
    asked = []

    def pictures():
        for number in range(4):
            asked.append(number)
            yield noise(8, 8, seed=number)

    answers = grey.answers(pictures(), at_once=at_once)
    next(answers)
    assert asked == ([0] if at_once else [0, 1, 2, 3])
    assert len(list(answers)) == 3


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_run_opens_as_a_classifier_of_pictures_that_says_what_the_model_says(tmp_path, kind):
    model = classifier_model(kind, channels=3)
    save_run(tmp_path / "run", model, None, recipe_yaml=None, card="# a classifier\n")
    opened = tripel.load(tmp_path / "run")
    assert isinstance(opened, tripel.ImageClassifier) and opened.labels == LABELS and opened.max_pixels == 50_000_000
    pictures = [noise(8, 8, 3, seed=seed) for seed in range(3)]
    plain = ImageClassifier(model).classify(pictures, top=None)
    for said, expected in zip(load_image_classifier(tmp_path / "run").classify(pictures, top=None), plain, strict=True):
        np.testing.assert_allclose(probabilities_of(said), probabilities_of(expected), atol=1e-5)


@pytest.mark.parametrize("load", [load_classifier, load_completer])
def test_a_run_that_classifies_pictures_is_named_with_its_command(tmp_path, load):
    save_run(tmp_path / "run", classifier_model(), None, recipe_yaml=None, card="# a classifier\n")
    with pytest.raises(InputError, match="(?s)a classifier of pictures.*tripel classify"):
        load(tmp_path / "run")
