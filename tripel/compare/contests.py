"""The tasks that can be compared."""

from __future__ import annotations

from tripel.compare.comparison import Views
from tripel.compare.contest import Contest
from tripel.compare.images import ImageContest
from tripel.compare.next_token import TextContest
from tripel.errors import InputError
from tripel.recipe import Recipe

CONTESTS: dict[str, type[Contest]] = {"next-token": TextContest, "image-classification": ImageContest}


def subject_of(recipe: Recipe) -> str:
    """What recipes must have in common to be compared: their task, and for a classifier what it reads."""
    return f"image-{recipe.task.kind}" if recipe.reads_images else recipe.task.kind


def contest_of(subject: str) -> Contest:
    """A contest for recipes of this subject. Raises InputError for one without."""
    if subject not in CONTESTS:
        raise InputError(
            f"recipes of the task {subject} cannot be compared",
            given=subject,
            expected=f"recipes whose task is {' or '.join(CONTESTS)}",
            mend="train them one by one with `tripel train`, then see `tripel evaluate`",
        )
    return CONTESTS[subject]()


def views_of(subject: str) -> Views:
    """How the results of this subject are shown."""
    return CONTESTS[subject].views
