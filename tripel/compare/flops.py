"""Floating-point operations of a model of images, counted while it really runs: nothing is estimated from its sizes.

What is counted are matrix products and convolutions, a multiplication and an addition being two operations, as
torch.utils.flop_counter has it, whatever kernel or autograd function asks for them. Norms, activations and sums are not:
their number does not grow with the square of the width. Attention is counted as the two products that it is (and four in
the backward pass), whatever a fused kernel does again to save memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tripel.data.batch import Batch
from tripel.models.build import build
from tripel.models.config import ImageVocabulary
from tripel.models.vision import VisionModel
from tripel.recipe import Recipe
from tripel.training.loss import batch_loss_sum
from tripel.training.optim import Optimizer
from tripel.training.precision import Worker


@dataclass(frozen=True)
class Flops:
    """inference: of one picture. training: of one picture, forward and backward. update: of one update besides, whatever
    its number of pictures; what the optimizer multiplies (AdamW nothing, Muon much)."""

    inference: float
    training: float
    update: float

    def of_run(self, images: float, updates: float) -> float:
        """Of training that saw so many pictures in so many updates."""
        return images * self.training + updates * self.update


def count_flops(recipe: Recipe, batch: Batch, vocabulary: ImageVocabulary) -> Flops:
    """Of a recipe's model with fresh weights, by one real training step on a batch of its loader's, on the CPU."""
    model = build(recipe.model, vocabulary)
    assert isinstance(model, VisionModel)
    model.eval()
    pixels_BCHW: Tensor = batch.inputs["pixels_BCHW"]
    with torch.no_grad(), _counting() as inference:
        model(pixels_BCHW[:1])
    model.train()
    worker = Worker(model, recipe.train.precision)
    worker.model.train()
    optimizer = Optimizer(recipe.optim, model, in_bfloat16=worker.model is not model)
    worker.begin_step()
    with _counting() as training:
        loss = batch_loss_sum(
            worker.model, batch, label_smoothing=recipe.task.label_smoothing, r_drop=recipe.train.r_drop
        )
        (loss / batch.count).backward()
    worker.collect()
    with _counting() as update:
        optimizer.step(recipe.optim.lr)
    n = batch.count
    return Flops(inference.get_total_flops(), training.get_total_flops() / n, update.get_total_flops())


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    # PyTorch's counter does not know the fused attention kernel for CPUs: the plain products stand for it.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter
