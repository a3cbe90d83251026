"""Foveate: a folder of images becomes a classifier you can trust.

    import foveate
    clf = foveate.train("photos/")
    clf.predict("x.jpg")

The names below, and the submodules, are loaded when they are first used, so that importing the
package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveate import forking as forking
from foveate.errors import (
    ArtefactError,
    DataError,
    FoveateError,
    ImageError,
    MissingExtraError,
    UsageError,
)

if TYPE_CHECKING:
    from foveate import (
        arguments as arguments,
    )
    from foveate import (
        audit as audit,
    )
    from foveate import (
        catalogue as catalogue,
    )
    from foveate import (
        checkpoint as checkpoint,
    )
    from foveate import (
        classifier as classifier,
    )
    from foveate import (
        comparison as comparison,
    )
    from foveate import (
        data as data,
    )
    from foveate import (
        distance as distance,
    )
    from foveate import (
        download as download,
    )
    from foveate import (
        engine as engine,
    )
    from foveate import (
        errors as errors,
    )
    from foveate import (
        evaluation as evaluation,
    )
    from foveate import (
        explanation as explanation,
    )
    from foveate import (
        export as export,
    )
    from foveate import (
        features as features,
    )
    from foveate import (
        heads as heads,
    )
    from foveate import (
        lab as lab,
    )
    from foveate import (
        lettering as lettering,
    )
    from foveate import (
        machine as machine,
    )
    from foveate import (
        metrics as metrics,
    )
    from foveate import (
        models as models,
    )
    from foveate import (
        novelty as novelty,
    )
    from foveate import (
        probe as probe,
    )
    from foveate import (
        progress as progress,
    )
    from foveate import (
        recomputation as recomputation,
    )
    from foveate import (
        rejection as rejection,
    )
    from foveate import (
        report as report,
    )
    from foveate import (
        runs as runs,
    )
    from foveate import (
        server as server,
    )
    from foveate import (
        storage as storage,
    )
    from foveate import (
        training as training,
    )
    from foveate import (
        verification as verification,
    )
    from foveate import (
        weights as weights,
    )
    from foveate.classifier import Classifier, Prediction
    from foveate.comparison import compare, compare_runs
    from foveate.data.augment import Augment
    from foveate.data.dataset import Dataset
    from foveate.data.image import load_image
    from foveate.data.layouts import load_dataset
    from foveate.data.preprocess import Preprocess, View
    from foveate.evaluation import evaluate
    from foveate.export import Exported, export_classifier
    from foveate.features import extract_features
    from foveate.training import find_lr, train
    from foveate.training.config import TrainConfig
    from foveate.training.freezing import freeze
    from foveate.weights import build, list_models, replace_head, set_in_channels

__version__ = "0.2.0"

__all__ = [
    "ArtefactError",
    "Augment",
    "Classifier",
    "DataError",
    "Dataset",
    "Exported",
    "FoveateError",
    "ImageError",
    "MissingExtraError",
    "Prediction",
    "Preprocess",
    "TrainConfig",
    "UsageError",
    "View",
    "build",
    "compare",
    "compare_runs",
    "evaluate",
    "export_classifier",
    "extract_features",
    "find_lr",
    "freeze",
    "list_models",
    "load_dataset",
    "load_image",
    "replace_head",
    "set_in_channels",
    "train",
]

HOMES = {
    "Augment": "foveate.data.augment",
    "Classifier": "foveate.classifier",
    "Dataset": "foveate.data.dataset",
    "Exported": "foveate.export",
    "Prediction": "foveate.classifier",
    "Preprocess": "foveate.data.preprocess",
    "TrainConfig": "foveate.training.config",
    "View": "foveate.data.preprocess",
    "build": "foveate.weights",
    "compare": "foveate.comparison",
    "compare_runs": "foveate.comparison",
    "evaluate": "foveate.evaluation",
    "export_classifier": "foveate.export",
    "extract_features": "foveate.features",
    "find_lr": "foveate.training",
    "freeze": "foveate.training.freezing",
    "list_models": "foveate.weights",
    "load_dataset": "foveate.data.layouts",
    "load_image": "foveate.data.image",
    "replace_head": "foveate.weights",
    "set_in_channels": "foveate.weights",
    "train": "foveate.training",
}
SUBMODULES = (
    "advice arguments audit catalogue checkpoint classifier cli comparison data distance download "
    "engine errors evaluation explanation export features forking heads lab lettering machine "
    "metrics models novelty probe progress recomputation rejection report runs server storage "
    "training verification weights"
).split()


def __getattr__(name: str) -> Any:
    if name in SUBMODULES:
        return import_module(f"foveate.{name}")
    if name not in HOMES:
        raise AttributeError(f"module 'foveate' has no attribute '{name}'")
    value = getattr(import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *SUBMODULES})
