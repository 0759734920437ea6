"""What a run says while it trains: metrics.jsonl, TensorBoard where installed, and lines or a progress bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tripel.storage import reporting_disk_errors
from tripel.tasks.baseline import Baseline

_THREE_PLACES = ("valid_loss", "accuracy", "macro_f1")
_MEDIUM, _WIDE = 72, 110  # columns of a terminal from which the bar shows more


class RunLog:
    """Writes one JSON object a line to metrics.jsonl and tells the person.

    quiet: say nothing (ranks other than 0, tests). On a terminal a live bar with plain lines above it; elsewhere lines.
    resume_step: lines of metrics.jsonl after this step are dropped: the resumed run writes them again. baseline: what
    counting alone scores, shown beside each validation's loss. unit: what is counted as tokens, for the speed that is shown.
    """

    def __init__(
        self,
        run: Path,
        n_steps: int,
        *,
        console: Console,
        quiet: bool = False,
        resume_step: int | None = None,
        baseline: Baseline | None = None,
        unit: str = "tok",
    ) -> None:
        self._baseline, self._unit = baseline, unit
        self._path, self._n_steps, self._quiet, self._console = run / "metrics.jsonl", n_steps, quiet, console
        self._file = None
        self._board: Any = None
        self._bar: Progress | None = None
        if quiet:
            return
        kept = self._earlier_lines(resume_step) if resume_step is not None else []
        with reporting_disk_errors(self._path, 0):
            self._path.write_text("".join(kept), encoding="utf-8")
            self._file = self._path.open("a", encoding="utf-8")
            self._board = _summary_writer(run / "tensorboard", resume_step)
        if console.is_terminal:
            self._bar = Progress(*_columns(console.width), console=console)
            self._task = self._bar.add_task("training", total=n_steps, completed=resume_step or 0, note="")
            self._bar.start()

    def say(self, message: str) -> None:
        """A line for the person."""
        if not self._quiet:
            self._console.print(message, highlight=False, soft_wrap=True, markup=False)

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def write(self, record: dict[str, float]) -> None:
        """One line of metrics.jsonl, and the same numbers to TensorBoard. record has `step`.

        Raises CheckpointError when the disk takes no more.
        """
        if self._file is None:
            return
        with reporting_disk_errors(self._path, 0):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            if self._board is not None:
                for name, value in record.items():
                    if name != "step":
                        self._board.add_scalar(name, value, int(record["step"]))

    def training(self, record: dict[str, float], seconds_left: float) -> None:
        """A training record: written, and shown as a line or beside the bar."""
        self.write(record)
        loss, speed = f"loss {record['train_loss']:.3f}", f"{record['tokens_per_second']:,.0f} {self._unit}/s"
        note = f"{loss}  lr {record['lr']:.2e}  grad {record['grad_norm']:.2f}  {speed}"
        if self._bar is not None:
            fits = self._console.width >= _WIDE
            self._bar.update(self._task, completed=int(record["step"]), note=note if fits else f"{loss} {speed}")
        else:
            self.say(f"step {int(record['step']):>6}/{self._n_steps}  {note}  left {_clock(seconds_left)}")

    def validation(self, record: dict[str, float], best: bool) -> None:
        """A validation record: written and shown."""
        self.write(record)
        shown = "  ".join(
            f"{name} {value:.3f}" if name in _THREE_PLACES else f"{name} {value:.2f}"
            for name, value in record.items()
            if name not in ("step", "tokens", "seconds")
        )
        self.say(
            f"step {int(record['step']):>6}  validation  {shown}{'  (best)' if best else ''}{self._beside(record)}"
        )

    def _beside(self, record: dict[str, float]) -> str:
        """How the loss compares with counting alone."""
        baseline = self._baseline
        if baseline is None or "valid_loss" not in record:
            return ""
        if record["valid_loss"] >= baseline.loss:
            return f"  no better than {baseline.name} (loss {baseline.loss:.3f})"
        return f"  {baseline.name}: loss {baseline.loss:.3f}"

    def sample(self, source: str, answer: str) -> None:
        """What the model makes of an example, to be seen getting better."""
        self.say(f"             for example  {source}  ->  {answer}")

    def close(self) -> None:
        """Flush and stop drawing."""
        if self._bar is not None:
            self._bar.stop()
        with reporting_disk_errors(self._path, 0):
            if self._file is not None:
                self._file.close()
            if self._board is not None:
                self._board.close()

    def _earlier_lines(self, resume_step: int) -> list[str]:
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if _step_of(line) <= resume_step]


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    """What the bar shows in a terminal of that width: the count, the time left and the note always."""
    note = TextColumn("{task.fields[note]}")
    if width < _MEDIUM:
        return MofNCompleteColumn(), TimeRemainingColumn(compact=True), note
    task, bar, left = TextColumn("[bold]{task.description}"), BarColumn(bar_width=None), TextColumn("left")
    if width < _WIDE:
        return task, bar, MofNCompleteColumn(), left, TimeRemainingColumn(), note
    return task, bar, MofNCompleteColumn(), TimeElapsedColumn(), left, TimeRemainingColumn(), note


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # a line cut short by a crash
        return float("inf")


def _summary_writer(folder: Path, resume_step: int | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an extra: `pip install tripel[tensorboard]`
        return None
    return SummaryWriter(str(folder), purge_step=None if resume_step is None else resume_step + 1)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
