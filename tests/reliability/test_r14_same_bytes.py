"""R14: same seed, same bytes, for any number of threads, working folder, locale and time zone."""

from pathlib import Path

import pytest

import foveate

ROOT = str(Path(foveate.__file__).parents[1])
PROGRAM = """
import hashlib, os, sys
os.chdir(sys.argv[2])
import locale, time
import numpy as np
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
from foveate.data.batches import EvaluationBatches, TrainingBatches
from foveate.data.layouts import load_dataset
from foveate.data.augment import Augment
from foveate.data.preprocess import Preprocess

dataset, threads, cache = load_dataset(sys.argv[1]), int(sys.argv[3]), sys.argv[4]
rows, preprocess, total = np.arange(len(dataset)), Preprocess(40, 32), hashlib.sha256()
training = TrainingBatches(
    dataset, rows, preprocess, Augment("strong"), 8, seed=5, threads=threads, cache=cache
)
evaluation = EvaluationBatches(dataset, rows, preprocess, 8, threads)
for batches in (training.epoch(0), training.epoch(1), evaluation):
    for batch in batches:
        total.update(batch.pixels.permute(0, 2, 3, 1).numpy().tobytes())
        total.update(batch.targets.numpy().tobytes() + repr(batch.names).encode())
print(total.hexdigest())
"""
# Istanbul's lower-case I, a decimal comma, other digits, bytes that are no UTF-8; half an hour off,
# the other day
CHANGES = [
    {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "1"},
    {"LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kolkata", "PYTHONHASHSEED": "2"},
    {
        "LC_ALL": "de_DE.ISO-8859-1",
        "LANG": "fa_IR",
        "TZ": "Pacific/Kiritimati",
        "OMP_NUM_THREADS": "1",
    },
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_folder) -> Path:
    return draw_folder(tmp_path_factory.mktemp("drawn") / "photos", 8)


@pytest.mark.slow
def test_same_bytes(photos: Path, tmp_path: Path, python) -> None:
    (tmp_path / "elsewhere").symlink_to(photos.parent)
    ways = [
        (photos, tmp_path, 1, "ram"),
        (tmp_path / "elsewhere" / "photos", "/", 2, "disk"),
        ("photos", photos.parent, 5, "off"),
    ]
    found = {
        python(PROGRAM, *way, PYTHONPATH=ROOT, **change)
        for way, change in zip(ways, CHANGES, strict=True)
    }
    assert len(found) == 1
