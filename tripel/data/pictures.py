"""Reading one picture safely, and bringing it to the size of a model.

PNG, JPEG, WebP, BMP, GIF (its first frame) and TIFF, by what the file holds and not by its name. Whatever its form, what
comes out is 8 bits of grey or of red, green and blue: 16 bits are scaled, palettes looked up, transparency laid on white,
the camera's orientation applied, CMYK converted; colour profiles are ignored.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tripel.errors import DataError, InputError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""The endings of files that are taken for pictures."""

Fit = Literal["stretch", "crop"]
Resample = Literal["bilinear", "bicubic"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SIXTEEN_BITS = 65_535
_WHITE = (255, 255, 255, 255)
# Between its two passes a change of size may hold a picture as high as before and as wide as after: so many pixels at most.
_MOST_BETWEEN = 1 << 24


class PictureProblem(Exception):
    """Why a picture cannot be used: what, in what was found, and how to mend it."""

    def __init__(self, what: str, given: str | None = None, *, mend: str) -> None:
        super().__init__(what if given is None else f"{what}: {given}")
        self.what, self.given, self.mend = what, given, mend


def read_picture(source: Path | str | bytes | Image.Image, *, channels: int, max_pixels: int) -> Image.Image:
    """A picture in mode L (channels 1) or RGB (channels 3), upright. source: a file, what a file holds, or what Pillow
    made of one.

    Raises DataError for a file, else InputError, when it is not a picture, is damaged or cut short, has more than max_pixels
    (looked up in the header, before anything is decoded) or has pixels of neither 8 nor 16 bits.
    """
    try:
        return opened_picture(source, channels=channels, max_pixels=max_pixels)
    except PictureProblem as problem:
        what, given, mend = problem.what, problem.given, problem.mend
    if isinstance(source, bytes | Image.Image):
        raise InputError(what, given=given, expected="a whole picture", mend=mend)
    raise DataError(what, file=source, given=given, expected="a whole picture", mend=mend)


def opened_picture(source: Path | str | bytes | Image.Image, *, channels: int, max_pixels: int) -> Image.Image:
    """As read_picture, but raises PictureProblem, for those who collect them."""
    try:
        with _quiet_pillow(), _opened(source) as picture:
            _require_size(picture, max_pixels)
            return _converted(_upright(picture), channels)
    except PictureProblem:
        raise
    except FileNotFoundError:
        problem = PictureProblem("there is no such file", mend="check the name")
    except UnidentifiedImageError:
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        problem = PictureProblem("this is not a picture", mend=f"give a picture in the form {kinds}")
    except MemoryError:
        problem = PictureProblem("there is not enough memory for the picture", mend="make it smaller")
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        if isinstance(error, OSError) and error.errno is not None:
            problem = PictureProblem("the file cannot be read", error.strerror, mend="check its permissions")
        else:
            cause = str(error) or type(error).__name__
            mend = "look whether another program shows it; copy or download it again"
            problem = PictureProblem("the picture is damaged or cut short", cause, mend=mend)
    raise problem


def fitted(picture: Image.Image, size: int, *, fit: Fit, crop_share: float, resample: Resample) -> np.ndarray:
    """The picture as size x size pixels, uint8 [channels, size, size].

    stretch: as a whole, whatever its proportions. crop: its shorter side is brought to size / crop_share, and the centre
    cut out; the same pixels as torchvision's Resize and CenterCrop.
    """
    how = _RESAMPLING[resample]
    if fit == "crop":
        picture = _centre(picture, size, crop_share, how)
    elif picture.width < size and picture.height * size > _MOST_BETWEEN:
        picture = picture.resize((picture.width, size), how)
    if picture.size != (size, size):
        picture = picture.resize((size, size), how)
    pixels = np.asarray(picture, np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _centre(picture: Image.Image, size: int, crop_share: float, how: Image.Resampling) -> Image.Image:
    """The middle of a picture whose shorter side is brought to size / crop_share."""
    shorter, (width, height) = int(size / crop_share), picture.size
    wide, high = (int(shorter * side / min(width, height)) for side in (width, height))
    left, top = round((wide - size) / 2), round((high - size) / 2)
    if wide * high <= _MOST_BETWEEN:
        whole = picture if picture.size == (wide, high) else picture.resize((wide, high), how)
        return whole.crop((left, top, left + size, top + size))
    # A picture that is a million times as wide as high: only what is seen of it is resampled.
    x, y = width / wide, height / high
    box = left * x, top * y, min((left + size) * x, width), min((top + size) * y, height)
    return picture.resize((size, size), how, box=box)


def _opened(source: Path | str | bytes | Image.Image) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        return nullcontext(source)
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _require_size(picture: Image.Image, max_pixels: int) -> None:
    if picture.width * picture.height > max_pixels:
        raise PictureProblem(
            "the picture is too large",
            f"{picture.width:,} x {picture.height:,} pixels by its header, {max_pixels:,} in all are allowed",
            mend="make it smaller, or raise max_pixels",
        )


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as the camera was held."""
    picture.load()
    try:
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(picture) if turned else picture
    except Exception:  # notes on a picture that cannot be read do not make the picture unusable
        return picture


def _converted(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _eight_bits(picture)
    elif picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture.convert("RGBA"))
    elif picture.mode not in ("1", "L", "RGB"):
        picture = picture.convert("RGB")
    mode = "L" if channels == 1 else "RGB"
    # Its pixels are in memory, so that it outlives its file; a copy would take as long as decoding it.
    return picture if picture.mode == mode else picture.convert(mode)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of more bits, of which Pillow's own conversion would cut off what is above 255."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > _SIXTEEN_BITS:
        raise PictureProblem(
            "the picture has neither 8 nor 16 bits",
            f"{values.dtype} from {values.min():g} to {values.max():g}",
            mend="write it with 8 or 16 bits a channel",
        )
    return Image.fromarray(((values.astype(np.uint32) * 255 + _SIXTEEN_BITS // 2) // _SIXTEEN_BITS).astype(np.uint8))


_lock = threading.Lock()
_n_readers = 0
_settings: tuple[warnings.catch_warnings[None], int | None] | None = None


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Pillow without its warnings on standard error (unknown tags, odd palettes), and without its own bound on pixels,
    which would be in the way of ours. Both are settings of the process: the last of the threads that read puts them back.
    """
    global _n_readers, _settings
    with _lock:
        _n_readers += 1
        if _settings is None:
            _settings = warnings.catch_warnings(), Image.MAX_IMAGE_PIXELS
            _settings[0].__enter__()
            warnings.simplefilter("ignore")
            Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _lock:
            _n_readers -= 1
            if not _n_readers and _settings is not None:
                _settings[0].__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS = _settings[1]
                _settings = None
