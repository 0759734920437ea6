"""Time and memory of a very long text by the recurrent and convolutional language models.

    python benchmarks/generate_long.py [--tokens 100000] [--compared 1000] [--threads 1] [--catalog] [--write]

The models of the recipes shakespeare-rnn, -lstm and -conv (with --catalog the much larger rnn_lm, lstm_lm and conv_lm),
with random weights and a vocabulary of 256 bytes, write one text each by drawing every token. Then the state after that
text and that of a fresh text of 1,000 tokens take their steps in turn, so that a machine that is busy with other things
slows both alike. Memory is the process's greatest resident size after the first 1,000 tokens and at the end, and what the
state's tensors take.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Iterator

import torch
from common import machine, markdown_table, spread, versions, write_result
from rich.console import Console

from tripel.decode.prepare import prepare_decoder
from tripel.models.build import build, count_parameters
from tripel.models.catalog import conv_lm, lstm_lm, rnn_lm
from tripel.models.config import DecoderConfig, Vocabulary
from tripel.models.decoder import Decoder, DecoderState
from tripel.recipe import Recipe

VOCABULARY = Vocabulary(source_size=256, target_size=256, pad_id=0, eos_id=0, start_id=0)
CATALOG = {"rnn_lm": rnn_lm, "lstm_lm": lstm_lm, "conv_lm": conv_lm}
RECIPES = ("shakespeare-rnn", "shakespeare-lstm", "shakespeare-conv")
EARLY = 1000


class Text:
    """One text being written."""

    def __init__(self, model: Decoder) -> None:
        self.model, self.state = model, model.init_state(1, 1)
        self.ids_11 = torch.tensor([[VOCABULARY.start_id]])

    @torch.inference_mode()
    def write(self, n_tokens: int) -> Iterator[float]:
        """Write n_tokens, telling the seconds that each took."""
        for _ in range(n_tokens):
            started = time.perf_counter()
            logits_1V = self.model.step(self.ids_11, self.state)[:, : VOCABULARY.target_size]
            self.ids_11 = logits_1V.softmax(-1).multinomial(1)
            yield time.perf_counter() - started


def main() -> None:
    arguments = _arguments()
    console = Console(stderr=True)
    torch.set_num_threads(arguments.threads)
    models = {name: make() for name, make in CATALOG.items()} if arguments.catalog else _of_recipes()
    rows = [_measured(name, config, arguments, console) for name, config in models.items()]
    header = [
        "model", "parameters", f"after {EARLY:,} tokens", f"after {arguments.tokens:,} tokens", "late / early",
        f"peak memory at {EARLY:,}", "peak memory at the end", "state",
    ]  # fmt: skip
    table = markdown_table(header, rows)
    print(table)
    if arguments.write:
        write_result("generate_long", title="Very long texts", table=table, notes=_notes(arguments))


def _of_recipes() -> dict[str, DecoderConfig]:
    configs = {name: Recipe.load(name).model for name in RECIPES}
    return {name: config for name, config in configs.items() if isinstance(config, DecoderConfig)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000, help="length of the text")
    parser.add_argument("--compared", type=int, default=1000, help="tokens by which early and late are compared")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--catalog", action="store_true", help="the catalog's models instead of the recipes'")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/generate_long.md")
    return parser.parse_args()


def _measured(name: str, config: DecoderConfig, arguments: argparse.Namespace, console: Console) -> list[str]:
    torch.manual_seed(1)
    original = build(config, VOCABULARY).eval()
    model = prepare_decoder(original, "torch")
    assert isinstance(model, Decoder)
    late, early = Text(model), Text(model)
    for _ in early.write(EARLY):
        pass
    before = _peak_mb()
    for n, _ in enumerate(late.write(arguments.tokens), start=1):
        if n % 10_000 == 0:
            console.print(f"{name}: {n:,} tokens, {_peak_mb():.1f} MB")
    after = _peak_mb()
    pairs = list(zip(early.write(arguments.compared), late.write(arguments.compared), strict=True))
    ratios = statistics.quantiles([b / a for a, b in pairs], n=4)
    times = [f"{statistics.median(x) * 1000:.3f} ms a token" for x in zip(*pairs, strict=True)]
    assert _state_bytes(early.state) == _state_bytes(late.state)
    state = f"{_state_bytes(late.state) / 1024:.1f} KiB"
    parameters = f"{count_parameters(original) / 1e6:.1f} M"
    memory = [f"{before:.1f} MB", f"{after:.1f} MB"]
    return [name, parameters, *times, spread(ratios, ".2f"), *memory, state]


def _peak_mb() -> float:
    """The greatest resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _state_bytes(state: DecoderState) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.tensors().values())


def _notes(arguments: argparse.Namespace) -> list[str]:
    command = f"python benchmarks/generate_long.py --tokens {arguments.tokens} --compared {arguments.compared}"
    command += " --catalog" if arguments.catalog else ""
    return [
        f"Random weights, a vocabulary of 256 bytes, every token drawn; {arguments.threads} thread(s). Times are medians of "
        f"{arguments.compared} steps, taken in turn by a text of {EARLY:,} tokens and one of {arguments.tokens:,}; "
        "their ratio is the median of the steps' ratios (first to third quartile). The models are measured one after "
        "another in one process, so each begins with the memory of those before it.",
        f"Command: `{command} --threads {arguments.threads} --write`",
        f"Machine: {machine()}",
        f"Versions: {versions('torch')}",
    ]


if __name__ == "__main__":
    main()
