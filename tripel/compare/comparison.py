"""What came of a comparison: every number, curve and sample, as a table, as JSON and as one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from tripel.config import Config
from tripel.errors import CheckpointError

FILE, PAGE = "comparison.json", "comparison.html"


class Curve(Config):
    """Points of a line, in order of x."""

    x: tuple[float, ...]
    y: tuple[float, ...]


class Result(Config):
    """What was measured of one contestant. recipe: the name or path that was given; folder: its run folder.

    model: its family and sizes in a line. numbers, curves: by the names that the task's columns and pictures use.
    sample: what it makes of Comparison.prompt.
    """

    name: str
    recipe: str
    family: str
    model: str
    folder: str
    numbers: dict[str, int | float]
    curves: dict[str, Curve]
    sample: str = ""


class Comparison(Config):
    """Contestants of one task that had the same data and the same budget. results: in the order they were given in.

    budget: in words. notes: what was made equal, and what still differs. facts: machine and versions by name.
    """

    task: str
    data: str
    valid: str
    budget: str
    matched: bool
    prompt: str
    command: str
    date: str
    facts: dict[str, str]
    notes: tuple[str, ...]
    results: tuple[Result, ...]

    @property
    def table(self) -> Table:
        """A row for each number, a column for each contestant, the best of a row in bold."""
        table = Table("", title=f"{self.data}: {self.budget}", title_justify="left", title_style="bold")
        for result in self.results:
            table.add_column(result.name, justify="right", overflow="fold")
        for column in self.columns:
            best = column.best_of(self.results)
            cells = [f"[bold]{column.show(r)}[/]" if i in best else column.show(r) for i, r in enumerate(self.results)]
            table.add_row(column.title, *cells)
        return table

    @property
    def columns(self) -> tuple[Column, ...]:
        """The numbers of the table: those that any contestant has."""
        views = self._views()
        columns = (*views.columns, *views.columns_of(self.results))
        return tuple(c for c in columns if any(c.value(result) is not None for result in self.results))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Those whose curve every contestant has."""
        return tuple(p for p in self._views().pictures if all(p.name in result.curves for result in self.results))

    def to_json(self) -> str:
        """All of it as JSON; from_json gives it back."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """The inverse of to_json. Raises CheckpointError for another text."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CheckpointError(
                "this is not a comparison",
                given=str(error.errors()[0]["msg"]),
                expected=f"the {FILE} that `tripel compare` wrote",
                mend="compare again: finished runs are used as they are",
            ) from None

    def to_html(self) -> str:
        """One page with everything in it: table, pictures, samples, and how to repeat it."""
        from tripel.compare.page import page

        return page(self, self._views())

    def save(self, out: str | Path) -> Path:
        """Write comparison.json, the pictures and comparison.html into a folder; the page's path. Raises CheckpointError."""
        from tripel.compare.pictures import png
        from tripel.storage import atomic_write

        out = Path(out)
        for picture in self.pictures:
            atomic_write(out / f"{picture.name}.png", png(picture, self.results))
        atomic_write(out / FILE, self.to_json() + "\n")
        atomic_write(out / PAGE, self.to_html())
        return out / PAGE

    def _repr_html_(self) -> str:
        from tripel.compare.page import fragment

        return fragment(self, self._views())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table

    def _views(self) -> Views:
        from tripel.compare.contests import views_of

        return views_of(self.task)


Results = Sequence[Result]


@dataclass(frozen=True)
class Column:
    """A number of the table. value: of a result, None where it has none. best: which end of it is good, if one is."""

    title: str
    value: Callable[[Result], float | None]
    form: Callable[[float], str]
    best: Literal["low", "high"] | None = None

    def show(self, result: Result) -> str:
        """The number as text."""
        value = self.value(result)
        return "-" if value is None else self.form(value)

    def best_of(self, results: Results) -> set[int]:
        """The places of the results that are best, as far as can be read; none where all are the same."""
        shown = [self.show(result) for result in results]
        values = {i: value for i, result in enumerate(results) if (value := self.value(result)) is not None}
        if self.best is None or len({shown[i] for i in values}) < 2:
            return set()
        winner = (min if self.best == "low" else max)(values, key=values.__getitem__)
        return {i for i in values if shown[i] == shown[winner]}


@dataclass(frozen=True)
class Picture:
    """A picture of one curve of every result. name: of the curve and of the file. sentence: what the picture shows.

    x_ticks: on a logarithmic axis, powers of two, one, two and five of each ten, or where the points are.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    sentence: Callable[[Results], str]
    log_x: bool = False
    log_y: bool = False
    x_unit: Literal["number", "time", "count"] = "number"
    y_unit: Literal["number", "bytes", "time", "share"] = "number"
    x_ticks: Literal["twos", "tens", "points"] = "twos"


@dataclass(frozen=True)
class Views:
    """How the results of a task are shown. columns_of: more columns, which depend on the results. sample_title: what its
    samples are. use: the command that uses a model, with {folder} in it."""

    columns: tuple[Column, ...]
    pictures: tuple[Picture, ...]
    use: str
    sample_title: str = ""
    columns_of: Callable[[Results], tuple[Column, ...]] = lambda results: ()
