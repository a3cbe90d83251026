"""Why the worst mistakes were made: a checked map of each image, and the training images that are
most like it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from foveate.classifier import Classifier
from foveate.data.dataset import Dataset
from foveate.errors import FoveateError, ImageError
from foveate.explanation import Explainer
from foveate.explanation.drawing import overlaid
from foveate.explanation.neighbours import TrainingImages
from foveate.progress import Progress
from foveate.report import sections
from foveate.report.page import small_jpeg
from foveate.report.texts import Texts, isolated

NEAREST = 3  # training images that are shown of each


class Near(NamedTuple):
    """A training image, and its labels."""

    file: str
    labels: Markup


class Reasons(NamedTuple):
    """Why an image was answered as it was.

    Args:
        map: a JPEG in base64: the image, red where it speaks for the answer.
        warning: that the map is not to be trusted, if so.
        near: the training images that are most like it.
    """

    map: str
    warning: Markup | None
    near: list[Near]


def explain_mistakes(
    run: Path,
    dataset: Dataset,
    answers: dict[str, str],
    threads: int,
    progress: Progress,
    t: Texts,
) -> tuple[dict[str, Reasons], list[Markup]]:
    """The reasons of mistakes.

    Args:
        run: its folder.
        dataset: that has the images.
        answers: of each file, what the run answered; "" where that is not one class.
        threads: cores to use.
        progress: is advanced with each image.

    Returns:
        By file, of those that can be read; and sentences on what the maps show, or why there are
        none, and no training images.
    """
    place = {name: row for row, name in enumerate(dataset.files)}
    progress.begin("explanations", len(answers))
    said: list[Markup] = []
    explainer = training = None
    try:
        classifier = Classifier.load(run, threads)
        explainer = Explainer(classifier)
        training = TrainingImages(classifier)
    except FoveateError as error:
        said.append(t("not_explained" if explainer is None else "not_compared", why=str(error)))
    found = {}
    for file, answer in answers.items():
        progress.advance()
        if file not in place or explainer is None:
            continue
        try:
            image = dataset.read(place[file])
            one = explainer.explain(image, answer or None)
            near = [] if training is None else training.nearest(image, NEAREST)
        except ImageError:  # its place on the page says so
            continue
        warning = None if one.trusted else t("untrusted")
        others = [Near(other.file, isolated("|".join(other.labels))) for other in near]
        drawn = Image.fromarray(overlaid(one, float(np.abs(one.image).max(initial=0))))
        found[file] = Reasons(small_jpeg(drawn), warning, others)
    if found and explainer is not None:
        about = [sections.named(t, explainer.method.name, "map_")]
        said = [*about, *([] if training is None else [t("neighbours")]), *said]
    return found, said
