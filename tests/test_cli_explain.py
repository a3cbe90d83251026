"""`foveate explain`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import foveate
from PIL import Image
from refusals import absent


@pytest.fixture
def photo(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return shutil.copy(images / "test/blob/100.jpg", "x.jpg")


def test_a_map_of_each_class(trained: Path, photo: str, backbone_cache: Path) -> None:
    done = foveate(
        *("explain", trained, photo, "--top", 2, "--out", "map.png", "--neighbours", 3),
        FOVEATE_CACHE=str(backbone_cache),
    )
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, "x.jpg", "exact", "deletion", "insertion", "map.png")
    assert sum(line.startswith("near") for line in done.stdout.splitlines()) == 3
    with Image.open("map.png") as drawn:
        assert drawn.format == "PNG" and drawn.width > 3 * 100
    assert {path.name for path in Path().iterdir()} == {"map.png", "x.jpg"}


def test_as_json_and_as_numbers(trained: Path, photo: str) -> None:
    done = foveate("explain", trained, photo, "--class", "noise", "--json", "--out", "map.npy")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    [one] = found["explanations"]
    assert (one["label"], one["method"], found["neighbours"]) == ("noise", "exact", [])
    assert set(one["checks"]) == {"deletion", "insertion", "randomisation"}
    assert one["trusted"] == (one["why"] == "")
    maps = np.load("map.npy")
    with Image.open(photo) as image:
        assert maps.shape == (1, image.height, image.width)
    values = np.array(one["views"][0]["values"])
    assert values.sum() == pytest.approx(one["total"], abs=1e-3)


def test_no_torch_is_needed_for_a_probe(trained: Path, photo: str, python) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from foveate import Classifier; from foveate.explanation import explain\n"
        "print(explain(Classifier.load(sys.argv[1]), sys.argv[2]).method)"
    )
    assert python(program, trained, photo).strip() == "exact"


@pytest.mark.parametrize(
    ("code", "names", "arguments"),
    [
        (2, ["'bolb'", "blob"], ["x.jpg", "--class", "bolb"]),
        (2, ["--class", "--top"], ["x.jpg", "--class", "blob", "--top", "2"]),
        (2, ["map.gif", ".png", ".npy"], ["x.jpg", "--out", "map.gif"]),
        (2, ["--top"], ["x.jpg", "--top", "0"]),
        (2, ["one image"], ["."]),
        (4, ["none.jpg"], ["none.jpg"]),
        (4, ["bad.jpg"], ["bad.jpg"]),
        (5, ["cache", "72"], ["x.jpg", "--neighbours", "2"]),
        (2, ["nowhere"], ["x.jpg", "--out", "x.jpg/nowhere.png"]),
    ],
)
def test_refusals(
    trained: Path, photo: str, code: int, names: list[str], arguments: list[str]
) -> None:
    Path("bad.jpg").write_bytes(b"no image")
    done = foveate("explain", trained, *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert not absent(done.stderr, *names) and "Traceback" not in done.stderr, done.stderr


def test_no_run(photo: str, tmp_path: Path) -> None:
    done = foveate("explain", "nowhere", photo)
    assert done.returncode == 5 and not absent(done.stderr, "nowhere")
