"""Engines execute a network without gradients, as fast as the machine can.

OpenVINO on CPUs, in bf16 where the CPU has it; torch elsewhere (another CPU, a CUDA or Apple GPU).
Both read uint8 pixels (N, H, W, C), normalise them inside, and give float32 rows.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.data.preprocess import Preprocess
from foveate.errors import MissingExtraError, UsageError
from foveate.machine import has_gpu

# of what a backbone's engine computes (normalising, pooling): raise it when its numbers change
RULES = 1
ENGINES = ("auto", "openvino", "torch")


class Engine(Protocol):
    """Runs batches of pixels through one network."""

    batch: int  # images a batch must have at most

    def run(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """(n, H, W, C), uint8 -> (n, outputs), float32, in order. Several batches are in flight at
        once."""


class Preparation(Protocol):
    """A backbone's engine that is being made ready in the background."""

    identity: str  # engine, version and precision: part of every cached feature's key

    def start(self) -> None:
        """Begin, if anything has to be done."""

    def engine(self) -> Engine:
        """Wait until it is ready, and give it."""

    def cancel(self) -> None:
        """Stop what was begun."""


def choose_engine(wish: str = "auto") -> str:
    """The engine for this machine: "openvino" or "torch".

    Raises:
        UsageError: no such engine.
        MissingExtraError: OpenVINO was asked for and is not installed.
    """
    if wish not in ENGINES:
        raise UsageError(f"no engine is called '{wish}'; expected {', '.join(ENGINES)}")
    installed = importlib.util.find_spec("openvino") is not None
    if wish == "openvino" and not installed:
        raise MissingExtraError("the engine openvino is not installed: pip install openvino")
    if wish != "auto":
        return wish
    return "torch" if has_gpu() or not installed else "openvino"


def prepare_backbone(kind: str, network: str, preprocess: Preprocess, threads: int) -> Preparation:
    """The engine for a pretrained backbone's pooled stages."""
    if kind == "openvino":
        from foveate.engine.openvino import OpenVinoBackbone

        return OpenVinoBackbone(network, preprocess, threads)
    from foveate.engine.torch import TorchBackbone

    return TorchBackbone(network, preprocess, threads)
