"""A recipe: everything that makes a model, in one YAML file. And the table of what can be combined.

Recipe = task + data + tokenizer + model + optim + train + decode. Defaults live in the config classes, next to the code
they configure; this file only assembles them, reads YAML, applies `--set a.b=value`, and explains what is wrong.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from tripel.config import Config
from tripel.data.checks import DataConfig
from tripel.decode.search import DecodeConfig
from tripel.errors import RecipeError, nearest
from tripel.models.config import EncoderDecoderConfig, ModelConfig
from tripel.tasks.translation import TranslationTask
from tripel.text.tokenizer import TokenizerConfig
from tripel.training.optim import OptimConfig
from tripel.training.trainer import TrainConfig


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


class Recipe(Config):
    """All settings of a run. `Recipe.load` reads one by name or path."""

    task: TranslationTask
    data: DataConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = EncoderDecoderConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    decode: DecodeConfig = DecodeConfig()

    @model_validator(mode="after")
    def _one_matrix_needs_one_vocabulary(self) -> Recipe:
        # Two tokenizers may well have equally many tokens: the sizes that the model compares do not show it.
        if self.model.tie == "all" and not self.tokenizer.shared:
            raise ValueError("model.tie: all needs one vocabulary; set tokenizer.shared=true, or model.tie=target")
        return self

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
        try:
            recipe = cls.model_validate(tree)
        except ValidationError as error:
            raise _explain(error, origin) from None
        check_cell(recipe)
        return recipe

    def to_yaml(self) -> str:
        """The recipe with every default written out; from_yaml gives it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def check_cell(recipe: Recipe) -> Cell:
    """The cell a recipe falls into. Raises RecipeError naming the nearest when there is none."""
    model = recipe.model
    mixers = {stack.mixer.kind for stack in model.stacks().values()}
    for cell in CELLS:
        fits = cell.skeleton == model.kind and cell.task == recipe.task.kind and mixers <= set(cell.mixers)
        if fits and model.wiring in cell.wirings and model.norm in cell.norms:
            return cell
    given = f"{model.kind} with {', '.join(sorted(mixers))}, wiring {model.wiring}, norm {model.norm}, for {recipe.task.kind}"

    def likeness(cell: Cell) -> int:
        same = (cell.skeleton == model.kind, cell.task == recipe.task.kind, model.wiring in cell.wirings)
        return sum(same) + 2 * (mixers <= set(cell.mixers))

    best = max(CELLS, key=likeness)
    raise RecipeError(
        "no family combines these",
        given=given,
        expected=f"the nearest is {best.family}: {best.skeleton} with {' or '.join(best.mixers)}, "
        f"wiring {' or '.join(best.wirings)}, for {best.task}",
        mend="change the recipe to a row of `tripel families`",
    )


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
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(Recipe, path[:-1])
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
    given = problem["input"] if not isinstance(problem["input"], dict) else None
    choices = problem.get("ctx", {}).get("expected")
    close = (
        nearest(str(given), [c.strip(" '") for c in str(choices).replace(" or ", ",").split(",")]) if choices else None
    )
    return RecipeError(
        f"{origin}: {key} cannot be used" if key else f"{origin} cannot be used",
        given=given,
        expected=expected,
        mend=f"did you mean {close}?" if close else f"change {key or 'it'}",
    )


def _fields_at(root: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the config class at a path below root; of the last class that could be followed."""
    here: type[BaseModel] = root
    for name in path:
        annotation = here.model_fields[name].annotation if name in here.model_fields else None
        classes = [a for a in (annotation, *typing.get_args(annotation)) if isinstance(a, type)]
        found = [c for c in classes if issubclass(c, BaseModel)]
        if not found:
            break
        here = found[0]
    return list(here.model_fields)
