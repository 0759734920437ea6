"""A text larger than memory: generated, encoded, cut into training windows and trained on under a limit on memory.

    python benchmarks/large_corpus.py                        # 2 GB of text, 1 GiB of memory, some minutes
    python benchmarks/large_corpus.py --gigabytes 0.05       # a try

The work is done in a process of its own that the system refuses more than --limit-mib of data (RLIMIT_DATA: heap and
private mappings). What it really used, the mapped pages of the token file included, is read from /proc, hence Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import yaml
from common import machine, markdown_table, versions, write_result

UPDATES = 30
_WORDS = 20_000
_WORDS_AT_ONCE = 200_000
_LETTERS = np.array(list("etaoinshrdlcumwfgypbvk"))


def generate(path: Path, n_bytes: int, seed: int = 1) -> int:
    """Write about n_bytes of made-up sentences, with word frequencies as in language (Zipf); return how many."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(_LETTERS, size=rng.integers(1, 11))) for _ in range(_WORDS)]
    endings = np.array([" ", " ", " ", " ", " ", " ", ", ", ". ", ".\n"])
    shares = 1.0 / np.arange(1, _WORDS + 1)
    table = np.array(words)
    written = 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        while written < n_bytes:
            chosen = rng.choice(_WORDS, size=_WORDS_AT_ONCE, p=shares / shares.sum())
            text = "".join(np.char.add(table[chosen], rng.choice(endings, size=_WORDS_AT_ONCE)).tolist())
            written += file.write(text[: n_bytes - written])
    return written


def work(path: Path, cache: Path, n_steps: int, limit_mib: int) -> dict[str, float]:
    """Check, encode and read windows of a text; return times in seconds and peaks in MiB."""
    from tripel.data import TextDataConfig, encode_stream, load_texts
    from tripel.data.windows import WindowLoader
    from tripel.text import Tokenizer, TokenizerConfig

    peak = _AnonymousPeak()
    before = peak.now()
    resource.setrlimit(resource.RLIMIT_DATA, (limit_mib << 20, limit_mib << 20))
    start = time.perf_counter()
    splits = load_texts(TextDataConfig(train=str(path), valid_share=0.001))
    checked = time.perf_counter()
    stream = encode_stream(splits.train, Tokenizer.train(TokenizerConfig(kind="byte"), []), cache_dir=cache)
    encoded = time.perf_counter()
    loader = WindowLoader(stream.ids, context=256, tokens_per_step=8192, micro_tokens=8192, seed=1)
    steps_per_epoch = loader.plan(0).n_steps
    n_tokens = sum(batch.count for step in islice(loader, n_steps) for batch in step)
    read = time.perf_counter()
    losses = train(path, cache / "run")
    trained = time.perf_counter()
    return {
        "tokens": stream.n_tokens,
        "steps_per_epoch": steps_per_epoch,
        "check_s": checked - start,
        "encode_s": encoded - checked,
        "steps_s": read - encoded,
        "read_tokens": n_tokens,
        "train_s": trained - read,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "imports_mib": before,
        "anonymous_mib": peak.stop(),
        "resident_mib": _status("VmHWM"),
    }


def train(path: Path, out: Path) -> list[float]:
    """Train a small GPT on the text with everything that `tripel train` does; the losses of its updates."""
    from rich.console import Console

    from tripel.recipe import Recipe
    from tripel.run import train

    tree = {
        "task": {"kind": "next-token"},
        "data": {"train": str(path), "valid_share": 0.0001},
        "tokenizer": {"kind": "byte"},
        "model": {
            "n_layers": 2,
            "d_model": 64,
            "d_ff": 256,
            "max_len": 256,
            "mixer": {"kind": "attention", "n_heads": 2},
        },
        "optim": {"lr": 3e-3, "warmup_steps": 5},
        "train": {"steps": UPDATES, "tokens_per_step": 8192, "valid_every": UPDATES, "log_every": 1},
    }
    train(Recipe.from_yaml(yaml.safe_dump(tree)), out, console=Console(stderr=True))
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [record["train_loss"] for record in records if "train_loss" in record]


class _AnonymousPeak:
    """Looks often how much memory of its own the process has."""

    def __init__(self) -> None:
        self._peak, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def now(self) -> float:
        """MiB at present."""
        return _status("RssAnon")

    def stop(self) -> float:
        """MiB at most."""
        self._stop.set()
        self._thread.join()
        return max(self._peak, self.now())

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._peak = max(self._peak, self.now())


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=200, help="steps of 8192 tokens to read")
    parser.add_argument("--limit-mib", type=int, default=1024)
    parser.add_argument(
        "--folder", help="where the text and its tokens go for the time of the run; needs three times its size"
    )
    parser.add_argument("--worker", nargs=2, metavar=("TEXT", "CACHE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        found = work(Path(options.worker[0]), Path(options.worker[1]), options.steps, options.limit_mib)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        text = Path(name) / "corpus.txt"
        n_bytes = generate(text, int(options.gigabytes * 1e9))
        command = [sys.executable, __file__, "--worker", str(text), name]
        command += ["--steps", str(options.steps), "--limit-mib", str(options.limit_mib)]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": name},
        )
        if done.returncode:
            sys.exit(f"the work failed under {options.limit_mib} MiB")
        report(n_bytes, json.loads(done.stdout), options.limit_mib)


def report(n_bytes: int, found: dict[str, float], limit_mib: int) -> None:
    """Print the table and keep it."""
    rows = [
        (
            "text",
            f"{n_bytes / 1e9:.2f} GB, {found['tokens']:,.0f} tokens, {found['steps_per_epoch']:,.0f} steps an epoch",
        ),
        ("limit on memory (RLIMIT_DATA)", f"{limit_mib} MiB"),
        ("own memory at most", f"{found['anonymous_mib']:.0f} MiB, of which imports {found['imports_mib']:.0f} MiB"),
        ("resident at most, mapped pages included", f"{found['resident_mib']:.0f} MiB"),
        (
            "checking (three passes for the share)",
            f"{found['check_s']:.1f} s, {3 * n_bytes / found['check_s'] / 1e6:.0f} MB/s",
        ),
        ("encoding", f"{found['encode_s']:.1f} s, {n_bytes / found['encode_s'] / 1e6:.0f} MB/s"),
        (
            f"`tripel train`, {UPDATES} updates of 8,192 tokens, with all it does before",
            f"{found['train_s']:.0f} s; loss from {found['first_loss']:.2f} to {found['last_loss']:.2f}",
        ),
        ("reading windows in random order", f"{found['read_tokens'] / found['steps_s']:,.0f} tokens/s"),
    ]
    table = markdown_table(("what", "measured"), rows)
    print(table)
    write_result(
        "large_corpus",
        title="A text larger than the memory it is given",
        table=table,
        notes=[f"{machine()}; {versions('torch', 'numpy', 'tokenizers')}", "`python benchmarks/large_corpus.py`"],
    )


if __name__ == "__main__":
    main()
