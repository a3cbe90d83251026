"""From a wrong label to a right one: `data audit --csv`, `review`, `train --corrections`."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from commands import foveate
from PIL import Image
from refusals import absent

from foveate.audit.tables import SUSPECTS

pytestmark = pytest.mark.usefixtures("warm_cache")

WRONG = ("blob/900.png", "stripes/901.jpg")  # noise, filed as these
ATTACK = "<img src=x onerror=\"document.title='attacked'\">&'\".jpg"


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, draw_folder, draw_image, backbone_cache: Path
) -> Path:
    """A folder with photos, of which two are filed wrongly, and the run of a probe on them."""
    folder = tmp_path_factory.mktemp("review")
    photos = draw_folder(folder / "photos", 40)
    colour = {"blob": (255, 60, 60), "stripes": (60, 255, 60), "noise": (60, 60, 255)}
    for path in photos.glob("*/*"):  # so that a head finds them easy
        tint(path, colour[path.parent.name])
    for number, name in enumerate(WRONG):
        image = draw_image("noise", 900 + number)
        tinted(image, colour["noise"]).save(photos / name)
    tinted(draw_image("noise", 950), colour["noise"]).save(photos / "noise" / ATTACK, "JPEG")
    cache = folder / "cache"
    cache.mkdir()
    for part in ("networks", "weights"):
        (cache / part).symlink_to(backbone_cache / part)
    here = Path.cwd()
    os.chdir(folder)
    try:
        done = foveate("train", "photos", "--out", "run", FOVEATE_CACHE=str(cache))
    finally:
        os.chdir(here)
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, "may be wrong", WRONG[0]), done.stdout
    return folder


def tinted(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    return Image.blend(image, Image.new("RGB", image.size, colour), 0.4)


def tint(path: Path, colour: tuple[int, int, int]) -> None:
    with Image.open(path) as image:
        image.load()
    tinted(image.convert("RGB"), colour).save(path)


@pytest.fixture
def work(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("FOVEATE_CACHE", str(trained / "cache"))
    return trained


def test_a_run_names_the_labels_that_may_be_wrong(work: Path) -> None:
    found = json.loads((work / "run/review.json").read_text())
    suspects = {suspect["files"][0]: suspect for suspect in found["suspects"]}
    assert {*WRONG} <= {*suspects}
    assert {suspects[name]["suggested"] for name in WRONG} == {"noise"}
    assert all(name.startswith("noise/") for name in suspects[WRONG[0]]["agree"])


def test_the_sheet_is_one_file_that_escapes_names(work: Path) -> None:
    run = work / "odd"
    shutil.copytree(work / "run", run)
    found = json.loads((run / "review.json").read_text())
    found["suspects"][0]["files"] = [f"noise/{ATTACK}"]
    found["suspects"][0]["label"] = "<b>'\""
    (run / "review.json").write_text(json.dumps(found))
    done = foveate("review", "odd", "photos", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["suspects"] == len(found["suspects"]) and said["sheet"] == "odd/review.html"
    page = (run / "review.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and "<img src=x" not in page
    assert "&lt;b&gt;" in page and page.count("data:image/jpeg") >= 4
    shutil.rmtree(run)


def test_the_images_are_looked_for_by_the_runs_name(work: Path, tmp_path: Path) -> None:
    done = foveate("review", "run", "--out", tmp_path / "sheet.html", "--most", 1)
    assert done.returncode == 0 and "sheet.html" in done.stdout, done.stderr
    os.chdir(tmp_path)
    done = foveate("review", work / "run")
    assert done.returncode == 2 and not absent(done.stderr, "photos", "DATA")
    (tmp_path / "other/a").mkdir(parents=True)
    shutil.copy(work / "photos/noise/001.jpg", tmp_path / "other/a/x.jpg")
    done = foveate("review", work / "run", tmp_path / "other")
    assert done.returncode == 4 and not absent(done.stderr, "other", "none of the images")
    done = foveate("review", tmp_path)
    assert done.returncode == 5 and "no run" in done.stderr


def test_images_that_are_gone_leave_a_gap(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "photos", tmp_path / "photos")
    (tmp_path / "photos" / WRONG[0]).unlink()
    done = foveate("review", "run", tmp_path / "photos", "--out", tmp_path / "sheet.html")
    assert done.returncode == 0, done.stderr
    assert "not there any more" in (tmp_path / "sheet.html").read_text()


@pytest.mark.slow
def test_from_the_audits_table_to_right_labels(work: Path, tmp_path: Path) -> None:
    table, tables = tmp_path / "labels.csv", tmp_path / "tables"
    done = foveate("data", "audit", "photos", "--csv", table, "--csv-all", tables, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {*WRONG} <= {file for s in report["suspects"] for file in s["files"]}
    assert report["gains"][-1]["first"] == len(report["suspects"])
    assert (tables / "classes.csv").read_bytes().startswith(b"\xef\xbb\xbfclass,")
    assert table.read_bytes().startswith(b"\xef\xbb\xbf")
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == SUSPECTS
    for row in rows:  # as a person would
        row["correction"] = "noise" if row["file"] in WRONG else "ok"
    rows[-1]["correction"] = "remove" if rows[-1]["file"] not in WRONG else "noise"
    with table.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, SUSPECTS, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)

    done = foveate("data", "audit", "photos", "--csv", table)
    assert done.returncode == 2 and "labels.csv" in done.stderr
    assert f"{WRONG[0]};" in table.read_text(encoding="utf-8-sig")  # what was filled in is there
    run = tmp_path / "right"
    done = foveate("train", "photos", "--corrections", table, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    assert any("labels.csv" in note for note in json.loads(done.stdout)["notes"])
    assert (run / "corrections.csv").read_bytes() == table.read_bytes()
    labels = json.loads((run / "data.json").read_text())
    noise = labels["classes"].index("noise")
    assert all(labels["files"][name]["label"] == noise for name in WRONG)
    left = {
        f for s in json.loads((run / "review.json").read_text())["suspects"] for f in s["files"]
    }
    assert not left & {row["file"] for row in rows}  # a person has looked at them


@pytest.mark.slow
def test_the_sheet_in_a_browser(work: Path, tmp_path: Path, browser) -> None:
    shutil.copytree(work / "run", tmp_path / "run")
    found = json.loads((tmp_path / "run/review.json").read_text())
    found["suspects"][0]["files"] = [f"noise/{ATTACK}"]
    found["suspects"][0]["label"] = "</script><script>document.title='attacked'</script>"
    (tmp_path / "run/review.json").write_text(json.dumps(found))
    assert foveate("review", tmp_path / "run", "photos").returncode == 0
    page = browser.new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "run/review.html").as_uri())
    assert page.title() == "Review of run" and page.locator("#download").is_disabled()
    page.locator(".answer select").nth(0).select_option("remove")
    page.locator(".answer select").nth(1).select_option("noise")
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "corrections.csv")
    assert page.title() == "Review of run" and not errors
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    with (tmp_path / "corrections.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == SUSPECTS
    assert (rows[0]["file"], rows[0]["correction"]) == (f"noise/{ATTACK}", "remove")
    assert rows[1]["correction"] == "noise"
