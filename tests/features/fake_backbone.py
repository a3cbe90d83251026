"""A small numpy engine in place of the backbone, so that every number can be computed by hand."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.data.preprocess import Preprocess, decode
from foveate.features import Extracted, extract
from foveate.progress import Silent
from foveate.storage import cache_root
from foveate.weights.starting_point import find_start

PREPROCESS = Preprocess(32, 32)


def features_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) -> (N, 6): the mean colours of the left half and of the whole."""
    x = pixels.astype(np.float32)
    return np.concatenate(
        [x[:, :, : x.shape[2] // 2].mean(axis=(1, 2)), x.mean(axis=(1, 2))], axis=1
    )


class FakeEngine:
    batch = 3

    def __init__(self) -> None:
        self.seen = 0

    def run(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        waiting: list[NDArray[np.uint8]] = []  # three in flight, as a real engine has
        for pixels in batches:
            assert 1 <= len(pixels) <= self.batch
            self.seen += len(pixels)
            waiting.append(pixels)
            if len(waiting) == 3:
                yield features_of(waiting.pop(0))
        yield from map(features_of, waiting)


class FakeBackbone:
    identity = "fake 1 f32"

    def __init__(self) -> None:
        self.made: list[FakeEngine] = []
        self.started = self.cancelled = 0

    def start(self) -> None:
        self.started += 1

    def engine(self) -> FakeEngine:
        self.made.append(FakeEngine())
        return self.made[-1]

    def cancel(self) -> None:
        self.cancelled += 1


def extracted(
    root: Path | Dataset, mirror: bool = False, preprocess: Preprocess = PREPROCESS, **more: object
) -> Extracted:
    dataset = load_dataset(root) if isinstance(root, Path) else root
    progress = more.pop("progress", Silent())
    return extract(
        dataset, find_start("efficientnet_lite0"), preprocess, mirror, "openvino", 2, progress
    )


def by_hand(root: Path, mirror: bool = False) -> NDArray[np.float32]:
    """Decoded one by one, without cache or engine."""
    dataset = load_dataset(root)
    pixels = np.stack([decode(dataset.read(i), "", PREPROCESS) for i in range(len(dataset))])
    plain = features_of(pixels)
    return (plain + features_of(pixels[:, :, ::-1])) / 2 if mirror else plain


def parts() -> list[Path]:
    return sorted((cache_root() / "features").glob("*/*.safetensors"))
