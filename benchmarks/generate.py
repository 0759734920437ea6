"""Speed of text completion against transformers' generate and llama.cpp on the same weights, in one interleaved run.

    python benchmarks/generate.py [--rounds 5] [--tokens 128] [--prompt 16] [--batch 16] [--threads 2] [--write]

GPT-2 small (124 million parameters) with random weights completes prompts of random ids greedily (ids in, ids out), one
text at a time and a batch of them. Every contender takes its turn in every round; ratios are made within a round and
reported as medians with their spread. The share of the ids that equal those of the first contender shows that all
compute the same model; after a first difference, which rounding alone can make, two texts go apart. Needs the packages
`transformers` and, for llama.cpp, `llama-cpp-python` and `gguf`; a contender whose package is missing is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common import machine, markdown_table, spread, versions, write_result
from rich.console import Console

from tripel.decode.complete import CompletionConfig, complete
from tripel.decode.prepare import Engine, Precision, prepare_decoder
from tripel.models.build import build
from tripel.models.catalog import gpt2
from tripel.models.config import Vocabulary
from tripel.models.decoder import Decoder

VOCABULARY = Vocabulary(source_size=50257, target_size=50257, pad_id=50256, eos_id=50256, start_id=50256)
Ids = list[list[int]]


@dataclass(frozen=True)
class Contender:
    """complete(prompts, n_tokens) gives the n_tokens ids that follow each prompt."""

    name: str
    precision: str
    complete: Callable[[Ids, int], Ids]


def main() -> None:
    arguments = _arguments()
    console = Console(stderr=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    model = build(gpt2(), VOCABULARY).eval()
    prompts = torch.randint(1000, 50000, (arguments.batch, arguments.prompt)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        contenders = [*_ours(model), *_transformers(model, console), *_llama(model, Path(folder), arguments, console)]
        chosen = [contender for contender in contenders if arguments.only in contender.name]
        timings, agreement = _timings(chosen, prompts, arguments, console)
    table = _table(chosen, timings, agreement, arguments.batch)
    print(table)
    if arguments.write:
        write_result("generate", title="Completion speed, GPT-2 124M", table=table, notes=_notes(arguments, contenders))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="new tokens of every text")
    parser.add_argument("--prompt", type=int, default=16, help="tokens of every prompt")
    parser.add_argument("--batch", type=int, default=16, help="texts of the batch")
    parser.add_argument("--threads", type=int, default=2, help="threads of every contender")
    parser.add_argument("--only", default="", help="only contenders whose name contains this")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/generate.md")
    return parser.parse_args()


def _ours(model: Decoder) -> list[Contender]:
    def contender(name: str, engine: Engine, precision: Precision) -> Contender:
        prepared = prepare_decoder(model, engine, precision)

        def run(prompts: Ids, n_tokens: int) -> Ids:
            config = CompletionConfig(sample=False, max_new_tokens=n_tokens)
            answers = complete(prepared, prompts, config, workers=1)
            return [answer[0].ids[len(prompt) :] for prompt, answer in zip(prompts, answers, strict=True)]

        return Contender(name, precision, run)

    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
    native = [contender(f"tripel, native {precision}", "native", precision) for precision in precisions]
    return [*native, contender("tripel, PyTorch only", "torch", "float32")]


def _transformers(model: Decoder, console: Console) -> list[Contender]:
    if not _installed("transformers", console):
        return []
    import transformers

    from tripel.hf import gpt2 as layout

    config = transformers.GPT2Config(**layout.express(model.config, model.vocabulary))
    config.pad_token_id = config.eos_token_id = None

    def contender(dtype: torch.dtype, precision: str) -> Contender:
        theirs = transformers.GPT2LMHeadModel(config)
        theirs.load_state_dict(layout.rename_to_theirs(model.config, dict(model.state_dict())), strict=False)
        theirs.tie_weights()
        theirs = theirs.to(dtype).eval()

        @torch.inference_mode()
        def run(prompts: Ids, n_tokens: int) -> Ids:
            ids = torch.tensor(prompts)
            options = {"max_new_tokens": n_tokens, "min_new_tokens": n_tokens, "do_sample": False}
            out = theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)
            return out[:, ids.shape[1] :].tolist()

        return Contender(f"transformers {precision}", precision, run)

    return [contender(torch.float32, "float32"), contender(torch.bfloat16, "bfloat16")]


def _llama(model: Decoder, folder: Path, arguments: argparse.Namespace, console: Console) -> list[Contender]:
    if not (_installed("llama_cpp", console) and _installed("gguf", console)):
        return []
    from peer_llama import Llama, write_gguf

    contenders = []
    for kind, precision in (("f32", "float32"), ("f16", "bfloat16"), ("q8_0", "int8")):
        path = folder / f"{kind}.gguf"
        write_gguf(model, path, kind)
        length = arguments.prompt + arguments.tokens
        llama = Llama(path, length, arguments.threads, (1, arguments.batch))
        contenders.append(Contender(f"llama.cpp {kind}", precision, llama.complete))
    return contenders


def _installed(package: str, console: Console) -> bool:
    found = importlib.util.find_spec(package) is not None
    if not found:
        console.print(f"{package} is not installed: its contenders are left out")
    return found


def _timings(
    contenders: Sequence[Contender], prompts: Ids, arguments: argparse.Namespace, console: Console
) -> tuple[dict[tuple[str, int], list[float]], dict[str, float]]:
    """New tokens a second by round, for every contender and number of texts, and the share of equal ids."""
    timings: dict[tuple[str, int], list[float]] = {}
    agreement: dict[str, float] = {}
    reference = contenders[0].complete(prompts, arguments.tokens)
    for contender in contenders:  # also to warm up
        answers = contender.complete(prompts, arguments.tokens)
        pairs = [pair for a, b in zip(reference, answers, strict=True) for pair in zip(a, b, strict=True)]
        agreement[contender.name] = sum(a == b for a, b in pairs) / len(pairs)
        contender.complete(prompts[:1], 8)
    for number in range(arguments.rounds):
        for size in (1, arguments.batch):
            for contender in contenders:
                started = time.perf_counter()
                answers = contender.complete(prompts[:size], arguments.tokens)
                seconds = time.perf_counter() - started
                assert all(len(answer) == arguments.tokens for answer in answers)
                timings.setdefault((contender.name, size), []).append(size * arguments.tokens / seconds)
        console.print(f"round {number + 1} of {arguments.rounds}")
    return timings, agreement


def _table(
    contenders: Sequence[Contender],
    timings: dict[tuple[str, int], list[float]],
    agreement: dict[str, float],
    batch: int,
) -> str:
    """One row per setting and contender; the ratio is against ours in the peer's precision."""
    native = {contender.precision: contender.name for contender in reversed(contenders) if "native" in contender.name}
    rows = []
    for size in (1, batch):
        for contender in contenders:
            values = timings[contender.name, size]
            ours = timings.get((native.get(contender.precision, ""), size), [])
            ratio = spread([a / b for a, b in zip(ours, values, strict=True)], ".2f") if ours else "-"
            texts = "one stream" if size == 1 else f"batch {size}"
            share = f"{agreement[contender.name]:.0%}"
            rows.append([texts, contender.name, f"{spread(values, '.0f')} tokens/s", ratio, share])
    header = ["texts", "contender", "speed", "tripel native, same precision, is faster by", "ids as float32"]
    return markdown_table(header, rows)


def _notes(arguments: argparse.Namespace, contenders: Sequence[Contender]) -> list[str]:
    command = f"python benchmarks/generate.py --rounds {arguments.rounds} --tokens {arguments.tokens}"
    command += f" --prompt {arguments.prompt} --batch {arguments.batch} --threads {arguments.threads} --write"
    names = " ".join(contender.name for contender in contenders)
    packages = ["torch"] + ["transformers"] * ("transformers" in names) + ["llama-cpp-python"] * ("llama" in names)
    return [
        f"Medians (smallest to largest) of {arguments.rounds} interleaved rounds; GPT-2 small with random weights, the "
        f"same for all; {arguments.prompt} tokens of prompt, which count in the time, and {arguments.tokens} new ones; "
        f"greedy; {arguments.threads} threads each. llama.cpp's f16 stands against bfloat16, its q8_0 against int8; tripel "
        "in PyTorch only is what is used where there is no compiler.",
        f"Command: `{command}`",
        f"Machine: {machine()}",
        f"Versions: {versions(*packages)}",
    ]


if __name__ == "__main__":
    main()
