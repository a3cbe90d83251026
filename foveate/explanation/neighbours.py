"""The training images that are closest to an image in what a probe's head reads."""

import hashlib
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.arguments import whole_number
from foveate.classifier import Classifier
from foveate.classifier.embedding import check_probe, feature_engine
from foveate.classifier.given import expand
from foveate.data.preprocess import View
from foveate.engine import Engine, choose_engine, run_each
from foveate.errors import ArtefactError, UsageError, quoted
from foveate.features import known_features
from foveate.runs import HEX, is_absent, read_json, settings_of
from foveate.weights.starting_point import StartingPoint, find_start

Rows = NDArray[np.float32]

DATA = {
    "classes": [str],
    "files": {str: {"split": str, "label": (int, [int]), "sha256?": str}},
}


class Neighbour(NamedTuple):
    """A training image.

    Args:
        file: its name in the data.
        labels: its class; or its labels.
        similarity: from -1 to 1, the cosine of the angle between the two images' features, each
            less its mean over the training images and in units of its deviation there.
    """

    file: str
    labels: tuple[str, ...]
    similarity: float

    def to_dict(self) -> dict[str, Any]:
        labels = list(self.labels)
        return {"file": self.file, "labels": labels, "similarity": round(self.similarity, 4)}


class TrainingImages:
    """What is left of the images that a probe learnt from: their names and labels in its run, their
    features in the cache.

    Args:
        classifier: of the recipe probe, in its run's folder.

    Raises:
        UsageError: it is no probe; it began with weights of its own, of which no features are kept
            that can be found again.
        ArtefactError: it was moved out of its run; the run is damaged, or of a version that kept no
            hashes; the cache has none of the features.
    """

    def __init__(self, classifier: Classifier):
        check_probe(classifier)
        if classifier.card["recipe"] != "probe":
            raise UsageError(
                f"{quoted(classifier.folder)} is fine-tuned: the features of its training images "
                "are not kept; nearest images are known of the recipe probe"
            )
        self.classifier = classifier
        path = classifier.run / "data.json"
        if is_absent(path):
            raise ArtefactError(
                f"{quoted(classifier.folder)} is not in its run (no {quoted(path)}), which has the "
                "names of its training images"
            )
        data = read_json(path, DATA)
        self.labels: dict[str, tuple[str, ...]] = {}  # by digest
        self.names: dict[str, str] = {}
        for name, file in data["files"].items():
            if file["split"] == "test" or "sha256" not in file:
                continue
            label = file["label"]
            try:
                found = tuple(
                    data["classes"][i] for i in (label if isinstance(label, list) else [label])
                )
            except IndexError as error:
                raise ArtefactError(
                    f"{quoted(path)} is damaged: {quoted(name)} has the label {label!r} of "
                    f"{len(data['classes'])} classes; restore it from a backup"
                ) from error
            self.names.setdefault(file["sha256"], name)
            self.labels.setdefault(file["sha256"], found)
        if not self.names:
            raise ArtefactError(
                f"{quoted(path)} has no hashes of images: it is of an older version; train again"
            )
        self.digests, self.features = self.kept()

    def kept(self) -> tuple[list[str], Rows]:
        """The digests of the images that the cache knows, and their features, (N, width)."""
        known: dict[str, list[Rows]] = {digest: [] for digest in self.names}
        card, settings = self.classifier.card, settings_of(self.classifier.run)
        kind = settings.get("engine")
        for start, views in self.branches(settings):
            preprocess = replace(self.classifier.preprocess.alone(views[0]), more=tuple(views[1:]))
            found = known_features(
                set(known),
                HEX,
                start,
                preprocess,
                card["mirror"],
                kind if kind in ("openvino", "torch") else choose_engine(),
                self.classifier.threads,
            )
            known = {digest: [*known[digest], row] for digest, row in found.items()}
        if not known:
            raise ArtefactError(
                f"the cache has no features of the {len(self.names)} training images of "
                f"{quoted(self.classifier.run)}: it was cleared, or is another one (FOVEATE_CACHE);"
                " train on the same images again, which takes them up"
            )
        digests = sorted(known)
        return digests, np.stack([np.concatenate(known[digest]) for digest in digests])

    def branches(self, settings: dict[str, Any]) -> list[tuple[StartingPoint, list[View]]]:
        """The backbones, and the views that each reads."""
        card, views = self.classifier.card, list(self.classifier.preprocess.views)
        if settings.get("weights") or ":" in card["model"]:
            raise UsageError(
                f"{quoted(self.classifier.run)} began with weights or a network of its own: the "
                "features of its training images cannot be found again"
            )
        branches = card.get("branches") or [{"model": card["model"], "views": len(views)}]
        found = []
        for branch in branches:
            found.append((find_start(branch["model"]), views[: branch["views"]]))
            views = views[branch["views"] :]
        return found

    @property
    def gone(self) -> int:
        """How many training images the cache no longer knows."""
        return len(self.names) - len(self.digests)

    @cached_property
    def engine(self) -> Engine:
        return feature_engine(self.classifier)

    @cached_property
    def scale(self) -> tuple[Rows, Rows]:
        """Mean and deviation of each feature."""
        return self.features.mean(axis=0), self.features.std(axis=0) + np.float32(1e-6)

    @cached_property
    def directions(self) -> Rows:
        """(N, width), of length 1."""
        mean, deviation = self.scale
        return unit((self.features - mean) / deviation)

    def nearest(self, image: Any, k: int = 5) -> list[Neighbour]:
        """The k closest training images, the closest first; the image itself is left out, where it
        is one.

        Args:
            image: one, as for `Classifier.predict`.

        Raises:
            ImageError: it cannot be read.
        """
        k = whole_number("neighbours", k, 1)
        given = next(expand([image]))
        squares = given.squares(self.classifier.preprocess)
        [(_, row)] = run_each(self.engine, [(None, squares)])
        assert row is not None
        if row.shape != self.features.shape[1:]:
            raise ArtefactError(
                f"the cache has features of {self.features.shape[1]} numbers of the training "
                f"images, and {quoted(self.classifier.folder)} reads {len(row)}; train again"
            )
        mean, deviation = self.scale
        similar = self.directions @ unit((row - mean) / deviation)
        own = digest_of(given.content)
        found = []
        for i in np.argsort(-similar, kind="stable")[: k + 1]:
            digest = self.digests[i]
            if digest != own:
                labels = self.labels[digest]
                found.append(Neighbour(self.names[digest], labels, float(similar[i])))
        return found[:k]


def unit(x: Rows) -> Rows:
    return np.asarray(x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-12), dtype=np.float32)


def digest_of(content: Any) -> str:
    """The first HEX digits of the SHA-256 of a file; "" of what is none."""
    from foveate.data.image import read_file

    if isinstance(content, np.ndarray) or hasattr(content, "convert"):
        return ""
    data = content() if callable(content) else content
    data = data if isinstance(data, bytes) else read_file(data)
    return hashlib.sha256(data).hexdigest()[:HEX]
