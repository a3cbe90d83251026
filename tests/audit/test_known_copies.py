"""Copies that were found once are not looked for again."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.audit import known_copies
from foveate.audit.known_copies import known_copies as looked_up
from foveate.data.small import SIDE
from foveate.progress import Silent


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path))
    return tmp_path / "copies"


def look(seed: int = 0) -> list[tuple[int, int, str]]:
    """Eight images with detail, and the mirror image of the first."""
    rng = np.random.default_rng(seed)
    small = rng.integers(256, size=(8, 12, 12), dtype=np.uint8)
    greys = np.stack([np.asarray(Image.fromarray(s).resize((SIDE, SIDE))) for s in small])
    greys = np.concatenate([greys, greys[:1, :, ::-1]])
    features = rng.normal(size=(9, 32)).astype(np.float32)
    features[8] = features[0]
    digests = [f"{seed}-{i}" for i in range(9)]
    return looked_up(greys, features, digests, None, 1, Silent())


def test_the_same_images_have_the_same_copies(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look()
    assert found == [(0, 8, "mirrored")]
    monkeypatch.setattr(known_copies, "find_copies", None)
    assert look() == found
    with pytest.raises(TypeError):  # other images are looked at
        look(seed=1)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"first": [0], "second": [], "kinds": []}']
    + [f'{{"first": [{a}], "second": [{b}], "kinds": ["turned"]}}' for a, b in ((0, 9), (-1, 2))],
)
def test_a_damaged_file_is_found_again(cache: Path, text: str) -> None:
    found = look()
    (file,) = cache.iterdir()
    file.write_text(text)
    assert look() == found
    assert file.read_text() != text


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "file"))
    assert look() == [(0, 8, "mirrored")]


def test_the_oldest_are_deleted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_copies, "KEPT", 3)
    for seed in range(5):
        look(seed)
    assert len(list(cache.iterdir())) == 3
