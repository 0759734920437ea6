"""What each task brings to a run: its data, its batches, its validation. A run itself knows no task."""

from __future__ import annotations

from tripel.jobs.classification import ClassificationJob
from tripel.jobs.image_classification import ImageClassificationJob
from tripel.jobs.job import Job
from tripel.jobs.masked_token import MaskedTokenJob
from tripel.jobs.next_token import NextTokenJob
from tripel.jobs.translation import TranslationJob
from tripel.recipe import Recipe

JOBS: dict[str, type[Job]] = {
    "translation": TranslationJob,
    "next-token": NextTokenJob,
    "masked-token": MaskedTokenJob,
    "classification": ClassificationJob,
}


def open_job(recipe: Recipe) -> Job:
    """The job of a recipe's task; nothing is read yet."""
    if recipe.reads_images:
        return ImageClassificationJob(recipe)
    return JOBS[recipe.task.kind](recipe)
