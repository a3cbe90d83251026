"""Labels that look wrong, and what correcting them would gain.

An image is judged by a head that saw neither it nor any image of its group. Where that head finds
another label many times as probable as the given one, the given one is a suspect. By that ratio
wrong labels stand before right ones; the difference of the two probabilities, which is more often
used, says little where the given label's is almost nothing (benchmarks/labels.py).

What a correction gains cannot be seen at the corrected images: they agree with the head by
construction. It is measured at those that are no suspects, and share no group with one.

Source: Northcutt, Jiang, Chuang. "Confident learning: estimating uncertainty in dataset labels".
JAIR 70, 2021, for ranking by probabilities out of fold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.groups import Grouping, Pair
from foveate.audit.neighbours import Rows
from foveate.data.dataset import BETWEEN, Dataset
from foveate.heads import Head, fit_head, principal_axes, standard_scale

# times as probable as the given label. Where labels are wrong no head can be surer than they are:
# of two classes with a tenth of the labels changed, nothing is more than 9 times as probable. So
# less is asked for there, but not so little that each hard image is suspected. Chosen on clothing,
# produce's training images and digits, on two, three and all of their classes, with up to 30 % of
# the labels changed, and on features cut until 11 to 90 % were right
RATIO, LEAST = 20.0, 5.0
SURE = 0.8  # quantile of the images whose label is the most probable one
SHOWN = 3  # suspects in a note
AGREE = 3  # nearest images with the suggested label that are named
STEPS = (10, 20, 50)  # lines of suspects whose gain is measured, and all of them
BLOCK = 4096  # rows that are standardised at once
SAMPLE = 1024  # images from which mean and deviation are taken
# images; the gain of more is measured on AXES numbers of each, in a tenth of the time
MANY, AXES = 10_000, 256
FEW = 8  # groups; with fewer, an interval says nothing

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Suspect:
    """A label that looks wrong, of one image or of several of one group.

    Args:
        rows: of the images, those with the same content included; the most suspicious first.
        label: that they have.
        suggested: the label or labels that seem right, as `Dataset.label` writes them.
        probability: of what is suggested, out of fold; of several images their geometric mean.
        ratio: how many times as probable it is as the given label, likewise.
        agree: rows of the nearest images of other groups that have the suggested label.
    """

    rows: tuple[int, ...]
    label: str
    suggested: str
    probability: float
    ratio: float
    agree: tuple[int, ...]

    def to_dict(self, dataset: Dataset) -> dict[str, Any]:
        """For JSON."""
        return {
            "files": [dataset.files[row] for row in self.rows],
            "label": self.label,
            "suggested": self.suggested,
            "probability": round(self.probability, 4),
            "ratio": round(self.ratio, 1),
            "agree": [dataset.files[row] for row in self.agree],
        }


@dataclass(frozen=True)
class Gain:
    """What correcting the first suspects would bring.

    Args:
        first: how many lines are corrected.
        images: in them.
        accuracy: by how much it rises on images that are no suspects; a fraction.
        interval: 95 %, over groups; None where these are too few.
        log_loss: by how much that changes, in nats.
        judged: images by which it is measured.
    """

    first: int
    images: int
    accuracy: float
    interval: tuple[float, float] | None
    log_loss: float
    judged: int

    @property
    def measurable(self) -> bool:
        """Whether it is more than chance."""
        return self.interval is not None and self.interval[0] > 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "first": self.first,
            "images": self.images,
            "accuracy": round(self.accuracy, 5),
            "interval": None if self.interval is None else [round(x, 5) for x in self.interval],
            "log_loss": round(self.log_loss, 5),
            "judged": self.judged,
            "measurable": self.measurable,
        }


@dataclass(frozen=True)
class Answers:
    """What heads said of images that they had not seen.

    Args:
        rows: (J,), of the dataset.
        probabilities: (J, classes).
        groups: (J,), the group of each.
    """

    rows: Rows
    probabilities: Floats
    groups: Rows


@dataclass(frozen=True)
class Doubts:
    """What is wrong, or may be, with the labels of a data set.

    Args:
        suspects: the labels that look wrong, the worst first.
        contradictions: pairs of copies whose labels differ.
        why: why no label can be suspected; "" where they can.
    """

    suspects: tuple[Suspect, ...]
    contradictions: tuple[Pair, ...]
    why: str

    def to_dict(self, dataset: Dataset) -> dict[str, Any]:
        """For JSON."""
        return {
            "suspects": [suspect.to_dict(dataset) for suspect in self.suspects],
            "contradictions": [pair.to_dict(dataset) for pair in self.contradictions],
            "why_no_suspects": self.why or None,
        }

    def notes(self, dataset: Dataset) -> list[str]:
        """Sentences for people, with the first few files."""
        notes = []
        if self.contradictions:
            pairs = len(self.contradictions)
            a, b = self.contradictions[0].to_dict(dataset)["files"]
            have = "1 pair of copies has" if pairs == 1 else f"{pairs} pairs of copies have"
            notes.append(f"{have} two labels: '{a}' and '{b}'")
        if self.suspects:
            n = len(self.suspects)
            shown = [suspect_line(dataset, suspect) for suspect in self.suspects[:SHOWN]]
            look = "1 label may be wrong" if n == 1 else f"{n} labels may be wrong"
            more = f", and {n - SHOWN} more" if n > SHOWN else ""
            notes.append(f"{look}: {'; '.join(shown)}{more}")
        return notes


def suspect_line(dataset: Dataset, suspect: Suspect) -> str:
    """A suspect in one line, for people."""
    first, *others = suspect.rows
    several = f" and {len(others)} more of its group" if others else ""
    times = f"{min(suspect.ratio, 9999):.0f} times as probable"
    given, right = suspect.label or "no label", suspect.suggested or "no label"
    return f"{dataset.files[first]}{several} ({given}; {right} is {times})"


def doubt_labels(
    dataset: Dataset,
    grouping: Grouping,
    features: NDArray[np.float32],
    answers: Answers,
    figures: dict[str, Any],
    confirmed: frozenset[str] = frozenset(),
) -> Doubts:
    """What may be wrong with the labels, of a head's answers and figures out of fold; the arguments
    are those of `find_suspects`."""
    why = why_none(figures, dataset.labels[answers.rows])
    suspects = [] if why else find_suspects(dataset, grouping, features, answers, confirmed)
    return Doubts(tuple(suspects), tuple(grouping.contradictions(dataset)), why)


def find_suspects(
    dataset: Dataset,
    grouping: Grouping,
    features: NDArray[np.float32],
    answers: Answers,
    confirmed: frozenset[str] = frozenset(),
) -> list[Suspect]:
    """The labels that look wrong, the worst first; one line for the images of one group that share
    the given label and the suggested one.

    Args:
        dataset: all images of it can be read.
        grouping: its groups.
        features: (N, width), by which the nearest images that agree are found.
        answers: of the images that are judged.
        confirmed: files whose label a person has found right.
    """
    if not len(answers.rows):
        return []
    labels = dataset.labels[answers.rows]
    suggested, probability, ratio = suggestions(answers.probabilities, labels)
    suspicious = least_ratio(ratio) if labels.ndim == 1 else RATIO
    lines: dict[tuple[int, bytes, bytes], list[int]] = {}
    for i in np.argsort(-ratio, kind="stable").tolist():
        if ratio[i] < suspicious:
            break
        if dataset.files[answers.rows[i]] not in confirmed:
            key = int(answers.groups[i]), labels[i].tobytes(), suggested[i].tobytes()
            lines.setdefault(key, []).append(i)
    learn = np.array([split != "test" for split in dataset.splits], bool)
    found = []
    for where in lines.values():
        rows = answers.rows[where]
        # copies with the same label were one image to the head
        copies = [
            r for row in rows for r in np.flatnonzero(grouping.photos == grouping.photos[row])
        ]
        there = dict.fromkeys(int(row) for row in copies if learn[row])
        suspect = Suspect(
            rows=tuple(row for row in there if dataset.files[row] not in confirmed),
            label=dataset.label(int(rows[0])),
            suggested=spelled(dataset, suggested[where[0]]),
            probability=float(np.exp(np.log(probability[where]).mean())),
            ratio=float(np.exp(np.log(ratio[where]).mean())),
            agree=(),
        )
        found.append((suspect, suggested[where[0]]))
    found.sort(key=lambda pair: -pair[0].ratio)
    return with_neighbours(dataset, grouping, features, found)


def least_ratio(ratio: Floats) -> float:
    """How many times as probable another label must be: half as many as the given one is at sure
    images, within LEAST and RATIO.

    >>> least_ratio(np.array([1e-4] * 90 + [50.0] * 10)), least_ratio(np.array([0.1] * 90 + [9.0]))
    (20.0, 5.0)
    """
    agreeing = ratio[ratio < 1]
    if not len(agreeing):
        return RATIO
    return float(np.clip(np.quantile(1 / agreeing, SURE) / 2, LEAST, RATIO))


def suggestions(
    probabilities: Floats, labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """(suggested labels, their probability, how many times as probable they are as the given ones)
    of each image. Of several labels an image, each is a question of its own: all that are more than
    RATIO times as probable the other way are turned.

    >>> p = np.array([[0.9, 0.1], [0.02, 0.98]])
    >>> suggested, probability, ratio = suggestions(p, np.array([0, 0]))
    >>> suggested.tolist(), ratio.round(2).tolist()
    ([1, 1], [0.11, 49.0])
    """
    p = np.clip(probabilities, 1e-9, 1.0)
    if labels.ndim == 2:
        against = np.clip(np.where(labels == 1, 1 - p, p), 1e-9, 1 - 1e-9)
        odds = against / (1 - against)
        turned = odds >= RATIO
        turned[np.arange(len(odds)), odds.argmax(axis=1)] = True
        return np.where(turned, 1 - labels, labels), against.max(axis=1), odds.max(axis=1)
    own = np.arange(len(p)), labels
    others = p.copy()
    others[own] = 0
    suggested = others.argmax(axis=1)
    probability = others.max(axis=1)
    return suggested, probability, probability / p[own]


def spelled(dataset: Dataset, label: NDArray[np.int64]) -> str:
    """A class, or labels, as `Dataset.label` writes them."""
    numbers = np.flatnonzero(label) if label.ndim else [label]
    return BETWEEN.join(dataset.classes[c] for c in numbers)


def with_neighbours(
    dataset: Dataset,
    grouping: Grouping,
    features: NDArray[np.float32],
    found: list[tuple[Suspect, NDArray[np.int64]]],
) -> list[Suspect]:
    """The suspects, each with the images that are most like its first one, by the angle between
    standardised features, among those of other groups that have the suggested label."""
    if not found:
        return []
    first = np.array([suspect.rows[0] for suspect, _ in found])
    similar = similarities(features, first)
    taken = {row for suspect, _ in found for row in suspect.rows}
    open_to_all = np.array([row not in taken for row in range(len(dataset))])
    finished = []
    for i, (suspect, label) in enumerate(found):
        same = (dataset.labels == label).all(axis=1) if label.ndim else dataset.labels == label
        there = same & open_to_all & (grouping.groups != grouping.groups[first[i]])
        near = np.flatnonzero(there)
        near = near[np.argsort(-similar[i, near], kind="stable")]
        _, once = np.unique(grouping.groups[near], return_index=True)  # one of each group
        agree = tuple(int(row) for row in near[np.sort(once)[:AGREE]])
        finished.append(
            Suspect(
                *(suspect.rows, suspect.label, suspect.suggested),
                *(suspect.probability, suspect.ratio, agree),
            )
        )
    return finished


def similarities(features: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
    """(rows, N), the cosine between standardised features."""
    sample = features[:: max(1, len(features) // SAMPLE)]
    mean, scale = sample.mean(axis=0), standard_scale(sample)

    def unit(block: NDArray[np.float32]) -> NDArray[np.float32]:
        x = (block - mean) * scale
        return np.asarray(x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-12), np.float32)

    asked = unit(features[rows])
    blocks = [asked @ unit(features[i : i + BLOCK]).T for i in range(0, len(features), BLOCK)]
    return np.concatenate(blocks, axis=1)


def measure_gains(
    dataset: Dataset,
    features: NDArray[np.float32],
    rows: Rows,
    folds: Rows,
    groups: Rows,
    head: Head,
    suspects: Sequence[Suspect],
    threads: int,
    advance: Callable[[], None] = lambda: None,
) -> list[Gain]:
    """What correcting the first suspects brings: the head solved with the given and with the
    suggested labels, on the same folds, and compared on images that are no suspects and share no
    group with one.

    Args:
        rows, folds, groups: (L,), of the images that are learnt from, as `Judging` has them.
        head: solved with the given labels, whose penalty is used again.
        suspects: the worst first.
        advance: called after each head.

    Returns:
        Of the first 10, 20, 50 and of all, as far as there are so many.
    """
    place = {int(row): i for i, row in enumerate(rows)}
    judged = folds >= 0
    touched = {place[row] for suspect in suspects for row in suspect.rows if row in place}
    doubtful = np.isin(groups, groups[sorted(touched)])
    trusted = (judged & ~doubtful)[judged]
    given = dataset.labels[rows]
    if not suspects or not trusted.any():
        return []
    many = len(rows) > MANY and features.shape[1] > 2 * AXES
    learnt = principal(features, rows) if many else features[rows]

    def solved(labels: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
        found = fit_head(
            *(learnt, labels, folds, len(dataset.classes), threads),
            penalties=(10 * head.penalty, head.penalty),
        )
        advance()
        best = int(found.losses.mean(axis=1).argmin())
        return found.losses[best], found.right[best]

    losses, right = solved(given)
    gains = []
    for first in [*(n for n in STEPS if n < len(suspects)), len(suspects)]:
        labels, images = given.copy(), 0
        for suspect in suspects[:first]:
            here = [place[row] for row in suspect.rows if row in place]
            labels[here] = numbered(dataset, suspect.suggested)
            images += len(suspect.rows)
        new_losses, new_right = solved(labels)
        better = (new_right.astype(np.float64) - right)[trusted]
        gains.append(
            Gain(
                first=first,
                images=images,
                accuracy=float(better.mean()),
                interval=interval_over_groups(better, groups[judged][trusted]),
                log_loss=float((new_losses - losses)[trusted].mean()),
                judged=int(trusted.sum()),
            )
        )
    return gains


def principal(features: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
    """(rows, AXES), the features along the principal axes of a sample of them, standardised."""
    sample = features[rows[:: max(1, len(rows) // BLOCK)]]
    mean, scale = sample.mean(axis=0), standard_scale(sample)
    _, axes = principal_axes((sample - mean) * scale, AXES)
    blocks = (features[rows[i : i + BLOCK]] for i in range(0, len(rows), BLOCK))
    return np.concatenate([((block - mean) * scale) @ axes for block in blocks])


def numbered(dataset: Dataset, label: str) -> NDArray[np.int64]:
    """What `Dataset.label` writes, as the dataset's labels have it: () or (classes,)."""
    if dataset.task == "multilabel":
        names = set(label.split(BETWEEN)) if label else set()
        return np.array([int(name in names) for name in dataset.classes], np.int64)
    return np.array(dataset.classes.index(label), np.int64)


def interval_over_groups(values: Floats, groups: Rows) -> tuple[float, float] | None:
    """The 95 % interval of a mean whose independent answers are groups: the ratio estimator's."""
    _, which = np.unique(groups, return_inverse=True)
    n = int(which.max()) + 1
    if n < FEW:
        return None
    mean = float(values.mean())
    residuals = np.bincount(which, values - mean)
    error = float(np.sqrt((residuals**2).sum() * n / (n - 1))) / len(values)
    return mean - 1.96 * error, mean + 1.96 * error


def why_none(figures: dict[str, Any], labels: NDArray[np.int64]) -> str:
    """Why labels cannot be suspected, of the figures out of fold; "" if they can: a head that
    learnt nothing accuses at random."""
    if figures["accuracy"] is None or not len(labels):
        return str(figures["why"])
    _, sizes = np.unique(labels, axis=0, return_counts=True)
    chance = sizes.max() / len(labels)
    interval = figures["accuracy_ci95"]
    sure = interval[0] if interval is not None else figures["accuracy"]
    if sure <= chance:
        return (
            f"the head is right in {figures['accuracy']:.1%}, and always answering the commonest "
            f"label is in {chance:.1%}: nothing was learnt"
        )
    return ""
