"""What is exported: a classifier as one graph, from pixels to calibrated probabilities, and what
the file says of itself."""

from typing import Any

import numpy as np

from foveate.classifier import Classifier
from foveate.classifier.card import GRAPH, TENSORS
from foveate.engine import ENGINES
from foveate.errors import MissingExtraError
from foveate.forking import torch_threads
from foveate.storage import encode

INPUT, OUTPUT, ROWS = "pixels", "probabilities", "rows"


def served_graph(classifier: Classifier) -> Any:
    """The classifier as an OpenVINO model: pixels (N, H, W, C), uint8, of each view, `pixels`,
    `pixels_2` ... -> `probabilities` (N, classes), float32.

    It is the graph that the classifier predicts with, so no torch is needed; that of a classifier
    without one is made of its network.

    Raises:
        ArtefactError: the network's tensors do not fit.
        MissingExtraError: OpenVINO is not installed.
        UsageError: the network's code is needed, and was not handed in.
    """
    model = saved_graph(classifier)
    from foveate.engine.openvino import ov

    ops = ov.opset13
    logits = model.output(0).get_node().input_value(0)
    if classifier.card.get("divide_logits", False):
        logits = ops.divide(logits, np.float32(classifier.card["temperature"]))
    several = classifier.task == "multilabel"
    result = ops.sigmoid(logits) if several else ops.softmax(logits, 1)
    return ending_in(result, OUTPUT, model, classifier)


def saved_graph(classifier: Classifier, features: bool = False) -> Any:
    """The graph that a classifier predicts with, or one made of its network; what is made has, if
    asked for, what its head reads after the logits."""
    try:
        from foveate.engine.openvino import read_graph
    except ImportError as error:
        raise MissingExtraError(
            f"the engine {ENGINES[1]}, which export reads graphs with, is not installed: pip "
            "install openvino"
        ) from error
    if classifier.has_graph:
        return read_graph(classifier.folder / GRAPH)
    return graph_of_network(classifier, features)


def rows_graph(classifier: Classifier) -> Any:
    """The same up to its logits: pixels of each view -> `rows`, (N, classes) or, where it answers
    none of these, (N, classes + width): after the logits what its head reads.

    Raises:
        ArtefactError, MissingExtraError, UsageError: as of `served_graph`.
    """
    refuses = classifier.rejection is not None
    model = saved_graph(classifier, features=refuses)
    rows = model.output(0).get_node().input_value(0)
    if refuses and classifier.has_graph:
        from foveate.engine.openvino import LINEAR_HEAD, PROBES_HEAD, head_input, ov

        path = classifier.folder / GRAPH
        features = head_input(model, path, PROBES_HEAD, LINEAR_HEAD)
        rows = ov.opset13.concat([rows, features], axis=1)
    return ending_in(rows, ROWS, model, classifier)


def ending_in(end: Any, name: str, model: Any, classifier: Classifier) -> Any:
    """The graph from a model's inputs to a place in it, with names."""
    from foveate.engine.openvino import ov

    result = ov.opset13.result(end)
    result.output(0).set_names({name})
    inputs = [end.get_node() for end in model.inputs]
    for given, pixels in zip(input_names(classifier), inputs, strict=True):
        pixels.set_friendly_name(given)
        pixels.output(0).set_names({given})
    return ov.Model([result], inputs, "foveate")


@torch_threads()
def graph_of_network(classifier: Classifier, features: bool) -> Any:
    """The graph of a classifier that has none, made with torch."""
    from foveate.engine.conversion import to_graph
    from foveate.probe import Features

    network = classifier.network()
    if features:
        network = Features(network, logits=True)
    return to_graph(network, classifier.preprocess, every_view=True)


def input_names(classifier: Classifier) -> list[str]:
    """Of the graph's inputs, one a view.

    >>> from types import SimpleNamespace as Some
    >>> from foveate.data.preprocess import Preprocess
    >>> two = Preprocess(224, 224).framed("whole+2/3")
    >>> input_names(Some(preprocess=two))
    ['pixels', 'pixels_2']
    """
    views = range(1, len(classifier.preprocess.views) + 1)
    return [INPUT if number == 1 else f"{INPUT}_{number}" for number in views]


def facts(classifier: Classifier) -> dict[str, Any]:
    """What an export says of itself: all that whoever runs it has to know."""
    card = classifier.card
    return {
        "classes": card["classes"],
        "preprocess": card["preprocess"],
        "thresholds": classifier.decision.thresholds,
        "operating_point": card.get("operating_point") if card["thresholds"] is None else None,
        "provenance": {"model": card["model"]} | card.get("provenance", {}),
        "sha256": card["files"][TENSORS],  # of the tensors that it was made of
    }


def metadata(classifier: Classifier) -> dict[str, str]:
    """The same as texts by key, as files of networks hold them: each is JSON."""
    return {f"foveate.{key}": encode(value) for key, value in facts(classifier).items()}
