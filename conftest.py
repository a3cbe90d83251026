"""For tests and for the package's own examples: nothing touches the user's cache."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's cache is; torch.hub's is empty too."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FOVEATE_CACHE", str(folder))
    return folder
