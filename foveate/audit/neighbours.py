"""Which images are alike, by their vectors: nearest neighbours, without a matrix of all pairs."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Rows = NDArray[np.int64]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # `map`, or a pool's

DIMENSIONS = 192  # that features are reduced to
SAMPLE = 4096  # images from which their principal axes are found
BLOCK = 256  # rows of a similarity matrix that are in memory at once


def whitened(features: Array, each: Map, dimensions: int = DIMENSIONS) -> Array:
    """(N, width) -> (N, at most `dimensions`), unit vectors along the principal axes, each with the
    same variance: what many images share counts little, what tells one from others much.

    The axes are found by subspace iteration on a sample (Halko et al., arXiv:0909.4061).
    """
    n, width = features.shape
    rng = np.random.default_rng(0)
    mean, scale = features.mean(axis=0), 1 / (features.std(axis=0) + np.float32(1e-6))
    sample = (features[rng.permutation(n)[:SAMPLE]] - mean) * scale
    kept = min(dimensions, max(1, n // 4), width)
    axes = rng.standard_normal((width, min(kept + 32, width)), dtype=np.float32)
    for _ in range(2):
        axes = np.linalg.qr(sample.T @ (sample @ axes))[0]
    seen = sample @ axes
    spectrum, turn = np.linalg.eigh(seen.T @ seen / np.float32(len(sample)))
    spectrum, axes = spectrum[-kept:], axes @ turn[:, -kept:]
    axes *= 1 / np.sqrt(np.maximum(spectrum, max(1e-6 * spectrum[-1], 1e-12)))
    axes *= scale[:, None]
    shift = mean @ axes
    blocks = (features[i : i + 1024] for i in range(0, n, 1024))
    return unit(np.concatenate(list(each(lambda block: block @ axes - shift, blocks))))


def unit(x: Array) -> Array:
    return np.ascontiguousarray(x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-12), np.float32)


def nearest(x: Array, k: int, each: Map) -> Rows:
    """(pairs, 2), each of the N unit vectors with its k most similar ones, smaller row first.

    The k largest of a row lie in the k strips with the largest maxima, and the maxima of strips are
    found as fast as memory is read.
    """
    n = len(x)
    k = min(k, n - 1)
    strips = -(-n // 64)
    padded = np.zeros((strips * 64, x.shape[1]), np.float32)
    padded[:n] = x

    def of_block(start: int) -> Rows:
        rows = np.arange(start, min(start + BLOCK, n))
        similar = x[rows] @ padded.T
        similar[:, n:] = -2
        similar[np.arange(len(rows)), rows] = -2
        # strip s has the columns s, s + strips, s + 2 * strips ...
        columns = np.arange(64 * strips).reshape(64, strips)
        if strips > k:
            highest = similar.reshape(len(rows), 64, strips).max(axis=1)
            best = np.argpartition(highest, -k, axis=1)[:, -k:]
            found = columns[:, best].transpose(1, 0, 2).reshape(len(rows), -1)
        else:
            found = np.broadcast_to(columns.ravel(), similar.shape)
        values = np.take_along_axis(similar, found, axis=1)
        top = np.argpartition(values, -k, axis=1)[:, -k:]
        others = np.take_along_axis(found, top, axis=1)
        pairs = np.stack([np.repeat(rows, k), others.ravel()], axis=1)
        return np.sort(pairs, axis=1)

    return np.concatenate(list(each(of_block, range(0, n, BLOCK))))


def components(n: int, pairs: Rows) -> Rows:
    """(n,), the smallest row that each row is connected to.

    >>> components(5, np.array([[3, 4], [1, 3]])).tolist()
    [0, 1, 2, 1, 1]
    """
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]  # path halving
            i = parent[i]
        return i

    for a, b in pairs.tolist():
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.array([root(i) for i in range(n)], dtype=np.int64)
