"""The docs as a site: each page is in its menu, each public name has an entry, and nothing in it is
loaded from elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import foveate

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
# what a page fetches by itself; an `a` only leads there
LOADS = {"script", "link", "img", "iframe", "source", "video", "audio", "object", "embed", "input"}


class Page(HTMLParser):
    """What a page loads, and the ids in it."""

    def __init__(self, html: str):
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids.add(found.get("id", ""))
        self.classes |= set(found.get("class", "").split())
        if tag in LOADS and found.get("rel") != "canonical":
            self.loads += [
                found[name] for name in ("src", "href", "srcset", "data") if name in found
            ]


def outside(address: str) -> bool:
    return address.startswith(("http:", "https:", "//"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as strictly as can be; where FOVEATE_SITE is set, as in CI, mkdocs must be there."""
    there = all(importlib.util.find_spec(n) for n in ("mkdocs", "material", "mkdocstrings"))
    if not there:
        assert "FOVEATE_SITE" not in os.environ, "the extra docs may not be missing"
        pytest.skip("the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True)
    # a page that is not in the nav, and a link that leads nowhere, are warnings, and so errors
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {
        path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }


def test_every_page_of_the_docs_is_in_the_site(site: Path) -> None:
    written = {
        p.relative_to(ROOT / "docs").with_suffix(".html") for p in (ROOT / "docs").rglob("*.md")
    }
    assert [str(page) for page in sorted(written) if not (site / page).is_file()] == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    loads = [(name, at) for name, page in pages.items() for at in page.loads if outside(at)]
    assert loads == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    imported = re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s]+)", styles)
    assert [at for at in imported if outside(at)] == []
    # the theme's script would fetch a library for these, and figures of a repository
    assert [name for name, page in pages.items() if page.classes & {"mermaid", "md-source"}] == []


def test_every_public_name_has_an_entry(pages: dict[str, Page]) -> None:
    entries = {f"foveate.{name}" for name in foveate.__all__}
    assert sorted(entries - pages["api.html"].ids) == []


def test_it_is_searched_where_it_lies(site: Path) -> None:
    index = (site / "search/search_index.json").read_text(encoding="utf-8")
    assert "foveate.export_classifier" in index and "none of these" in index


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_the_window(site: Path, browser, width: int, scheme: str) -> None:
    """And nothing but the site's own files is asked for."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    wide = []
    for name in ["index", "train", "api", "networks/resnet", "course/zh/1-lenet", "data", "faq"]:
        page.goto((site / f"{name}.html").as_uri())
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            wide.append(name)
    page.close()
    assert wide == []
    assert [url for url in asked if outside(url)] == []
