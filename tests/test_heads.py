"""The solver against scikit-learn's, on problems of many shapes."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from foveate.data.splits import stratified_folds
from foveate.heads import (
    PENALTIES,
    Head,
    cross_entropy,
    fit_head,
    fit_temperature,
    minimise,
    rotate,
    rotate_first,
    standard_scale,
)
from foveate.metrics import log_loss_of_logits, sigmoid, softmax

Problem = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]


def problem(
    n: int = 240, width: int = 12, classes: int = 3, noise: float = 3.0, seed: int = 0
) -> Problem:
    """Overlapping clouds of several scales -> features, labels, folds."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    centres = rng.normal(size=(classes, width))
    x = (centres[labels] + noise * rng.normal(size=(n, width))) * rng.uniform(
        0.5, 2, width
    ) + rng.normal(size=width)
    return x.astype(np.float32), labels, stratified_folds(labels, np.arange(n), 5, seed)


def standardised(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """As in heads.py: each feature to mean 0 and deviation 1, then divided by sqrt(width)."""
    x64 = x.astype(np.float64)
    deviation = x64.std(axis=0)
    return (x64 - x64.mean(axis=0)) / np.where(deviation > 0, deviation, 1) / np.sqrt(x.shape[1])


def sklearn_probabilities(
    z: NDArray[np.float64], labels: NDArray[np.int64], penalty: float, judged: NDArray[np.float64]
) -> NDArray[np.float64]:
    """scikit-learn sums the loss where we average it. With two classes it has one row of weights, w
    = w1 - w0, whose penalty is half of ours on the two rows w1 = -w0 = w/2."""
    c = (2 if labels.max() == 1 else 1) / (len(labels) * penalty)
    return LogisticRegression(C=c, tol=1e-9, max_iter=20_000).fit(z, labels).predict_proba(judged)


def probabilities(head: Head, x: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """What the head says of raw features, with its temperature taken out again."""
    return softmax(
        temperature * (x.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias)
    )


@pytest.fixture
def uncalibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.heads.fit_temperature", lambda *_: 1.0)


@pytest.mark.parametrize("penalty", [3e-2, 1e-3, 3e-5])
@pytest.mark.parametrize(
    ("n", "width", "classes"), [(240, 12, 3), (240, 12, 2), (150, 40, 7), (60, 300, 3), (61, 61, 2)]
)
def test_the_optimum_is_sklearns(n: int, width: int, classes: int, penalty: float) -> None:
    x, labels, _ = problem(n, width, classes)
    z = standardised(x)
    rotated, spectrum, turn_back = rotate(z.astype(np.float32))
    weights = np.full((n, 1), 1 / n, np.float32)
    start = np.zeros((1, rotated.shape[1] + 1, classes), np.float32)
    solution = minimise(rotated, labels, weights, penalty, start, spectrum, tolerance=0, most=300)[
        0
    ]
    found = softmax(rotated @ solution[:-1] + solution[-1])
    np.testing.assert_allclose(found, sklearn_probabilities(z, labels, penalty, z), atol=2e-3)
    # the same on standardised features, turned back
    np.testing.assert_allclose(
        softmax(z @ turn_back(solution[:-1]) + solution[-1]), found, atol=1e-3
    )


@pytest.mark.parametrize(
    ("n", "width", "classes"), [(240, 12, 3), (240, 12, 2), (150, 40, 7), (60, 300, 3)]
)
def test_the_head_is_sklearns(n: int, width: int, classes: int) -> None:
    x, labels, folds = problem(n, width, classes)
    head = fit_head(x, labels, folds, classes)
    z = standardised(x)
    assert head.weight.shape == (classes, width) and head.bias.shape == (classes,)
    assert head.weight.dtype == head.bias.dtype == head.out_of_fold.dtype == np.float32
    expected = sklearn_probabilities(z, labels, head.penalty, z)
    np.testing.assert_allclose(probabilities(head, x, head.temperature), expected, atol=0.03)


@pytest.mark.parametrize(("n", "width", "classes"), [(240, 12, 3), (150, 40, 7), (60, 300, 3)])
def test_out_of_fold_logits_are_those_of_refits(
    n: int, width: int, classes: int, uncalibrated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.heads.TOLERANCE", 1e-4)
    x, labels, folds = problem(n, width, classes)
    head = fit_head(x, labels, folds, classes)
    z, expected = standardised(x), np.empty((n, classes))
    for fold in range(5):
        out = folds == fold
        expected[out] = sklearn_probabilities(z[~out], labels[~out], head.penalty, z[out])
    np.testing.assert_allclose(softmax(head.out_of_fold), expected, atol=0.03)


def test_the_penalty_is_the_best_of_the_path() -> None:
    x, labels, folds = problem()
    steps: list[None] = []
    head = fit_head(x, labels, folds, 3, advance=lambda: steps.append(None))
    assert len(steps) == len(head.path) and [p for p, _ in head.path] == list(
        PENALTIES[: len(head.path)]
    )
    assert head.penalty == min(head.path, key=lambda step: step[1])[0]
    z = standardised(x)
    for penalty, loss in head.path:
        refits = np.empty((len(x), 3))
        for fold in range(5):
            out = folds == fold
            refits[out] = sklearn_probabilities(z[~out], labels[~out], penalty, z[out])
        smoothing = 1 / (len(x) + 2)
        smooth = (1 - smoothing) * np.log(refits[np.arange(len(x)), labels]) + smoothing * np.log(
            refits
        ).mean(axis=1)
        assert loss == pytest.approx(-smooth.mean(), rel=0.02)


def test_penalties_go_from_strong_to_weak() -> None:
    assert list(PENALTIES) == sorted(PENALTIES, reverse=True)
    assert (PENALTIES[0], PENALTIES[-1]) == (1e-2, 1e-8)


def test_cross_entropy_and_its_slope_by_differences() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(20, 4)).astype(np.float32), rng.integers(0, 3, 20)
    weights = rng.dirichlet(np.ones(20), 2).T.astype(np.float32)
    v = rng.normal(size=(2, 5, 3)).astype(np.float32)

    def loss(v: NDArray[np.float64]) -> NDArray[np.float64]:
        each = [softmax(x @ w[:-1] + w[-1])[np.arange(20), labels] for w in v]
        return -(weights.T * np.log(np.stack(each))).sum(axis=1)

    found, slope = cross_entropy(x, labels, weights, v)
    np.testing.assert_allclose(found, loss(v), rtol=1e-5)
    for place in np.ndindex(v.shape):
        up, down = v.astype(np.float64), v.astype(np.float64)
        up[place] += 1e-4
        down[place] -= 1e-4
        assert slope[place] == pytest.approx((loss(up) - loss(down))[place[0]] / 2e-4, abs=1e-5)


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (20, 20)])
def test_rotation_keeps_all_products(shape: tuple[int, int]) -> None:
    x = standardised(np.random.default_rng(0).normal(size=shape).astype(np.float32)).astype(
        np.float32
    )
    rotated, spectrum, turn_back = rotate(x)
    directions = turn_back(np.eye(len(spectrum), dtype=np.float32))
    np.testing.assert_allclose(rotated, x @ directions, atol=1e-5)
    np.testing.assert_allclose(rotated @ rotated.T, x @ x.T, atol=1e-5)
    np.testing.assert_allclose(directions.T @ directions, np.eye(len(spectrum)), atol=1e-4)
    np.testing.assert_allclose(rotated.T @ rotated / len(x), np.diag(spectrum), atol=1e-5)


@pytest.mark.parametrize("shape", [(90, 60), (60, 90)])
def test_a_rotation_towards_the_first_axes_finds_them(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.heads.AXES", 5)
    rng = np.random.default_rng(0)
    strong = rng.normal(size=(shape[0], 5)) @ rng.normal(size=(5, shape[1]))
    x = standardised(strong + 0.05 * rng.normal(size=shape)).astype(np.float32)
    all_axes, spectrum = np.linalg.eigh(x.T @ x / len(x))
    rotated, found, turn_back = rotate_first(x)
    directions = turn_back(np.eye(shape[1], dtype=np.float32))
    np.testing.assert_allclose(found[:5], all_axes[-5:], rtol=1e-4)
    assert (found[5:] == found[:5].min() / 2).all()
    np.testing.assert_allclose(rotated, x @ directions, atol=1e-5)
    np.testing.assert_allclose(directions.T @ directions, np.eye(shape[1]), atol=1e-4)
    covariance = rotated.T @ rotated / len(x)
    np.testing.assert_allclose(covariance[:5], np.diag(found[:5]) @ np.eye(5, shape[1]), atol=1e-4)
    assert np.abs(np.abs(np.sum(directions[:, :5] * spectrum[:, -5:], axis=0)) - 1).max() < 1e-3


@pytest.mark.parametrize("n", [60, 300])
def test_a_path_may_begin_at_any_penalty(n: int) -> None:
    """From zero at a weak penalty the first direction is thousands of times too long."""
    x, labels, folds = problem(n, 80, 4, noise=0.1)
    whole = fit_head(x, labels, folds, 4)
    for penalty in (1e-6, 1e-7, 1e-8):
        alone = fit_head(x, labels, folds, 4, penalties=(penalty,))
        assert alone.losses.mean() < whole.losses.mean(axis=1).min() + 0.2


def test_both_rotations_solve_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.heads.TOLERANCE", 1e-4)
    x, labels, folds = problem(300, 80, 4)
    exact = fit_head(x, labels, folds, 4)
    monkeypatch.setattr("foveate.heads.EXACT", 40)
    monkeypatch.setattr("foveate.heads.AXES", 20)
    found = fit_head(x, labels, folds, 4)
    assert found.penalty == exact.penalty
    np.testing.assert_allclose(softmax(found.out_of_fold), softmax(exact.out_of_fold), atol=0.02)


# Folding: what is saved reads raw features


@pytest.mark.parametrize("seed", range(3))
def test_shifted_and_stretched_features_change_no_probability(seed: int) -> None:
    x, labels, folds = problem(seed=seed)
    rng = np.random.default_rng(seed)
    moved = (x * rng.uniform(0.1, 10, 12) + rng.normal(size=12)).astype(np.float32)
    a, b = fit_head(x, labels, folds, 3), fit_head(moved, labels, folds, 3)
    assert a.penalty == b.penalty and a.temperature == pytest.approx(b.temperature, rel=1e-2)
    np.testing.assert_allclose(probabilities(a, x, 1), probabilities(b, moved, 1), atol=5e-3)


def test_features_of_very_different_scale() -> None:
    """Eight decades apart, all of them carry the label."""
    x, labels, folds = problem()
    scaled = (x * 10.0 ** np.linspace(-4, 4, 12)).astype(np.float32)
    a, b = fit_head(x, labels, folds, 3), fit_head(scaled, labels, folds, 3)
    assert (np.abs(b.weight) > 0).all()
    np.testing.assert_allclose(probabilities(a, x, 1), probabilities(b, scaled, 1), atol=0.02)


def test_temperature_is_folded_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels, folds = problem()
    head = fit_head(x, labels, folds, 3)
    monkeypatch.setattr("foveate.heads.fit_temperature", lambda *_: 1.0)
    plain = fit_head(x, labels, folds, 3)
    np.testing.assert_allclose(head.weight * head.temperature, plain.weight, rtol=1e-5)
    np.testing.assert_allclose(head.bias * head.temperature, plain.bias, rtol=1e-4, atol=1e-5)


def test_each_fold_is_calibrated_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels, folds = problem()
    head = fit_head(x, labels, folds, 3)
    monkeypatch.setattr("foveate.heads.fit_temperature", lambda *_: 1.0)
    plain = fit_head(x, labels, folds, 3).out_of_fold
    monkeypatch.undo()
    for fold in range(5):
        out = folds == fold
        temperature = fit_temperature(plain[~out], labels[~out])
        np.testing.assert_allclose(head.out_of_fold[out] * temperature, plain[out], rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e4])
def test_a_constant_feature_changes_nothing(value: float) -> None:
    """Also where its mean in float32 is not quite itself."""
    x, labels, folds = problem(n=2400, noise=5)
    more = np.column_stack([x, np.full(len(x), value, np.float32)])
    head = fit_head(more, labels, folds, 3)
    assert not head.weight[:, -1].any()
    expected = sklearn_probabilities(standardised(more), labels, head.penalty, standardised(more))
    np.testing.assert_allclose(probabilities(head, more, head.temperature), expected, atol=0.03)


def test_only_constant_features_leave_the_shares_of_the_classes() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    folds = np.arange(40) % 5
    head = fit_head(np.full((40, 3), 5, np.float32), labels, folds, 2)
    shares = softmax(head.temperature * (np.full((1, 3), 5) @ head.weight.T + head.bias))
    np.testing.assert_allclose(shares, [[0.75, 0.25]], atol=0.02)


def test_standard_scale_by_hand() -> None:
    x = np.array([[1, 5, 1e6], [3, 5, 2e6]], np.float32)
    np.testing.assert_allclose(standard_scale(x), np.array([1, 0, 2e-6]) / np.sqrt(3), rtol=1e-6)


# Odd problems


def test_a_class_absent_from_one_fold(uncalibrated: None) -> None:
    x, labels, folds = problem(classes=4)
    folds = np.where((labels == 3) & (folds == 0), 1, folds)
    head = fit_head(x, labels, folds, 4)
    z, out = standardised(x), folds == 0
    expected = sklearn_probabilities(z[~out], labels[~out], head.penalty, z[out])
    np.testing.assert_allclose(softmax(head.out_of_fold[out]), expected, atol=0.03)


def test_a_class_that_is_all_in_one_fold() -> None:
    """A group that cannot be split: its head has not seen its class; the others are unaffected."""
    x, labels, folds = problem(classes=3, noise=0.5)
    folds = np.where(labels == 2, 0, folds)
    head = fit_head(x, labels, folds, 3)
    assert all(np.isfinite(array).all() for array in (head.weight, head.bias, head.out_of_fold))
    right = (x @ head.weight.T + head.bias).argmax(axis=1) == labels
    assert right.mean() > 0.9
    assert (head.out_of_fold.argmax(axis=1) == labels)[labels != 2].mean() > 0.9


@pytest.mark.parametrize(("n", "classes"), [(4, 2), (6, 3), (10, 2)])
def test_a_handful_of_images(n: int, classes: int) -> None:
    x, labels, folds = problem(n, 2064, classes, noise=0.1)
    head = fit_head(x, labels, folds, classes)
    assert np.isfinite(head.weight).all() and head.temperature > 0
    assert ((x @ head.weight.T + head.bias).argmax(axis=1) == labels).all()


def test_clouds_far_apart_stay_finite() -> None:
    x, labels, folds = problem(noise=0.01)
    head = fit_head(x, labels, folds, 3)
    assert np.isfinite(head.weight).all() and 0.05 <= head.temperature <= 20
    assert (head.out_of_fold.argmax(axis=1) == labels).all()


def test_identical_images_in_two_classes() -> None:
    """Nothing can be learnt, and the head says so."""
    x, labels = np.ones((20, 5), np.float32), np.arange(20) % 2
    x[10:] += 1
    head = fit_head(x, labels, np.arange(20) // 2 % 5, 2)
    np.testing.assert_allclose(softmax(x @ head.weight.T + head.bias), 0.5, atol=0.02)


def test_ninety_nine_to_one() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 396 + [1] * 4)
    x = (rng.normal(size=(400, 6)) + 3 * labels[:, None]).astype(np.float32)
    head = fit_head(x, labels, np.arange(400) % 5, 2)
    z = standardised(x)
    expected = sklearn_probabilities(z, labels, head.penalty, z)
    np.testing.assert_allclose(probabilities(head, x, head.temperature), expected, atol=0.03)


@pytest.mark.parametrize(("n", "width"), [(300, 2064), (3000, 300)])
def test_the_same_bytes_every_time_whatever_the_threads(n: int, width: int) -> None:
    x, labels, folds = problem(n, width)
    a, b = fit_head(x, labels, folds, 3, threads=1), fit_head(x.copy(), labels, folds, 3, threads=3)
    assert a.weight.tobytes() + a.bias.tobytes() == b.weight.tobytes() + b.bias.tobytes()
    assert (a.penalty, a.temperature, a.path) == (b.penalty, b.temperature, b.path)


# Temperature


@pytest.mark.parametrize("true", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_temperature_equals_a_grid(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 5)) * 2
    labels = np.array([rng.choice(5, p=p) for p in softmax(logits)])
    stretched = (logits * true).astype(np.float32)
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 3000))
    target = np.full((400, 5), 1 / 402 / 5)
    target[np.arange(400), labels] += 1 - 1 / 402
    losses = [-(target * np.log(softmax(stretched / t) + 1e-300)).sum(axis=1).mean() for t in grid]
    assert fit_temperature(stretched, labels) == pytest.approx(
        grid[int(np.argmin(losses))], rel=0.01
    )


def test_temperature_has_bounds() -> None:
    logits = np.array([[1, 0], [0, 1]], np.float32)
    # always wrong: say nothing
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("n", [2, 20, 200])
def test_certainty_is_what_n_images_can_prove(n: int) -> None:
    """All right, by a small margin: the temperature gives 1 - 1/(n+2)."""
    logits, labels = (
        np.tile(np.array([[1, 0], [0, 1]], np.float32), (n // 2, 1)),
        np.tile([0, 1], n // 2),
    )
    confidence = softmax(logits / fit_temperature(logits, labels)).max(axis=1)
    np.testing.assert_allclose(confidence, 1 - 1 / (2 * (n + 2)), rtol=1e-4)


def test_log_loss_by_hand() -> None:
    logits = np.array([[0, 0], [np.log(3), 0]], np.float32)
    assert log_loss_of_logits(logits, np.array([0, 1])) == pytest.approx(
        (np.log(2) + np.log(4)) / 2
    )
    assert log_loss_of_logits(logits + 1000, np.array([0, 1])) == pytest.approx(
        (np.log(2) + np.log(4)) / 2, rel=1e-4
    )


# Several labels an image


def labelled(n: int = 300, width: int = 8, classes: int = 3, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)) * rng.uniform(0.5, 2, width)
    labels = (x @ rng.normal(size=(width, classes)) + rng.normal(size=(n, classes)) * 2 > 1).astype(
        np.int64
    )
    return x.astype(np.float32), labels, stratified_folds(labels, np.arange(n), 5, seed)


@pytest.mark.parametrize("penalty", [1e-2, 1e-4])
def test_labels_are_sklearns_regressions(penalty: float) -> None:
    """One a label, each with the penalty."""
    x, labels, _ = labelled()
    z = standardised(x)
    rotated, spectrum, turn_back = rotate(z.astype(np.float32))
    weights = np.full((len(x), 1), 1 / len(x), np.float32)
    start = np.zeros((1, rotated.shape[1] + 1, labels.shape[1]), np.float32)
    found = minimise(rotated, labels, weights, penalty, start, spectrum, tolerance=1e-7)[0]
    ours = sigmoid(z @ turn_back(found[:-1]) + found[-1])
    for c in range(labels.shape[1]):
        regression = LogisticRegression(C=1 / (len(x) * penalty), tol=1e-9, max_iter=20_000).fit(
            z, labels[:, c]
        )
        np.testing.assert_allclose(ours[:, c], regression.predict_proba(z)[:, 1], atol=5e-3)  # f32


def test_slope_of_labels_by_differences() -> None:
    x, labels, folds = labelled(40, 5, 2)
    weights = np.stack([folds != 0, folds != 1], axis=1) / 40.0
    v = np.random.default_rng(1).normal(size=(2, 6, 2))
    loss, slope = cross_entropy(x.astype(np.float64), labels, weights, v)
    assert loss.shape == (2,) and slope.shape == v.shape
    for place in [(0, 0, 0), (1, 3, 1), (0, 5, 1), (1, 5, 0)]:
        step = np.zeros_like(v)
        step[place] = 1e-3
        up, down = (cross_entropy(x, labels, weights, v + s)[0] for s in (step, -step))
        assert (up - down)[place[0]] / 2e-3 == pytest.approx(slope[place], rel=1e-2, abs=1e-4)


def test_a_head_of_labels_is_calibrated_and_judged_out_of_fold() -> None:
    x, labels, folds = labelled(600)
    head = fit_head(x, labels, folds, labels.shape[1])
    assert head.weight.shape == (3, 8) and head.out_of_fold.shape == (600, 3)
    p = sigmoid(head.out_of_fold)
    assert np.abs(p.mean(axis=0) - labels.mean(axis=0)).max() < 0.02
    assert log_loss_of_logits(head.out_of_fold, labels) < log_loss_of_logits(
        np.zeros((600, 3), np.float32), labels
    )
    assert fit_head(x, labels, folds, 3, threads=2).weight.tobytes() == head.weight.tobytes()


def test_log_loss_of_labels_by_hand() -> None:
    logits, labels = np.array([[0.0, 100.0]], np.float32), np.array([[1, 0]])
    assert log_loss_of_logits(logits, labels) == pytest.approx(np.log(2) + 100)
    assert log_loss_of_logits(logits, labels, smoothing=0.5) == pytest.approx(np.log(2) + 75)


def test_a_temperature_of_labels_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 2)) * 2
    labels = (rng.random((4000, 2)) < sigmoid(logits)).astype(np.int64)
    assert fit_temperature((3 * logits).astype(np.float32), labels) == pytest.approx(3, rel=0.1)
