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
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from foveate.arguments import check_switch
from foveate.data.dataset import Dataset
from foveate.data.image import DECODER, Pixels
from foveate.data.layouts import as_dataset
from foveate.data.preprocess import Preprocess, decode
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
    """What is kept of one image and one view; the small version with the first view only."""

    features: NDArray[np.float32]
    grey: Greys | None


class FeatureStore:
    """The features of one space: one backbone, its weights, one Preprocess, one view, one engine,
    one decoder."""

    def __init__(self, space: dict[str, object]):
        self.folder = cache_root() / "features" / fingerprint(space)[:32]
        self.space = space

    def find(self, digests: set[str]) -> dict[str, Known]:
        """What is known of the images that are asked for.

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
                    (i, names[i : i + 64])
                    for i in range(0, len(names), 64)
                    if names[i : i + 64] in digests
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
    """How a frozen backbone is shown images: at its weights' own size, or at a multiple of it."""
    size = own.crop if scale == 1 else 32 * round(own.crop * scale / 32)
    return own.at(size, STRETCH)


@torch_threads()
def extract_features(
    dataset: Dataset | str | os.PathLike[str],
    model: Any = "efficientnet_lite0",
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
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

    def find(self, digests: set[str]) -> dict[str, Known]:
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
) -> Extracted:
    """The pooled stages of every image, from the cache where they are known.

    Args:
        dataset: any; its labels and splits play no part.
        start: the network and its weights.
        preprocess: of this run.
        mirror: average the features of the image and of its mirror image.
        engine: "auto", "openvino" or "torch".
        threads: cores to use, for decoding and for the engine.
        progress: is advanced with each image.

    Raises:
        ArtefactError: the network gives numbers that are not finite.
        FoveateError: the cache cannot be written; its features are of another width.
        UsageError: no such engine.
    """
    backbone = prepare_backbone(engine, start, preprocess, threads)
    views = ("plain", "mirror") if mirror else ("plain",)
    space = {
        "network": start.name,
        "weights": start.identity,
        "preprocess": preprocess.to_dict(),
        "engine": backbone.identity,
        "rules": RULES,
        "decoder": DECODER,
        "small": SMALL_RULES,
    }
    keep = FeatureStore if start.identity else NoStore
    stores = [keep(space | {"view": view}) for view in views]
    progress.begin("reading", len(dataset))
    digests = dataset.digests
    wanted = {digest for digest in digests if digest}
    known = [store.find(wanted) for store in stores]
    first_row = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    missing = [
        row
        for digest, row in first_row.items()
        if not digest or any(digest not in k for k in known)
    ]
    missing.sort()
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
                stores,
                threads,
                progress,
                damage,
            ):
                if isinstance(outputs, ImageError):
                    bad[digests[row] or dataset.files[row]] = str(outputs)
                else:
                    for k, output in zip(known, outputs, strict=True):
                        k[digests[row]] = output
        finally:
            backbone.cancel()
        trim_cache()

    width = len(next(iter(known[0].values())).features) if known[0] else 0
    if any(len(one.features) != width for k in known for one in k.values()):
        raise FoveateError(
            f"features of {start.name} in {quoted(stores[0].folder)} are of another width than its "
            "own: remove that folder, or all: foveate data cache --clear"
        )
    features = np.zeros((len(dataset), width), dtype=np.float32)
    greys = np.zeros((len(dataset), SIDE, SIDE), dtype=np.uint8)
    unreadable: dict[str, str] = {}
    damaged: dict[str, str] = {}
    for row, (name, digest) in enumerate(zip(dataset.files, digests, strict=True)):
        if digest in known[0]:
            features[row] = sum(k[digest].features for k in known) / np.float32(len(views))
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


def compute(
    dataset: Dataset,
    rows: list[int],
    name: str,
    backbone: Preparation,
    preprocess: Preprocess,
    stores: list[FeatureStore],
    threads: int,
    progress: Progress,
    damage: dict[str, str],
) -> Iterator[tuple[int, list[Known] | ImageError]]:
    """Decode rows and run them through the backbone; what is made of each view is stored before it
    is forgotten. Damaged images enter `damage`, by digest, and are not stored: the next run would
    not know of it."""

    greys: dict[int, Greys] = {}  # of the images that are on their way through the engine

    def decode_row(row: int) -> NDArray[np.uint8]:
        data = dataset.read(row)
        if hashlib.sha256(data).hexdigest() != dataset.digests[row]:
            raise ImageError(
                f"image {quoted(dataset.files[row])} changed while it was read; run again"
            )
        return decode(
            data,
            dataset.files[row],
            preprocess,
            lambda reason: damage.__setitem__(dataset.digests[row], reason),
            lambda image: greys.__setitem__(row, grey(image)),
        )

    backbone.start()
    decoded = decode_ahead(rows, decode_row, dataset.files.__getitem__, preprocess, threads)
    # its threads are at work from here on, while the engine gets ready
    decoded = chain([next(decoded)], decoded)
    engine = backbone.engine()

    def each_view() -> Iterator[tuple[tuple[int, ImageError | None], Pixels | None]]:
        for row, pixels in decoded:
            if isinstance(pixels, ImageError):
                yield (row, pixels), None
                continue
            yield (row, None), pixels
            if len(stores) == 2:
                yield (row, None), pixels[:, ::-1]

    done: list[tuple[str, list[Known]]] = []

    def store() -> None:
        for view, kept in enumerate(stores if done else []):
            kept.add([digest for digest, _ in done], [outputs[view] for _, outputs in done])
        done.clear()

    views: list[Known] = []  # of the image whose outputs are coming
    try:
        for (row, error), output in run_each(engine, each_view()):
            if output is None:
                assert error is not None
                yield row, error
                continue
            if not np.isfinite(output).all():
                raise ArtefactError(
                    f"{name} gives numbers that are not finite: its weights are damaged; see: "
                    "foveate weights check FILE"
                )
            views.append(Known(output, None if views else greys.pop(row)))
            if len(views) < len(stores):
                continue
            if dataset.digests[row] not in damage:
                done.append((dataset.digests[row], views))
            yield row, views
            views = []
            progress.advance()
            if len(done) >= PART:
                store()
    finally:
        store()  # also when the run is interrupted


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
