"""The page that is a classifier, in Chromium from file://: it computes what Python computes, asks
for nothing, and says what it cannot read."""

import base64
import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exportable import CLASSES, odd_files, small_classifier
from PIL import Image

from foveate.classifier import Classifier
from foveate.classifier.given import expand
from foveate.classifier.saving import write_card
from foveate.data.image import load_image
from foveate.data.preprocess import Preprocess, View, decode_squares
from foveate.export import export_classifier
from foveate.export.web import source
from foveate.export.web.network import PageNetwork
from foveate.export.web.runtime import tarball_path
from foveate.training import train

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime")

SCRIPTS = "\n".join(source(name) for name in ("texts.js", "resample.js", "decode.js"))
HELPERS = """
  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const textOf = (bytes) => btoa(String.fromCharCode(...bytes));
"""
READ = """async ([data, views, channels, border]) => {
  const squares = await squaresOf(new Blob([bytesOf(data)]), { views, channels, border });
  return squares.map((square) => textOf(square.data));
}"""
RESIZE = """([width, height, pixels, to, box, name]) => {
  const image = { width, height, channels: 3, data: bytesOf(pixels) };
  return textOf(resize(image, ...to, box, name).data);
}"""
FIRST_PICTURE = """async () => {
  const video = document.getElementById("video");
  if (!video.videoWidth) await new Promise((come) => video.addEventListener("loadeddata", come));
}"""
CLASSIFY = """async (data) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  return await foveate.classify(new Blob([bytes]));
}"""


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# pixels


@pytest.fixture(scope="module", params=["file", "about"])
def scripts(
    request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A page with the scripts that make squares of files: as a file, which has an ImageDecoder; and
    one that has none, like browsers without."""
    path = tmp_path_factory.mktemp("scripts") / "page.html"
    path.write_text("<!doctype html>")
    page = browser.new_page()
    page.goto(path.as_uri() if request.param == "file" else "about:blank")
    page.add_script_tag(content=SCRIPTS + HELPERS)
    assert page.evaluate("typeof ImageDecoder === 'function'") == (request.param == "file")
    yield page
    page.close()


def squares_of(page: Any, data: bytes, preprocess: Preprocess) -> list[np.ndarray]:
    border = [round(255 * mean) for mean in preprocess.mean]
    views = [asdict(view) for view in preprocess.views]
    found = page.evaluate(READ, [in_base64(data), views, preprocess.channels, border])
    sides = [(view.crop, view.crop, preprocess.channels) for view in preprocess.views]
    return [pixels_of(text).reshape(side) for text, side in zip(found, sides, strict=True)]


def pixels_of(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text), np.uint8)


def test_resampling_is_pillows_to_the_bit(scripts: Any) -> None:
    rng = np.random.default_rng(0)
    kernels = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    for number in range(60):
        width, height = (int(n) for n in rng.integers(3, 160, 2))
        to = tuple(int(n) for n in rng.integers(1, 130, 2))
        if number % 3 == 0:
            to = (to[0], to[0])
        left, top = rng.uniform(0, 0.4, 2) * (width, height)
        right, bottom = rng.uniform(0.6, 1, 2) * (width, height)
        box = (left, top, right, bottom) if number % 4 else (0, 0, width, height)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        name = [*kernels][number % 2]
        ours = np.asarray(Image.fromarray(pixels).resize(to, kernels[name], box=box))
        given = width, height, in_base64(pixels.tobytes()), to, [*map(float, box)], name
        found = pixels_of(scripts.evaluate(RESIZE, given)).reshape(ours.shape)
        assert (found == ours).all(), given[:2] + given[3:]


PREPROCESSES = {
    "whole": Preprocess(64, 64),
    "part": Preprocess(96, 64, 1.12),
    "bilinear": Preprocess(64, 64, 1.3, "bilinear"),
    "padded": Preprocess(64, 64, fit="pad", mean=(0.2, 0.5, 0.9)),
    "squashed": Preprocess(64, 64, fit="squash"),
    "grey": Preprocess(48, 48, channels=1, mean=(0.4,), std=(0.3,)),
    "two views": Preprocess(40, 40, more=(View(90, 40),)),
}
# by how much a value may differ, and by how much in the mean
EXACT, SCALED, NEAR = (0, 0.0), (3, 0.5), (6, 1.5)


def test_squares_are_pythons(scripts: Any, tmp_path: Path) -> None:
    """To the bit, but for those for print; and for large JPEGs where there is no ImageDecoder."""
    decoder = scripts.evaluate("typeof ImageDecoder === 'function'")
    for path in sorted(odd_files(tmp_path / "odd").iterdir()):
        data = path.read_bytes()
        for name, preprocess in PREPROCESSES.items():
            large = path.suffix == ".jpg" and min(load_image(data).size) >= 4 * 40
            scaled = large and not decoder
            most, mean = NEAR if path.name == "print.jpg" else SCALED if scaled else EXACT
            ours = decode_squares(data, path.name, preprocess)
            for theirs, mine in zip(squares_of(scripts, data, preprocess), ours, strict=True):
                gap = np.abs(theirs.astype(int) - mine)
                assert gap.max() <= most and gap.mean() <= mean, (path.name, name, gap.max())


def test_every_orientation_is_turned_upright(scripts: Any) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 19, 3), dtype=np.uint8)).resize((190, 120))
    preprocess = Preprocess(24, 24)
    for orientation in range(1, 9):
        for quality in (60, 95):
            exif, buffer = Image.Exif(), io.BytesIO()
            exif[0x0112] = orientation
            image.save(buffer, "JPEG", quality=quality, exif=exif, subsampling=0)
            (ours,) = decode_squares(buffer.getvalue(), "x.jpg", preprocess)
            (theirs,) = squares_of(scripts, buffer.getvalue(), preprocess)
            gap = np.abs(theirs.astype(int) - ours)
            assert gap.max() <= SCALED[0] and gap.mean() <= SCALED[1], (orientation, gap.max())


# the page


@pytest.fixture(scope="session")
def runtime_tarball() -> Path:
    """onnxruntime-web, where its page says to put it by hand; where FOVEATE_BROWSER is set, as in
    CI, it must be there."""
    path = tarball_path()  # in the user's cache: no test has taken it away yet
    if not path.is_file():
        assert "FOVEATE_BROWSER" not in os.environ, f"{path} may not be missing: see .ci/run"
        pytest.skip(f"{path.name} is not in the cache")
    return path


@pytest.fixture
def exported(runtime_tarball: Path, cache: Path) -> Callable[..., Path]:
    """A classifier or run, options of `export_classifier` -> its page."""
    tarball_path().parent.mkdir(parents=True, exist_ok=True)
    tarball_path().symlink_to(runtime_tarball)

    def export(classifier: Classifier | Path, out: Path, **options: Any) -> Path:
        return export_classifier(classifier, out, "web", **options).folder / "classifier.html"

    return export


class Opened:
    """A page in a browser, and what it asked for and said."""

    def __init__(self, browser: Any, path: Path, fragment: str = "", **options: Any):
        options = {"viewport": {"width": 1000, "height": 800}, "locale": "en-GB"} | options
        self.init = options.pop("init", "")
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        if self.init:
            self.page.add_init_script(self.init)
        self.page.goto(path.as_uri() + fragment)

    def ready(self) -> "Opened":
        self.page.locator("#choose:enabled").wait_for()
        return self

    def give(self, files: list[Any], where: str = "#files") -> list[list[str]]:
        """The table's rows, the latest first, when the status says that all are done."""
        before = self.page.locator("#rows tr").count()
        self.page.set_input_files(where, files)
        number = before + (len(files) if where == "#files" else 1)
        self.page.locator(f"#rows tr:nth-child({number})").wait_for(state="attached")
        rows = self.page.locator("#rows tr").all()
        return [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]

    def csv(self) -> list[list[str]]:
        with self.page.expect_download() as download:
            self.page.click("#save")
        return list(csv.reader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"))))

    def close(self) -> None:
        assert not self.said, self.said
        assert all(url.startswith(("file:", "blob:", "data:")) for url in self.asked), self.asked
        assert sum(url.startswith("file:") for url in self.asked) == 1, self.asked
        self.context.close()


@pytest.fixture(scope="module")
def refusing(
    backbone_cache: Path, draw_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A run that answers none of these, and images that it did not learn from."""
    root = tmp_path_factory.mktemp("refusing") / "photos"
    draw_folder(root / "train", 40)
    test = draw_folder(root / "test", 4, first=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(backbone_cache))
        return train(root / "train", out=root.parent / "run", framing="whole").run, test


def near(found: Any, expected: Any, by: float) -> bool:
    return bool(np.abs(np.array(found) - np.array(expected)).max() <= by)


def test_the_page_is_the_classifier(
    refusing: tuple[Path, Path], exported: Callable[..., Path], browser: Any, tmp_path: Path
) -> None:
    run, test = refusing
    classifier = Classifier.load(run)
    page = exported(classifier, tmp_path / "web", images=test)
    odd = odd_files(tmp_path / "odd")
    opened = Opened(browser, page, "#check").ready()
    opened.page.locator("#verdict[data-good=true]").wait_for()
    assert float(opened.page.get_attribute("#verdict", "data-most")) < 0.02

    # each image, by the same numbers in Python, and by the classifier
    network = PageNetwork(classifier, int8=False)
    given = sorted(test.rglob("*.*"))
    given += [odd / name for name in ("turned-7.jpg", "wide.webp", "transparent.png", "large.jpg")]
    plain = classifier.predict_proba(given)
    refused = 0
    for row, (image, answer) in zip(plain, network.answers(expand(given)), strict=True):
        found = opened.page.evaluate(CLASSIFY, in_base64(Path(image.name).read_bytes()))
        assert near(found["probabilities"], answer.probabilities, 1e-4), image.name
        assert near(found["probabilities"], row, 0.1), image.name  # which may be computed in bf16
        assert near(np.array(found["measures"]) / answer.measures, 1, 1e-3), image.name
        assert found["rejected"] == answer.rejected, image.name
        assert found["answer"] == [*np.flatnonzero(answer.given)], image.name
        refused += answer.rejected is not None
    assert 0 < refused < len(given)

    # a folder is a table, and a CSV as `predict --csv` writes it
    folder = tmp_path / "drawn"
    (folder / "a, b").mkdir(parents=True)
    for number, path in enumerate(given[:3]):
        (folder / "a, b" / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no image")
    opened.page.set_input_files("#below", str(folder))
    opened.page.locator("#rows tr:nth-child(3)").wait_for(state="attached")
    header, *rows = opened.csv()
    assert header == ["file", "label", "probability", *classifier.classes, "rejected", "error"]
    assert [row[0] for row in rows] == [
        f"drawn/a, b/{n}{p.suffix}" for n, p in enumerate(given[:3])
    ]
    for row, (_, answer) in zip(rows, network.answers(expand(given[:3])), strict=True):
        best = classifier.classes[int(answer.probabilities.argmax())]
        assert row[1] == ("none of these" if answer.rejected else best)
        assert near([*map(float, row[3:-2])], answer.probabilities, 1e-4)
        assert row[-2:] == [answer.rejected or "", ""]
    opened.close()


@pytest.fixture(scope="module")
def plain_page(
    runtime_tarball: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A page of a small network with labels, and files that are decoded in every way."""
    folder = tmp_path_factory.mktemp("plain")
    files = odd_files(folder / "odd")
    classifier = small_classifier(folder / "run", thresholds=(0.2, 0.5, 0.4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(folder / "cache"))
        tarball_path().parent.mkdir(parents=True)
        tarball_path().symlink_to(runtime_tarball)
        made = export_classifier(classifier, folder / "web", "web", files)
    return made.folder / "classifier.html", files


def test_what_cannot_be_read_is_said(
    plain_page: tuple[Path, Path], browser: Any, tmp_path: Path
) -> None:
    path, odd = plain_page
    large, frames = (odd / "large.jpg").read_bytes(), io.BytesIO()
    colours = [Image.new("RGB", (60, 40), colour) for colour in ("red", "blue")]
    colours[0].save(frames, "GIF", save_all=True, append_images=colours[1:], duration=9)
    red = io.BytesIO()
    colours[0].save(red, "PNG")
    heavy = tmp_path / "heavy.jpg"
    with heavy.open("wb") as file:
        file.write(large)
        file.truncate(300_000_000)
    bomb = (odd / "palette.png").read_bytes()
    bomb = bomb[:16] + (60_000).to_bytes(4, "big") * 2 + bomb[24:]

    def buffer(name: str, data: bytes) -> dict[str, Any]:
        return {"name": name, "mimeType": "image/jpeg", "buffer": data}

    opened = Opened(browser, path).ready()
    for name, data, said in [
        ("cut.jpg", large[:9000], "end of the file"),
        ("cut.png", (odd / "bits.png").read_bytes()[:-30], "end of the file"),
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"no image at all", "no image"),
        ("photo.heic", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        ("scan.tif", b"II*\0" + bytes(40), "TIFF"),
        ("bomb.png", bomb, "60000 x 60000"),
        ("broken.png", (odd / "bits.png").read_bytes().replace(b"IDAT", b"IDAT\1", 1), "damaged"),
    ]:
        row = opened.give([buffer(name, data)])[0]
        assert row[1] == name and said in row[2], row
    row = opened.give([str(heavy)])[0]
    assert "300 MB" in row[2], row
    (row, *_) = opened.give([buffer("../../etc/<b>x.gif", frames.getvalue())])
    assert row[1].endswith("<b>x.gif") and "%" in row[3]
    pair = [opened.page.evaluate(CLASSIFY, in_base64(f.getvalue())) for f in (frames, red)]
    assert near(pair[0]["probabilities"], pair[1]["probabilities"], 1e-6)  # the first frame
    assert len(opened.csv()) == 11
    opened.close()


def test_forty_at_once_and_a_drop_and_a_paste(plain_page: tuple[Path, Path], browser: Any) -> None:
    path, odd = plain_page
    data = (odd / "turned-3.jpg").read_bytes()
    files = [{"name": f"{n}.jpg", "mimeType": "image/jpeg", "buffer": data} for n in range(40)]
    opened = Opened(browser, path).ready()
    rows = opened.give(files)
    assert [row[1] for row in rows] == [f"{n}.jpg" for n in reversed(range(40))]
    assert len({tuple(row[2:]) for row in rows}) == 1
    assert "40" in opened.page.inner_text("#status")
    # given as a browser gives what is dropped and pasted
    event = """([kind, data]) => {
      const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], `${kind}.jpg`, { type: "image/jpeg" }));
      const given = { bubbles: true, cancelable: true };
      const event = kind === "drop" ? new DragEvent(kind, { ...given, dataTransfer: transfer })
        : new ClipboardEvent(kind, { ...given, clipboardData: transfer });
      document.body.dispatchEvent(event);
    }"""
    for number, kind in enumerate(("drop", "paste"), 41):
        opened.page.evaluate(event, [kind, in_base64(data)])
        opened.page.locator(f"#rows tr:nth-child({number})").wait_for(state="attached")
        assert opened.page.locator("#rows tr th").first.inner_text() == f"{kind}.jpg"
    opened.close()


def test_an_operating_point_is_honoured(
    exported: Callable[..., Path], browser: Any, tmp_path: Path
) -> None:
    odd = odd_files(tmp_path / "odd")
    classifier = small_classifier(tmp_path / "run")
    found = classifier.predict_proba(odd / "transparent.png")[0]
    last = int(found.argmin())
    point = {"positive": CLASSES[last], "threshold": float(found[last]) / 2}
    point |= {"asked": {"recall": 0.9}, "expected": {"share": 0.9, "low": 0.8, "high": 0.95}}
    write_card(classifier.folder, classifier.card | {"operating_point": point})
    flagged = Classifier.load(classifier.folder)
    assert flagged.predict(odd / "transparent.png").label == CLASSES[last]
    opened = Opened(browser, exported(flagged, tmp_path / "web", images=odd)).ready()
    opened.page.set_input_files("#files", str(odd / "transparent.png"))
    opened.page.locator("#latest h2").wait_for()
    assert CLASSES[last] in opened.page.inner_text("#latest h2")
    assert "whatever else is more probable" in opened.page.inner_text("#latest")
    opened.close()


def test_the_page_on_every_screen(plain_page: tuple[Path, Path], browser: Any) -> None:
    if "FOVEATE_BROWSER" not in os.environ:  # as in CI, which has it
        pytest.importorskip("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    path, odd = plain_page
    files = [str(odd / name) for name in ("grey.jpg", "wide.webp")]
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    for width, scheme, locale in ((360, "light", "zh-CN"), (1200, "dark", "en-GB")):
        # the checker is a script, which the page's own policy refuses
        options: dict[str, Any] = {"viewport": {"width": width, "height": 800}, "bypass_csp": True}
        opened = Opened(browser, path, color_scheme=scheme, locale=locale, **options).ready()
        assert (opened.page.get_attribute("html", "lang") == "zh") == (locale == "zh-CN")
        opened.page.set_input_files("#files", files)
        opened.page.locator("#rows tr:nth-child(2)").wait_for(state="attached")
        opened.page.click("#check")
        opened.page.locator("#verdict[data-good=true]").wait_for()
        assert opened.page.evaluate(wide) <= 0
        found = Axe().run(opened.page)
        assert found.violations_count == 0, found.generate_report()
        opened.page.click("#language")
        assert (
            opened.page.inner_text("#choose")
            == {"zh": "Choose images", "en": "选择图像"}[locale[:2]]
        )
        assert opened.page.evaluate(wide) <= 0
        opened.close()


def test_the_keyboard_reaches_everything(plain_page: tuple[Path, Path], browser: Any) -> None:
    opened = Opened(browser, plain_page[0]).ready()
    reached = []
    for _ in range(6):
        opened.page.keyboard.press("Tab")
        reached.append(opened.page.evaluate("document.activeElement.id"))
    assert reached[:5] == ["language", "choose", "folder", "camera", "check"]
    with opened.page.expect_file_chooser():
        opened.page.focus("#choose")
        opened.page.keyboard.press("Enter")
    opened.page.focus("#check")
    opened.page.keyboard.press("Space")
    opened.page.locator("#verdict[data-good=true]").wait_for()
    opened.close()


def test_a_camera_and_none(plain_page: tuple[Path, Path], browser: Any) -> None:
    film = """
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 64;
      let x = 0;
      setInterval(() => canvas.getContext("2d").fillRect(0, 0, x++ % 64, 64), 20);
      navigator.mediaDevices.getUserMedia = async () => canvas.captureStream();
    """
    opened = Opened(browser, plain_page[0], init=film).ready()
    opened.page.click("#camera")
    opened.page.evaluate(FIRST_PICTURE)
    opened.page.click("#take")
    opened.page.locator("#latest h2").wait_for()
    opened.page.click("#end")
    assert opened.page.locator("#viewer").is_hidden()
    opened.close()
    none = (
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'Gone') }"
    )
    opened = Opened(browser, plain_page[0], init=none).ready()
    opened.page.click("#camera")
    opened.page.locator("#status").filter(has_text="Gone").wait_for()
    opened.close()


def test_what_a_browser_lacks_is_said(plain_page: tuple[Path, Path], browser: Any) -> None:
    for init, lacking in (
        ("delete globalThis.DecompressionStream", "DecompressionStream"),
        ("WebAssembly.validate = () => false", "WebAssembly SIMD"),
        ("delete globalThis.WebAssembly", "WebAssembly"),
    ):
        opened = Opened(browser, plain_page[0], init=init)
        opened.page.locator("#status").filter(has_text=lacking).wait_for()
        assert opened.page.locator("#choose").is_disabled()
        opened.context.close()


def test_a_damaged_page_says_so(
    plain_page: tuple[Path, Path], browser: Any, tmp_path: Path
) -> None:
    page = plain_page[0].read_text(encoding="utf-8")
    start = re.search(r'id="network">', page).end()
    path = tmp_path / "damaged.html"
    path.write_text(page[:start] + "A" * 200 + page[start + 200 :], encoding="utf-8", newline="\n")
    opened = Opened(browser, path)
    opened.page.locator("#status").filter(has_text="cannot be started").wait_for()
    opened.context.close()
    wrong = re.sub(r'("probabilities": \[)[\d.]+', r"\g<1>0.999", page, count=1)
    assert json.loads(re.search(r'id="about">(.*?)</script>', wrong, re.DOTALL)[1])
    path.write_text(wrong, encoding="utf-8", newline="\n")
    opened = Opened(browser, path, "#check").ready()
    opened.page.locator("#verdict[data-good=false]").wait_for()
    opened.close()
