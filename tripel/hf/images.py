"""preprocessor_config.json: how transformers brings a picture to a model's size and normalises it; both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tripel.errors import FormatError
from tripel.hf.common import read_settings
from tripel.models.config import Fit, ImageVocabulary, Resample, ResNetConfig, ViTConfig

PREPROCESSOR = "preprocessor_config.json"
KEY = "preprocessor"
"""Under which a folder's preprocessor_config.json stands beside the keys of its config.json."""

_RESAMPLES: dict[Resample, int] = {"bilinear": 2, "bicubic": 3}
_OUR_RESAMPLES: dict[int, Resample] = {number: name for name, number in _RESAMPLES.items()}
_METHODS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # of Pillow, by their numbers
# From this size on, transformers' ConvNextImageProcessor stretches.
_STRETCHED_FROM = 384
# Of a size that is one number these make a square, the others the shorter side of a picture (their default_to_square).
_OF_SQUARES = ("ViTI", "ViTF", "DeiT", "Beit")

Channels = tuple[float, ...]
Sizes = dict[str, Annotated[int, Field(ge=1, le=1 << 16)] | None]


class PictureSettings(BaseModel):
    """The keys of their preprocessor_config.json that change what a model sees, with the defaults of ViTImageProcessor."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    image_processor_type: str = "ViTImageProcessor"
    do_resize: bool = True
    size: Sizes = {}
    crop_size: Sizes = {}
    do_center_crop: bool = False
    crop_pct: float = Field(0.875, ge=0.1, le=1)
    resample: int = Field(2, ge=0, le=5)
    do_rescale: Literal[True] = True
    rescale_factor: float = Field(1 / 255, ge=1e-6, le=1e6)
    rescale_offset: Literal[False] = False
    do_flip_channel_order: Literal[False] = False
    do_normalize: bool = True
    image_mean: Channels = (0.5, 0.5, 0.5)
    image_std: Channels = (0.5, 0.5, 0.5)

    @model_validator(mode="before")
    @classmethod
    def _in_one_spelling(cls, settings: Any) -> Any:
        """null stands for a default; sizes were once numbers, and the kind of processor has had two names."""
        known = {key: value for key, value in settings.items() if value is not None}
        if "feature_extractor_type" in known and "image_processor_type" not in known:
            known["image_processor_type"] = known["feature_extractor_type"]
        square = str(known.get("image_processor_type", "ViTI")).startswith(_OF_SQUARES)
        for key in ("size", "crop_size"):
            size = known.get(key)
            if isinstance(size, list) and len(size) == 2:
                known[key] = {"height": size[0], "width": size[1]}
            elif isinstance(size, int):
                known[key] = {"height": size, "width": size} if square or key != "size" else {"shortest_edge": size}
        return known


class _Fitting(NamedTuple):
    """side: of the square that the model sees, None where they do not say. notes: where ours differs from theirs."""

    side: int | None
    fit: Fit
    crop_share: float
    notes: tuple[str, ...] = ()


def preprocessor(config: ViTConfig | ResNetConfig, vocabulary: ImageVocabulary) -> dict[str, Any]:
    """Their preprocessor_config.json for a model of ours.

    A picture whose centre is cut out is CLIPImageProcessor's: ConvNextImageProcessor has it below 384 pixels only.
    """
    side, crops = config.image_size, vocabulary.fit == "crop"
    shared = {
        "do_resize": True,
        "resample": _RESAMPLES[vocabulary.resample],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(vocabulary.mean),
        "image_std": list(vocabulary.std),
    }
    if not crops:
        return {**shared, "image_processor_type": "ViTImageProcessor", "size": {"height": side, "width": side}}
    return {
        **shared,
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": int(side / vocabulary.crop_share)},  # rounded as data.pictures.fitted does
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_convert_rgb": config.channels == 3,
    }


def read_vocabulary(
    settings: Mapping[str, Any], labels: tuple[str, ...], channels: int, image_size: int | None
) -> tuple[ImageVocabulary, int, tuple[str, ...]]:
    """What a folder says of its pictures: our vocabulary, the side of the square that the model sees, and notes.

    settings: of config.json, with those of preprocessor_config.json under KEY if it is there. image_size: what config.json
    says, None where it is silent. Raises FormatError for what Tripel has no word for.
    """
    there = settings.get(KEY)
    theirs = read_settings(PictureSettings, there if isinstance(there, Mapping) else {}, PREPROCESSOR)
    fitting = _fitting(theirs)
    side, notes = image_size or fitting.side or 224, fitting.notes
    if not there:
        notes += (
            f"the folder has no {PREPROCESSOR}: pictures are stretched to {side} x {side}, mean and deviation 0.5",
        )
    if fitting.side is not None and fitting.side != side:
        notes += (f"pictures are brought to the model's {side} pixels; the folder prepares them with {fitting.side}",)
    if theirs.resample not in _OUR_RESAMPLES:
        notes += (f"pictures are resampled `bicubic`; the folder says `{_METHODS[theirs.resample]}`",)
    mean, std = _normalisation(theirs, channels)
    vocabulary = ImageVocabulary(
        labels=labels,
        mean=mean,
        std=std,
        fit=fitting.fit,
        crop_share=fitting.crop_share,
        resample=_OUR_RESAMPLES.get(theirs.resample, "bicubic"),
    )
    return vocabulary, side, notes


def classes(vocabulary: ImageVocabulary) -> dict[str, Any]:
    """Of config.json, what it says of the labels."""
    return {
        "id2label": {str(number): label for number, label in enumerate(vocabulary.labels)},
        "label2id": {label: number for number, label in enumerate(vocabulary.labels)},
        "problem_type": "single_label_classification",
    }


def labels_of(named: Mapping[str, str], n_classes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels of a head of n_classes, all different, and notes. named: id2label, whose names need not be: ImageNet's
    has two cranes. Raises FormatError when it does not name them all."""
    numbers = [str(number) for number in range(n_classes)]
    if named and named.keys() != set(numbers):
        raise FormatError(
            "config.json does not name the classes of the head",
            given=f"{len(named)} names in id2label for {n_classes} classes",
            expected="one name for each, by its number from 0 on",
            mend="correct id2label in config.json",
        )
    labels = dict[str, None]()
    repeated: list[str] = []
    for number in numbers:
        label = named.get(number, f"LABEL_{number}")
        if label in labels:
            while label in labels:
                label = f"{label} ({number})"
            repeated.append(label)
        labels[label] = None
    more = ", ..." if len(repeated) > 3 else ""
    notes = (f"classes of one name were told apart by their numbers: {', '.join(repeated[:3])}{more}",)
    return tuple(labels), notes if repeated else ()


def picture_usage(channels: int) -> str:
    """A section of the model card: how to run a classifier of pictures. Their pipeline is for colour only."""
    if channels == 3:
        code = """from transformers import pipeline

model = pipeline("image-classification", model=".")
print(model("picture.png"))"""
    else:
        code = """from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

prepare = AutoImageProcessor.from_pretrained(".")
model = AutoModelForImageClassification.from_pretrained(".")
inputs = prepare(Image.open("picture.png").convert("L"), return_tensors="pt")
shares = model(**inputs).logits.softmax(dim=-1)[0].tolist()
print({label: shares[number] for number, label in model.config.id2label.items()})"""
    return f"## With transformers\n\n```python\n{code}\n```\n"


def _fitting(theirs: PictureSettings) -> _Fitting:
    """How they bring a picture to the model's size, in our words. Raises FormatError for a rectangle."""
    size, crop = theirs.size, theirs.crop_size if theirs.do_center_crop else {}
    for name, sizes in (("size", size), ("crop_size", crop)):
        if sizes.get("height") != sizes.get("width"):
            raise FormatError(
                f"the {name} of {PREPROCESSOR} is no square",
                given=f"{sizes.get('height')} x {sizes.get('width')} pixels",
                expected="as many rows as columns",
                mend="use a model of square pictures",
            )
    stretched, shorter = size.get("height"), size.get("shortest_edge")
    before = shorter or stretched
    notes: tuple[str, ...] = ()
    if not theirs.do_resize:
        notes = ("the folder leaves pictures at their size; Tripel brings them to the model's",)
    if "ConvNext" in theirs.image_processor_type and before:
        crops = before < _STRETCHED_FROM
        return _Fitting(before, "crop" if crops else "stretch", theirs.crop_pct if crops else 1.0, notes)
    side = crop.get("height") or before
    if not shorter and (side == stretched if theirs.do_center_crop else stretched or not size):
        return _Fitting(stretched, "stretch", 1.0, notes)
    if not theirs.do_center_crop or size.get("longest_edge"):
        notes += (f"the folder brings pictures to {_listed(size)}; Tripel makes squares of them, their centres",)
    elif side and before and before < side:
        notes += (f"the folder puts a black rim around pictures; Tripel makes them {side} pixels large",)
    elif not shorter:
        notes += ("the folder stretches pictures before their centre is cut out; Tripel keeps their proportions",)
    share = _crop_share(side, max(before, side)) if side and before else 1.0
    return _Fitting(side, "crop", share, notes)


def _crop_share(side: int, shorter: int) -> float:
    """The largest with int(side / crop_share) == shorter, which the quotient's rounding may miss."""
    share = side / shorter
    while int(side / share) < shorter:
        share = math.nextafter(share, 0.0)
    return share


def _normalisation(theirs: PictureSettings, channels: int) -> tuple[Channels, Channels]:
    """mean and std of pixels in [0, 1]; theirs is (pixel * rescale_factor - mean) / std. Raises FormatError."""
    mean, std = theirs.image_mean, theirs.image_std
    factor = 1 / (255 * theirs.rescale_factor)
    if not theirs.do_normalize:
        mean, std = (0.0,) * channels, (1.0,) * channels
    if channels == 1 and len(set(mean)) == len(set(std)) == 1:  # of a grey picture as three equal channels
        mean, std = mean[:1], std[:1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise FormatError(
            "the mean and deviation of pictures do not fit the model",
            given=f"image_mean {list(theirs.image_mean)}, image_std {list(theirs.image_std)}",
            expected=f"{channels} number(s) each, image_std above zero",
            mend=f"correct {PREPROCESSOR}, in a folder of timm pretrained_cfg in config.json",
        )
    return tuple(x * factor for x in mean), tuple(x * factor for x in std)


def _listed(sizes: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sizes.items() if number is not None)
