"""The proof of an export: its own program, run on real files beside the classifier."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.arguments import option
from foveate.classifier import Classifier
from foveate.classifier.given import Given, expand, is_many
from foveate.data.builtin import BUILTIN
from foveate.data.image import read_file
from foveate.data.layouts import load_dataset
from foveate.engine import choose_engine
from foveate.errors import ArtefactError, DataError, ImageError, UsageError, printable, quoted
from foveate.runs import is_absent, read_json

MOST = 100  # images, evenly over those that there are
# of a probability: both compute in f32, in another order
TOLERANCE = 1e-4
LIMIT = 1800  # seconds for the program; a network of hundreds of layers takes a second an image
TABLES = (".csv", ".tsv")


Rows = dict[Path, NDArray[np.float64]]  # (classes,) of each file
Answers = tuple[Rows, dict[str, str]]  # and why others cannot be read, by name


@dataclass(frozen=True)
class Proof:
    """How an exported file agrees with its classifier.

    Args:
        images: how many were compared.
        of: how many there are.
        difference: the largest between two probabilities, the classifier computing in f32.
        tolerance: what it may be.
        unread: by file, why the program beside the export cannot read what the classifier can.
        others: of how many the most probable class is another: where weights are int8, or where two
            are equally probable but for rounding.
        on_this_machine: the largest difference to the classifier as it predicts here, where that is
            in bf16; and of how many images the most probable class is another. None elsewhere.
    """

    images: int
    of: int
    difference: float
    tolerance: float
    unread: dict[str, str] = field(default_factory=dict)
    on_this_machine: tuple[float, int] | None = None
    others: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def proof_images(classifier: Classifier, images: Any) -> tuple[list[Given], int]:
    """At most MOST images to compare on, and of how many they are.

    Args:
        classifier: whose run's data are taken if none are given, where they are found by their
            name.
        images: a built-in set, a folder, a CSV, files, a Dataset, or what else `predict` takes.

    Raises:
        UsageError: none are given, and the run's data are not here.
        DataError: there are none.
    """
    source = images if images is not None else data_of(classifier)
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        built_in = text in BUILTIN and not Path(text).exists()
        if built_in or Path(text).suffix.lower() in TABLES:
            source = load_dataset(text, "multiclass" if built_in else classifier.task)
        elif not (text and Path(text).exists()):
            raise DataError(f"no such file or folder: {quoted(text)}")
    found = list(expand(source if is_many(source) else [source]))
    if not found:
        raise DataError("there are no images to compare on")
    places = np.linspace(0, len(found) - 1, min(MOST, len(found))).round().astype(int)
    return [found[place] for place in places], len(found)


def data_of(classifier: Classifier) -> Path:
    """What a run learnt from, by its name, as `train` was given it from this folder."""
    missing = "an export is compared with its classifier on real images"
    path = classifier.run / "config.json"
    name = "" if is_absent(path) else str(read_json(path).get("data", ""))
    if not name:
        raise UsageError(f"{missing}: name some with {option('images')}")
    if not Path(name).exists() and name not in BUILTIN:
        raise UsageError(
            f"{missing}, and the run's own, {quoted(name)}, are not in this folder: name them, or "
            f"others, with {option('images')}"
        )
    return Path(name)


def prove(
    answer: Callable[[dict[Path, str], tuple[str, ...]], Answers],
    classifier: Classifier,
    images: Sequence[Given],
    of: int,
    expects: Callable[[Iterable[Path]], Rows] | None = None,
    tolerance: float = TOLERANCE,
) -> Proof:
    """Compare an export with its classifier.

    Args:
        answer: what the export says of files: `run_program` of its program, or `run_classifier`.
        classifier: beside it.
        images: to compare on.
        of: how many there are.
        expects: what the export has to say of files; by default what the classifier says in f32.
        tolerance: by how much a probability may differ.

    Raises:
        ArtefactError: the export fails; or on a file the most probable class is another, or a
            probability differs by more than it may.
        DataError: no image can be read.
    """
    with TemporaryDirectory() as folder:
        files = written(images, Path(folder))
        expected = expects(files) if expects else probabilities(in_f32(classifier), files)
        files = {path: name for path, name in files.items() if path in expected}
        if not files:
            raise DataError(f"none of the {len(images)} images to compare on can be read")
        found, unread = answer(files, classifier.classes)
        if not found:
            name, reason = next(iter(unread.items()))
            raise ArtefactError(f"the export's program reads no image: {quoted(name)}: {reason}")
        difference = 0.0
        for path, row in found.items():
            gap = float(np.abs(row - expected[path]).max())
            difference = max(difference, gap)
            if not agree(row, expected[path], tolerance):
                names = files[path], classifier.classes
                raise disagreement(*names, row, expected[path], tolerance)
        here = None
        if expects is None and in_bf16(classifier):
            here = compared(probabilities(classifier, files), found)
        others = sum(int(row.argmax() != expected[path].argmax()) for path, row in found.items())
        return Proof(len(found), of, difference, tolerance, unread, here, others)


def agree(row: NDArray[np.float64], expected: NDArray[np.float64], tolerance: float) -> bool:
    """Whether no probability differs by more than it may and the most probable class is the same;
    of two that are equally probable but for rounding, either is."""
    tie = expected.max() - expected[row.argmax()] <= tolerance
    return bool(tie and np.abs(row - expected).max() <= tolerance)


def disagreement(
    name: str,
    classes: tuple[str, ...],
    row: NDArray[np.float64],
    expected: NDArray[np.float64],
    tolerance: float,
) -> ArtefactError:
    best, ours = int(row.argmax()), int(expected.argmax())
    return ArtefactError(
        f"the export disagrees with the classifier on {quoted(name)}: {quoted(classes[best])} with "
        f"{row[best]:.4f}, where the classifier says {quoted(classes[ours])} with "
        f"{expected[ours]:.4f}; probabilities differ by {np.abs(row - expected).max():.2g}, more "
        f"than {tolerance:g}. Nothing was written; please report it"
    )


def written(images: Iterable[Given], folder: Path) -> dict[Path, str]:
    """The images as files, and what they are called; those on disk stay where they are."""
    files = {}
    for number, image in enumerate(images):
        if isinstance(image.content, Path):
            files[image.content.absolute()] = image.name
            continue
        path = folder / f"{number}{Path(image.name).suffix}"
        try:
            path.write_bytes(as_bytes(image.content))
        except ImageError:
            continue  # it cannot be compared on: nobody reads it
        files[path] = image.name
    return files


def as_bytes(content: Any) -> bytes:
    """An image that was given as a file's bytes; one of pixels is encoded without loss."""
    if callable(content):
        content = content()
    if isinstance(content, (str, os.PathLike)):
        return read_file(Path(content))
    if isinstance(content, bytes):
        return content
    image = Image.fromarray(content) if isinstance(content, np.ndarray) else content
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def in_f32(classifier: Classifier) -> Classifier:
    """The same classifier, computing in f32 whatever the CPU does best."""
    twin = Classifier(classifier.folder, classifier.card, classifier.threads, classifier.module)
    twin.engines = {os.getpid(): twin.make_engine("f32")}
    return twin


def in_bf16(classifier: Classifier) -> bool:
    """Whether it predicts with rounder numbers than f32 here."""
    if not classifier.has_graph or choose_engine() != "openvino":
        return False
    from foveate.engine.openvino import precision

    return precision() == "bf16"


def probabilities(classifier: Classifier, files: Iterable[Path]) -> Rows:
    """Of each file that can be read, (classes,)."""
    given = [Given(str(path), path) for path in files]
    found = classifier.probabilities(classifier.decoded(given, "none"))
    return {image.content: row for image, row in found if not isinstance(row, ImageError)}


def compared(
    here: dict[Path, NDArray[np.float64]], found: dict[Path, NDArray[np.float64]]
) -> tuple[float, int]:
    """The largest difference, and how many images have another most probable class."""
    gaps = [float(np.abs(row - here[path]).max()) for path, row in found.items()]
    others = sum(int(row.argmax() != here[path].argmax()) for path, row in found.items())
    return max(gaps), others


def run_program(program: Path, files: dict[Path, str], classes: tuple[str, ...]) -> Answers:
    """What predict.py says of files."""
    # not this process's folders and variables: the program stands alone
    command = [sys.executable, "-I", str(program), "--json", *map(str, files)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired as error:
        raise ArtefactError(
            f"the export's program did not end within {LIMIT} seconds on {len(files)} images"
        ) from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ArtefactError(f"the export's program fails: {printable(reason[:300])}")
    found, unread = {}, {}
    for line in done.stdout.splitlines():
        answer = json.loads(line)
        path = Path(answer["file"])
        if "error" in answer:
            unread[files[path]] = answer["error"]
        else:
            found[path] = np.array([answer["probabilities"][name] for name in classes])
    return found, unread


def run_classifier(folder: Path, files: dict[Path, str], classes: tuple[str, ...]) -> Answers:
    """What the classifier in a folder says of files, in f32."""
    return probabilities(in_f32(Classifier.load(folder)), files), {}
