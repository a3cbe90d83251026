"""What a run does about images of none of its classes: it fits when to refuse, and measures what
that is worth.

A probe does so on honest folds, on classes that it leaves out, and on images of nothing. A network
that is trained by steps, on the images that were held out for its validation, and on images of
nothing; of unknown kinds it says nothing, since it would have to be trained again without each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.arguments import as_number, shown
from foveate.audit.estimate import estimate_accuracy
from foveate.classifier import Classifier
from foveate.classifier.embedding import read_by_head
from foveate.data.dataset import Dataset
from foveate.data.splits import FOLDS, stratified_folds
from foveate.errors import DataError, UsageError
from foveate.heads import Head
from foveate.metrics import accepted
from foveate.rejection import (
    A_KIND,
    FEWEST,
    MOST,
    NONE_OF_THESE,
    UNKNOWN_AT_LEAST,
    Fitted,
    Kind,
    Rejection,
    fit_rejection,
    fit_to_held_out,
    share_of_kinds,
)
from foveate.training.foreign import foreign_images
from foveate.training.honest import Judging

Result = dict[str, Any]
Features = NDArray[np.float32]
Rows = NDArray[np.int64]

RATE = 0.05  # of images like the training images that may be refused, by default
A_CLASS = 20  # training images of each class on average, or more, that a trained network shows
TOO_FEW = f"{FEWEST} images that can be judged, or more"
LEARNT = "the network learnt its features from every class"
KEPT = "it is the probe that fine-tuning began with; a run of the recipe probe measures it"
NO_FEATURES = "what a linear last layer reads, and this network has none"


@dataclass(frozen=True)
class Refusal:
    """When to refuse, and what is known of it.

    Args:
        rejection: for the classifier.
        certificate: for metrics.json.
        refused: (judged,), whether each image that is judged, or was held out for validation, was
            refused by the other folds' thresholds.
    """

    rejection: Rejection
    certificate: Result
    refused: NDArray[np.bool_]

    def judge(
        self,
        split: str,
        figures: Result,
        right: NDArray[np.bool_],
        reasons: list[str | None] | None,
        groups: Rows,
        seed: int,
    ) -> None:
        """Add to a split's figures what they are of the images that are accepted, and to the
        certificate what of it is refused.

        Args:
            split: its name.
            figures: to be added to.
            right: (N,), whether each of its images is given the right class.
            reasons: of length N, why each is refused, or None. Without it the thresholds were
                fitted on these images: those of the other folds count.
            groups: (N,), of the images.
        """
        refused = self.refused
        if reasons is not None:
            refused = np.array([reason is not None for reason in reasons])
            self.certificate["false_refusals"][split] = share_refused(refused, groups, seed)
        figures["accepted"] = accepted(refused, right)


def check_reject(reject: Any, task: str) -> float | None:
    """The rate, or None for "off"; UsageError for what is neither, or does not apply."""
    off = isinstance(reject, str) and reject == "off"
    rate = None if off else as_number(reject)
    if reject is not None and not off and (rate is None or not 0 < rate < 0.5):
        raise UsageError(
            "reject is the share of images like the training images that may be refused, above 0 "
            f"and below 0.5, or off, not {shown(reject)}"
        )
    if rate is not None and task != "multiclass":
        raise UsageError(
            "reject applies where an image has one class, and here it has several labels: leave it "
            "out"
        )
    if off or task != "multiclass":
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


def fit_refusal_of_trained(
    classifier: Classifier,
    dataset: Dataset,
    train: Rows,
    validation: Rows,
    groups: Rows,
    rate: float,
    seed: int,
    why: str = LEARNT,
) -> Refusal | None:
    """The same for a network that was trained by steps; None where too few images were held out.

    Args:
        classifier: which gives what its head reads after the logits (`Classifier.use`).
        train: rows of it, of which some are looked at.
        validation: those that were held out.
        groups: of the dataset's images.
        why: nothing is known of unknown kinds.
    """
    most = max(MOST, A_CLASS * len(dataset.classes))
    train = train[np.sort(np.random.default_rng(0).permutation(len(train))[:most])]
    _, features = read_by_head(classifier, dataset.select(train))
    logits, others = read_by_head(classifier, dataset.select(validation))
    labels, of_whom = dataset.labels[validation], groups[validation]
    fitted = fit_to_held_out(
        (features, dataset.labels[train]),
        (others, logits, stratified_folds(labels, of_whom, FOLDS, seed)),
        rate,
        len(dataset.classes),
        classifier.threads,
    )
    if fitted is None:
        return None
    foreign = foreign_images(dataset, train)
    logits, seen = read_by_head(classifier, foreign)
    certificate = {
        "rate": rate,
        "false_refusals": {"validation": share_refused(fitted.refused, of_whom, seed)},
        "unknown_kinds": unmeasured(why),
        "foreign": shares_of(foreign, fitted.rejection.refused(seen, logits)),
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
        return unmeasured(why)
    shares = np.array([kind.refused.mean() for kind in kinds])
    order = np.argsort(shares, kind="stable")
    return {
        **share_of_kinds(shares, seed),
        "auroc": float(np.mean([kind.auroc for kind in kinds])),
        "left_out": len(kinds),
        "classes": {classes[kinds[i].label]: float(shares[i]) for i in order},
    }


def unmeasured(why: str) -> Result:
    """What is said of unknown kinds where nothing is known."""
    return {"share": None, "share_ci95": None, "a_kind_ci95": None, "why": why}


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
    return shares_of(foreign, fitted.rejection.refused(seen, seen @ head.weight.T + head.bias))


def shares_of(foreign: Dataset, reasons: list[str | None]) -> dict[str, float]:
    """The share of each kind of images of nothing that was refused, by why each was, or None."""
    found = np.array([reason is not None for reason in reasons])
    return {
        name: float(found[foreign.labels == c].mean()) for c, name in enumerate(foreign.classes)
    }


def note_of(refusal: Refusal | None, rate: float | None, why: str = TOO_FEW) -> list[str]:
    """A sentence if it was asked for and cannot be had."""
    if rate is None or refusal is not None:
        return []
    return [f"every image is given a class: when to answer {NONE_OF_THESE} is learnt from {why}"]
