"""OpenVINO: the only module that imports it, and only after its telemetry has been taken away.

Importing OpenVINO loads `openvino_telemetry`, which writes into the home folder and calls an
analytics host. With None in its place in `sys.modules` the import fails inside OpenVINO, which then
goes without.
"""

import functools
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.data.preprocess import Preprocess
from foveate.engine import Engine
from foveate.engine.conversion import backbone_graph, graph_path, is_whole
from foveate.errors import ArtefactError, FoveateError, printable, quoted
from foveate.machine import instructions
from foveate.progress import Silent
from foveate.storage import check_regular
from foveate.weights.starting_point import Published, StartingPoint

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402  # after its telemetry was taken away

__all__ = [
    "OpenVinoBackbone",
    "OpenVinoEngine",
    "attach_head",
    "core",
    "identity",
    "ov",
    "precision",
    "save_graph",
]


BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # instruction sets; the last is ARM's
PIXELS = 224 * 224  # that a stream works on at once: a photo


def core() -> Any:
    """OpenVINO's core of this process: one that was made before a fork has lost its threads."""
    return core_of(os.getpid())


@functools.cache
def core_of(process: int) -> Any:
    return ov.Core()


@functools.cache
def precision() -> str:
    """bf16 where the CPU computes in it, else f32. Where the system lists instruction sets, one of
    them has to be bf16's: tests name others to run as on another processor."""
    known = instructions()
    able = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if able and (not known or BF16 & known) else "f32"


def identity() -> str:
    return f"openvino {ov.__version__} {precision()}"


class OpenVinoEngine:
    """A compiled graph; several threads may run it at once.

    Args:
        graph: an OpenVINO model, or the path of its .xml; one input (N, H, W, C) uint8, one output
            (N, outputs).
        threads: cores to use.
        precision_hint: "bf16" or "f32"; what the CPU does best by default.
        batch: images at once, at most; by their size by default.
    """

    def __init__(
        self, graph: Any, threads: int, precision_hint: str | None = None, batch: int | None = None
    ):
        self.name = quoted(graph.name) if isinstance(graph, Path) else "the graph"
        model = read_graph(graph) if isinstance(graph, Path) else graph
        height, width = list(model.input(0).get_partial_shape())[1:3]
        # a stream works on one photo: 4 win 10 % alone and lose them again beside the decoder
        # (docs/LOG.md); of small images it works on several, or handing them over would be most of
        # it
        self.batch = batch or max(1, PIXELS // (height.get_length() * width.get_length()))
        model.reshape(
            [
                1 if self.batch == 1 else ov.Dimension(1, self.batch),
                *list(model.input(0).partial_shape)[1:],
            ]
        )
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision_hint or precision(),
        }
        try:
            self.compiled = core().compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise ArtefactError(f"{self.name} cannot be compiled: {last_line(error)}") from error
        ends = self.compiled.input(0).partial_shape, self.compiled.output(0).partial_shape
        # of one image, and of its row
        self.shape = tuple(tuple(d.get_min_length() for d in end)[1:] for end in ends)
        self.requests = threads + 2  # in flight at once: one a core, and two that wait

    def run(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        free = deque(self.compiled.create_infer_request() for _ in range(self.requests))
        # with the pixels, which the request reads where they are
        busy: deque[tuple[Any, NDArray[np.uint8]]] = deque()

        def finish() -> NDArray[np.float32]:
            request, pixels = busy.popleft()
            try:
                request.wait()
                rows = np.array(request.get_output_tensor().data, dtype=np.float32)
            except RuntimeError as error:
                raise ArtefactError(f"{self.name} cannot be run: {last_line(error)}") from error
            if rows.shape != (len(pixels), *self.shape[1]):
                raise ArtefactError(
                    f"{self.name} gives {rows.shape} for {len(pixels)} images; expected a row of "
                    f"{self.shape[1][0]} each"
                )
            free.append(request)
            return rows

        for pixels in batches:
            if not free:
                yield finish()
            request, pixels = free.popleft(), np.ascontiguousarray(pixels)
            request.start_async({0: pixels}, share_inputs=True)
            busy.append((request, pixels))
        while busy:
            yield finish()


class OpenVinoBackbone:
    """A pretrained backbone: its graph comes from the cache. That of published weights is otherwise
    converted in a process of its own, since that needs torch, which takes seconds and half a
    gigabyte that this process never has to spend; that of a network in memory is converted here."""

    def __init__(self, start: StartingPoint, preprocess: Preprocess, threads: int):
        self.identity = identity()
        self.origin, self.preprocess, self.threads = start, preprocess, threads
        module, size = "foveate.engine.conversion", str(preprocess.crop)
        self.command = [sys.executable, "-m", module, start.name, size]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self.process is not None or not isinstance(self.origin, Published):
            return
        if not is_whole(graph_path(self.origin, self.preprocess)):
            # fetched here and now, or said here and now that the package is missing
            self.origin.fetch(Silent())
            self.process = subprocess.Popen(
                self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )

    def engine(self) -> Engine:
        self.start()
        if self.process is not None:
            _, output = self.process.communicate()
            if self.process.returncode != 0:
                raise FoveateError(
                    f"{self.origin.name} could not be converted for OpenVINO: "
                    f"{output.strip()[-2000:]}"
                )
        return OpenVinoEngine(backbone_graph(self.origin, self.preprocess), self.threads)

    def cancel(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def read_graph(path: Path) -> Any:
    """Read an .xml and its .bin; ArtefactError unless they are a graph from pixels (N, H, W, C),
    uint8, to rows (N, outputs), float32, as `save_graph` writes them."""
    name = quoted(path.name)
    try:
        check_regular(path)
        check_regular(path.with_suffix(".bin"))
        model = core().read_model(path)
    except (OSError, RuntimeError) as error:
        raise ArtefactError(f"{name} is not an OpenVINO graph: {last_line(error)}") from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ArtefactError(
            f"{name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; expected one "
            "each"
        )
    pixels, rows = model.input(0), model.output(0)
    fits = (
        pixels.get_element_type() == ov.Type.u8
        and rows.get_element_type() == ov.Type.f32
        and sizes_after_the_first(pixels, 4)
        and sizes_after_the_first(rows, 2)
    )
    if not fits:
        raise ArtefactError(
            f"{name} maps {described(pixels)} to {described(rows)}; expected pixels (N, H, W, C) "
            "of type u8 and rows (N, outputs) of type f32"
        )
    return model


def sizes_after_the_first(end: Any, rank: int) -> bool:
    """Whether an input or output is of this rank, and of a fixed size but for the images."""
    shape = end.get_partial_shape()
    return bool(
        shape.rank.is_static
        and shape.rank.get_length() == rank
        and all(d.is_static and 0 < d.get_length() < 2**31 for d in list(shape)[1:])
    )


def described(end: Any) -> str:
    return f"{end.get_partial_shape()} {end.get_element_type().get_type_name()}"


def last_line(error: Exception) -> str:
    """OpenVINO's reason, which comes after where in its source it was found."""
    lines = str(error).strip().splitlines()
    return printable(lines[-1][:200]) if lines else type(error).__name__


def save_graph(model: Any, path: Path) -> None:
    """Write an .xml and its .bin, weights as they are (not halved to f16)."""
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise FoveateError(
            f"{quoted(path)} could not be written ({last_line(error)}); is the disk full?"
        ) from error


def as_read_back(model: Any) -> Any:
    """The model that `read_graph` gives of what `save_graph` wrote."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "graph.xml"
        save_graph(model.clone(), path)
        xml, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    return core().read_model(xml, weights)


def attach_head(
    backbone: Any, weight: NDArray[np.float32], bias: NDArray[np.float32], mirror: bool
) -> Any:
    """The backbone's graph with a linear head: pixels -> logits, the Probe as one graph.

    Args:
        backbone: the graph of the pooled stages, or the path of its .xml.
        weight, bias: (classes, width) and (classes,).
        mirror: also show the backbone the mirror image, in the same batch, and average the two.
    """
    ops = ov.opset13
    model = read_graph(backbone) if isinstance(backbone, Path) else backbone
    pixels, pooled = model.input(0), model.output(0).get_node().input_value(0)
    if mirror:
        readers = list(pixels.get_target_inputs())
        columns = ops.constant(np.int64(2))
        width = ops.gather(ops.shape_of(pixels), columns, ops.constant(np.int64(0)))
        backwards = ops.range(ops.subtract(width, np.int64(1)), np.int64(-1), np.int64(-1), "i64")
        both = ops.concat([pixels, ops.gather(pixels, backwards, columns)], axis=0)
        for reader in readers:
            reader.replace_source_output(both.output(0))
        halves = ops.split(pooled, 0, 2)
        pooled = ops.multiply(ops.add(halves.output(0), halves.output(1)), np.float32(0.5)).output(
            0
        )
    # Multiplied and summed, not a MatMul: OpenVINO computes everything up to the last convolution
    # or MatMul in bf16 and what follows in f32, so this way pooling and head keep the precision in
    # which the head was solved.
    # Summed along axis 1: along the last axis OpenVINO 2026.4 adds the bias wrongly to every batch
    # of several images.
    turned = np.ascontiguousarray(weight.T[None])  # (1, width, classes)
    products = ops.multiply(ops.unsqueeze(pooled, ops.constant(np.int64(2))), ops.constant(turned))
    logits = ops.add(
        ops.reduce_sum(products, ops.constant(np.int64(1))), ops.constant(bias[None, :])
    )
    result = ops.result(logits)
    result.output(0).set_names({"logits"})
    return ov.Model([result], [pixels.get_node()], "probe")
