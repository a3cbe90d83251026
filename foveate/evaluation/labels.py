"""Labels in a classifier's numbering: classes go by name."""

from typing import Any

import numpy as np

from foveate.data.dataset import Dataset, listed
from foveate.data.layouts import composed
from foveate.errors import DataError, quoted


def known_labels(
    dataset: Dataset, classes: tuple[str, ...], whose: str = "the classifier"
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The dataset's labels in the classifier's numbering, by name."""
    # macOS writes accents as two characters; a data set's classes have one form
    number = {composed(name): i for i, name in enumerate(classes)}
    names = [composed(name) for name in dataset.classes]
    present = [c for c in range(len(names)) if dataset.having(c).any()]
    strange = [names[c] for c in present if names[c] not in number]
    if strange:
        raise DataError(
            f"{quoted(dataset.name)} has classes that {whose} does not know: "
            f"{listed(strange)}; it knows {listed(classes, 20)}: rename or remove these "
            "classes; images without labels lie directly in the folder, or are listed in a CSV "
            "with the column path alone"
        )
    if dataset.task == "multilabel":
        labels = np.zeros((len(dataset), len(classes)), dtype=np.int64)
        labels[:, [number[names[c]] for c in present]] = dataset.labels[:, present]
        return labels
    return np.array([number[names[label]] for label in dataset.labels], dtype=np.int64)
