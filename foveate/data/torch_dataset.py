"""A Dataset as torch's own, for anyone's DataLoader."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset as TorchBase

from foveate.data.dataset import Dataset
from foveate.errors import UsageError


class TorchDataset(TorchBase[Any]):
    """Item i is `transform(image), label`; `foveate.Dataset.torch` makes it.

    Args:
        dataset: where the images are.
        transform: of a PIL image in RGB; None leaves it as it is.

    Raises:
        UsageError: the transform cannot be called, or is a class and not yet one of its objects.
    """

    def __init__(self, dataset: Dataset, transform: Callable[[Image.Image], Any] | None = None):
        # here, since in a worker of a DataLoader it would be a traceback from another process
        if transform is not None and (not callable(transform) or isinstance(transform, type)):
            raise UsageError(
                "transform is called with a PIL image, as an Augment, a Preprocess or one of "
                f"torchvision's is, not {transform!r}"
            )
        self.dataset, self.transform = dataset, transform
        self.classes = list(dataset.classes)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        image, label = self.dataset[i]
        shown = image if self.transform is None else self.transform(image)
        several = self.dataset.task == "multilabel"
        return shown, torch.from_numpy(label).float() if several else label
