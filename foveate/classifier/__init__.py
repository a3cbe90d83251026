"""Classifier: what a run leaves. Network, class names, preprocessing and calibration in one folder
that needs no torch.

classifier/
  model.safetensors   the Probe's tensors, nothing else
  engine.xml, .bin    the same as one OpenVINO graph: pixels in, logits out
  novelty.safetensors what to expect of images without labels (foveate/novelty.py), and when to
                      answer none of these (foveate/rejection.py)
  card.json           classes, Preprocess, temperature, provenance, SHA-256 of each file
  README.md           the model card, for people
"""

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from foveate.arguments import checked_path, whole_number
from foveate.classifier.card import GRAPH, RELATION, TENSORS, head_width, read_card
from foveate.classifier.decision import Decision
from foveate.classifier.given import Decoded, Given, expand, is_many, kind_of
from foveate.classifier.tta import Samples, Squares, Tta
from foveate.data.dataset import Dataset, Task
from foveate.data.preprocess import Preprocess, as_prediction_sees, decode_squares
from foveate.data.workers import decode_ahead
from foveate.engine import Engine, choose_engine, run_each
from foveate.errors import ArtefactError, FoveateError, ImageError, UsageError, quoted
from foveate.forking import torch_threads
from foveate.machine import cores_to_use
from foveate.runs import read_metrics
from foveate.storage import check_regular, unreadable
from foveate.weights import WEIGHTS, find_weights
from foveate.weights.starting_point import OWN, TIMM

if TYPE_CHECKING:
    from torch import nn

    from foveate.rejection import Rejection

HALF = 0.5
T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Args:
        file: its name.
        label: the class that it is given, the most probable one unless an operating point or costs
            say otherwise; of labels, the most probable; "none of these" where the image is refused;
            "" when it cannot be read.
        probability: of that class; of the most probable one where the image is refused.
        labels: the classes that the image is given: that one; or all whose probabilities reach
            their thresholds, which may be none, the most probable first.
        top: the most probable classes and their probabilities, best first.
        error: why the image cannot be read, or "".
        rejected: why it is refused: it is "foreign", unlike all training images, or of an "unknown
            kind"; or None.
    """

    file: str
    label: str = ""
    probability: float = 0.0
    labels: tuple[str, ...] = ()
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""
    rejected: str | None = None

    @property
    def unsure(self) -> bool:
        """Whether the most probable class is more likely wrong than right."""
        best = self.top[0][1] if self.top else self.probability
        return not self.error and best < HALF

    def to_dict(self) -> dict[str, Any]:
        if self.error:
            return {"file": self.file, "error": self.error}
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top]
        best = {"file": self.file, "label": self.label, "probability": round(self.probability, 6)}
        return best | {"labels": list(self.labels), "top": top, "rejected": self.rejected}


class Outcome(NamedTuple):
    """What a classifier makes of one image.

    Args:
        probabilities: (classes,), calibrated.
        rejected: why it is refused, or None.
        foreign: how foreign it is, as a normal score among the training images; None where nothing
            is refused.
        distance: how far it is from the nearest class, as such a score; or None.
    """

    probabilities: NDArray[np.float64]
    rejected: str | None = None
    foreign: float | None = None
    distance: float | None = None


class Classifier:
    """A trained classifier, read from its folder. It may be used from any thread and after a fork.

    Args:
        folder: of the classifier.
        card: its card.json, checked.
        threads: cores to use; all by default.
        module: the network itself where its code is not Foveate's, and the process has it.

    >>> clf = Classifier.load("runs/mine")       # doctest: +SKIP
    >>> clf.predict("x.jpg").label               # doctest: +SKIP
    'shirt'
    """

    def __init__(
        self,
        folder: Path,
        card: dict[str, Any],
        threads: int | None = None,
        module: "nn.Module | None" = None,
    ):
        self.folder = folder
        self.card = card
        self.classes: tuple[str, ...] = tuple(card["classes"])
        self.preprocess = Preprocess.from_dict(card["preprocess"])
        thresholds = card["thresholds"]
        self.decision = Decision(None if thresholds is None else tuple(thresholds))
        if (point := card.get("operating_point")) is not None:
            positive = self.classes.index(point["positive"])
            self.decision = self.decision.at(positive, point["threshold"])
        self.threads = cores_to_use(threads, shared=False)
        self.module = module
        self.few = False  # set before the first image where there will be only one or two
        self.engines: dict[int, Engine] = {}  # by process: none outlives a fork

    def __getstate__(self) -> dict[str, Any]:
        """What goes into another process: a network that is ready to run stays in this one."""
        return self.__dict__ | {"engines": {}}

    @classmethod
    def load(cls, path: str | os.PathLike[str], threads: int | None = None) -> "Classifier":
        """Read a classifier, or the one in a run's folder.

        Args:
            path: of the folder.
            threads: cores to use; all by default.

        Raises:
            ArtefactError: nothing is there; the card is damaged; a file's bytes are not those that
                were saved.
            UsageError: the path is none; fewer than one thread.
        """
        folder = checked_path("load takes the path of a run or classifier", path)
        try:
            folder = folder / "classifier" if (folder / "classifier").is_dir() else folder
            there = (folder / "card.json").exists()
        except PermissionError as error:
            raise unreadable(folder, error) from error
        except (OSError, ValueError):  # a name that is too long, or impossible
            there = False
        if not there:
            raise ArtefactError(
                f"{quoted(path)} is no run and no classifier (no card.json there); make one: "
                "foveate train PHOTOS"
            )
        return cls(folder, read_card(folder), threads)

    def __repr__(self) -> str:
        return (
            f"Classifier({self.card['model']}, {len(self.classes)} classes, {str(self.folder)!r})"
        )

    @property
    def task(self) -> Task:
        """Whether an image is given one class, or any number of labels."""
        return "multiclass" if self.decision.thresholds is None else "multilabel"

    @property
    def run(self) -> Path:
        """The folder of the run that left this classifier."""
        return self.folder.parent

    @property
    def has_graph(self) -> bool:
        """Whether it predicts without torch and without the network's code. A graph that the card
        does not list is nobody's: its hash was never checked."""
        return GRAPH in self.card.get("files", ())

    @property
    def metrics(self) -> dict[str, Any]:
        """The run's metrics.json: `metrics["test"]["accuracy"]`; the card's few figures of each
        split where the classifier has been moved out of its run."""
        written = self.run / "metrics.json"
        if not written.exists():
            return dict(self.card.get("metrics", {}))
        return read_metrics(self.run, len(self.classes))

    def predict(self, source: Any, top: int = 3, tta: Tta = "none") -> Any:
        """Classify one image, or many.

        Args:
            source: a path, a file's bytes, an open file, a PIL image, or an array (H, W, 3) or
                (H, W), uint8, RGB or grey. Many: a folder, a Dataset, an array (N, H, W, 3), or a
                list or other iterable of any of these.
            top: how many classes to name.
            tta: test-time augmentation: "mirror" adds the mirror image, for twice the time; "ten"
                takes ten crops.

        Returns:
            A Prediction for one image, a list of them for many.

        Raises:
            ImageError: the one image cannot be read. Of many, each has its own `error`.
            UsageError: something else was given; `top` is below 1.
        """
        if is_many(source):
            return list(self.predict_each(source, top, tta))
        prediction = next(self.predict_each([source], top, tta))
        if prediction.error:
            raise ImageError(prediction.error)
        return prediction

    def predict_each(self, sources: Any, top: int = 3, tta: Tta = "none") -> Iterator[Prediction]:
        """As `predict` for many images, giving each Prediction as it is made; images are taken
        from the iterable as they are needed."""
        top = whole_number("top", top, 1)
        for image, outcome in self.outcomes(self.decoded(expand(sources), tta), tta):
            if isinstance(outcome, ImageError):
                yield Prediction(image.name, error=str(outcome))
                continue
            yield self.prediction(image.name, outcome, top)

    def prediction(self, name: str, outcome: Outcome, top: int) -> Prediction:
        """What is said of an image, by what was made of it.

        Args:
            name: of the image.
            outcome: from `outcomes`.
            top: how many classes to name.
        """
        p, rejected = outcome.probabilities, outcome.rejected
        order = np.argsort(-p, kind="stable")
        ranked = tuple((self.classes[i], float(p[i])) for i in order[:top])
        label, probability = ranked[0]
        if rejected is not None:
            from foveate.rejection import NONE_OF_THESE

            return Prediction(name, NONE_OF_THESE, probability, (), ranked, rejected=rejected)
        given = self.decision.answers(p[None])[0]
        labels = tuple(self.classes[i] for i in order if given[i])
        if self.task == "multiclass":  # perhaps not the most probable one
            label, probability = labels[0], float(p[given][0])
        return Prediction(name, label, probability, labels, ranked)

    def predict_proba(self, images: Any, tta: Tta = "none") -> NDArray[np.float64]:
        """Calibrated probabilities, as scikit-learn gives them; of refused images too, if they are
        of one of the classes.

        Args:
            images: as for `predict`; a single image is one row.
            tta: as for `predict`.

        Returns:
            (N, classes), in the order of `classes`. Rows sum to 1; or, of several labels an image,
            each probability is its label's own.

        Raises:
            ImageError: an image cannot be read; the message has its name.
        """
        many = images if is_many(images) else [images]
        rows: list[NDArray[np.float64]] = []
        for _, outcome in self.probabilities(self.decoded(expand(many), tta), tta):
            if isinstance(outcome, ImageError):
                raise outcome
            rows.append(outcome)
        return np.stack(rows) if rows else np.zeros((0, len(self.classes)))

    def decoded(self, images: "Iterable[Given]", tta: Tta) -> "Iterator[tuple[Given, Decoded]]":
        """Images with their pixels at the size that is read, decoded ahead in threads."""
        preprocess = self.samples(tta).preprocess
        return decode_ahead(
            images,
            lambda image: image.squares(preprocess),
            lambda image: image.name,
            preprocess,
            self.threads,
        )

    def samples(self, tta: Tta) -> Samples:
        """The variants of an image that are averaged.

        Raises:
            UsageError: no such test-time augmentation, or one that changes nothing.
        """
        samples = Samples(tta, self.preprocess)
        if samples.kind == "mirror" and self.card["mirror"]:
            raise UsageError(
                "tta mirror changes nothing: this classifier averages with mirror images by itself"
            )
        return samples

    def probabilities(
        self, images: "Iterable[tuple[T, Decoded]]", tta: Tta = "none"
    ) -> "Iterator[tuple[T, NDArray[np.float64] | ImageError]]":
        """Each image's probabilities, (classes,), in order; arguments are those of `outcomes`."""
        for tag, outcome in self.outcomes(images, tta):
            yield tag, outcome if isinstance(outcome, ImageError) else outcome.probabilities

    def outcomes(
        self, images: "Iterable[tuple[T, Decoded]]", tta: Tta = "none"
    ) -> "Iterator[tuple[T, Outcome | ImageError]]":
        """What each image is, in order.

        Args:
            images: a tag of any kind, and pixels (side, side, channels), uint8, of each view, as
                `decoded` makes them; or a tag and the error with which the image could not be read.
            tta: as for `predict`.
        """
        samples, classes = self.samples(tta), len(self.classes)

        def each_sample() -> Iterator[tuple[tuple[T, ImageError | None], Squares | None]]:
            for tag, outcome in images:
                if isinstance(outcome, ImageError):
                    yield (tag, outcome), None
                    continue
                for squares in samples.of(outcome):
                    yield (tag, None), squares

        seen: list[NDArray[np.float32]] = []  # rows of the image whose samples are coming
        for (tag, error), row in run_each(self.engine, each_sample()):
            if error is not None or row is None:
                assert error is not None
                yield tag, error
                continue
            if not np.isfinite(row).all():
                raise ArtefactError(
                    f"the classifier in {quoted(self.folder)} gives numbers that are not finite: "
                    "its weights are damaged; train again"
                )
            seen.append(row)
            if len(seen) == samples.count:
                rows, seen = seen[0][None] if samples.count == 1 else np.stack(seen), []
                logits, features = self.scaled(rows[:, :classes]), rows[:, classes:]
                yield tag, self.judged(logits, features)

    def judged(self, logits: NDArray[np.float32], features: NDArray[np.float32]) -> Outcome:
        """What an image is, by the mean over its variants.

        Args:
            logits: (variants, classes), calibrated.
            features: (variants, width), what the head read; width is 0 where nothing is refused.
        """
        probabilities = self.decision.probabilities(logits).mean(axis=0)
        if self.rejection is None:
            return Outcome(probabilities)
        from foveate.rejection import DISTANCE, strangeness

        means = features, logits
        if len(logits) > 1:
            means = features.mean(axis=0, keepdims=True), logits.mean(axis=0, keepdims=True)
        scores = self.rejection.scores(*means)
        strange = strangeness(scores)
        reason = self.rejection.reasons(strange)[0]
        return Outcome(probabilities, reason, float(strange[0, 0]), float(scores[DISTANCE, 0]))

    @cached_property
    def rejection(self) -> "Rejection | None":
        """When it answers none of these; None if never.

        Raises:
            ArtefactError: the file is damaged.
        """
        if self.card.get("rejection") is None:
            return None
        from foveate.rejection import Rejection  # a classifier without it starts sooner

        path = self.folder / RELATION
        try:
            tensors = load(check_regular(path).read_bytes())
            probe = self.card["form"] != "network"
            width = head_width(self.folder / TENSORS) if probe else None
            return Rejection.of(tensors, width, len(self.classes))
        except (OSError, SafetensorError, ValueError) as error:
            raise unreadable(path, error) from error

    def scaled(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated logits. Most heads have the temperature in their weights already."""
        if not self.card.get("divide_logits", False):
            return logits
        return logits / np.float32(self.card["temperature"])

    def dataset_probabilities(
        self, dataset: Dataset, tta: Tta = "none", damaged: dict[str, str] | None = None
    ) -> "Iterator[tuple[int, NDArray[np.float64] | ImageError]]":
        """Each row's probabilities, in the dataset's order; `damaged` receives name and reason of
        each image that was decoded though it is damaged."""
        return self.probabilities(self.dataset_squares(dataset, tta, damaged), tta)

    def dataset_outcomes(
        self, dataset: Dataset, tta: Tta = "none", damaged: dict[str, str] | None = None
    ) -> "Iterator[tuple[int, Outcome | ImageError]]":
        """The same, with what is refused."""
        return self.outcomes(self.dataset_squares(dataset, tta, damaged), tta)

    def dataset_squares(
        self, dataset: Dataset, tta: Tta = "none", damaged: dict[str, str] | None = None
    ) -> "Iterator[tuple[int, Decoded]]":
        """Each row's pixels at the size that is read, as `probabilities` takes them."""
        preprocess = self.samples(tta).preprocess
        array = as_prediction_sees(dataset, preprocess)
        if array is not None:
            return ((row, (pixels,)) for row, pixels in enumerate(array))

        def squares(row: int) -> Squares:
            name, damage = dataset.files[row], list[str]()
            decoded = decode_squares(dataset.read(row), name, preprocess, damage.append)
            if damage and damaged is not None:
                damaged[name] = damage[0]
            return decoded

        rows, name = range(len(dataset)), dataset.files.__getitem__
        return decode_ahead(rows, squares, name, preprocess, self.threads)

    @property
    def engine(self) -> Engine:
        """The saved graph in OpenVINO, or the saved tensors in torch; one for each process."""
        process = os.getpid()
        if process not in self.engines:
            # the parent's stays: to destroy it here would wait for threads that a fork left behind
            self.engines[process] = self.make_engine()
        return self.engines[process]

    def use(self, graph: Any, network: Any, features: bool = False) -> None:
        """Predict with a graph in memory, or else a network: before they are saved.

        The graph is the one that a file would give back: OpenVINO compiles one that comes from a
        converter to other numbers, in bf16 by 1e-4 of a probability.

        Args:
            graph, network: the one or the other.
            features: whether rows hold what the head reads after the logits.

        Raises:
            ArtefactError: they are to, and the graph does not end in a linear head.
        """
        engine: Engine
        if graph is not None:
            from foveate.engine.openvino import OpenVinoEngine, as_read_back, with_features

            graph = as_read_back(graph)
            graph = with_features(graph, self.folder / GRAPH) if features else graph
            engine = OpenVinoEngine(graph, self.threads)
        else:
            from foveate.engine.torch import TorchEngine
            from foveate.probe import Features

            network = Features(network, logits=True) if features else network
            engine = TorchEngine(network, self.preprocess, self.threads, self.channels_last)
        self.engines = {os.getpid(): engine}

    @property
    def channels_last(self) -> bool:
        return not self.card["model"].startswith(OWN)

    @torch_threads()
    def make_engine(self, precision_hint: str | None = None) -> Engine:
        """What runs the network; with OpenVINO in "f32" or "bf16", what the CPU does best by
        default."""
        if self.has_graph and choose_engine() == "openvino":
            from foveate.engine.openvino import OpenVinoEngine, read_graph, with_features

            model = graph = self.folder / GRAPH
            if self.rejection is not None:
                model = with_features(read_graph(graph), graph)
            engine = OpenVinoEngine(model, self.threads, precision_hint, few=self.few)
            channels = self.preprocess.channels
            views = tuple((view.crop, view.crop, channels) for view in self.preprocess.views)
            outputs = len(self.classes)
            if self.rejection is not None:
                outputs += len(self.rejection.hashing.factors)
            if engine.views != views or engine.row != (outputs,):
                raise ArtefactError(
                    f"{quoted(self.folder / GRAPH)} does not fit the card: it maps "
                    f"{engine.views} to {engine.row}"
                )
            return engine
        from foveate.engine.torch import TorchEngine
        from foveate.probe import Features

        network = self.network()
        if self.rejection is not None:
            network = Features(network, logits=True)
        return TorchEngine(network, self.preprocess, self.threads, self.channels_last)

    @torch_threads()
    def network(self, module: "nn.Module | Callable[[], nn.Module] | None" = None) -> Any:
        """The torch module, with its weights, in evaluation: a Probe, or the network as it is.

        Args:
            module: for a network whose code is not Foveate's: its class, or a module of it. Its
                tensors become those that were saved.

        Returns:
            The network. Its `preprocess` says how it expects images, its `input_size` how large.

        Raises:
            UsageError: the network's code is needed and not given; something else is given.
            ArtefactError: the tensors do not fit the network.
        """
        from safetensors.torch import load_file as load_tensors

        from foveate.models.network import is_size
        from foveate.probe import JoinedProbe, Probe

        path, name = self.folder / TENSORS, self.card["model"]
        network: Any
        try:
            tensors = load_tensors(check_regular(path))
            if self.card["form"] == "probe":
                classes, width = tensors["linear.weight"].shape
                backbone, pooling = self.rebuilt(name, module, None), self.card.get("pooling", 1)
                network = Probe(backbone, width, classes, self.card["mirror"], pooling)
            elif self.card["form"] == "joined":
                classes, width = tensors["linear.weight"].shape
                parts = self.card["branches"]
                networks = [self.rebuilt(part["model"], module, None) for part in parts]
                views, mirror = [p["views"] for p in parts], self.card["mirror"]
                network = JoinedProbe(networks, views, width, classes, mirror)
            else:
                network = self.rebuilt(name, module, len(self.classes))
            network.load_state_dict(tensors)
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            if isinstance(error, FoveateError):
                raise
            raise ArtefactError(f"{quoted(path)} does not fit the card's {name}") from error
        unfit = [n for n, t in tensors.items() if not bool(t.isfinite().all())]
        if unfit:
            raise ArtefactError(
                f"{quoted(path)} holds numbers that are not finite, in {quoted(unfit[0])}: its "
                "weights are damaged; train again"
            )
        network.name, network.preprocess = name, self.preprocess
        if not is_size(getattr(network, "input_size", None)):
            network.input_size = self.preprocess.crop
        return network.eval()

    def rebuilt(self, name: str, module: Any, num_classes: int | None) -> Any:
        """The network of a name, or a copy of the one at hand, with any weights."""
        from foveate.weights import build

        channels = self.preprocess.channels
        own = module if module is not None else self.module
        if own is not None:
            return copy.deepcopy(handed_in(own))
        if name.startswith(OWN):
            code = name.removeprefix(OWN)
            raise UsageError(
                f"this classifier's network is {code}, whose code was not saved: hand its class "
                f"in, network({code})"
            )
        if name.startswith(TIMM):
            from foveate.weights.timm import timm_network

            return timm_network(name.removeprefix(TIMM), num_classes, channels)
        network = find_weights(name).network if name in WEIGHTS else name
        return build(network, num_classes, channels if num_classes else None)


def handed_in(value: Any) -> Any:
    """A module, or what a class of modules or a function makes; UsageError if that is none."""
    from torch import nn

    taken = "network takes a torch.nn.Module, or its class or a function that makes one"
    made = value
    if isinstance(value, type) or (callable(value) and not isinstance(value, nn.Module)):
        try:
            made = value()
        except TypeError as error:
            name = getattr(value, "__name__", repr(value))
            raise UsageError(f"{taken} without arguments; {name}() fails: {error}") from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"{taken}, not {kind_of(made)}")
    return made
