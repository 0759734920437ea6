"""How the contenders of a training benchmark, a process each, take their updates in turn.

Only the standard library is imported here: a contender may run in a Python that has nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any


class Turns:
    """Gives out batches, one update's at a time, when the parent asks for updates on standard input; when they are done
    answers with a line of JSON. A trainer takes it for its loader. Of a batch it needs to know only `tokens`."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches
        self.parameters, self.loss = 0, 0.0  # told by the loop that trains

    def __iter__(self) -> Iterator[list[Any]]:
        batches = iter(self.batches)
        for line in sys.stdin:
            mine = [next(batches) for _ in range(int(line))]
            start = time.perf_counter()
            for batch in mine:
                yield [batch]
            answer = {
                "seconds": time.perf_counter() - start,
                "tokens": sum(batch.tokens for batch in mine),
                "loss": self.loss,
                "parameters": self.parameters,
            }
            print(json.dumps(answer), flush=True)
        sys.exit()
