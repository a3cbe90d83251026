"""Features of a Dataset from a frozen backbone, computed once for each image and kept.

The cache knows an image by its bytes, and a feature by everything that made it, so that a renamed
or copied image is still known, and a new decoder, engine or input size is never confused with an
old one. Features are kept in parts of a
few hundred images, each written whole: a killed run loses at most the last part.
"""

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from foveate.data.dataset import Dataset
from foveate.data.image import DECODER
from foveate.data.preprocess import Preprocess, decode
from foveate.data.workers import decode_ahead
from foveate.engine import RULES, Preparation, prepare_backbone
from foveate.errors import ImageError
from foveate.progress import Progress
from foveate.storage import cache_root, fingerprint, replacing, sha256, write_json
from foveate.weights import find_weights

PART = 256  # images to a part
LIMIT = 8 << 30  # bytes of features kept


@dataclass(frozen=True)
class Extracted:
    """What `extract` found.

    Args:
        features: (N, width), float32; the rows of unreadable images are 0.
        bad: name and reason of each unreadable image.
        computed: images that were decoded now; the others were known.
    """

    features: NDArray[np.float32]
    bad: dict[str, str]
    computed: int


class FeatureStore:
    """The features of one space: one backbone, its weights, one Preprocess, one view, one engine,
    one decoder."""

    def __init__(self, space: dict[str, object]):
        self.folder = cache_root() / "features" / fingerprint(space)[:32]
        self.space = space

    def find(self, digests: set[str]) -> dict[str, NDArray[np.float32]]:
        """The features that are known among those asked for. A part with other bytes than were
        written is deleted."""
        known: dict[str, NDArray[np.float32]] = {}
        for part in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(part, "np") as tensors:
                    names = tensors.get_tensor("digests").tobytes().hex()
                wanted = [
                    (i, names[i : i + 64])
                    for i in range(0, len(names), 64)
                    if names[i : i + 64] in digests
                ]
                if not wanted:
                    continue
                if part.stem != sha256(part)[:32]:
                    raise SafetensorError("other bytes than were written")
                features = load_file(part)["features"]
                known |= {name: features[i // 64] for i, name in wanted}
                os.utime(part)  # used now: the last to go
            except FileNotFoundError:  # another run has just removed it
                continue
            except (SafetensorError, KeyError):
                part.unlink(missing_ok=True)
        return known

    def add(self, digests: list[str], features: NDArray[np.float32]) -> None:
        """Write one part, named by its hash."""
        if not (self.folder / "space.json").exists():
            write_json(self.folder / "space.json", self.space)
        raw = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32)
        part = save({"digests": raw, "features": features})
        with replacing(
            self.folder / f"{hashlib.sha256(part).hexdigest()[:32]}.safetensors"
        ) as temporary:
            temporary.write_bytes(part)


def extract(
    dataset: Dataset,
    network: str,
    preprocess: Preprocess,
    mirror: bool,
    engine: str,
    threads: int,
    progress: Progress,
) -> Extracted:
    """The pooled stages of every image, from the cache where they are known.

    Args:
        dataset: any; its labels and splits play no part.
        network: a pretrained network's name.
        preprocess: of this run.
        mirror: average the features of the image and of its mirror image.
        engine: "openvino" or "torch".
        threads: cores to use, for decoding and for the engine.
        progress: hears of each image.
    """
    backbone = prepare_backbone(engine, network, preprocess, threads)
    views = ("plain", "mirror") if mirror else ("plain",)
    space = {
        "network": network,
        "weights": find_weights(network).identity,
        "preprocess": preprocess.to_dict(),
        "engine": backbone.identity,
        "rules": RULES,
        "decoder": DECODER,
    }
    stores = [FeatureStore(space | {"view": view}) for view in views]
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
    if missing:
        try:
            for row, outputs in compute(
                dataset, missing, backbone, preprocess, stores, threads, progress
            ):
                if isinstance(outputs, ImageError):
                    bad[digests[row] or dataset.files[row]] = str(outputs)
                else:
                    for k, output in zip(known, outputs, strict=True):
                        k[digests[row]] = output
        finally:
            backbone.cancel()
        trim_cache()

    width = len(next(iter(known[0].values()))) if known[0] else 0
    features = np.zeros((len(dataset), width), dtype=np.float32)
    unreadable: dict[str, str] = {}
    for row, (name, digest) in enumerate(zip(dataset.files, digests, strict=True)):
        if digest in known[0]:
            features[row] = sum(k[digest] for k in known) / np.float32(len(views))
        else:
            reason = bad.get(digest or name, f"image '{name}' cannot be read")
            original = not digest or first_row[digest] == row
            unreadable[name] = (
                reason if original else f"image '{name}' has the same bytes: {reason}"
            )
    return Extracted(features, unreadable, len(missing))


def compute(
    dataset: Dataset,
    rows: list[int],
    backbone: Preparation,
    preprocess: Preprocess,
    stores: list[FeatureStore],
    threads: int,
    progress: Progress,
) -> Iterator[tuple[int, list[NDArray[np.float32]] | ImageError]]:
    """Decode rows and run them through the backbone; each view's feature is stored before it is
    forgotten."""

    def decode_row(row: int) -> NDArray[np.uint8]:
        data = dataset.read(row)
        if hashlib.sha256(data).hexdigest() != dataset.digests[row]:
            raise ImageError(f"image '{dataset.files[row]}' changed while it was read; run again")
        return decode(data, dataset.files[row], preprocess)

    backbone.start()
    decoded = decode_ahead(rows, decode_row, dataset.files.__getitem__, preprocess, threads)
    # its threads are at work from here on, while the engine gets ready
    decoded = chain([next(decoded)], decoded)
    engine = backbone.engine()

    failed: list[tuple[int, ImageError]] = []
    in_flight: deque[list[int]] = deque()  # the rows of each batch whose outputs are due

    def readable() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for row, pixels in decoded:
            if isinstance(pixels, ImageError):
                failed.append((row, pixels))
            else:
                yield row, pixels

    def batches() -> Iterator[NDArray[np.uint8]]:
        for batch in in_batches(readable(), engine.batch):
            in_flight.append([row for row, _ in batch])
            pixels = np.stack([pixels for _, pixels in batch])
            yield pixels
            if len(stores) == 2:
                yield pixels[:, :, ::-1]

    done: list[tuple[str, list[NDArray[np.float32]]]] = []

    def store() -> None:
        for view, kept in enumerate(stores if done else []):
            kept.add(
                [digest for digest, _ in done], np.stack([outputs[view] for _, outputs in done])
            )
        done.clear()

    try:
        outputs = engine.run(batches())
        for output in outputs:
            each_view = [output, *islice(outputs, len(stores) - 1)]
            for i, row in enumerate(in_flight.popleft()):
                done.append((dataset.digests[row], [view[i] for view in each_view]))
                yield row, done[-1][1]
                progress.advance()
            if len(done) >= PART:
                store()
    finally:
        store()  # also when the run is interrupted
    yield from failed


T = TypeVar("T")


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """[a, b, c] by 2 -> [a, b], [c]"""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def trim_cache() -> None:
    """Delete the parts that were unused for longest until what is left is within LIMIT."""
    parts = []
    for part in (cache_root() / "features").glob("*/*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # another run has just removed it
            parts.append((part.stat().st_mtime, part.stat().st_size, part))
    excess = sum(size for _, size, _ in parts) - LIMIT
    for _, size, part in sorted(parts):
        if excess <= 0:
            break
        part.unlink(missing_ok=True)
        excess -= size
