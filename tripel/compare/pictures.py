"""Curves as pictures: a line for each contestant, named where it ends, in colours that colour-blind people tell apart."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tripel.compare.comparison import Picture, Results
from tripel.compare.words import count, duration, size, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, the lightest of them last, and each with a mark of its own for print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_MARKS = "osD^vPX"
_DASHES = ("-", "--", ":", "-.")
_SIZE = (6.0, 3.7)
_LEAST_GAP = 11.0
_NAME_DISTANCE = 10.0
_TICKS: dict[str, Callable[[float], str]] = {
    "bytes": size,
    "time": duration,
    "count": count,
    "share": lambda x: f"{100 * x:.4g} %",
}


def colour_of(place: int) -> str:
    """Of the contestant in this place."""
    return COLOURS[place % len(COLOURS)]


def png(picture: Picture, results: Results) -> bytes:
    """The picture as a PNG, for paper and slides."""
    return _drawn(picture, results, "png", dpi=200)


def svg(picture: Picture, results: Results) -> bytes:
    """The picture as an SVG that needs no fonts, for a page."""
    return _drawn(picture, results, "svg", metadata={"Date": None})


def _drawn(picture: Picture, results: Results, form: Literal["png", "svg"], **options: Any) -> bytes:
    from matplotlib import rc_context  # slow to import, and no window is wanted
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "path", "font.family": "DejaVu Sans", "axes.unicode_minus": True}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        _draw(figure, picture, results)
        canvas.draw()  # the layout is known from here on
        figure.set_layout_engine("none")
        _name_lines(figure.axes[0], picture, results)
        file = io.BytesIO()
        figure.savefig(file, format=form, facecolor="white", **options)
    return file.getvalue()


def _draw(figure: Figure, picture: Picture, results: Results) -> None:
    axes = figure.subplots()
    for place, result in enumerate(results):
        curve = result.curves[picture.name]
        few = len(curve.x) <= 40
        axes.plot(
            curve.x, curve.y, color=colour_of(place), linewidth=1.8, markersize=4 if few else 0,
            marker=_MARKS[place % len(_MARKS)], linestyle=_DASHES[place // len(COLOURS) % len(_DASHES)],
            markeredgewidth=0, clip_on=False,
        )  # fmt: skip
    axes.set_title(picture.title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(picture.x_label, fontsize=9.5)
    axes.set_ylabel(picture.y_label, fontsize=9.5)
    if picture.log_x:
        axes.set_xscale("log")
    if picture.log_y:
        axes.set_yscale("log")
    points = sorted({x for result in results for x in result.curves[picture.name].x})
    _ticks(axes, "x", picture.x_unit, _places(picture, points) if picture.log_x else None)
    _ticks(axes, "y", picture.y_unit, _round_numbers if picture.log_y else None)
    axes.tick_params(labelsize=8.5, length=3, color="#888888")
    axes.grid(True, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    # Room on the right for the names, which are placed when the layout is known.
    for result in results:
        axes.annotate(
            result.name, (1.0, 0.5), (_NAME_DISTANCE, 0.0), xycoords="axes fraction", textcoords="offset points",
            alpha=0.0, fontsize=9, fontweight="bold",
        )  # fmt: skip


def _places(picture: Picture, points: list[float]) -> Callable[[float, float], list[float]]:
    """What says where a logarithmic axis from low to high has its numbers. points: of the curves."""
    if picture.x_ticks == "points":
        return lambda low, high: points
    return _powers_of_two if picture.x_ticks == "twos" else _round_numbers


def _ticks(axes: Axes, which: Literal["x", "y"], unit: str, log: Callable[[float, float], list[float]] | None) -> None:
    """Numbers with their units. log: of a logarithmic axis, the places of its numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    form = _TICKS.get(unit)
    if log is not None:
        axis.set_major_locator(FixedLocator(log(*axis.get_view_interval())))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda x, _: (form or whole)(x)))
        return
    if unit == "time":
        low, high = axis.get_view_interval()
        axis.set_major_locator(FixedLocator(_clock_times(max(low, 0.0), high)))
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if form is not None or max(map(abs, axis.get_view_interval())) >= 1000:
        axis.set_major_formatter(FuncFormatter(lambda x, _: "0" if x == 0 else (form or count)(x)))


def _powers_of_two(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log2(max(low, 1e-9)) - 1e-9), math.floor(math.log2(high) + 1e-9)
    step = max(1, (last - first) // 8 + 1)
    return [2.0**power for power in range(first, last + 1, step)]


def _round_numbers(low: float, high: float) -> list[float]:
    """One, two and five of each power of ten; only the powers where these would be many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 1e3 else (1,)
    return [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]


def _clock_times(low: float, high: float) -> list[float]:
    """Whole seconds, minutes or hours, about six of them."""
    steps = [f * unit for unit in (0.01, 0.1, 1) for f in (1, 2, 5)] + [
        f * unit for unit in (1, 60, 3600, 36000) for f in (10, 15, 20, 30, 60, 120, 300)
    ]
    step = next((step for step in sorted(steps) if (high - low) / step <= 7), high - low)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _name_lines(axes: Axes, picture: Picture, results: Results) -> None:
    """Each line's name beside its end, moved apart where ends are close."""
    ends = [(r.curves[picture.name].x[-1], r.curves[picture.name].y[-1]) for r in results]
    at = [axes.transData.transform(end) for end in ends]
    points = 72.0 / axes.figure.dpi
    right = float(axes.transAxes.transform((1.0, 0.0))[0])
    low, high = (float(axes.transAxes.transform((0.0, y))[1]) * points for y in (0.0, 1.0))
    heights = _apart([float(y) * points for _, y in at], low, high)
    for place, (result, end, (x, y), height) in enumerate(zip(results, ends, at, heights, strict=True)):
        across = (right - float(x)) * points + _NAME_DISTANCE
        up = height - float(y) * points
        far = across > 14.0 or abs(up) > 4.0
        line = {
            "arrowstyle": "-",
            "color": colour_of(place),
            "linewidth": 0.8,
            "linestyle": ":",
            "alpha": 0.6,
            "shrinkA": 0,
            "shrinkB": 3,
        }
        axes.annotate(
            result.name, end, (across, up), textcoords="offset points", va="center", ha="left", fontsize=9,
            color=colour_of(place), fontweight="bold", annotation_clip=False, arrowprops=line if far else None,
        )  # fmt: skip


def _apart(heights: Sequence[float], low: float, high: float) -> list[float]:
    """The heights, moved as little as needed to be _LEAST_GAP apart between low and high."""
    gap = min(_LEAST_GAP, (high - low) / max(len(heights) - 1, 1))
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = [heights[i] for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed[-1] = min(placed[-1], high)
    for i in reversed(range(len(placed) - 1)):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    shift = max(low - placed[0], 0.0)
    spread = dict(zip(order, placed, strict=True))
    return [max(spread[i], low) if shift else spread[i] for i in range(len(heights))]
