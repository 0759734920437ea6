"""A recipe: everything that makes a model, in one YAML file. What can be combined is in tripel.cells.

Recipe = task + data + tokenizer + model + optim + train + decode. Defaults live in the config classes, next to the code
they configure; this file only assembles them, reads YAML, applies `--set a.b=value`, and explains what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from tripel.cells import CELLS, SECTIONS, Cell, sections_of
from tripel.config import Config, follow
from tripel.data.checks import DataConfig
from tripel.data.images import ImageDataConfig
from tripel.data.labelled import LabelledDataConfig
from tripel.data.text import TextDataConfig
from tripel.decode.complete import CompletionConfig
from tripel.decode.search import DecodeConfig
from tripel.errors import RecipeError, nearest
from tripel.models.config import EncoderConfig, ModelConfig, ResNetConfig, SkeletonConfig, ViTConfig
from tripel.nn import MIXERS
from tripel.origin import with_origin
from tripel.tasks.classification import ClassificationTask
from tripel.tasks.masked_token import MaskedTokenTask
from tripel.tasks.next_token import NextTokenTask
from tripel.tasks.translation import TranslationTask
from tripel.text.tokenizer import TokenizerConfig
from tripel.training.optim import OptimConfig
from tripel.training.trainer import TrainConfig

LANGUAGE_MODEL_TOKENIZERS = ("byte_bpe", "char", "byte")


class Recipe(Config):
    """All settings of a run. `Recipe.load` reads one by name or path. The kinds of data, model and decode follow from
    the task's and need not be written.

    init_from: the folder of a run to begin with: its model, weights and tokenizer. Those sections need not be written.
    """

    task: TranslationTask | NextTokenTask | MaskedTokenTask | ClassificationTask = Field(discriminator="kind")
    init_from: str | None = None
    data: DataConfig | TextDataConfig | LabelledDataConfig | ImageDataConfig = Field(discriminator="kind")
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    decode: Annotated[DecodeConfig | CompletionConfig, Field(discriminator="kind")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _kinds_follow_from_the_task(cls, tree: Any) -> Any:
        task = tree.get("task") if isinstance(tree, dict) else None
        kind = task.get("kind") if isinstance(task, dict) else getattr(task, "kind", None)
        if kind not in SECTIONS:
            return tree
        tree, sections = dict(tree), sections_of(kind, _kind_of(tree.get("model")))
        for section in ("data", "model", "decode", "tokenizer"):
            expected = getattr(sections, section)
            if section == "tokenizer" and expected is None:
                if tree.pop(section, None):
                    raise ValueError("a model of images has no tokenizer section: leave it out")
                continue
            given = tree.get(section, {} if section != "data" else None)
            if isinstance(given, dict) and (expected or given):
                tree[section] = {"kind": expected, **given} if expected else given
        model = tree.get("model")
        if sections.head and isinstance(model, dict) and model["kind"] == "encoder":
            tree["model"] = {"head": sections.head, **model}
        return tree

    @property
    def text_model(self) -> SkeletonConfig:
        """The model section of a recipe for text."""
        assert isinstance(self.model, SkeletonConfig)
        return self.model

    @property
    def reads_images(self) -> bool:
        """Whether the model is one of pictures, which has no tokenizer."""
        return isinstance(self.model, ViTConfig | ResNetConfig)

    @model_validator(mode="after")
    def _parts_go_together(self) -> Recipe:
        sections = sections_of(self.task.kind, self.model.kind)
        for section in ("data", "decode"):
            given = getattr(getattr(self, section), "kind", None)
            expected = getattr(sections, section)
            if given != expected:
                needs = f"needs {expected}" if expected else f"has no {section} section"
                raise ValueError(f"{section}.kind is {given}, but a {self.task.kind} task {needs}: leave it out")
        if isinstance(self.model, EncoderConfig) and self.model.head != sections.head:
            raise ValueError(f"model.head {self.model.head} is not for a {self.task.kind} task: leave it out")
        # Two tokenizers may well have equally many tokens: the sizes that the model compares do not show it.
        if getattr(self.model, "tie", None) == "all" and not self.tokenizer.shared:
            raise ValueError("model.tie: all needs one vocabulary; set tokenizer.shared=true, or model.tie=target")
        if isinstance(self.data, TextDataConfig):
            assert isinstance(self.model, SkeletonConfig)
            self._require_text_model(self.data, self.model)
        if isinstance(self.data, ImageDataConfig):
            self._require_image_data(self.data)
        return self

    def _require_image_data(self, data: ImageDataConfig) -> None:
        if self.train.r_drop and (data.augment.mixes or data.class_weights != "none"):
            raise ValueError("train.r_drop goes neither with data.augment.mixup and cutmix nor with data.class_weights")

    def _require_text_model(self, data: TextDataConfig, model: SkeletonConfig) -> None:
        if isinstance(self.task, NextTokenTask) and self.tokenizer.kind not in LANGUAGE_MODEL_TOKENIZERS:
            raise ValueError(
                f"tokenizer.kind {self.tokenizer.kind} puts a space before every text, so that a long one cannot be "
                f"encoded in pieces; a language model takes {', '.join(LANGUAGE_MODEL_TOKENIZERS)}"
            )
        context = data.context or model.max_len
        if model.positions != "none" and context > model.max_len:
            raise ValueError(
                f"data.context {context} is more than the model's positions, model.max_len {model.max_len}"
            )
        carries = all(MIXERS[stack.mixer.kind].build.constant_state for stack in model.stacks().values())
        if data.carry_state and (not carries or model.positions != "none"):
            raise ValueError(
                "data.carry_state needs mixers whose state has one size (rnn, lstm, conv) and model.positions: none"
            )
        if data.carry_state and not isinstance(self.task, NextTokenTask):
            raise ValueError("data.carry_state is for the next-token task: an encoder reads texts whole")
        if data.carry_state and self.train.r_drop:
            raise ValueError("data.carry_state and train.r_drop exclude each other: R-Drop reads every text twice")

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """A shipped recipe by name, or a YAML file by path; then `a.b=value` overrides. Raises RecipeError."""
        return cls.from_yaml(read_recipe(name_or_path), overrides, origin=str(name_or_path))

    @classmethod
    def from_yaml(cls, text: str, overrides: Sequence[str] = (), *, origin: str = "recipe") -> Recipe:
        """A recipe from YAML text. Raises RecipeError that names the key and the nearest valid one."""
        try:
            tree = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"{origin} is not valid YAML", given=error, mend="correct the file") from None
        if not isinstance(tree, dict):
            raise RecipeError(
                f"{origin} is not a recipe",
                given=type(tree).__name__,
                expected="a YAML mapping with task, data, tokenizer, model, optim, train, decode",
                mend="begin from a shipped one: tripel recipes show translate-en-de",
            )
        for override in overrides:
            _apply(tree, override)
        tree = with_origin(tree)
        try:
            recipe = cls.model_validate(tree)
        except ValidationError as error:
            raise _explain(error, origin) from None
        check_cell(recipe)
        return recipe

    def to_yaml(self) -> str:
        """The recipe with every default written out; from_yaml gives it back."""
        tree = self.model_dump(mode="json", exclude={"tokenizer"} if self.reads_images else None)
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def check_cell(recipe: Recipe) -> Cell:
    """The cell a recipe falls into. Raises RecipeError naming the nearest when there is none."""
    model = recipe.model
    mixers = {stack.mixer.kind for stack in model.stacks().values()}
    for cell in CELLS:
        same_way = cell.skeleton == model.skeleton and cell.input == model.input and cell.task == recipe.task.kind
        fits = same_way and mixers <= set(cell.mixers)
        if fits and model.wiring in cell.wirings and model.norm in cell.norms:
            return cell
    parts = (*sorted(mixers), f"wiring {model.wiring}", f"norm {model.norm}")
    given = f"{model.kind} of {model.input} with {', '.join(parts)}, for {recipe.task.kind}"

    def likeness(cell: Cell) -> int:
        same = (cell.skeleton == model.skeleton, cell.task == recipe.task.kind, model.wiring in cell.wirings)
        return 3 * (cell.input == model.input) + sum(same) + 2 * (mixers <= set(cell.mixers))

    best = max(CELLS, key=likeness)
    raise RecipeError(
        "no family combines these",
        given=given,
        expected=f"the nearest is {best.family}: {best.skeleton} with {' or '.join(best.mixers)}, "
        f"wiring {' or '.join(best.wirings)}, for {best.task}",
        mend="change the recipe to a row of `tripel families`",
    )


def _kind_of(section: Any) -> str | None:
    return section.get("kind") if isinstance(section, dict) else getattr(section, "kind", None)


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _shipped().iterdir() if entry.name.endswith(".yaml"))


def read_recipe(name_or_path: str | Path) -> str:
    """The YAML text of a shipped recipe, or of a file. Raises RecipeError naming the nearest recipe."""
    name = str(name_or_path)
    shipped = _shipped() / f"{name}.yaml"
    if "/" not in name and shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.is_file():
        return _read(path)
    close = nearest(name, recipe_names())
    raise RecipeError(
        f"there is no recipe {name!r}",
        given=name,
        expected=f"a path, or one of {', '.join(recipe_names())}",
        mend=f"did you mean {close}?" if close else "list them with `tripel recipes`",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"the recipe {path} cannot be read", given=error, expected="a UTF-8 YAML file", mend="check the file"
        ) from None


def _shipped() -> Any:
    return resources.files("tripel.recipes")


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set one `a.b=value` in a tree of mappings; the value is YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(
            "an override must look like key=value",
            given=override,
            expected="for example train.steps=2000",
            mend="write --set section.key=value",
        )
    *parents, last = key.strip().split(".")
    node = tree
    for parent in parents:
        if not isinstance(node.setdefault(parent, {}), dict):
            node[parent] = {}
        node = node[parent]
    try:
        node[last] = yaml.safe_load(_float_like(text))
    except yaml.YAMLError as error:
        raise RecipeError(f"the value of {key} is not valid YAML", given=text, mend=str(error)) from None


def _float_like(text: str) -> str:
    """YAML 1.1 reads 5e-3 as a string; people mean the number."""
    try:
        return repr(float(text)) if "e" in text.lower() else text
    except ValueError:
        return text


def _explain(error: ValidationError, origin: str) -> RecipeError:
    """The first problem in pydantic's list, in a person's words."""
    problem = error.errors()[0]
    path, known = follow(Recipe, problem["loc"])
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        close = nearest(path[-1], known)
        return RecipeError(
            f"{origin}: unknown key {key}",
            given=path[-1],
            expected=f"one of {', '.join(known)}",
            mend=f"did you mean {close}?" if close else "remove it",
        )
    if problem["type"] == "missing":
        return RecipeError(
            f"{origin}: {key} is missing", expected=f"a value for {key}", mend=f"add {key} to the recipe"
        )
    expected = problem["msg"].removeprefix("Value error, ")
    context = problem.get("ctx", {})
    given = context.get("tag", None if isinstance(problem["input"], dict) else problem["input"])
    choices = context.get("expected", context.get("expected_tags"))
    close = (
        nearest(str(given), [c.strip(" '") for c in str(choices).replace(" or ", ",").split(",")]) if choices else None
    )
    return RecipeError(
        f"{origin}: {key} cannot be used" if key else f"{origin} cannot be used",
        given=given,
        expected=expected,
        mend=f"did you mean {close}?" if close else f"change {key or 'it'}",
    )
