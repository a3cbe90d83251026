"""The methods by name: each makes the maps of an image, and those of random weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.classifier import Classifier
from foveate.classifier.embedding import head_of
from foveate.classifier.tta import Squares
from foveate.engine import run_each
from foveate.errors import UsageError, quoted
from foveate.explanation.exact import Floats, lost_without, values_of
from foveate.explanation.maps import MapSource, TorchMaps, ViewMaps, map_source
from foveate.explanation.masking import logits_of
from foveate.explanation.occlusion import occlusion
from foveate.forking import torch_threads

METHODS = ("auto", "exact", "gradcam", "gradcam++", "gradients", "occlusion")
HEADS = 8  # random ones of a probe

MEAN_COLOUR = "the mean colour"
Maps = list[NDArray[Any]]  # one a view


class Method(Protocol):
    """One way to explain.

    Attributes:
        name: its own.
        baseline: what the image is compared with.
        caption: what its maps show, and what they do not.
    """

    name: str
    baseline: str
    caption: str

    def explain(self, squares: Squares, classes: Sequence[int]) -> list[Maps]:
        """The pixels of each view, and numbers of classes -> the maps of each class."""

    def randomised(self, squares: Squares, index: int) -> dict[str, list[Maps]]:
        """The maps of a class when parts of the network are random, by the part."""


def choose_method(classifier: Classifier, name: str) -> Method:
    """The method of a name.

    Raises:
        UsageError: no such method, or exact for what is no probe; the network's code is missing.
    """
    if name not in METHODS:
        raise UsageError(f"no method is called {name!r}; expected {', '.join(METHODS)}")
    probe = classifier.card["form"] != "network"
    if name == "exact" and not probe:
        raise UsageError(
            f"the method exact is for probes, and {quoted(classifier.folder)} is a whole network "
            f"of the recipe {classifier.card['recipe']}: choose gradcam"
        )
    if name == "exact" or (name == "auto" and probe):
        return Exact(classifier)
    if name == "occlusion":
        return Occlusion(classifier)
    return Gradients(classifier) if name == "gradients" else GradCam(classifier, name)


class Exact:
    """The exact values of regions, of a probe."""

    name = "exact"
    baseline = "the maps without the region"
    caption = (
        "What the logit loses when a region is left out of the pooled maps. Exact for the maps, "
        "not for the pixels: each position of a map also sees what lies around it."
    )

    def __init__(self, classifier: Classifier):
        self.classifier, self.source = classifier, map_source(classifier)
        self.weight = head_of(classifier).weight
        if classifier.card.get("divide_logits", False):
            self.weight = self.weight / np.float32(classifier.card["temperature"])
        # a joined probe has the second pooling, and its card no number
        first = classifier.card["form"] == "probe" and classifier.card.get("pooling", 1) == 1
        self.pooling = 1 if first else 2
        self.lost: list[Floats] = []  # of the image that was explained last, each view
        self.random: tuple[str, MapSource] | None = None  # once it is made

    def explain(self, squares: Squares, classes: Sequence[int]) -> list[Maps]:
        self.lost = self.lost_in(self.source, squares)
        return [weighted(self.weight[index], self.lost) for index in classes]

    def lost_in(self, source: MapSource, squares: Squares) -> list[Floats]:
        """Of each view."""
        views = source.of(squares)
        return [lost_without(seen[0], mirror_of(seen), self.pooling) for seen in views]

    def randomised(self, squares: Squares, index: int) -> dict[str, list[Maps]]:
        """A frozen backbone was not trained on these classes: then only the head is random."""
        rng = np.random.default_rng(0)
        rows = rng.choice(self.weight.ravel(), (HEADS, self.weight.shape[1]))
        found = {"the head": [weighted(row, self.lost) for row in rows]}
        if self.classifier.card["recipe"] == "finetune":
            if self.random is None:
                *_, (part, network) = made_random(self.classifier, squares).items()
                self.random = part, TorchMaps(self.classifier, network)
            part, source = self.random
            lost = self.lost_in(source, squares)
            found[part] = [weighted(row, lost) for row in rows]
        return found


def made_random(classifier: Classifier, squares: Squares) -> dict[str, Any]:
    """Its network with parts of it random, by the part."""
    from foveate.explanation.randomisation import randomised

    return randomised(classifier.network(), normalised(classifier, squares))


def weighted(weight: NDArray[np.float32], lost: list[Floats]) -> Maps:
    """(width,), the weights of a class, and what each view's numbers lose -> the map of each."""
    widths = np.cumsum([len(one) for one in lost])[:-1]
    parts = zip(np.split(weight[None], widths, axis=1), lost, strict=True)
    return [values_of(part, one)[0] for part, one in parts]


def normalised(classifier: Classifier, squares: Squares) -> tuple[Any, ...]:
    """The views as the network reads them, (1, C, H, W) each."""
    import torch

    normalise = classifier.preprocess.normalise
    return tuple(torch.from_numpy(normalise(view[None])) for view in squares)


def mirror_of(seen: ViewMaps) -> list[NDArray[np.float32]] | None:
    return seen[1] if len(seen) > 1 else None


class InTorch(ABC):
    """What the methods share that need the network.

    Args:
        classifier: whose network it is.
    """

    def __init__(self, classifier: Classifier):
        self.classifier = classifier
        divide = classifier.card.get("divide_logits", False)
        self.temperature = classifier.card["temperature"] if divide else 1.0
        self.random: dict[str, Any] = {}  # once they are made

    @cached_property
    def network(self) -> Any:
        return self.classifier.network()

    @torch_threads()
    def explain(self, squares: Squares, classes: Sequence[int]) -> list[Maps]:
        return self.maps(self.network, squares, classes)

    @torch_threads()
    def randomised(self, squares: Squares, index: int) -> dict[str, list[Maps]]:
        self.random = self.random or made_random(self.classifier, squares)
        return {part: self.maps(net, squares, [index]) for part, net in self.random.items()}

    @abstractmethod
    def maps(self, network: Any, squares: Squares, classes: Sequence[int]) -> list[Maps]:
        """Of each class, by this network."""


class GradCam(InTorch):
    """Grad-CAM, and Grad-CAM++."""

    baseline = "none"
    caption = (
        "Where the last map has channels with which the class rises; what speaks against it is "
        "not shown."
    )

    def __init__(self, classifier: Classifier, name: str):
        super().__init__(classifier)
        self.name = "gradcam" if name == "auto" else name

    def maps(self, network: Any, squares: Squares, classes: Sequence[int]) -> list[Maps]:
        from foveate.explanation.cam import grad_cam

        plus = self.name == "gradcam++"
        found = grad_cam(network, normalised(self.classifier, squares), list(classes), plus)
        return [[m.numpy() / self.temperature for m in maps] for maps in found]


class Gradients(InTorch):
    """Integrated gradients."""

    name = "gradients"
    baseline = MEAN_COLOUR
    caption = (
        "What each pixel adds to the logit on the way from the mean colour to this image; all "
        "together they are what the logit gains."
    )

    def maps(self, network: Any, squares: Squares, classes: Sequence[int]) -> list[Maps]:
        from foveate.explanation.gradients import integrated_gradients

        views = normalised(self.classifier, squares)
        found = [integrated_gradients(network, views, index)[0] for index in classes]
        return [[m.numpy() / self.temperature for m in maps] for maps in found]


class Occlusion(InTorch):
    """Occlusion; it needs torch only where the network is made random."""

    name = "occlusion"
    baseline = MEAN_COLOUR
    caption = "What the logit loses when a cell of the image is hidden behind the mean colour."

    def explain(self, squares: Squares, classes: Sequence[int]) -> list[Maps]:
        logits = partial(logits_of, self.classifier)
        return occlusion(logits, squares, classes, self.classifier.preprocess)

    def maps(self, network: Any, squares: Squares, classes: Sequence[int]) -> list[Maps]:
        from foveate.engine.torch import TorchEngine

        classifier, n = self.classifier, len(self.classifier.classes)
        engine = TorchEngine(
            network, classifier.preprocess, classifier.threads, classifier.channels_last
        )

        def logits(images: Iterable[Squares]) -> NDArray[np.float32]:
            rows = run_each(engine, ((None, image) for image in images))
            return np.stack([row[:n] for _, row in rows if row is not None])

        return occlusion(logits, squares, classes, classifier.preprocess)
