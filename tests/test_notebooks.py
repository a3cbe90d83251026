"""The course's notebooks are those of its pages."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

COURSE = Path(__file__).parent.parent / "docs/course"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("make_notebooks", COURSE / "make_notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = script()


@pytest.mark.parametrize("page", MAKE.pages(), ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_is_not_stale(page: Path) -> None:
    path = MAKE.notebook_of(page)
    assert path.exists(), f"{path.name} is missing: see {COURSE.name}/make_notebooks.py"
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["metadata"]["foveate"]["sha256"] == MAKE.source_hash(page), (
        f"{page.name} has changed since its notebook was written: run docs/course/make_notebooks.py"
    )
    assert path.stat().st_size < 1_000_000
    kinds = [output["output_type"] for cell in found["cells"] for output in cell.get("outputs", [])]
    assert "error" not in kinds


def test_there_is_none_without_a_page() -> None:
    written = set((COURSE / "notebooks").rglob("*.ipynb"))
    assert written == {MAKE.notebook_of(page) for page in MAKE.pages()}
