"""Single pictures: whatever their form, upright 8-bit grey or colour comes out, or an error that says why not."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tripel.data.pictures import FORMATS, PictureProblem, fitted, opened_picture, read_picture
from tripel.errors import DataError, InputError

MANY = 10**9


def colours(width=12, height=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def written(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def read(content, channels=3, max_pixels=MANY):
    return np.asarray(read_picture(content, channels=channels, max_pixels=max_pixels))


def png(width, height, depth=8, colour=2, data=b""):
    """A PNG of these bits by its header, made without Pillow."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


# Forms.


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_a_lossless_picture_comes_out_as_it_went_in_by_its_content_and_not_by_its_name(tmp_path, form, options):
    pixels = colours()
    path = tmp_path / "wrong.jpg"
    path.write_bytes(written(Image.fromarray(pixels), form, **options))
    assert (
        (read(path) == pixels).all() and (read(str(path)) == pixels).all() and (read(path.read_bytes()) == pixels).all()
    )


@pytest.mark.parametrize("form", FORMS := list(FORMATS))
def test_every_form_is_read_as_grey_and_as_colours(form):
    content = written(Image.fromarray(colours()), form)
    assert read(content, 3).shape == (8, 12, 3) and read(content, 1).shape == (8, 12)
    grey = written(Image.fromarray(colours()[..., 0]), form)
    three = read(grey, 3)
    assert (three == read(grey, 1)[..., None]).all()


def test_an_animation_is_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read(content) == (255, 0, 0)).all()


def test_sixteen_bits_are_scaled_to_eight():
    values = np.array([[0, 1, 128, 129], [257, 32768, 65534, 65535]], np.uint16)
    content = png(4, 2, 16, 0, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    expected = np.round(values / 257).astype(np.uint8)
    assert (read(content, 1) == expected).all()
    for mode in ("I;16", "I"):
        picture = Image.fromarray(values.astype(np.int32) if mode == "I" else values)
        assert (read(written(picture, "TIFF"), 1) == expected).all(), mode
    assert (read(content, 3) == expected[..., None]).all()


@pytest.mark.parametrize(
    "values", [np.full((2, 2), 70_000, np.int32), np.full((2, 2), -1, np.int32), np.eye(2, dtype=np.float32)]
)
def test_values_of_other_bits_are_refused(values):
    with pytest.raises(InputError, match="neither 8 nor 16 bits"):
        read(written(Image.fromarray(values), "TIFF"), 1)


def test_palettes_are_looked_up():
    pixels = np.repeat(np.repeat(colours(3, 2), 4, axis=0), 4, axis=1)
    assert (read(written(Image.fromarray(pixels).quantize(8))) == pixels).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette", "grey with a transparent level"])
def test_what_is_transparent_is_white(mode):
    options = {}
    if mode == "RGBA":
        picture = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
        picture.putpixel((1, 0), (0, 0, 0, 0))
    elif mode == "LA":
        picture = Image.new("LA", (2, 1), (0, 255))
        picture.putpixel((1, 0), (0, 0))
    elif mode == "palette":
        picture = Image.new("P", (2, 1), 0)
        picture.putpalette([0, 0, 0, 9, 9, 9])
        picture.putpixel((1, 0), 1)
        options = {"transparency": 1}
    else:
        picture = Image.new("L", (2, 1), 0)
        picture.putpixel((1, 0), 7)
        options = {"transparency": 7}
    assert read(written(picture, **options)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_half_transparent_black_is_grey():
    assert read(written(Image.new("RGBA", (1, 1), (0, 0, 0, 128))), 1).item() == pytest.approx(127, abs=1)


@pytest.mark.parametrize(
    ("mode", "form"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("1", "PNG"), ("LAB", "TIFF")]
)
def test_other_colour_spaces_become_red_green_and_blue(mode, form):
    picture = Image.new("RGB", (8, 8), (250, 250, 250))
    converted = Image.new("LAB", (8, 8), (250, 128, 128)) if mode == "LAB" else picture.convert(mode)
    assert read(written(converted, form)).min() > 235


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_the_camera_was_held(orientation):
    # The corner that is meant to be at the top left, by the definition of the tag (Exif 2.3, table 6).
    stored = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[orientation]
    pixels = np.full((8, 12, 3), 255, np.uint8)
    rows, columns = (slice(4, None) if stored[0] else slice(4)), (slice(6, None) if stored[1] else slice(6))
    pixels[rows, columns] = 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read(written(Image.fromarray(pixels), "PNG", exif=exif), 1)
    assert upright.shape == ((8, 12) if orientation < 5 else (12, 8))
    half = upright.shape[0] // 2, upright.shape[1] // 2
    assert not upright[: half[0], : half[1]].any() and upright[half[0] :].all() and upright[:, half[1] :].all()


# What cannot be read.


def test_a_picture_larger_than_allowed_is_refused_by_its_header_alone(recwarn):
    content = png(60_000, 60_000)
    with pytest.raises(InputError, match="too large") as error:
        read(content, max_pixels=50_000_000)
    assert "60,000 x 60,000" in str(error.value) and not recwarn.list


def test_pillows_own_bound_neither_warns_nor_refuses(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read(written(Image.fromarray(colours()))).shape == (8, 12, 3)
    assert Image.MAX_IMAGE_PIXELS == 10 and not recwarn.list


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_picture_is_named_with_the_cause(tmp_path, form):
    content = written(Image.fromarray(colours(64, 64)), form)
    path = tmp_path / "a.png"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="a.png: the picture is damaged or cut short|a.png: this is not a picture"):
        read(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"not a picture at all", b"GIF89a", b"\xff\xd8\xff", b"II*\0"]
)
def test_what_is_no_picture_is_refused(content):
    with pytest.raises(InputError, match="not a picture|damaged"):
        read(content)


def test_a_kind_that_is_not_read_is_refused():
    with pytest.raises(InputError, match="not a picture"):
        read(written(Image.fromarray(colours()), "PPM"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="none.png: there is no such file"):
        read(tmp_path / "none.png")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMS), st.data())
def test_a_damaged_picture_is_read_or_refused_and_nothing_else(form, data):
    content = bytearray(written(Image.fromarray(colours(16, 16)), form))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        content[place] = value
    try:
        picture = opened_picture(bytes(content), channels=3, max_pixels=100_000)
    except PictureProblem as problem:
        assert problem.mend
    else:
        assert picture.mode == "RGB" and picture.width * picture.height <= 100_000


def test_reading_in_threads_leaves_the_settings_of_the_process_as_they_were():
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    content = written(Image.fromarray(colours(200, 200)))
    threads = [threading.Thread(target=lambda: [read(content) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == Image.MAX_IMAGE_PIXELS and filters == list(warnings.filters)


# Size.


def test_a_picture_of_the_right_size_is_left_as_it_is():
    pixels = colours(9, 9)
    for fit in ("stretch", "crop"):
        found = fitted(Image.fromarray(pixels), 9, fit=fit, crop_share=1.0, resample="bilinear")
        assert (found == pixels.transpose(2, 0, 1)).all() and found.flags.c_contiguous
    grey = fitted(Image.fromarray(pixels[..., 0]), 9, fit="stretch", crop_share=1.0, resample="bilinear")
    assert (grey == pixels[None, ..., 0]).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.sampled_from([1.0, 0.95, 0.875, 0.5]),
    st.sampled_from(["bilinear", "bicubic"]), st.sampled_from([1, 3]),
)  # fmt: skip
def test_crop_is_resizing_the_shorter_side_and_cutting_out_the_centre(width, height, size, share, resample, channels):
    pixels = colours(width, height, seed=1)
    picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    shorter = int(size / share)
    wide, high = (int(shorter * side / min(width, height)) for side in (width, height))
    whole = picture.resize((wide, high), {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[resample])
    left, top = int(round((wide - size) / 2)), int(round((high - size) / 2))
    expected = np.asarray(whole.crop((left, top, left + size, top + size)))
    found = fitted(picture, size, fit="crop", crop_share=share, resample=resample)
    assert (found == (expected[None] if channels == 1 else expected.transpose(2, 0, 1))).all()


def test_stretching_is_pillows_resizing():
    picture = Image.fromarray(colours(50, 20))
    found = fitted(picture, 24, fit="stretch", crop_share=1.0, resample="bicubic")
    assert (found.transpose(1, 2, 0) == np.asarray(picture.resize((24, 24), Image.BICUBIC))).all()


@pytest.mark.parametrize("size", [(1, 400_000), (400_000, 1)])
@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_a_picture_of_absurd_proportions_costs_no_more_memory_than_others(size, fit):
    found = fitted(Image.new("L", size, 77), 224, fit=fit, crop_share=0.875, resample="bilinear")
    assert (found == 77).all()
