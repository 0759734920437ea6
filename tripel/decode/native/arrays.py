"""Numbers on their way to the libraries and back."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, TypeVar

from tripel.decode.candidates import Candidates, Wish

Number = TypeVar("Number", int, float)


def address(numbers: array[Any]) -> int:
    """Where the numbers are; they must outlive the call that is given it."""
    return numbers.buffer_info()[0]


def found(wish: Wish, search: Callable[[int, int, int, int, int, int], None]) -> Candidates:
    """What the wish asks for. search(n, log_p, n_groups, values, rows, tokens) fills the last three; all but n and
    n_groups are addresses."""
    k, size = wish.n, wish.n * wish.n_groups
    log_p, values = array("f", wish.log_p), array("f", bytes(4 * size))
    rows, tokens = array("i", bytes(4 * size)), array("i", bytes(4 * size))
    search(k, address(log_p), wish.n_groups, address(values), address(rows), address(tokens))
    return Candidates(_grouped(values.tolist(), k), _grouped(rows.tolist(), k), _grouped(tokens.tolist(), k))


def _grouped(numbers: list[Number], k: int) -> list[list[Number]]:
    return [numbers[i : i + k] for i in range(0, len(numbers), k)]
