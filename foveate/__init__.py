"""Foveate: a folder of images becomes a classifier you can trust.

    import foveate
    clf = foveate.train("photos/")
    clf.predict("x.jpg")

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveate.errors import (
    ArtefactError,
    DataError,
    FoveateError,
    ImageError,
    MissingExtraError,
    UsageError,
)

if TYPE_CHECKING:
    from foveate.classifier import Classifier, Prediction
    from foveate.data.dataset import Dataset
    from foveate.data.image import load_image
    from foveate.data.layouts import load_dataset
    from foveate.data.preprocess import Preprocess
    from foveate.evaluation import evaluate
    from foveate.training import train
    from foveate.weights import build

__version__ = "0.1.0"

__all__ = [
    "ArtefactError",
    "Classifier",
    "DataError",
    "Dataset",
    "FoveateError",
    "ImageError",
    "MissingExtraError",
    "Prediction",
    "Preprocess",
    "UsageError",
    "build",
    "evaluate",
    "load_dataset",
    "load_image",
    "train",
]

HOMES = {
    "Classifier": "foveate.classifier",
    "Dataset": "foveate.data.dataset",
    "Prediction": "foveate.classifier",
    "Preprocess": "foveate.data.preprocess",
    "build": "foveate.weights",
    "evaluate": "foveate.evaluation",
    "load_dataset": "foveate.data.layouts",
    "load_image": "foveate.data.image",
    "train": "foveate.training",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'foveate' has no attribute '{name}'")
    value = getattr(import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
