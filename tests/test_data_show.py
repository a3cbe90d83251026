"""`foveate data show` gives up a file that hangs, obeys SIGTERM, and names what is damaged."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoded import encode
from PIL import Image
from refusals import refused

from foveate.cli import terminate
from foveate.cli.data import inspect
from foveate.data import workers
from foveate.data.dataset import Dataset
from foveate.errors import ImageError
from foveate.progress import Silent


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    for i in range(6):
        image = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        (tmp_path / f"{i}.jpg").write_bytes(encode(image, "JPEG"))
    data = (tmp_path / "4.jpg").read_bytes()
    middle = len(data) // 2
    (tmp_path / "4.jpg").write_bytes(data[:middle] + bytes(200) + data[middle + 200 :])
    (tmp_path / "5.jpg").write_bytes(data[:middle])
    return Dataset.of(sorted(tmp_path.iterdir()), [0, 0, 0, 1, 1, 1])


@pytest.fixture
def hanging(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    monkeypatch.setattr(workers, "GRACE", 0.1)
    never = threading.Event()

    def read(row: int) -> bytes:
        return never.wait() and b"" if row == 3 else dataset.read(row)

    yield replace(dataset, read=read)
    never.set()


def test_damaged_and_unreadable_files_are_named(dataset: Dataset) -> None:
    seen = inspect(dataset, Silent())
    damaged, bad = Path(dataset.files[4]).name, Path(dataset.files[5]).name
    assert [Path(name).name for name in seen.damaged] == [damaged]
    assert [Path(name).name for name in seen.bad] == [bad]
    assert seen.sizes == {(50, 40): 5} and not seen.notes


def test_a_file_that_hangs(hanging: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LIMIT", 1.0)
    monkeypatch.setattr("foveate.data.levels.LIMIT", 1.0)
    with refused(ImageError, hanging.files[3], "1 seconds"):
        inspect(hanging, Silent())


def test_sigterm_ends_it(hanging: Dataset) -> None:
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(SystemExit) as ended:
            inspect(hanging, Silent())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
