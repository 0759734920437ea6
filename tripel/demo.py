"""`tripel demo`: on the embedded phrasebook, from nothing to a translator in minutes; then it shows what was learnt.

It types for the person what the person could type: train the recipe `demo`, evaluate twice, translate, look inside.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rich.console import Console

from tripel import checkpoint
from tripel.data.known import data_folder
from tripel.data.made import MADE
from tripel.data.names import find_pair
from tripel.data.phrasebook.generator import check_target
from tripel.data.readers import read_pairs
from tripel.errors import CheckpointError, InputError, RecipeError
from tripel.evaluate import Evaluation, evaluate
from tripel.inspection.attention import cross_attention
from tripel.pipelines.load import load_translator
from tripel.pipelines.translate import Translator
from tripel.recipe import Recipe
from tripel.run import resumed_recipe, train

_LANGUAGES = {"de": "German", "fr": "French"}
_N_SHOWN = 6
_SECONDS_PER_WORD = 0.08  # at a terminal, so that an eye can follow


def demo(target: str, out: Path, console: Console) -> bool:
    """Train (or reuse, or go on with) the demo's model in `out` and show it; False when it was interrupted.

    target: de or fr. Raises DataError for another language, InputError for a folder that holds something else.
    """
    recipe = demo_recipe(target)
    resume = _holds_demo(out, recipe)
    newest = checkpoint.newest_valid(out) if resume else None
    if newest is not None and newest.step >= recipe.train.steps and (out / checkpoint.WEIGHTS).exists():
        _say(console, f"the model in {out} is trained already: using it (remove the folder to train again)")
    else:
        _say(console, f"A Transformer learns to translate English into {_LANGUAGES[target]}, from nothing.")
        if not MADE[f"phrasebook-{target}"].is_made(data_folder()):
            _say(console, "writing the phrasebook that it learns from: half a minute, once")
        command = f"tripel demo --target {target} --out {out}"
        if train(recipe, out, resume=resume, console=console, command=command).reason == "interrupted":
            _say(console, "interrupted; nothing is lost: type the same command again to go on")
            return False
    _show(target, out, console)
    return True


def demo_recipe(target: str) -> Recipe:
    """The recipe `demo`, into this language. Raises DataError naming the languages there are."""
    check_target(target)
    data = [f"data.{split}=phrasebook-{target}/{split}" for split in ("train", "valid", "test")]
    return Recipe.load("demo", [f"task.target={target}", *data])


def _holds_demo(out: Path, recipe: Recipe) -> bool:
    """Whether `out` has this recipe's run, begun or finished. Raises InputError when it has something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        resumed_recipe(out, recipe)
    except (CheckpointError, RecipeError) as error:
        raise InputError(
            "the folder holds something else than this demo",
            given=f"{out}: {error.what}",
            expected="a new or empty folder, or this demo's own",
            mend="name another folder with --out, or remove this one",
        ) from None
    return True


def _show(target: str, out: Path, console: Console) -> None:
    compositional = f"phrasebook-{target}/compositional"
    _say(console, "\nHow good is it? BLEU, on 1,000 sentences each that it has never seen")
    _say(console, f"  from the same phrasebook               {_bleu(out, 'test'):6.2f}")
    _say(console, f"  with words it has never seen together  {_bleu(out, compositional):6.2f}")
    translator = load_translator(out)
    examples = _examples(compositional, target)
    _say(console, "\nSome of the latter, word by word as they are generated")
    for example in examples[:: max(len(examples) // _N_SHOWN, 1)][:_N_SHOWN]:
        _stream(translator, example, console)
    _say(console, "\nWhere it looks: a row for each word it writes, darker for each word it reads meanwhile")
    view = cross_attention(translator, max(examples, key=lambda example: example.n_crossings).source)
    console.print(view)
    _say(console, f"the same as a picture: {view.save_png(out / 'attention.png')}")
    _say(console, "\nNow it is yours")
    activate = Path(os.path.relpath(sys.prefix), "bin", "activate")
    first = {f". {activate}": "once in each terminal"} if shutil.which("tripel") is None and activate.exists() else {}
    commands = first | {
        f"tripel translate {out}": "type sentences and see them translated",
        f"tripel evaluate {out}": "all scores, with their signatures",
        f"tripel train translate-en-{target} --out runs/en-{target}": "real captions; see `tripel data list`",
    }
    for command, meaning in commands.items():
        _say(console, f"  {command:<{max(map(len, commands))}}  # {meaning}")


@dataclass(frozen=True)
class _Example:
    """A sentence of the phrasebook. n_crossings: pairs of word alignments that cross, a measure of reordering."""

    source: str
    target: str
    n_crossings: int


def _examples(name: str, target: str) -> list[_Example]:
    """Those sentences of a set that are worth showing: neither short nor wider than a terminal."""
    files = find_pair(name, "en", target)
    alignments = files.source.with_suffix(".align").read_text(encoding="utf-8").splitlines()
    examples = []
    for pair, alignment in zip(read_pairs(files, "en", target), alignments, strict=True):
        if 32 <= len(pair.source) <= 46:
            links = [tuple(map(int, link.split("-"))) for link in alignment.split()]
            n_crossings = sum(i < k and j > m for i, j in links for k, m in links)
            examples.append(_Example(pair.source, pair.target, n_crossings))
    return examples


def _bleu(out: Path, split: str) -> float:
    return cast(Evaluation, evaluate(out, split)).scores.bleu


def _stream(translator: Translator, example: _Example, console: Console) -> None:
    """A sentence and, word by word, its translation; then what the phrasebook says, if that is something else."""
    _say(console, f"  {example.source}")
    console.print("  ", end="")
    words = []
    for word in translator.stream(example.source, beam=1):
        words.append(word)
        console.print(word, end="", style="bold", markup=False, highlight=False, soft_wrap=True)
        if console.is_terminal:
            time.sleep(_SECONDS_PER_WORD)
    _say(console, "" if "".join(words) == example.target else f"   (the phrasebook: {example.target})")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
