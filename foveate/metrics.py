"""Metrics of a classifier: pure functions on probabilities and labels. None divides by zero."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
TINY = 1e-12  # in the place of nothing, where it would divide


def wilson_interval(right: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a rate, from `right` successes in `n` trials.

    Wilson's score interval: unlike "rate +- 2 standard errors" it stays inside [0, 1] and is
    accurate for few trials and for rates near 0 or 1.

        (p + z^2/2n  +-  z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    Args:
        right: successes, 0 to n.
        n: trials; with 0 trials nothing is known: (0, 1). Trials that depend on one another are
            worth fewer, and then neither is a whole number.
        z: quantile of the normal distribution; 1.96 gives 95 %.

    Returns:
        (low, high), fractions.

    Raises:
        ValueError: right is not in [0, n].

    Source: Wilson, JASA 22 (1927). Checked against an independent implementation in
        tests/test_metrics.py.

    >>> [round(x, 3) for x in wilson_interval(9, 10)]
    [0.596, 0.982]
    """
    if not 0 <= right <= n:
        raise ValueError(f"expected 0 <= right <= n, got right={right}, n={n}")
    if n == 0:
        return 0.0, 1.0
    p, z2 = right / n, z * z
    centre = p + z2 / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    # exact where the last bits of the quotients would not be
    return 0.0 if right == 0 else max(0.0, float(low)), 1.0 if right == n else min(1.0, float(high))


def confusion_matrix(labels: Ints, predicted: Ints, classes: int) -> NDArray[np.int64]:
    """Counts of (true, predicted).

    Args:
        labels, predicted: (N,), integers in [0, classes).
        classes: number of classes.

    Returns:
        (classes, classes); row: the true class, column: the predicted one.

    Raises:
        ValueError: lengths differ; a number is out of range.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    if len(labels) != len(predicted):
        raise ValueError(
            f"expected as many predictions as labels, got {len(predicted)} and {len(labels)}"
        )
    for name, values in (("label", labels), ("prediction", predicted)):
        if len(values) and not (values.min() >= 0 and values.max() < classes):
            raise ValueError(f"a {name} is out of [0, {classes}): {values.min()} to {values.max()}")
    flat = labels.astype(np.int64) * classes + predicted
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def precision_recall_f1(confusion: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Each class's precision, recall and F1; 0 where a class is never predicted or has no image.

    Returns:
        Three arrays (classes,), fractions; 1 is best.

    >>> [x.round(2).tolist() for x in precision_recall_f1(np.array([[1, 1], [0, 1]]))]
    [[1.0, 0.5], [0.5, 1.0], [0.67, 0.67]]
    """
    right = np.diag(confusion).astype(np.float64)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(predicted + true, 1)
    return precision, recall, f1


def log_loss(probabilities: Floats, labels: Ints) -> float:
    """Mean of -log p(true class), in nats; 0 is perfect, log(classes) is guessing.

    p is at least 1e-12, so that a single wrong answer of full confidence costs 28, not infinity.

    Raises:
        ValueError: as for expected_calibration_error.

    >>> round(log_loss(np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([0, 0])), 4)
    0.3993
    """
    check_probabilities(probabilities, labels)
    if len(labels) == 0:
        return 0.0
    return log_loss_of_logits(np.log(np.maximum(probabilities.astype(np.float64), 1e-12)), labels)


def log_loss_of_logits(logits: Floats, labels: Ints, smoothing: float = 0.0) -> float:
    """Mean of `losses_of_logits`."""
    return float(losses_of_logits(logits, labels, smoothing).mean())


def losses_of_logits(logits: Floats, labels: Ints, smoothing: float = 0.0) -> NDArray[np.float64]:
    """Each image's cross-entropy, in nats; with several labels an image, the sum of theirs.

    Args:
        logits: (N, classes).
        labels: (N,), integers in [0, classes); or (N, classes), 0 or 1.
        smoothing: the part of each label that is spread over all classes.

    Returns:
        (N,).
    """
    if labels.ndim == 2:
        targets = (1 - smoothing) * labels + smoothing / 2
        costs, _ = binary_cross_entropy(logits.astype(np.float64), targets)
        return np.asarray(costs.sum(axis=1), dtype=np.float64)
    shifted = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)  # exp never overflows
    right = shifted[np.arange(len(labels)), labels]
    target = (1 - smoothing) * right + smoothing * shifted.mean(axis=1)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - target, dtype=np.float64)


def binary_cross_entropy(logits: Any, targets: Any) -> tuple[Any, Any]:
    """-log sigmoid(logit) where a label is present, -log(1 - sigmoid(logit)) where it is not.

    Returns:
        The costs and their slopes, of the logits' shape.
    """
    far = np.exp(-np.abs(logits))  # never overflows
    probability = np.where(logits >= 0, 1, far) / (1 + far)
    return np.maximum(logits, 0) - logits * targets + np.log1p(far), probability - targets


def expected_calibration_error(probabilities: Floats, labels: Ints, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, weighted by how often each confidence occurs.

    A classifier that says "80 %" should be right 80 times in 100. This measures by how much it is
    not. On few images it is never 0: a perfectly calibrated classifier that is right 88 times in
    100 has 0.034 on 372 images.

        ECE = sum over bins b of (n_b / N) * | accuracy(b) - confidence(b) |

    Args:
        probabilities: (N, classes), each row sums to 1. Softmax first: these are not logits.
        labels: (N,), integers in [0, classes).
        bins: number of equal-width bins on [0, 1].

    Returns:
        A fraction in [0, 1]; 0 is perfect.

    Raises:
        ValueError: lengths differ; a label is out of range; a row does not sum to 1; bins < 1.

    Source: Guo et al., arXiv:1706.04599. Checked against an independent implementation in
        tests/test_metrics.py.

    >>> p, labels = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1])
    >>> round(expected_calibration_error(p, labels, bins=2), 4)
    0.25
    """
    check_probabilities(probabilities, labels)
    if bins < 1:
        raise ValueError(f"expected at least one bin, got {bins}")
    if len(labels) == 0:
        return 0.0
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    gaps = np.bincount(bin_of(confidence, bins), right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def bin_of(confidence: Floats, bins: int = 15) -> NDArray[np.int64]:
    """The bin of equal width on [0, 1] of each confidence; a limit belongs to the bin below it."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def reliability(
    confidence: Floats, right: NDArray[np.bool_], bins: int = 15
) -> list[dict[str, Any]]:
    """How often answers of each confidence are right, for a reliability diagram.

    Args:
        confidence: (N,), of each answer; or, where each label is judged, its probability.
        right: (N,), whether it is right; or whether the image has the label.
        bins: number of equal-width bins on [0, 1].

    Returns:
        Of each bin that has images: low and high, its limits; n; confidence, the mean; accuracy,
        and accuracy_ci95, as if images were independent.

    >>> found = reliability(np.array([0.9, 0.6]), np.array([True, False]))
    >>> [(one["n"], one["confidence"], one["accuracy"]) for one in found]
    [(1, 0.6, 0.0), (1, 0.9, 1.0)]
    """
    which, found = bin_of(confidence, bins), []
    for b in np.unique(which):
        inside = which == b
        n, correct = int(inside.sum()), int(right[inside].sum())
        found.append(
            {
                "low": float(b / bins),
                "high": float((b + 1) / bins),
                "n": n,
                "confidence": float(confidence[inside].mean()),
                "accuracy": correct / n,
                "accuracy_ci95": list(wilson_interval(correct, n)),
            }
        )
    return found


def risk_coverage(confidence: Floats, right: NDArray[np.bool_]) -> list[dict[str, float]]:
    """The accuracy of a classifier that answers only where it is surest: what is gained by leaving
    the others to a person.

    Args:
        confidence: (N,), of each answer.
        right: (N,), whether it is right.

    Returns:
        Of 100 %, 95 % ... 5 % of the images, the surest first: coverage, the share that is answered
        (larger than asked where answers are equally sure), accuracy, and confidence, the least.

    Source: El-Yaniv, Wiener. "On the Foundations of Noise-free Selective Classification".
        JMLR 11, 2010.

    >>> risk_coverage(np.array([0.9, 0.6]), np.array([True, False]))[-1]
    {'coverage': 0.5, 'accuracy': 1.0, 'confidence': 0.9}
    """
    scores, correct, wrong = ranked_counts(confidence, right.astype(np.int64))
    n, found = correct + wrong, []
    for share in np.linspace(1, 0.05, 20):
        if not len(n):
            break
        at = min(int(np.searchsorted(n, share * n[-1] - 1e-9)), len(n) - 1)
        found.append(
            {
                "coverage": float(n[at] / n[-1]),
                "accuracy": float(correct[at] / n[at]),
                "confidence": float(scores[at]),
            }
        )
    return found


def top_k_accuracy(probabilities: Floats, labels: Ints, k: int = 5) -> float:
    """The share of images whose class is among the k most probable ones; 0 without images.

    A class that is as probable as the k-th counts only if it comes before it, as `predict` names
    them.

    >>> top_k_accuracy(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), np.array([1, 2]), k=2)
    0.5
    """
    if not len(labels):
        return 0.0
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == np.asarray(labels)[:, None]).any(axis=1).mean())


def check_probabilities(probabilities: Floats, labels: Ints) -> None:
    """ValueError unless each row sums to 1 and has a label that is one of its columns."""
    if len(probabilities) != len(labels):
        raise ValueError(
            f"expected a label for each row, got {len(labels)} labels and {len(probabilities)} rows"
        )
    if len(labels) == 0:
        return
    if not (labels.min() >= 0 and labels.max() < probabilities.shape[1]):
        raise ValueError(
            f"a label is out of [0, {probabilities.shape[1]}): {labels.min()} to {labels.max()}"
        )
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-3):
        worst = int(np.argmax(np.abs(sums - 1)))
        raise ValueError(
            f"row {worst} sums to {sums[worst]:.4g}, not 1: expected probabilities, not logits"
        )


def softmax(logits: Floats) -> NDArray[np.float64]:
    """(N, classes) -> the same shape, rows that sum to 1.

    >>> softmax(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return shifted / shifted.sum(axis=1, keepdims=True)


def sigmoid(logits: Floats) -> NDArray[np.float64]:
    """(N, classes) -> the same shape, each value a probability of its own.

    >>> sigmoid(np.array([[0.0, -800.0]])).tolist()
    [[0.5, 0.0]]
    """
    far = np.exp(-np.abs(logits.astype(np.float64)))  # never overflows
    return np.where(logits >= 0, 1, far) / (1 + far)


def average_precision(scores: Floats, there: Ints, weights: Floats | None = None) -> float:
    """How well scores rank the images that have a label before those that do not.

    The mean, over the images that have it, of the precision among all images with at least the same
    score.

    Args:
        scores: (N,), probabilities or any others.
        there: (N,), 0 or 1.
        weights: (N,), how often each image counts; once by default.

    Returns:
        A fraction in [0, 1]; 1 is best; 0 if no image has the label. Random scores give the share
        of images that have it.

    Source: checked against an independent implementation in tests/test_metrics.py.

    >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([1, 0, 1])).__round__(4)
    0.8333
    """
    _, found, others = ranked_counts(scores, there, weights)
    if not len(found) or not found[-1]:
        return 0.0
    precision = found / np.maximum(found + others, TINY)
    return float((precision * np.diff(found, prepend=0)).sum() / found[-1])


def area_under_roc(scores: Floats, there: Ints, weights: Floats | None = None) -> float:
    """The probability that an image that has a label scores higher than one that does not; ties
    count half.

    Args:
        scores, there, weights: as for `average_precision`.

    Returns:
        A fraction in [0, 1]; 1 is best, 0.5 is guessing; 0.5 where all images have it, or none.

    >>> area_under_roc(np.array([0.9, 0.8, 0.1]), np.array([1, 0, 1]))
    0.5
    """
    _, found, others = ranked_counts(scores, there, weights)
    if not len(found) or not found[-1] or not others[-1]:
        return 0.5
    halfway = found - np.diff(found, prepend=0) / 2
    return float((halfway * np.diff(others, prepend=0)).sum() / (found[-1] * others[-1]))


def ranked_counts(
    scores: Floats, there: Ints, weights: Floats | None = None
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """The different scores, the highest first, and how many images with at least that score have
    the label, and do not."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[:-1] > ranked[1:], len(ranked) > 0)[: len(ranked)]
    each = np.ones(len(order)) if weights is None else np.asarray(weights, np.float64)[order]
    has = there[order] == 1
    found, others = np.cumsum(each * has), np.cumsum(each * ~has)
    return ranked[last], found[last], others[last]


def label_calibration_error(probabilities: Floats, labels: Ints, bins: int = 15) -> float:
    """As `expected_calibration_error`, for the probability of each label; (N, classes) both."""
    p, y = probabilities.astype(np.float64).ravel(), labels.ravel()
    gaps = np.bincount(bin_of(p, bins), y - p, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(p), 1))


def summarise_labels(
    probabilities: Floats, given: NDArray[np.bool_], labels: Ints, classes: tuple[str, ...]
) -> dict[str, Any]:
    """All metrics where images have any number of labels, ready for JSON.

    Args:
        probabilities: (N, classes), each label's own.
        given: (N, classes), the labels that the classifier predicts.
        labels: (N, classes), 0 or 1.
        classes: the labels' names.

    Returns:
        n, accuracy (images whose labels are all right) and accuracy_ci95, mean_average_precision,
        macro_f1, micro_f1, log_loss (nats an image, summed over labels), ece (over all labels), and
        per_class (precision, recall, f1, average_precision, support by name). Means over labels
        count only those that an image has.

    Raises:
        ValueError: shapes differ.
    """
    if not probabilities.shape == given.shape == labels.shape == (len(labels), len(classes)):
        raise ValueError(
            f"expected (N, {len(classes)}), got {probabilities.shape}, {given.shape}, "
            f"{labels.shape}"
        )
    there = labels == 1
    right, support, answers = (given & there).sum(axis=0), there.sum(axis=0), given.sum(axis=0)
    precision, recall = right / np.maximum(answers, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(answers + support, 1)
    ap = np.array([average_precision(p, y) for p, y in zip(probabilities.T, labels.T, strict=True)])
    n, whole, seen = len(labels), int((given == there).all(axis=1).sum()), support > 0
    p = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    costs, _ = binary_cross_entropy(np.log(p / (1 - p)), labels)
    return {
        "n": n,
        "accuracy": whole / max(n, 1),
        "accuracy_ci95": list(wilson_interval(whole, n)),
        "mean_average_precision": float(ap[seen].mean()) if seen.any() else 0.0,
        "macro_f1": float(f1[seen].mean()) if seen.any() else 0.0,
        "micro_f1": float(2 * right.sum() / max(answers.sum() + support.sum(), 1)),
        "log_loss": float(costs.sum() / max(n, 1)),
        "ece": label_calibration_error(probabilities, labels),
        "per_class": {
            name: {
                "precision": float(precision[c]),
                "recall": float(recall[c]),
                "f1": float(f1[c]),
                "average_precision": float(ap[c]),
                "support": int(support[c]),
            }
            for c, name in enumerate(classes)
        },
    }


def summarise(
    probabilities: Floats,
    labels: ArrayLike,
    classes: tuple[str, ...],
    answers: Ints | None = None,
) -> dict[str, Any]:
    """All metrics of one evaluated split, as in `metrics.json`.

    Args:
        probabilities: (N, classes), each row sums to 1.
        labels: (N,), integers in [0, classes).
        classes: names.
        answers: (N,), the class that each image is given; the most probable one by default.

    Returns:
        n, accuracy, accuracy_ci95, balanced_accuracy, macro_f1, log_loss, ece, per_class
        (precision, recall, f1, support by name) and confusion (rows: true). Means over classes
        count only classes that have images.
    """
    labels = np.asarray(labels, dtype=np.int64)
    answers = probabilities.argmax(axis=1) if answers is None else answers
    confusion = confusion_matrix(labels, answers, len(classes))
    precision, recall, f1 = precision_recall_f1(confusion)
    support = confusion.sum(axis=1)
    there = support > 0
    n, right = len(labels), int(np.trace(confusion))
    return {
        "n": n,
        "accuracy": right / max(n, 1),
        "accuracy_ci95": list(wilson_interval(right, n)),
        "balanced_accuracy": float(recall[there].mean()) if there.any() else 0.0,
        "macro_f1": float(f1[there].mean()) if there.any() else 0.0,
        "log_loss": log_loss(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
        },
        "confusion": confusion.tolist(),
    }


def accepted(refused: NDArray[np.bool_], right: NDArray[np.bool_]) -> dict[str, Any]:
    """What a classifier that refuses some images says of the others.

    Args:
        refused: (N,)
        right: (N,), whether its answers are right where they are given.

    Returns:
        share: of the images that are not refused; accuracy: on those, None where there are none.

    >>> accepted(np.array([True, False]), np.array([False, True]))
    {'share': 0.5, 'accuracy': 1.0}
    """
    given = right[~refused]
    accuracy = float(given.mean()) if len(given) else None
    return {"share": float((~refused).mean()), "accuracy": accuracy}


def worst_confusions(
    confusion: list[list[int]], classes: tuple[str, ...], most: int = 5
) -> list[dict[str, Any]]:
    """The pairs of classes that are mistaken most often, as {"true", "predicted", "n", "of"}.

    >>> worst_confusions([[3, 2], [0, 4]], ("cat", "dog"))
    [{'true': 'cat', 'predicted': 'dog', 'n': 2, 'of': 5}]
    """
    wrong: list[dict[str, Any]] = [
        {"true": classes[t], "predicted": classes[p], "n": n, "of": sum(row)}
        for t, row in enumerate(confusion)
        for p, n in enumerate(row)
        if t != p and n > 0
    ]
    return sorted(wrong, key=lambda pair: -pair["n"])[:most]


def believed(figures: dict[str, Any]) -> dict[str, Any] | None:
    """Of a split in metrics.json, the figures that may be shown as a result: those without copies
    of what was learnt from; None where there are none."""
    if "without_copies" in figures:
        rest: dict[str, Any] | None = figures["without_copies"]
        return rest
    return None if figures["accuracy"] is None else figures
