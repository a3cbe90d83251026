"""OpenVINO: the only module that imports it, and only after its telemetry has been taken away.

Importing OpenVINO loads `openvino_telemetry`, which writes into the home folder and calls an
analytics host. With None in its place in `sys.modules` the import fails inside OpenVINO, which then
goes without. Its converter, which takes more than half of the import and predicting does not need,
is imported when it is first called.
"""

import functools
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.data.preprocess import MOST, Preprocess
from foveate.engine import Engine, Pixels, each_view
from foveate.engine.conversion import backbone_graph, graph_path, is_whole
from foveate.errors import ArtefactError, FoveateError, printable, quoted
from foveate.machine import instructions
from foveate.progress import Silent
from foveate.storage import check_regular
from foveate.weights.starting_point import Published, StartingPoint

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
CONVERTER = "openvino.tools.ovc"
# how a graph ends, from its last operation on: as `attach_head` makes it, and a linear layer
PROBES_HEAD = ("Result", "Add", "ReduceSum", "Multiply", "Unsqueeze")
LINEAR_HEAD = ("Result", "Add", "MatMul")
later = "openvino" not in sys.modules and CONVERTER not in sys.modules
if later:
    sys.modules[CONVERTER] = None  # type: ignore[assignment]  # OpenVINO then goes without
import openvino as ov  # noqa: E402  # after its telemetry was taken away


def convert_model(*given: Any, **options: Any) -> Any:
    """`openvino.convert_model`."""
    from openvino.tools.ovc import convert_model

    return convert_model(*given, **options)


if later:
    del sys.modules[CONVERTER]
    ov.convert_model = convert_model  # where others in this process look for it

# OpenVINO fills its tables of types when the first array of a process becomes a tensor, under a
# lock of its own. Of two threads that came there together, one waited with that lock and the other
# with Python's, for ever; here only one thread imports.
ov.Type.u8.to_dtype()
ov.Tensor(np.zeros(1, np.uint8), shared_memory=True).data.tobytes()

__all__ = [
    "Branch",
    "OpenVinoBackbone",
    "OpenVinoEngine",
    "OpenVinoMaps",
    "attach_head",
    "core",
    "identity",
    "ov",
    "precision",
    "save_graph",
    "with_features",
    "without_head",
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
        graph: an OpenVINO model, or the path of its .xml; one input (N, H, W, C) uint8 a view, one
            output (N, outputs).
        threads: cores to use.
        precision_hint: "bf16" or "f32"; what the CPU does best by default.
        batch: images at once, at most; by their size by default.
        few: whether it will run only an image or two. The network is then compiled once, for all
            cores together, not once for each: it takes two thirds of the time.
    """

    def __init__(
        self,
        graph: Any,
        threads: int,
        precision_hint: str | None = None,
        batch: int | None = None,
        few: bool = False,
    ):
        self.name = quoted(graph.name) if isinstance(graph, Path) else "the graph"
        model = read_graph(graph) if isinstance(graph, Path) else graph
        shapes = [list(end.get_partial_shape()) for end in model.inputs]
        pixels = sum(h.get_length() * w.get_length() for _, h, w, _ in shapes)
        # a stream works on one photo: 4 win 10 % alone and lose them again beside the decoder
        # (docs/LOG.md); of small images it works on several, or handing them over would be most of
        # it
        self.batch = batch or max(1, PIXELS // pixels)
        images = 1 if self.batch == 1 else ov.Dimension(1, self.batch)
        model.reshape({i: [images, *shape[1:]] for i, shape in enumerate(shapes)})
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": 1 if few else threads,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision_hint or precision(),
        }
        try:
            self.compiled = core().compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise ArtefactError(f"{self.name} cannot be compiled: {last_line(error)}") from error
        # of one image, each view, and of its row
        self.views = tuple(shape_of_one(end) for end in self.compiled.inputs)
        self.row = shape_of_one(self.compiled.output(0))
        self.requests = threads + 2  # in flight at once: one a core, and two that wait
        self.idle: deque[Any] = deque()  # requests of earlier runs

    def request(self) -> Any:
        """A request that nobody uses."""
        try:
            return self.idle.pop()
        except IndexError:
            return self.compiled.create_infer_request()

    def run(self, batches: Iterable[Pixels]) -> Iterator[NDArray[np.float32]]:
        # with the pixels, which the request reads where they are
        busy: deque[tuple[Any, list[NDArray[np.uint8]]]] = deque()

        def finish() -> NDArray[np.float32]:
            request, views = busy.popleft()
            try:
                request.wait()
                rows = np.array(request.get_output_tensor().data, dtype=np.float32)
            except RuntimeError as error:
                raise ArtefactError(f"{self.name} cannot be run: {last_line(error)}") from error
            if rows.shape != (len(views[0]), *self.row):
                raise ArtefactError(
                    f"{self.name} gives {rows.shape} for {len(views[0])} images; expected a row of "
                    f"{self.row[0]} each"
                )
            self.idle.append(request)
            return rows

        for pixels in batches:
            if len(busy) == self.requests:
                yield finish()
            request, views = self.request(), list(map(np.ascontiguousarray, each_view(pixels)))
            request.start_async(dict(enumerate(views)), share_inputs=True)
            busy.append((request, views))
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
        self.ready: Engine | None = None

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
        if self.ready is not None:
            return self.ready
        self.start()
        if self.process is not None:
            _, output = self.process.communicate()
            if self.process.returncode != 0:
                raise FoveateError(
                    f"{self.origin.name} could not be converted for OpenVINO: "
                    f"{output.strip()[-2000:]}"
                )
        self.ready = OpenVinoEngine(backbone_graph(self.origin, self.preprocess), self.threads)
        return self.ready

    def cancel(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def read_graph(path: Path) -> Any:
    """Read an .xml and its .bin; ArtefactError unless they are a graph from pixels (N, H, W, C),
    uint8, of each view to rows (N, outputs), float32, as `save_graph` writes them."""
    name = quoted(path.name)
    try:
        check_regular(path)
        check_regular(path.with_suffix(".bin"))
        model = core().read_model(path)
    except (OSError, RuntimeError) as error:
        raise ArtefactError(f"{name} is not an OpenVINO graph: {last_line(error)}") from error
    if not 1 <= len(model.inputs) <= MOST or len(model.outputs) != 1:
        raise ArtefactError(
            f"{name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; expected one "
            f"output, and one input a view, at most {MOST}"
        )
    rows = model.output(0)
    fits = (
        all(pixels.get_element_type() == ov.Type.u8 for pixels in model.inputs)
        and rows.get_element_type() == ov.Type.f32
        and all(sizes_after_the_first(pixels, 4) for pixels in model.inputs)
        and sizes_after_the_first(rows, 2)
    )
    if not fits:
        inputs = " and ".join(described(pixels) for pixels in model.inputs)
        raise ArtefactError(
            f"{name} maps {inputs} to {described(rows)}; expected pixels (N, H, W, C) of type u8 "
            "and rows (N, outputs) of type f32"
        )
    return model


def shape_of_one(end: Any) -> tuple[int, ...]:
    """The shape of an input or output of one image."""
    return tuple(d.get_min_length() for d in end.partial_shape)[1:]


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
    """Write an .xml and its .bin, weights as they are (not halved to f16). The same graph is the
    same bytes."""
    for i, op in enumerate(model.get_ordered_ops()):
        name = op.get_friendly_name()
        if re.fullmatch(rf"{op.get_type_name()}_\d+", name):  # counted since the process began
            op.set_friendly_name(f"{op.get_type_name()}_{i}")
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
    branches: Sequence["Branch"], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> Any:
    """The graphs of backbones with one linear head: pixels of each view -> logits, the Probe as one
    graph.

    Args:
        branches: side by side, as the head reads them.
        weight, bias: (classes, width) and (classes,).
    """
    ops = ov.opset13
    pixels: list[Any] = []  # an input a view
    pooled: list[Any] = []
    for branch in branches:
        inputs, outputs = pooled_views(branch)
        pixels += inputs
        pooled += outputs
    for number, end in enumerate(pixels, 1):
        name = "pixels" if number == 1 else f"pixels_{number}"
        end.set_friendly_name(name)
        end.output(0).set_names({name})
    features = pooled[0] if len(pooled) == 1 else ops.concat(pooled, axis=1)
    # Multiplied and summed, not a MatMul: OpenVINO computes everything up to the last convolution
    # or MatMul in bf16 and what follows in f32, so this way pooling and head keep the precision in
    # which the head was solved.
    # Summed along axis 1: along the last axis OpenVINO 2026.4 adds the bias wrongly to every batch
    # of several images.
    turned = np.ascontiguousarray(weight.T[None])  # (1, width, classes)
    column = ops.unsqueeze(features, ops.constant(np.int64(2)))
    products = ops.multiply(column, ops.constant(turned))
    logits = ops.add(
        ops.reduce_sum(products, ops.constant(np.int64(1))), ops.constant(bias[None, :])
    )
    result = ops.result(logits)
    result.output(0).set_names({"logits"})
    return ov.Model([result], pixels, "probe")


def without_head(path: Path) -> Any:
    """The graph of a probe, as `attach_head` made it, up to what its head reads: pixels of each
    view -> (N, width); ArtefactError if it ends otherwise."""
    model = read_graph(path)
    return ov.Model(
        [ov.opset13.result(head_input(model, path, PROBES_HEAD))],
        model.get_parameters(),
        "features",
    )


def with_features(model: Any, path: Path) -> Any:
    """A graph in whose rows what its linear head reads comes after the logits: pixels of each view
    -> (N, classes + width); ArtefactError, which names the path, if it ends otherwise."""
    features = head_input(model, path, PROBES_HEAD, LINEAR_HEAD)
    logits = model.output(0).get_node().input_value(0)
    both = ov.opset13.concat([logits, features], axis=1)
    return ov.Model([ov.opset13.result(both)], model.get_parameters(), "with features")


class OpenVinoMaps:
    """The graph of a probe with the maps of its backbones as further outputs; one image at a time.

    Args:
        path: of the graph, as `attach_head` made it.
        views: how many views each backbone reads, in the order in which the head reads them.
        mirror: whether it sees the mirror images too.
        threads: cores to use.

    Raises:
        ArtefactError: the graph is no probe's.
    """

    def __init__(self, path: Path, views: Sequence[int], mirror: bool, threads: int):
        model = read_graph(path)
        self.views, self.mirror, self.name = views, mirror, quoted(path)
        read = pooled_inputs(head_input(model, path, PROBES_HEAD), sum(views), path)
        ends = [[*read[sum(views[:i])]] for i in range(len(views))]  # a backbone's views share them
        results = [ov.opset13.result(end) for maps in ends for end in maps]
        self.counts = [len(maps) for maps in ends]
        graph = ov.Model(results, model.get_parameters(), "maps")
        graph.reshape(
            {i: [1, *list(p.get_partial_shape())[1:]] for i, p in enumerate(graph.inputs)}
        )
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision()}
        try:
            self.compiled = core().compile_model(graph, "CPU", options)
        except RuntimeError as error:
            raise ArtefactError(f"{self.name} cannot be compiled: {last_line(error)}") from error

    def of(self, pixels: Sequence[NDArray[np.uint8]]) -> list[list[list[NDArray[np.float32]]]]:
        """(H, W, C), uint8, of each view -> of each view the maps, each (C_i, H_i, W_i), of the
        image and, if it is seen, of its mirror image."""
        batch = {i: np.ascontiguousarray(view[None]) for i, view in enumerate(pixels)}
        try:
            outputs = [np.array(output) for output in self.compiled(batch).values()]
        except RuntimeError as error:
            raise ArtefactError(f"{self.name} cannot be run: {last_line(error)}") from error
        found = []
        for views, count in zip(self.views, self.counts, strict=True):
            maps, outputs = outputs[:count], outputs[count:]
            for view in range(views):  # after all views come their mirror images
                rows = [view, view + views] if self.mirror else [view]
                found.append([[m[row] for m in maps] for row in rows])
        return found


def pooled_inputs(features: Any, views: int, path: Path) -> list[list[Any]]:
    """The maps that are pooled to what a head reads, of each view, from early to late."""
    node = features.get_node()
    each = [features] if views == 1 else [end.get_source_output() for end in node.inputs()]
    found = [list(dict.fromkeys(pooled_from(end))) for end in each]
    if len(found) != views or not all(found):
        raise ArtefactError(
            f"{quoted(path)} does not pool the maps of {views} views as a probe does; train again"
        )
    return found


def pooled_from(end: Any) -> Iterator[Any]:
    """The maps, (N, C, H, W), that a part of a probe's pooling reads: what is neither a part of a
    map, nor its deviation from its mean, nor the square of that."""
    node = end.get_node()
    kind = node.get_type_name()
    inputs = [] if kind == "Constant" else [part.get_source_output() for part in node.inputs()]
    if len(end.get_partial_shape()) == 4:
        deviation = kind == "Subtract" and inputs[1].get_node().get_type_name() == "ReduceMean"
        square = kind == "Power" or (kind == "Multiply" and inputs[0] == inputs[1])
        if not (deviation or square or kind in ("Slice", "StridedSlice")):
            yield end
            return
        inputs = inputs[:1]
    for part in inputs:
        yield from pooled_from(part)


def head_input(model: Any, path: Path, *heads: tuple[str, ...]) -> Any:
    """What the head reads, in a graph that ends in one of `heads`."""
    result = model.output(0).get_node()
    for kinds in heads:
        node, features = result, None
        for kind in kinds:
            if node.get_type_name() != kind:
                break
            features = node.input_value(0)
            node = features.get_node()
        else:
            return features
    raise ArtefactError(f"{quoted(path)} does not end in the head that is expected; train again")


class Branch(NamedTuple):
    """One backbone of a probe.

    Args:
        graph: of its pooled stages, or the path of its .xml.
        views: how many it reads.
        mirror: also show it the mirror image of each, and average the two.
    """

    graph: Any
    views: int = 1
    mirror: bool = False


def pooled_views(branch: Branch) -> tuple[list[Any], list[Any]]:
    """A branch's inputs, and what it makes of each view, (N, width). The backbone sees all views,
    and their mirror images, in one batch."""
    ops = ov.opset13
    model = read_graph(branch.graph) if isinstance(branch.graph, Path) else branch.graph
    given, pooled = model.input(0), model.output(0).get_node().input_value(0)
    if branch.views == 1 and not branch.mirror:
        return [given.get_node()], [pooled]
    shape, readers = given.get_partial_shape(), list(given.get_target_inputs())
    inputs = [given.get_node()]
    inputs += [ops.parameter(shape, np.uint8) for _ in range(branch.views - 1)]
    seen: list[Any] = list(inputs)
    if branch.mirror:
        columns = ops.constant(np.int64(2))
        width = ops.gather(ops.shape_of(inputs[0]), columns, ops.constant(np.int64(0)))
        backwards = ops.range(ops.subtract(width, np.int64(1)), np.int64(-1), np.int64(-1), "i64")
        seen += [ops.gather(pixels, backwards, columns) for pixels in inputs]
    together = ops.concat(seen, axis=0)
    for reader in readers:
        reader.replace_source_output(together.output(0))
    parts = ops.split(pooled, 0, len(seen)).outputs()
    if not branch.mirror:
        return inputs, parts
    pairs = zip(parts[: branch.views], parts[branch.views :], strict=True)
    return inputs, [ops.multiply(ops.add(a, b), np.float32(0.5)).output(0) for a, b in pairs]
