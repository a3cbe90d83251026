"""Every number against scikit-learn, scipy or a slow formula written out."""

import json
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from refusals import refused
from scipy import stats
from sklearn import metrics as theirs

from foveate.metrics import (
    average_precision,
    check_probabilities,
    confusion_matrix,
    expected_calibration_error,
    label_calibration_error,
    log_loss,
    precision_recall_f1,
    sigmoid,
    softmax,
    summarise,
    summarise_labels,
    wilson_interval,
    worst_confusions,
)

NONE, NO_ROWS = np.zeros(0, np.int64), np.zeros((0, 3))


def drawn(
    n: int, classes: int, seed: int = 0, sharp: float = 2.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities, and labels that follow them."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(sharp * rng.normal(size=(n, classes)))
    return probabilities, np.array(
        [rng.choice(classes, p=p) for p in probabilities], dtype=np.int64
    )


# Wilson


@pytest.mark.parametrize(
    ("right", "n"), [(0, 1), (1, 1), (0, 10), (9, 10), (10, 10), (50, 100), (326, 372), (1, 10**6)]
)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(right: int, n: int, confidence: float) -> None:
    expected = stats.binomtest(right, n).proportion_ci(confidence, method="wilson")
    z = float(stats.norm.ppf((1 + confidence) / 2))
    assert wilson_interval(right, n, z) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_is_95_percent_and_stays_inside() -> None:
    assert stats.norm.ppf(0.975) == pytest.approx(1.959964, abs=1e-6)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for n in (1, 2, 7, 372):
        for right in range(n + 1):
            low, high = wilson_interval(right, n)
            assert 0 <= low <= right / n <= high <= 1
            assert (1 - high, 1 - low) == pytest.approx(wilson_interval(n - right, n))


@pytest.mark.parametrize(("right", "n"), [(-1, 3), (4, 3), (1, 0), (0, -1)])
def test_wilson_refuses(right: int, n: int) -> None:
    with refused(ValueError, f"right={right}", f"n={n}"):
        wilson_interval(right, n)


# Confusion, precision, recall, F1


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(("n", "classes"), [(1, 2), (50, 2), (300, 10), (5, 20)])
def test_confusion_is_sklearns(n: int, classes: int, dtype: type) -> None:
    rng = np.random.default_rng(n)
    labels, predicted = rng.integers(0, classes, (2, n)).astype(dtype)
    expected = theirs.confusion_matrix(labels, predicted, labels=range(classes))
    assert np.array_equal(confusion_matrix(labels, predicted, classes), expected)


@pytest.mark.parametrize(
    ("labels", "predicted", "classes"),
    [
        ([0, 1, 2, 2], [0, 1, 2, 1], 3),
        ([0, 0, 1], [0, 0, 0], 3),  # class 1 never predicted, class 2 neither there nor predicted
        ([0, 0], [1, 1], 2),  # all wrong
        ([1], [1], 2),
    ],
)
def test_precision_recall_f1_are_sklearns(
    labels: list[int], predicted: list[int], classes: int
) -> None:
    expected = theirs.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    found = precision_recall_f1(confusion_matrix(np.array(labels), np.array(predicted), classes))
    for ours, sklearns in zip(found, expected, strict=False):
        np.testing.assert_allclose(ours, sklearns)


def test_no_images() -> None:
    assert confusion_matrix(NONE, NONE, 3).tolist() == [[0] * 3] * 3
    assert [values.tolist() for values in precision_recall_f1(np.zeros((3, 3), np.int64))] == [
        [0, 0, 0]
    ] * 3
    assert log_loss(NO_ROWS, NONE) == expected_calibration_error(NO_ROWS, NONE) == 0
    assert softmax(NO_ROWS).shape == (0, 3)


@pytest.mark.parametrize(
    ("labels", "predicted", "names"),
    [
        ([0, 1], [0], ["predictions", "1 and 2"]),
        ([0, 2], [0, 1], ["label", "[0, 2)", "0 to 2"]),
        ([-1, 1], [0, 1], ["label", "[0, 2)", "-1 to 1"]),
        ([0, 1], [0, 5], ["prediction", "[0, 2)", "0 to 5"]),
        ([0, 1], [-3, 1], ["prediction", "[0, 2)", "-3 to 1"]),
    ],
)
def test_confusion_refuses(labels: list[int], predicted: list[int], names: list[str]) -> None:
    with refused(ValueError, *names):
        confusion_matrix(np.array(labels), np.array(predicted), 2)


# Probabilities


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (200, 2), (200, 10)])
def test_log_loss_is_sklearns(n: int, classes: int) -> None:
    probabilities, labels = drawn(n, classes)
    expected = theirs.log_loss(labels, probabilities, labels=range(classes))
    assert log_loss(probabilities, labels) == pytest.approx(expected)


def test_log_loss_of_the_impossible_is_finite() -> None:
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-12))
    assert log_loss(np.full((5, 4), 0.25), np.array([0, 1, 2, 3, 0])) == pytest.approx(np.log(4))
    certain = np.array([[1.0, 0.0]], np.float32)
    assert log_loss(certain, np.array([0])) == pytest.approx(0, abs=1e-11)


def slow_ece(probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int) -> float:
    """Guo et al., section 2, equations 1 to 3, as they stand: bins ((m-1)/M, m/M]."""
    total = 0.0
    for m in range(1, bins + 1):
        inside = [i for i, p in enumerate(probabilities) if (m - 1) / bins < max(p) <= m / bins]
        if inside:
            accuracy = sum(int(np.argmax(probabilities[i])) == labels[i] for i in inside) / len(
                inside
            )
            confidence = sum(max(probabilities[i]) for i in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
@pytest.mark.parametrize(("n", "classes"), [(1, 2), (300, 3), (372, 10)])
def test_ece_is_the_papers(n: int, classes: int, bins: int) -> None:
    probabilities, labels = drawn(n, classes)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(
        slow_ece(probabilities, labels, bins)
    )


@pytest.mark.parametrize(
    ("probabilities", "labels", "ece"),
    [
        ([[1.0, 0.0]] * 4, [0, 0, 0, 0], 0),
        ([[1.0, 0.0]] * 4, [1, 1, 1, 1], 1),
        ([[0.5, 0.5]] * 2, [0, 1], 0),
        ([[0.8, 0.2]] * 10, [0] * 8 + [1] * 2, 0),
        ([[0.9, 0.1]] * 10, [0] * 6 + [1] * 4, 0.3),
    ],
)
def test_ece_by_hand(probabilities: list[list[float]], labels: list[int], ece: float) -> None:
    assert expected_calibration_error(np.array(probabilities), np.array(labels)) == pytest.approx(
        ece, abs=1e-9
    )


def test_ece_of_perfect_calibration_on_372_images() -> None:
    """The figure in the docstring: ten classes, 88 % right, labels drawn from the probabilities."""
    rng = np.random.default_rng(0)
    found, accuracies = [], []
    for _ in range(300):
        probabilities = softmax(9 * rng.normal(size=(372, 10)))
        right = rng.random(372) < probabilities.max(axis=1)
        labels = np.where(right, probabilities.argmax(axis=1), probabilities.argmin(axis=1))
        found.append(expected_calibration_error(probabilities, labels))
        accuracies.append(right.mean())
    assert np.mean(accuracies) == pytest.approx(0.88, abs=0.005)
    assert np.mean(found) == pytest.approx(0.034, abs=0.004)


@pytest.mark.parametrize("measure", [log_loss, expected_calibration_error, check_probabilities])
@pytest.mark.parametrize(
    ("probabilities", "labels", "names"),
    [
        ([[0.5, 0.5]], [0, 1], ["2 labels", "1 rows"]),
        ([[0.5, 0.5]], [2], ["label", "[0, 2)", "2 to 2"]),
        ([[0.5, 0.5]], [-1], ["label", "[0, 2)", "-1 to -1"]),
        ([[0.5, 0.5], [3.0, -1.0]], [0, 1], ["row 1", "2", "logits"]),
        ([[0.5, 0.4]], [0], ["row 0", "0.9"]),
        ([[np.nan, 1.0]], [0], ["row 0", "nan"]),
    ],
)
def test_probabilities_are_checked(
    measure: Callable[..., object],
    probabilities: list[list[float]],
    labels: list[int],
    names: list[str],
) -> None:
    with refused(ValueError, *names):
        measure(np.array(probabilities), np.array(labels))


@pytest.mark.parametrize("bins", [0, -1])
def test_ece_needs_a_bin(bins: int) -> None:
    with refused(ValueError, str(bins), "bin"):
        expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0]), bins)


@pytest.mark.parametrize("shift", [0, 1000, -1000])
def test_softmax_by_hand(shift: float) -> None:
    logits = np.array([[0.0, np.log(3), np.log(6)], [0, 0, 0]]) + shift
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(softmax(logits), [[0.1, 0.3, 0.6], [1 / 3] * 3], rtol=1e-9)
    assert softmax(logits.astype(np.float32)).dtype == np.float64


# All of it


def test_summary_is_sklearns() -> None:
    probabilities, labels = drawn(300, 4)
    classes = ("a", "b", "c", "d")
    found, predicted = summarise(probabilities, labels, classes), probabilities.argmax(axis=1)
    assert json.loads(json.dumps(found)) == found
    assert found["n"] == 300 and found["accuracy"] == pytest.approx(
        theirs.accuracy_score(labels, predicted)
    )
    assert found["accuracy_ci95"] == list(wilson_interval(int((labels == predicted).sum()), 300))
    assert found["balanced_accuracy"] == pytest.approx(
        theirs.balanced_accuracy_score(labels, predicted)
    )
    assert found["macro_f1"] == pytest.approx(theirs.f1_score(labels, predicted, average="macro"))
    assert found["log_loss"] == pytest.approx(theirs.log_loss(labels, probabilities))
    assert found["ece"] == pytest.approx(slow_ece(probabilities, labels, 15))
    assert found["confusion"] == theirs.confusion_matrix(labels, predicted).tolist()
    report = theirs.classification_report(labels, predicted, target_names=classes, output_dict=True)
    for name in classes:
        sklearns = {key.replace("-score", ""): value for key, value in report[name].items()}
        assert found["per_class"][name] == pytest.approx(sklearns)


def test_summary_counts_only_classes_that_are_there() -> None:
    probabilities, labels = np.array([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7]]), [0, 0]
    found = summarise(probabilities, labels, ("a", "b", "c"))
    assert found["balanced_accuracy"] == 0.5 and found["macro_f1"] == pytest.approx(2 / 3)
    assert [found["per_class"][name]["support"] for name in "abc"] == [2, 0, 0]


def test_summary_of_nothing() -> None:
    found = summarise(NO_ROWS, [], ("a", "b", "c"))
    assert (found["n"], found["accuracy"], found["accuracy_ci95"]) == (0, 0, [0, 1])
    assert found["balanced_accuracy"] == found["macro_f1"] == found["log_loss"] == found["ece"] == 0


def test_worst_confusions_are_sorted_and_cut() -> None:
    confusion = [[5, 3, 0], [1, 9, 4], [0, 0, 2]]
    assert worst_confusions(confusion, ("a", "b", "c")) == [
        {"true": "b", "predicted": "c", "n": 4, "of": 14},
        {"true": "a", "predicted": "b", "n": 3, "of": 8},
        {"true": "b", "predicted": "a", "n": 1, "of": 14},
    ]
    assert len(worst_confusions(confusion, ("a", "b", "c"), most=1)) == 1
    assert worst_confusions([[1, 0], [0, 1]], ("a", "b")) == []


# Several labels an image


def labels_drawn(
    n: int, classes: int, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2 - 1
    return sigmoid(logits), (rng.random((n, classes)) < sigmoid(logits)).astype(np.int64)


@pytest.mark.parametrize("digits", [1, 6])  # with ties, and without
def test_average_precision_is_sklearns(digits: int) -> None:
    p, y = labels_drawn(200, 4)
    for c in range(4):
        scores = p[:, c].round(digits)
        assert average_precision(scores, y[:, c]) == pytest.approx(
            theirs.average_precision_score(y[:, c], scores)
        )


def test_average_precision_of_nothing() -> None:
    assert average_precision(np.array([0.3, 0.2]), np.array([0, 0])) == 0
    assert average_precision(np.zeros(0), np.zeros(0, np.int64)) == 0


def test_summary_of_labels_is_sklearns() -> None:
    p, y = labels_drawn(300, 4)
    given = p >= 0.4
    found = summarise_labels(p, given, y, ("a", "b", "c", "d"))
    assert found["n"] == 300
    assert found["accuracy"] == pytest.approx(theirs.accuracy_score(y, given))
    assert found["accuracy_ci95"] == list(wilson_interval(round(300 * found["accuracy"]), 300))
    assert found["macro_f1"] == pytest.approx(theirs.f1_score(y, given, average="macro"))
    assert found["micro_f1"] == pytest.approx(theirs.f1_score(y, given, average="micro"))
    assert found["mean_average_precision"] == pytest.approx(
        theirs.average_precision_score(y, p, average="macro")
    )
    each = [theirs.log_loss(y[:, c], p[:, c]) for c in range(4)]
    assert found["log_loss"] == pytest.approx(sum(each))
    assert found["ece"] < 0.06 < summarise_labels(p**3, given, y, ("a", "b", "c", "d"))["ece"]
    precision, recall, f1, support = theirs.precision_recall_fscore_support(y, given)
    assert [m["precision"] for m in found["per_class"].values()] == pytest.approx(precision)
    assert [m["recall"] for m in found["per_class"].values()] == pytest.approx(recall)
    assert [m["f1"] for m in found["per_class"].values()] == pytest.approx(f1)
    assert [m["support"] for m in found["per_class"].values()] == support.tolist()


def test_summary_of_labels_counts_only_those_that_are_there() -> None:
    found = summarise_labels(
        np.array([[0.9, 0.9]]), np.array([[True, True]]), np.array([[1, 0]]), ("a", "b")
    )
    assert (found["macro_f1"], found["mean_average_precision"], found["accuracy"]) == (1, 1, 0)
    empty = np.zeros((0, 2))
    found = summarise_labels(empty, empty > 0, empty.astype(np.int64), ("a", "b"))
    assert (found["n"], found["accuracy"], found["macro_f1"], found["log_loss"], found["ece"]) == (
        0,
        0,
        0,
        0,
        0,
    )


def test_label_calibration_by_hand() -> None:
    p, y = np.array([[0.9, 0.2], [0.9, 0.2]]), np.array([[1, 0], [0, 1]])
    assert label_calibration_error(p, y) == pytest.approx((abs(1 - 1.8) + abs(1 - 0.4)) / 4)


def test_summary_of_labels_refuses_other_shapes() -> None:
    with refused(ValueError, "(N, 3)", "(1, 2)"):
        summarise_labels(
            np.zeros((1, 2)), np.zeros((1, 2), bool), np.zeros((1, 2), np.int64), ("a", "b", "c")
        )
