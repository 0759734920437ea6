"""Does pre-training help? Accuracy of text classifiers from scratch and fine-tuned, over several seeds.

    python benchmarks/finetune.py RUN... [--tasks polarity trec] [--seeds 1 2 3] [--threads 1] [--work DIR] [--write]

RUN: run folders of pre-trained encoders. For each task, its recipe trains the body of each RUN from random weights with a
tokenizer of its own (`NAME`), and its recipe `NAME-finetuned` trains on from the RUN's weights. The weights that do best on
the validation set are scored once on the test set. Runs that are in DIR already are not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

from common import machine, markdown_table, versions, write_result
from rich.console import Console

from tripel.evaluate import evaluate
from tripel.recipe import Recipe
from tripel.run import train


def main() -> None:
    arguments = _arguments()
    console = Console(stderr=True)
    rows = []
    for task in arguments.tasks:
        for run in arguments.runs:
            for way, recipe_name in (("from scratch", task), ("fine-tuned", f"{task}-finetuned")):
                results = [_trained(recipe_name, run, way, seed, arguments, console) for seed in arguments.seeds]
                accuracies, minutes = ([result[i] for result in results] for i in (0, 1))
                rows.append(
                    [
                        task,
                        run.name,
                        way,
                        f"{statistics.mean(accuracies):.1%}",
                        f"{min(accuracies):.1%} to {max(accuracies):.1%}",
                        f"{statistics.mean(minutes):.1f}",
                    ]
                )
                console.print(rows[-1])
    header = ["task", "body", "begins", "accuracy, mean", f"of seeds {arguments.seeds}", "minutes each"]
    table = markdown_table(header, rows)
    print(table)
    if arguments.write:
        runs = " ".join(str(run) for run in arguments.runs)
        notes = [
            "Accuracy on the test set of the weights that did best on the validation set.",
            f"Command: `python benchmarks/finetune.py {runs} --seeds {' '.join(map(str, arguments.seeds))} "
            f"--threads {arguments.threads} --write`",
            f"Machine: {machine()}",
            f"Versions: {versions('torch')}",
        ]
        write_result("finetune", title="Text classification from scratch and fine-tuned", table=table, notes=notes)


def _trained(
    name: str, origin: Path, way: str, seed: int, arguments: argparse.Namespace, console: Console
) -> tuple[float, float]:
    """Test accuracy and minutes of training of one run."""
    out = arguments.work / f"{name}.{origin.name}.{seed}"
    if not (out / "test.json").is_file():
        overrides = [f"init_from={origin}", f"train.seed={seed}", f"train.threads={arguments.threads}"]
        if way == "from scratch":
            own = Recipe.load(name, overrides[1:])
            body = Recipe.load(f"{name}-finetuned", overrides).model
            kept = {key: getattr(own.model, key) for key in ("dropout", "pool", "pooler")}
            recipe = own.model_copy(update={"model": body.model_copy(update=kept)})
        else:
            recipe = Recipe.load(name, overrides)
        train(recipe, out, overwrite=out.exists(), console=Console(file=(arguments.work / "log.txt").open("a")))
        (out / "test.json").write_text(evaluate(out, "test").to_json(), encoding="utf-8")
        console.print(f"{out.name}: {_accuracy(out):.1%}")
    return _accuracy(out), max(record["seconds"] for record in _records(out)) / 60


def _accuracy(out: Path) -> float:
    return float(json.loads((out / "test.json").read_text(encoding="utf-8"))["accuracy"])


def _records(out: Path) -> Iterator[dict[str, float]]:
    return map(json.loads, (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--tasks", nargs="+", default=["polarity", "trec"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/finetune.md")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    return arguments


if __name__ == "__main__":
    main()
