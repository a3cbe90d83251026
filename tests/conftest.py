"""Every test has an empty cache of its own (../conftest.py). Converting a backbone takes seconds:
once a session."""

import importlib.util
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from foveate import arguments

# torch's idle threads then leave the cores to whoever works
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # there is a worker for each core


@pytest.fixture(scope="session")
def backbone_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the embedded weights and their graph at 224 pixels."""
    from foveate.engine import prepare_backbone
    from foveate.weights import weights_file
    from foveate.weights.starting_point import find_start

    folder = tmp_path_factory.mktemp("backbone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(folder))
        weights_file("efficientnet_lite0")
        start = find_start("efficientnet_lite0")
        prepare_backbone("openvino", start, start.preprocess, 2).engine()
    return folder


@pytest.fixture
def warm_cache(backbone_cache: Path, cache: Path) -> Path:
    """This test's own cache, with the session's weights and graphs and no features."""
    cache.mkdir(exist_ok=True)
    for part in ("networks", "weights"):
        (cache / part).symlink_to(backbone_cache / part)
    return cache


@pytest.fixture
def warm_features(backbone_cache: Path, warm_cache: Path) -> Path:
    """A warm cache with the features, too, of every image that a test of this session has computed.

    They are known by an image's content, so that no result depends on the order of the tests. For
    tests in which features are no subject: computing them is most of a probe's time.
    """
    (backbone_cache / "features").mkdir(exist_ok=True)
    (warm_cache / "features").symlink_to(backbone_cache / "features")
    return warm_cache


@pytest.fixture
def cold_features(warm_features: Path) -> None:
    """None is known: for those tests of such a file in which they are the subject."""
    (warm_features / "features").unlink()


def draw(kind: str, seed: int) -> Image.Image:
    """A faint image of a blob, of stripes or of noise alone; hard enough that some are mistaken."""
    rng = np.random.default_rng([seed, *kind.encode()])
    width, height = (int(n) for n in rng.integers(96, 200, 2))
    ground = rng.integers(60, 196, 3)
    layer = Image.new("L", (width, height))
    pen = ImageDraw.Draw(layer)
    if kind == "blob":
        x, y, r = rng.integers(30, width - 30), rng.integers(30, height - 30), rng.integers(12, 30)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    if kind == "stripes":
        for x in range(int(rng.integers(0, 20)), width, int(rng.integers(14, 30))):
            pen.line((x, 0, x + int(rng.integers(-8, 8)), height), fill=255, width=3)
    faint = np.asarray(layer)[:, :, None] / 255 * rng.uniform(4, 40) * rng.choice([-1, 1])
    noise = rng.normal(0, 25, (height, width, 3))
    return Image.fromarray(np.clip(ground + faint + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def draw_image() -> Callable[[str, int], Image.Image]:
    return draw


@pytest.fixture(scope="session")
def draw_folder() -> Callable[..., Path]:
    """folder, images a class, first seed, classes -> the folder, filled with JPEG and PNG files."""

    def fill(
        folder: Path, n: int, first: int = 0, kinds: tuple[str, ...] = ("blob", "noise", "stripes")
    ) -> Path:
        for kind in kinds:
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for i in range(first, first + n):
                suffix, options = (".png", {}) if i % 3 == 0 else (".jpg", {"quality": 90})
                draw(kind, i).save(folder / kind / f"{i:03}{suffix}", **options)
        return folder

    return fill


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, draw_folder: Callable[..., Path]) -> Path:
    """photos/train and photos/test: three classes, 24 and 8 images each. To be read only."""
    root = tmp_path_factory.mktemp("drawn") / "photos"
    draw_folder(root / "train", 24)
    draw_folder(root / "test", 8, first=100)
    return root


@pytest.fixture(scope="session")
def trained(backbone_cache: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `train(images)`. To be read only."""
    from foveate.training import train

    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(backbone_cache))
        return train(images, out=folder, command="train photos").run


@pytest.fixture(scope="session")
def refusing(
    backbone_cache: Path, draw_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that answers none of these. To be read only."""
    root = tmp_path_factory.mktemp("served")
    from foveate.training import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(backbone_cache))
        draw_folder(root / "photos", 40)
        return train(root / "photos", out=root / "run", command="train photos").run


@pytest.fixture(scope="session")
def photos(images: Path) -> list[Path]:
    """Images that were not learnt from."""
    return sorted((images / "test").rglob("*.jpg"))


@pytest.fixture(scope="session")
def served(refusing: Path) -> Any:
    """The classifier that all servers of this process share."""
    from foveate.classifier import Classifier

    return Classifier.load(refusing, 2)


@pytest.fixture
def serve(served: Any) -> Iterator[Callable[..., Any]]:
    """Settings -> a server."""
    from serving import Running

    running: list[Running] = []

    def start(**settings: Any) -> Running:
        running.append(Running(served, **settings))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture(scope="module")
def server(served: Any) -> Iterator[Any]:
    """One with the usual settings."""
    from serving import Running

    running = Running(served)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def python() -> Callable[..., str]:
    """Run a program in a fresh interpreter of this test's environment; gives what it printed."""
    import subprocess
    import sys

    def run(program: str, *arguments: object, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | environment,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, where it and playwright are there; where FOVEATE_BROWSER is set, as in CI, they
    must be."""
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next(filter(None, map(shutil.which, names)), None)
    there = binary is not None and importlib.util.find_spec("playwright") is not None
    if not there:
        assert "FOVEATE_BROWSER" not in os.environ, "neither Chromium nor playwright may be missing"
        pytest.skip("Chromium, or the extra browser, is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the command line changes for good, for the tests that call it in this process."""
    monkeypatch.setattr(arguments, "ON_THE_COMMAND_LINE", False)
    logger, notes = logging.getLogger("foveate"), logging.getLogger("foveate.notes")
    handlers, propagate, level = [*logger.handlers], logger.propagate, logger.level
    terminate = signal.getsignal(signal.SIGTERM)
    yield
    logger.handlers, logger.propagate, notes.disabled = handlers, propagate, False
    logger.setLevel(level)
    signal.signal(signal.SIGTERM, terminate)
