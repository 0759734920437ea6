"""Renaming weights between our names and another library's, both ways, from one list of rules.

A rule is a line of a table: our tensor, and the tensors it is made of there. Ours is theirs stacked on dim 0, so a rule
with three names both fuses (q, k, v -> query_key_value) and splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """ours is the tensors `theirs` stacked on dim 0.

    stream_dim: the dimension of each of theirs that runs along the residual stream, or None.
    as_row: theirs is ours with a dimension of size 1 in front.
    sizes: the rows of ours that each of theirs has; None when all have equally many.
    transposed: each of theirs is a matrix (inputs, outputs), the other way round than torch's.
    """

    ours: str
    theirs: tuple[str, ...]
    stream_dim: int | None = None
    as_row: bool = False
    sizes: tuple[int, ...] | None = None
    transposed: bool = False


def to_theirs(rules: Iterable[Rule], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under their names. Every rule's tensor must be there, and no other."""
    rest = dict(tensors)
    result: dict[str, Tensor] = {}
    for rule in rules:
        tensor = rest.pop(rule.ours)
        tensor = tensor[None] if rule.as_row else tensor
        parts = tensor.chunk(len(rule.theirs)) if rule.sizes is None else tensor.split(rule.sizes)
        parts = tuple(part.T.contiguous() for part in parts) if rule.transposed else parts
        result.update(zip(rule.theirs, parts, strict=True))
    assert not rest, f"no rule for {sorted(rest)}"
    return result


def to_ours(rules: Iterable[Rule], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names: the inverse of to_theirs."""
    result = {}
    for rule in rules:
        parts = [tensors[name].T.contiguous() if rule.transposed else tensors[name] for name in rule.theirs]
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        result[rule.ours] = tensor[0] if rule.as_row else tensor
    return result


def permute_stream(rules: Iterable[Rule], tensors: Mapping[str, Tensor], order_D: Tensor) -> dict[str, Tensor]:
    """Their tensors with the residual stream's coordinates in another order: the same function of the ids.

    Everything that writes to the stream is reordered like everything that reads from it, and LayerNorm does not mind.
    A tensor without such a dimension of the right size is left as it is: that it does not fit is for `mismatch` to say.
    """
    dims = {name: rule.stream_dim for rule in rules for name in rule.theirs}

    def permuted(name: str, tensor: Tensor) -> Tensor:
        dim = dims.get(name)
        if dim is None or dim >= tensor.dim() or tensor.shape[dim] != len(order_D):
            return tensor
        return tensor.index_select(dim, order_D.to(tensor.device))

    return {name: permuted(name, tensor) for name, tensor in tensors.items()}


def mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """How the names, shapes and kinds of given tensors differ from the expected ones, or None. A few names suffice."""
    problems = [
        _listed("missing", sorted(expected.keys() - given.keys())),
        _listed("not expected", sorted(given.keys() - expected.keys())),
        _listed(
            "of another shape",
            [
                f"{name} {list(given[name].shape)} instead of {list(expected[name].shape)}"
                for name in sorted(expected.keys() & given.keys())
                if given[name].shape != expected[name].shape
            ],
        ),
        _listed(
            "not floating-point numbers",
            [
                f"{name} ({given[name].dtype})"
                for name in sorted(expected.keys() & given.keys())
                if expected[name].is_floating_point() and not given[name].is_floating_point()
            ],
        ),
    ]
    return "; ".join(filter(None, problems)) or None


def _listed(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what}: {', '.join(names[:3])}{more}"
