"""The check images of a page, and what Python says of them."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foveate.arguments import option
from foveate.classifier.given import Given
from foveate.data.image import read_file
from foveate.data.listing import images_below
from foveate.errors import DataError, ImageError, quoted
from foveate.export.web.network import PageAnswer, PageNetwork

# Between a browser and Python: of a probability, and the share of a measure of strangeness. The
# network computes the same in both, but for the order of its sums; of a JPEG that is read at a
# fraction of its size, a browser without an ImageDecoder gives some pixels another value.
TOLERANCE = 0.02
MEASURES = 0.1
MOST = 12  # images
MOST_BYTES = 3_000_000  # of all together
LARGEST = 1400  # pixels of the shorter side of what is drawn
TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"}


def drawn_images(side: int) -> list[Given]:
    """Images that are decoded and resized in every way: larger and smaller than a square of `side`
    pixels, wide and high, turned, transparent, grey, with a palette, and a JPEG that is read at a
    fraction of its size."""
    large = min(LARGEST, 4 * side + 4)
    turned = Image.Exif()
    turned[0x0112] = 6  # stored lying on its side
    see_through = waves(150, 110, 3)
    see_through.putalpha(Image.linear_gradient("L").resize(see_through.size))
    return [
        file("waves.png", waves(200, 150, 0)),
        file("turned.jpg", waves(480, 360, 1), exif=turned, quality=90),
        file("large.jpg", waves(large * 4 // 3, large, 2), quality=60),
        file("transparent.png", see_through),
        file("grey.jpg", waves(260, 340, 4).convert("L"), quality=90),
        file("palette.gif", waves(320, 240, 5).quantize(32)),
        file("wide.png", waves(500, 90, 6)),
        file("small.png", waves(48, 40, 7)),
    ]


def waves(width: int, height: int, seed: int) -> Image.Image:
    """Coloured waves, an edge and a few discs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)
    image = np.zeros((height, width, 3))
    for channel in range(3):
        along, phase, pace = rng.uniform(0, 6.3), rng.uniform(0, 6.3), rng.uniform(8, 60)
        image[..., channel] = np.sin(pace * (x * np.cos(along) + y * np.sin(along)) + phase)
    for _ in range(3):
        centre, colour = rng.uniform(0.1, 0.7, 2), rng.uniform(-1, 1, 3)
        inside = np.hypot(x - centre[0], y - centre[1]) < rng.uniform(0.08, 0.25)
        image[inside] = colour
    return Image.fromarray(np.clip(128 + 100 * image, 0, 255).astype(np.uint8))


def file(name: str, image: Image.Image, **options: Any) -> Given:
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG"}.get(name[-3:], name[-3:].upper()), **options)
    return Given(name, buffer.getvalue())


def images_of(folder: Path) -> list[Given]:
    """At most MOST files of a folder, evenly, that browsers read.

    Raises:
        DataError: it is no folder; it has none; they are too large for a page.
    """
    if not folder.is_dir():
        raise DataError(f"no such folder: {quoted(folder)}; {option('check_images')} names one")
    found = [path for path in images_below(folder)[0] if type_of(path.name)]
    if not found:
        kinds = ", ".join(suffix[1:] for suffix in TYPES)
        raise DataError(f"there are no images in {quoted(folder)} that browsers read: {kinds}")
    places = np.linspace(0, len(found) - 1, min(MOST, len(found))).round().astype(int)
    given = [
        Given(found[place].relative_to(folder).as_posix(), read_file(found[place]))
        for place in places
    ]
    total = sum(len(image.content) for image in given)
    if total > MOST_BYTES:
        largest = max(given, key=lambda image: len(image.content))
        raise DataError(
            f"the check images are kept in the page, and {len(given)} of {quoted(folder)} have "
            f"{total:,} bytes, more than {MOST_BYTES:,}; the largest is {quoted(largest.name)}: "
            "give fewer, or smaller ones"
        )
    return given


def type_of(name: str) -> str:
    """The media type of a file, by its name; "" of what browsers do not read."""
    suffix = Path(name).suffix.lower()
    return TYPES.get({".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg"}.get(suffix, suffix), "")


def expected(network: PageNetwork, images: Iterable[Given]) -> dict[str, Any]:
    """What the page compares itself with.

    Raises:
        DataError: an image cannot be read.
    """
    found = []
    for image, answer in network.answers(images):
        if isinstance(answer, ImageError):
            raise DataError(f"a check image cannot be read: {answer}; take it out")
        found.append(about(image, answer))
    return {"tolerance": TOLERANCE, "measures": MEASURES, "images": found}


def about(image: Given, answer: PageAnswer) -> dict[str, Any]:
    order = np.argsort(-answer.probabilities, kind="stable")
    measures = answer.measures
    return {
        "name": image.name,
        "type": type_of(image.name),
        "data": base64.b64encode(image.content).decode(),
        "probabilities": [round(float(p), 6) for p in answer.probabilities],
        "answer": [int(i) for i in order if answer.given[i]],
        "rejected": answer.rejected,
        "measures": None if measures is None else [round(float(m), 4) for m in measures],
    }
