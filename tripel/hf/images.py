"""preprocessor_config.json: how transformers brings a picture to a model's size and normalises it; both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tripel.errors import FormatError
from tripel.hf.common import read_settings
from tripel.models.config import ImageVocabulary, Resample, ResNetConfig, ViTConfig

PREPROCESSOR = "preprocessor_config.json"
KEY = "preprocessor"
"""Under which a folder's preprocessor_config.json stands beside the keys of its config.json."""

_RESAMPLES: dict[Resample, int] = {"bilinear": 2, "bicubic": 3}
_OUR_RESAMPLES: dict[int, Resample] = {number: name for name, number in _RESAMPLES.items()}
# From this size on, transformers' ConvNextImageProcessor stretches.
_STRETCHED_FROM = 384

Channels = tuple[float, ...]


class PictureSettings(BaseModel):
    """The keys of their preprocessor_config.json that change what a model sees, with the defaults of ViTImageProcessor."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    image_processor_type: str = "ViTImageProcessor"
    do_resize: bool = True
    size: dict[str, Annotated[int, Field(ge=1, le=1 << 16)] | None] = {}
    crop_size: dict[str, Annotated[int, Field(ge=1, le=1 << 16)] | None] | None = None
    do_center_crop: bool = False
    crop_pct: float | None = Field(None, gt=0, le=1)
    resample: Literal[2, 3] = 2
    do_rescale: Literal[True] = True
    rescale_factor: float = Field(1 / 255, gt=0)
    do_normalize: bool = True
    image_mean: Channels = (0.5, 0.5, 0.5)
    image_std: Channels = (0.5, 0.5, 0.5)

    @model_validator(mode="before")
    @classmethod
    def _in_one_spelling(cls, settings: Any) -> Any:
        """null stands for a default; sizes were once a number, and the kind of processor has had two names."""
        known = {key: value for key, value in settings.items() if value is not None}
        if "feature_extractor_type" in known and "image_processor_type" not in known:
            known["image_processor_type"] = known["feature_extractor_type"]
        for key in ("size", "crop_size"):
            if isinstance(known.get(key), int):
                known[key] = {"height": known[key], "width": known[key]}
        return known

    @property
    def crops(self) -> bool:
        """Whether a picture's shorter side is made to fit, and the centre cut out."""
        if "ConvNext" in self.image_processor_type:
            return (self.size.get("shortest_edge") or 0) < _STRETCHED_FROM
        return self.do_center_crop

    @property
    def side(self) -> int | None:
        """Of the square that the model sees; None where they do not say."""
        sizes = self.crop_size if self.do_center_crop and self.crop_size else self.size
        return sizes.get("height") or sizes.get("shortest_edge")

    @property
    def share(self) -> float:
        """Our crop_share."""
        if "ConvNext" in self.image_processor_type:
            return self.crop_pct or 0.875
        shorter = self.size.get("shortest_edge") or self.size.get("height")
        return min((self.side or 1) / (shorter or self.side or 1), 1.0)


def preprocessor(config: ViTConfig | ResNetConfig, vocabulary: ImageVocabulary) -> dict[str, Any]:
    """Their preprocessor_config.json for a model of ours."""
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
    shorter = max(round(side / vocabulary.crop_share), side)
    return {
        **shared,
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": shorter},
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
    theirs = read_settings(PictureSettings, there if isinstance(there, Mapping) else {})
    side = image_size or theirs.side or 224
    notes: tuple[str, ...] = ()
    if not there:
        notes += (
            f"the folder has no {PREPROCESSOR}: pictures are stretched to {side} x {side}, mean and deviation 0.5",
        )
    if theirs.side is not None and theirs.side != side:
        notes += (f"pictures are brought to {side} pixels, as config.json says; {PREPROCESSOR} says {theirs.side}",)
    mean, std = theirs.image_mean, theirs.image_std
    if not theirs.do_normalize:
        mean, std = (0.0,) * channels, (1.0,) * channels
    # Theirs is (pixel * rescale_factor - mean) / std, ours takes pixels in [0, 1].
    factor = 1 / (255 * theirs.rescale_factor)
    mean, std = tuple(x * factor for x in mean), tuple(x * factor for x in std)
    if len(mean) == 3 and channels == 1:
        mean, std = mean[:1], std[:1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise FormatError(
            f"{PREPROCESSOR} does not fit the model",
            given=f"image_mean {list(theirs.image_mean)}, image_std {list(theirs.image_std)}",
            expected=f"{channels} number(s) each, image_std above zero",
            mend="correct the file",
        )
    vocabulary = ImageVocabulary(
        labels=labels,
        mean=mean,
        std=std,
        fit="crop" if theirs.crops else "stretch",
        crop_share=theirs.share if theirs.crops else 1.0,
        resample=_OUR_RESAMPLES[theirs.resample],
    )
    return vocabulary, side, notes


def classes(vocabulary: ImageVocabulary) -> dict[str, Any]:
    """Of config.json, what it says of the labels."""
    return {
        "id2label": {str(number): label for number, label in enumerate(vocabulary.labels)},
        "label2id": {label: number for number, label in enumerate(vocabulary.labels)},
        "problem_type": "single_label_classification",
    }


def labels_of(named: Mapping[str, str], n_classes: int) -> tuple[str, ...]:
    """The labels of a head of n_classes. named: id2label. Raises FormatError when it does not name them all."""
    labels = tuple(named.get(str(number), f"LABEL_{number}") for number in range(n_classes))
    if (named and len(named) != n_classes) or len(set(labels)) != n_classes:
        raise FormatError(
            "config.json does not name the classes of the head",
            given=f"{len(named)} names in id2label, {len(set(named.values()))} different ones, for {n_classes} classes",
            expected="one name for each",
            mend="correct id2label in config.json",
        )
    return labels
