"""Whole folders to and from transformers' layout. What was written is read back and compared before anyone is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tripel.checkpoint import (
    CARD,
    CONFIG,
    GENERATION,
    RECIPE,
    TOKENIZER_FILES,
    WEIGHTS,
    load_model,
    read_entry,
    read_text,
    require_checksums,
    save_run,
)
from tripel.errors import CheckpointError, FormatError
from tripel.hf import FORMATS, FORMATS_OF_KIND, Format, express
from tripel.hf.assemble import assemble
from tripel.hf.bytelevel import MERGES, VOCABULARY, byte_level_tokenizer
from tripel.hf.common import Understood
from tripel.hf.images import KEY, PREPROCESSOR
from tripel.hf.sentence import SentenceFolder, read_sentence_folder, write_sentence_folder
from tripel.hf.sentencepiece import SOURCE_MODEL, marian_tokenizers
from tripel.hf.timm import as_transformers, is_timm
from tripel.hf.wordpiece import PIECES, wordpiece_tokenizer
from tripel.models.build import Model
from tripel.models.config import ImageVocabulary
from tripel.models.decoder import Decoder
from tripel.models.encoder import Encoder
from tripel.models.vision import ResNet, VisionTransformer
from tripel.storage import atomic_folder, read_json, read_tensors
from tripel.text.pair import TokenizerPair

INDEX = "model.safetensors.index.json"
TOLERANCE = 1e-5
_LARGEST_PICTURE = 256
_OF_PICTURES = (*FORMATS_OF_KIND["vit"], *FORMATS_OF_KIND["resnet"])
_SEARCH = (
    *("num_beams", "length_penalty", "max_length", "max_new_tokens"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram_size"),
)


@dataclass(frozen=True)
class Conversion:
    """What became of a folder. difference: the largest between outputs before and after. notes: for a person."""

    folder: Path
    format: str
    difference: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = (f"{self.folder} ({self.format}): outputs differ by {self.difference:.1e}", *self.notes)
        return "\n".join(lines)


def import_folder(folder: str | Path, out: str | Path) -> Conversion:
    """Make a run folder at out from a folder that transformers or sentence-transformers wrote.

    Raises FormatError for a model Tripel cannot compute, CheckpointError for a damaged folder or an out that is in use.
    """
    folder, out = Path(folder), Path(out)
    foreign = _read(folder)
    theirs, form = foreign.understood, foreign.form
    model = assemble(theirs.config, theirs.vocabulary, theirs.tensors, foreign.name, source=folder)
    _require_free(out)
    needed = sum(tensor.numel() * tensor.element_size() for tensor in theirs.tensors.values())
    card, search = _imported_card(folder, foreign), _search(folder)
    with atomic_folder(out, needed=needed) as draft:
        save_run(draft, model, foreign.tokenizers, recipe_yaml=None, card=card, search=search)
        difference = _require_equal(model, load_model(draft), draft)
    return Conversion(out, form.name, difference, foreign.notes)


def export_folder(run: str | Path, out: str | Path) -> Conversion:
    """Make a folder at out that transformers opens, from a run folder.

    The check reads it as a stranger's: without the part of config.json that only Tripel understands. Raises FormatError
    that names the options which the format cannot hold, CheckpointError for a damaged run or an out that is in use.
    """
    run, out = Path(run), Path(out)
    entry = read_entry(run)
    model = load_model(run)
    form = FORMATS[express(entry.model, entry.vocabulary)[0]]
    require_checksums(run, entry, TOKENIZER_FILES)
    of_pictures = isinstance(entry.vocabulary, ImageVocabulary)
    tokenizers, notes = (None, ()) if of_pictures else _tokenizers(run, {})
    card = read_text(run / CARD) or f"# {run.resolve().name}\n"
    _require_free(out)
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    with atomic_folder(out, needed=needed) as draft:
        save_run(draft, model, tokenizers, recipe_yaml=read_text(run / RECIPE), card=card, search=_search(run))
        if isinstance(model, Encoder) and model.head is None and model.pooler is None:
            write_sentence_folder(draft, model.config)
        difference = _require_equal(model, _reopened(draft), draft)
    if tokenizers is not None and not tokenizers.shared:
        notes += (f"transformers opens {TOKENIZER_FILES[0]} only; README.md says how to decode with the target's",)
    return Conversion(out, form.name, difference, notes)


def read_weights(folder: Path, resave: str) -> dict[str, Tensor]:
    """The tensors of a folder in one safetensors file or several. Raises FormatError if there are only pickled ones.
    resave: what of another library reads and saves them."""
    if (folder / WEIGHTS).exists():
        return read_tensors(folder / WEIGHTS)
    if (folder / INDEX).exists():
        files = read_json(folder / INDEX).get("weight_map")
        names = set(files.values()) if isinstance(files, dict) else set()
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise CheckpointError(
                f"{INDEX} is damaged",
                given=folder / INDEX,
                expected="an object weight_map from tensors to files of this folder",
                mend="copy the folder again",
            )
        return {name: tensor for file in sorted(names) for name, tensor in read_tensors(folder / file).items()}
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pth", ".pt"))
    raise FormatError(
        "the folder has no weights that Tripel reads",
        given=f"{folder}: {', '.join(pickled) or f'no {WEIGHTS}'}",
        expected=f"{WEIGHTS}; pickled files can run code when opened and are not read",
        mend=f"open and save it once with {resave}",
    )


def largest_difference(a: Model, b: Model) -> float:
    """The largest difference between what two models make of random ids, relative to outputs above 1."""
    inputs = _random_inputs(a)
    with torch.inference_mode():
        first, second = (_outputs(model.eval(), inputs) for model in (a, b))
    return float((first - second).abs().max() / first.abs().max().clamp(min=1))


def _outputs(model: Model, inputs: tuple[Tensor, ...]) -> Tensor:
    """Logits; of an encoder without a head its hidden states, and the vectors that it makes of them."""
    if isinstance(model, Encoder) and model.head is None:
        ids_BT, valid_BT, types_BT = inputs
        h_BTD = model.features(ids_BT, valid_BT, types_BT)
        return torch.cat([h_BTD.flatten(), model.pooled(h_BTD, valid_BT).flatten()])
    return model(*inputs).float()  # type: ignore[no-any-return]


def _random_inputs(model: Model) -> tuple[Tensor, ...]:
    """What forward takes: three pictures; or ids of three texts, before them, for a translation, those of sources, one of
    them padded; after them, for an encoder, which are no padding, and their types."""
    random = torch.Generator().manual_seed(0)
    if isinstance(model, VisionTransformer | ResNet):
        config = model.config
        # The size of a ResNet's pictures is a claim that no tensor proves, and any other will do.
        side = min(config.image_size, _LARGEST_PICTURE) if isinstance(model, ResNet) else config.image_size
        return (torch.randn(3, config.channels, side, side, generator=random),)
    vocabulary, length = model.vocabulary, min(model.config.max_len, 12)
    source_BS = torch.randint(vocabulary.source_size, (3, length), generator=random)
    target_BT = torch.randint(vocabulary.target_size, (3, length), generator=random)
    target_BT[:, 0] = vocabulary.start_id
    if isinstance(model, Decoder):
        return (target_BT,)
    valid_BS = torch.ones_like(source_BS, dtype=torch.bool)
    valid_BS[1, length // 2 :] = False
    source_BS[~valid_BS] = vocabulary.pad_id
    if isinstance(model, Encoder):
        types_BS = torch.randint(max(model.config.token_types, 1), source_BS.shape, generator=random)
        return source_BS, valid_BS, types_BS
    return source_BS, target_BT, valid_BS


@dataclass(frozen=True)
class _Foreign:
    """A folder of others. name: of its format in FORMATS. library: that wrote it."""

    name: str
    form: Format
    understood: Understood
    tokenizers: TokenizerPair | None
    notes: tuple[str, ...]
    library: str = "transformers"


def _read(folder: Path) -> _Foreign:
    """Raises as import_folder."""
    sentence = read_sentence_folder(folder)
    folder = sentence.model if sentence else folder
    # A run folder is read as a stranger's: without what only Tripel understands.
    settings = {key: value for key, value in _foreign_settings(folder).items() if not key.startswith("tripel")}
    if is_timm(settings):
        return _read_timm(folder, settings)
    name, form = _format_of(folder, settings)
    encodes = name in FORMATS_OF_KIND["encoder"]
    tokenizers, notes = (None, ()) if name in _OF_PICTURES else _tokenizers(folder, settings)
    if name in _OF_PICTURES and (folder / PREPROCESSOR).exists():
        settings[KEY] = read_json(folder / PREPROCESSOR)
    if encodes and tokenizers:
        tokenizer = tokenizers.source
        ids = {"pad": tokenizer.pad_id, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "mask": tokenizer.mask_id}
        settings |= {f"{key}_token_id": number for key, number in ids.items()}
    settings["sentence_transformers"] = sentence.settings if sentence else None
    if sentence:
        if not encodes:
            raise FormatError(
                "Tripel makes vectors of texts with encoders only",
                given=f"model_type: {name} in {folder / CONFIG}",
                expected=f"model_type: {' or '.join(FORMATS_OF_KIND['encoder'])}",
                mend="use another model",
            )
        if tokenizers:
            sentence.require_case(tokenizers.source)
        notes += _of_sentences(sentence)
    named = settings.get("architectures")
    model_class = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else form.model_class
    resave = f"transformers: {model_class}.from_pretrained(DIR).save_pretrained(DIR)"
    understood = form.understand(settings, read_weights(folder, resave))
    return _Foreign(name, form, understood, tokenizers, (*understood.notes, *notes))


def _read_timm(folder: Path, settings: Mapping[str, Any]) -> _Foreign:
    resave = f"safetensors: save_file(model.state_dict(), '{WEIGHTS}')"
    theirs = as_transformers(settings, read_weights(folder, resave))
    form = FORMATS[theirs.format]
    understood = form.understand(theirs.settings, theirs.tensors)
    return _Foreign(theirs.format, form, understood, None, (*understood.notes, *theirs.notes), "timm")


def _of_sentences(sentence: SentenceFolder) -> tuple[str, ...]:
    settings = sentence.settings
    length = "of length 1" if settings.normalize else "as long as they come"
    vectors = f"vectors of texts are the `{settings.pool}` of hidden states, {length}"
    if sentence.max_length is None:
        return (vectors,)
    return (
        vectors,
        f"sentence-transformers cuts texts after {sentence.max_length} tokens, Tripel where the positions end",
    )


def _reopened(folder: Path) -> Model:
    foreign = _read(folder)
    config, vocabulary, tensors, _ = foreign.understood
    return assemble(config, vocabulary, tensors, foreign.name, source=folder)


def _require_equal(before: Model, after: Model, folder: Path) -> float:
    difference = largest_difference(before, after)
    if not difference <= TOLERANCE:  # not a number is not equal either
        raise FormatError(
            "the converted model does not compute what the original does; nothing was written",
            given=f"outputs that differ by {difference:.3g} in {folder}",
            expected=f"at most {TOLERANCE}",
            mend="if the original's weights are finite numbers, please report this: it is a fault of Tripel",
        )
    return difference


def _foreign_settings(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).exists():
        raise CheckpointError(
            "there is no such folder" if not folder.exists() else f"the folder has no {CONFIG}",
            given=folder,
            expected="a folder as save_pretrained of transformers writes it",
            mend="check the path",
        )
    # Newer versions of transformers keep the special tokens' ids beside the search settings.
    beside = read_json(folder / GENERATION) if (folder / GENERATION).exists() else {}
    return {**beside, **read_json(folder / CONFIG)}


def _format_of(folder: Path, settings: Mapping[str, Any]) -> tuple[str, Format]:
    name = settings.get("model_type")
    if not isinstance(name, str) or name not in FORMATS:
        raise FormatError(
            "Tripel does not know this kind of model",
            given=f"model_type: {name} in {folder / CONFIG}",
            expected=f"model_type: {' or '.join(FORMATS)}",
            mend="import a model of one of these kinds",
        )
    return name, FORMATS[name]


def _tokenizers(folder: Path, settings: Mapping[str, Any]) -> tuple[TokenizerPair | None, tuple[str, ...]]:
    if (folder / TOKENIZER_FILES[0]).exists():
        return TokenizerPair.load(folder), ()
    reason = f"{folder} has no {TOKENIZER_FILES[0]}"
    if (folder / SOURCE_MODEL).exists():
        try:
            return marian_tokenizers(folder), ()
        except FormatError as error:
            reason = f"{error.what} ({error.given})"
    elif (folder / VOCABULARY).exists() and (folder / MERGES).exists():
        return byte_level_tokenizer(folder, [settings.get(f"{name}_token_id") for name in ("bos", "eos", "pad")]), ()
    elif (folder / PIECES).exists():
        return wordpiece_tokenizer(folder), ()
    note = (
        f"{reason}: only the weights were taken over; put the model's tokenizer, in the format of the `tokenizers` "
        f"library, into the new folder as {TOKENIZER_FILES[0]} before it is used"
    )
    return None, (note,)


def _search(folder: Path) -> dict[str, Any]:
    """The settings of a search that are the user's choice, and not a property of the model."""
    settings = read_json(folder / GENERATION) if (folder / GENERATION).exists() else {}
    return {key: settings[key] for key in _SEARCH if key in settings}


def _imported_card(folder: Path, foreign: _Foreign) -> str:
    of = f"A {foreign.form.name} model of {foreign.library}"
    own = f"# {folder.resolve().name}\n\n{of}, imported with `tripel import`.\n"
    return read_text(folder / CARD) or own


def _require_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(
            "the folder to write to is in use",
            given=out,
            expected="a path where nothing is, or an empty folder",
            mend="choose another --out, or remove that folder first",
        )
