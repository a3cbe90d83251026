"""Linear heads solved on frozen features: logistic regression with its penalty chosen by
cross-validation.

A head on frozen features is a convex problem, so it is solved, not trained: no learning rate, no
epochs, the same answer every time. All folds and the final fit are one problem with several
columns, so that each pass over the features serves them all. Penalties are tried from strong to
weak, each starting from the solution of the last.

    minimise over W, b   mean over images of cross-entropy(x W + b, label)  +  penalty / 2 * |W|^2

with x standardised and divided by sqrt(width), so that a penalty has the same effect for any
backbone. Where an image has any number of labels, (N, classes) of 0 and 1, cross-entropy is the sum
over the labels: one logistic regression a label, all with the same penalty.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from foveate.errors import DataError
from foveate.metrics import binary_cross_entropy, log_loss_of_logits, losses_of_logits

Array = NDArray[np.float32]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # `map`, or a pool's

PENALTIES = (1e-2, 1e-3, 3.2e-4, 1e-4, 3.2e-5, 1e-5, 3.2e-6, 1e-6, 3.2e-7, 1e-7, 3.2e-8, 1e-8)
TOLERANCE = 2e-3  # stop when a step lowers the objective by less than this part of it
BLOCK = 512  # rows that a thread works on at once
HALVINGS = 40
MEMORY = 8  # pairs of step and change of the gradient that L-BFGS keeps
# p (1 - p) of a typical class: scales the features' covariance to the objective's Hessian
CURVATURE = 0.1
EXACT = 1024  # images or features up to which all principal axes are found
AXES, SPARE = 256, 16  # else so many, and what the range finder takes on top


@dataclass(frozen=True)
class Head:
    """A solved linear head.

    Args:
        weight, bias: (classes, width) and (classes,), for raw features: standardisation and
            temperature are folded in.
        penalty: the one with the lowest out-of-fold log-loss.
        temperature: the logits were divided by it; fitted on out-of-fold logits.
        out_of_fold: (judged, classes), calibrated logits of each image that is in a fold, from a
            head that was solved, and a temperature that was fitted, without its fold.
        path: (penalty, out-of-fold log-loss) for each penalty tried.
        losses, right: (penalties, judged), of each penalty tried: each of these images' log-loss
            out of fold, by which the penalty is chosen, and whether its most probable class is its
            label, or the labels above one half all of its.
    """

    weight: Array
    bias: Array
    penalty: float
    temperature: float
    out_of_fold: Array
    path: tuple[tuple[float, float], ...]
    losses: NDArray[np.float64]
    right: NDArray[np.bool_]


def fit_head(
    features: Array,
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    classes: int,
    threads: int = 1,
    advance: Callable[[], None] = lambda: None,
    penalties: tuple[float, ...] = PENALTIES,
) -> Head:
    """Solve a head, and predict each image out of fold.

    Args:
        features: (N, width), raw.
        labels: (N,), integers in [0, classes), each class with images in at least two folds; or (N,
            classes), 0 or 1.
        folds: (N,), from 0; each image is predicted by a head that was solved without its fold. One
            of fold -1 is learnt from in every fold and never predicted.
        classes: number of classes.
        threads: cores to use. The result is bit-identical for any number: BLAS gets one thread,
            since its rounding depends on how many it has, and blocks of rows are distributed
            instead.
        advance: called after each penalty.
        penalties: to be tried, from strong to weak.

    Raises:
        DataError: a feature is not finite, or so large that the solution is not.
        ValueError: no image is in a fold.

    Cost: some ten passes over the features per penalty; before them, one symmetric eigenproblem of
        min(N, width), or where that is more than EXACT, six products with AXES columns.
    """
    if not np.isfinite(features.sum(dtype=np.float64)):  # it is where all are
        raise DataError("a head cannot be solved on features that are not all finite")
    if folds.max(initial=-1) < 0:
        raise ValueError("no image is in a fold")
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        return solve_path(features, labels, folds, classes, pool.map, advance, penalties)


def solve_path(
    features: Array,
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    classes: int,
    each: Map,
    advance: Callable[[], None],
    penalties: tuple[float, ...] = PENALTIES,
) -> Head:
    """`fit_head` with a map over blocks of rows, which may run in threads."""
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = standard_scale(features)
    rotated, spectrum, turn_back = rotate((features - mean) * scale)

    n_folds = int(folds.max()) + 1
    # the last column is the final fit
    judged = np.flatnonzero(folds >= 0)
    weights = np.ones((len(labels), n_folds + 1), dtype=np.float32)
    weights[judged, folds[judged]] = 0
    weights /= weights.sum(axis=0)

    best: tuple[float, float, Array, Array] | None = None  # loss, penalty, logits, solution
    path: list[tuple[float, float]] = []
    losses: list[NDArray[np.float64]] = []
    right: list[NDArray[np.bool_]] = []
    solution = np.zeros((n_folds + 1, rotated.shape[1] + 1, classes), dtype=np.float32)
    for penalty in penalties:
        solution = minimise(rotated, labels, weights, penalty, solution, spectrum, each, TOLERANCE)
        logits = out_of_fold_logits(rotated, solution, folds)[judged]
        losses.append(losses_of_logits(logits, labels[judged], label_smoothing(len(judged))))
        right.append(are_right(logits, labels[judged]))
        loss = float(losses[-1].mean())
        path.append((penalty, loss))
        advance()
        if best is None or loss < best[0]:
            best = (loss, penalty, logits, solution[-1])
        else:
            break  # weaker penalties overfit more and more

    assert best is not None
    _, penalty, logits, final = best
    temperature = fit_temperature(logits, labels[judged])
    weight = (turn_back(final[:-1]) * scale[:, None]).T / temperature  # (classes, width)
    bias = final[-1] / temperature - weight @ mean
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise DataError(
            f"the head's solution is not finite: features reach {np.abs(features).max():.3g}"
        )
    return Head(
        weight=np.ascontiguousarray(weight, dtype=np.float32),
        bias=bias.astype(np.float32),
        penalty=penalty,
        temperature=temperature,
        out_of_fold=calibrated_without_fold(logits, labels[judged], folds[judged]),
        path=tuple(path),
        losses=np.stack(losses),
        right=np.stack(right),
    )


def standard_scale(features: Array) -> Array:
    """(width,), 1 / (deviation * sqrt(width)), to multiply features by; 0 for a constant one."""
    # in f32 the mean of a constant is not exactly that constant, so its deviation is not 0
    deviation = features.std(axis=0, dtype=np.float64)
    moves = deviation > 1e-6 * np.abs(features).max(axis=0)
    scale = np.where(moves, 1 / np.where(moves, deviation, 1), 0) / np.sqrt(features.shape[1])
    return scale.astype(np.float32)


def rotate(x: Array) -> tuple[Array, Array, Callable[[Array], Array]]:
    """Turn features towards their principal axes, where the covariance is diagonal and so cheap to
    divide by.

    A rotation changes neither the objective nor the penalty. All axes are found where images or
    features are at most EXACT; axes with less than a millionth of the largest variance are then
    dropped: they are rounding errors. Else only the AXES of the most variance are, and the space
    across them stays as it is, with one variance for all of it: L-BFGS needs as many passes.

    Returns:
        (N, D), the variance of each axis, (D,), and what turns a solution, (D, classes), back into
        one for the features, (width, classes).
    """
    n, width = x.shape
    if min(n, width) > EXACT:
        return rotate_first(x)
    if n >= width:
        spectrum, directions = np.linalg.eigh(x.T @ x / np.float32(n))
        keep = spectrum > 1e-6 * spectrum[-1]
        spectrum, directions = spectrum[keep], np.ascontiguousarray(directions[:, keep])
        return np.ascontiguousarray(x @ directions), spectrum, directions.__matmul__
    # fewer images than features: the smaller eigenproblem has the same non-zero eigenvalues
    spectrum, rows = np.linalg.eigh(x @ x.T / np.float32(n))
    keep = spectrum > 1e-6 * spectrum[-1]
    spectrum, rows = spectrum[keep], rows[:, keep]
    lengths = np.sqrt(spectrum * np.float32(n))
    directions = np.ascontiguousarray(x.T @ (rows / lengths))
    return np.ascontiguousarray(rows * lengths), spectrum, directions.__matmul__


def rotate_first(x: Array) -> tuple[Array, Array, Callable[[Array], Array]]:
    """`rotate` towards the first AXES alone.

    Their directions U, (width, AXES), are the first columns of one orthogonal matrix
    Q = 1 + W S W', with W = U - E, E the first columns of the identity, and S the inverse of
    E'U' - 1: a block of Householder reflections (Schreiber and Parlett, 1988), applied without ever
    being formed.
    """
    variances, u = principal_axes(x, AXES)
    axes = len(variances)
    # the signs that keep the matrix to be inverted away from singular
    u *= np.where(np.diagonal(u) > 0, np.float32(-1), np.float32(1))
    w = u.copy()
    w[np.arange(axes), np.arange(axes)] -= 1
    s = np.linalg.inv((u[:axes].T - np.eye(axes)).astype(np.float64)).astype(np.float32)
    spectrum = np.full(x.shape[1], variances.min() / 2, dtype=np.float32)
    spectrum[:axes] = variances

    def turn_back(solution: Array) -> Array:
        return np.asarray(solution + w @ (s @ (w.T @ solution)), np.float32)

    return np.asarray(x + (x @ w) @ s @ w.T, np.float32), spectrum, turn_back


def principal_axes(x: Array, axes: int) -> tuple[Array, Array]:
    """The largest variances of features, and their directions, (width, axes): a randomised range
    finder with two power iterations (Halko, Martinsson and Tropp, arXiv:0909.4061, algorithm 4.4).
    """
    start = np.random.default_rng(0).standard_normal((x.shape[1], axes + SPARE))
    basis = start.astype(np.float32)
    for _ in range(2):
        basis, _ = np.linalg.qr(x.T @ (x @ basis))
    inside = x @ basis
    variances, turned = np.linalg.eigh(inside.T @ inside / np.float32(len(x)))
    return variances[SPARE:], basis @ turned[:, SPARE:]


def minimise(
    x: Array,
    labels: NDArray[np.int64],
    weights: Array,
    penalty: float,
    start: Array,
    spectrum: Array,
    each: Map = map,
    tolerance: float = TOLERANCE,
    most: int = 100,
) -> Array:
    """L-BFGS on several weighted problems at once; each has its own step, all share each pass.

    Args:
        x: (N, D), rotated features.
        labels: (N,).
        weights: (N, F), an image's weight in each problem; each column sums to 1.
        penalty: on the squares of all weights but the bias.
        start: (F, D + 1, classes), the bias last.
        spectrum: (D,), the variance of each feature; it preconditions the steps.
        each: goes through the blocks of rows, perhaps in threads.

    Returns:
        (F, D + 1, classes).
    """
    # Variables are scaled so that the Hessian is near the identity: v = scale * u.
    scale = np.append(1 / np.sqrt(CURVATURE * spectrum + penalty), 1 / np.sqrt(CURVATURE))
    scale = scale.astype(np.float32)[:, None]
    decay = np.full((len(spectrum) + 1, 1), penalty, dtype=np.float32)
    decay[-1] = 0

    def evaluate(u: Array) -> tuple[Array, Array]:
        v = scale * u
        loss, slope = cross_entropy(x, labels, weights, v, each)
        return loss + (decay * v**2).sum(axis=(1, 2)) / 2, scale * (slope + decay * v)

    u = start / scale
    loss, slope = evaluate(u)
    pairs: list[tuple[Array, Array, Array]] = []  # step, change of the slope, 1 / their product
    for _ in range(most):
        direction = -two_loops(slope, pairs)
        descent = dot(slope, direction)
        step = np.ones(len(u), dtype=np.float32)
        # Halve each problem's step until it descends enough (Armijo). From zero at a weak penalty
        # the first direction is far too long.
        for _ in range(HALVINGS):
            candidate = u + step[:, None, None] * direction
            new_loss, new_slope = evaluate(candidate)
            short = new_loss > loss + 1e-4 * step * descent + 1e-6 * np.abs(loss)
            if not short.any():
                break
            step = np.where(short, step / 2, step).astype(np.float32)
        moved, bent = candidate - u, new_slope - slope
        product = dot(moved, bent)
        # 0 where a problem did not move or has no curvature: the pair is then without effect
        inverse = np.where(product > 1e-12, 1 / np.maximum(product, 1e-12), 0).astype(np.float32)
        pairs = [*pairs, (moved, bent, inverse)][-MEMORY:]
        gain = (loss - new_loss) / np.maximum(np.abs(new_loss), 1e-9)
        u, loss, slope = candidate, new_loss, new_slope
        if gain.max() < tolerance:
            break
    return scale * u


def two_loops(slope: Array, pairs: list[tuple[Array, Array, Array]]) -> Array:
    """The inverse Hessian times the slope, of each problem (Nocedal and Wright, algorithm 7.4)."""
    q = slope.copy()
    factors = []
    for moved, bent, inverse in reversed(pairs):
        factors.append(inverse * dot(moved, q))
        q -= factors[-1][:, None, None] * bent
    if pairs:
        moved, bent, _ = pairs[-1]
        q *= (dot(moved, bent) / np.maximum(dot(bent, bent), 1e-30))[:, None, None]
    for (moved, bent, inverse), factor in zip(pairs, reversed(factors), strict=True):
        q += (factor - inverse * dot(bent, q))[:, None, None] * moved
    return q


def cross_entropy(
    x: Array, labels: NDArray[np.int64], weights: Array, v: Array, each: Map = map
) -> tuple[Array, Array]:
    """Weighted mean cross-entropy of each problem, (F,), and its slope, (F, D + 1, classes).

    Labels are classes, (N,), or 0 and 1, (N, classes). The blocks of rows depend on N alone, and
    are added up in order: the sum is the same for any number of threads.
    """
    blocks = [slice(i, i + BLOCK) for i in range(0, len(x), BLOCK)]
    parts = list(
        each(lambda rows: block_cross_entropy(x[rows], labels[rows], weights[rows], v), blocks)
    )
    loss, slope = parts[0]
    for more_loss, more_slope in parts[1:]:
        loss += more_loss
        slope += more_slope
    return loss, slope


def block_cross_entropy(
    x: Array, labels: NDArray[np.int64], weights: Array, v: Array
) -> tuple[Array, Array]:
    """One block's part of `cross_entropy`."""
    problems, width, classes = v.shape
    flat = v.transpose(1, 0, 2).reshape(width, problems * classes)
    logits = (x @ flat[:-1] + flat[-1]).reshape(len(x), problems, classes)
    if labels.ndim == 2:
        costs, slopes = binary_cross_entropy(logits, labels[:, None].astype(np.float32))
        loss = (weights * costs.sum(axis=2)).sum(axis=0)
        logits = slopes * weights[:, :, None]
    else:
        logits -= logits.max(axis=2, keepdims=True)
        rows = np.arange(len(x))
        right = logits[rows, :, labels]  # (N, F)
        np.exp(logits, out=logits)
        total = logits.sum(axis=2)
        loss = (weights * (np.log(total) - right)).sum(axis=0)
        logits *= (weights / total)[:, :, None]  # weighted probabilities
        logits[rows, :, labels] -= weights
    flat_slope = logits.reshape(len(x), problems * classes)
    slope = np.empty((width, problems * classes), dtype=np.float32)
    slope[:-1] = x.T @ flat_slope
    slope[-1] = flat_slope.sum(axis=0)
    return loss, np.ascontiguousarray(slope.reshape(width, problems, classes).transpose(1, 0, 2))


def dot(a: Array, b: Array) -> Array:
    """(F, ...) and (F, ...) -> (F,)"""
    return np.einsum("fi,fi->f", a.reshape(len(a), -1), b.reshape(len(b), -1))


def out_of_fold_logits(x: Array, solution: Array, folds: NDArray[np.int64]) -> Array:
    """(N, classes), each image's logits from the problem without its fold; 0 of fold -1."""
    logits = np.zeros((len(x), solution.shape[2]), dtype=np.float32)
    for fold in range(len(solution) - 1):
        rows = folds == fold
        logits[rows] = x[rows] @ solution[fold, :-1] + solution[fold, -1]
    return logits


def are_right(logits: Array, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,), whether the most probable class is the label, or the labels above one half all of
    them."""
    if labels.ndim == 2:
        return ((logits > 0) == (labels == 1)).all(axis=1)
    return logits.argmax(axis=1) == labels


def calibrated_without_fold(
    logits: Array, labels: NDArray[np.int64], folds: NDArray[np.int64]
) -> Array:
    """(N, classes), each fold's logits over the temperature of the other folds."""
    result = np.empty_like(logits)
    for fold in np.unique(folds):
        others = folds != fold
        fitted = others if others.any() else ~others  # of one fold alone
        temperature = fit_temperature(logits[fitted], labels[fitted])
        result[~others] = logits[~others] / np.float32(temperature)
    return result


def label_smoothing(n: int) -> float:
    """The label smoothing under which penalty and temperature are chosen: 1 / (n + 2).

    Laplace's rule of succession, as in Platt's targets: even if all of n images are right, the next
    may be wrong. Without it, classes that are separated without error would get a penalty and a
    temperature near 0, and probabilities of 1.
    """
    return 1 / (n + 2)


def fit_temperature(logits: Array, labels: NDArray[np.int64]) -> float:
    """The temperature that makes logits / temperature most probable (Guo et al., arXiv:1706.04599).

    Labels are smoothed by `label_smoothing`. The log-loss is convex in 1 / temperature, so a
    golden-section search on its logarithm finds the minimum, here within [0.05, 20].
    """
    golden, smoothing = (np.sqrt(5) - 1) / 2, label_smoothing(len(labels))

    def loss(log_temperature: float) -> float:
        return log_loss_of_logits(logits / np.exp(log_temperature), labels, smoothing)

    low, high = np.log(0.05), np.log(20)
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
