"""The network of a page, and what Python makes of it: the answers that the page has to give."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.classifier import Classifier
from foveate.classifier.given import Given
from foveate.classifier.tta import Squares
from foveate.errors import ImageError
from foveate.export.graph import input_names, rows_graph, served_graph
from foveate.export.onnx import onnx_package, to_onnx
from foveate.export.proof import Answers
from foveate.export.web.coding import (
    Coded,
    as_float16,
    as_float32,
    as_int32,
    code_weights,
    with_weights,
)
from foveate.rejection import PREFIX, Rejection, measured, normal_places

HALVED = ("root", "means", "between")  # the large tensors of a rejection


class PageAnswer(NamedTuple):
    """What the page's numbers say of one image.

    Args:
        probabilities: (classes,), calibrated.
        measures: (3,), of how strange it is; None where nothing is refused.
        rejected: why it is refused, or None.
        given: (classes,), what it is given; nothing where it is refused.
    """

    probabilities: NDArray[np.float64]
    measures: NDArray[np.float64] | None
    rejected: str | None
    given: NDArray[np.bool_]


class PageNetwork:
    """A classifier's network and its rejection, with the numbers that a page keeps.

    Args:
        classifier: whose they are.
        int8: whether most of the weights are rounded to int8, or all to float16.
    """

    def __init__(self, classifier: Classifier, int8: bool):
        self.classifier, self.int8 = classifier, int8
        self.onnx = onnx_package()
        self.graph, self.weights = code_weights(
            self.onnx, to_onnx(rows_graph(classifier), {}), int8
        )
        self.tensors = {} if classifier.rejection is None else coded(classifier.rejection)

    def served(self) -> tuple[Any, Any]:
        """The network up to its probabilities, as an `onnx.ModelProto`: with the classifier's
        numbers, and with the page's."""
        model = to_onnx(served_graph(self.classifier), {})
        return model, with_weights(self.onnx, *code_weights(self.onnx, model, self.int8))

    @cached_property
    def rejection(self) -> Rejection | None:
        """With the numbers as the page has them."""
        if self.classifier.rejection is None:
            return None
        tensors = {PREFIX + name: part.values() for name, part in self.tensors.items()}
        tensors[PREFIX + "thresholds"] = self.classifier.rejection.thresholds
        width = len(self.classifier.rejection.hashing.factors)
        return Rejection.of(tensors, width, len(self.classifier.classes))

    @cached_property
    def session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.classifier.threads
        model = with_weights(self.onnx, self.graph, self.weights)
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def answer(self, squares: Squares) -> PageAnswer:
        """What is said of one image, of which each view's square is given."""
        classifier = self.classifier
        pairs = zip(input_names(classifier), squares, strict=True)
        fed = {name: np.ascontiguousarray(pixels[None]) for name, pixels in pairs}
        row = self.session.run(None, fed)[0]
        classes = len(classifier.classes)
        logits = classifier.scaled(row[:, :classes])
        probabilities = classifier.decision.probabilities(logits)
        given = classifier.decision.answers(probabilities)[0]
        if self.rejection is None:
            return PageAnswer(probabilities[0], None, None, given)
        rejection, features = self.rejection, row[:, classes:]
        measures = measured(rejection.hashing.reduced(features), rejection.pair, logits)
        reason = rejection.reasons(rejection.scale.strangeness(measures))[0]
        if reason is not None:
            given = np.zeros_like(given)
        return PageAnswer(probabilities[0], measures[:, 0], reason, given)

    def answers(self, images: Iterable[Given]) -> Iterable[tuple[Given, PageAnswer | ImageError]]:
        """The same of images as the classifier decodes them."""
        for image, squares in self.classifier.decoded(images, "none"):
            yield image, squares if isinstance(squares, ImageError) else self.answer(squares)

    def say(self, files: dict[Any, str], classes: tuple[str, ...]) -> Answers:
        """The probabilities of files, as a proof compares them."""
        found, unread = {}, {}
        for image, answer in self.answers(Given(str(path), path) for path in files):
            if isinstance(answer, ImageError):
                unread[files[image.content]] = str(answer)
            else:
                found[image.content] = answer.probabilities
        return found, unread

    def content(self) -> bytes:
        """All numbers, one after the other, as `about` lists them."""
        parts = [*self.weights, *self.tensors.values()]
        return self.graph.SerializeToString() + b"".join(part.content() for part in parts)


def coded(rejection: Rejection) -> dict[str, Coded]:
    """The tensors of a rejection, but for its thresholds."""
    found: dict[str, Coded] = {}
    for name, tensor in rejection.tensors().items():
        name = name.removeprefix(PREFIX)
        if name == "buckets":
            found[name] = as_int32(tensor)
        elif name in HALVED:
            found[name] = as_float16(tensor)
        elif name != "thresholds":
            found[name] = as_float32(tensor)
    places = normal_places(rejection.scale.known.shape[1])
    return found | {"places": as_float32(places)}
