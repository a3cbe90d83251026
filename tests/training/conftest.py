"""Images that may be changed, and what was learnt from them as they are."""

import shutil
from pathlib import Path

import pytest
from learnt import tensors


@pytest.fixture
def root(images: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(images, tmp_path / "photos"))


@pytest.fixture
def flat(images: Path, tmp_path: Path) -> Path:
    """One folder a class, no splits."""
    return Path(shutil.copytree(images / "train", tmp_path / "flat"))


@pytest.fixture
def reference(trained: Path) -> bytes:
    return tensors(trained)
