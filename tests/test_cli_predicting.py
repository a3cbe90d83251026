"""`predict`: standard input, a CSV, folders by class, and a folder that is watched."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import foveate
from PIL import Image
from refusals import absent, refused

from foveate.classifier import Prediction
from foveate.cli.answers import NONE, UNREADABLE, SortedFolders
from foveate.cli.images import given_images, watched
from foveate.errors import DataError, UsageError


@pytest.fixture
def photos(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/: four images, one of them no image, and 猫.jpg; in the working folder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "猫.jpg", "more/a.jpg")):
        source = sorted((images / "test/blob").iterdir())[number]
        Image.open(source).convert("RGB").save(folder / name, quality=90)
    (folder / "b.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return folder


ORDER = ["photos/a.jpg", "photos/b.jpg", "photos/more/a.jpg", "photos/猫.jpg"]


def piped(run: Path, data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "foveate", "predict", str(run), "-", *options]
    return subprocess.run(command, input=data, capture_output=True)


def test_a_csv_for_spreadsheets(trained: Path, photos: Path) -> None:
    done = foveate("predict", trained, "photos", "--csv", "found.csv")
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, "4 images", "1", "found.csv")
    data = Path("found.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    header, *rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    assert header == [
        "file",
        "label",
        "probability",
        "blob",
        "noise",
        "stripes",
        "rejected",
        "error",
    ]
    assert [row[0] for row in rows] == ORDER
    printed = foveate("predict", trained, "photos", "--json", "--top", "3").stdout.splitlines()
    for row, line in zip(rows, map(json.loads, printed), strict=True):
        if "error" in line:
            assert row[1:7] == [""] * 6 and row[7] == line["error"]
            continue
        found = dict(zip(header[3:6], map(float, row[3:6]), strict=True))
        assert found == {best["label"]: best["probability"] for best in line["top"]}
        assert (row[1], float(row[2])) == (line["label"], line["probability"])


def test_names_that_would_be_formulas(trained: Path, photos: Path) -> None:
    Image.new("RGB", (40, 40)).save("=cmd().png")
    done = foveate("predict", trained, "=cmd().png", "--csv", "found.csv")
    assert done.returncode == 0, done.stderr
    text = Path("found.csv").read_text(encoding="utf-8-sig")
    assert text.splitlines()[1].startswith("'=cmd().png,")


def test_a_csv_beside_json(trained: Path, photos: Path) -> None:
    options = ("--csv", "found.csv", "--json", "--top", "1")
    done = foveate("predict", trained, "photos", *options)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == ORDER
    assert [len(line["top"]) for line in lines if "top" in line] == [1, 1, 1]
    assert len(Path("found.csv").read_text(encoding="utf-8-sig").splitlines()) == 5


def test_sorted_by_class(trained: Path, photos: Path) -> None:
    for _ in range(2):  # a second time nothing is added
        done = foveate("predict", trained, "photos", "--sort-into", "by class", "--json")
        assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = sorted(p for p in Path("by class").rglob("*") if not p.is_dir())
    assert all(p.is_symlink() for p in found) and len(found) == len(lines)
    by_target = {os.path.relpath(p.resolve()): p.parent.name for p in found}
    labels = {line["file"]: line.get("label", UNREADABLE) for line in lines}
    assert by_target == labels


def test_copies_of_one_name_are_numbered(trained: Path, photos: Path) -> None:
    options = ("--sort-into", "by class", "--copy")
    assert foveate("predict", trained, "photos/a.jpg", "photos/more/a.jpg", *options).stdout
    found = sorted(p for p in Path("by class").rglob("*") if p.is_file())
    assert len(found) == 2 and not any(p.is_symlink() for p in found)
    assert {p.read_bytes() for p in found} == {
        (photos / name).read_bytes() for name in ("a.jpg", "more/a.jpg")
    }


def test_labels_odd_names_and_none(tmp_path: Path) -> None:
    image = tmp_path / "x.jpg"
    image.write_bytes(b"x")
    takes = SortedFolders(tmp_path / "out", ("a/b", "..", "CON"), copy=True, sources=[])
    takes.take(Prediction(str(image), labels=("a/b", "..")))
    takes.take(Prediction(str(image)))
    takes.take(Prediction("gone.jpg", error="not there"))
    found = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("out/*/*")}
    assert found == {"a-b/x.jpg", "-/x.jpg", f"{NONE}/x.jpg"}


def test_names_on_standard_input(trained: Path, photos: Path) -> None:
    names = "\n".join(["photos/a.jpg", "", "nowhere.jpg", "photos/more", "photos/猫.jpg\r"])
    done = piped(trained, names.encode(), "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = ["photos/a.jpg", "nowhere.jpg", "photos/more/a.jpg", "photos/猫.jpg"]
    assert [line["file"] for line in lines] == wanted
    assert ["error" in line for line in lines] == [False, True, False, False]


def test_an_image_on_standard_input(trained: Path, photos: Path) -> None:
    done = piped(trained, (photos / "a.jpg").read_bytes(), "--json")
    line = json.loads(done.stdout)
    assert done.returncode == 0 and line["file"] == "<stdin>" and line["label"]


@pytest.mark.parametrize("data", [b"", b"\n\n", bytes(range(256)) * 300, b"photos/b.jpg\n"])
def test_garbage_on_standard_input(trained: Path, photos: Path, data: bytes) -> None:
    done = piped(trained, data)
    assert (done.returncode, done.stdout) == (4, b""), done.stderr
    assert b"unexpected" not in done.stderr and b"Traceback" not in done.stderr


def test_bad_input(trained: Path, photos: Path) -> None:
    Path("there.csv").write_text("")
    for code, names, arguments in [
        (2, ["--watch"], ()),
        (2, ["--watch"], ("photos", "--watch", "photos")),
        (2, ["--sort-into"], ("photos", "--copy")),
        (2, ["standard input"], ("-", "photos")),
        (2, ["there.csv", "exists"], ("photos", "--csv", "there.csv")),
        (1, ["nowhere"], ("photos", "--csv", "nowhere/x.csv")),
        (2, ["photos/sorted", "beside"], ("photos", "--sort-into", "photos/sorted")),
        (2, ["there.csv"], ("photos", "--sort-into", "there.csv")),
        (4, ["gone"], ("--watch", "gone")),
        (4, ["none of the 1"], ("photos/b.jpg", "--csv", "bad.csv")),
    ]:
        done = foveate("predict", trained, *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert not absent(" ".join(done.stderr.split()), *names), (arguments, done.stderr)
        assert "unexpected" not in done.stderr


def test_listing_a_folder_keeps_names_alone(photos: Path) -> None:
    given, total = given_images(["photos", "photos/a.jpg"])
    found = list(given)
    assert total == len(found) == 5 and all(type(name) is str for name in found)
    with refused(DataError, "gone"):
        given_images(["gone"])
    with refused(UsageError, "./-"):
        given_images(["-", "photos"])


def test_what_is_watched(tmp_path: Path) -> None:
    looks = watched(tmp_path, pause=0)
    assert next(looks) == []
    first, second = tmp_path / "1.jpg", tmp_path / "2.jpg"
    first.write_bytes(b"half")
    assert next(looks) == []  # it may be growing
    first.write_bytes(b"the whole")
    assert next(looks) == []
    second.write_bytes(b"another")
    assert next(looks) == [str(first)]
    assert next(looks) == [str(second)]
    assert next(looks) == []
    first.write_bytes(b"it is a new one")
    assert [*next(looks), *next(looks)] == [str(first)]
    second.unlink()
    assert next(looks) == []
    second.write_bytes(b"another")
    os.utime(second, ns=(0, 0))
    assert [*next(looks), *next(looks)] == [str(second)]
    for file in (first, second):
        file.unlink()
    assert next(looks) == []
    tmp_path.rmdir()
    with refused(DataError, tmp_path.name):
        next(looks)


@pytest.mark.slow
def test_watch_until_ctrl_c(trained: Path, photos: Path) -> None:
    command = [sys.executable, "-m", "foveate", "predict", str(trained), "--json"]
    child = subprocess.Popen([*command, "--watch", "photos"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        first = [json.loads(child.stdout.readline())["file"] for _ in ORDER]
        (photos / "later.jpg").write_bytes((photos / "a.jpg").read_bytes())
        assert first == ORDER
        assert json.loads(child.stdout.readline())["file"] == "photos/later.jpg"
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 130
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
