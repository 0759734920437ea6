"""Cross-entropy and R-Drop fused with the head's product: autograd functions that never keep the logits.

Product, softmax and both gradients are done chunk by chunk. What is saved for the backward pass is the gradient of the
hidden states and of the head, not the logits (rows x vocabulary). Every pass over a chunk counts, for on a small model
the loss is 40 % of a training step, and all of it beside the three products is memory traffic:
- the uniform part of label smoothing is a term of rank one: it is taken to the products' results, not to the logits;
- the logsumexp is read off the right token's logit and probability, not found by further passes over the row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Numbers in a chunk of logits. CPU: 1,000 x 10,000 in bfloat16 are 20 MB, about what a last-level cache holds.
CHUNK_CPU, CHUNK_GPU = 10_000_000, 250_000_000


class FusedCrossEntropy(torch.autograd.Function):
    """(h_ND, weight_VD, bias_V or None, targets_N, smoothing) -> sum of the label-smoothed cross-entropies, in nats."""

    @staticmethod
    def forward(
        ctx: Any, h_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, smoothing: float
    ) -> Tensor:
        head = _Head(h_ND, weight_VD, bias_V, smoothing)
        gradients = _Gradients(head, h_ND) if any(ctx.needs_input_grad[:3]) else None
        total = h_ND.new_zeros((), dtype=head.sum_dtype)
        (buffer_RV,) = head.buffers(len(h_ND), 1)
        for rows in _chunks(len(h_ND), len(buffer_RV)):
            h, targets = h_ND[rows], targets_N[rows]
            logits = head.logits(h, out=buffer_RV[: len(h)])
            right_R = _at(logits, targets, head.sum_dtype)
            if gradients is None:
                total += head.cross_entropy(h, right_R, logits.to(head.sum_dtype).logsumexp(-1)).sum()
                continue
            total += head.cross_entropy(h, right_R, head.softmax_(logits, h, targets, right_R)).sum()
            gradients.add(rows, h, _less_target(logits, targets, 1 - smoothing))
        if gradients is not None:
            ctx.save_for_backward(*gradients.finish(h_ND))
        ctx.dtypes = head.dtypes
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *_scaled(ctx, grad), None, None


class FusedRDrop(torch.autograd.Function):
    """R-Drop (Liang et al. 2021): (h_MD, weight_VD, bias_V or None, targets_N, smoothing, alpha) -> a sum in nats.

    h holds N rows of a first pass, then the same rows of a second. With their softmaxes p and q, per row:
    (CE(p) + CE(q)) / 2 + alpha / 4 (KL(p|q) + KL(q|p)). With d = log p - log q, the divergence has by the logits of p
    the gradient p (d - KL(p|q)) + p - q, and by those of q the same with p and q exchanged and the sign of d turned.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        smoothing: float,
        alpha: float,
    ) -> Tensor:
        n = len(targets_N)
        head = _Head(h_MD, weight_VD, bias_V, smoothing)
        # Gradients are summed in units of alpha / 4, where each cross-entropy weighs 2 / alpha: a pass less per chunk.
        ctx.unit, share = alpha / 4, 2 / alpha
        gradients = _Gradients(head, h_MD, share)
        total = h_MD.new_zeros((), dtype=head.sum_dtype)
        buffers = head.buffers(n, 4)
        for rows_p in _chunks(n, len(buffers[0])):
            rows_q, targets = slice(rows_p.start + n, rows_p.stop + n), targets_N[rows_p]
            h_p, h_q = h_MD[rows_p], h_MD[rows_q]
            p, q, d, residual = (x[: len(targets)] for x in buffers)
            torch.sub(head.logits(h_p, out=p), head.logits(h_q, out=q), out=d)
            right_p, right_q = _at(p, targets, head.sum_dtype), _at(q, targets, head.sum_dtype)
            lse_p, lse_q = head.softmax_(p, h_p, targets, right_p), head.softmax_(q, h_q, targets, right_q)
            d -= (lse_p - lse_q).to(d.dtype)[:, None]
            kl_pq = torch.mul(p, d, out=residual).sum(-1)
            kl_qp = torch.mul(q, d, out=residual).sum(-1).neg_()
            likelihood = head.cross_entropy(h_p, right_p, lse_p) + head.cross_entropy(h_q, right_q, lse_q)
            total += likelihood.sum() / 2 + alpha / 4 * (kl_pq + kl_qp).sum(dtype=head.sum_dtype)
            d -= kl_pq[:, None]
            torch.sub(p, q, out=residual).addcmul_(p, d).add_(p, alpha=share)
            gradients.add(rows_p, h_p, _less_target(residual, targets, share * (1 - smoothing)))
            d += (kl_pq + kl_qp)[:, None]
            torch.sub(q, p, out=residual).addcmul_(q, d, value=-1).add_(q, alpha=share)
            gradients.add(rows_q, h_q, _less_target(residual, targets, share * (1 - smoothing)))
        ctx.save_for_backward(*gradients.finish(h_MD))
        ctx.dtypes = head.dtypes
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *_scaled(ctx, grad * ctx.unit), None, None, None


class _Head:
    """The head in the dtype of the hidden states; what is summed over many rows is summed in float32 at least."""

    def __init__(self, h_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, smoothing: float) -> None:
        self.sum_dtype = torch.promote_types(h_ND.dtype, torch.float32)
        self.smoothing, self.dtypes = smoothing, (h_ND.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype)
        self.weight = weight_VD.to(h_ND.dtype)
        self.bias = None if bias_V is None else bias_V.to(h_ND.dtype)
        # The mean over the vocabulary of the logits is the product with the mean row. (Cast first: a mean of another
        # dtype than its input's is not vectorised on CPU.)
        self.mean_D = weight_VD.to(self.sum_dtype).mean(0)
        self.mean_bias = 0.0 if bias_V is None else bias_V.to(self.sum_dtype).mean()

    def buffers(self, n_rows: int, parts: int) -> Tensor:
        """parts matrices (parts, R, V) that together are one chunk."""
        chunk = CHUNK_CPU if self.weight.device.type == "cpu" else CHUNK_GPU
        n_chunks = math.ceil(n_rows * parts * len(self.weight) / chunk)
        # Equal chunks: a small last one would cost a product of its own.
        rows = max(math.ceil(n_rows / max(n_chunks, 1)), 1)
        return self.weight.new_empty(parts, rows, len(self.weight))

    def logits(self, h_RD: Tensor, *, out: Tensor | None = None) -> Tensor:
        if self.bias is None:
            return torch.mm(h_RD, self.weight.T, out=out)
        return torch.addmm(self.bias, h_RD, self.weight.T, out=out)

    def softmax_(self, logits_RV: Tensor, h_RD: Tensor, targets_R: Tensor, right_R: Tensor) -> Tensor:
        """Write the softmax over the logits; return their logsumexp (R,). right: the right tokens' logits."""
        torch.softmax(logits_RV, -1, out=logits_RV)
        p_R = _at(logits_RV, targets_R, self.sum_dtype)
        lse_R = right_R - p_R.log()
        lost_R = p_R < torch.finfo(torch.float32).tiny  # a right token e^87 times less likely than another
        if bool(lost_R.any()):
            lse_R[lost_R] = self.logits(h_RD[lost_R]).to(self.sum_dtype).logsumexp(-1)
        return lse_R

    def cross_entropy(self, h_RD: Tensor, right_R: Tensor, lse_R: Tensor) -> Tensor:
        """Per row, from the right token's logit and the logsumexp (Szegedy et al. 2016, section 7)."""
        mean_R = h_RD.to(self.sum_dtype) @ self.mean_D + self.mean_bias
        return lse_R - (1 - self.smoothing) * right_R - self.smoothing * mean_R


class _Gradients:
    """Sums the gradients of h and of the head. share: the weight of the cross-entropy in the residuals."""

    def __init__(self, head: _Head, h_ND: Tensor, share: float = 1.0) -> None:
        self.head, self.uniform = head, share * head.smoothing
        self.of_h, self.of_weight = torch.empty_like(h_ND), torch.zeros_like(head.weight, dtype=head.sum_dtype)
        self.of_bias = None if head.bias is None else torch.zeros_like(head.bias, dtype=head.sum_dtype)
        self._mean_D = (-self.uniform * head.mean_D).to(h_ND.dtype)

    def add(self, rows: slice, h_RD: Tensor, residual_RV: Tensor) -> None:
        """residual: the gradient of these rows' logits without the uniform part of the smoothed target."""
        torch.addmm(self._mean_D, residual_RV, self.head.weight, out=self.of_h[rows])
        self.of_weight += residual_RV.T @ h_RD
        if self.of_bias is not None:
            self.of_bias += residual_RV.sum(0)

    def finish(self, h_ND: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of h, weight and bias."""
        each = self.uniform / len(self.of_weight)
        self.of_weight -= each * h_ND.to(self.head.sum_dtype).sum(0)
        if self.of_bias is not None:
            self.of_bias -= each * len(h_ND)
        return self.of_h, self.of_weight, self.of_bias


def _chunks(n_rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def _at(x_RV: Tensor, columns_R: Tensor, dtype: torch.dtype) -> Tensor:
    """One entry of each row. (An index, not gather_: scatter and gather of bfloat16 walk the whole row.)"""
    return x_RV[torch.arange(len(columns_R), device=x_RV.device), columns_R].to(dtype)


def _less_target(x_RV: Tensor, targets_R: Tensor, amount: float) -> Tensor:
    """x, changed in place, less `amount` at each row's target."""
    row_R = torch.arange(len(targets_R), device=x_RV.device)
    x_RV[row_R, targets_R] -= amount
    return x_RV


def _scaled(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
    """The saved gradients times factor, then in the dtypes of what they are gradients of."""
    pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
    return tuple(None if x is None else (x * factor).to(dtype) for x, dtype in pairs)
