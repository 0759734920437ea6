"""How all contestants are doing while they train: a live table on a terminal, lines in a log."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tripel.compare.contest import LiveMetric
from tripel.compare.contestant import Contestant
from tripel.compare.words import whole


class Display:
    """Context manager. title: what they train for, in words. unit: what runs count as tokens."""

    def __init__(
        self, console: Console, contestants: Sequence[Contestant], title: str, live: Sequence[LiveMetric], unit: str
    ) -> None:
        self._console, self._contestants, self._title = console, contestants, title
        self._metrics, self._unit = live, unit
        self._live = (
            Live(console=console, get_renderable=self._table, auto_refresh=False) if console.is_terminal else None
        )

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def refresh(self, contestant: Contestant, validated: bool) -> None:
        """A contestant has had its turn."""
        if self._live is not None:
            self._live.refresh()
        elif validated:
            say(self._console, f"{contestant.name:<{self._widest}}  {'  '.join(self._line(contestant))}")

    @property
    def _widest(self) -> int:
        return max(len(contestant.name) for contestant in self._contestants)

    def _line(self, contestant: Contestant) -> list[str]:
        step, valid = contestant.run.trainer.progress.step, contestant.valid_record
        shown = [f"{m.title} {valid[m.metric]:{m.form}}" for m in self._metrics if m.metric in valid]
        train = contestant.train_record.get("train_loss")
        return [
            f"{contestant.share:4.0%} of {self._title}",
            f"step {step}",
            f"{whole(contestant.tokens_per_second)} {self._unit}/s",
            *([f"train loss {train:.3f}"] if train is not None else []),
            *shown,
        ]

    def _table(self) -> Table:
        titles = (
            "",
            "budget",
            "",
            "step",
            f"{self._unit}/s",
            "train loss",
            *(metric.title for metric in self._metrics),
        )
        table = Table(box=None, title=self._title, title_justify="left", title_style="bold", pad_edge=False)
        for title in titles:
            table.add_column(title, justify="left" if not title else "right", no_wrap=True)
        for contestant in self._contestants:
            train, valid = contestant.train_record.get("train_loss"), contestant.valid_record
            table.add_row(
                contestant.name,
                f"{contestant.share:.0%}",
                _bar(contestant.share),
                whole(contestant.run.trainer.progress.step),
                whole(contestant.tokens_per_second),
                "-" if train is None else f"{train:.3f}",
                *(f"{valid[m.metric]:{m.form}}" if m.metric in valid else "-" for m in self._metrics),
            )
        return table


def say(console: Console, message: str) -> None:
    """A line for the person."""
    console.print(message, highlight=False, soft_wrap=True, markup=False)


def _bar(share: float, width: int = 12) -> str:
    full = round(share * width)
    return "━" * full + "─" * (width - full)
