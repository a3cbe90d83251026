"""Pictures that may be changed, and what was learnt from them as they are."""

import shutil
from pathlib import Path

import pytest
from learnt import tensors


@pytest.fixture
def root(pictures: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(pictures, tmp_path / "photos"))


@pytest.fixture
def flat(pictures: Path, tmp_path: Path) -> Path:
    """One folder a class, no splits."""
    return Path(shutil.copytree(pictures / "train", tmp_path / "flat"))


@pytest.fixture
def reference(trained: Path) -> bytes:
    return tensors(trained)
