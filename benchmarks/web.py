"""The page that is a classifier, beside a plain page of onnxruntime-web with the f32 model.

    python benchmarks/web.py RUN DATA [--repeats 40]

The plain page is what its makers' guide leads to: the model of `foveate export --format onnx` and
the runtime's files at a server, an image drawn into a canvas at the network's size, the most
probable class. Both in Chromium, one thread, the same files in turns; what is timed is a file's
bytes to its probabilities, in the page, after loading and a few images. `web` and `web int8` are
opened from file://.
"""

import argparse
import base64
import io
import json
import shutil
import statistics
import tarfile
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save
from PIL import Image
from playwright.sync_api import sync_playwright

from foveate.classifier import Classifier
from foveate.classifier.given import expand
from foveate.data.listing import images_below
from foveate.export import export_classifier
from foveate.export.web.network import PageNetwork
from foveate.export.web.runtime import VERSION, tarball_path, web_runtime

FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
WARM = 5  # images before those that count
PLAIN = """<!doctype html>
<script src="ort.wasm.min.js"></script>
<script>
  let session;
  const ready = (async () => {
    ort.env.wasm.numThreads = 1;
    session = await ort.InferenceSession.create("model.onnx");
  })();
  async function classify(file) {
    const bitmap = await createImageBitmap(file);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    const seen = Math.min(bitmap.width, bitmap.height) * SHARE;
    const [left, top] = [(bitmap.width - seen) / 2, (bitmap.height - seen) / 2];
    context.drawImage(bitmap, left, top, seen, seen, 0, 0, SIDE, SIDE);
    const { data } = context.getImageData(0, 0, SIDE, SIDE);
    const pixels = new Uint8Array(SIDE * SIDE * 3);
    for (let i = 0, k = 0; i < data.length; i += 4) {
      pixels[k++] = data[i];
      pixels[k++] = data[i + 1];
      pixels[k++] = data[i + 2];
    }
    const tensor = new ort.Tensor("uint8", pixels, [1, SIDE, SIDE, 3]);
    const { probabilities } = await session.run({ pixels: tensor });
    return { probabilities: Array.from(probabilities.data) };
  }
</script>
"""
TIMED = """async (data) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const file = new Blob([bytes]);
  const started = performance.now();
  const { probabilities } = await CLASSIFY(file);
  return [performance.now() - started, probabilities];
}"""


def plain_page(classifier: Classifier, folder: Path, photos: list[Path]) -> Path:
    """The files of the plain page."""
    few = folder / "few"
    few.mkdir()
    for path in photos:
        shutil.copy(path, few)
    model = export_classifier(classifier, folder / "onnx", images=few).folder / "model.onnx"
    plain = folder / "plain"
    plain.mkdir()
    shutil.move(model, plain / "model.onnx")
    web_runtime()
    with tarfile.open(tarball_path()) as archive:
        for name in FILES:
            file = archive.extractfile(f"package/dist/{name}")
            assert file is not None
            (plain / name).write_bytes(file.read())
    view = classifier.preprocess.views[0]
    text = PLAIN.replace("SIDE", str(view.crop)).replace("SHARE", str(view.crop / view.resize))
    (plain / "index.html").write_text(text)
    return plain


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def photos_of(paths: list[Path]) -> dict[str, bytes]:
    """A photo as it is, and one as large as a phone makes it."""
    middle = sorted(paths, key=lambda path: path.stat().st_size)[len(paths) // 2]
    buffer = io.BytesIO()
    with Image.open(middle) as image:
        width, height = image.size
        image.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC).save(
            buffer, "JPEG", quality=90
        )
    return {f"{width}x{height}": middle.read_bytes(), "4000x3000": buffer.getvalue()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--agree", type=int, default=100, help="images to compare with Python")
    parser.add_argument("--out", type=Path, default=RESULTS / "web.json")
    given = parser.parse_args()
    classifier = Classifier.load(given.run)
    paths = images_below(given.data)[0]
    report = described("web", "onnxruntime openvino pillow numpy playwright")
    report["versions"]["onnxruntime-web"] = VERSION
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        pages = {"plain": plain_page(classifier, folder, paths[:5])}
        for name, int8 in (("web", False), ("web int8", True)):
            made = export_classifier(classifier, folder / name, "web", given.data, int8)
            pages[name] = made.folder / "classifier.html"
        sizes = {"plain": sum(path.stat().st_size for path in pages["plain"].iterdir())}
        sizes |= {name: pages[name].stat().st_size for name in ("web", "web int8")}
        report["bytes"] = sizes
        report["size, share of plain"] = {n: round(s / sizes["plain"], 3) for n, s in sizes.items()}

        handler = partial(Quiet, directory=str(pages["plain"]))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        report["versions"]["chromium"] = browser.version
        opened: dict[str, Any] = {}
        for name, path in pages.items():
            opened[name] = browser.new_page()
            if name == "plain":
                opened[name].goto(f"http://127.0.0.1:{server.server_port}/index.html")
                opened[name].evaluate("ready")
            else:
                opened[name].goto(path.as_uri())
                opened[name].locator("#choose:enabled").wait_for()

        def classify(name: str, data: bytes) -> tuple[float, list[float]]:
            call = "classify" if name == "plain" else "foveate.classify"
            text = base64.b64encode(data).decode()
            opened[name].bring_to_front()
            found = opened[name].evaluate(TIMED.replace("CLASSIFY", call), text)
            return found[0], found[1]

        report["ms an image"] = {}
        for photo, data in photos_of(paths).items():
            times: dict[str, list[float]] = {name: [] for name in opened}
            for _ in range(given.repeats + WARM):
                for name in opened:
                    times[name].append(classify(name, data)[0])
            report["ms an image"][photo] = {
                name: {
                    "median": round(statistics.median(found[WARM:]), 1),
                    "fastest": round(min(found[WARM:]), 1),
                }
                for name, found in times.items()
            }
        report["agreement"] = agreement(classifier, paths, given.agree, classify)
        browser.close()
        server.shutdown()
    save(report, given.out)
    print(json.dumps(report, indent=1))


def agreement(classifier: Classifier, paths: list[Path], n: int, classify: Any) -> dict[str, Any]:
    """How far each page is from Python: with the same weights, and from the classifier."""
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, n).round().astype(int)]
    found: dict[str, Any] = {"images": len(chosen)}
    exact = PageNetwork(classifier, int8=False)
    for name, int8 in (("plain", None), ("web", False), ("web int8", True)):
        network = exact if int8 is None else PageNetwork(classifier, int8)
        gaps, others = [], 0
        for image, answer in network.answers(expand(chosen)):
            theirs = np.array(classify(name, Path(image.name).read_bytes())[1])
            gaps.append(float(np.abs(theirs - answer.probabilities).max()))
            others += int(theirs.argmax() != answer.probabilities.argmax())
        found[name] = {"largest": max(gaps), "median": statistics.median(gaps), "others": others}
    return found


if __name__ == "__main__":
    main()
