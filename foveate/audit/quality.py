"""Images that are likely faults: of one colour, blurred, dark, overexposed, tiny, far from square,
screenshots and text among photos, grey among colour.

Each image is measured once, at the scale at which networks see it: its shorter side has at most
SIDE pixels. Each rule has two limits, and an image is named only beyond both: one that no good
photo reaches, and one relative to the folder, so that what is usual there is no fault. X-rays are
not grey among colour, and of photos taken at night none is dark.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.data.dataset import Dataset
from foveate.data.image import DECODER, Levels, load_image, reduction
from foveate.data.preprocess import Preprocess
from foveate.data.workers import decode_ahead
from foveate.errors import ImageError
from foveate.features import PART, FeatureStore, Known
from foveate.progress import Progress

Numbers = NDArray[np.float32]
Grey = NDArray[np.uint8]

RULES = 1  # part of every cached measure's key: raise it when `measure` changes
SIDE = 256  # pixels of the shorter side at which an image is measured
LONGEST = 1024  # pixels of the longer side
# pixels of the shorter side at which colours are measured: noise and compression are averaged out
COARSE = 64
BLOCK = 16  # side in pixels of a block in which edges are compared
WIDE = 8  # pixels over which a blurred edge still has most of its height
LEAST = 64  # pixels of the shorter side from which there are edges enough to judge focus and text
EDGE = 48  # levels between neighbours that make a strong edge
SOME = 0.3  # of the image's highest edge: lower ones, and noise, say nothing of its focus
WHITE = 250  # levels from which a pixel is burnt out

PLAIN, BLURRED, DARK, OVEREXPOSED = "one colour", "blurred", "dark", "overexposed"
TINY, LONG, SCREEN, GREY = "tiny", "far from square", "screenshot or text", "grey"


class Measures(NamedTuple):
    """Of each of N images, (N,) each; or numbers, of one.

    Args:
        width, height: pixels; of a JPEG that is decoded at a smaller scale, to within 7.
        sharpness: the height of its sharpest edges from one pixel to the next, as a share of their
            height over WIDE pixels: 1 is a step, 0.125 a ramp; the lower of both directions.
        darkest, dark, bright: the levels below which 0.5 %, 5 % and 99.5 % of the pixels lie.
        white: the share of pixels of at least WHITE.
        contrast: levels between 0.5 % and 99.5 % of the pixels, of the channel with most.
        colour: what 99 % of the pixels have at most between their channels, in levels.
        crisp: of the blocks with a strong edge, the share of pixels equal to their neighbours: text
            stands on a plane ground, things in photos do not.
        edges: the share of blocks with a strong edge.
        tones: the share of the pixels that have one of the four most frequent tones, of 64.
    """

    width: Numbers
    height: Numbers
    sharpness: Numbers
    darkest: Numbers
    dark: Numbers
    bright: Numbers
    white: Numbers
    contrast: Numbers
    colour: Numbers
    crisp: Numbers
    edges: Numbers
    tones: Numbers


@dataclass(frozen=True)
class Faults:
    """The images with one kind of fault.

    Args:
        kind: such as BLURRED.
        rows: of the images, the worst first.
        values: of each, what it was found by, as KINDS says.
        typical: the median of the folder.
    """

    kind: str
    rows: tuple[int, ...]
    values: tuple[float, ...]
    typical: float

    def said(self) -> str:
        """Its kind, and the worst of its images beside the folder's median, for people."""
        measure, form, _ = KINDS[self.kind]
        numbers = (format(value, form) for value in (self.values[0], self.typical))
        worst, typical = (number.replace("%", " %") for number in numbers)
        return f"{self.kind} ({measure}: {worst}; median of the folder: {typical})"

    def to_dict(self, dataset: Dataset) -> list[dict[str, Any]]:
        """For JSON, one entry an image."""
        return [
            {
                "file": dataset.files[row],
                "split": dataset.splits[row],
                "label": dataset.label(row),
                "kind": self.kind,
                "measure": KINDS[self.kind].measure,
                "value": value,
                "typical": self.typical,
            }
            for row, value in zip(self.rows, self.values, strict=True)
        ]


class Kind(NamedTuple):
    """For people: what a kind of fault is found by, how its numbers are written, and what to do
    with such images."""

    measure: str
    form: str
    remedy: str


UNLESS_MET = "remove them, unless the images to be classified are like that"
KINDS = {
    PLAIN: Kind("contrast, of 255", ".0f", "there is nothing on them: remove them"),
    SCREEN: Kind("plane ground around edges", ".0%", "remove them, if photos are to be classified"),
    TINY: Kind(
        "pixels of the shorter side", ".0f", "put the originals in their place, or remove them"
    ),
    LONG: Kind(
        "longer side to shorter",
        ".1f",
        "cut them to what matters: the ends are not seen (--fit pad or squash shows all of them)",
    ),
    BLURRED: Kind("sharpness, of 1", ".2f", UNLESS_MET),
    DARK: Kind("brightest level, of 255", ".0f", UNLESS_MET),
    OVEREXPOSED: Kind("white pixels", ".0%", UNLESS_MET),
    GREY: Kind(
        "colour, of 255",
        ".0f",
        "where they are of one class, greyness will be learnt: put colour images in their place",
    ),
}


def measure_images(
    dataset: Dataset, levels: Levels | None, threads: int, progress: Progress
) -> Measures:
    """The measures of every image, from the cache where they are known.

    Args:
        dataset: of readable images.
        levels: as for `load_image`.
        threads: that decode.

    Raises:
        ImageError: an image cannot be read, or does not come within `workers.LIMIT`.
        FoveateError: the cache cannot be written.
    """
    space = {"measures": "quality", "rules": RULES, "decoder": DECODER, "levels": levels}
    store = FeatureStore(space)
    digests = dataset.digests
    known = store.find(set(digests))
    missing = {d: row for row, d in reversed(list(enumerate(digests))) if d not in known}
    progress.begin("quality", len(dataset))
    progress.advance(len(dataset) - len(missing))

    def measure_row(row: int) -> Numbers:
        data = dataset.read(row)
        image = load_image(data, dataset.files[row], SIDE, levels)
        return measure(image, max(1, reduction(data, SIDE)))

    done: list[str] = []
    held = Preprocess(SIDE, SIDE)  # for the memory that images on their way take
    try:
        rows = sorted(missing.values())
        for row, found in decode_ahead(rows, measure_row, dataset.files.__getitem__, held, threads):
            if isinstance(found, ImageError):
                raise found
            known[digests[row]] = Known(found, None)
            done.append(digests[row])
            progress.advance()
            if len(done) == PART:
                store.add(done, [known[digest] for digest in done])
                done = []
    finally:  # also when it is interrupted
        if done:
            store.add(done, [known[digest] for digest in done])
    table = np.array([known[digest].features for digest in digests], np.float32)
    return Measures(*table.reshape(len(dataset), len(Measures._fields)).T)


def measure(image: Image.Image, scale: int = 1) -> Numbers:
    """(12,), the numbers of `Measures`, of one image in mode RGB.

    Args:
        scale: by how much it was decoded smaller than it is.
    """
    width, height = image.size
    part = min(1.0, SIDE / min(image.size), LONGEST / max(image.size))
    size = max(1, round(part * width)), max(1, round(part * height))
    full = image.convert("L")  # first: one channel is resized in a third of the time
    grey = np.asarray(full if size == image.size else full.resize(size, Image.Resampling.BILINEAR))
    coarse = image.reduce(max(1, min(image.size) // COARSE))
    darkest, dark, bright = quantiles(np.asarray(coarse.convert("L")), 0.005, 0.05, 0.995)
    red, green, blue = (np.asarray(channel) for channel in coarse.split())
    ranges = [quantiles(channel, 0.005, 0.995) for channel in (red, green, blue)]
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    (colour,) = quantiles(most - least, 0.99)
    tones = np.bincount(grey.reshape(-1), minlength=256)
    frequent = np.sort(tones.reshape(64, 4).sum(axis=1))[-4:].sum() / grey.size
    white = tones[WHITE:].sum() / grey.size
    contrast = max(high - low for low, high in ranges)
    crisp, edges = planes(grey)
    found = [width * scale, height * scale, sharpness(grey), darkest, dark, bright]
    found += [white, contrast, colour, crisp, edges, frequent]
    return np.array(found, np.float32)


def quantiles(values: Grey, *shares: float) -> list[int]:
    """The levels below which these shares of the values lie.

    >>> quantiles(np.arange(100, dtype=np.uint8), 0.05, 0.5)
    [5, 50]
    """
    below = np.bincount(values.reshape(-1), minlength=256).cumsum()
    return [int(np.searchsorted(below, share * values.size, side="right")) for share in shares]


def sharpness(grey: Grey) -> float:
    """As in `Measures`; 1 where an image is too small to say.

    The highest edge from one pixel to the next, over the highest over WIDE pixels, of each block
    with a high edge; of these, nearly the best, since a photo is sharp if anything in it is. Camera
    shake blurs one direction alone.
    """
    if min(grey.shape) < LEAST:
        return 1.0
    return min(sharpness_along(grey), sharpness_along(np.ascontiguousarray(grey.T)))


def sharpness_along(grey: Grey) -> float:
    """From left to right."""
    middle = WIDE // 2
    near = highest(difference(grey[:, middle:-middle], grey[:, middle - 1 : -middle - 1]))
    wide = highest(difference(grey[:, WIDE:], grey[:, :-WIDE]))
    high = wide >= max(1.0, SOME * wide.max())
    if not high.any():
        return 1.0
    return float(np.quantile(np.minimum(near[high] / wide[high], 1), 0.9))


def difference(a: Grey, b: Grey) -> Grey:
    """|a - b|, without the overflow of uint8."""
    return np.maximum(a, b) - np.minimum(a, b)


def blocks(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """(H, W) -> (H / BLOCK, BLOCK, W / BLOCK, BLOCK), without what is left at the ends."""
    down, across = (side // BLOCK for side in values.shape)
    return values[: down * BLOCK, : across * BLOCK].reshape(down, BLOCK, across, BLOCK)


def highest(values: Grey) -> Numbers:
    """The highest value of each block."""
    return blocks(values).max(axis=1).max(axis=2).astype(np.float32)


def planes(grey: Grey) -> tuple[float, float]:
    """`crisp` and `edges` of `Measures`; 0 where an image is too small for text."""
    if min(grey.shape) < LEAST:
        return 0.0, 0.0
    here = grey[1:, 1:]
    steps = np.maximum(difference(here, grey[:-1, 1:]), difference(here, grey[1:, :-1]))
    strong = highest(steps) >= EDGE
    if not strong.any():
        return 0.0, 0.0
    plane = blocks(steps == 0).mean(axis=(1, 3))
    return float(plane[strong].mean()), float(strong.mean())


def find_faults(m: Measures) -> list[Faults]:
    """The faults of a folder's images, by kind, in the order of KINDS; kinds without an image are
    left out. An image may have several.

    The limits were chosen on the training images of two sets of photos and on faults made of them
    (benchmarks/quality.py).
    """
    if not len(m.width):
        return []
    short, long = np.minimum(m.width, m.height), np.maximum(m.width, m.height)
    ratio = (long / short).astype(np.float32)
    # what is nearly black, and not quite of one colour, is dark
    plain = (m.contrast <= np.where(m.bright < 40, 6, 20)) & (m.contrast < typical(m.contrast) / 4)
    text = (m.crisp > max(0.33, fence(m.crisp))) & (m.tones > max(0.7, fence(m.tones)))
    screen = ~plain & text & (m.edges > 0.3)
    photo = ~plain & ~screen
    burnt = m.white > max(0.25, fence(m.white), 2 * typical(m.white))
    burnt &= m.dark > max(80, 1.5 * typical(m.dark))
    pale = m.darkest > max(150, fence(m.darkest), 1.5 * typical(m.darkest))
    found = {
        PLAIN: (plain, -m.contrast, m.contrast),
        SCREEN: (screen, m.crisp, m.crisp),
        TINY: ((short < 112) & (short < typical(short) / 3), -short, short),
        LONG: ((ratio >= 2.5) & (ratio >= 1.8 * typical(ratio)), ratio, ratio),
        BLURRED: (
            photo & (m.sharpness < min(0.3, typical(m.sharpness) / 2)),
            -m.sharpness,
            m.sharpness,
        ),
        DARK: (photo & (m.bright < min(80, 0.4 * typical(m.bright))), -m.bright, m.bright),
        OVEREXPOSED: (photo & (burnt | pale), m.white, m.white),
        GREY: (
            photo & (m.colour <= np.minimum(4, m.bright / 25)) & (typical(m.colour) > 16),
            -m.colour,
            m.colour,
        ),
    }
    faults = []
    for kind in KINDS:
        mask, badness, values = found[kind]
        rows = np.flatnonzero(mask)
        rows = rows[np.argsort(-badness[rows], kind="stable")]
        if len(rows):
            numbers = tuple(values[rows].tolist())
            faults.append(Faults(kind, tuple(rows.tolist()), numbers, typical(values)))
    return faults


def typical(values: Numbers) -> float:
    return float(np.median(values))


def fence(values: Numbers) -> float:
    """What lies above it is an outlier by Tukey's rule."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high + 1.5 * (high - low))
