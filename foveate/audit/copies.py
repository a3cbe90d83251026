"""Near copies: the same photo turned, mirrored, cropped, scaled or saved again.

Idea: a pair of images is a copy if one can be laid over the other so that even their fine structure
agrees. Laying one over another is slow, so ever fewer pairs get ever more thorough looks:

    features, greys ── nearest neighbours ── pairs that may be copies
                 ── 16 px: all turns, mirrorings and many crops, compared as they are
                 ── 32, 64 px: the map from one image to the other is refined (Lucas-Kanade)
                 ── the evidence that is left at 64 px decides

Images that look alike are not copies. What counts is the correlation of fine structure after local
contrast is evened out, so that an outline counts no more than a faint fold; and how many
independent places and frequencies it rests on, so that a digit of 8x8 pixels, or a shirt on a plain
wall, has to agree better than a photo full of detail, or is never taken for a copy.

Source: inverse compositional alignment, Baker and Matthews, IJCV 56(3), 2004.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from foveate.audit.neighbours import Array, Map, Rows, components, nearest, unit, whitened
from foveate.data.small import SIDE
from foveate.progress import Progress, Silent

Greys = NDArray[np.uint8]  # (N, SIDE, SIDE)

COARSE = 16

NEIGHBOURS = 10  # by features
TWINS = 2  # by signature: whole images, turned by quarters or mirrored
FEW = 64  # images of which all pairs are looked at
PROBES = 64  # numbers of a signature
PIXELS = 2**16  # of one image of each pair that are aligned at once: they stay in the cache

CROPS = (19, 23)  # sides, in pixels, of larger versions of which COARSE x COARSE are cut out
# Degrees, width and height of further parts: turned ones, with corners cut off or added, and those
# that are left of images which were padded to squares from 4:3 and 16:9.
PARTS = (
    *((angle, 1.0, 1.0) for angle in (-24, -12, 0, 12, 24)),
    *((angle, 0.83, 0.83) for angle in (-12, 12)),
    *((0, share, 1.0) for share in (0.75, 0.5625)),
    *((0, 1.0, share) for share in (0.75, 0.5625)),
)
LIKE = 1.05  # coarse correlation and similarity of features together that a pair needs
FIRST = 2  # pairs of an image that are refined, by that measure
CLOSE = 0.1  # to the best coarse correlation: starts that are worse are left
STARTS = 3  # that are refined, of the hundreds that are compared
NOISE = 3.0  # grey levels: structure below is taken for noise of compression

MOST = 0.99  # correlation: none counts for more, so that two equal discs on white are no copies
SCENE = "same scene"
SAME = 0.75  # correlation from which two photos of one scene are taken for one photo
PART = 1.04  # scale from which a copy is called cropped
SHIFT = 0.05  # the same of its centre's distance, in half sides
TURN = 2.5  # degrees from which a copy is called turned
SCALE = 1.02  # ratio of sizes from which a copy is called scaled


@dataclass(frozen=True)
class Level:
    """One round of the alignment.

    Args:
        side: pixels.
        radius: of the window in which contrast is evened out, in pixels.
        steps: of Gauss-Newton.
        evidence: in standard deviations; a pair with less is dropped.
    """

    side: int
    radius: int
    steps: int
    evidence: float


# The last one decides. Of the pairs in half of clothing, in digits and in fashion-mnist that only
# look alike none has more than 16.4; of copies planted in that half, 97 of 100 that get there have
# more than 19.
LEVELS = (Level(32, 4, 1, 5.5), Level(32, 4, 4, 7.5), Level(64, 2, 0, 9.0), Level(64, 2, 3, 17.0))


@dataclass(frozen=True)
class Copies:
    """What `find_copies` found.

    Args:
        pairs: (P, 2), rows of two images that show the same photo, the smaller row first.
        kinds: how the two differ, for each pair: "turned", "mirrored" and "cropped", joined by
            " and "; or "scaled" or "saved again"; or "same scene": two photos of one place, such as
            a burst's, or two things on one floor, which share much of their detail but not all.
        evidence: (P,), standard deviations by which they are more alike than by chance.
        correlation: (P,), of their fine structure, from 0 to 1.
        groups: (N,), the smallest row among the images that are connected by pairs, those of one
            scene excepted; an image without a copy has its own row.
    """

    pairs: Rows
    kinds: tuple[str, ...]
    evidence: Array
    correlation: Array
    groups: Rows


def find_copies(
    greys: Greys,
    features: Array,
    size: Callable[[int], tuple[int, int]] | None = None,
    threads: int = 2,
    progress: Progress | None = None,
) -> Copies:
    """Pairs of images that show the same photo, within and across classes and splits.

    Images whose small versions hold too little detail to be told apart from others that only look
    alike are never paired: digits of 8x8 pixels, plain surfaces. Files with the same bytes are
    known by their digests (`Dataset.grouping`).

    Args:
        greys: (N, 64, 64), of `foveate.data.small.grey`.
        features: (N, width), of a frozen backbone (`foveate.extract_features`).
        size: of a row, width and height in pixels, of the few that are copies: tells "scaled" from
            "saved again".
        threads: cores to use. The result is the same for any number.
        progress: is advanced with each pair that is settled.

    Raises:
        ValueError: other shapes than these; features that are not finite.

    Cost: about 4 KiB an image; time is linear in N but for a matrix product of N x N x 256 numbers,
        which is never held as a whole.
    """
    n = len(greys)
    if greys.shape != (n, SIDE, SIDE) or greys.dtype != np.uint8:
        raise ValueError(f"expected greys (N, 64, 64) uint8, got {greys.shape} {greys.dtype}")
    if features.ndim != 2 or len(features) != n:
        raise ValueError(f"expected features ({n}, width), got {features.shape}")
    if not np.isfinite(features.sum(dtype=np.float64)):
        raise ValueError("features that are not finite")
    if n < 2:
        none = np.zeros(0, np.float32)
        return Copies(np.zeros((0, 2), np.int64), (), none, none, np.arange(n))
    progress = progress or Silent()
    # BLAS gets one thread, since its rounding depends on how many it has; blocks are distributed
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        pairs, similar = candidates(greys, features, pool.map)
        progress.begin("copies", len(pairs))
        found = confirmed(greys, pairs, similar, pool.map, progress.advance)
    pairs = pairs[found.number]
    first_is_smaller = found.first == pairs[:, 0]
    maps = np.where(first_is_smaller[:, None, None], found.maps, inverse(found.maps))
    kinds = tuple(
        SCENE if r < SAME else kind_of(m, pair, size)
        for m, r, pair in zip(maps, found.correlation, pairs.tolist(), strict=True)
    )
    copies = pairs[found.correlation >= SAME]
    return Copies(pairs, kinds, found.evidence, found.correlation, components(n, copies))


# Nearest neighbours


def candidates(greys: Greys, features: Array, each: Map) -> tuple[Rows, Array]:
    """(pairs, 2) that may be copies, each once, and the similarity of their features."""
    n = len(greys)
    if n <= FEW:
        pairs = np.stack(np.triu_indices(n, 1), axis=1)
        return pairs, np.full(len(pairs), LIKE, np.float32)
    reduced = whitened(features, each)
    near, twins = nearest(reduced, NEIGHBOURS, each), nearest(signatures(greys, each), TWINS, each)
    pairs = np.unique(np.concatenate([near, twins]), axis=0)
    return pairs, np.einsum("pd,pd->p", reduced[pairs[:, 0]], reduced[pairs[:, 1]])


def signatures(greys: Greys, each: Map) -> Array:
    """(N, PROBES), unit vectors that are the same for an image and its turns and mirror images.

    The largest of the eight responses to a random filter does not depend on how the image is
    turned."""
    probes = np.random.default_rng(1).standard_normal((COARSE**2, PROBES), dtype=np.float32)

    def of_block(start: int) -> Array:
        maps = evened(shrink(greys[start : start + 512], COARSE), 2)
        return np.maximum.reduce([t.reshape(len(maps), -1) @ probes for t in turns(maps)])

    largest = np.concatenate(list(each(of_block, range(0, len(greys), 512))))
    largest -= largest.mean(axis=0)
    return unit(largest / (largest.std(axis=0) + np.float32(1e-6)))


# Small images


def resampling(n: int, m: int) -> Array:
    """(m, n), the mean over each of m equal parts of n pixels."""
    edges = np.linspace(0, n, m + 1)
    covered = np.minimum(edges[1:, None], np.arange(1, n + 1)) - np.maximum(
        edges[:-1, None], np.arange(n)
    )
    weights = np.maximum(covered, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def shrink(greys: Greys, side: int) -> Array:
    """(N, SIDE, SIDE) -> (N, side, side), float32."""
    if side == SIDE:
        return greys.astype(np.float32)
    weights = resampling(SIDE, side)
    out = np.empty((len(greys), side, side), np.float32)
    for i in range(0, len(greys), 256):
        out[i : i + 256] = weights @ (greys[i : i + 256].astype(np.float32) @ weights.T)
    return out


def window(side: int, radius: int) -> Array:
    """(side, side), K: K.T @ x @ K is the mean over a square window, cut off at the edges."""
    at = np.arange(side)
    near = (np.abs(at[:, None] - at) <= radius).astype(np.float32)
    return near / near.sum(axis=0)


def blurred(x: Array, kernel: Array) -> Array:
    return kernel.T @ (x @ kernel)


def evened(x: Array, radius: int, noise: float = NOISE) -> Array:
    """(..., side, side): the difference to the mean nearby, divided by the deviation nearby."""
    kernel = window(x.shape[-1], radius)
    fine = x - blurred(x, kernel)
    return fine / np.sqrt(blurred(fine * fine, kernel) + np.float32(noise**2))


def turns(x: NDArray[Any]) -> list[NDArray[Any]]:
    """The eight turns and mirror images of (..., side, side)."""
    return [np.rot90(y, k, (-2, -1)) for y in (x, np.swapaxes(x, -1, -2)) for k in range(4)]


def filled(greys: Greys, tolerance: int = 4) -> NDArray[np.bool_]:
    """(N, SIDE, SIDE): where an image has nothing but its corner's grey as far as the edge, as a
    turned image has in its corners and a padded one at its sides."""
    found = np.zeros(greys.shape, bool)
    values = greys.astype(np.int16)
    for corner in (values[:, y, x] for y in (0, -1) for x in (0, -1)):
        same = np.abs(values - corner[:, None, None]) <= tolerance
        for axis in (1, 2):
            found |= np.logical_and.accumulate(same, axis)
            found |= np.flip(np.logical_and.accumulate(np.flip(same, axis), axis), axis)
    return found


# Maps from one image to another: (x, y) -> maps @ (x, y, 1), each image from -1 to 1


def grid(side: int) -> Array:
    """(3, side * side), the centres of pixels as (x, y, 1)."""
    at = (2 * np.arange(side, dtype=np.float32) + 1) / side - 1
    y, x = np.meshgrid(at, at, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side, np.float32)])


def sampled(images: Array, maps: Array) -> tuple[Array, Array]:
    """Images (P, side, side) at the places that maps (P, 2, 3) lead to, and 1 where that is inside,
    0 elsewhere; both (P, side, side)."""
    count, side, _ = images.shape
    places = maps @ grid(side)  # (P, 2, side * side)
    inside = (np.abs(places) < 1).all(axis=1)
    places += 1
    places *= side / 2
    places -= 0.5
    np.clip(places, 0, side - 1.001, out=places)
    whole = places.astype(np.int32)
    places -= whole
    x, y = places[:, 0], places[:, 1]
    first = np.arange(count, dtype=np.int32)[:, None] * (side * side)
    at = whole[:, 1] * side + whole[:, 0] + first
    flat = images.reshape(-1)
    left, right = flat.take(at), flat.take(at + 1)
    upper = left + x * (right - left)
    at += side
    left, right = flat.take(at), flat.take(at + 1)
    lower = left + x * (right - left)
    shape = (count, side, side)
    return (upper + y * (lower - upper)).reshape(shape), inside.astype(np.float32).reshape(shape)


def then(first: Array, second: Array) -> Array:
    """Maps (..., 2, 3): `first`, and then `second`."""
    linear = second[..., :2] @ first
    linear[..., 2] += second[..., 2]
    return linear


def inverse(maps: Array) -> Array:
    a, b, c, d = maps[..., 0, 0], maps[..., 0, 1], maps[..., 1, 0], maps[..., 1, 1]
    det = a * d - b * c
    det = np.where(np.abs(det) < 1e-6, 1e-6, det)
    linear = np.stack([np.stack([d, -b], -1), np.stack([-c, a], -1)], -2) / det[..., None, None]
    return np.concatenate([linear, -linear @ maps[..., 2:]], -1).astype(np.float32)


def turning_maps() -> Array:
    """(8, 2, 3): `turns(x)[t]` at a place is x at where map t leads."""
    identity, flip = np.eye(2), np.array([[0, 1], [1, 0]])
    quarter = np.array([[0, -1], [1, 0]])  # np.rot90 of an image whose y goes down
    linear = [
        start @ np.linalg.matrix_power(quarter, k) for start in (identity, flip) for k in range(4)
    ]
    return np.stack([np.column_stack([m, np.zeros(2)]) for m in linear]).astype(np.float32)


def window_maps() -> Array:
    """(windows, 2, 3), from each window of `windows` to its image."""
    maps = []
    for angle, width, height in PARTS:
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        maps.append([[width * cos, -height * sin, 0], [width * sin, height * cos, 0]])
    for side in CROPS:
        scale, free = COARSE / side, side - COARSE
        offsets = [(2 * i - free) / side for i in range(free + 1)]
        maps += [[[scale, 0, x], [0, scale, y]] for y in offsets for x in offsets]
    return np.array(maps, np.float32)


# All turns and many crops, compared as they are


class Coarse:
    """Each image at COARSE pixels: its windows, to be compared with the turns of others."""

    radius, noise = 3, 6.0

    def __init__(self, greys: Greys):
        self.greys = greys
        self.whole = unit(self.evened(shrink(greys, COARSE)).reshape(len(greys), -1))
        pixels = np.arange(COARSE**2).reshape(COARSE, COARSE)
        self.orders = np.stack([y.ravel() for y in turns(pixels)])  # (8, 256)
        self.turning, self.windowing = turning_maps(), window_maps()
        # sampling is linear: what it makes of each pixel alone is its matrix
        pixel = np.eye(COARSE**2, dtype=np.float32).reshape(-1, COARSE, COARSE)
        parts = [
            sampled(pixel, np.repeat(m[None], len(pixel), 0)) for m in self.windowing[: len(PARTS)]
        ]
        self.sampling = np.concatenate([part.reshape(COARSE**2, -1) for part, _ in parts], axis=1)
        self.inside = np.stack([inside[0].ravel() for _, inside in parts])  # (parts, 256)

    def evened(self, images: Array) -> Array:
        return evened(images, self.radius, self.noise)

    def windows(self, rows: Rows) -> Array:
        """(rows, windows, 256), unit vectors, in the order of `window_maps`."""
        greys, n = self.greys[rows], len(rows)
        images = shrink(greys, COARSE).reshape(n, -1) @ self.sampling
        images = self.evened(images.reshape(n, len(PARTS), COARSE, COARSE))
        parts = [images.reshape(n, len(PARTS), -1) * self.inside]
        for side in CROPS:
            larger = self.evened(shrink(greys, side))
            cut = sliding_window_view(larger, (COARSE, COARSE), (1, 2))
            parts.append(cut.reshape(n, -1, COARSE**2))
        found = np.concatenate(parts, axis=1)
        found /= np.sqrt(np.einsum("nwp,nwp->nw", found, found))[:, :, None] + np.float32(1e-2)
        return found

    def compare(self, rows: Rows, others: list[Rows]) -> list[tuple[Array, NDArray[np.int64]]]:
        """For each row and each of its others, the best STARTS correlations and their numbers,
        window * 8 + turn, both (others, STARTS)."""
        results = []
        for cut, near in zip(self.windows(rows), others, strict=True):
            turned = self.whole[near][:, self.orders]  # (others, 8, 256)
            likeness = turned.reshape(-1, COARSE**2) @ cut.T  # (others * 8, windows)
            likeness = likeness.reshape(len(near), -1)
            each = np.arange(len(near))
            best = np.empty((len(near), STARTS), np.int64)
            values = np.empty((len(near), STARTS), np.float32)
            for i in range(STARTS):  # an argmax is several times as fast as a partition
                best[:, i] = likeness.argmax(axis=1)
                values[:, i] = likeness[each, best[:, i]]
                likeness[each, best[:, i]] = -1
            turn, window = np.divmod(best, len(cut))
            results.append((values, window * 8 + turn))
        return results


# Refinement


def refine(first: Array, second: Array, maps: Array, level: Level) -> Array:
    """Gauss-Newton steps that lay `second` over `first`.

    Args:
        first, second: (P, side, side), greys.
        maps: (P, 2, 3), from the first to the second.

    Returns:
        Better maps.
    """
    if level.steps == 0:
        return maps
    count, side, _ = first.shape
    a = evened(first, level.radius)
    down, across = np.gradient(a, axis=(1, 2))
    a = a.reshape(count, -1)
    x, y, _ = grid(side)
    slopes = np.empty((count, 6, side * side), np.float32)  # of the six numbers of a map
    for i, slope in enumerate((across, down)):
        slope = slope.reshape(count, -1) * np.float32(side / 2)
        slopes[:, 3 * i], slopes[:, 3 * i + 1], slopes[:, 3 * i + 2] = slope * x, slope * y, slope
    for _ in range(level.steps):
        b, inside = sampled(second, maps)
        b = (evened(b, level.radius) * inside).reshape(count, -1)
        inside = inside.reshape(count, -1)
        seen = a * inside
        aa, bb = np.einsum("pn,pn->p", seen, seen), np.einsum("pn,pn->p", b, b)
        b *= np.sqrt(aa / (bb + 1e-6))[:, None]
        b -= seen
        hessian = (slopes * inside[:, None]) @ slopes.transpose(0, 2, 1)
        damping = 0.02 * np.trace(hessian, axis1=1, axis2=2) / 6 + 1e-3
        hessian += damping[:, None, None] * np.eye(6, dtype=np.float32)
        change = np.linalg.solve(hessian, slopes @ b[:, :, None])[:, :, 0]
        change = np.clip(change, -0.2, 0.2).reshape(count, 2, 3)
        change[:, 0, 0] += 1
        change[:, 1, 1] += 1
        maps = then(inverse(change), maps)
    return maps


def evidence(
    first: Array,
    second: Array,
    maps: Array,
    level: Level,
    fills: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """How sure it is that the second image, laid over the first, is the same, (P,): Fisher's z of
    the correlation, in standard deviations of what independent images have; and the correlation.

    Places that are filled in one image alone are left out.
    """
    kernel = window(level.side, level.radius)
    b, inside = sampled(second, maps)
    if fills is not None:
        other, _ = sampled(fills[1], maps)
        inside = inside * (blurred(np.abs(fills[0] - other), kernel) < 0.2)
    a, b = evened(first, level.radius) * inside, evened(b, level.radius) * inside
    aa, bb, ab = (a * a).sum((1, 2)), (b * b).sum((1, 2)), (a * b).sum((1, 2))
    r = ab / np.sqrt(aa * bb + 1e-6)
    # of independent fields with local variance v and autocorrelation c, the correlation's variance
    # is  sum(va vb) / (sum va sum vb)  *  sum over shifts of ca cb
    va, vb = blurred(a * a, kernel), blurred(b * b, kernel)
    places = va.sum((1, 2)) * vb.sum((1, 2)) / ((va * vb).sum((1, 2)) + 1e-6)
    sa, sb = (np.abs(np.fft.rfft2(x)) ** 2 for x in (a, b))
    sa[:, :, 1:-1] *= 2  # rfft2 leaves out half of each spectrum, which mirrors the other half
    total = sa.sum((1, 2)) * (sb[:, :, 1:-1].sum((1, 2)) + sb.sum((1, 2)))
    width = level.side**2 * (sa * sb).sum((1, 2)) / (total + 1e-6)
    n = places / np.maximum(width, 1)
    return np.arctanh(np.clip(r, -MOST, MOST)) * np.sqrt(n), r


def coarse_starts(greys: Greys, pairs: Rows, similar: Array, each: Map) -> "Aligned":
    """The most promising starts of the pairs that may be copies."""
    coarse, count = Coarse(greys), len(pairs)
    # each pair twice: windows of one image against the whole of the other
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    number = np.tile(np.arange(count), 2)
    order = np.argsort(ends[:, 0], kind="stable")
    rows, begins = np.unique(ends[order, 0], return_index=True)
    edges = np.split(order, begins[1:])
    values = np.empty((2 * count, STARTS), np.float32)
    where = np.empty((2 * count, STARTS), np.int64)

    def of_block(start: int) -> None:
        block = slice(start, start + 32)
        found = coarse.compare(rows[block], [ends[edge, 1] for edge in edges[block]])
        for edge, (value, place) in zip(edges[block], found, strict=True):
            values[edge], where[edge] = value, place

    list(each(of_block, range(0, len(rows), 32)))
    both = np.concatenate([values[:count], values[count:]], axis=1)
    best = both.max(axis=1)
    score = best + similar
    hopeful = np.flatnonzero((score >= LIKE) & among_first(pairs, score, best))
    top = np.argsort(-both[hopeful], axis=1, kind="stable")[:, :STARTS]
    near = np.take_along_axis(both[hopeful], top, axis=1) > best[hopeful, None] - CLOSE
    edge = (hopeful[:, None] + count * (top // STARTS))[near]
    place = where[edge, (top % STARTS)[near]]
    maps = then(inverse(coarse.windowing[place // 8]), coarse.turning[place % 8])
    none = np.zeros(len(edge), np.float32)
    return Aligned(number[edge], ends[edge, 0], ends[edge, 1], maps, none, none)


def among_first(pairs: Rows, score: Array, correlation: Array) -> NDArray[np.bool_]:
    """(P,), whether a pair has one of the FIRST scores of either of its images, or the highest
    correlation, by which a quarter turn is known that features do not recognise."""
    ends, count = pairs.T.ravel(), len(pairs)
    first = np.zeros(2 * count, bool)
    for measure, most in ((score, FIRST), (correlation, 1)):
        order = np.lexsort((-np.tile(measure, 2), ends))
        begins = np.searchsorted(ends[order], ends[order])
        first[order[np.arange(2 * count) - begins < most]] = True
    return first[:count] | first[count:]


@dataclass(frozen=True)
class Aligned:
    """Pairs that are laid over each other.

    Args:
        number: (S,), of the pair.
        first, second: (S,), rows: the second image is laid over the first.
        maps: (S, 2, 3), from the first to the second.
        evidence, correlation: (S,), of `evidence`.
    """

    number: Rows
    first: Rows
    second: Rows
    maps: Array
    evidence: Array
    correlation: Array

    def select(self, rows: Any) -> "Aligned":
        return Aligned(
            self.number[rows],
            self.first[rows],
            self.second[rows],
            self.maps[rows],
            self.evidence[rows],
            self.correlation[rows],
        )

    def best_of_each(self) -> "Aligned":
        """The start of each pair with the most evidence."""
        order = np.lexsort((-self.evidence, self.number))
        return self.select(order[np.unique(self.number[order], return_index=True)[1]])


def confirmed(
    greys: Greys, pairs: Rows, similar: Array, each: Map, advance: Callable[[int], object]
) -> Aligned:
    """Those of the pairs that are copies."""
    found = coarse_starts(greys, pairs, similar, each)
    left = len(pairs)
    for level in LEVELS:
        found = at_level(level, greys, found, each).best_of_each()
        found = found.select(found.evidence >= level.evidence)
        advance(left - len(found.number))
        left = len(found.number)
    advance(left)
    return found


def at_level(level: Level, greys: Greys, starts: Aligned, each: Map) -> Aligned:
    """The starts with better maps and their evidence at one level."""
    size = max(4, PIXELS // level.side**2)
    rows = np.unique(np.concatenate([starts.first, starts.second]))
    images = greys[rows] if level.side == SIDE else shrink(greys[rows], level.side)
    fills = filled(greys[rows]) if level is LEVELS[-1] else None
    ends = np.searchsorted(rows, starts.first), np.searchsorted(rows, starts.second)

    def of_block(start: int) -> tuple[Array, Array, Array]:
        block = slice(start, start + size)
        first, second = (images[end[block]].astype(np.float32) for end in ends)
        maps = refine(first, second, starts.maps[block], level)
        weights, r = evidence(first, second, maps, level)
        if fills is not None:
            again = np.flatnonzero((weights > level.evidence / 2) & (weights < level.evidence))
            a, b = (fills[end[block][again]].astype(np.float32) for end in ends)
            other = evidence(first[again], second[again], maps[again], level, (a, b))
            better = other[0] > weights[again]
            weights[again[better]], r[again[better]] = other[0][better], other[1][better]
        return maps, weights, r

    parts = list(each(of_block, range(0, len(starts.number), size)))
    if not parts:
        return starts
    maps, weights, r = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Aligned(starts.number, starts.first, starts.second, maps, weights, r)


# Results


def kind_of(linear: Array, pair: list[int], size: Callable[[int], tuple[int, int]] | None) -> str:
    """How two images differ, by the map (2, 3) between them and their sizes, if known.

    >>> kind_of(np.array([[-1, 0, 0], [0, 1, 0]]), [0, 1], None)
    'mirrored'
    >>> kind_of(np.array([[0, -1.4, 0.2], [1.4, 0, 0.1]]), [0, 1], None)
    'turned and cropped'
    >>> kind_of(np.eye(2, 3), [0, 1], [(640, 480), (320, 240)].__getitem__)
    'scaled'
    """
    (a, b, x), (c, d, y) = np.asarray(linear, np.float64)
    det = a * d - b * c
    parts = []
    # of a mirror image, the turn is the one from left and right or up and down exchanged
    angle = np.arctan2(c - b, a + d) if det > 0 else np.arctan2(c + b, a - d)
    angle = np.rad2deg(angle)
    off = abs(angle) if det > 0 else min(abs(angle), 180 - abs(angle))
    if det < 0:
        parts.append("mirrored")
    if off > TURN:
        parts.append("turned")
    scale = np.sqrt(abs(det))
    if max(scale, 1 / scale) > PART or np.hypot(x, y) > SHIFT:
        parts.append("cropped")
    if parts:
        return " and ".join(parts)
    if size is not None:
        ratios = np.divide(size(pair[0]), size(pair[1]))
        if max(ratios.max(), 1 / ratios.min()) > SCALE:
            return "scaled"
    return "saved again"
