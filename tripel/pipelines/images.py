"""Saying which class a picture is of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from tripel.data.images import ImageDataConfig
from tripel.data.pictures import fitted, read_picture
from tripel.errors import InputError, TripelError
from tripel.models.vision import VisionModel, normalised

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""A picture's file, or itself: as Pillow has it, or its pixels as uint8 [height, width] or [height, width, 1, 3 or 4]."""
Change = Literal["resized", "made grey", "made coloured"]

TOP = 5
"""Of how many classes probabilities are given when nothing is said."""
MAX_PIXELS: int = ImageDataConfig.model_fields["max_pixels"].default
"""Of a picture, when nothing is said."""

_MOST_AT_ONCE = 256
_NUMBERS_AT_ONCE = 1 << 24  # of a batch of pictures: a thousand of 64 x 64 x 3 would fill the memory of a small machine
_CHANNELS = (1, 3, 4)
_SAMPLED = 128  # rows and columns of a picture that are looked at for colours


@dataclass(frozen=True)
class PictureClassification:
    """What a picture was taken for. source: its file, or `picture 3` for one from memory. probabilities: of the labels,
    likeliest first. changes: what was done to the picture so that the model could take it."""

    source: str
    label: str
    probabilities: tuple[tuple[str, float], ...]
    changes: tuple[Change, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"path": self.source, "label": self.label, "probabilities": dict(self.probabilities)}


@dataclass(frozen=True)
class UnreadPicture:
    """A picture that could not be read, and why. source: as of PictureClassification."""

    source: str
    error: TripelError


class ImageClassifier:
    """A picture classifier in use. labels: what it tells apart. max_pixels: larger pictures are refused before they are
    decoded. Answers do not depend on what else is asked at the same time."""

    def __init__(self, model: VisionModel, *, max_pixels: int = MAX_PIXELS) -> None:
        self.model, self.labels, self.max_pixels = model.eval(), model.vocabulary.labels, max_pixels

    def classify(self, pictures: Iterable[Picture], *, top: int | None = TOP) -> list[PictureClassification]:
        """The class of each picture. top: how many labels to give probabilities of; None for all.

        Pictures of another size are brought to the model's as those were that it was validated on; colours are made grey
        for a model that sees grey, and the reverse. Raises DataError for a file that is no picture, damaged or too large,
        InputError for a picture from memory.
        """
        answers = []
        for answer in self.answers(pictures, top=top):
            if isinstance(answer, UnreadPicture):
                raise answer.error
            answers.append(answer)
        return answers

    def answers(
        self, pictures: Iterable[Picture], *, top: int | None = TOP, at_once: bool = False
    ) -> Iterator[PictureClassification | UnreadPicture]:
        """As classify, but one by one, with what cannot be read in its place. at_once: ask for a picture only when those
        before it are answered; else some are read ahead."""
        if isinstance(pictures, str | os.PathLike | Image.Image | np.ndarray):
            raise InputError(
                "one picture was given for many",
                given=type(pictures).__name__,
                expected="a list of pictures",
                mend="put it in a list: [picture]; of a batch in one array, list(array)",
            )
        if top is not None and top < 1:
            raise InputError("top is too small", given=top, expected="at least 1, or None for all classes")
        for group in self._groups(pictures, at_once):
            ready = [picture for picture in group if isinstance(picture, _Ready)]
            batches = [np.stack([picture.pixels for picture in ready])] if ready else []
            rows = iter(self.probabilities(batches))
            for picture in group:
                yield self._answer(picture, next(rows), top) if isinstance(picture, _Ready) else picture

    def probabilities(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """The probability of every class, float64 [pictures, C]. batches: pixels uint8 [n, channels, side, side] each."""
        device = next(self.model.parameters()).device
        found = [np.zeros((0, len(self.labels)))]
        with torch.inference_mode():
            for pixels in batches:
                pixels_BCHW = normalised(torch.from_numpy(pixels).to(device), self.model.vocabulary)
                found.append(self.model(pixels_BCHW).double().softmax(-1).cpu().numpy())
        return np.concatenate(found)

    def _groups(self, pictures: Iterable[Picture], at_once: bool) -> Iterator[list[_Ready | UnreadPicture]]:
        """Pictures in groups, read by threads: the next group while this one is being classified."""
        config, given = self.model.config, enumerate(pictures, start=1)
        numbers = config.channels * config.image_size**2
        size = 1 if at_once else max(1, min(_MOST_AT_ONCE, _NUMBERS_AT_ONCE // numbers))
        pool = ThreadPoolExecutor(os.cpu_count() or 1)

        def begun() -> list[Future[_Ready | UnreadPicture]]:
            return [pool.submit(self._read, *numbered) for numbered in islice(given, size)]

        try:
            group = begun()
            while group:
                following = [] if at_once else begun()
                yield [reading.result() for reading in group]
                group = begun() if at_once else following
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, number: int, given: Picture) -> _Ready | UnreadPicture:
        source = os.fspath(given) if isinstance(given, str | os.PathLike) else f"picture {number}"
        try:
            picture = read_picture(_as_picture(given), channels=3, max_pixels=self.max_pixels)
        except InputError as error:  # of a picture from memory, which has no name
            what = f"{source}: {error.what}"
            return UnreadPicture(source, InputError(what, given=error.given, expected=error.expected, mend=error.mend))
        except TripelError as error:
            return UnreadPicture(source, error)
        return self._brought(source, picture)

    def _brought(self, source: str, picture: Image.Image) -> _Ready:
        config = self.model.config
        size = config.image_size
        changes: list[Change] = []
        if picture.size != (size, size):
            changes.append("resized")
        if config.channels == 1:
            changes += ["made grey"] if _is_coloured(picture) else []
            picture = picture.convert("L")  # of a picture that was grey, what it was
        elif not _is_coloured(picture):
            changes.append("made coloured")
        return _Ready(source, self._fitted(picture), tuple(changes))

    def _fitted(self, picture: Image.Image) -> np.ndarray:
        form = self.model.vocabulary
        size = self.model.config.image_size
        return fitted(picture, size, fit=form.fit, crop_share=form.crop_share, resample=form.resample)

    def _answer(self, picture: _Ready, probabilities_C: np.ndarray, top: int | None) -> PictureClassification:
        order = np.argsort(-probabilities_C, kind="stable")[:top]
        chosen = tuple((self.labels[c], float(probabilities_C[c])) for c in order)
        return PictureClassification(picture.source, chosen[0][0], chosen, picture.changes)


@dataclass(frozen=True)
class _Ready:
    """A picture as the model takes it. pixels: uint8 [channels, side, side]."""

    source: str
    pixels: np.ndarray
    changes: tuple[Change, ...]


def _as_picture(given: Picture) -> Path | Image.Image:
    """What can be read. Raises InputError for what is no picture."""
    if isinstance(given, str | os.PathLike):
        return Path(given)
    if isinstance(given, np.ndarray):
        return _of_pixels(given)
    if not isinstance(given, Image.Image):
        raise InputError(
            "this is not a picture",
            given=type(given).__name__,
            expected="a file's name, a picture of Pillow's, or a uint8 array",
            mend="for a tensor, give picture.numpy() with its channels last",
        )
    if not all(given.size):
        raise InputError(
            "the picture has no pixels", given=f"{given.width} x {given.height}", expected="at least 1 x 1"
        )
    return given


def _is_coloured(picture: Image.Image) -> bool:
    """Whether a picture of three channels has anything but grey, by a sample of its pixels that takes no time."""
    width, height = (min(side, _SAMPLED) for side in picture.size)
    sample = np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))
    return bool((sample != sample[:, :, :1]).any())


def _of_pixels(array: np.ndarray) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)
    if array.dtype != np.uint8 or not fits or not array.size:
        raise InputError(
            "this array is not a picture",
            given=f"{array.dtype} {list(array.shape)}",
            expected="uint8 [height, width], or [height, width, channels] with 1, 3 or 4 channels",
            mend="put channels last; for numbers from 0 to 1: np.rint(255 * picture).astype(np.uint8)",
        )
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)
