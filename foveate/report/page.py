"""What the pages have in common: one file that needs no network, whose names are inert."""

import base64
import hashlib
import io
import re
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from foveate.data.dataset import Dataset
from foveate.data.image import load_image
from foveate.errors import ArtefactError, ImageError, UsageError, quoted
from foveate.progress import Progress
from foveate.report.texts import Texts, isolated
from foveate.storage import disk_errors, replacing

SIDE = 160  # pixels of a thumbnail's longer side
MARK = '<meta name="generator" content="Foveate report">'
# of the rest of the page: a page that was changed is known
METRICS = re.compile('<meta name="metrics-sha256" content="([0-9a-f]*)">')
DIGEST = re.compile('<meta name="page-sha256" content="([0-9a-f]*)">')

# what a page leaves out unless it is given
ABSENT: dict[str, Any] = dict.fromkeys(
    "figures problems classes more_classes confusion mistakes calibration refusal framing plan "
    "curves reproduction".split()
) | {
    "metrics_digest": "",
    "beside": [],
    "sets": [],
    "notes": [],
    "images": {},
    "held": 0,
    "gone": 0,
}


def thumbnails(
    dataset: Dataset, files: list[str], threads: int, progress: Progress
) -> dict[str, str]:
    """Small JPEGs in base64, by file; "" of those that are not there or cannot be read."""
    place = {name: row for row, name in enumerate(dataset.files)}

    def thumbnail(file: str) -> str:
        progress.advance()
        if file not in place:
            return ""
        try:
            image = load_image(dataset.read(place[file]), file, SIDE)
        except ImageError:
            return ""
        return small_jpeg(image)

    progress.begin("thumbnails", len(files))
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(files, pool.map(thumbnail, files), strict=True))


def small_jpeg(image: Image.Image) -> str:
    """An image of at most SIDE pixels a side, in base64."""
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return base64.b64encode(buffer.getvalue()).decode()


def write_page(out: Path, t: Texts, values: dict[str, Any]) -> None:
    """Write a report's page.

    Args:
        out: the file; an older page of ours there is replaced.
        t: of the page's language.
        values: for report.html.

    Raises:
        UsageError: `out` is no HTML file, or one of others is there.
        FoveateError: it cannot be written.
    """
    check_place(out)
    source = (resources.files("foveate.report") / "report.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["isolated"] = isolated
    unexplained: dict[str, Any] = {"reasons": {}, "reasons_about": [], "parts": []}
    page = environment.from_string(source).render(t=t, **(unexplained | values))
    page = page.encode("utf-8", "replace").decode()
    page = page.replace('"page-sha256" content=""', f'"page-sha256" content="{digest_of(page)}"', 1)
    with disk_errors(out), replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def digest_of(page: str) -> str:
    """The SHA-256 of a page, but for what it says of it itself."""
    bare = DIGEST.sub('<meta name="page-sha256" content="">', page, count=1)
    return hashlib.sha256(bare.encode()).hexdigest()


def is_as_written(page: str) -> bool:
    """Whether a page is what `write_page` wrote."""
    found = DIGEST.search(page)
    return found is not None and found[1] == digest_of(page)


def metrics_of(page: str) -> str:
    """The SHA-256 of the metrics.json that a page was made of; "" of none."""
    found = METRICS.search(page)
    return "" if found is None else found[1]


def check_place(out: Path) -> None:
    """UsageError unless a report may take this place."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a report is an .html file, not {quoted(out)}")
    with disk_errors(out):
        if out.exists() and MARK.encode() not in out.read_bytes():
            raise UsageError(f"{quoted(out)} exists and is no report; choose another --out")


def damaged(run: Path, error: Exception) -> ArtefactError:
    """What to raise where a file of a run lacks what was expected."""
    return ArtefactError(f"{quoted(run)} has a damaged file: {error!r}; train again")
