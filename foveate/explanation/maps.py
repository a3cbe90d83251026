"""Where the maps of a probe's backbone come from: its saved graph, which needs no torch, or its
network in torch."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.classifier import Classifier
from foveate.classifier.card import GRAPH
from foveate.engine import choose_engine
from foveate.errors import ArtefactError
from foveate.forking import torch_threads

ViewMaps = list[list[NDArray[np.float32]]]  # of the view and, if it is seen, of its mirror image


class MapSource(Protocol):
    """Gives the maps that a probe pools."""

    def of(self, pixels: Sequence[NDArray[np.uint8]]) -> list[ViewMaps]:
        """(H, W, C), uint8, of each view -> of each view the maps, each (C_i, H_i, W_i)."""


def map_source(classifier: Classifier) -> MapSource:
    """The fastest that this machine has for a probe.

    Raises:
        UsageError: the network's code is needed and was not saved.
        ArtefactError: the tensors do not fit the network.
    """
    card = classifier.card
    if classifier.has_graph and choose_engine() == "openvino":
        from foveate.engine.openvino import OpenVinoMaps

        views = [branch["views"] for branch in card.get("branches", ())]
        views = views or [len(classifier.preprocess.views)]
        try:
            return OpenVinoMaps(
                classifier.folder / GRAPH, views, card["mirror"], classifier.threads
            )
        except ArtefactError:  # a fine-tuned probe's graph may end otherwise
            pass
    return TorchMaps(classifier)


class TorchMaps:
    """The maps of the network in torch.

    Args:
        classifier: a probe.
        network: in place of its own.
    """

    @torch_threads()
    def __init__(self, classifier: Classifier, network: Any = None):
        from foveate.probe import JoinedProbe

        network = classifier.network() if network is None else network
        self.preprocess, self.mirror = classifier.preprocess, classifier.card["mirror"]
        self.readers: list[Any] = (
            network.readers
            if isinstance(network, JoinedProbe)
            else [network.backbone] * len(self.preprocess.views)
        )

    @torch_threads()
    def of(self, pixels: Sequence[NDArray[np.uint8]]) -> list[ViewMaps]:
        import torch

        found = []
        for reader, view in zip(self.readers, pixels, strict=True):
            x = torch.from_numpy(self.preprocess.normalise(view[None]))
            with torch.inference_mode():
                seen = [x, x.flip(3)] if self.mirror else [x]
                found.append([[m[0].numpy() for m in reader.stages(one)] for one in seen])
        return found
