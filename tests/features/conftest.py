"""The small engine in place of the backbone, and images for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_backbone import FakeBackbone

from foveate import features


@pytest.fixture
def backbone(monkeypatch: pytest.MonkeyPatch) -> FakeBackbone:
    fake = FakeBackbone()
    monkeypatch.setattr(features, "prepare_backbone", lambda *_: fake)
    return fake


@pytest.fixture
def root(tmp_path: Path, draw_folder: Callable[..., Path]) -> Path:
    """Twelve images in two classes."""
    return draw_folder(tmp_path / "photos", 6, kinds=("blob", "stripes"))
