"""Scores of classifiers, against sums over the examples one by one."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tripel.tasks.classification import score_classification

LABELS = ("ant", "bee", "cat", "dog")


def probabilities_of(said, sure):
    """Rows in which the class said has the given probability and the others share the rest."""
    found = np.empty((len(said), len(LABELS)))
    for row, (c, p) in enumerate(zip(said, sure, strict=True)):
        found[row] = (1 - p) / (len(LABELS) - 1)
        found[row, c] = p
    return found


examples = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0.26, 1.0)), min_size=1, max_size=40
)  # true, said, how surely


@given(examples)
def test_the_scores_are_what_counting_by_hand_gives(rows):
    true, said, sure = (list(side) for side in zip(*rows, strict=True))
    probabilities = probabilities_of(said, sure)
    scores = score_classification(probabilities, np.array(true), LABELS)
    n = len(rows)
    assert scores.n_examples == n
    assert scores.accuracy == pytest.approx(sum(t == s for t, s in zip(true, said, strict=True)) / n)
    assert scores.loss == pytest.approx(
        -sum(np.log(max(probabilities[i, t], np.finfo(float).tiny)) for i, t in enumerate(true)) / n
    )
    f1s = []
    for c, score in enumerate(scores.classes):
        hits = sum(t == s == c for t, s in zip(true, said, strict=True))
        assert [scores.confusion[c, s] for s in range(4)] == [
            sum((t, o) == (c, s) for t, o in zip(true, said, strict=True)) for s in range(4)
        ]
        precision = hits / said.count(c) if c in said else 0.0
        recall = hits / true.count(c) if c in true else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert (score.label, score.n_examples) == (LABELS[c], true.count(c))
        assert (score.precision, score.recall, score.f1) == pytest.approx((precision, recall, f1))
        if c in true or c in said:
            f1s.append(f1)
    assert scores.macro_f1 == pytest.approx(sum(f1s) / len(f1s))


@given(examples)
def test_the_calibration_error_is_the_mean_gap_between_certainty_and_accuracy_over_15_bins(rows):
    true, said, sure = (list(side) for side in zip(*rows, strict=True))
    bins: dict[int, list[tuple[float, bool]]] = {}
    for t, s, p in zip(true, said, sure, strict=True):
        bins.setdefault(min(int(p * 15), 14), []).append((p, t == s))
    expected = sum(
        abs(sum(p for p, _ in inside) - sum(right for _, right in inside)) / len(rows) for inside in bins.values()
    )
    scores = score_classification(probabilities_of(said, sure), np.array(true), LABELS)
    assert scores.calibration_error == pytest.approx(expected)


def test_a_model_that_is_as_right_as_it_is_sure_has_no_calibration_error():
    said = np.zeros(100, int)
    true = np.where(np.arange(100) < 70, 0, 1)
    assert score_classification(probabilities_of(said, [0.7] * 100), true, LABELS).calibration_error == pytest.approx(0)
    assert score_classification(probabilities_of(said, [1.0] * 100), true, LABELS).calibration_error == pytest.approx(
        0.3
    )


def test_always_saying_the_commonest_class_has_its_accuracy_and_a_poor_macro_f1():
    true = np.array([0] * 90 + [1] * 10)
    scores = score_classification(probabilities_of([0] * 100, [0.9] * 100), true, LABELS)
    assert scores.accuracy == 0.9
    assert scores.macro_f1 == pytest.approx((2 * 0.9 / 1.9 + 0) / 2)


def test_a_class_that_is_impossible_for_the_model_costs_much_and_not_infinitely():
    scores = score_classification(np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([1]), LABELS)
    assert 700 < scores.loss < 710


def test_scores_print_as_tables_and_as_json():
    scores = score_classification(probabilities_of([0, 1, 1], [0.9, 0.8, 0.7]), np.array([0, 1, 2]), LABELS)
    console = Console(file=io.StringIO(), width=100)
    console.print(scores)
    said = console.file.getvalue()
    assert "accuracy 66.67%" in said and "macro-F1" in said and "true \\ said" in said
    assert all(label in said for label in LABELS)
    written = json.loads(scores.to_json())
    assert written["accuracy"] == pytest.approx(2 / 3) and written["confusion"][2] == [0, 1, 0, 0]
    assert [row["label"] for row in written["classes"]] == list(LABELS)
    assert scores.metrics() == {
        "valid_loss": scores.loss, "accuracy": scores.accuracy, "macro_f1": scores.macro_f1
    }  # fmt: skip


def test_where_names_do_not_fit_beside_each_other_the_confusion_table_has_numbers():
    labels = [f"a long [/name] {c}" for c in "abcdefgh"]
    scores = score_classification(np.eye(8), np.arange(8), labels)
    for width, expected in ((200, "a long [/name] h"), (80, "8 a long [/name] h")):
        console = Console(file=io.StringIO(), width=width)
        console.print(scores)
        table = console.file.getvalue().partition("true \\ said")[2]
        assert expected in table and "…" not in table


def test_many_classes_are_left_to_the_picture():
    labels = [f"class{i}" for i in range(40)]
    scores = score_classification(np.eye(40), np.arange(40), labels)
    console = Console(file=io.StringIO(), width=80)
    console.print(scores)
    assert "true \\ said" not in console.file.getvalue() and "class39" in console.file.getvalue()


@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(2, 9), st.booleans())
def test_the_top_five_accuracy_is_the_share_of_examples_whose_class_is_among_the_five_likeliest(
    seed, n, n_classes, ties
):
    rng = np.random.default_rng(seed)
    probabilities, true = rng.random((n, n_classes)), rng.integers(0, n_classes, n)
    probabilities = probabilities.round(1) if ties else probabilities
    found = score_classification(probabilities, true, [str(c) for c in range(n_classes)]).top5_accuracy
    if n_classes <= 5:
        assert found is None
        return
    five = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    assert found == pytest.approx(np.mean([t in row for t, row in zip(true, five, strict=True)]))
