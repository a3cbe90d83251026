"""The page that is a classifier, as a file: what it holds, where its runtime comes from, and what
is refused. That it computes what Python computes is in test_web_browser.py."""

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from exportable import CLASSES, odd_files, probe_of_views, small_classifier, viewed
from PIL import Image
from refusals import absent, refused

from foveate.classifier.given import expand
from foveate.errors import ArtefactError, DataError, FoveateError, UsageError
from foveate.export import IN_HALVES, export_classifier
from foveate.export.proof import TOLERANCE, probabilities
from foveate.export.web import as_global, runtime
from foveate.export.web.coding import (
    ESCAPED,
    as_float16,
    as_int8,
    as_text,
    code_weights,
    with_weights,
)
from foveate.export.web.network import PageNetwork
from foveate.export.web.runtime import BINARY, SCRIPT, tarball_path, unpacked

pytest.importorskip("onnxruntime")
SCRIPT_TEXT = "const a=1,b=2;export{a as InferenceSession,b as env,a as default};\n//# source\n"
BINARY_BYTES = bytes(range(256)) * 40
SUFFIXES = (".gif", ".jpg", ".png", ".webp")


def tarball(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


MADE = tarball({"package/x.js": b"", SCRIPT: SCRIPT_TEXT.encode(), BINARY: BINARY_BYTES})


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small tarball in the runtime's place, under the same address."""
    made = replace(runtime.TARBALL, size=len(MADE), sha512=hashlib.sha512(MADE).hexdigest())
    monkeypatch.setattr(runtime, "TARBALL", made)


@pytest.fixture
def kept(published: None, cache: Path) -> Path:
    """It lies in the cache."""
    path = tarball_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(MADE)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_files(tmp_path_factory.mktemp("files") / "odd")


def bytes_of(text: str) -> bytes:
    """The inverse of `as_text`, as HTML hands a script element's text to a program."""
    back = {ord(letter): code for code, letter in ESCAPED.items()}
    codes = [back.get(ord(letter), ord(letter)) for letter in text]
    bits = np.unpackbits(np.array(codes, np.uint8)[:, None], axis=1)[:, 1:].reshape(-1)
    return np.packbits(bits[: len(bits) // 8 * 8]).tobytes()


def element(page: str, kind: str, name: str) -> str:
    found = re.search(rf'<script type="{kind}" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None, name
    return found[1]


# the file


def test_the_page_holds_all_and_asks_for_nothing(
    kept: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = small_classifier(tmp_path, thresholds=(0.2, 0.5, 0.4))
    made = export_classifier(classifier, tmp_path / "web", "web", files)
    assert made.proof.images >= 10 and made.proof.difference <= IN_HALVES == made.proof.tolerance
    path = made.folder / "classifier.html"
    assert {p.name for p in made.folder.iterdir()} == {"classifier.html", "README.md"}
    assert made.files == {"classifier.html": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert made.bytes == path.stat().st_size

    page = path.read_bytes().decode()  # no line ends were translated
    assert not re.search(r'(src|href|action)\s*=\s*["\']?(https?:|//)', page)
    assert not re.search(r"url\(|@import|<(link|iframe|object|embed|base)\b", page)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    allowed = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    assert allowed["default-src"] == allowed["connect-src"] == "'none'"

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert allowed["script-src"].split() == [*map(digest, scripts), "'wasm-unsafe-eval'"]
    assert [allowed["style-src"]] == [*map(digest, styles)] and " style=" not in page
    assert 'globalThis.ort={"InferenceSession":a,"env":b,"default":a};' in scripts[0]

    about = json.loads(element(page, "application/json", "about"))
    assert about["classes"] == list(CLASSES) and about["thresholds"] == [0.2, 0.5, 0.4]
    assert "<bird>" not in page and "\\u003cbird>" in page
    binary = bytes_of(element(page, "application/octet-stream", "runtime"))
    assert gzip.decompress(binary[: about["runtime"]]) == BINARY_BYTES
    numbers = bytes_of(element(page, "application/octet-stream", "network"))
    content = gzip.decompress(numbers[: about["network"]["bytes"]])
    network = PageNetwork(classifier, int8=False)
    assert content == network.content() and len(content) > about["network"]["graph"] > 0
    assert "Permission is hereby granted" in page and runtime.VERSION in page
    readme = (made.folder / "README.md").read_text()
    assert not absent(readme, "classifier.html", made.files["classifier.html"], "float16")
    assert "only these labels" in readme


def test_the_command_says_where_the_page_is(kept: Path, files: Path, tmp_path: Path) -> None:
    """In a process of its own the tarball is another than the published one: it says what to do."""
    small_classifier(tmp_path)
    given = ("export", tmp_path, "--format", "web", "--images", files, "--out", tmp_path / "web")
    done = foveate("--offline", *given, FOVEATE_CACHE=str(kept.parent.parent))
    assert (done.returncode, done.stdout) == (1, "")
    said = " ".join(done.stderr.split())
    assert not absent(said, "onnxruntime-web-", "registry.npmjs.org", "offline", kept.name), said
    assert not (tmp_path / "web").exists()


def test_a_page_that_no_browser_opens(
    kept: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.export.web.LARGEST", 1_000_000)
    with refused(FoveateError, "MB", "efficientnet_lite0"):
        export_classifier(small_classifier(tmp_path), tmp_path / "web", "web", files)
    assert not (tmp_path / "web").exists()


# the numbers


def test_text_is_what_html_leaves_as_it_is() -> None:
    data = np.random.default_rng(0).bytes(20_000) + bytes(range(256))
    text = as_text(data)
    assert not set(text) & {"\0", "\r", "<"} and bytes_of(text)[: len(data)] == data
    assert len(text.encode()) < 1.18 * len(data)


def test_weights_are_rounded_and_beside_the_graph() -> None:
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    shapes = {
        "large": (64, 16, 3, 3),
        "depthwise": (600, 1, 3, 3),
        "matrix": (80, 90),
        "head": (1, 900, 7),
        "tiny": (4, 4, 1, 1),
    }
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name}_out"]) for name in shapes]
    ends = [onnx.helper.make_tensor_value_info(f"{name}_out", 1, None) for name in shapes]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], ends, tensors))
    for int8, kinds in ((False, ["f16"] * 4), (True, ["int8", "f16", "int8", "f16"])):
        bare, coded = code_weights(onnx, model, int8)
        assert [part.kind for part in coded] == kinds
        assert bare.ByteSize() < 2500 < model.ByteSize()
        places = [
            {e.key: e.value for e in t.external_data}
            for t in bare.graph.initializer
            if t.external_data
        ]
        ends_at = np.cumsum([int(place["length"]) for place in places])
        assert [int(place["offset"]) for place in places] == [0, *ends_at[:-1]]
        whole = with_weights(onnx, bare, coded)
        read = {t.name: onnx.numpy_helper.to_array(t) for t in whole.graph.initializer}
        assert (read["tiny"] == values["tiny"]).all()
        for name in [*shapes][:4]:
            most = np.abs(values[name]).max()
            bound = 0.51 * most / 127 if int8 and name in ("large", "matrix") else most / 2**11
            assert 0 < np.abs(read[name] - values[name]).max() <= bound
    assert len(as_int8(values["large"]).content()) == 64 * 4 + values["large"].size
    assert len(as_float16(values["large"]).content()) == 2 * values["large"].size


KINDS: dict[str, Callable[[Path], Any]] = {
    "a network": lambda folder: small_classifier(folder),
    "padded": lambda folder: small_classifier(folder, preprocess=viewed("pad")),
    "several labels": lambda folder: small_classifier(folder, thresholds=(0.2, 0.5, 0.4)),
    "divided": lambda folder: small_classifier(folder, temperature=1.7),
    "two views": probe_of_views,
    "without a graph": lambda folder: small_classifier(folder, graph=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_its_numbers_say_what_the_classifier_says(kind: str, tmp_path: Path, files: Path) -> None:
    classifier = KINDS[kind](tmp_path)
    some = [files / name for name in ("high.bmp", "palette.gif", "turned-6.jpg")]
    expected = probabilities(classifier, some)
    network = PageNetwork(classifier, int8=False)
    for image, answer in network.answers(expand(some)):
        theirs = expected[image.content]
        assert np.abs(answer.probabilities - theirs).max() <= 10 * TOLERANCE
        assert answer.rejected is None and answer.measures is None
        given = classifier.decision.answers(theirs[None])[0]
        near = np.abs(theirs - 0.5).min() < 1e-3
        assert (answer.given == given).all() or near


def test_int8_is_judged_on_the_runs_own_images(kept: Path, tmp_path: Path) -> None:
    small_classifier(tmp_path)
    with refused(UsageError, "images"):
        export_classifier(tmp_path, tmp_path / "web", "web", int8=True)
    assert not (tmp_path / "web").exists()


# what is refused


def test_bad_input(kept: Path, files: Path, tmp_path: Path) -> None:
    classifier = small_classifier(tmp_path / "run")
    deep = small_classifier(tmp_path / "deep", preprocess=viewed(levels=(5.0, 9.0)), graph=False)
    empty, wrong, heavy = tmp_path / "empty", tmp_path / "wrong", tmp_path / "heavy"
    for folder in (empty, wrong, heavy):
        folder.mkdir()
    (empty / "a.tif").write_bytes(b"II*\0")
    (wrong / "cut.jpg").write_bytes((files / "large.jpg").read_bytes()[:5000])
    noise = np.random.default_rng(0).integers(0, 256, (1200, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(heavy / "noise.png")
    out = tmp_path / "web"
    for error, names, model, options in [
        (UsageError, ["8 bits", "onnx"], deep, {}),
        (
            UsageError,
            ["check_images", "onnx"],
            classifier,
            {"format": "onnx", "check_images": wrong},
        ),
        (
            DataError,
            ["nowhere", "check_images"],
            classifier,
            {"check_images": tmp_path / "nowhere"},
        ),
        (DataError, ["empty", "jpg"], classifier, {"check_images": empty}),
        (DataError, ["cut.jpg"], classifier, {"check_images": wrong}),
        (DataError, ["noise.png", "3,000,000"], classifier, {"check_images": heavy}),
        (UsageError, ["check_images"], classifier, {"check_images": 3}),
    ]:
        given: Any = {"format": "web", "images": files} | options
        with refused(error, *names):
            export_classifier(model, out, **given)
        assert not out.exists()


def test_check_images_are_kept_evenly(kept: Path, files: Path, tmp_path: Path) -> None:
    classifier = small_classifier(tmp_path / "run")
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (40, 30), (12 * number, 0, 90)).save(folder / f"{number:02}.PNG")
    export_classifier(classifier, tmp_path / "web", "web", files, check_images=folder)
    page = (tmp_path / "web" / "classifier.html").read_text(encoding="utf-8")
    about = json.loads(element(page, "application/json", "about"))
    names = [image["name"] for image in about["checks"]["images"]]
    assert len(names) == 12 and names[0] == "00.PNG" and names[-1] == "19.PNG"
    first = about["checks"]["images"][0]
    assert base64.b64decode(first["data"]) == (folder / "00.PNG").read_bytes()
    (row,) = probabilities(classifier, [folder / "00.PNG"]).values()
    assert np.abs(np.array(first["probabilities"]) - row).max() <= 10 * TOLERANCE


def test_a_script_that_is_not_as_expected(tmp_path: Path) -> None:
    with refused(FoveateError, "onnxruntime-web"):
        as_global("const a = 1;")
    with refused(FoveateError, "onnxruntime-web"):
        as_global('const a = "</script>";export{a as env};')
    path = tmp_path / "x.tgz"
    path.write_bytes(tarball({SCRIPT: b""}))
    with refused(ArtefactError, "x.tgz", BINARY):
        unpacked(path)


# where the runtime comes from


class Mirror(BaseHTTPRequestHandler):
    """Answers with the server's content."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server: Any = self.server
        server.paths.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content)


@pytest.fixture
def mirror(published: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.paths, server.content = [], MADE
    monkeypatch.setenv("FOVEATE_MIRROR", f"http://127.0.0.1:{server.server_port}/mirror")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("FOVEATE_OFFLINE", raising=False)
    # the published address must never be asked here
    dead = replace(runtime.TARBALL, url="http://127.0.0.1:9/onnxruntime-web.tgz")
    monkeypatch.setattr(runtime, "TARBALL", dead)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_is_fetched_once_and_checked(mirror: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = runtime.web_runtime()
    assert (found.script, found.binary) == (SCRIPT_TEXT, BINARY_BYTES)
    assert runtime.web_runtime() == found and len(mirror.paths) == 1
    assert mirror.paths == ["/mirror/127.0.0.1:9/onnxruntime-web.tgz"]
    assert tarball_path().read_bytes() == MADE


def test_another_file_is_not_kept(
    mirror: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("foveate.download.time.sleep", lambda _: None)
    mirror.content = MADE[:-1] + b"x"
    with refused(FoveateError, "SHA-512", runtime.TARBALL.sha512, tarball_path().name):
        runtime.web_runtime()
    assert not [*tarball_path().parent.iterdir()]
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    tarball_path().write_bytes(mirror.content)  # by hand, and wrong
    with refused(FoveateError, "not the published file", str(tarball_path())):
        runtime.web_runtime()
