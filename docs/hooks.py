"""What mkdocs does to these pages so that they also read well where they lie, on a code host.

A link to what is no page of the site (code, the README, a folder) becomes its text: there is
nothing to lead to. A folder in mkdocs.yml's nav stands for every page in it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)([^)\s]*)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder in the place of its name."""
    docs = Path(config.docs_dir)
    config.nav = [
        {title: pages_of(docs, at) if isinstance(at, str) and at.endswith("/") else at}
        for entry in config.nav or []
        for title, at in entry.items()
    ]
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite what only a code host understands; code stays as it is."""
    here = posixpath.dirname(page.file.src_uri)

    def rewrite(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(here, target))
        if path in files.src_uris:
            return link[0]
        pages = pages_of(Path(config.docs_dir), path) if not path.startswith("..") else []
        if not pages:
            return text
        first = next(iter(pages[0].values())) if isinstance(pages[0], dict) else pages[0]
        return f"[{text}]({posixpath.relpath(first, here or '.')}{anchor})"

    parts = FENCE.split(markdown)
    for i in range(0, len(parts), 2):
        # a code host reads Markdown within HTML; here it has to be asked for
        parts[i] = LINK.sub(rewrite, parts[i].replace("<details>", '<details markdown="1">'))
    return "".join(parts)


def pages_of(docs: Path, folder: str) -> list[Any]:
    """Pages of a folder, its index first, then by number and name; each by its short title."""
    pages = sorted((docs / folder).glob("*.md"), key=lambda page: rank(page.name))
    return [
        page.relative_to(docs).as_posix()
        if page.name == "index.md"
        else {short_title(page): page.relative_to(docs).as_posix()}
        for page in pages
    ]


def rank(name: str) -> tuple[bool, int, str]:
    number = re.match(r"\d+", name)
    return name != "index.md", int(number[0]) if number else 10**6, name


def short_title(page: Path) -> str:
    """The first heading up to its colon.

    A heading such as `# Network in Network: a perceptron a filter` is too long for a menu.
    """
    with page.open(encoding="utf-8") as lines:
        heading = next(line for line in lines if line.startswith("# "))
    return re.split(r"[:：]", heading[2:])[0].strip()


class Doctests(griffe.Extension):
    """Examples in docstrings are code: in Markdown `>>>` would be three quotations."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub("```pycon\n\\g<0>\n```", obj.docstring.value)
