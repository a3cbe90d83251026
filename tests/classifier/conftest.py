"""A copy of the trained classifier that tests may damage, and an image to predict."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained classifier that may be damaged."""
    return Path(shutil.copytree(trained / "classifier", tmp_path / "classifier"))


@pytest.fixture
def image(images: Path) -> Path:
    return images / "test" / "blob" / "100.jpg"
