"""Which data the name of a split means for a run."""

from __future__ import annotations

from typing import cast

from tripel.data.checks import DataReport
from tripel.data.images import ImageDataConfig, ImageSet, load_image_splits, load_images
from tripel.data.labelled import LabelledDataConfig, LabelledText, load_labelled, load_labelled_splits
from tripel.data.text import TextDataConfig, TextSource, load_texts, open_text
from tripel.errors import InputError
from tripel.models.config import ResNetConfig, ViTConfig
from tripel.recipe import Recipe


def data_name(recipe: Recipe, split: str) -> str:
    """The name of the set. Raises InputError when the recipe names no such split."""
    if split == "train":
        return recipe.data.train_names[0]
    if split not in ("valid", "test"):
        return split
    name = getattr(recipe.data, split)
    if name is None:
        raise InputError(
            f"the run's recipe names no {split} set",
            given=f"--split {split}",
            expected="valid, test, or the name or path of data of its kind",
            mend="name one, for example --split multi30k/val, --split book.txt, --split reviews.csv or --split pictures/",
        )
    return name


def text_of(recipe: Recipe, split: str) -> TextSource:
    """The text that split means; the last share of the training text where that is the validation set."""
    data = cast(TextDataConfig, recipe.data)
    if is_part_of_train(recipe, split):
        texts = load_texts(data)
        source = texts.train if split == "train" else texts.valid
        assert source is not None
        return source
    return open_text(data_name(recipe, split), data)


def labelled_of(recipe: Recipe, split: str) -> tuple[LabelledText, DataReport]:
    """The texts that split means, with what was found in them."""
    data = cast(LabelledDataConfig, recipe.data)
    if is_part_of_train(recipe, split):
        splits = load_labelled_splits(data)
        text = splits.train if split == "train" else splits.valid
        assert text is not None
        return text, splits.report
    return load_labelled(data_name(recipe, split), data, training=False)


def pictures_of(recipe: Recipe, split: str) -> tuple[ImageSet, DataReport]:
    """The pictures that split means, of the size that the model sees, with what was found in them."""
    data, model = cast(ImageDataConfig, recipe.data), cast("ViTConfig | ResNetConfig", recipe.model)
    size = {"image_size": model.image_size, "channels": model.channels}
    if not is_part_of_train(recipe, split):
        return load_images(data_name(recipe, split), data, **size, training=False)
    splits = load_image_splits(data.model_copy(update={"stored_size": None}), **size)
    images = splits.train if split == "train" else splits.valid
    assert images is not None
    return images, splits.report


def is_part_of_train(recipe: Recipe, split: str) -> bool:
    """Whether it takes the whole training data to know what is in the split."""
    data = recipe.data
    return split == "train" or (split == "valid" and data.valid is None and bool(getattr(data, "valid_share", 0.0)))
