"""Classifier: what a run leaves. Network, class names, preprocessing and calibration in one folder
that needs no torch.

classifier/
  model.safetensors   the Probe's tensors, nothing else
  engine.xml, .bin    the same as one OpenVINO graph: pixels in, logits out
  card.json           classes, Preprocess, temperature, provenance, SHA-256 of each file
  README.md           the model card, for people
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.classifier.card import GRAPH, TENSORS, read_card
from foveate.classifier.decision import Decision
from foveate.classifier.tta import Tta, Views
from foveate.data.dataset import Dataset, Task
from foveate.data.image import SUFFIXES, UPRIGHT, orientation, read_file, to_rgb
from foveate.data.layouts import walk
from foveate.data.preprocess import Preprocess, as_prediction_sees, decode
from foveate.data.workers import decode_ahead
from foveate.engine import Engine, choose_engine
from foveate.errors import ArtefactError, DataError, ImageError, UsageError
from foveate.features import in_batches
from foveate.machine import cores
from foveate.weights import find_weights


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Args:
        file: its name.
        label, probability: the most probable class; "" and 0 when the image cannot be read.
        labels: the classes that the image is given: that one; or all whose probabilities reach
            their thresholds, which may be none, the most probable first.
        top: the most probable classes and their probabilities, best first.
        error: why the image cannot be read, or "".
    """

    file: str
    label: str = ""
    probability: float = 0.0
    labels: tuple[str, ...] = ()
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        if self.error:
            return {"file": self.file, "error": self.error}
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top]
        best = {"file": self.file, "label": self.label, "probability": round(self.probability, 6)}
        return best | {"labels": list(self.labels), "top": top}


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
        self.decision = Decision(None if card["thresholds"] is None else tuple(card["thresholds"]))
        self.threads = cores()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Classifier":
        """Read a classifier, or the one in a run's folder.

        Raises:
            ArtefactError: nothing is there; the card is damaged; a file's bytes are not those that
                were saved.
        """
        folder = Path(path)
        try:
            folder = folder / "classifier" if (folder / "classifier").is_dir() else folder
            there = (folder / "card.json").is_file()
        except OSError:  # a name too long, a folder that is shut
            there = False
        if not there:
            raise ArtefactError(
                f"'{path}' is no run and no classifier (no card.json there); make one: foveate "
                "train PHOTOS"
            )
        return cls(folder, read_card(folder))

    @property
    def task(self) -> Task:
        """Whether an image is given one class, or any number of labels."""
        return "multiclass" if self.decision.thresholds is None else "multilabel"

    @property
    def run(self) -> Path:
        """The folder of the run that left this classifier."""
        return self.folder.parent

    def predict(
        self,
        source: str | os.PathLike[str] | bytes | Image.Image | Sequence[Any],
        top: int = 3,
        tta: Tta = "none",
    ) -> Any:
        """Classify one image, or many.

        Args:
            source: a path, a file's bytes or a PIL image; a folder; or a list of any of these.
            top: how many classes to name.
            tta: test-time augmentation: "mirror" looks at the mirror image too, for twice the time;
                "ten" at ten crops.

        Returns:
            A Prediction for one image, a list of them for a folder or a list.

        Raises:
            ImageError: the one image asked for cannot be read. Of many, each has its own `error`.
        """
        if isinstance(source, (list, tuple)) or (
            isinstance(source, (str, os.PathLike)) and is_folder(Path(source))
        ):
            return list(
                self.predict_each(
                    source if isinstance(source, (list, tuple)) else [source], top, tta
                )
            )
        prediction = next(self.predict_each([source], top, tta))
        if prediction.error:
            raise ImageError(prediction.error)
        return prediction

    def predict_each(
        self, sources: Iterable[Any], top: int = 3, tta: Tta = "none"
    ) -> Iterator[Prediction]:
        """As `predict` for a list, giving each Prediction as it is made."""
        if top < 1:
            raise UsageError(f"expected top of at least 1, got {top}")
        items = [item for source in sources for item in expand(source)]
        names = [name for name, _ in items]

        def pixels(row: int, shown: Preprocess) -> NDArray[np.uint8]:
            source = items[row][1]
            if isinstance(source, Image.Image):
                return shown.pixels(upright_rgb(source, names[row]))
            data = source if isinstance(source, bytes) else read_file(source)
            return decode(data, names[row], shown)

        for row, outcome in self.probabilities(len(items), pixels, names.__getitem__, tta):
            if isinstance(outcome, ImageError):
                yield Prediction(names[row], error=str(outcome))
            else:
                order = np.argsort(-outcome, kind="stable")
                given = self.decision.answers(outcome[None])[0]
                ranked = tuple((self.classes[i], float(outcome[i])) for i in order[:top])
                yield Prediction(
                    names[row],
                    *ranked[0],
                    tuple(self.classes[i] for i in order if given[i]),
                    ranked,
                )

    def probabilities(
        self,
        n: int,
        pixels: Callable[[int, Preprocess], NDArray[np.uint8]] | NDArray[np.uint8],
        name: Callable[[int], str],
        tta: Tta = "none",
    ) -> Iterator[tuple[int, NDArray[np.float64] | ImageError]]:
        """Each row's probabilities, (classes,), in order. `pixels(row, preprocess)` gives what
        `decode` gives of the file `name(row)`; or they are all there, (n, crop, crop, channels)."""
        views = Views(tta, self.preprocess)
        if views.kind == "mirror" and self.card["mirror"]:
            raise UsageError(
                "tta mirror changes nothing: this classifier looks at mirror images by itself"
            )
        if n == 0:
            return
        decoded: Iterator[tuple[int, NDArray[np.uint8] | ImageError]] = (
            enumerate(pixels)
            if isinstance(pixels, np.ndarray)
            else decode_ahead(
                range(n),
                lambda row: pixels(row, views.preprocess),
                name,
                views.preprocess,
                self.threads,
            )
        )
        failed: dict[int, ImageError] = {}
        rows: list[int] = []

        def readable() -> Iterator[NDArray[np.uint8]]:
            for row, outcome in decoded:
                if isinstance(outcome, ImageError):
                    failed[row] = outcome
                else:
                    rows.append(row)
                    yield from views.of(outcome)

        engine = self.engine
        due = 0
        batches = (np.stack(batch) for batch in in_batches(readable(), engine.batch))
        each_look = (
            look for logits in engine.run(batches) for look in self.decision.probabilities(logits)
        )
        looks = len(views.of(np.zeros((views.preprocess.crop,) * 2 + (1,), np.uint8)))
        for one_image in in_batches(each_look, looks):
            row = rows.pop(0)
            for earlier in range(due, row):
                yield earlier, failed.pop(earlier)
            yield row, np.mean(one_image, axis=0)
            due = row + 1
        for row in range(due, n):
            yield row, failed.pop(row)

    def dataset_probabilities(
        self, dataset: Dataset, tta: Tta = "none"
    ) -> Iterator[tuple[int, NDArray[np.float64] | ImageError]]:
        """Each image's probabilities, in the dataset's order."""
        array = as_prediction_sees(dataset, Views(tta, self.preprocess).preprocess)
        if array is not None:
            return self.probabilities(len(dataset), array, dataset.files.__getitem__, tta)

        def pixels(row: int, shown: Preprocess) -> NDArray[np.uint8]:
            return decode(dataset.read(row), dataset.files[row], shown)

        return self.probabilities(len(dataset), pixels, dataset.files.__getitem__, tta)

    @cached_property
    def engine(self) -> Engine:
        """The saved graph in OpenVINO, or the saved tensors in torch."""
        if (self.folder / GRAPH).is_file() and choose_engine() == "openvino":
            from foveate.engine.openvino import OpenVinoEngine

            engine = OpenVinoEngine(self.folder / GRAPH, self.threads)
            side = self.preprocess.crop
            if engine.shape != ((side, side, self.preprocess.channels), (len(self.classes),)):
                raise ArtefactError(
                    f"'{self.folder / GRAPH}' does not fit the card: it maps {engine.shape}"
                )
            return engine
        from foveate.engine.torch import TorchEngine

        return TorchEngine(self.network(), self.preprocess, self.threads)

    def network(self) -> Any:
        """The torch module, with its weights, in evaluation: a Probe, or a network of the canon."""
        from safetensors.torch import load_file as load_tensors

        from foveate.probe import Probe
        from foveate.weights import build

        tensors = load_tensors(self.folder / TENSORS)
        module: Any
        if self.card["form"] == "probe":
            classes, width = tensors["linear.weight"].shape
            module = Probe(
                build(find_weights(self.card["model"]).network), width, classes, self.card["mirror"]
            )
        else:
            module = build(self.card["model"], None, len(self.classes), self.preprocess.channels)
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ArtefactError(
                f"'{self.folder / TENSORS}' does not fit the card's {self.card['model']}"
            ) from error
        return module.eval()


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """A PIL image, as `load_image` gives its file."""
    try:
        image.load()
    # as in load_image: Pillow decodes a file when its pixels are first wanted
    except Exception as error:
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
    """A source given by the user -> (name, path or bytes or image) of each image in it."""
    if isinstance(source, Image.Image):
        return [(getattr(source, "filename", "") or "(image)", source)]
    if isinstance(source, bytes):
        return [("(bytes)", source)]
    path = Path(source)
    if is_folder(path):
        images, _ = walk(path, path)
        if not images:
            raise DataError(
                f"the folder '{path}' has no images (looked for {' '.join(sorted(SUFFIXES))})"
            )
        return [(str(p), p) for p in sorted(path / name for name in images)]
    return [(str(path), path)]
