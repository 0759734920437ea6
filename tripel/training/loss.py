"""The one loss: cross-entropy summed over `targets != IGNORE`, fused with the head so that logits are never kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tripel.data.batch import IGNORE, Batch
from tripel.models.build import Model
from tripel.training.fused_loss import CHUNK_CPU, FusedCrossEntropy, FusedRDrop


def batch_loss_sum(model: Model, batch: Batch, *, label_smoothing: float, r_drop: float = 0.0) -> Tensor:
    """The loss of a batch, summed over its predicted tokens, in nats. r_drop: alpha of `r_drop_sum`, 0 for plain."""
    if batch.weights is not None:
        assert not r_drop, "R-Drop and weights of targets exclude each other"
        h_ND = model.asked(batch.inputs, None)
        return weighted_cross_entropy_sum(
            h_ND, model.head_parameters(), batch.targets_BT, batch.weights, label_smoothing=label_smoothing
        )
    if not r_drop:
        h_ND, targets_N = asked(model, batch)
        return cross_entropy_sum(h_ND, model.head_parameters(), targets_N, label_smoothing=label_smoothing)
    inputs: dict[str, Any] = {name: x if x is None else torch.cat([x, x]) for name, x in batch.inputs.items()}
    targets_BT = torch.cat([batch.targets_BT, batch.targets_BT])
    h_MD, targets_M = asked(model, replace(batch, inputs=inputs, targets_BT=targets_BT))
    return r_drop_sum(h_MD, model.head_parameters(), targets_M, label_smoothing=label_smoothing, alpha=r_drop)


def asked(model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """What the head's matrix is multiplied with for every target that is not IGNORE, (N, D), and those targets, (N,)."""
    targets_N = batch.targets_BT.flatten()
    rows_N = _predicted_rows(targets_N)
    return model.asked(batch.inputs, rows_N), targets_N if rows_N is None else targets_N.index_select(0, rows_N)


def cross_entropy_sum(
    h_BTD: Tensor,
    head: tuple[Tensor, Tensor | None],
    targets_BT: Tensor,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum over predicted tokens of the label-smoothed cross-entropy in nats, a float32 scalar.

    head: matrix (V, D) and bias (V,) or None. Smoothing mixes the target with the uniform distribution over all V
    (Szegedy et al. 2016), as torch.nn.functional.cross_entropy does.
    """
    h_ND, targets_N = _predicted(h_BTD, targets_BT)
    weight, bias = head
    return FusedCrossEntropy.apply(h_ND, weight, bias, targets_N, label_smoothing)  # type: ignore[no-any-return]


def weighted_cross_entropy_sum(
    h_ND: Tensor,
    head: tuple[Tensor, Tensor | None],
    targets: Tensor,
    weights: Tensor,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """cross_entropy_sum where each target counts its weight: for rare classes, and for examples that are of several.

    targets, weights: (N,) or (N, K). For heads of few classes: the logits are kept.
    """
    log_p_NC = F.linear(h_ND, *head).float().log_softmax(-1)
    targets_NK, weights_NK = targets.view(len(targets), -1), weights.view(len(targets), -1)
    of_targets = (weights_NK * log_p_NC.gather(1, targets_NK)).sum()
    if not label_smoothing:
        return -of_targets
    of_all = (weights_NK.sum(1) * log_p_NC.mean(1)).sum()
    return -(1 - label_smoothing) * of_targets - label_smoothing * of_all


def token_losses(h_BTD: Tensor, head: tuple[Tensor, Tensor | None], targets_BT: Tensor) -> Tensor:
    """The cross-entropy of every target in nats, (B, T) float32; 0 where a target is IGNORE. head: as above."""
    weight_VD, bias_V = head
    rows = max(CHUNK_CPU // len(weight_VD), 1)
    losses = [
        F.cross_entropy(F.linear(h_ND, weight_VD, bias_V).float(), targets_N, ignore_index=IGNORE, reduction="none")
        for h_ND, targets_N in zip(h_BTD.flatten(0, 1).split(rows), targets_BT.flatten().split(rows), strict=True)
    ]
    return torch.cat(losses).view(targets_BT.shape)


def r_drop_sum(
    h_BTD: Tensor,
    head: tuple[Tensor, Tensor | None],
    targets_BT: Tensor,
    *,
    label_smoothing: float,
    alpha: float,
) -> Tensor:
    """R-Drop (Liang et al. 2021): the batch holds every example twice, first half and second half, under different
    dropout. Half the cross-entropy of both passes plus alpha / 4 times the two Kullback-Leibler divergences between
    them, so that the sum counts each predicted token once. head: as for cross_entropy_sum; alpha > 0.
    """
    h_MD, targets_M = _predicted(h_BTD, targets_BT)
    weight, bias = head
    targets_N = targets_M[: len(targets_M) // 2]
    return FusedRDrop.apply(h_MD, weight, bias, targets_N, label_smoothing, alpha)  # type: ignore[no-any-return]


def _predicted(h_BTD: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
    h_ND, targets_N = h_BTD.flatten(0, -2), targets_BT.flatten()
    rows_N = _predicted_rows(targets_N)
    return (h_ND, targets_N) if rows_N is None else (h_ND.index_select(0, rows_N), targets_N.index_select(0, rows_N))


def _predicted_rows(targets_N: Tensor) -> Tensor | None:
    """Where targets are not IGNORE; None when all are not."""
    predicted_N = targets_N != IGNORE
    return None if bool(predicted_N.all()) else predicted_N.nonzero().squeeze(1)
