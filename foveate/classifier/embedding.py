"""What the head of a classifier reads of each image: the features of a probe, before its last
layer; and what its run learnt of how they go with being right."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from foveate.classifier import Classifier
from foveate.classifier.card import GRAPH, RELATION, TENSORS
from foveate.data.dataset import Dataset
from foveate.engine import Engine, Pixels, choose_engine, run_each
from foveate.errors import ArtefactError, ImageError, UsageError, quoted
from foveate.forking import torch_threads
from foveate.novelty import FEWEST, Relation
from foveate.rejection import PREFIX
from foveate.storage import check_regular, unreadable


class LinearHead(NamedTuple):
    """(classes, width) and (classes,): calibrated logits are `features @ weight.T + bias`."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, width) -> (N, classes)"""
        return features @ self.weight.T + self.bias


def head_of(classifier: Classifier) -> LinearHead:
    """The linear layer of a probe.

    Raises:
        UsageError: the classifier is no probe.
        ArtefactError: its tensors cannot be read.
    """
    check_probe(classifier)
    path = classifier.folder / TENSORS
    try:
        with safe_open(check_regular(path), "np") as tensors:
            weight = tensors.get_tensor("linear.weight")
            bias = tensors.get_tensor("linear.bias")
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error
    return LinearHead(weight, bias)


def relation_of(classifier: Classifier) -> Relation:
    """How the confidence of a probe, and distance from its training images, go with being right.

    Raises:
        UsageError: the classifier is no probe, or gives any number of labels.
        ArtefactError: its run saved none, or it is damaged.
    """
    check_probe(classifier)
    if classifier.task == "multilabel":
        raise UsageError(
            f"{quoted(classifier.folder)} gives any number of labels; what to expect of images "
            "without labels is known of classifiers of one class an image alone"
        )
    path, head = classifier.folder / RELATION, head_of(classifier)
    tensors: dict[str, NDArray[np.float32]] = {}
    try:
        if RELATION in classifier.card["files"]:
            tensors = load(check_regular(path).read_bytes())
        if all(name.startswith(PREFIX) for name in tensors):
            raise ArtefactError(
                f"{quoted(classifier.folder)} does not say what to expect of images without "
                f"labels: its recipe is not probe, its run judged fewer than {FEWEST} images, or "
                "it is of an older version; train a probe, or give labels, in a folder a class or "
                "a CSV with columns path,label"
            )
        return Relation.of(tensors, head.weight.shape[1], len(classifier.classes))
    except (OSError, SafetensorError, ValueError) as error:
        raise unreadable(path, error) from error


def dataset_features(
    classifier: Classifier, dataset: Dataset, damaged: dict[str, str] | None = None
) -> Iterator[tuple[int, NDArray[np.float32] | ImageError]]:
    """Each row's features, (width,), in the dataset's order, or why its image cannot be read.

    Args:
        classifier: of the recipe probe.
        dataset: any; its labels play no part.
        damaged: receives name and reason of each image that was decoded though it is damaged.

    Raises:
        UsageError: the classifier is no probe.
        ArtefactError: its graph is no probe's; features are not finite.
    """
    check_probe(classifier)
    yield from rows_of(classifier, feature_engine(classifier), dataset, damaged)


def rows_of(
    classifier: Classifier,
    engine: Engine,
    dataset: Dataset,
    damaged: dict[str, str] | None = None,
) -> Iterator[tuple[int, NDArray[np.float32] | ImageError]]:
    """What an engine makes of each image as the classifier sees it, or why it cannot be read."""

    def each_square() -> Iterator[tuple[tuple[int, ImageError | None], Pixels | None]]:
        for row, outcome in classifier.dataset_squares(dataset, damaged=damaged):
            if isinstance(outcome, ImageError):
                yield (row, outcome), None
            else:
                yield (row, None), outcome

    for (row, error), found in run_each(engine, each_square()):
        if found is None:
            assert error is not None
            yield row, error
            continue
        if not np.isfinite(found).all():
            raise ArtefactError(
                f"the classifier in {quoted(classifier.folder)} gives numbers that are not finite: "
                "its weights are damaged; train again"
            )
        yield row, found


def read_by_head(
    classifier: Classifier, dataset: Dataset
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Calibrated logits, (N, classes), and features, (N, width), of a classifier whose rows hold
    both: one that refuses images, or that was told so (`Classifier.use`).

    Raises:
        ImageError: an image cannot be read.
        ArtefactError: a number is not finite.
    """
    rows = []
    for _, row in rows_of(classifier, classifier.engine, dataset):
        if isinstance(row, ImageError):
            raise row
        rows.append(row)
    found, classes = np.stack(rows), len(classifier.classes)
    return classifier.scaled(found[:, :classes]), found[:, classes:]


def check_probe(classifier: Classifier) -> None:
    """UsageError unless it has a linear head on features."""
    if classifier.card["form"] == "network":
        raise UsageError(
            f"{quoted(classifier.folder)} is of the recipe {classifier.card['recipe']}; expected a "
            "probe, whose head reads features: train with the recipe probe"
        )


@torch_threads()
def feature_engine(classifier: Classifier) -> Engine:
    """What runs the classifier up to its head."""
    if classifier.has_graph and choose_engine() == "openvino":
        from foveate.engine.openvino import OpenVinoEngine, without_head

        return OpenVinoEngine(without_head(classifier.folder / GRAPH), classifier.threads)
    from foveate.engine.torch import TorchEngine
    from foveate.probe import Features

    network = Features(classifier.network())
    preprocess, threads = classifier.preprocess, classifier.threads
    return TorchEngine(network, preprocess, threads, classifier.channels_last)
