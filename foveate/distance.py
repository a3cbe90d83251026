"""How far features are from those of other images.

Features are standardised and reduced to a few hundred numbers that keep distances: the coordinates
along the principal axes, and a random projection of what lies across them (Johnson and
Lindenstrauss), since what is new in an image often shows where training images hardly vary.

    nearest      mean distance to the nearest of some images; knows of no classes
    Gaussians    one mean a class and one shrunk covariance: squared Mahalanobis distances, and with
                 them the linear discriminant
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.heads import SPARE, principal_axes, standard_scale

Array = NDArray[np.float32]
Labels = NDArray[np.int64]

AXES = 128  # principal axes that are kept
ACROSS = 128  # random directions across them
SAMPLE = 1024  # images from which the axes are found
NEAREST = 5  # images whose distances are averaged
SHRINK = 0.1  # of a covariance towards the same variance in all directions
BLOCK = 1024  # rows of a matrix of distances at once
SMALL = 32  # side of a triangular matrix that is inverted as any other


@dataclass(frozen=True)
class Space:
    """Reduced features.

    Args:
        directions: (width, dimensions), on which standardised features are projected;
            standardisation is folded in.
        shift: (dimensions,), what is then taken off.
        axes: how many of the dimensions are principal axes; they come first.
    """

    directions: Array
    shift: Array
    axes: int

    def reduced(self, features: Array) -> Array:
        """(N, width), raw -> (N, dimensions)"""
        return times(features, self.directions) - self.shift

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a file holds; distances need no more than half precision."""
        directions, largest = in_halves(self.directions)
        axes = np.array([self.axes])
        return {"directions": directions, "largest": largest, "shift": self.shift, "axes": axes}

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], width: int) -> "Space":
        """The space of a file's tensors.

        Raises:
            ValueError: they are of other shapes, or not finite.
        """
        size = tensors["directions"].shape[-1] if "directions" in tensors else 0
        shapes = {"directions": (width, size), "largest": (width,), "shift": (size,), "axes": (1,)}
        check_tensors(tensors, shapes)
        directions, shift = tensors["directions"].astype(np.float32), tensors["shift"]
        directions *= tensors["largest"].astype(np.float32)[:, None]
        axes = int(tensors["axes"][0])
        if not 1 <= axes <= size:
            raise ValueError(f"{axes} axes of {size} dimensions")
        return cls(directions, shift.astype(np.float32), axes)


@dataclass(frozen=True)
class Hashing:
    """Features, standardised and hashed: each is added to one of a few hundred sums, or taken off
    it, by chance (Weinberger et al., arXiv:0902.2206).

    Distances are kept as by any random projection, at the cost of one addition a feature; and it
    knows of no image but how much each feature varies.

    Args:
        buckets: (width,), the sum of each feature, from 0. Each sum has a feature.
        factors: (width,), by which features are multiplied first: standardisation, and 1 or -1.
        shift: (sums,), what is then taken off: the mean of the training images.
    """

    buckets: Labels
    factors: Array
    shift: Array

    @functools.cached_property
    def order(self) -> tuple[Labels, Array, Labels]:
        """The features by their sums, their factors, and where each sum begins."""
        order = np.argsort(self.buckets, kind="stable")
        starts = np.searchsorted(self.buckets[order], np.arange(len(self.shift)))
        return order, self.factors[order], starts

    def reduced(self, features: Array) -> Array:
        """(N, width), raw -> (N, sums)"""
        order, factors, starts = self.order
        scaled = np.take(features, order, axis=1)
        scaled *= factors
        return np.asarray(np.add.reduceat(scaled, starts, axis=1) - self.shift, np.float32)

    @classmethod
    def fit(cls, features: Array, sums: int) -> "Hashing":
        """That of training images' features, (N, width), raw; as many sums as there are features
        where these are fewer. It is the same for the same rows."""
        width = features.shape[1]
        rng = np.random.default_rng(0)
        buckets = rng.permutation(width) % sums
        signs = np.where(rng.random(width) < 0.5, np.float32(1), np.float32(-1))
        nothing = np.zeros(min(sums, width), np.float32)
        found = cls(buckets, signs * standard_scale(features), nothing)
        mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(buckets, found.factors, found.reduced(mean[None])[0])

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a file holds."""
        buckets = self.buckets.astype(np.int32)
        return {"buckets": buckets, "factors": self.factors, "shift": self.shift}

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], width: int) -> "Hashing":
        """The hashing of a file's tensors.

        Raises:
            ValueError: they are of other shapes, not finite, or a sum is of nothing.
        """
        size = tensors["shift"].size if "shift" in tensors else 0
        check_tensors(tensors, {"buckets": (width,), "factors": (width,), "shift": (size,)})
        buckets = tensors["buckets"].astype(np.int64)
        if not np.array_equal(np.unique(buckets), np.arange(size)):
            raise ValueError(f"buckets are not the numbers from 0 to {size - 1}")
        return cls(buckets, tensors["factors"].astype(np.float32), tensors["shift"])


def times(rows: Array, matrix: Array) -> Array:
    """(N, k) and (k, m) -> (N, m). One row is multiplied without BLAS, whose threads would wait for
    the cores that an engine is using: now and then for a tenth of a second."""
    if len(rows) == 1:
        return np.einsum("i,ij->j", rows[0], matrix)[None]
    return rows @ matrix


def check_tensors(tensors: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """ValueError unless there are tensors of these names and shapes, all finite."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"the tensor {name} is missing")
        if tensors[name].shape != shape or not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} is not of shape {shape}, or not finite")


def fit_space(features: Array) -> Space:
    """The space of some images' features, (N, width), raw. It is the same for the same rows."""
    n, width = features.shape
    rng = np.random.default_rng(0)
    sample = features[np.sort(rng.permutation(n)[:SAMPLE])]
    scale = standard_scale(sample)
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    sample = (sample - mean) * scale
    axes = min(AXES, width, max(1, len(sample) // 4))
    if width <= axes + SPARE:  # as many as the range finder would look at
        found = np.linalg.eigh(sample.T @ sample)[1][:, -axes:]
    else:
        found = principal_axes(sample, axes)[1]
    across = rng.standard_normal((width, ACROSS), dtype=np.float32) / np.float32(np.sqrt(ACROSS))
    across -= found @ (found.T @ across)
    directions = np.concatenate([found, across], axis=1) * scale[:, None]
    # rounded as a file rounds them, so that the shift is that of what is read back
    halves, largest = in_halves(np.asarray(directions, np.float32))
    directions = halves.astype(np.float32) * largest[:, None]
    return Space(directions, mean @ directions, axes)


def in_halves(directions: Array) -> tuple[NDArray[np.float16], Array]:
    """Directions in half precision, and (width,), by what each feature's are to be multiplied: one
    that hardly varies has larger ones than half precision holds."""
    largest = np.maximum(np.abs(directions).max(axis=1), np.float32(1e-30))
    return (directions / largest[:, None]).astype(np.float16), largest


def squares(rows: Array, references: Array) -> Array:
    """(N, M), squared distances of (N, dimensions) and (M, dimensions)."""
    found = rows @ references.T
    found *= -2
    found += (rows**2).sum(axis=1)[:, None]
    found += (references**2).sum(axis=1)
    return np.maximum(found, 0, out=found)


def nearest(rows: Array, references: Array) -> Array:
    """(N,), the root mean square of the distances to the NEAREST references, or to all where they
    are fewer.

    Args:
        rows: (N, dimensions).
        references: (M, dimensions).
    """
    blocks = (rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK))
    return np.concatenate([nearest_of(squares(block, references)) for block in blocks])


def nearest_of(squares: Array) -> Array:
    """(N,), the same of squared distances, (N, M); infinite ones do not count, and nan is the
    distance where all are."""
    k = min(NEAREST, squares.shape[1])
    few = np.partition(squares, k - 1, axis=1)[:, :k]
    there = np.isfinite(few)
    n = there.sum(axis=1)
    mean = np.where(there, few, 0).sum(axis=1) / np.maximum(n, 1)
    return np.where(n > 0, np.sqrt(mean), np.float32(np.nan))


@dataclass(frozen=True)
class Gaussians:
    """A Gaussian a class, all with one covariance.

    Args:
        means: (classes, axes), turned by `root`; those of a class without images are nan.
        root: (axes, axes), which turns a covariance into the identity.
        logs: (classes,), logarithms of the classes' shares.
    """

    means: Array
    root: Array
    logs: Array

    def distances(self, rows: Array) -> Array:
        """(N, axes) -> (N, classes), squared Mahalanobis distances."""
        turned = times(rows, self.root)
        squares = (turned**2).sum(axis=1)[:, None] + (self.means**2).sum(axis=1)
        return np.maximum(squares - 2 * times(turned, self.means.T), 0)

    def logits(self, rows: Array) -> Array:
        """(N, axes) -> (N, classes), the linear discriminant; -inf of a class without images."""
        values = self.logs - self.distances(rows) / 2
        return np.where(np.isnan(values), np.float32(-np.inf), values)


@dataclass(frozen=True)
class Moments:
    """Sums over images, which can be taken off again: Gaussians without some of the images cost a
    few products of small matrices.

    Args:
        counts: (classes,)
        sums: (classes, axes)
        products: (axes, axes), the sum of x x' over the images.
    """

    counts: NDArray[np.float64]
    sums: NDArray[np.float64]
    products: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Array, labels: Labels, classes: int) -> "Moments":
        of_class = (labels == np.arange(classes)[:, None]).astype(np.float32)
        sums = (of_class @ rows).astype(np.float64)
        counts = np.bincount(labels, minlength=classes).astype(np.float64)
        return cls(counts, sums, (rows.T @ rows).astype(np.float64))

    def plus(self, other: "Moments") -> "Moments":
        return Moments(
            self.counts + other.counts, self.sums + other.sums, self.products + other.products
        )

    def without(self, other: "Moments") -> "Moments":
        return Moments(
            self.counts - other.counts, self.sums - other.sums, self.products - other.products
        )

    def gaussians(self, shrink: float | None = None) -> Gaussians:
        """The Gaussians of these images.

        The covariance is the one within classes, shrunk towards the same variance in all
        directions, by SHRINK if nothing else is said.
        """
        shrink = SHRINK if shrink is None else shrink
        there = self.counts > 0.5
        means = np.full(self.sums.shape, np.nan)
        means[there] = self.sums[there] / self.counts[there, None]
        between = (self.sums[there].T * (1 / self.counts[there])) @ self.sums[there]
        covariance = (self.products - between) / max(1.0, float(self.counts.sum() - there.sum()))
        size = len(covariance)
        even = max(float(np.trace(covariance)) / size, 1e-12)
        covariance = (1 - shrink) * covariance + shrink * even * np.eye(size)
        root = inverse_of_lower(np.linalg.cholesky(covariance)).T
        shares = self.counts / self.counts.sum()
        logs = np.log(np.where(there, shares, 1))
        return Gaussians(
            np.asarray(means @ root, np.float32),
            np.asarray(root, np.float32),
            np.asarray(logs, np.float32),
        )


def inverse_of_lower(matrix: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The inverse of a lower triangular matrix, (n, n), by halves: numpy's own knows of no zeros
    and takes ten times as long.

    >>> inverse_of_lower(np.array([[2.0, 0.0], [1.0, 4.0]])).tolist()
    [[0.5, 0.0], [-0.125, 0.25]]
    """
    n = len(matrix)
    if n <= SMALL:
        return np.linalg.inv(matrix)
    half = n // 2
    first, last = inverse_of_lower(matrix[:half, :half]), inverse_of_lower(matrix[half:, half:])
    found = np.zeros_like(matrix)
    found[:half, :half], found[half:, half:] = first, last
    found[half:, :half] = -last @ matrix[half:, :half] @ first
    return found
