"""Speed of image classifiers, training and in use, beside transformers' ViT and ResNet of equal size and weights.

    python benchmarks/train_images.py [--kind vit resnet] [--mode training inference] [--precision float32 bfloat16]
        [--rounds 5] [--seconds 3] [--threads 2] [--only NAME] [--write]

Every contender is a process of its own that reads the same pictures when it is its turn, beginning with the same weights.
Speeds are pictures a second; ratios are made within a round and reported as medians with their spread.

vit: patches of 4, width 128, 6 layers, 4 heads, on grey pictures of 28 x 28. resnet: ResNet-18 with its stages 32 to 256
wide behind one 3x3 convolution of stride 1. transformers' ResNet begins with a 7x7 convolution and a maximum, which make
a picture 4 times smaller: here it is given the 3x3 convolution instead, so that both do the same arithmetic.
training: this project's trainer; a plain loop with fused AdamW and gradient clipping. inference: logits of pictures.
Needs the package `transformers`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from common import machine, markdown_table, spread, versions, write_result
from loops import plain_loop, tripel_loop
from peer_images import Peer
from torch import Tensor
from turns import ALLOCATOR, Command, Race, Turns, race

from tripel.data.batch import Batch
from tripel.decode.prepare_images import prepare_images
from tripel.models.build import build, count_parameters
from tripel.models.config import ImageVocabulary, ResNetConfig, ViTConfig
from tripel.models.vision import VisionModel
from tripel.nn import AttentionConfig
from tripel.training import allocator
from tripel.training.precision import Precision

SIDE, CLASSES, BATCH, N_BATCHES = 28, 10, 128, 16
RATE, SEED = 5e-4, 1
MODES, PRECISIONS = ("training", "inference"), ("float32", "bfloat16")
VOCABULARY = ImageVocabulary(labels=tuple("0123456789"), mean=(0.5,), std=(0.5,))
MODELS: dict[str, ViTConfig | ResNetConfig] = {
    "vit": ViTConfig(
        image_size=SIDE, channels=1, patch_size=4, n_layers=6, d_model=128, d_ff=512, mixer=AttentionConfig(n_heads=4)
    ),
    "resnet": ResNetConfig(
        image_size=SIDE, channels=1, stem="small", stem_width=32, widths=(32, 64, 128, 256), zero_last=False
    ),
}


@dataclass(frozen=True)
class Contender:
    """autocast: bfloat16 by torch.autocast, not by bfloat16 weights. last: channels-last memory."""

    who: str
    precision: Precision
    autocast: bool = False
    last: bool = False
    allocator: bool = True
    kinds: tuple[str, ...] = ("vit", "resnet")
    modes: tuple[str, ...] = ("training", "inference")

    @property
    def name(self) -> str:
        marks = [f"{self.who} {self.precision}" + (" autocast" if self.autocast else "")]
        marks += ["channels last"] * self.last
        marks += ["allocator set"] * (self.allocator and self.who != "tripel")
        return ", ".join(marks)


PEER = "transformers"
CONTENDERS = [
    Contender("tripel", "float32"),
    Contender("tripel", "bfloat16"),
    Contender(PEER, "float32", allocator=False, modes=("training",)),
    Contender(PEER, "float32"),
    Contender(PEER, "float32", last=True, kinds=("resnet",)),
    Contender(PEER, "bfloat16", autocast=True, allocator=False, modes=("training",)),
    Contender(PEER, "bfloat16", autocast=True),
    Contender(PEER, "bfloat16", autocast=True, last=True, kinds=("resnet",)),
    Contender(PEER, "bfloat16", modes=("inference",)),
    Contender(PEER, "bfloat16", last=True, kinds=("resnet",), modes=("inference",)),
]


def main() -> None:
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.worker:
        kind, mode, name = args.worker
        work(kind, mode, next(c for c in CONTENDERS if c.name == name))
        return
    tables = []
    for kind, mode in itertools.product(args.kind, args.mode):
        tables.append(f"## {kind}, {mode}\n\n{compare(kind, mode, args)}")
        print(tables[-1] + "\n")
    if args.write:
        title = "Image classifiers: pictures a second, training and in use"
        write_result("train_images", title=title, table="\n\n".join(tables), notes=_notes(args))


def compare(kind: str, mode: str, args: argparse.Namespace) -> str:
    """One table: a kind of model, training or in use."""
    chosen = [
        c
        for c in CONTENDERS
        if kind in c.kinds and mode in c.modes and c.precision in args.precision and args.only in c.name
    ]
    commands = {c.name: _command(c, kind, mode, args.threads) for c in chosen}
    found = race(commands, rounds=args.rounds, n_steps=2, seconds=args.seconds, unit="images")
    return _table(chosen, found)


def _command(contender: Contender, kind: str, mode: str, threads: int) -> Command:
    options = ["--threads", str(threads), "--worker", kind, mode, contender.name]
    environment = ALLOCATOR if contender.who != "tripel" and contender.allocator else {}
    return [sys.executable, __file__, *options], environment


def _table(chosen: list[Contender], found: Race) -> str:
    def ratios(ours: Contender, precision: str | None, speeds: dict[str, list[float]]) -> str:
        """To the fastest peer in this precision, or in any."""
        peers = [c.name for c in chosen if c.who == PEER and precision in (None, c.precision)]
        if ours.who == PEER or not peers:
            return ""
        best = max(peers, key=lambda name: statistics.median(speeds[name]))
        return spread([a / b for a, b in zip(speeds[ours.name], speeds[best], strict=True)], ".2f")

    rows = [
        [
            c.name,
            spread(found.speeds[c.name], ",.0f"),
            ratios(c, c.precision, found.speeds),
            ratios(c, c.precision, found.cpu_speeds),
            ratios(c, None, found.cpu_speeds),
            f"{found.losses[c.name]:.4f}",
            f"{found.parameters[c.name]:,}",
        ]
        for c in chosen
    ]
    header = ["", "images/s", "times the best peer in its precision", "the same in processor time"]
    header += ["times the best peer of all, in processor time", "last loss", "parameters"]
    return markdown_table(header, rows)


def _notes(args: argparse.Namespace) -> list[str]:
    return [
        f"Median (smallest to largest) of {args.rounds} interleaved rounds of about {args.seconds:g} s a turn; ratios "
        f"within a round, to the peer with the best median. Batches of {BATCH} grey pictures of {SIDE} x {SIDE}, random "
        "pixels; all begin with the same weights and see the same batches in the same order, so that their last losses "
        "agree. vit: patches of 4, width 128, 6 layers, 4 heads, inner width 512. resnet: ResNet-18, 32 to 256 wide, one "
        "3x3 convolution of stride 1 as stem; transformers' is given the same stem in place of its own. Training: AdamW "
        f"(the peer's fused), clipping; {args.threads or torch.get_num_threads()} threads.",
        f"Machine: {machine()}; load average over the last 15 minutes {os.getloadavg()[2]:.1f}, this run included. "
        f"Versions: {versions('torch', 'transformers')}.",
        f"Command: `python benchmarks/train_images.py {' '.join(sys.argv[1:])}`",
    ]


# A contender's process.


def work(kind: str, mode: str, contender: Contender) -> None:
    """Read pictures in turn: learn from them, or say what they are."""
    random = torch.Generator().manual_seed(SEED)
    turns = Turns(itertools.cycle([_batch(random) for _ in range(N_BATCHES)]))
    torch.manual_seed(SEED)
    model = build(MODELS[kind], VOCABULARY)
    assert isinstance(model, VisionModel)
    turns.parameters = count_parameters(model)
    if contender.who == "tripel":
        allocator.keep_memory()
        if mode == "training":
            tripel_loop(model, turns, contender.precision, rate=RATE, label_smoothing=0.0)
        _read(prepare_images(model.eval(), "auto", contender.precision), turns)
    half = contender.precision == "bfloat16" and not contender.autocast
    theirs = Peer(model, autocast=contender.autocast, half=half, last=contender.last)
    del model
    if mode == "inference":
        _read(theirs.eval(), turns)

    def loss_of(batch: Batch) -> Tensor:
        return F.cross_entropy(theirs(batch.inputs["pixels_BCHW"]), batch.targets_BT)

    plain_loop(theirs, turns, contender.precision, loss_of, rate=RATE, fused=True)


def _batch(random: torch.Generator) -> Batch:
    pixels_BCHW = torch.rand(BATCH, 1, SIDE, SIDE, generator=random).mul_(2).sub_(1)
    targets_B = torch.randint(CLASSES, (BATCH,), generator=random)
    return Batch(inputs={"pixels_BCHW": pixels_BCHW}, targets_BT=targets_B, count=BATCH, tokens=BATCH)


def _read(logits: Callable[[Tensor], Tensor], turns: Turns) -> None:
    with torch.inference_mode():
        for (batch,) in turns:
            turns.loss = F.cross_entropy(logits(batch.inputs["pixels_BCHW"]).float(), batch.targets_BT).item()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--mode", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of the slowest contender's turn in a round")
    parser.add_argument("--threads", type=int, default=0, help="of every contender; 0: PyTorch's choice")
    parser.add_argument("--only", default="", help="only contenders whose name contains this")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/train_images.md")
    parser.add_argument("--worker", nargs=3, metavar=("KIND", "MODE", "CONTENDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
