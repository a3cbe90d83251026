"""A copy of the trained classifier that may be damaged, and a picture to ask it about."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained classifier that may be damaged."""
    return Path(shutil.copytree(trained / "classifier", tmp_path / "classifier"))


@pytest.fixture
def picture(pictures: Path) -> Path:
    return pictures / "test" / "blob" / "100.jpg"
