"""What a run may say of its own accuracy: on which images it is judged, what is taken off for what
was chosen and remembered, and when a figure is not to be believed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.estimate import by_groups, estimate_accuracy
from foveate.audit.groups import GIVEN, Grouping, by_content, connected, one_a_photo, sets, table
from foveate.audit.neighbours import Rows
from foveate.classifier.decision import Decision, decide
from foveate.data.dataset import Dataset, listed
from foveate.data.splits import FOLDS, check_spread, judging_folds, stratified_folds
from foveate.heads import Head, fit_head
from foveate.metrics import believed

HALF = 0.5  # of the photos: if fewer can be judged, a figure is not that of the classes
MATTERS = 0.02  # share of the images in groups, from which the price of memory is measured
FAR = 3.0  # standard errors between two figures that cannot both be of the same kind of image
MEASURES = (
    *("accuracy", "accuracy_ci95", "balanced_accuracy", "mean_average_precision"),
    *("macro_f1", "micro_f1", "log_loss", "ece"),
)
Result = dict[str, Any]


@dataclass(frozen=True)
class Judging:
    """How the images that are learnt from are judged.

    Args:
        rows: (L,), one image a photo, in the order of their bytes' hashes.
        groups: (L,), the group of each.
        folds: (L,), and -1 of those that are never judged.
        solved: (L,), the folds of the head that chooses: the same, or plain ones where nothing can
            be judged.
    """

    rows: Rows
    groups: Rows
    folds: Rows
    solved: Rows

    def folds_of(self, photos: Rows, rows: Rows) -> Rows:
        """The fold of each of the rows, copies included, which are in that of their photo."""
        fold = dict(zip(photos[self.rows].tolist(), self.folds.tolist(), strict=True))
        return np.array([fold[photo] for photo in photos[rows].tolist()])

    @property
    def judged(self) -> Rows:
        """The rows that are judged."""
        return self.rows[self.folds >= 0]


def check_given(dataset: Dataset, grouping: Grouping, learn: NDArray[np.bool_]) -> None:
    """DataError if the groups that a table gives leave a class in one of them."""
    if GIVEN in grouping.looked_for and any(dataset.groups):
        given = connected(len(dataset), table(dataset))
        check_spread(dataset.labels[learn], given[learn], dataset.classes)


def plan_judging(
    dataset: Dataset, grouping: Grouping, learn: NDArray[np.bool_], seed: int
) -> Judging:
    """Folds that keep groups whole.

    Raises:
        DataError: the groups that a table gives leave a class in one of them.
    """
    check_given(dataset, grouping, learn)
    rows = one_a_photo(grouping.photos, by_content(dataset, learn))
    labels, groups = dataset.labels[rows], numbered(grouping.groups[rows])
    folds = judging_folds(labels, groups, seed)
    alone = np.arange(len(rows))
    plain = folds if (folds >= 0).any() else stratified_folds(labels, alone, FOLDS, seed)
    return Judging(rows, groups, folds, plain)


def numbered(groups: Rows) -> Rows:
    """(n,), the groups by numbers from 0 in the order in which they appear, so that names of files
    play no part where numbers are drawn.

    >>> numbered(np.array([7, 3, 7, 5])).tolist()
    [0, 1, 0, 2]
    """
    _, first, which = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which]


@dataclass(frozen=True)
class Solved:
    """A head, and what is known of it.

    Args:
        head: solved on the photos that are learnt from.
        decision: how it decides.
        probabilities: (judged, classes), of each image that is judged, out of fold.
        figures: what metrics.json has of them.
    """

    head: Head
    decision: Decision
    probabilities: NDArray[np.float64]
    figures: Result


def solve(
    dataset: Dataset,
    features: NDArray[np.float32],
    grouping: Grouping,
    judging: Judging,
    seed: int,
    threads: int,
    advance: Callable[[], None] = lambda: None,
    head: Head | None = None,
    rivals: Sequence[Head] = (),
) -> Solved:
    """Solve a probe's head, and judge it.

    Args:
        features: (N, width), of the dataset's images.
        advance: called after each penalty.
        head: already solved on these features and folds.
        rivals: heads on the same folds, of other features, among which it was chosen.
    """
    rows = judging.rows
    labels, classes = dataset.labels[rows], len(dataset.classes)
    if head is None:
        head = fit_head(features[rows], labels, judging.solved, classes, threads, advance)
    chosen = int(np.argmin(head.losses.mean(axis=1)))
    everything = [head, *rivals]
    head = replace(
        head,
        losses=np.concatenate([one.losses for one in everything]),
        right=np.concatenate([one.right for one in everything]),
    )
    decision = decide(head.out_of_fold, labels[judging.solved >= 0])
    probabilities, figures = out_of_fold(
        head, decision, dataset, grouping, judging, features, seed, threads, chosen
    )
    return Solved(head, decision, probabilities, figures)


def out_of_fold(
    head: Head,
    decision: Decision,
    dataset: Dataset,
    grouping: Grouping,
    judging: Judging,
    features: NDArray[np.float32],
    seed: int,
    threads: int,
    chosen: int,
) -> tuple[NDArray[np.float64], Result]:
    """The probabilities of the images that are judged, and what metrics.json has of them; `chosen`
    is the head's own number among the candidates."""
    judged = judging.folds >= 0
    labels = dataset.labels[judging.rows]
    probabilities = decision.probabilities(head.out_of_fold)[: int(judged.sum())]
    result = decision.summarise(probabilities, labels[judged], dataset.classes)
    result |= {
        "groups": len(np.unique(judging.groups[judged])),
        "unjudged": unjudged(dataset, judging),
    }
    if not judged.any():
        why = "all images of each class are of one group: there is nothing new to judge by"
        nothing = {key: None for key in MEASURES if key in result}
        return probabilities, result | nothing | {"trusted": False, "why": why}
    right, losses = head.right, head.losses
    if labels.ndim == 2:  # right by the thresholds, for which no label was looked at
        right = are_right(decision, probabilities, labels[judged])[None]
        losses, chosen = losses.min(axis=0, keepdims=True), 0
    found = estimate_accuracy(right, losses, judging.groups[judged], seed, chosen)
    result |= {
        "accuracy": found.accuracy,
        "accuracy_ci95": None if found.interval is None else list(found.interval),
        "selection": {"candidates": len(head.losses), "correction": found.correction},
    }
    judged_part = judged.mean()
    if judged_part < HALF:
        why = f"only {judged.sum()} of {len(judged)} photos are of classes that can be judged"
        result |= {"trusted": False, "why": why}
    memory = among_copies(head, dataset, grouping, judging, features, seed, threads)
    if memory is not None:
        price = max(0.0, memory - found.accuracy)
        result["among_copies"] = {"accuracy": memory, "memory": price}
    return probabilities, result


def unjudged(dataset: Dataset, judging: Judging) -> Result:
    """How many photos are never judged, and of which classes none is."""
    never = judging.rows[judging.folds < 0]
    seen = dataset.sizes(judging.judged)
    there = dataset.sizes(judging.rows)
    classes = [dataset.classes[c] for c in np.flatnonzero((seen == 0) & (there > 0))]
    return {"n": len(never), "classes": classes}


def among_copies(
    head: Head,
    dataset: Dataset,
    grouping: Grouping,
    judging: Judging,
    features: NDArray[np.float32],
    seed: int,
    threads: int,
) -> float | None:
    """The accuracy of folds that know of no groups: what it would be on copies of these images, and
    on more of these occasions. None where groups are few.

    The same classes are judged, and each head has as many images of each to learn from.
    """
    judged = np.isin(grouping.photos, grouping.photos[judging.judged])
    rows = by_content(dataset, learnt_from(dataset))
    sizes = np.bincount(grouping.groups[rows], minlength=len(dataset))[grouping.groups[rows]]
    if (sizes > 1).mean() < MATTERS or dataset.task == "multilabel":
        return None
    labels, folds = dataset.labels[rows], np.full(len(rows), -1)
    there = judged[rows]
    alone = np.arange(int(there.sum()))
    folds[there] = stratified_folds(labels[there], alone, int(judging.folds.max()) + 1, seed)
    classes, penalties = len(dataset.classes), (head.penalty,)
    plain = fit_head(features[rows], labels, folds, classes, threads, penalties=penalties)
    return float(plain.right[0].mean())


def learnt_from(dataset: Dataset) -> NDArray[np.bool_]:
    """(N,), whether an image is of a split that is learnt from, or chosen by."""
    return np.array([split != "test" for split in dataset.splits], bool)


def are_right(
    decision: Decision, probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(N,), whether the class, or all of the labels, that an image is given are its own."""
    given = decision.answers(probabilities)
    if labels.ndim == 2:
        return (given == labels).all(axis=1)
    return given.argmax(axis=1) == labels


def held_out(
    dataset: Dataset,
    grouping: Grouping,
    rows: Rows,
    probabilities: NDArray[np.float64],
    decision: Decision,
) -> Result:
    """The figures of a split that was held out; their interval counts groups. Where images of it
    are copies of others that were learnt from, other shots, or of one group of the table, also
    which these are, and the figures without them.

    Args:
        rows, probabilities: of the split.
    """

    def figures(kept: NDArray[np.bool_]) -> Result:
        labels, p = dataset.labels[rows[kept]], probabilities[kept]
        result = decision.summarise(p, labels, dataset.classes)
        return by_groups(result, are_right(decision, p, labels), grouping.groups[rows[kept]])

    leaked = {row for row, _, _ in grouping.leaks(dataset)}
    copied = np.array([int(row) in leaked for row in rows], dtype=bool)
    result = figures(np.ones(len(rows), bool))
    if not copied.any():
        return result
    n, of = int(copied.sum()), len(rows)
    files = [dataset.files[row] for row in rows[copied]]
    return result | {
        "copies": {"n": n, "files": files},
        "without_copies": None if copied.all() else figures(~copied),
        "trusted": False,
        "why": f"{n} of {of} images are copies or other shots of images that were learnt from",
    }


def group_notes(dataset: Dataset, grouping: Grouping, judging: Judging | None) -> list[str]:
    """Sentences on the groups, the largest of them, and the classes that cannot be judged.

    Args:
        dataset: as it was before the groups were applied.
    """
    learn = learnt_from(dataset)
    images = int(learn.sum())
    photos, groups = (len(np.unique(g[learn])) for g in (grouping.photos, grouping.groups))
    notes = []
    if groups < images:
        copies = f"{images} images are {photos} photos" if photos < images else f"{images} images"
        more = (
            f", in {groups} groups, which are kept on one side of each fold, and of splits that "
            "are held out"
            if groups < photos
            else ""
        )
        rows = np.flatnonzero(learn)
        first, *others = sets(grouping.groups[rows])[0]
        name = dataset.files[rows[first]]
        notes.append(f"{copies}{more}; the largest group is '{name}' and {len(others)} more")
    if judging is not None and (classes := unjudged(dataset, judging)["classes"]):
        notes.append(
            f"never judged, since all of their images are of one group: {listed(classes)}; add "
            "photos from another occasion"
        )
    return notes


def contradictions(splits: dict[str, Result]) -> list[str]:
    """Sentences where the figures of metrics.json contradict one another, or say that nothing was
    learnt."""
    notes = []
    known = {split: m for split, figures in splits.items() if (m := believed(figures))}
    test = known.get("test")
    for split, name in (("out_of_fold", "out of fold"), ("validation", "validation")):
        other = known.get(split)
        if test is None or other is None or not far_apart(test, other):
            continue
        a, b = test["accuracy"], other["accuracy"]
        which = (
            "believe the test for images like those of the test split; it holds other kinds of "
            "images than those that were learnt from"
            if a < b
            else f"the test is easier than what was learnt from: believe {name} for images like "
            "the training images"
        )
        notes.append(
            f"test accuracy is {a:.1%} and {name} {b:.1%}, too far apart for chance: {which}"
        )
    best = next((known[s] for s in ("test", "out_of_fold", "validation") if s in known), None)
    if best is not None and "confusion" in best:
        support = {name: m["support"] for name, m in best["per_class"].items()}
        label = max(support, key=lambda name: support[name])
        share = support[label] / max(1, best["n"])
        if best["accuracy"] <= share < 1:
            notes.append(
                f"no better than always answering '{label}', which is right for {share:.1%}: the "
                "images, at this size and crop, do not show what tells the classes apart, or the "
                "labels are wrong"
            )
    return notes


def far_apart(a: Result, b: Result) -> bool:
    """Whether two accuracies differ by more than chance, by the intervals that they have."""
    if a["accuracy_ci95"] is None or b["accuracy_ci95"] is None:
        return False
    spread = [(m["accuracy_ci95"][1] - m["accuracy_ci95"][0]) / (2 * 1.96) for m in (a, b)]
    return abs(a["accuracy"] - b["accuracy"]) > FAR * float(np.hypot(*spread))


def without_leaks(rows: list[dict[str, Any]], splits: dict[str, Result]) -> list[dict[str, Any]]:
    """The predictions without those of images that were learnt from, which compare nothing."""
    leaked = {
        (split, file)
        for split, m in splits.items()
        for file in m.get("copies", {}).get("files", ())
    }
    return [row for row in rows if (row["split"], row["file"]) not in leaked]
