"""What the benchmarks share: the machine, the versions, medians with their spread, and tables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from turns import Race

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Processor, cores and system."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return (
        f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def versions(*packages: str) -> str:
    """Installed versions, `name 1.2` each."""
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


def spread(values: Sequence[float], style: str) -> str:
    """Median (smallest to largest), each in this format."""
    return f"{statistics.median(values):{style}} ({min(values):{style}} to {max(values):{style}})"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its columns aligned, so that it can also be read in a terminal."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(f"{x:{w}}" for x, w in zip(line, widths, strict=True)) + " |" for line in lines)


def speed_table(race: Race) -> str:
    """A row for each contender of a training benchmark; ratios within a round, to those whose names begin with tripel."""
    ours = [name for name in race.speeds if name.startswith("tripel")]
    header = ["", "tokens/s", "last loss", "parameters", *(f"{name} is faster by" for name in ours)]
    rows = [
        [
            name,
            spread(speed, ",.0f"),
            f"{race.losses[name]:.3f}",
            f"{race.parameters[name]:,}",
            *(spread([a / b for a, b in zip(race.speeds[mine], speed, strict=True)], ".2f") for mine in ours),
        ]
        for name, speed in race.speeds.items()
    ]
    return markdown_table(header, rows)


def write_result(name: str, *, title: str, table: str, notes: Sequence[str]) -> None:
    """benchmarks/results/NAME.md."""
    RESULTS.mkdir(exist_ok=True)
    text = "\n\n".join([f"# {title}", table, *notes]) + "\n"
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
