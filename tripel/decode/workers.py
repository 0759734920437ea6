"""Several batches at once: threads that each compute with one.

For all but the largest models a second thread inside an operation costs more in waking up than it saves; whole batches
side by side have nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers(device: torch.device) -> int:
    """As many as PyTorch was told to use threads; one where the device is not the CPU."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def each(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) for all items, in their order; begun in that order by `workers` threads."""
    items = list(items)
    if workers <= 1 or len(items) <= 1:
        yield from ((item, function(item)) for item in items)
        return
    n_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from zip(items, pool.map(function, items), strict=True)
    finally:
        torch.set_num_threads(n_threads)  # the setting of MKL is one for all threads
