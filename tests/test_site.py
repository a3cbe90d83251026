"""The docs as a site: each page is in its menu, each public name has an entry, and nothing in it is
loaded from elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import foveate

ROOT = Path(__file__).parent.parent
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
def served(site: Path) -> Iterator[str]:
    """The site's address on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {
        path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }


def test_every_page_of_the_docs_is_in_the_menu() -> None:
    """A folder in the nav stands for its pages."""
    nav = re.search(r"^nav:\n((?: .*\n)+)", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert nav
    listed = set(re.findall(r"[\w/-]+(?:\.md|/)(?=$)", nav[1], re.MULTILINE))
    docs = ROOT / "docs"
    assert [entry for entry in sorted(listed) if not (docs / entry).exists()] == []
    pages = {path.relative_to(docs) for path in docs.rglob("*.md")}
    missing = [
        page.as_posix()
        for page in sorted(pages)
        if page.as_posix() not in listed and f"{page.parent.as_posix()}/" not in listed
    ]
    assert missing == [], "add to nav in mkdocs.yml"


@pytest.mark.slow
def test_every_page_is_built(pages: dict[str, Page]) -> None:
    docs = ROOT / "docs"
    written = {p.relative_to(docs).with_suffix(".html").as_posix() for p in docs.rglob("*.md")}
    assert sorted(written - set(pages)) == []


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    loads = [(name, at) for name, page in pages.items() for at in page.loads if outside(at)]
    assert loads == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    fetched = re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s]+)", styles)
    assert [at for at in fetched if outside(at)] == []
    # the theme's script would fetch a library for these, and figures of a repository
    assert [name for name, page in pages.items() if page.classes & {"mermaid", "md-source"}] == []


@pytest.mark.slow
def test_every_public_name_has_an_entry(pages: dict[str, Page]) -> None:
    entries = {f"foveate.{name}" for name in foveate.__all__}
    assert sorted(entries - pages["api.html"].ids) == []


@pytest.mark.slow
def test_the_sites_own_files_are_all_that_a_reader_loads(served: str, browser: Any) -> None:
    """In both schemes, at both widths; and no page is wider than the window."""
    asked: list[str] = []
    wide = []
    for width, scheme in product((360, 1400), ("light", "dark")):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index", "train", "api", "networks/resnet", "course/zh/1-lenet", "faq"):
            page.goto(f"{served}/{name}.html")
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                wide.append((name, width))
        page.close()
    assert wide == []
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []


@pytest.mark.slow
@pytest.mark.parametrize("words, title", [("none of these", "None of these"), ("迁移", "迁移")])
def test_it_is_searched_where_it_lies(served: str, browser: Any, words: str, title: str) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    page.goto(f"{served}/index.html")
    page.locator("input.md-search__input").press_sequentially(words)
    found = page.locator(".md-search-result__item").first
    found.wait_for()
    assert title in found.inner_text()
    page.close()
