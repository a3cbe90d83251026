"""Features of a Dataset from a frozen backbone, computed once for each image and kept.

The cache knows an image by its bytes, and a feature by everything that made it, so that a renamed
or copied image is still known, and a new decoder, engine or input size is never confused with an
old one. Features are kept in parts of a few hundred images, each written whole: a killed run loses
at most the last part.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from foveate.arguments import check_switch
from foveate.data.dataset import Dataset
from foveate.data.image import DECODER, Pixels
from foveate.data.layouts import as_dataset
from foveate.data.preprocess import Fit, Preprocess, View, decode_squares
from foveate.data.small import RULES as SMALL_RULES
from foveate.data.small import SIDE, grey
from foveate.data.workers import decode_ahead
from foveate.engine import RULES, Preparation, choose_engine, prepare_backbone, run_each
from foveate.errors import ArtefactError, DataError, FoveateError, ImageError, quoted
from foveate.forking import torch_threads
from foveate.machine import cores_to_use
from foveate.progress import Progress, bars
from foveate.storage import (
    cache_root,
    check_regular,
    disk_errors,
    fingerprint,
    replacing,
    write_json,
)
from foveate.weights.starting_point import StartingPoint, find_start

Greys = NDArray[np.uint8]

PART = 256  # images to a part
LIMIT = 8 << 30  # bytes of features kept


# how much of a longer side is squeezed into the square; measured in docs/LOG.md
STRETCH = 1.12


@dataclass(frozen=True)
class Extracted:
    """What `extract` found.

    Args:
        features: (N, width), float32; the rows of unreadable images are 0.
        bad: name and reason of each unreadable image.
        damaged: the same of each that was decoded though it is damaged.
        computed: images that were decoded now; the others were known.
        greys: (N, SIDE, SIDE), uint8, the small version of each image, of `small.grey`; the
            rows of unreadable images are 0.
    """

    features: NDArray[np.float32]
    bad: dict[str, str]
    damaged: dict[str, str]
    computed: int
    greys: Greys

    def select(self, rows: NDArray[np.int64]) -> "Extracted":
        """The same of these rows only, which could all be read."""
        return replace(self, features=self.features[rows], greys=self.greys[rows], bad={})


class Known(NamedTuple):
    """What is kept of one image in one space; the small version of what is not mirrored."""

    features: NDArray[np.float32]
    grey: Greys | None


class FeatureStore:
    """The features of one space: one backbone, its weights, one Preprocess, one view, one engine,
    one decoder."""

    def __init__(self, space: dict[str, object]):
        self.folder = cache_root() / "features" / fingerprint(space)[:32]
        self.space = space

    def find(self, digests: set[str], digits: int = 64) -> dict[str, Known]:
        """What is known of the images that are asked for, by the first digits of their digests.

        A part that is damaged is deleted, to be computed again; a part of another space, and all
        that is no part, is passed over. The cache may be one that can only be read.
        """
        known: dict[str, Known] = {}
        width = 0
        for part in sorted(self.folder.glob("*.safetensors")):
            try:
                check_regular(part)
                with safe_open(part, "np") as tensors:
                    # an older version's part names none
                    if (tensors.metadata() or {})["space"] != self.folder.name:
                        continue
                    names = tensors.get_tensor("digests").tobytes().hex()
                wanted = [
                    (i, names[i : i + digits])
                    for i in range(0, len(names), 64)
                    if names[i : i + digits] in digests
                ]
                if not wanted:
                    continue
                data = part.read_bytes()
                if part.stem != hashlib.sha256(data).hexdigest()[:32]:
                    raise ValueError("other bytes than were written")
                tensors_read = load(data)
                features, greys = tensors_read["features"], tensors_read.get("greys")
                check_features(features, greys, len(names) // 64)
                if features.shape[1] != (width := width or features.shape[1]):
                    continue
                known |= {
                    name: Known(features[i // 64], None if greys is None else greys[i // 64])
                    for i, name in wanted
                }
                with contextlib.suppress(OSError):  # the cache may be read only
                    os.utime(part)  # used now: the last to go
            except OSError:  # another run has just removed it; no part; it is shut
                continue
            except (SafetensorError, KeyError, ValueError):
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
        return known

    def digests(self) -> set[str]:
        """Of all images of which something is known here, as far as the parts say."""
        found: set[str] = set()
        for part in self.folder.glob("*.safetensors"):
            with contextlib.suppress(OSError, SafetensorError, KeyError):
                check_regular(part)
                with safe_open(part, "np") as tensors:
                    names = tensors.get_tensor("digests").tobytes().hex()
                found |= {names[i : i + 64] for i in range(0, len(names), 64)}
        return found

    def add(self, digests: list[str], known: list[Known]) -> None:
        """Write one part, named by its hash."""
        about = self.folder / "space.json"
        with disk_errors(about):  # the cache may be shut
            if not about.exists():
                write_json(about, self.space)
        raw = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32)
        tensors: dict[str, NDArray[Any]] = {"digests": raw}
        tensors["features"] = np.stack([one.features for one in known])
        greys = [one.grey for one in known if one.grey is not None]
        if greys:
            tensors["greys"] = np.stack(greys)
        data = save(tensors, {"space": self.folder.name})
        part = self.folder / f"{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
        if part.exists() and not part.is_file():  # a folder of that name: it was passed over too
            return
        with replacing(part) as temporary:
            temporary.write_bytes(data)


def check_features(features: Any, greys: Any, n: int) -> None:
    """ValueError unless these are (n, width), float32, and finite, and (n, SIDE, SIDE) or None."""
    if features.dtype != np.float32 or features.ndim != 2 or len(features) != n:
        raise ValueError(f"expected ({n}, width) float32, got {features.shape} {features.dtype}")
    if not features.size or not np.isfinite(features).all():
        raise ValueError("numbers that are not finite, or none")
    if greys is not None and (greys.dtype != np.uint8 or greys.shape != (n, SIDE, SIDE)):
        raise ValueError(f"expected greys ({n}, {SIDE}, {SIDE}), got {greys.shape} {greys.dtype}")


def shown(own: Preprocess, scale: float = 1.0) -> Preprocess:
    """How a frozen backbone is shown whole images: at its weights' own size, or at a multiple of
    it."""
    size = own.crop if scale == 1 else 32 * round(own.crop * scale / 32)
    return own.at(size, STRETCH)


@torch_threads()
def extract_features(
    dataset: Dataset | str | os.PathLike[str],
    model: Any = "efficientnet_lite0",
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    framing: str = "whole",
    fit: Fit = "crop",
    mirror: bool = False,
    engine: Literal["auto", "openvino", "torch"] = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """What a frozen network makes of every image, for scikit-learn or anything else.

    The maps of all stages are pooled to a number a channel and put one after the other, as a probe
    reads them (foveate/probe.py). Computed features are cached: a second call decodes nothing.

    Args:
        dataset: a Dataset, or what `load_dataset` takes.
        model: a network with published weights, "timm:NAME", or a module with `stages` and `head`.
        weights: a checkpoint file of the model's, in place of the published weights.
        size: side in pixels of what the network reads; by default the weights' own.
        framing: how much of the shorter side is seen: "whole", "7/8", "2/3", "1/2", or
            "whole+2/3", both one after the other.
        fit: what happens to a longer side: "crop", "pad" or "squash", as in a `View`.
        mirror: average with the features of the mirror image.
        engine: what runs the network; "auto" takes the fastest that is there.
        threads: cores to use; all by default.
        progress: is informed of how far it is; by default bars in a terminal or a notebook.

    Returns:
        (N, width), float32, in the dataset's order; `dataset.labels` are the classes.

    Raises:
        DataError: an image cannot be read; the first ones are named.
        UsageError: no such model; it lacks what is needed; a size, engine or number of threads
            that is none.
    """
    kind, n = choose_engine(engine), cores_to_use(threads)
    check_switch("mirror", mirror)
    dataset = as_dataset(dataset)
    start = find_start(model, weights)
    preprocess = shown(start.preprocess)
    preprocess = preprocess if size is None else preprocess.at(size, STRETCH)
    preprocess = preprocess.framed(framing, fit)
    with bars(progress) as progress:
        if not start.is_here:
            start.fetch(progress)
        found = extract(dataset, start, preprocess, mirror, kind, n, progress)
    if found.bad:
        raise DataError(
            f"{len(found.bad)} of {len(dataset)} images are unreadable; leave them out: "
            f"{'; '.join(list(found.bad.values())[:5])}"
        )
    return found.features


class NoStore(FeatureStore):
    """Of a network that cannot be known again: nothing is kept."""

    def find(self, digests: set[str], digits: int = 64) -> dict[str, Known]:
        return {}

    def add(self, digests: list[str], known: list[Known]) -> None:
        pass


def extract(
    dataset: Dataset,
    start: StartingPoint,
    preprocess: Preprocess,
    mirror: bool,
    engine: str,
    threads: int,
    progress: Progress,
    backbone: Preparation | None = None,
) -> Extracted:
    """The pooled stages of every image, from the cache where they are known.

    Args:
        dataset: any; its labels and splits play no part.
        start: the network and its weights.
        preprocess: of this run; its views are of one size, and their features come one after the
            other.
        mirror: average the features of the image and of its mirror image.
        engine: "auto", "openvino" or "torch".
        threads: cores to use, for decoding and for the engine.
        progress: is advanced with each image.
        backbone: of this network and size, where there is one already.

    Raises:
        ArtefactError: the network gives numbers that are not finite.
        FoveateError: the cache cannot be written; its features are of another width.
        UsageError: no such engine.
    """
    backbone = backbone or prepare_backbone(engine, start, preprocess, threads)
    spaces = [
        Space(view, mirrored, store_of(start, preprocess.alone(view), backbone, mirrored))
        for view in preprocess.views
        for mirrored in ((False, True) if mirror else (False,))
    ]
    progress.begin("reading", len(dataset))
    digests = dataset.digests
    wanted = {digest for digest in digests if digest}
    known = [space.store.find(wanted) for space in spaces]
    first_row = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    missing = {  # the spaces in which each is still to be computed
        row: lacking
        for digest, row in sorted(first_row.items(), key=lambda item: item[1])
        if (lacking := [i for i, k in enumerate(known) if not digest or digest not in k])
    }
    progress.begin("images", len(dataset))
    progress.advance(len(dataset) - len(missing))

    bad: dict[str, str] = {}
    damage: dict[str, str] = {}  # by digest
    if missing:
        try:
            for row, outputs in compute(
                dataset,
                missing,
                start.name,
                backbone,
                preprocess,
                spaces,
                threads,
                progress,
                damage,
            ):
                if isinstance(outputs, ImageError):
                    bad[digests[row] or dataset.files[row]] = str(outputs)
                else:
                    for i, output in zip(missing[row], outputs, strict=True):
                        known[i][digests[row]] = output
        finally:
            backbone.cancel()
        trim_cache()

    width = len(next(iter(known[0].values())).features) if known[0] else 0
    if any(len(one.features) != width for k in known for one in k.values()):
        raise FoveateError(
            f"features of {start.name} in {quoted(spaces[0].store.folder)} are of another width "
            "than its own: remove that folder, or all: foveate data cache --clear"
        )
    features = np.zeros((len(dataset), width * len(preprocess.views)), dtype=np.float32)
    greys = np.zeros((len(dataset), SIDE, SIDE), dtype=np.uint8)
    unreadable: dict[str, str] = {}
    damaged: dict[str, str] = {}
    each = 2 if mirror else 1  # spaces a view
    for row, (name, digest) in enumerate(zip(dataset.files, digests, strict=True)):
        if all(digest in k for k in known):
            for i in range(len(preprocess.views)):
                of_view = [k[digest].features for k in known[i * each : (i + 1) * each]]
                features[row, i * width : (i + 1) * width] = sum(of_view) / np.float32(each)
            small = known[0][digest].grey
            assert small is not None  # of the first view
            greys[row] = small
            if digest in damage:
                damaged[name] = damage[digest]
        else:
            reason = bad.get(digest or name, f"image {quoted(name)} cannot be read")
            original = not digest or first_row[digest] == row
            unreadable[name] = (
                reason if original else f"image {quoted(name)} has the same bytes: {reason}"
            )
    return Extracted(features, unreadable, damaged, len(missing), greys)


class Space(NamedTuple):
    """One way in which an image is seen: a view, or its mirror image; and where what a backbone
    makes of it is kept."""

    view: View
    mirrored: bool
    store: FeatureStore


def store_of(
    start: StartingPoint, preprocess: Preprocess, backbone: Preparation, mirrored: bool
) -> FeatureStore:
    """Where the features of one space are kept."""
    space = {
        "network": start.name,
        "weights": start.identity,
        "preprocess": preprocess.to_dict(),
        "engine": backbone.identity,
        "rules": RULES,
        "decoder": DECODER,
        "small": SMALL_RULES,
        "view": "mirror" if mirrored else "plain",
    }
    return FeatureStore(space) if start.identity else NoStore(space)


def still_known(
    digests: set[str], digits: int, start: StartingPoint, preprocess: Preprocess, threads: int
) -> dict[str, Known]:
    """What the cache still has of images, by the first digits of their digests: as `extract` left
    it with one view."""
    backbone = prepare_backbone("auto", start, preprocess, threads)
    return store_of(start, preprocess, backbone, mirrored=False).find(digests, digits)


def known_features(
    digests: set[str],
    digits: int,
    start: StartingPoint,
    preprocess: Preprocess,
    mirror: bool,
    engine: str,
    threads: int,
) -> dict[str, NDArray[np.float32]]:
    """What the cache still has of images, by the first digits of their digests: (width,) each, as
    `extract` gives it, of those of which all views are known."""
    backbone = prepare_backbone(engine, start, preprocess, threads)
    ways = (False, True) if mirror else (False,)
    known = [
        [
            store_of(start, preprocess.alone(view), backbone, mirrored).find(digests, digits)
            for mirrored in ways
        ]
        for view in preprocess.views
    ]
    whole = digests.intersection(*(found for of_view in known for found in of_view))
    return {
        digest: np.concatenate(
            [
                sum(found[digest].features for found in of_view) / np.float32(len(ways))
                for of_view in known
            ]
        )
        for digest in whole
    }


def compute(
    dataset: Dataset,
    missing: dict[int, list[int]],
    name: str,
    backbone: Preparation,
    preprocess: Preprocess,
    spaces: list[Space],
    threads: int,
    progress: Progress,
    damage: dict[str, str],
) -> Iterator[tuple[int, list[Known] | ImageError]]:
    """Decode rows and run them through the backbone; what is made of each is stored before it is
    forgotten. Damaged images enter `damage`, by digest, and are not stored: the next run would
    not know of it.

    Args:
        missing: rows, and the numbers of the spaces in which each is to be computed.

    Returns:
        Each row with what was made of it in these spaces.
    """

    # of the images that are on their way through the engine, each view
    greys: dict[int, dict[View, Greys]] = {}

    def decode_row(row: int) -> list[NDArray[np.uint8]]:
        data = dataset.read(row)
        if hashlib.sha256(data).hexdigest() != dataset.digests[row]:
            raise ImageError(
                f"image {quoted(dataset.files[row])} changed while it was read; run again"
            )
        wanted = [spaces[i] for i in missing[row]]
        views = list(dict.fromkeys(space.view for space in wanted))
        small: dict[int, Greys] = {}  # of each decoded image: several views may share it

        def keep(view: View, image: Image.Image) -> None:
            if id(image) not in small:
                small[id(image)] = grey(image)
            greys.setdefault(row, {})[view] = small[id(image)]

        squares = decode_squares(
            data,
            dataset.files[row],
            replace(preprocess.alone(views[0]), more=tuple(views[1:])),
            lambda reason: damage.__setitem__(dataset.digests[row], reason),
            keep,
        )
        of_view = dict(zip(views, squares, strict=True))
        return [
            of_view[space.view][:, ::-1] if space.mirrored else of_view[space.view]
            for space in wanted
        ]

    backbone.start()
    decoded = decode_ahead(missing, decode_row, dataset.files.__getitem__, preprocess, threads)
    # its threads are at work from here on, while the engine gets ready
    decoded = chain([next(decoded)], decoded)
    engine = backbone.engine()

    def each_square() -> Iterator[tuple[tuple[int, ImageError | None], Pixels | None]]:
        for row, squares in decoded:
            if isinstance(squares, ImageError):
                yield (row, squares), None
                continue
            for pixels in squares:
                yield (row, None), pixels

    done: list[list[tuple[str, Known]]] = [[] for _ in spaces]

    def store(least: int) -> None:
        for space, kept in zip(spaces, done, strict=True):
            if len(kept) >= least:
                space.store.add([digest for digest, _ in kept], [output for _, output in kept])
                kept.clear()

    outputs: list[Known] = []  # of the image that is coming
    try:
        for (row, error), output in run_each(engine, each_square()):
            if output is None:
                assert error is not None
                yield row, error
                continue
            if not np.isfinite(output).all():
                raise ArtefactError(
                    f"{name} gives numbers that are not finite: its weights are damaged; see: "
                    "foveate weights check FILE"
                )
            space = spaces[missing[row][len(outputs)]]
            # kept of every view, since each may be another run's first
            outputs.append(Known(output, None if space.mirrored else greys[row][space.view]))
            if len(outputs) < len(missing[row]):
                continue
            del greys[row]
            if dataset.digests[row] not in damage:
                for i, known in zip(missing[row], outputs, strict=True):
                    done[i].append((dataset.digests[row], known))
            yield row, outputs
            outputs = []
            progress.advance()
            store(PART)
    finally:
        store(1)  # also when the run is interrupted


def trim_cache() -> None:
    """Delete the parts that were unused for longest until what is left is within LIMIT."""
    parts = []
    for part in (cache_root() / "features").glob("*/*.safetensors"):
        with contextlib.suppress(OSError):  # another run has just removed it; it is shut
            status = check_regular(part).stat()
            parts.append((status.st_mtime, status.st_size, part))
    excess = sum(size for _, size, _ in parts) - LIMIT
    for _, size, part in sorted(parts):
        if excess <= 0:
            break
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
            excess -= size
