"""Score a run on a data set: real search output against references, hypotheses kept in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult

from tripel.data.parallel import load_parallel
from tripel.errors import CheckpointError, InputError
from tripel.pipelines.load import load
from tripel.recipe import Recipe
from tripel.storage import atomic_write
from tripel.tasks.scores import TranslationScores, score_translations


@dataclass(frozen=True)
class Evaluation:
    """Scores of a run on a set. settings: how answers were chosen. hypotheses: the file they are in, one a line."""

    data: str
    n_sentences: int
    settings: dict[str, Any]
    scores: TranslationScores
    hypotheses: Path
    seconds: float

    def to_json(self) -> str:
        """All of it as JSON."""
        fields = {
            "data": self.data,
            "sentences": self.n_sentences,
            "decode": self.settings,
            **json.loads(self.scores.to_json()),
            "hypotheses": str(self.hypotheses),
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(fields, ensure_ascii=False, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        chosen = f"beam {self.settings['beam']}" if not self.settings["sample"] else "sampled"
        yield f"{self.data}: {self.n_sentences:,} sentences, {chosen}, {self.seconds:.1f} s"
        yield self.scores
        yield f"hypotheses: {self.hypotheses}"


def evaluate(
    run: str | Path, split: str = "test", *, settings: Mapping[str, Any] | None = None, hypotheses: Path | None = None
) -> Evaluation:
    """Translate a set and score the translations.

    split: `train`, `valid` or `test` of the run's recipe, or the name or path of any parallel data. settings: fields of
    DecodeConfig that differ from the recipe's. hypotheses: where they are written, by default a file in the run folder.
    Raises CheckpointError, DataError, InputError.
    """
    run = Path(run)
    if not (run / "recipe.yaml").is_file():
        raise CheckpointError(
            "this is not a run folder", given=run, expected="a folder with a recipe.yaml", mend="see `tripel train`"
        )
    recipe = Recipe.load(run / "recipe.yaml")
    name = _data_name(recipe, split)
    text, _ = load_parallel(name, recipe.task.source, recipe.task.target, recipe.data, training=False)
    translator = load(run)
    chosen = dict(settings or {})
    start = time.perf_counter()
    answers = [answer.text for answer in translator.translate(text.sources, **chosen)]
    seconds = time.perf_counter() - start
    scores = score_translations(answers, text.targets, language=recipe.task.target)
    path = hypotheses or run / f"hypotheses.{name.replace('/', '.').strip('.')}.{recipe.task.target}"
    atomic_write(path, "".join(answer.replace("\n", " ") + "\n" for answer in answers))
    used = {**recipe.decode.model_dump(), **chosen}
    return Evaluation(name, len(text), used, scores, path, seconds)


def _data_name(recipe: Recipe, split: str) -> str:
    if split == "train":
        return recipe.data.train_names[0]
    if split not in ("valid", "test"):
        return split
    name = getattr(recipe.data, split)
    if name is None:
        raise InputError(
            f"the run's recipe names no {split} set",
            given=f"--split {split}",
            expected="valid, test, or the name or path of parallel data",
            mend=f"name one, for example --split multi30k/{split}",
        )
    return name
