"""How compared language models are shown: the table's rows, the pictures, and a sentence for each, made of its numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tripel.compare.comparison import Column, Picture, Result, Results, Views
from tripel.compare.words import count, duration, listed, size, whole


def _loss_by_time(results: Results) -> str:
    last = {result.name: _last(result, "loss_seconds") for result in results}
    return (
        "The loss on text that is not trained on, while the seconds of training go by (validation does not count). "
        f"Where the curves end, {_extremes(last)}."
    )


def _loss_by_tokens(results: Results) -> str:
    says = "The same losses against the text read so far: who learns most from each token, whatever that costs in time."
    curves = {result.name: result.curves["loss_tokens"] for result in results}
    first, last = max(curve.x[0] for curve in curves.values()), min(curve.x[-1] for curve in curves.values())
    if first > last:
        return f"{says} No number of tokens is common to all curves."
    at_last = {name: float(np.interp(last, curve.x, curve.y)) for name, curve in curves.items()}
    return f"{says} After {count(last)} tokens, the most that all have read, {_extremes(at_last)}."


def _position(results: Results) -> str:
    falls = [
        f"{r.name} from {r.curves['position'].y[0]:.2f} to {r.curves['position'].y[-1]:.2f}"
        f" (window of {whole(r.numbers['context'])})"
        for r in results
    ]
    return (
        "The loss of a token by its place in the window that is read: the further right, the more text the model knows. "
        f"A curve that still falls far to the right makes use of long context. From first to last: {listed(falls)}."
    )


def _memory(results: Results) -> str:
    return (
        "What a model keeps in memory of one text of this length, to go on with it (counted, in float32). "
        f"{_growth(results, 'memory', size)}."
    )


def _token_time(results: Results) -> str:
    return (
        "The time to choose and read one more token of one text, greedily, on this machine, by the engine that "
        f"completes text. {_growth(results, 'token_time', duration)}."
    )


def _growth(results: Results, curve: str, form: Callable[[float], str]) -> str:
    parts = []
    for result in results:
        x, y = result.curves[curve].x, result.curves[curve].y
        change = f"{form(y[0])} at {whole(x[0])} tokens"
        if len(x) > 1:
            change += f", {form(y[-1])} at {whole(x[-1])}"
        parts.append(f"{result.name}: {change}")
    return "; ".join(parts)


def _last(result: Result, curve: str) -> float:
    return result.curves[curve].y[-1]


def _extremes(losses: dict[str, float]) -> str:
    """Who is lowest and who is highest, in nats per token."""
    lowest, highest = min(losses.values()), max(losses.values())
    shown = {name: f"{value:.3f}" for name, value in losses.items()}
    if f"{lowest:.3f}" == f"{highest:.3f}":
        return f"all are at {lowest:.3f} nats per token"
    low = listed([name for name in shown if shown[name] == f"{lowest:.3f}"])
    high = listed([name for name in shown if shown[name] == f"{highest:.3f}"])
    return f"the lowest is {low} at {lowest:.3f} nats per token, the highest {high} at {highest:.3f}"


def _number(name: str) -> Callable[[Result], float | None]:
    return lambda result: result.numbers.get(name)


VIEWS = Views(
    columns=(
        Column("parameters", _number("parameters"), whole),
        Column("context, tokens", _number("context"), whole),
        Column("training, seconds", _number("training_seconds"), lambda x: f"{x:,.1f}"),
        Column("updates", _number("updates"), whole),
        Column("tokens read", _number("training_tokens"), count),
        Column("training tokens/s", _number("training_tokens_per_second"), whole, "high"),
        Column("validation loss, nats", _number("valid_loss"), lambda x: f"{x:.4f}", "low"),
        Column("perplexity", _number("perplexity"), lambda x: f"{x:,.3f}", "low"),
        Column("bits per byte", _number("bits_per_byte"), lambda x: f"{x:.4f}", "low"),
        Column("generated tokens/s", _number("generation_tokens_per_second"), whole, "high"),
        Column("memory of a text", _number("state_bytes"), size),
        Column("... of so many tokens", _number("state_tokens"), whole),
    ),
    pictures=(
        Picture(
            "loss_seconds",
            "Validation loss against time",
            "training time",
            "nats per token",
            _loss_by_time,
            x_unit="time",
        ),
        Picture(
            "loss_tokens", "Validation loss against text read", "training tokens", "nats per token", _loss_by_tokens
        ),
        Picture(
            "position",
            "Loss by position in the window",
            "position in the window, tokens",
            "nats per token",
            _position,
            log_x=True,
        ),
        Picture(
            "memory",
            "Memory against context",
            "tokens of the text",
            "memory of the state",
            _memory,
            log_x=True,
            log_y=True,
            y_unit="bytes",
        ),
        Picture(
            "token_time",
            "Time per token against context",
            "tokens of the text",
            "time per token",
            _token_time,
            log_x=True,
            log_y=True,
            y_unit="time",
        ),
    ),
    use='tripel complete {folder} "..."',
    sample_title="drawn at temperature 0.8, seed 1",
)
