"""Why a classifier answers as it does: a map of the image, and what it is worth.

    explainer = Explainer(Classifier.load("runs/mine"))
    found = explainer.explain("x.jpg")
    found.label, found.image, found.trusted

`explain` does the same for a single image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.arguments import whole_number
from foveate.classifier import Classifier
from foveate.classifier.given import TAKEN, expand, is_many
from foveate.data.preprocess import View
from foveate.errors import UsageError, quoted
from foveate.explanation.checks import curves, likeness, verdict
from foveate.explanation.masking import rows_of
from foveate.explanation.methods import Method, choose_method

Map = NDArray[np.float32]

FEW = 1024  # values of a view that are written as JSON
LONGEST = 640  # pixels of the longer side of the image as it is shown


@dataclass(frozen=True)
class Explanation:
    """What of an image speaks for a class, and against it.

    Args:
        file: the image's name.
        label: the class.
        probability: of the class, calibrated.
        predicted: what the classifier answers; "none of these" where it refuses the image; of
            several labels an image, the most probable.
        method: "exact", "gradcam", "gradcam++", "gradients" or "occlusion".
        views: of each view, (rows, columns), the value of each region or pixel of it. Positive
            speaks for the class.
        image: (H, W), the values of all views, summed where they lie on the image as it is shown.
        pixels: (H, W, 3), uint8, the image as it is shown: upright, at most LONGEST pixels a side.
        logit: of the class, calibrated.
        total: sum of the values of all views.
        baseline: what an image is compared with, in which a part counts nothing.
        checks: the figures of the sanity checks, as `to_dict` writes them; {} if it was not
            checked.
        trusted: whether it passed them all.
        why: what it failed, or that it was not checked; "" if it is trusted.
        caption: what the map shows, and what it does not.
    """

    file: str
    label: str
    probability: float
    predicted: str
    method: str
    views: tuple[Map, ...]
    image: Map
    pixels: NDArray[np.uint8]
    logit: float
    total: float
    baseline: str
    checks: dict[str, Any]
    trusted: bool
    why: str
    caption: str

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, and of the maps the values of their regions where they are few."""
        return {
            "file": self.file,
            "label": self.label,
            "probability": round(self.probability, 6),
            "predicted": self.predicted,
            "method": self.method,
            "logit": round(self.logit, 6),
            "total": round(self.total, 6),
            "baseline": self.baseline,
            "views": [
                {"shape": list(view.shape), "values": rounded(view) if view.size <= FEW else None}
                for view in self.views
            ],
            "checks": self.checks,
            "trusted": self.trusted,
            "why": self.why,
            "caption": self.caption,
        }


class Explainer:
    """Explains the answers of one classifier; what takes long is done once.

    Args:
        classifier: of any recipe.
        method: "exact" for a probe, "gradcam", "gradcam++", "gradients" or "occlusion"; "auto" is
            exact for a probe, and else gradcam.

    Raises:
        UsageError: no such method, or not for this classifier; the network's code was not saved.
        ArtefactError: the tensors do not fit the network.
    """

    def __init__(self, classifier: Classifier, method: str = "auto"):
        self.classifier = classifier
        self.method: Method = choose_method(classifier, method)

    def explain(self, image: Any, label: str | None = None, check: bool = True) -> Explanation:
        """Why an image has a class, or has not.

        Args:
            image: one, as for `Classifier.predict`.
            label: the class; by default the most probable.
            check: whether to check the map; it takes some dozens of predictions.

        Raises:
            ImageError: the image cannot be read.
            UsageError: no such class; something else than an image.
        """
        return self.compare(image, 1 if label is None else [label], check)[0]

    def compare(
        self, image: Any, labels: Sequence[str] | int = 3, check: bool = True
    ) -> list[Explanation]:
        """The same for several classes.

        Args:
            image, check: as for `explain`.
            labels: the classes, or how many of the most probable ones.
        """
        if is_many(image):
            raise UsageError(f"one image is explained at a time: {TAKEN}")
        classifier, shown = self.classifier, list[tuple[View, Image.Image]]()
        given = next(expand([image]))
        squares = given.squares(
            classifier.preprocess, lambda view, pixels: shown.append((view, pixels))
        )
        row = rows_of(classifier, [squares])[0]
        logits, read = np.split(row, [len(classifier.classes)])
        outcome = classifier.judged(logits[None], read[None])
        probabilities = outcome.probabilities
        classes = self.chosen(labels, probabilities)
        best = int(probabilities.argmax())
        if classifier.task == "multiclass":  # perhaps a threshold says otherwise
            best = int(classifier.decision.chosen(probabilities[None])[0])
        predicted = classifier.classes[best]
        if outcome.rejected is not None:
            from foveate.rejection import NONE_OF_THESE

            predicted = NONE_OF_THESE
        upright = shown[0][1].convert("RGB")
        upright.thumbnail((LONGEST, LONGEST))
        made = self.method.explain(squares, classes)
        found = []
        for number, index in enumerate(classes):
            views = tuple(np.asarray(m, dtype=np.float32) for m in made[number])
            checks: dict[str, Any] = {}
            why = "it was not checked"
            if check:
                checks = curves(classifier, squares, index, views)
                randomised = self.method.randomised(squares, index)
                checks["randomisation"] = {
                    part: likeness(views, others) for part, others in randomised.items()
                }
                why = verdict(checks)
            found.append(
                Explanation(
                    file=given.name,
                    label=classifier.classes[index],
                    probability=float(probabilities[index]),
                    predicted=predicted,
                    method=self.method.name,
                    views=views,
                    image=placed(views, classifier.preprocess.views, upright.size),
                    pixels=np.asarray(upright),
                    logit=float(logits[index]),
                    total=float(sum(view.sum(dtype=np.float64) for view in views)),
                    baseline=self.method.baseline,
                    checks=checks,
                    trusted=not why,
                    why=why,
                    caption=self.method.caption,
                )
            )
        return found

    def chosen(self, labels: Sequence[str] | int, probabilities: NDArray[np.float64]) -> list[int]:
        """The numbers of classes."""
        names = self.classifier.classes
        if isinstance(labels, int):
            most = whole_number("labels", labels, 1)
            return [int(i) for i in np.argsort(-probabilities, kind="stable")[:most]]
        for label in labels:
            if label not in names:
                near = get_close_matches(str(label), names) or list(names[:10])
                raise UsageError(
                    f"{quoted(label)} is no class of this classifier; expected one of "
                    f"{len(names)}, such as {', '.join(map(quoted, near))}"
                )
        return [names.index(label) for label in labels]


def explain(
    classifier: Classifier,
    image: Any,
    label: str | None = None,
    *,
    method: str = "auto",
    check: bool = True,
) -> Explanation:
    """Why an image has a class, or has not. Of many images, make one Explainer.

    Args:
        classifier: of any recipe.
        image: one, as for `Classifier.predict`.
        label: the class; by default the most probable.
        method: as for `Explainer`.
        check: whether to check the map.

    Raises:
        ImageError: the image cannot be read.
        UsageError: no such class or method; something else than an image.
        ArtefactError: the classifier is damaged.
    """
    return Explainer(classifier, method).explain(image, label, check)


def placed(maps: Sequence[Map], views: Sequence[View], size: tuple[int, int]) -> Map:
    """The maps of views where they lie on an image, summed; 0 where no view sees it.

    Args:
        maps: one a view.
        views: what each sees of an image.
        size: (width, height) of the image.
    """
    width, height = size
    found = np.zeros((height, width), dtype=np.float32)
    for values, view in zip(maps, views, strict=True):
        left, top, right, bottom = (round(edge) for edge in view.window(width, height))
        box = (0.0, 0.0, 1.0, 1.0)  # of the view, what lies on the image
        if view.fit == "pad":
            x, y = ((1 - side / max(size)) / 2 for side in size)
            box = (x, y, 1 - x, 1 - y)
        down, across = values.shape
        part = Image.fromarray(np.ascontiguousarray(values)).resize(
            (max(1, right - left), max(1, bottom - top)),
            Image.Resampling.BILINEAR,
            box=(box[0] * across, box[1] * down, box[2] * across, box[3] * down),
        )
        found[top : top + part.height, left : left + part.width] += np.asarray(part)
    return found


def rounded(values: Map) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in values]
