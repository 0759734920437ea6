"""The engine that renames weights: each direction undoes the other."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tripel.hf.rules import Rule, mismatch, permute_stream, to_ours, to_theirs


@given(
    parts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    rows=st.integers(1, 3),
    as_rows=st.booleans(),
)
def test_to_ours_undoes_to_theirs_for_every_number_of_parts(parts: list[int], rows: int, as_rows: bool) -> None:
    rules = [Rule(f"a{i}", tuple(f"b{i}.{j}" for j in range(n))) for i, n in enumerate(parts)]
    ours = {f"a{i}": torch.randn(n * rows, 2) for i, n in enumerate(parts)}
    if as_rows:
        rules.append(Rule("bias", ("row",), as_row=True))
        ours["bias"] = torch.randn(5)
    theirs = to_theirs(rules, ours)
    assert len(theirs) == sum(parts) + as_rows
    assert all(theirs[f"b{i}.{j}"].shape == (rows, 2) for i, n in enumerate(parts) for j in range(n))
    back = to_ours(rules, theirs)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_a_fused_map_is_the_separate_maps_in_the_order_of_the_rule() -> None:
    query, key, value = torch.randn(3, 4, 5).unbind(0)
    ours = to_ours([Rule("fused", ("q", "k", "v"))], {"v": value, "q": query, "k": key})
    x = torch.randn(5)
    assert torch.allclose(ours["fused"] @ x, torch.cat([query @ x, key @ x, value @ x]))


def test_maps_of_unequal_sizes_and_transposed_maps_come_back_bit_for_bit() -> None:
    rules = [
        Rule("fused", ("q", "k", "v"), sizes=(4, 2, 2)),
        Rule("turned", ("t",), transposed=True),
        Rule("both", ("a", "b"), sizes=(1, 3), transposed=True),
    ]
    ours = {"fused": torch.randn(8, 5), "turned": torch.randn(3, 2), "both": torch.randn(4, 6)}
    theirs = to_theirs(rules, ours)
    assert torch.equal(theirs["q"], ours["fused"][:4])
    assert torch.equal(theirs["v"], ours["fused"][6:])
    assert torch.equal(theirs["t"], ours["turned"].T)
    assert torch.equal(theirs["b"], ours["both"][1:].T)
    back = to_ours(rules, theirs)
    assert all(torch.equal(back[name], ours[name]) and back[name].is_contiguous() for name in ours)


def test_permuting_the_stream_and_back_changes_no_bit_and_only_the_stream() -> None:
    rules = [Rule("w", ("w",), stream_dim=1), Rule("u", ("u",), stream_dim=0), Rule("n", ("n",))]
    tensors = {"w": torch.randn(3, 6), "u": torch.randn(6), "n": torch.randn(6), "stranger": torch.randn(6)}
    order = torch.tensor([0, 2, 4, 1, 3, 5])
    moved = permute_stream(rules, tensors, order)
    assert torch.equal(moved["w"], tensors["w"][:, order])
    assert torch.equal(moved["u"], tensors["u"][order])
    assert torch.equal(moved["n"], tensors["n"])
    back = permute_stream(rules, moved, order.argsort())
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_mismatch_names_what_is_missing_more_misshapen_or_not_a_number() -> None:
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    assert mismatch(expected, expected) is None
    given_ = {"b": torch.zeros(4), "c": torch.zeros(1, dtype=torch.int8), "d": torch.zeros(1)}
    assert mismatch(expected, given_) == (
        "missing: a; not expected: d; of another shape: b [4] instead of [3]; "
        "not floating-point numbers: c (torch.int8)"
    )
    assert mismatch({str(i): torch.zeros(1) for i in range(9)}, {}) == "missing: 0, 1, 2 and 6 more"
