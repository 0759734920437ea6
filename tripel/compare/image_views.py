"""How compared image classifiers are shown: the table's rows, the pictures, and a sentence for each, made of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tripel.compare.comparison import Column, Curve, Picture, Result, Results, Views
from tripel.compare.words import count, duration, listed, percent, whole

_SIZES = "accuracy_examples"
_RISEN = 1.05


def _by_images(results: Results) -> str:
    says = "The share of validation pictures that is classified rightly, against the pictures seen in training."
    return f"{says} {_where_all_are(results, 'accuracy_images', lambda x: f'{whole(x)} pictures')}"


def _by_flops(results: Results) -> str:
    says = (
        "The same against the compute of training: the products and convolutions of forward and backward pass and of the "
        "optimizer, counted while they ran."
    )
    return f"{says} {_where_all_are(results, 'accuracy_flops', _flops)} {_cost(results, 'accuracy_flops', _flops)}"


def _by_time(results: Results) -> str:
    says = "The same while the seconds of training go by (validation does not count), in turns on this machine."
    return f"{says} {_cost(results, 'accuracy_seconds', duration)}"


def _by_size(results: Results) -> str:
    says = (
        "Trained anew on a share of the training pictures, all seeing equally many at each share, and validated on the "
        "same pictures: whose curve is higher on the left needs less data, whose is steeper has more use for them."
    )
    parts = []
    for result in results:
        curve = result.curves[_SIZES]
        steps = [f"{percent(y)} with {whole(x)}" for x, y in zip(curve.x, curve.y, strict=True)]
        parts.append(f"{result.name}: {', '.join(steps)}")
    return f"{says} {'; '.join(parts)}."


def _loss_by_images(results: Results) -> str:
    losses = {result.name: result.curves["valid_loss_images"].y for result in results}
    last = listed([f"{name} at {y[-1]:.3f}" for name, y in losses.items()])
    rising = [f"{name} was at {min(y):.3f} before" for name, y in losses.items() if y[-1] > _RISEN * min(y)]
    turned = (
        f" A loss that rises again is of a model too sure of what it gets wrong: {listed(rising)}." if rising else ""
    )
    return f"The loss on the validation pictures, in nats, against the pictures seen. In the end {last}.{turned}"


def _loss_by_flops(results: Results) -> str:
    curves = {result.name: result.curves["valid_loss_flops"] for result in results}
    level = max(min(curve.y) for curve in curves.values())
    turned = {name: Curve(x=curve.x, y=tuple(-y for y in curve.y)) for name, curve in curves.items()}
    return f"The loss against the compute of training. {_spent(turned, -level, f'{level:.3f} nats', _flops)}"


def _where_all_are(results: Results, name: str, form: Callable[[float], str]) -> str:
    """Who is ahead at the last x that all curves reach."""
    curves = {result.name: result.curves[name] for result in results}
    first, last = max(curve.x[0] for curve in curves.values()), min(curve.x[-1] for curve in curves.values())
    if first > last:
        return "The curves have no part in common."
    at_last = {name: float(np.interp(last, curve.x, curve.y)) for name, curve in curves.items()}
    order = sorted(at_last, key=at_last.__getitem__, reverse=True)
    shown = listed([f"{name} at {percent(at_last[name])}" for name in order])
    return f"After {form(last)}, the most that all have spent, {shown}."


def _cost(results: Results, name: str, form: Callable[[float], str]) -> str:
    """What each spent until it was as good as all of them became, the thriftiest first."""
    curves = {result.name: result.curves[name] for result in results}
    level = min(max(curve.y) for curve in curves.values())
    return _spent(curves, level, percent(level), form)


def _spent(curves: Mapping[str, Curve], level: float, shown: str, form: Callable[[float], str]) -> str:
    spent = {name: _first_at(curve, level) for name, curve in curves.items()}
    (first, least), *others = sorted(spent.items(), key=lambda item: item[1])
    said = [f"{first} took {form(least)}", *(f"{name} {form(x)} ({x / least:.1f} times that)" for name, x in others)]
    return f"To reach {shown}, which all did, {listed(said)}."


def _first_at(curve: Curve, level: float) -> float:
    """The x at which a curve first reaches a level that it does reach, on the line between two of its points."""
    place = next(i for i, y in enumerate(curve.y) if y >= level)
    if place == 0:
        return curve.x[0]
    (x0, x1), (y0, y1) = curve.x[place - 1 : place + 1], curve.y[place - 1 : place + 1]
    return x0 + (x1 - x0) * (level - y0) / (y1 - y0)


def _flops(value: float) -> str:
    return f"{count(value)}FLOPs" if value >= 1000 else f"{value:.0f} FLOPs"


def _number(name: str) -> Callable[[Result], float | None]:
    return lambda result: result.numbers.get(name)


def _size_columns(results: Results) -> tuple[Column, ...]:
    """A row for each size of the training set."""
    sizes = {x for result in results if _SIZES in result.curves for x in result.curves[_SIZES].x}
    return tuple(Column(f"accuracy with {whole(x)} pictures", _at_size(x), percent, "high") for x in sorted(sizes))


def _at_size(x: float) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        curve = result.curves.get(_SIZES)
        return dict(zip(curve.x, curve.y, strict=True)).get(x) if curve is not None else None

    return value


VIEWS = Views(
    columns=(
        Column("parameters", _number("parameters"), whole),
        Column("training, seconds", _number("training_seconds"), lambda x: f"{x:,.1f}"),
        Column("updates", _number("updates"), whole),
        Column("pictures seen", _number("training_images"), whole),
        Column("training FLOPs, counted", _number("training_flops"), _flops),
        Column("... of a picture", _number("training_flops_per_image"), _flops),
        Column("... of an update besides", _number("flops_per_update"), _flops),
        Column("inference FLOPs of a picture", _number("inference_flops_per_image"), _flops, "low"),
        Column("training pictures/s", _number("training_images_per_second"), whole, "high"),
        Column("inference pictures/s", _number("inference_images_per_second"), whole, "high"),
        Column("accuracy", _number("accuracy"), percent, "high"),
        Column("macro-F1", _number("macro_f1"), lambda x: f"{x:.4f}", "high"),
        Column("validation loss, nats", _number("valid_loss"), lambda x: f"{x:.4f}", "low"),
        Column("calibration error", _number("calibration_error"), lambda x: f"{x:.4f}", "low"),
    ),
    columns_of=_size_columns,
    pictures=(
        Picture("accuracy_images", "Accuracy against pictures seen", "pictures seen in training", "accuracy", _by_images,
                y_unit="share"),
        Picture("accuracy_flops", "Accuracy against compute", "FLOPs of training", "accuracy", _by_flops,
                log_x=True, x_ticks="tens", x_unit="count", y_unit="share"),
        Picture(_SIZES, "Accuracy against the size of the training set", "training pictures", "accuracy", _by_size,
                log_x=True, x_ticks="points", y_unit="share"),
        Picture("accuracy_seconds", "Accuracy against time", "training time", "accuracy", _by_time,
                x_unit="time", y_unit="share"),
        Picture("valid_loss_images", "Validation loss against pictures seen", "pictures seen in training",
                "nats per picture", _loss_by_images),
        Picture("valid_loss_flops", "Validation loss against compute", "FLOPs of training", "nats per picture",
                _loss_by_flops, log_x=True, x_ticks="tens", x_unit="count"),
    ),
    use="tripel classify {folder} picture.png",
)  # fmt: skip
