"""What a probe's run does about images of none of its classes: it fits when to refuse, and measures
on honest folds, on classes that it leaves out, and on images of nothing, what that is worth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.arguments import as_number, shown
from foveate.audit.estimate import estimate_accuracy
from foveate.data.dataset import Dataset
from foveate.errors import DataError, UsageError
from foveate.heads import Head
from foveate.metrics import accepted
from foveate.rejection import (
    A_KIND,
    FEWEST,
    NONE_OF_THESE,
    UNKNOWN_AT_LEAST,
    Fitted,
    Kind,
    Rejection,
    fit_rejection,
    share_of_kinds,
)
from foveate.training.foreign import foreign_images
from foveate.training.honest import Judging

Result = dict[str, Any]
Features = NDArray[np.float32]
Rows = NDArray[np.int64]

RATE = 0.05  # of images like the training images that may be refused, by default


@dataclass(frozen=True)
class Refusal:
    """When to refuse, and what is known of it.

    Args:
        rejection: for the classifier.
        certificate: for metrics.json.
        refused: (judged,), whether each image that is judged was refused by the other folds'
            thresholds.
    """

    rejection: Rejection
    certificate: Result
    refused: NDArray[np.bool_]

    def judge(
        self,
        splits: dict[str, Result],
        evaluated: dict[str, tuple[Rows, NDArray[np.float64]]],
        dataset: Dataset,
        groups: Rows,
        features: Features,
        head: Head,
        seed: int,
    ) -> None:
        """Add to each split's figures what they are of the images that are accepted, and to the
        certificate what of the test images is refused.

        Args:
            splits: to be added to.
            evaluated: rows and probabilities of each split, "out_of_fold" and perhaps "test".
            groups, features: of the dataset's images.
            head: of the classifier.
        """
        for split, (rows, probabilities) in evaluated.items():
            refused = self.refused
            if split == "test":
                seen = features[rows]
                reasons = self.rejection.refused(seen, seen @ head.weight.T + head.bias)
                refused = np.array([reason is not None for reason in reasons])
                found = share_refused(refused, groups[rows], seed)
                self.certificate["false_refusals"]["test"] = found
            right = probabilities.argmax(axis=1) == dataset.labels[rows]
            splits[split]["accepted"] = accepted(refused, right)


def check_reject(reject: Any, recipe: str, task: str) -> float | None:
    """The rate, or None for "off"; UsageError for what is neither, or does not apply."""
    off = isinstance(reject, str) and reject == "off"
    rate = None if off else as_number(reject)
    if reject is not None and not off and (rate is None or not 0 < rate < 0.5):
        raise UsageError(
            "reject is the share of images like the training images that may be refused, above 0 "
            f"and below 0.5, or off, not {shown(reject)}"
        )
    applies = recipe == "probe" and task == "multiclass"
    if rate is not None and not applies:
        what = f"the recipe is {recipe}" if recipe != "probe" else "an image has several labels"
        raise UsageError(
            f"reject applies to probes of one class an image, and {what}: leave it out"
        )
    if off or not applies:
        return None
    return RATE if rate is None else float(rate)


def check_class_names(classes: tuple[str, ...]) -> None:
    """DataError if a class is called as what is no class."""
    named = [c for c in classes if c.strip().casefold() == NONE_OF_THESE]
    if named:
        raise DataError(
            f"a class is called {named[0]!r}, which is what a classifier answers when it refuses "
            "an image: rename it"
        )


def fit_refusal(
    dataset: Dataset,
    judging: Judging,
    head: Head,
    features: Features,
    rate: float,
    seed: int,
    threads: int,
    extract: Callable[[Dataset], Features] | None,
) -> Refusal | None:
    """Fit when to refuse, and measure it; None where too few images can be judged.

    Args:
        features: (N, width), of the dataset's images.
        extract: gives the features of images that are none of its own; without it nothing is said
            of these.
    """
    labels = dataset.labels[judging.rows]
    fitted = fit_rejection(
        features,
        judging.rows,
        labels,
        judging.folds,
        head.out_of_fold,
        head.penalty,
        rate,
        len(dataset.classes),
        seed,
        threads,
    )
    if fitted is None:
        return None
    groups = judging.groups[judging.folds >= 0]
    certificate = {
        "rate": rate,
        "false_refusals": {"out_of_fold": share_refused(fitted.refused, groups, seed)},
        "unknown_kinds": of_kinds(fitted.kinds, dataset.classes, seed),
        "foreign": (
            {} if extract is None else of_foreign(fitted, dataset, judging.rows, head, extract)
        ),
    }
    return Refusal(fitted.rejection, certificate, fitted.refused)


def share_refused(refused: NDArray[np.bool_], groups: Rows, seed: int) -> Result:
    """The share that was refused, with an interval that counts groups."""
    found = estimate_accuracy(~refused[None], np.zeros((1, len(refused))), groups, seed)
    interval = None if found.interval is None else [1 - end for end in reversed(found.interval)]
    share = float(refused.mean())
    return {"share": share, "share_ci95": interval, "n": len(refused), "groups": found.groups}


def of_kinds(kinds: tuple[Kind, ...], classes: tuple[str, ...], seed: int) -> Result:
    """What of classes that were left out was refused, the least first."""
    if not kinds:
        why = (
            f"no class could be left out: it takes {UNKNOWN_AT_LEAST} classes, and one with "
            f"{A_KIND} images or more"
        )
        return {"share": None, "share_ci95": None, "a_kind_ci95": None, "why": why}
    shares = np.array([kind.refused.mean() for kind in kinds])
    order = np.argsort(shares, kind="stable")
    return {
        **share_of_kinds(shares, seed),
        "auroc": float(np.mean([kind.auroc for kind in kinds])),
        "left_out": len(kinds),
        "classes": {classes[kinds[i].label]: float(shares[i]) for i in order},
    }


def of_foreign(
    fitted: Fitted,
    dataset: Dataset,
    rows: Rows,
    head: Head,
    extract: Callable[[Dataset], Features],
) -> dict[str, float]:
    """What of images of nothing was refused, by kind."""
    foreign = foreign_images(dataset, rows)
    seen = extract(foreign)
    refused = fitted.rejection.refused(seen, seen @ head.weight.T + head.bias)
    found = np.array([reason is not None for reason in refused])
    return {
        name: float(found[foreign.labels == c].mean()) for c, name in enumerate(foreign.classes)
    }


def note_of(refusal: Refusal | None, rate: float | None) -> list[str]:
    """A sentence if it was asked for and cannot be had."""
    if rate is None or refusal is not None:
        return []
    return [
        f"every image is given a class: when to answer {NONE_OF_THESE} is learnt from {FEWEST} "
        "images that can be judged, or more"
    ]
