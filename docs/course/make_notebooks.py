"""Write the course's notebooks from its pages.

    pip install 'foveate[course]'
    foveate lab all --quick --out lab
    python docs/course/make_notebooks.py lab [PAGE ...]

It is called in a folder with `photos`, which has a folder for each class, and an image `x.jpg`.
Each page of docs/course/en and docs/course/zh with code becomes docs/course/notebooks/en/PAGE.ipynb
or zh/PAGE.ipynb. Its Python blocks are run, and what they print is kept. A line `foveate lab NAME
--quick` becomes a cell of its own, whose output is what that experiment left in the folder `lab`:
its sentences and its figure. The figures of a page go into docs/course/figures. A notebook holds
the hash of its page, so that tests/test_notebooks.py knows which are stale.
"""

import base64
import hashlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PIECE = re.compile(r"^```(python|bash)\n(.*?)^```\n?", re.MULTILINE | re.DOTALL)
LAB = re.compile(r"^foveate lab (?!all )([a-z-]+) --quick$", re.MULTILINE)
FIGURE = re.compile(r"^!\[.*\]\(\.\./figures/(.+)\.png\)\n*", re.MULTILINE)
WIDTH = 900  # pixels of a figure


def pages() -> list[Path]:
    found = [page for language in ("en", "zh") for page in sorted((HERE / language).glob("*.md"))]
    return [page for page in found if PIECE.search(page.read_text(encoding="utf-8"))]


def notebook_of(page: Path) -> Path:
    return HERE / "notebooks" / page.parent.name / f"{page.stem}.ipynb"


def source_hash(page: Path) -> str:
    return hashlib.sha256(page.read_bytes()).hexdigest()[:16]


def cells(text: str) -> list[tuple[str, str]]:
    """("markdown", text), ("python", code) and ("bash", commands), in order. What is folded away
    stays folded: code inside of <details> is text.

    >>> cells("one\\n```python\\n1\\n```\\ntwo\\n")
    [('markdown', 'one'), ('python', '1'), ('markdown', 'two')]
    """
    text = FIGURE.sub("", text)  # a notebook has them as outputs
    found: list[tuple[str, str]] = []
    end = 0
    for match in PIECE.finditer(text):
        before = text[: match.start()]
        if before.count("<details") > before.count("</details"):
            continue
        found.append(("markdown", text[end : match.start()]))
        found.append((match[1], match[2]))
        end = match.end()
    found.append(("markdown", text[end:]))
    return [(kind, body.strip("\n")) for kind, body in found if body.strip()]


def shrunk(figure: Path) -> str:
    """A figure for a notebook, in base64."""
    from PIL import Image

    image = Image.open(figure).convert("RGB")
    image = image.resize(
        (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
    )
    buffer = io.BytesIO()
    image.quantize(64).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def shown(labs: Path, names: list[str]) -> list[dict[str, Any]]:
    """What the experiments left, as outputs of a cell."""
    outputs: list[dict[str, Any]] = []
    for name in names:
        found = json.loads((labs / name / "findings.json").read_text())
        text = "\n".join([found["question"], *found["seen"], f"next  {found['change']}", ""])
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
        data = {"image/png": shrunk(labs / name / "figure.png"), "text/plain": f"<{name}>"}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    return outputs


def make(page: Path, labs: Path) -> None:
    import nbformat
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    notebook = new_notebook()
    kept: dict[int, list[dict[str, Any]]] = {}
    for number, (kind, body) in enumerate(cells(page.read_text(encoding="utf-8"))):
        if kind == "markdown":
            cell = new_markdown_cell(body)
        elif kind == "python":
            cell = new_code_cell(body)
        else:
            cell = new_code_cell("\n".join(f"!{line}" for line in body.splitlines()))
            cell.metadata["tags"] = ["skip-execution"]
            kept[number] = shown(labs, LAB.findall(body))
        cell["id"] = f"{number:03d}"
        notebook.cells.append(cell)
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    notebook.metadata["foveate"] = {"page": page.name, "sha256": source_hash(page)}
    with tempfile.TemporaryDirectory() as desk:  # each page begins with the same files
        for name in ("photos", "x.jpg"):
            (Path(desk) / name).symlink_to(Path(name).resolve())
        resources = {"metadata": {"path": desk}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    for number, outputs in kept.items():
        notebook.cells[number].outputs = [nbformat.from_dict(output) for output in outputs]
    for cell in notebook.cells:  # times would make each writing another file
        cell.metadata.pop("execution", None)
    path = notebook_of(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    print(path.relative_to(HERE), f"{path.stat().st_size / 1e3:.0f} KB")


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    labs, names = Path(sys.argv[1]), sys.argv[2:]
    for page in pages():
        if not names or page.stem in names:
            make(page, labs)
            for name in FIGURE.findall(page.read_text(encoding="utf-8")):
                figure = HERE / "figures" / f"{name}.png"
                figure.parent.mkdir(exist_ok=True)
                figure.write_bytes(base64.b64decode(shrunk(labs / name / "figure.png")))


if __name__ == "__main__":
    main()
