"""Near copies: drawn photos and their copies, images that only look alike, and each part beside a
slow, obvious way."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from foveate.audit import copies
from foveate.audit.copies import (
    COARSE,
    LEVELS,
    PARTS,
    SCENE,
    Aligned,
    Coarse,
    at_level,
    coarse_starts,
    components,
    evened,
    evidence,
    filled,
    find_copies,
    inverse,
    nearest,
    refine,
    resampling,
    sampled,
    shrink,
    signatures,
    then,
    turning_maps,
    turns,
    unit,
    window_maps,
)
from foveate.data.small import grey

SIZE = (240, 180)
WIDTH = 64  # of the features


def photo(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Structure of all scales, as photos have, and some shapes."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = np.zeros((height, width))
    for cells in (3, 6, 12, 24, 48):
        noise = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        image += np.asarray(noise.resize(size, Image.Resampling.BICUBIC)) / np.sqrt(cells)
    for _ in range(12):
        x, y = rng.integers(width), rng.integers(height)
        image[y : y + rng.integers(5, 60), x : x + rng.integers(5, 60)] += rng.normal(0, 0.3)
    image = 255 * (image - image.min()) / np.ptp(image)
    return Image.fromarray(image.astype(np.uint8)).convert("RGB")


def saved_again(image: Image.Image, quality: int) -> Image.Image:
    import io

    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


WIDE, HIGH = SIZE
CHANGES = {
    "turned": [
        lambda im: im.rotate(12, Image.Resampling.BICUBIC),
        lambda im: im.rotate(-8, Image.Resampling.BICUBIC),
        lambda im: im.rotate(90, expand=True),
        lambda im: im.rotate(180),
        lambda im: im.rotate(25, Image.Resampling.BICUBIC),
    ],
    "mirrored": [
        lambda im: im.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda im: im.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    ],
    "mirrored and turned": [lambda im: im.transpose(Image.Transpose.TRANSPOSE)],
    "cropped": [
        lambda im: im.crop((0, 0, int(0.7 * WIDE), int(0.7 * HIGH))),
        lambda im: im.crop((60, 50, 60 + int(0.7 * WIDE), 50 + int(0.7 * HIGH))),
        lambda im: im.crop((20, 10, 20 + int(0.85 * WIDE), 10 + int(0.85 * HIGH))),
        lambda im: ImageOps.pad(im, (WIDE, WIDE)),
    ],
    "turned and cropped": [
        lambda im: im.rotate(12, Image.Resampling.BICUBIC, expand=True, fillcolor="white"),
        lambda im: im.rotate(5).crop((30, 20, 30 + int(0.85 * WIDE), 20 + int(0.85 * HIGH))),
    ],
    "scaled": [
        lambda im: im.resize((WIDE // 2, HIGH // 2)),
        lambda im: im.resize((96, 72)),
        lambda im: im.resize((2 * WIDE, 2 * HIGH)),
    ],
    "saved again": [lambda im: saved_again(im, 60)],
}
ALL = [(kind, change) for kind, changes in CHANGES.items() for change in changes]


@pytest.fixture(scope="module")
def planted():
    """Photos, the first ones with a copy each; features say which belong together, with noise."""
    rng = np.random.default_rng(0)
    images = [photo(seed) for seed in range(80)]
    images += [change(image) for (_, change), image in zip(ALL, images, strict=False)]
    source = [*range(80), *range(len(ALL))]
    centres = rng.standard_normal((80, WIDTH))
    features = centres[source] + 0.5 * rng.standard_normal((len(source), WIDTH))
    greys = np.stack([grey(image) for image in images])
    sizes = [image.size for image in images]
    return greys, features.astype(np.float32), sizes


@pytest.fixture(scope="module")
def found(planted):
    greys, features, sizes = planted
    return find_copies(greys, features, sizes.__getitem__)


def test_every_planted_copy_is_found_and_nothing_else(found):
    assert found.pairs.tolist() == [[i, 80 + i] for i in range(len(ALL))]


def test_it_is_said_how_copies_differ(found):
    assert found.kinds == tuple(kind for kind, _ in ALL)


def test_groups_are_the_connected_images(found, planted):
    expected = list(range(len(planted[0])))
    for i in range(len(ALL)):
        expected[80 + i] = i
    assert found.groups.tolist() == expected


def test_evidence_and_correlation_are_those_of_copies(found):
    assert (found.evidence >= LEVELS[-1].evidence).all()
    assert (found.correlation > 0.75).all() and (found.correlation < 1.001).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_gives_the_same(found, planted, threads):
    again = find_copies(*planted[:2], planted[2].__getitem__, threads)
    assert again.kinds == found.kinds
    for name in ("pairs", "evidence", "correlation", "groups"):
        assert (getattr(again, name) == getattr(found, name)).all()


def test_without_sizes_scaled_is_saved_again(planted):
    greys, features, _ = planted
    first = [kind for kind, _ in ALL].index("scaled")
    chosen = [first, 80 + first]
    assert find_copies(greys[chosen], features[chosen]).kinds == ("saved again",)


def test_all_pairs_of_a_few_images_are_looked_at(planted):
    """Whatever their features."""
    greys, _, _ = planted
    chosen = [*range(10), 80, 84, 87]
    features = np.random.default_rng(1).standard_normal((len(chosen), 4)).astype(np.float32)
    pairs = find_copies(greys[chosen], features).pairs.tolist()
    assert pairs == [[0, 10], [4, 11], [7, 12]]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_image(planted, n):
    greys, features, _ = planted
    found = find_copies(greys[:n], features[:n])
    assert found.pairs.shape == (0, 2) and found.kinds == ()
    assert found.groups.tolist() == list(range(n))


def test_digits_are_no_copies_though_they_look_alike():
    from sklearn.datasets import load_digits

    digits = load_digits().images[:400] * (255 / 16)
    greys = np.stack([grey(Image.fromarray(d.astype(np.uint8))) for d in digits])
    assert not len(find_copies(greys, digits.reshape(400, -1).astype(np.float32)).pairs)


def test_plain_surfaces_are_no_copies():
    """Not even identical ones: they hold nothing by which a copy could be known."""
    plain = [Image.new("RGB", SIZE, (level,) * 3) for level in (0, 128, 128, 255)]
    disc = Image.new("L", SIZE, 255)
    disc.paste(0, (100, 60, 160, 120))
    greys = np.stack([grey(image) for image in [*plain, disc, disc]])
    assert not len(find_copies(greys, np.ones((6, 8), np.float32)).pairs)


def test_two_things_in_one_place_are_one_scene():
    image, other = photo(1), photo(2)
    changed = image.copy()
    changed.paste(other.crop((0, 0, 130, 110)), (60, 30))
    found = find_copies(np.stack([grey(image), grey(changed)]), np.ones((2, 8), np.float32))
    assert found.kinds == (SCENE,)
    assert found.groups.tolist() == [0, 1]


class Counted:
    def __init__(self):
        self.total, self.done = 0, 0

    def begin(self, phase, total):
        self.total = total

    def advance(self, n=1):
        self.done += n

    def say(self, sentence):
        raise AssertionError(sentence)


def test_progress_ends_at_its_total(planted):
    progress = Counted()
    find_copies(planted[0], planted[1], progress=progress)
    assert progress.done == progress.total > 0


@pytest.mark.parametrize(
    ("greys", "features", "name"),
    [
        (np.zeros((3, 32, 32), np.uint8), np.ones((3, 4)), "greys"),
        (np.zeros((3, 64, 64), np.float32), np.ones((3, 4)), "greys"),
        (np.zeros((3, 64, 64), np.uint8), np.ones((2, 4)), "features"),
        (np.zeros((3, 64, 64), np.uint8), np.ones(3), "features"),
        (np.zeros((3, 64, 64), np.uint8), np.full((3, 4), np.nan), "finite"),
    ],
)
def test_wrong_shapes_are_refused(greys, features, name):
    with pytest.raises(ValueError, match=name):
        find_copies(greys, features.astype(np.float32))


# Parts beside a slow way


def bilinear(image, x, y):
    """One value at (x, y) in -1 to 1; the edge is repeated."""
    side = len(image)
    column, row = ((v + 1) * side / 2 - 0.5 for v in (x, y))
    column, row = (min(max(v, 0), side - 1.001) for v in (column, row))
    i, j = int(row), int(column)
    a, b = row - i, column - j
    upper = image[i, j] * (1 - b) + image[i, j + 1] * b
    return upper * (1 - a) + (image[i + 1, j] * (1 - b) + image[i + 1, j + 1] * b) * a


def test_sampling_is_bilinear():
    rng = np.random.default_rng(0)
    images = rng.random((3, 9, 9), np.float32)
    maps = (np.eye(2, 3) + rng.normal(0, 0.4, (3, 2, 3))).astype(np.float32)
    values, inside = sampled(images, maps)
    for p in range(3):
        for row in range(9):
            for column in range(9):
                at = maps[p] @ [(2 * column + 1) / 9 - 1, (2 * row + 1) / 9 - 1, 1]
                assert values[p, row, column] == pytest.approx(bilinear(images[p], *at), abs=1e-4)
                assert inside[p, row, column] == (np.abs(at) < 1).all()


def test_evened_is_by_windows_that_end_at_the_edge():
    image = np.random.default_rng(0).random((12, 12)).astype(np.float32) * 255

    def mean(x, i, j):
        return x[max(0, i - 2) : i + 3, max(0, j - 2) : j + 3].mean()

    at = [(i, j) for i in range(12) for j in range(12)]
    fine = np.array([image[i, j] - mean(image, i, j) for i, j in at]).reshape(12, 12)
    expected = [fine[i, j] / np.sqrt(mean(fine**2, i, j) + 9) for i, j in at]
    np.testing.assert_allclose(evened(image, 2).ravel(), expected, atol=1e-4)


def test_shrinking_to_a_divisor_is_the_mean_of_blocks():
    greys = np.random.default_rng(0).integers(0, 256, (2, 64, 64)).astype(np.uint8)
    expected = greys.reshape(2, 16, 4, 16, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(shrink(greys, 16), expected, rtol=1e-5)
    np.testing.assert_allclose(resampling(64, 23).sum(axis=1), 1, rtol=1e-5)


def test_nearest_is_that_of_all_pairs():
    x = unit(np.random.default_rng(0).standard_normal((700, 16)).astype(np.float32))
    for k in (1, 5, 30):
        similar = x @ x.T
        np.fill_diagonal(similar, -2)
        best = np.argsort(-similar, axis=1)[:, :k]
        expected = {(i, j) for i in range(700) for j in best[i]}
        got = nearest(x, k, map)
        assert len(got) == 700 * k
        assert {tuple(pair) for pair in got.tolist()} == {tuple(sorted(pair)) for pair in expected}


def test_signatures_do_not_know_how_an_image_is_turned():
    greys = np.stack([grey(photo(seed)) for seed in range(6)])
    together = np.concatenate([np.ascontiguousarray(t) for t in turns(greys)])
    found = signatures(together, map).reshape(8, 6, -1)
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), atol=1e-3)


def test_maps_of_turns_and_windows_lead_where_they_should():
    images = shrink(np.stack([grey(photo(0))]), 16)
    for turned, turning in zip(turns(images), turning_maps(), strict=True):
        np.testing.assert_allclose(sampled(images, turning[None])[0], turned, atol=0.5)
    greys = np.stack([grey(photo(0))])
    cut = Coarse(greys).windows(np.array([0]))[0]
    for i, side in ((len(PARTS), 19), (len(PARTS) + 16 + 37, 23)):
        larger = evened(shrink(greys, side), Coarse.radius, Coarse.noise)
        maps = window_maps()[i : i + 1]
        # a window's pixels are the larger version's: nothing is interpolated
        x, y = (maps[0, :, :2] @ [-1 + 1 / 16, -1 + 1 / 16] + maps[0, :, 2] + 1) * side / 2 - 0.5
        column, row = round(x), round(y)
        assert (x, y) == pytest.approx((column, row), abs=1e-3)
        expected = larger[0, row : row + COARSE, column : column + COARSE].ravel()
        np.testing.assert_allclose(cut[i], expected / np.linalg.norm(expected), atol=1e-3)


def test_maps_are_composed_and_inverted_like_matrices():
    rng = np.random.default_rng(0)
    a, b = (np.eye(2, 3) + rng.normal(0, 0.3, (5, 2, 3)).astype(np.float32) for _ in range(2))
    square = [np.concatenate([m, np.tile([[[0, 0, 1]]], (5, 1, 1))], axis=1) for m in (a, b)]
    np.testing.assert_allclose(then(a, b), (square[1] @ square[0])[:, :2], atol=1e-5)
    np.testing.assert_allclose(inverse(a), np.linalg.inv(square[0])[:, :2], atol=1e-4)


@pytest.mark.parametrize("change", [change for _, change in ALL if change])
def test_alignment_is_as_good_as_the_best_of_a_search(change):
    """Evidence of the pair that was aligned, beside that of the true map, found by trying maps
    around the result at random: none is much better."""
    greys = np.stack([grey(photo(5)), grey(change(photo(5)))])
    starts = coarse_starts(greys, np.array([[0, 1]]), np.ones(1, np.float32), map)
    for level in LEVELS:
        starts = at_level(level, greys, starts, map).best_of_each()
    first, second = (shrink(greys[r], 64) for r in (starts.first, starts.second))
    rng = np.random.default_rng(0)
    tried = starts.maps + rng.normal(0, 0.01, (200, 2, 3)).astype(np.float32)
    others, _ = evidence(
        np.repeat(first, 200, axis=0), np.repeat(second, 200, axis=0), tried, LEVELS[-1]
    )
    assert starts.evidence[0] > others.max() - 1


def test_gauss_newton_finds_a_small_shift():
    image = np.asarray(photo(3).convert("L").resize((72, 72)), np.float32)
    first, second = image[None, 4:68, 4:68], image[None, 5:69, 2:66]  # 1 down, 2 to the left
    level = copies.Level(64, 4, 8, 0.0)
    maps = refine(first, second, np.eye(2, 3, dtype=np.float32)[None], level)
    expected = [[1, 0, 2 * 2 / 64], [0, 1, -1 * 2 / 64]]
    np.testing.assert_allclose(maps[0], expected, atol=0.004)


@pytest.mark.parametrize("grain", [0.1, 1.0, 2.0])
def test_evidence_of_independent_noise_is_of_variance_one(grain):
    """Whatever its grain is, and where it is."""
    rng = np.random.default_rng(0)
    frequency = np.add.outer(np.fft.fftfreq(64) ** 2, np.fft.fftfreq(64) ** 2)
    smooth = np.exp(-2 * (np.pi * grain) ** 2 * frequency)
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((2, 300, 64, 64))) * smooth).real
    a, b = (128 + 40 * noise / noise.std()).astype(np.float32)
    a[:, :32], b[:, :32] = 128, 128  # half of it is plain
    same = np.repeat(np.eye(2, 3, dtype=np.float32)[None], 300, axis=0)
    z, _ = evidence(a, b, same, LEVELS[-1])
    assert abs(z.mean()) < 0.2
    assert 0.8 < z.std() < 1.25


def test_filled_corners_are_those_of_a_turned_image():
    turned = photo(0).rotate(12, Image.Resampling.BICUBIC)
    white = Image.new("L", SIZE, 255).rotate(12, Image.Resampling.BICUBIC)
    outside = np.asarray(white.resize((64, 64))) < 8
    found = filled(grey(turned)[None])[0]
    assert (found & outside).sum() > 0.85 * outside.sum()
    assert (found & ~outside).sum() < 0.05 * outside.size


def test_components_are_those_of_a_search():
    rng = np.random.default_rng(0)
    pairs = np.sort(rng.integers(0, 60, (40, 2)), axis=1)
    reach = np.eye(60, dtype=bool)
    reach[pairs[:, 0], pairs[:, 1]] = reach[pairs[:, 1], pairs[:, 0]] = True
    for _ in range(6):
        reach = (reach.astype(int) @ reach) > 0
    assert components(60, pairs).tolist() == reach.argmax(axis=1).tolist()


def test_no_start_no_pair():
    none = np.zeros(0, np.int64)
    empty = Aligned(none, none, none, np.zeros((0, 2, 3), np.float32), *2 * [np.zeros(0)])
    assert not len(at_level(LEVELS[0], np.zeros((1, 64, 64), np.uint8), empty, map).number)
