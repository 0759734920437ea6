"""What can be combined: one table of families, and which sections of a recipe go with which task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One supported combination. mixers: allowed on every side. wirings, norms: the family's own first."""

    family: str
    skeleton: str
    mixers: tuple[str, ...]
    input: str
    task: str
    wirings: tuple[str, ...]
    norms: tuple[str, ...]
    format: str


# Feeds recipe validation, `tripel families`, the docs and the test parametrisation. Nothing else is supported.
_BOTH = ("layer", "rms")
_TEXT = ("tokens", "next-token")
_OTHERS = ("lstm", "rnn", "conv")
_ATTENTION, _CLASSES = ("attention",), "classification"
CELLS = (
    Cell(
        "Transformer (2017)",
        "encoder-decoder",
        ("attention",),
        "tokens",
        "translation",
        ("post", "pre"),
        _BOTH,
        "Marian",
    ),
    Cell("GPT", "decoder", ("attention",), *_TEXT, ("pre", "post"), ("layer",), "GPT2"),
    Cell("GPT, modern", "decoder", ("attention",), *_TEXT, ("pre", "post"), ("rms",), "Llama"),
    Cell("RNN language model", "decoder", ("rnn",), *_TEXT, ("none", "pre"), _BOTH, ""),
    Cell("LSTM language model", "decoder", ("lstm",), *_TEXT, ("none", "pre"), _BOTH, ""),
    Cell("Convolutional language model", "decoder", ("conv",), *_TEXT, ("pre",), _BOTH, ""),
    Cell("BERT", "encoder", ("attention",), "tokens", "masked-token", ("post",), ("layer",), "Bert"),
    Cell("BERT, classifier", "encoder", ("attention",), "tokens", "classification", ("post",), ("layer",), "Bert"),
    Cell("BERT, modern", "encoder", ("attention",), "tokens", "masked-token", ("pre", "post"), _BOTH, ""),
    Cell("BERT, modern, classifier", "encoder", ("attention",), "tokens", "classification", ("pre", "post"), _BOTH, ""),
    Cell(
        "Recurrent or convolutional encoder", "encoder", _OTHERS, "tokens", "masked-token", ("pre", "post"), _BOTH, ""
    ),
    Cell(
        "Recurrent or convolutional classifier",
        "encoder",
        _OTHERS,
        "tokens",
        "classification",
        ("pre", "post", "none"),
        _BOTH,
        "",
    ),
    Cell("Vision Transformer", "encoder", _ATTENTION, "patches", _CLASSES, ("pre",), ("layer",), "ViT"),
    Cell("Vision Transformer, modern", "encoder", _ATTENTION, "patches", _CLASSES, ("pre", "post"), _BOTH, ""),
    Cell("Hybrid: CNN, then attention", "encoder", _ATTENTION, "feature maps", _CLASSES, ("pre", "post"), _BOTH, ""),
    Cell("CNN (ResNet)", "off the grid", (), "pixels", _CLASSES, ("own",), ("batch", "group"), "ResNet"),
    Cell(
        "Recurrent or convolutional translation",
        "encoder-decoder",
        ("lstm", "rnn", "conv", "attention"),
        "tokens",
        "translation",
        ("pre", "post"),
        _BOTH,
        "",
    ),
)


@dataclass(frozen=True)
class Sections:
    """The kinds of a recipe's other sections that go with a task; they need not be written. decode: None for tasks whose
    answer is not made token by token. head: what an encoder is asked. tokenizer: the kind when none is named; None where no
    text is read."""

    data: str
    model: str
    decode: str | None
    head: str | None = None
    tokenizer: str | None = "bpe"


SECTIONS = {
    "translation": Sections("parallel", "encoder-decoder", "translation"),
    "next-token": Sections("text", "decoder", "completion", tokenizer="byte_bpe"),
    "masked-token": Sections("text", "encoder", None, "masked-token", "wordpiece"),
    "classification": Sections("labelled", "encoder", None, "classes", "wordpiece"),
}
OF_IMAGES = Sections("images", "vit", None, None, None)


def sections_of(task: str, model: str | None) -> Sections:
    """What goes with a task: classifying is of texts, or, with a model of pictures, of them."""
    return OF_IMAGES if task == "classification" and model in ("vit", "resnet") else SECTIONS[task]
