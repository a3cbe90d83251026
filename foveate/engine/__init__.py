"""Engines execute a network without gradients, as fast as the machine can.

OpenVINO on CPUs, in bf16 where the CPU has it; torch elsewhere (another CPU, a CUDA or Apple GPU).
Both read uint8 pixels (N, H, W, C), normalise them inside, and give float32 rows.
"""

import importlib.util
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from foveate.data.preprocess import Preprocess
from foveate.errors import MissingExtraError, UsageError
from foveate.machine import has_gpu
from foveate.weights.starting_point import StartingPoint

# of what a backbone's engine computes (normalising, pooling): raise it when its numbers change
RULES = 2
ENGINES = ("auto", "openvino", "torch")


# uint8 of one image, (H, W, C), or of several, (n, H, W, C); of a network with several views a
# tuple of them, one a view
Pixels = NDArray[np.uint8] | tuple[NDArray[np.uint8], ...]


class Engine(Protocol):
    """Runs batches of pixels through one network."""

    batch: int  # images a batch must have at most

    def run(self, batches: Iterable[Pixels]) -> Iterator[NDArray[np.float32]]:
        """(n, H, W, C), uint8, of each view -> (n, outputs), float32, in order. Several batches are
        in flight at once."""


T = TypeVar("T")


def run_each(
    engine: Engine, items: Iterable[tuple[T, Pixels | None]]
) -> Iterator[tuple[T, NDArray[np.float32] | None]]:
    """Run images one by one through an engine, which sees them in its own batches.

    Args:
        engine: whose.
        items: a tag and an image, (H, W, C), uint8, of each view; or a tag and None, which passes
            by.

    Returns:
        Each tag with its row of outputs, (outputs,), or with None; in order.
    """
    waiting: deque[tuple[T, bool]] = deque()  # tags of what was taken; whether a row is due

    def batches() -> Iterator[Pixels]:
        batch: list[Pixels] = []
        for tag, pixels in items:
            waiting.append((tag, pixels is not None))
            if pixels is not None:
                batch.append(pixels)
            if len(batch) == engine.batch:
                yield stacked(batch)
                batch = []
        if batch:
            yield stacked(batch)

    for output in engine.run(batches()):
        for row in output:
            while not waiting[0][1]:
                yield waiting.popleft()[0], None
            yield waiting.popleft()[0], row
    while waiting:
        yield waiting.popleft()[0], None


def stacked(images: list[Pixels]) -> Pixels:
    """A batch of images, which have equally many views."""
    if isinstance(images[0], tuple):
        return tuple(np.stack(view) for view in zip(*images, strict=True))
    return np.stack(images)


def each_view(pixels: Pixels) -> tuple[NDArray[np.uint8], ...]:
    """Pixels as a tuple, one a view."""
    return pixels if isinstance(pixels, tuple) else (pixels,)


class Preparation(Protocol):
    """A backbone's engine that is being made ready in the background."""

    identity: str  # engine, version and precision: part of every cached feature's key

    def start(self) -> None:
        """Begin, if anything has to be done."""

    def engine(self) -> Engine:
        """Wait until it is ready, and give it."""

    def cancel(self) -> None:
        """Stop what was begun."""


def choose_engine(name: str = "auto") -> str:
    """The engine for this machine: "openvino" or "torch".

    Raises:
        UsageError: no such engine.
        MissingExtraError: OpenVINO was asked for and is not installed.
    """
    if name not in ENGINES:
        raise UsageError(f"no engine is called {name!r}; expected {', '.join(ENGINES)}")
    installed = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and not installed:
        raise MissingExtraError("the engine openvino is not installed: pip install openvino")
    if name != "auto":
        return name
    return "torch" if has_gpu() or not installed else "openvino"


def prepare_backbone(
    kind: str, start: StartingPoint, preprocess: Preprocess, threads: int
) -> Preparation:
    """The engine for a pretrained backbone's pooled stages.

    Args:
        kind: one of ENGINES; "auto" is resolved here, whoever asks.
        start: the network and its weights.
        preprocess: of what it will be shown.
        threads: cores to use.
    """
    if choose_engine(kind) == "openvino":
        from foveate.engine.openvino import OpenVinoBackbone

        return OpenVinoBackbone(start, preprocess, threads)
    from foveate.engine.torch import TorchBackbone

    return TorchBackbone(start, preprocess, threads)
