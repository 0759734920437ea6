"""Run folders and training checkpoints: safetensors and JSON, written whole or not at all, checked when read.

run/config.json             their config, where the family has a Hugging Face format; "tripel": ours, and checksums
    model.safetensors       under the format's names where it can hold the model, else under ours
    generation_config.json  tokenizer.json  tokenizer_config.json  README.md  recipe.yaml
    checkpoints/step-500/   model.safetensors  optimizer.safetensors ...  one file per group of tensors
                            state.json  everything that is not a tensor   manifest.json  sizes and checksums
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from tripel.config import Config, follow
from tripel.errors import CheckpointError, FormatError
from tripel.hf import FORMATS, express
from tripel.hf.assemble import OUR_NAMES, assemble
from tripel.hf.images import PREPROCESSOR, preprocessor
from tripel.models.build import Model
from tripel.models.config import (
    AnyModelConfig,
    AnyVocabulary,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ImageVocabulary,
    ModelConfig,
    ResNetConfig,
    SkeletonConfig,
    ViTConfig,
    Vocabulary,
)
from tripel.storage import (
    atomic_folder,
    damage,
    digest,
    hidden,
    read_json,
    read_tensors,
    remove_folder,
    replaced_files,
    reporting_disk_errors,
    retire_folder,
    write_json,
    write_manifest,
    write_tensors,
)
from tripel.text.pair import TokenizerPair

CONFIG, WEIGHTS, RECIPE, CARD = "config.json", "model.safetensors", "recipe.yaml", "README.md"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_target.json")
GENERATION, _TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
RUN_FILES = (CONFIG, WEIGHTS, RECIPE, CARD, *TOKENIZER_FILES, GENERATION, _TOKENIZER_CONFIG, PREPROCESSOR)
"""All that save_run may write."""
FOLDER, STATE = "checkpoints", "state.json"
_STEP = re.compile(r"step-(\d{1,15})")
_REPLACED_STEP = re.compile(r"\.step-(\d{1,15})\.[0-9a-f]{8}\.replaced")


class RunEntry(Config):
    """What config.json says of us under "tripel". weights: the format whose names the weights have, or "tripel".

    sha256: checksums of the weights and the tokenizers, which only make sense together.
    """

    weights: str
    model: ModelConfig
    vocabulary: AnyVocabulary
    sha256: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if isinstance(self.model, SkeletonConfig) != isinstance(self.vocabulary, Vocabulary):
            raise ValueError(f"a vocabulary that is not for a model of kind {self.model.kind}")
        return self


@dataclass(frozen=True)
class LoadedRun:
    """A run folder in memory; the model is on the CPU, in evaluation mode. pair: its tokenizers, None for models of images.
    recipe_yaml: None for an imported model."""

    model: Model
    pair: TokenizerPair | None
    recipe_yaml: str | None
    config: AnyModelConfig
    vocabulary: AnyVocabulary

    @property
    def tokenizers(self) -> TokenizerPair:
        """Of a model of texts, which always has them."""
        assert self.pair is not None, "a model of images has no tokenizers"
        return self.pair


@dataclass(frozen=True)
class Newest:
    """The newest whole checkpoint of a run. skipped: for each newer one that is not whole, what is wrong with it."""

    step: int
    folder: Path
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class TrainingState:
    """What save_training was given."""

    groups: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def save_run(
    run: str | Path,
    model: Model,
    tokenizers: TokenizerPair | None,
    *,
    recipe_yaml: str | None,
    card: str,
    search: Mapping[str, Any] | None = None,
) -> None:
    """Make run a folder that load_run opens and, where the model's options allow, transformers too.

    tokenizers None leaves the tokenizer files out. card: the text of README.md, to which the use with transformers is
    added. search: more settings for generation_config.json, such as num_beams. Files of a former model are replaced all
    together; others in the folder stay. Raises CheckpointError when the disk refuses; then the former files are there.
    """
    config, vocabulary = model.config, model.vocabulary
    if tokenizers is not None:
        assert isinstance(config, SkeletonConfig) and isinstance(vocabulary, Vocabulary)
        _require_fit(Path(run), tokenizers, config, vocabulary)
    weights, settings = _expressed(config, vocabulary)
    tensors: Mapping[str, Tensor] = model.state_dict()
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    with replaced_files(run, needed=needed, owned=RUN_FILES) as draft:
        if weights != OUR_NAMES:
            form = FORMATS[weights]
            tensors = form.rename_to_theirs(config, tensors)
            if form.generation is not None:
                write_json(draft / GENERATION, {**form.generation(config, vocabulary), **(search or {})})
            if tokenizers is not None:
                assert isinstance(config, SkeletonConfig) and isinstance(vocabulary, Vocabulary)
                write_json(draft / _TOKENIZER_CONFIG, _tokenizer_config(tokenizers, config, vocabulary))
            if tokenizers is not None or isinstance(vocabulary, ImageVocabulary):
                card = _with_usage(card, form.usage(config, shared_tokenizer=tokenizers is None or tokenizers.shared))
            if isinstance(vocabulary, ImageVocabulary):
                assert isinstance(config, ViTConfig | ResNetConfig)
                write_json(draft / PREPROCESSOR, preprocessor(config, vocabulary))
        write_tensors(draft / WEIGHTS, tensors)
        if tokenizers is not None:
            tokenizers.save(draft)
        if recipe_yaml is not None:
            (draft / RECIPE).write_text(recipe_yaml, encoding="utf-8")
        (draft / CARD).write_text(card, encoding="utf-8")
        checksums = {name: digest(draft / name) for name in (WEIGHTS, *TOKENIZER_FILES) if (draft / name).exists()}
        entry = RunEntry(weights=weights, model=config, vocabulary=vocabulary, sha256=checksums)
        write_json(draft / CONFIG, {**settings, "tripel_format": 1, "tripel": entry.model_dump(mode="json")})


def load_run(folder: str | Path) -> LoadedRun:
    """Open a run folder. Raises CheckpointError when it is none or damaged (TokenizerError for its tokenizers)."""
    folder = Path(folder)
    entry = read_entry(folder)
    if isinstance(entry.vocabulary, ImageVocabulary):
        return LoadedRun(load_model(folder), None, read_text(folder / RECIPE), entry.model, entry.vocabulary)
    if not (folder / TOKENIZER_FILES[0]).exists():
        raise CheckpointError(
            "this model has no tokenizer",
            given=folder,
            expected=f"a file {TOKENIZER_FILES[0]} beside the weights",
            mend="put the model's tokenizer there in the format of the `tokenizers` library, as tokenizer.json",
        )
    model = load_model(folder)
    require_checksums(folder, entry, TOKENIZER_FILES)
    tokenizers = TokenizerPair.load(folder)
    assert isinstance(entry.model, SkeletonConfig)
    _require_fit(folder, tokenizers, entry.model, entry.vocabulary)
    return LoadedRun(model, tokenizers, read_text(folder / RECIPE), entry.model, entry.vocabulary)


def load_model(folder: str | Path) -> Model:
    """The model of a run folder without its tokenizers. Raises CheckpointError."""
    folder = Path(folder)
    entry = read_entry(folder)
    require_checksums(folder, entry, (WEIGHTS,))
    tensors = read_tensors(folder / WEIGHTS)
    return assemble(entry.model, entry.vocabulary, tensors, entry.weights, source=folder / WEIGHTS)


def read_entry(folder: Path) -> RunEntry:
    """Our part of a run folder's config.json. Raises CheckpointError when folder is not a run folder."""
    if (folder / "recipe.yaml").is_file() and not (folder / CONFIG).exists() and not (folder / WEIGHTS).exists():
        raise CheckpointError(
            "this run has no weights to use yet",
            given=folder,
            expected="a run that has been validated once, or has ended: until then it has only checkpoints",
            mend="go on training it with --resume",
        )
    if not folder.is_dir() or not (folder / CONFIG).exists():
        raise CheckpointError(
            "there is no such folder" if not folder.exists() else "this is not a run folder",
            given=folder,
            expected=f"a folder with {CONFIG} and {WEIGHTS}, as `tripel train --out` makes it",
            mend="check the path; `tripel train` makes such a folder",
        )
    settings = read_json(folder / CONFIG)
    if "tripel" not in settings:
        raise CheckpointError(
            "this folder was not written by Tripel",
            given=f"{folder / CONFIG} with model_type {settings.get('model_type')}",
            expected=f'a {CONFIG} with an entry "tripel"',
            mend="take it over with `tripel import`, which makes a run folder of it",
        )
    try:
        entry = RunEntry.model_validate(settings["tripel"])
        if entry.weights not in (OUR_NAMES, *FORMATS):
            raise ValueError(f"weights: {entry.weights}")
    except ValueError as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else None
        key = ".".join(follow(RunEntry, problem["loc"])[0]) if problem else "weights"
        raise CheckpointError(
            f"{CONFIG} describes a model that this version cannot build",
            given=f"tripel.{key}: {problem['msg'] if problem else error}",
            expected="what this version of Tripel writes",
            mend="copy the file again from where the model was trained, or install the newer version that wrote it",
        ) from None
    return entry


def read_text(path: Path) -> str | None:
    """The recipe or the card of a run folder, or None when it has none. Raises CheckpointError."""
    try:
        return path.read_text(encoding="utf-8") if path.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read: {error}",
            given=path,
            expected="a text file in UTF-8, as Tripel writes it",
            mend="copy the folder again from where the model was trained",
        ) from None


def require_checksums(folder: Path, entry: RunEntry, names: Collection[str]) -> None:
    """Refuse files that are not those saved with config.json: a flipped bit would only show as bad output."""
    for name in names:
        expected = entry.sha256.get(name)
        try:
            given = digest(folder / name) if expected is not None else None
        except OSError as error:
            raise CheckpointError(
                f"{name} cannot be read: {error.strerror}",
                given=folder / name,
                expected="the file that was saved with the rest of this folder",
                mend="copy the whole folder again from where the model was trained",
            ) from None
        if given != expected:
            raise CheckpointError(
                f"{name} is damaged, or is not the one that was saved with this model",
                given=folder / name,
                expected=f"the file whose checksum {CONFIG} has",
                mend="copy the whole folder again; a folder changed by other software is read by `tripel import`",
            )


def save_training(
    run: str | Path,
    step: int,
    groups: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    *,
    keep: int = 3,
    protect: Collection[int] = (),
) -> Path:
    """Write run/checkpoints/step-{step}, then remove all but the newest `keep` steps, this one and those in protect.

    A group of tensors becomes the file {name}.safetensors; meta must be JSON. A former folder of the same step is
    replaced. Raises CheckpointError when the disk refuses; then every earlier checkpoint is as it was.
    """
    folder = Path(run) / FOLDER / f"step-{step}"
    needed = sum(tensor.numel() * tensor.element_size() for group in groups.values() for tensor in group.values())
    with atomic_folder(folder, needed=needed) as draft:
        for name, tensors in groups.items():
            write_tensors(draft / f"{name}.safetensors", tensors)
        write_json(draft / STATE, meta)
        write_manifest(draft)
    _prune(Path(run), {step, *protect}, keep)
    return folder


def list_steps(run: str | Path) -> list[int]:
    """The steps that have a checkpoint folder, oldest first; whether they are whole is for newest_valid to say."""
    return sorted(_step_folders(Path(run)))


def newest_valid(run: str | Path) -> Newest:
    """The checkpoint to go on from: the newest whose every file has the size and checksum it was written with.

    Raises CheckpointError when there is none, and says what is wrong with those that are there.
    """
    skipped: list[str] = []
    for step, folder in sorted(_step_folders(Path(run)).items(), reverse=True):
        reason = damage(folder)
        if reason is None:
            return Newest(step, folder, tuple(skipped))
        skipped.append(reason)
    raise CheckpointError(
        "no checkpoint of this run is whole" if skipped else "this run has no checkpoint to go on from",
        given="; ".join(skipped) or Path(run) / FOLDER,
        expected=f"a folder {FOLDER}/step-N as `tripel train` writes it",
        mend="check the path, or train again from the start with --overwrite",
    )


def load_training(folder: str | Path, *, groups: Collection[str] | None = None) -> TrainingState:
    """Read a checkpoint folder, all groups of tensors or only those named. Raises CheckpointError."""
    folder = Path(folder)
    meta = read_json(folder / STATE)
    names = sorted(path.stem for path in folder.glob("*.safetensors")) if groups is None else groups
    return TrainingState({name: read_tensors(folder / f"{name}.safetensors") for name in names}, meta)


def _expressed(config: AnyModelConfig, vocabulary: AnyVocabulary) -> tuple[str, dict[str, Any]]:
    """The format whose names the weights get and its config.json; our own where no format can hold the model."""
    try:
        return express(config, vocabulary)
    except FormatError:
        return OUR_NAMES, {"model_type": OUR_NAMES}


def _with_usage(card: str, usage: str) -> str:
    """The card with the section at its end, once only: an exported or imported card may have it already."""
    heading = usage.splitlines()[0]
    return card if heading in card.splitlines() else f"{card.rstrip()}\n\n{usage}"


def _tokenizer_config(tokenizers: TokenizerPair, config: SkeletonConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """What transformers must know of tokenizer.json beyond the file itself."""
    tokenizer = tokenizers.source
    ids: dict[str, int | None] = {"pad": vocabulary.pad_id, "unk": tokenizer.unk_id}
    if isinstance(config, EncoderConfig):
        ids |= {"cls": vocabulary.start_id, "sep": vocabulary.eos_id, "mask": vocabulary.mask_id}
        inputs = ["input_ids", *(["token_type_ids"] if config.token_types else []), "attention_mask"]
    else:
        ids["bos"] = tokenizer.bos_id if isinstance(config, EncoderDecoderConfig) else vocabulary.start_id
        ids["eos"] = vocabulary.eos_id
        inputs = ["input_ids", "attention_mask"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": tokenizer.pieces([number])[0] for name, number in ids.items() if number is not None},
        "model_input_names": inputs,
        "model_max_length": config.max_len,
        "clean_up_tokenization_spaces": False,
    }


def _require_fit(folder: Path, tokenizers: TokenizerPair, config: SkeletonConfig, vocabulary: Vocabulary) -> None:
    for side, tokenizer, size in (
        ("source", tokenizers.source, vocabulary.source_size),
        ("target", tokenizers.target, vocabulary.target_size),
    ):
        if isinstance(config, DecoderConfig):
            # A language model of others may end its texts with any token that is not text.
            fits = vocabulary.eos_id in tokenizer.special_ids
        else:
            fits = (tokenizer.pad_id, tokenizer.eos_id) == (vocabulary.pad_id, vocabulary.eos_id)
        if isinstance(config, EncoderConfig):
            fits &= (tokenizer.bos_id, tokenizer.mask_id) == (vocabulary.start_id, vocabulary.mask_id)
        if tokenizer.vocab_size > size or not fits:
            raise CheckpointError(
                f"the {side} tokenizer does not fit the model",
                given=f"{folder}: {tokenizer.vocab_size} tokens, padding {tokenizer.pad_id}, end {tokenizer.eos_id}",
                expected=f"at most {size} tokens, padding {vocabulary.pad_id}, end {vocabulary.eos_id}",
                mend="use the tokenizer that the model was trained with",
            )


def _prune(run: Path, kept: set[int], keep: int) -> None:
    """Remove old steps. The one just written is always in `kept`, so that one whole checkpoint is never removed."""
    folders = _step_folders(run)
    kept = kept | set(sorted(folders, reverse=True)[:keep])
    with reporting_disk_errors(run / FOLDER, 0):
        for step in folders.keys() - kept:
            retire_folder(folders[step])
    for kind in ("draft", "removed", "replaced"):
        for leftover in hidden(run / FOLDER, r"step-\d+", kind):
            if leftover not in folders.values():
                remove_folder(leftover)


def _step_folders(run: Path) -> dict[int, Path]:
    """Folder of each step. One that a crash caught while it was being replaced counts by its former self."""
    folders: dict[int, Path] = {}
    parent = run / FOLDER
    for entry in parent.iterdir() if parent.is_dir() else ():
        if match := _STEP.fullmatch(entry.name):
            folders[int(match[1])] = entry
        elif match := _REPLACED_STEP.fullmatch(entry.name):
            folders.setdefault(int(match[1]), entry)
    return folders
