"""Classifier: what a run leaves. Network, class names, preprocessing and calibration in one folder that needs no torch.

classifier/
  model.safetensors   the Probe's tensors, nothing else
  engine.xml, .bin    the same as one OpenVINO graph: pixels in, logits out
  card.json           classes, Preprocess, temperature, provenance, SHA-256 of each file
  README.md           the model card, for people
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from foveate.data.dataset import Dataset, walk
from foveate.data.image import SUFFIXES, UPRIGHT, orientation, read_file, to_rgb
from foveate.data.loader import cores, decode, decode_ahead
from foveate.data.preprocess import Preprocess
from foveate.engine import Engine, choose_engine
from foveate.errors import ArtefactError, DataError, ImageError, UsageError
from foveate.features import in_batches
from foveate.heads import Head
from foveate.metrics import softmax
from foveate.storage import replacing, sha256, write_json
from foveate.weights import WEIGHTS, find_weights, weights_file

FORMAT = 1
TENSORS, GRAPH = "model.safetensors", "engine.xml"


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one picture.

    Args:
        file: its name.
        label, probability: the most probable class; "" and 0 when the picture cannot be read.
        top: the most probable classes and their probabilities, best first.
        error: why the picture cannot be read, or "".
    """

    file: str
    label: str = ""
    probability: float = 0.0
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        if self.error:
            return {"file": self.file, "error": self.error}
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top]
        return {"file": self.file, "label": self.label, "probability": round(self.probability, 6), "top": top}


class Classifier:
    """A trained classifier, read from its folder.

    >>> clf = Classifier.load("runs/mine")       # doctest: +SKIP
    >>> clf.predict("x.jpg").label               # doctest: +SKIP
    'shirt'
    """

    def __init__(self, folder: Path, card: dict[str, Any]):
        self.folder = folder
        self.card = card
        self.classes: tuple[str, ...] = tuple(card["classes"])
        self.preprocess = Preprocess.from_dict(card["preprocess"])
        self.threads = cores()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Classifier":
        """Read a classifier, or the one in a run's folder.

        Raises:
            ArtefactError: nothing is there; the card is damaged; a file's bytes are not those that were saved.
        """
        folder = Path(path)
        try:
            folder = folder / "classifier" if (folder / "classifier").is_dir() else folder
            there = (folder / "card.json").is_file()
        except OSError:  # a name too long, a folder that is shut
            there = False
        if not there:
            raise ArtefactError(
                f"'{path}' is no run and no classifier (no card.json there); make one: foveate train PHOTOS"
            )
        return cls(folder, read_card(folder))

    @property
    def run(self) -> Path:
        """The folder of the run that left this classifier."""
        return self.folder.parent

    def predict(self, source: str | os.PathLike[str] | bytes | Image.Image | Sequence[Any], top: int = 3) -> Any:
        """Classify one picture, or many.

        Args:
            source: a path, a file's bytes or a PIL image; a folder; or a list of any of these.
            top: how many classes to name.

        Returns:
            A Prediction for one picture, a list of them for a folder or a list.

        Raises:
            ImageError: the one picture asked for cannot be read. Of many, each has its own `error`.
        """
        if isinstance(source, (list, tuple)) or (isinstance(source, (str, os.PathLike)) and is_folder(Path(source))):
            return list(self.predict_each(source if isinstance(source, (list, tuple)) else [source], top))
        prediction = next(self.predict_each([source], top))
        if prediction.error:
            raise ImageError(prediction.error)
        return prediction

    def predict_each(self, sources: Iterable[Any], top: int = 3) -> Iterator[Prediction]:
        """As `predict` for a list, giving each Prediction as it is made."""
        if top < 1:
            raise UsageError(f"expected top of at least 1, got {top}")
        items = [item for source in sources for item in expand(source)]
        names = [name for name, _ in items]

        def pixels(row: int) -> NDArray[np.uint8]:
            source = items[row][1]
            if isinstance(source, Image.Image):
                return self.preprocess.pixels(upright_rgb(source, names[row]))
            data = source if isinstance(source, bytes) else read_file(source)
            return decode(data, names[row], self.preprocess)

        for row, outcome in self.probabilities(len(items), pixels):
            if isinstance(outcome, ImageError):
                yield Prediction(names[row], error=str(outcome))
            else:
                best = np.argsort(-outcome, kind="stable")[:top]
                ranked = tuple((self.classes[i], float(outcome[i])) for i in best)
                yield Prediction(names[row], *ranked[0], ranked)

    def probabilities(
        self, n: int, pixels: Callable[[int], NDArray[np.uint8]]
    ) -> Iterator[tuple[int, NDArray[np.float64] | ImageError]]:
        """Each row's probabilities, (classes,), in order; `pixels(row)` gives what `decode` gives."""
        if n == 0:
            return
        decoded = decode_ahead(range(n), pixels, self.preprocess, self.threads)
        failed: dict[int, ImageError] = {}
        rows: list[int] = []

        def readable() -> Iterator[NDArray[np.uint8]]:
            for row, outcome in decoded:
                if isinstance(outcome, ImageError):
                    failed[row] = outcome
                else:
                    rows.append(row)
                    yield outcome

        engine = self.engine
        due = 0
        batches = (np.stack(batch) for batch in in_batches(readable(), engine.batch))
        for logits in engine.run(batches):
            for probabilities in softmax(logits):
                row = rows.pop(0)
                for earlier in range(due, row):
                    yield earlier, failed.pop(earlier)
                yield row, probabilities
                due = row + 1
        for row in range(due, n):
            yield row, failed.pop(row)

    def dataset_probabilities(self, dataset: Dataset) -> Iterator[tuple[int, NDArray[np.float64] | ImageError]]:
        """Each picture's probabilities, in the dataset's order."""
        return self.probabilities(
            len(dataset), lambda row: decode(dataset.read(row), dataset.files[row], self.preprocess)
        )

    @cached_property
    def engine(self) -> Engine:
        """The saved graph in OpenVINO, or the saved tensors in torch."""
        if (self.folder / GRAPH).is_file() and choose_engine() == "openvino":
            from foveate.engine.openvino import OpenVinoEngine

            engine = OpenVinoEngine(self.folder / GRAPH, self.threads)
            side = self.preprocess.crop
            if engine.shape != ((side, side, self.preprocess.channels), (len(self.classes),)):
                raise ArtefactError(f"'{self.folder / GRAPH}' does not fit the card: it maps {engine.shape}")
            return engine
        from foveate.engine.torch import TorchEngine

        return TorchEngine(self.network(), self.preprocess, self.threads)

    def network(self) -> Any:
        """The Probe as a torch module, with its weights."""
        from safetensors.torch import load_file as load_tensors

        from foveate.transfer import Probe
        from foveate.weights import build

        tensors = load_tensors(self.folder / TENSORS)
        classes, width = tensors["linear.weight"].shape
        probe = Probe(build(find_weights(self.card["model"]).network), width, classes, self.card["mirror"])
        try:
            probe.load_state_dict(tensors)
        except RuntimeError as error:
            raise ArtefactError(f"'{self.folder / TENSORS}' does not fit the card's {self.card['model']}") from error
        return probe.eval()


def save_classifier(
    folder: Path,
    model: str,
    head: Head,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    mirror: bool,
    engine: str,
    about: dict[str, Any],
) -> Classifier:
    """Write a classifier's folder, whole or not at all.

    Args:
        folder: to be written; an older one there is replaced.
        model: name of the backbone.
        head: solved on its features.
        about: provenance and metrics, for the card.
        engine: with "openvino" the graph is saved beside the tensors.
    """
    prefix = find_weights(model).head + "."
    backbone = load_file(weights_file(model))
    tensors = {f"backbone.{name}": t for name, t in backbone.items() if not name.startswith(prefix)}
    tensors |= {"linear.weight": head.weight, "linear.bias": head.bias}
    with replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / TENSORS).write_bytes(save(tensors))
        if engine == "openvino":
            from foveate.engine.conversion import graph_path
            from foveate.engine.openvino import attach_head, save_graph

            graph = attach_head(graph_path(model, preprocess), head.weight, head.bias, mirror)
            save_graph(graph, temporary / GRAPH)
        card = {
            "format": FORMAT,
            "model": model,
            "classes": list(classes),
            "preprocess": preprocess.to_dict(),
            "mirror": mirror,
            "temperature": head.temperature,
            **about,
            "files": {file.name: sha256(file) for file in sorted(temporary.iterdir())},
        }
        (temporary / "README.md").write_text(model_card(card), encoding="utf-8")
        write_json(temporary / "card.json", card)
    return Classifier.load(folder)


def read_card(folder: Path) -> dict[str, Any]:
    """card.json, checked: its form, and the SHA-256 of each file it names."""
    path = folder / "card.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ArtefactError(f"'{path}' has format {card['format']!r}, this version reads {FORMAT}; update Foveate")
        fits = (
            card["model"] in WEIGHTS
            and isinstance(card["classes"], list)
            and len(set(card["classes"])) == len(card["classes"]) >= 2
            and all(isinstance(c, str) for c in card["classes"])
            and isinstance(card["mirror"], bool)
            and TENSORS in card["files"]
            and all(Path(name).name == name for name in card["files"])
        )
        if not fits:
            raise ValueError("a field has an impossible value")
        Preprocess.from_dict(card["preprocess"])
        files = dict(card["files"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ArtefactError(f"'{path}' is damaged: {error!r}; train again, or restore it from a backup") from error
    for name, digest in files.items():
        try:
            found = sha256(folder / name) if (folder / name).is_file() else ""
        except (OSError, ValueError):  # it is shut, or no system allows the name
            found = ""
        if not found:
            raise ArtefactError(f"'{folder / name}' is missing; train again, or restore it from a backup")
        if found != digest:
            raise ArtefactError(
                f"'{folder / name}' is damaged (its SHA-256 is not the card's); restore it from a backup"
            )
    if head_shape(folder / TENSORS) != [len(card["classes"])]:
        raise ArtefactError(f"'{folder / TENSORS}' does not fit the card's {len(card['classes'])} classes")
    return card


def head_shape(path: Path) -> list[int]:
    """The shape of the head's bias, read from the file's header; [] if that is none."""
    try:
        with safe_open(path, "np") as tensors:
            shape: list[int] = tensors.get_slice("linear.bias").get_shape()
            return shape if tensors.get_slice("linear.weight").get_shape()[:1] == shape else []
    except SafetensorError:
        return []


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """A PIL image, as `load_image` gives its file."""
    try:
        image.load()
    except Exception as error:  # as in load_image: Pillow decodes a file when its pixels are first wanted
        raise ImageError(f"image {name!r} is damaged ({error})") from error
    turn = UPRIGHT.get(orientation(image))
    image = to_rgb(image, name)
    return image if turn is None else image.transpose(turn)


def is_folder(path: Path) -> bool:
    """Whether it is one; an impossible name is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def expand(source: Any) -> list[tuple[str, Any]]:
    """A source given by the user -> (name, path or bytes or image) of each picture in it."""
    if isinstance(source, Image.Image):
        return [(getattr(source, "filename", "") or "(image)", source)]
    if isinstance(source, bytes):
        return [("(bytes)", source)]
    path = Path(source)
    if is_folder(path):
        pictures, _ = walk(path)
        if not pictures:
            raise DataError(f"the folder '{path}' has no pictures (looked for {' '.join(sorted(SUFFIXES))})")
        return [(str(p), p) for p in sorted(pictures)]
    return [(str(path), path)]


def model_card(card: dict[str, Any]) -> str:
    """The card as Markdown, for people."""

    def safe(text: str) -> str:
        return "".join(c if c.isalnum() or c in " -_.,+" else f"&#{ord(c)};" for c in text)

    lines = [f"# A classifier of {len(card['classes'])} classes", ""]
    lines += [f"Backbone {card['model']}, frozen; a linear head solved on its stages with Foveate.", ""]
    for split, m in card["metrics"].items():
        low, high = m["accuracy_ci95"]
        lines.append(
            f"- {split.replace('_', ' ')}: accuracy {m['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%}) "
            f"on {m['n']} pictures, ECE {m['ece']:.3f}"
        )
    lines += ["", "Classes: " + ", ".join(safe(c) for c in card["classes"]) + ".", ""]
    lines += [
        "```python",
        "import foveate",
        'clf = foveate.Classifier.load("classifier")',
        'clf.predict("x.jpg")',
        "```",
    ]
    lines += ["", "It knows only these classes: a picture of anything else gets one of them too.", ""]
    return "\n".join(lines)
