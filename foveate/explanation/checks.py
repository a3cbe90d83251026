"""Whether a map may be believed.

    deletion        hide the most important parts first: the probability should fall
    insertion       show the most important parts first: it should rise
    randomisation   give the network random last weights: the map should become another one

Deletion and insertion are compared with those of random maps and of a map of the centre, which is
where photographers put things: a map that finds no more than these explains nothing (Petsiuk et
al. "RISE". arXiv:1806.07421). A map that stays when what was learnt is taken away shows the image,
not the reason (Adebayo et al. "Sanity Checks for Saliency Maps". arXiv:1810.03292).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.classifier import Classifier
from foveate.classifier.tta import Squares
from foveate.explanation.masking import Map, Mask, enlarged, hide, logits_of

SHARES = (0.1, 0.2, 0.35, 0.6)  # of the pixels that are hidden, or shown
RANDOM = 2  # maps that the map is compared with
ROUGH = 7  # cells a side of a random map, at most
ALIKE = 0.5  # from this rank correlation on, a map is the one of random weights

Maps = Sequence[Map]  # one a view


def curves(classifier: Classifier, squares: Squares, index: int, maps: Maps) -> dict[str, Any]:
    """The mean probability of a class while parts are hidden, or shown, by a map's order.

    Args:
        squares: the pixels of each view.
        index: of the class.
        maps: of each view, of any size.

    Returns:
        "deletion" and "insertion", each with the mean of the map's curve, of the "random" maps' and
        of the "centre" map's.
    """
    rng = np.random.default_rng(0)
    sides = [len(view) for view in squares]
    rough = [min(ROUGH, *m.shape) if min(m.shape) > 1 else ROUGH for m in maps]
    rivals = [[centre_map(side) for side in sides]]
    for _ in range(RANDOM):
        rivals.append([rng.random((n, n)).astype(np.float32) for n in rough])
    images = [
        image for order in [maps, *rivals] for image in hidden_and_shown(squares, order, classifier)
    ]
    logits = logits_of(classifier, images)
    found = classifier.decision.probabilities(logits)[:, index]
    means = found.reshape(len(rivals) + 1, 2, len(SHARES)).mean(axis=2)
    return {
        name: {
            "map": float(means[0, kind]),
            "random": float(means[2:, kind].mean()),
            "centre": float(means[1, kind]),
        }
        for kind, name in enumerate(("deletion", "insertion"))
    }


def hidden_and_shown(squares: Squares, maps: Maps, classifier: Classifier) -> Iterator[Squares]:
    """The image with each share of its pixels hidden, the most important first; then with as many
    shown."""
    places = [places_of(m, len(view)) for m, view in zip(maps, squares, strict=True)]
    for shown in (False, True):
        for share in SHARES:
            masks: list[Mask] = [(place < share) != shown for place in places]
            yield hide(squares, masks, classifier.preprocess)


def places_of(values: Map, side: int) -> NDArray[np.float64]:
    """(side, side), where each pixel stands in the order of importance, from 0 to 1; among equals
    chance decides."""
    flat = enlarged(values, side, side).ravel()
    tied = np.random.default_rng(0).permutation(flat.size)
    order = tied[np.argsort(-flat[tied], kind="stable")]
    places = np.empty(flat.size)
    places[order] = np.arange(flat.size) / flat.size
    return places.reshape(side, side)


def centre_map(side: int) -> Map:
    """The nearer to the centre, the more important."""
    away = np.abs(np.arange(side) - (side - 1) / 2)
    return -np.hypot(away[:, None], away).astype(np.float32)


def likeness(maps: Maps, others: Sequence[Maps]) -> float:
    """The mean size of the rank correlation of maps with others of the same sizes."""
    flat = np.concatenate([m.ravel() for m in maps])
    each = [rank_correlation(flat, np.concatenate([m.ravel() for m in o])) for o in others]
    return float(np.mean(np.abs(each)))


def rank_correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's, of two vectors of numbers; 0 where one of them is constant.

    >>> rank_correlation(np.array([1, 2, 3]), np.array([10, 30, 20]))
    0.5
    """
    x, y = (ranks(v) - (len(v) - 1) / 2 for v in (a, b))
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 else 0.0


def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """From 0 on, equal values the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return np.asarray((last - (counts - 1) / 2)[group])


def verdict(checks: dict[str, Any]) -> str:
    """What of the checks a map failed, in words; "" if it passed all.

    Args:
        checks: `curves`, and "randomisation": the likeness to the maps of random weights, by what
            was made random.
    """
    failed = []
    for rival, named in {"random": "a random map", "centre": "the centre of the image"}.items():
        gain, other = (checks["insertion"][key] - checks["deletion"][key] for key in ("map", rival))
        if gain <= other:
            failed.append(f"it finds no more than {named} does")
    for part, alike in checks["randomisation"].items():
        if alike >= ALIKE:
            failed.append(f"it stays when {part} is random (rank correlation {alike:.2f})")
    return "; ".join(failed)
