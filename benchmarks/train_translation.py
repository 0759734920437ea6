"""Training speed of a translation model against a plain loop over transformers' MarianMTModel and against Eole, in one
interleaved run.

    python benchmarks/train_translation.py [--size tiny|base] [--rounds 7] [--steps 6] [--threads 0] [--peer-python PYTHON]

Every contender is a process of its own (glibc reads its allocator settings when a process starts) that takes the same
updates on the same batches of Multi30k when it is its turn. Speeds are source and target tokens a second, padding not
counted; ratios are made within a round and reported as medians with their spread. Needs multi30k/train.en and
multi30k/train.de under TRIPEL_DATA, or a connection to fetch them, and the package `transformers`.

Eole takes part where the package `eole` is installed: in this Python, or in that of --peer-python, which need not have
Tripel. fairseq does not: its last release, 0.12.2, cannot be imported in Python 3.11 or newer (its dataclasses have
mutable defaults, a ValueError there), and this project needs 3.11.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from common import machine, speed_table, versions, write_result
from loops import plain_loop, tripel_loop
from peer_eole import DIFFERENCES
from torch import Tensor
from turns import ALLOCATOR, Command, Race, Turns, race

from tripel.data.batch import IGNORE, Batch
from tripel.data.checks import DataConfig
from tripel.data.corpus import encode_corpus
from tripel.data.loader import Loader
from tripel.data.parallel import load_splits
from tripel.models.build import build
from tripel.models.catalog import CATALOG
from tripel.models.config import EncoderDecoderConfig, Vocabulary
from tripel.tasks.translation import collate, vocabulary_of
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import TokenizerConfig
from tripel.training.precision import Precision

VOCABULARY, TOKENS, SMOOTHING, RATE, SEED = 10_000, 4096, 0.1, 5e-4, 1
# name: (who, precision, environment)
CONTENDERS: dict[str, tuple[str, Precision, dict[str, str]]] = {
    "tripel bfloat16": ("tripel", "bfloat16", {}),
    "tripel float32": ("tripel", "float32", {}),
    "transformers float32": ("transformers", "float32", {}),
    "transformers float32, allocator set": ("transformers", "float32", ALLOCATOR),
    "transformers bfloat16 autocast": ("transformers", "bfloat16", {}),
    "transformers bfloat16 autocast, allocator set": ("transformers", "bfloat16", ALLOCATOR),
    "eole float32": ("eole", "float32", {}),
    "eole float32, allocator set": ("eole", "float32", ALLOCATOR),
    "eole bfloat16 autocast": ("eole", "bfloat16", {}),
    "eole bfloat16 autocast, allocator set": ("eole", "bfloat16", ALLOCATOR),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", "base"], default="tiny")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="updates of each contender in a round")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PYTHON", help="the one that runs Eole")
    parser.add_argument("--worker", nargs=2, metavar=("CONTENDER", "BATCHES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.worker:
        work(args.worker[0], Path(args.worker[1]), args.size)
        return
    if shutil.which(args.peer_python) is None:
        parser.error(f"--peer-python: {args.peer_python} is not a program that can be run")
    args.eole = eole_versions(args.peer_python)
    if not args.eole:
        print(f"Eole is left out: {args.peer_python} has no package `eole` (see --peer-python)", file=sys.stderr)
        args.only = [name for name in args.only if CONTENDERS[name][0] != "eole"]
    if not args.only:
        parser.error("--only: no contender is left")
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / "batches.pt"
        prepare(batches, args.size, args.rounds * args.steps + args.steps)
        commands = {name: command(name, batches, args) for name in args.only}
        report(args, race(commands, rounds=args.rounds, n_steps=args.steps))


def eole_versions(python: str) -> str:
    """What Eole would run with in this Python, `eole 1.2, torch 3.4`; empty where it is not installed."""
    probe = "from importlib.metadata import version as v; print(f\"eole {v('eole')}, torch {v('torch')}\")"
    return subprocess.run([python, "-c", probe], capture_output=True, text=True).stdout.strip()


def prepare(path: Path, size: str, n: int) -> None:
    """All that the contenders need: sizes, settings and n updates' batches, of about 4,096 target tokens and one length
    bucket each, as the trainer makes them."""
    splits = load_splits(DataConfig(train="multi30k/train"), "en", "de")
    config = TokenizerConfig(vocab_size=VOCABULARY)
    tokenizers = TokenizerPair.train(config, splits.train.sources, splits.train.targets)
    corpus, vocabulary = encode_corpus(splits.train, tokenizers), vocabulary_of(tokenizers)
    loader = Loader(
        lambda epoch: corpus,
        lambda corpus, rows: collate(corpus, rows, vocabulary),
        tokens_per_step=TOKENS,
        micro_tokens=TOKENS,
        seed=SEED,
    )
    steps = iter(loader)
    updates = [vars(batch) for _ in range(n) for batch in next(steps)]
    steps.close()  # type: ignore[attr-defined]
    torch.save(
        {
            "vocabulary": vocabulary.model_dump(),
            "model": CATALOG[f"transformer_{size}"]().model_dump(),
            "settings": {"rate": RATE, "smoothing": SMOOTHING, "seed": SEED},
            "batches": updates,
        },
        path,
    )


def command(name: str, batches: Path, args: argparse.Namespace) -> Command:
    """What starts a contender."""
    who, precision, environment = CONTENDERS[name]
    if who == "eole":
        worker = Path(__file__).with_name("peer_eole.py")
        started = [args.peer_python, str(worker), str(batches), "--precision", precision]
    else:
        started = [sys.executable, __file__, "--worker", name, str(batches), "--size", args.size]
    return [*started, "--threads", str(args.threads)], environment


def report(args: argparse.Namespace, found: Race) -> None:
    table = speed_table(found)
    print(table)
    threads = args.threads or torch.get_num_threads()
    options = shlex.join(sys.argv[1:]).replace(args.peer_python, "PYTHON")  # no path of one machine in a table
    with_eole = any(CONTENDERS[name][0] == "eole" for name in found.speeds)
    write_result(
        f"train_translation{'' if args.size == 'tiny' else f'_{args.size}'}",
        title=f"Training a transformer_{args.size}: source and target tokens a second",
        table=table,
        notes=[
            f"Median (smallest to largest) of {args.rounds} interleaved rounds of {args.steps} updates; ratios within "
            f"a round. Multi30k en-de, shared BPE of {VOCABULARY:,}, about {TOKENS:,} target tokens an update, label "
            f"smoothing {SMOOTHING}, AdamW, gradient clipping, {threads} threads.",
            *([DIFFERENCES] if with_eole else []),
            "fairseq's last release, 0.12.2, cannot be imported in Python 3.11 or newer, which Tripel needs.",
            f"Machine: {machine()}; load average over the last 15 minutes {os.getloadavg()[2]:.1f}, this run included. "
            f"Versions: {versions('torch', 'transformers')}{f'; {args.eole}' if with_eole else ''}.",
            f"Command: `python benchmarks/train_translation.py {options}`",
        ],
    )


def work(name: str, path: Path, size: str) -> None:
    """A contender's process."""
    stored = torch.load(path, weights_only=True)
    vocabulary, config = Vocabulary(**stored["vocabulary"]), CATALOG[f"transformer_{size}"]()
    torch.manual_seed(SEED)
    who, precision, _ = CONTENDERS[name]
    turns = Turns([Batch(**batch) for batch in stored["batches"]])
    if who == "tripel":
        tripel_loop(build(config, vocabulary), turns, precision, rate=RATE, label_smoothing=SMOOTHING)
    else:
        train_transformers(config, vocabulary, precision, turns)


def train_transformers(
    config: EncoderDecoderConfig, vocabulary: Vocabulary, precision: Precision, turns: Turns
) -> None:
    """MarianMTModel of these sizes with a cross-entropy."""
    from transformers import MarianConfig, MarianMTModel

    n_heads = config.encoder.mixer.n_heads
    model = MarianMTModel(
        MarianConfig(
            vocab_size=vocabulary.target_size,
            d_model=config.d_model,
            encoder_layers=config.encoder.n_layers,
            decoder_layers=config.decoder.n_layers,
            encoder_attention_heads=n_heads,
            decoder_attention_heads=n_heads,
            encoder_ffn_dim=config.d_ff,
            decoder_ffn_dim=config.d_ff,
            dropout=config.dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            activation_function="relu",
            scale_embedding=True,
            share_encoder_decoder_embeddings=True,
            pad_token_id=vocabulary.pad_id,
            eos_token_id=vocabulary.eos_id,
            decoder_start_token_id=vocabulary.start_id,
        )
    )

    def loss_of(batch: Batch) -> Tensor:
        source, target, valid = (batch.inputs[x] for x in ("source_BS", "target_BT", "source_valid_BS"))
        logits = model(input_ids=source, attention_mask=valid, decoder_input_ids=target).logits
        return F.cross_entropy(
            logits.flatten(0, 1), batch.targets_BT.flatten(), ignore_index=IGNORE, label_smoothing=SMOOTHING
        )

    plain_loop(model, turns, precision, loss_of, rate=RATE)


if __name__ == "__main__":
    main()
