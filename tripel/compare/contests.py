"""The tasks that can be compared."""

from __future__ import annotations

from tripel.compare.comparison import Views
from tripel.compare.contest import Contest
from tripel.compare.next_token import TextContest
from tripel.errors import InputError

CONTESTS: dict[str, type[Contest]] = {"next-token": TextContest}


def contest_of(task: str) -> Contest:
    """A contest for recipes of this task. Raises InputError for a task without one."""
    if task not in CONTESTS:
        raise InputError(
            f"recipes of the task {task} cannot be compared",
            given=task,
            expected=f"recipes whose task is {' or '.join(CONTESTS)}",
            mend="train them one by one with `tripel train`, then see `tripel evaluate`",
        )
    return CONTESTS[task]()


def views_of(task: str) -> Views:
    """How the results of this task are shown."""
    return CONTESTS[task].views
