"""Training of language models: against nanoGPT to the end, and against a plain loop over transformers' GPT2LMHeadModel.

    python benchmarks/train_completion.py quality --nanogpt CHECKOUT [--recipe shakespeare-quick] [--rounds 3] [--write]
    python benchmarks/train_completion.py speed [--size tiny|small|gpt2] [--rounds 7] [--steps 6] [--write]

quality: `tripel train RECIPE` and nanoGPT's train.py in its README's configuration for a CPU, one after the other in
every round, from the start of the command to its end. Both are then measured alike: the last 10 % of the characters,
in windows of 64 that do not overlap, at all positions. Needs a checkout of github.com/karpathy/nanoGPT and
shakespeare/input.txt under TRIPEL_DATA, or a connection to fetch it.

speed: every contender is a process of its own that makes the same updates on the same batches when it is its turn,
from the same weights. Speeds are predicted tokens a second; ratios are made within a round and reported as medians with
their spread. Needs the package `transformers`; the size gpt2 takes up to 3 GB of memory a contender (see --only).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import peer_nanogpt
import torch
import torch.nn.functional as F
from common import machine, markdown_table, speed_table, spread, versions, write_result
from loops import plain_loop, tripel_loop
from torch import Tensor
from turns import ALLOCATOR, Command, Turns, race

from tripel.checkpoint import load_run
from tripel.data.batch import Batch
from tripel.data.names import find_texts
from tripel.data.text import TextDataConfig
from tripel.data.windows import WindowLoader, valid_batches
from tripel.hf import gpt2 as gpt2_format
from tripel.models.build import build, count_parameters
from tripel.models.catalog import gpt2
from tripel.models.config import DecoderConfig, Vocabulary
from tripel.models.decoder import Decoder
from tripel.nn import AttentionConfig
from tripel.recipe import Recipe
from tripel.tasks.next_token import language_vocabulary
from tripel.text.tokenizer import Tokenizer, TokenizerConfig
from tripel.training.precision import Precision

TEXT, WINDOW = "shakespeare/input.txt", 64
RATE, SEED = 5e-4, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    quality = commands.add_parser("quality", help="against nanoGPT, to the end of training")
    quality.add_argument("--nanogpt", type=Path, required=True, metavar="CHECKOUT")
    quality.add_argument("--recipe", default="shakespeare-quick", help="a name or a path")
    quality.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to `tripel train`")
    quality.add_argument("--processes", type=int, default=1, help="of `tripel train`, started by torchrun")
    quality.add_argument("--updates", type=int, default=peer_nanogpt.UPDATES, help="of nanoGPT; fewer for a try")
    quality.add_argument("--rounds", type=int, default=1)
    quality.set_defaults(run=compare_quality, parser=quality)
    speed = commands.add_parser("speed", help="against transformers, tokens a second")
    speed.add_argument("--size", choices=list(SIZES), default="tiny")
    speed.add_argument("--rounds", type=int, default=7)
    speed.add_argument("--steps", type=int, default=6, help="updates of each contender in a round")
    speed.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), metavar="CONTENDER")
    speed.add_argument("--worker", nargs=2, metavar=("CONTENDER", "BATCHES"), help=argparse.SUPPRESS)
    speed.set_defaults(run=compare_speed, parser=speed)
    for command in (quality, speed):
        command.add_argument("--threads", type=int, default=0, help="of every contender; 0: PyTorch's choice")
        command.add_argument("--write", action="store_true", help="write the table into benchmarks/results")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.run(args)


# Quality.


@dataclass(frozen=True)
class Outcome:
    """A training. seconds, cpu_seconds: of the whole command. speed: tokens a second of the updates alone. loss: nats a
    character of the last 10 %, by `validation_loss`; own_loss: as its trainer said. load: the machine's when it began."""

    parameters: int
    updates: int
    tokens: int
    seconds: float
    cpu_seconds: float
    speed: float
    loss: float
    own_loss: float
    load: float


@dataclass(frozen=True)
class Timed:
    """A command that was run to its end."""

    output: str
    seconds: float
    cpu_seconds: float
    load: float


def compare_quality(args: argparse.Namespace) -> None:
    path = _text_of(args)
    text = path.read_text(encoding="utf-8")
    held_out = text[int(len(text) * 0.9) :]
    outcomes: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory() as folder:
        nanogpt = Path(folder) / "nanogpt"
        ids = peer_nanogpt.copy(args.nanogpt, nanogpt, text)
        contenders: dict[str, Callable[[Path], Outcome]] = {
            f"tripel {Path(args.recipe).stem}": lambda out: train_tripel(args, out, held_out),
            "nanoGPT": lambda out: train_nanogpt(args, nanogpt, {}, ids, held_out),
            "nanoGPT, allocator set": lambda out: train_nanogpt(args, nanogpt, ALLOCATOR, ids, held_out),
        }
        for number in range(args.rounds):
            for name, train in contenders.items():
                outcome = train(Path(folder) / f"run-{number}")
                outcomes.setdefault(name, []).append(outcome)
                print(f"round {number + 1}: {name} {outcome}", file=sys.stderr)
    table = quality_table(outcomes)
    print(table)
    if args.write:
        title = "A character model of tiny Shakespeare: time and validation loss beside nanoGPT"
        notes = quality_notes(args, outcomes, len(held_out))
        write_result("train_completion_quality", title=title, table=table, notes=notes)


def _text_of(args: argparse.Namespace) -> Path:
    """The text; refuses a recipe that would not be compared fairly on it."""
    (path,) = find_texts(TEXT)
    recipe = Recipe.load(args.recipe, args.set)
    data = recipe.data
    same = isinstance(data, TextDataConfig) and [p for name in data.train_names for p in find_texts(name)] == [path]
    if not same or getattr(data, "valid_share", 0) != 0.1 or recipe.tokenizer.kind != "char":
        args.parser.error(f"--recipe: it must train on the characters of {TEXT} with data.valid_share 0.1")
    if recipe.model.max_len < WINDOW:
        args.parser.error(f"--recipe: the measure needs model.max_len {WINDOW} or more")
    if not (args.nanogpt / "train.py").is_file():
        args.parser.error(f"--nanogpt: {args.nanogpt} is not a checkout of nanoGPT, it has no train.py")
    return path


def validation_loss(logits: Callable[[Tensor], Tensor], ids: Sequence[int]) -> float:
    """Mean cross-entropy in nats of every id but the first, read in windows that do not overlap. logits: of ids (B, T)."""
    total = 0.0
    with torch.inference_mode():
        for batch in valid_batches(np.array(ids), WINDOW, 128 * WINDOW):
            logits_NV = logits(batch.inputs["ids_BT"]).float().flatten(0, 1)
            total += F.cross_entropy(logits_NV, batch.targets_BT.flatten(), reduction="sum").item()
    return total / (len(ids) - 1)


def train_tripel(args: argparse.Namespace, out: Path, held_out: str) -> Outcome:
    start = ["-m", "tripel"]
    if args.processes > 1:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(args.processes), *start]
    overrides = [word for override in args.set for word in ("--set", override)]
    command = [sys.executable, *start, "train", args.recipe, "--out", str(out), *overrides]
    timed = _timed(command, None, {}, args.threads)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [record for record in records if "train_loss" in record][-1]
    run = load_run(out)
    assert isinstance(run.model, Decoder)
    loss = validation_loss(run.model, run.tokenizers.target.encode(held_out))
    own_loss = min(record["valid_loss"] for record in records if "valid_loss" in record)
    return Outcome(
        count_parameters(run.model),
        last["step"],
        last["tokens"],
        timed.seconds,
        timed.cpu_seconds,
        last["tokens"] / last["seconds"],
        loss,
        own_loss,
        timed.load,
    )


def train_nanogpt(
    args: argparse.Namespace, folder: Path, environment: dict[str, str], ids: dict[str, int], held_out: str
) -> Outcome:
    timed = _timed(peer_nanogpt.command(args.updates), folder, environment, args.threads)
    found = peer_nanogpt.trained(folder, timed.output)
    return Outcome(
        found.parameters,
        found.updates,
        found.tokens,
        timed.seconds,
        timed.cpu_seconds,
        found.speed,
        validation_loss(found.logits, [ids[character] for character in held_out]),
        found.own_loss,
        timed.load,
    )


def _timed(command: list[str], folder: Path | None, environment: dict[str, str], threads: int) -> Timed:
    environment = os.environ | environment | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    load, start, cpu_start = os.getloadavg()[0], time.perf_counter(), _cpu_seconds()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds, cpu_seconds = time.perf_counter() - start, _cpu_seconds() - cpu_start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Timed(done.stdout, seconds, cpu_seconds, load)


def _cpu_seconds() -> float:
    """Of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def quality_table(outcomes: dict[str, list[Outcome]]) -> str:
    ours = next(iter(outcomes.values()))
    header = ["", "parameters", "updates", "tokens trained on", "whole command, s", "processor, s"]
    header += ["tokens/s of updates", "validation loss", "its own estimate", "tripel is sooner by"]
    rows = [
        [
            name,
            f"{of[0].parameters:,}",
            f"{of[0].updates:,}",
            f"{of[0].tokens:,}",
            spread([x.seconds for x in of], ".1f"),
            spread([x.cpu_seconds for x in of], ".1f"),
            spread([x.speed for x in of], ",.0f"),
            spread([x.loss for x in of], ".4f"),
            spread([x.own_loss for x in of], ".4f"),
            spread([x.seconds / mine.seconds for x, mine in zip(of, ours, strict=True)], ".2f"),
        ]
        for name, of in outcomes.items()
    ]
    return markdown_table(header, rows)


def quality_notes(args: argparse.Namespace, outcomes: dict[str, list[Outcome]], n_characters: int) -> list[str]:
    loads = "; ".join(f"{name}: {', '.join(f'{x.load:.1f}' for x in of)}" for name, of in outcomes.items())
    options = " ".join(sys.argv[1:]).replace(str(args.nanogpt), "CHECKOUT")  # no path of one machine in a table
    options = options.replace(args.recipe, Path(args.recipe).stem)
    return [
        f"Median (smallest to largest) of {args.rounds} rounds, in each of which all were trained one after the other. "
        f"Validation loss: nats a character over the last 10 % of the text ({n_characters:,} characters), windows of "
        f"{WINDOW} that do not overlap, all positions, of the weights that each command left. Its own estimate: "
        "nanoGPT's is a mean over 20 random batches of 12 windows; tripel's is over its own windows of the whole. Whole "
        "command: from its start to its end, with imports, estimates and saving, and for tripel also reading, checking "
        "and encoding the text, which nanoGPT finds prepared.",
        f"nanoGPT: `python {' '.join(peer_nanogpt.command(args.updates)[1:])}`; tripel: {args.processes} process(es).",
        f"Machine: {machine()}. Load average of one minute when each began: {loads}. Versions: {versions('torch')}.",
        f"Command: `python benchmarks/train_completion.py {options}`",
    ]


# Speed.


@dataclass(frozen=True)
class Size:
    """rows: windows of an update, one race each. n_ids: of a vocabulary of random ids; None for real characters."""

    model: DecoderConfig
    context: int
    rows: tuple[int, ...]
    n_ids: int | None = None


def _gpt(n_layers: int, d_model: int, n_heads: int, context: int, dropout: float) -> DecoderConfig:
    mixer = AttentionConfig(n_heads=n_heads, dropout=dropout)
    return DecoderConfig(
        n_layers=n_layers, d_model=d_model, d_ff=4 * d_model, mixer=mixer, max_len=context, dropout=dropout
    )


SIZES = {
    "tiny": Size(_gpt(4, 128, 4, 64, 0.0), 64, (12, 32)),  # nanoGPT's for a CPU
    "small": Size(_gpt(6, 384, 6, 256, 0.2), 256, (12,)),  # nanoGPT's for a GPU, in fewer rows
    "gpt2": Size(gpt2(), 256, (2,), n_ids=50257),
}
# name: (who, precision, environment)
CONTENDERS: dict[str, tuple[str, Precision, dict[str, str]]] = {
    "tripel bfloat16": ("tripel", "bfloat16", {}),
    "tripel float32": ("tripel", "float32", {}),
    "transformers float32": ("transformers", "float32", {}),
    "transformers float32, allocator set": ("transformers", "float32", ALLOCATOR),
    "transformers bfloat16 autocast": ("transformers", "bfloat16", {}),
    "transformers bfloat16 autocast, allocator set": ("transformers", "bfloat16", ALLOCATOR),
}


def compare_speed(args: argparse.Namespace) -> None:
    if args.worker:
        work(args.worker[0], Path(args.worker[1]), args.size)
        return
    size, tables = SIZES[args.size], []
    for rows in size.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "batches.pt"
            prepare(path, size, rows, (args.rounds + 1) * args.steps)
            found = race(
                {name: command(name, path, args) for name in args.only}, rounds=args.rounds, n_steps=args.steps
            )
        tables.append(f"{rows} windows of {size.context} an update\n\n{speed_table(found)}")
        print(tables[-1])
    if args.write:
        config = size.model
        shape = f"{config.n_layers} layers of width {config.d_model}"
        title = f"Training a GPT of {shape}: tokens a second"
        table = "\n\n".join(tables)
        write_result(f"train_completion_speed_{args.size}", title=title, table=table, notes=speed_notes(args, size))


def speed_notes(args: argparse.Namespace, size: Size) -> list[str]:
    ids = "characters of tiny Shakespeare" if size.n_ids is None else f"random ids of {size.n_ids:,}"
    return [
        f"Median (smallest to largest) of {args.rounds} interleaved rounds of {args.steps} updates; ratios within a "
        f"round. All begin with the same weights and train on the same windows ({ids}); dropout {size.model.dropout}, "
        f"AdamW, gradient clipping, {args.threads or torch.get_num_threads()} threads.",
        f"Machine: {machine()}; load average over the last 15 minutes {os.getloadavg()[2]:.1f}, this run included. "
        f"Versions: {versions('torch', 'transformers')}.",
        f"Command: `python benchmarks/train_completion.py {' '.join(sys.argv[1:])}`",
    ]


def prepare(path: Path, size: Size, rows: int, n: int) -> None:
    """What the contenders need: the vocabulary, and n updates' batches as the trainer makes them."""
    tokens = rows * size.context
    if size.n_ids is None:
        (text,) = find_texts(TEXT)
        characters = text.read_text(encoding="utf-8")
        tokenizer = Tokenizer.train(TokenizerConfig(kind="char"), [characters], ends_texts=False)
        ids, vocabulary = np.array(tokenizer.encode(characters)), language_vocabulary(tokenizer)
    else:
        ids, end = np.random.default_rng(SEED).integers(0, size.n_ids, (n + 1) * tokens), size.n_ids - 1
        vocabulary = Vocabulary(source_size=size.n_ids, target_size=size.n_ids, pad_id=end, eos_id=end, start_id=end)
    loader = WindowLoader(ids, context=size.context, tokens_per_step=tokens, micro_tokens=tokens, seed=SEED)
    steps = iter(loader)
    batches = [vars(batch) for _ in range(n) for batch in next(steps)]
    steps.close()  # type: ignore[attr-defined]
    torch.save({"vocabulary": vocabulary.model_dump(), "batches": batches}, path)


def command(name: str, batches: Path, args: argparse.Namespace) -> Command:
    """What starts a contender."""
    options = ["--size", args.size, "--threads", str(args.threads), "--worker", name, str(batches)]
    return [sys.executable, __file__, "speed", *options], CONTENDERS[name][2]


def work(name: str, path: Path, size: str) -> None:
    """A contender's process."""
    stored = torch.load(path, weights_only=True)
    turns = Turns([Batch(**batch) for batch in stored["batches"]])
    torch.manual_seed(SEED)
    model = build(SIZES[size].model, Vocabulary(**stored["vocabulary"]))
    assert isinstance(model, Decoder)
    who, precision, _ = CONTENDERS[name]
    if who == "tripel":
        tripel_loop(model, turns, precision, rate=RATE, label_smoothing=0.0)
    else:
        train_transformers(model, turns, precision)


def train_transformers(model: Decoder, turns: Turns, precision: Precision) -> None:
    """GPT2LMHeadModel with our model's sizes and weights, and a cross-entropy."""
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(GPT2Config(**gpt2_format.express(model.config, model.vocabulary)))
    theirs.load_state_dict(gpt2_format.rename_to_theirs(model.config, dict(model.state_dict())), strict=False)
    theirs.tie_weights()
    del model

    def loss_of(batch: Batch) -> Tensor:
        logits = theirs(input_ids=batch.inputs["ids_BT"], use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), batch.targets_BT.flatten())

    plain_loop(theirs, turns, precision, loss_of, rate=RATE)


if __name__ == "__main__":
    main()
