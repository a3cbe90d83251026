"""All findings on one HTML page, which needs no other file."""

import base64
from html import escape
from pathlib import Path
from typing import Any

from foveate.storage import replacing

HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Foveate: experiments</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100%; height: auto } h2 { margin-top: 3rem }
.about { color: #666; font-size: .9rem } table { border-collapse: collapse; font-size: .85rem }
td, th { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } .table { overflow-x: auto }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd }
  img { background: #fff } td, th { border-color: #444 } .about { color: #aaa } }
</style>
<h1>Experiments</h1>
"""
EFFECT = {True: "the effect appeared", False: "the effect did not appear", None: "not tried here"}


def write_page(path: Path, found: list[tuple[Path, dict[str, Any]]]) -> None:
    """Write the page.

    Args:
        path: of the page.
        found: each experiment's folder, and what its findings.json holds.
    """
    contents = "".join(
        f'<li><a href="#{escape(one["lab"])}">{escape(one["lab"])}</a>: '
        f"{escape(one['question'])} ({EFFECT[one['shown']]})</li>\n"
        for _, one in found
    )
    sections = "".join(section(folder, one) for folder, one in found)
    with replacing(path) as temporary:
        text = f"{HEAD}<ol>\n{contents}</ol>\n{sections}"
        temporary.write_text(text, encoding="utf-8")


def section(folder: Path, one: dict[str, Any]) -> str:
    svg = base64.b64encode((folder / "figure.svg").read_bytes()).decode()
    form = "quick" if one["quick"] else "full"
    notes = "".join(f"<p class=about>note: {escape(note)}</p>\n" for note in one["notes"])
    seen = "".join(f"<p>{escape(sentence)}</p>\n" for sentence in one["seen"])
    return (
        f'<h2 id="{escape(one["lab"])}">{escape(one["lab"])}</h2>\n'
        f"<p><b>{escape(one['question'])}</b></p>\n"
        f'<img alt="{escape(one["question"])}" src="data:image/svg+xml;base64,{svg}">\n'
        f"{seen}{notes}<p>Next: {escape(one['change'])}</p>\n"
        f"<p class=about>{form} form, seed {one['seed']}, {one['seconds']:.0f} s</p>\n"
        f"<details><summary>table</summary><div class=table>{table(one['rows'])}</div></details>\n"
    )


def table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell(row.get(name)))}</td>" for name in columns) + "</tr>\n"
        for row in rows
    )
    return f"<table><tr>{head}</tr>\n{body}</table>"


def cell(value: Any) -> str:
    """
    >>> cell(0.123456), cell(12), cell(None)
    ('0.1235', '12', '')
    """
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
