"""A classifier as a program of torch.export: `model.pt2`, which torch runs without Foveate."""

from pathlib import Path
from typing import Any

from foveate.classifier import Classifier
from foveate.engine.conversion import traced
from foveate.errors import ArtefactError
from foveate.export.graph import metadata
from foveate.forking import torch_threads
from foveate.progress import unmonitored


@torch_threads()
def save_program(classifier: Classifier, path: Path) -> None:
    """Write the classifier as a .pt2, pixels in and calibrated probabilities out, any number of
    images; the metadata are its `extra_files`.

    Raises:
        ArtefactError: the network cannot be traced for any number of images; its tensors do not
            fit.
        UsageError: the network's code is needed, and was not handed in.
    """
    import torch

    module = answering(classifier)
    try:
        program = traced(module, classifier.preprocess, every_view=True, any_batch=True)
    # a forward of the user's can fail to be traced in any way
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtefactError(
            f"the network cannot be traced for any number of images: {reason[:200]}; export it "
            "with the format onnx or openvino"
        ) from error
    with unmonitored():
        torch.export.save(program, path, extra_files=metadata(classifier))


def answering(classifier: Classifier) -> Any:
    """The network with its calibration: normalised images -> probabilities."""
    import torch
    from torch import Tensor, nn

    temperature = 1.0
    if classifier.card.get("divide_logits", False):
        temperature = classifier.card["temperature"]
    several = classifier.task == "multilabel"

    class Answering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = classifier.network()

        def forward(self, *views: Tensor) -> Tensor:
            logits = self.network(*views) / temperature
            return torch.sigmoid(logits) if several else torch.softmax(logits, 1)

    return Answering().eval()
