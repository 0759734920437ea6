"""How the contenders of a training benchmark, a process each, take their updates in turn.

Only the standard library is imported here: a contender may run in a Python that has nothing of this project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# What tripel.training.allocator asks of a running process, for one that is being started.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
Command = tuple[list[str], dict[str, str]]  # what is run, and what its environment has beside ours


class Turns:
    """Gives out batches, one update's at a time, when the parent asks for updates on standard input; when they are done
    answers with a line of JSON. A trainer takes it for its loader. Of a batch it needs to know only `tokens`."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.parameters, self.loss = 0, 0.0  # told by the loop that trains

    def __iter__(self) -> Iterator[list[Any]]:
        batches = iter(self.batches)
        for line in sys.stdin:
            mine = [next(batches) for _ in range(int(line))]
            start, cpu_start = time.perf_counter(), time.process_time()
            for batch in mine:
                yield [batch]
            answer = {
                "seconds": time.perf_counter() - start,
                "cpu_seconds": time.process_time() - cpu_start,
                "tokens": sum(batch.tokens for batch in mine),
                "loss": self.loss,
                "parameters": self.parameters,
            }
            print(json.dumps(answer), flush=True)
        sys.exit()


@dataclass
class Race:
    """By contender: tokens a second in each round, and a second of processor time, which other work on the machine changes
    less; the loss of the last update, and the number of parameters."""

    speeds: dict[str, list[float]] = field(default_factory=dict)
    cpu_speeds: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)


def race(
    commands: Mapping[str, Command], *, rounds: int, n_steps: int, seconds: float = 0.0, unit: str = "tokens"
) -> Race:
    """Start a process for each contender, which trains on the batches of its `Turns`; each makes n_steps updates to warm
    up, then n_steps in every round, while the others wait. So (rounds + 1) * n_steps batches are needed. With seconds a
    turn has as many updates as the slowest makes in that time, for which batches must not end."""
    workers = {
        name: subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )
        for name, (command, environment) in commands.items()
    }
    found, slowest = Race(), 0.0
    for name, worker in workers.items():
        warm_up = _turn(name, worker, n_steps)
        found.parameters[name] = warm_up["parameters"]
        slowest = max(slowest, _turn(name, worker, n_steps)["seconds"] if seconds else 0.0)
    if seconds:
        n_steps = max(1, round(n_steps * seconds / slowest))
    for done in range(rounds):
        for name, worker in workers.items():
            result = _turn(name, worker, n_steps)
            found.speeds.setdefault(name, []).append(result["tokens"] / result["seconds"])
            found.cpu_speeds.setdefault(name, []).append(result["tokens"] / result["cpu_seconds"])
            found.losses[name] = result["loss"]
        latest = ", ".join(f"{name} {speed[-1]:,.0f}" for name, speed in found.speeds.items())
        print(f"round {done + 1}: {latest} {unit}/s", file=sys.stderr)
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()
    return found


def _turn(name: str, worker: subprocess.Popen[str], n_steps: int) -> dict[str, Any]:
    """Let a worker make n_steps updates."""
    assert worker.stdin is not None and worker.stdout is not None
    try:
        print(n_steps, file=worker.stdin, flush=True)
        line = worker.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        raise SystemExit(f"{name} ended before its turn was over")
    return json.loads(line)
