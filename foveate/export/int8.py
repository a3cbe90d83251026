"""ONNX in int8, within a budget of accuracy that is measured on images which the judging head did
not learn from.

    weights               int8, with a scale for each output of a layer: a quarter of the size
    1x1 and k x k         also computed in int8, by scales of the run's own training images
    convolutions
    the first layer,      computed in f32: rounding what they give costs a probe, which reads how
    depthwise ones        much a map varies, half a point to a point (docs/LOG.md)
    the head              as it is

If that costs more than the budget, all is computed in f32, from int8 weights; if that does too, it
is refused.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.arguments import option
from foveate.classifier import Classifier
from foveate.classifier.given import Given
from foveate.classifier.tta import Squares
from foveate.data.dataset import Dataset
from foveate.data.layouts import as_dataset
from foveate.data.preprocess import decode_squares
from foveate.data.splits import judging_folds, stratified_folds
from foveate.data.workers import decode_ahead
from foveate.errors import DataError, FoveateError, ImageError, UsageError
from foveate.evaluation.labels import known_labels
from foveate.export.graph import input_names
from foveate.export.onnx import onnx_package
from foveate.export.proof import Rows, data_of
from foveate.heads import Head, fit_head
from foveate.progress import Progress
from foveate.runs import HEX, read_json

BUDGET = 0.3  # points of accuracy
CALIBRATED_ON = 64  # images whose activations give the scales
JUDGED_ON = 2000  # images at most, evenly over those that there are
DIVISIONS = 4  # into folds
LEAST = 50  # images to judge by
SMALL = 1024  # numbers of a layer that stays as it is
COMPUTED, WEIGHTS = "weights and computation", "weights"

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Int8Loss:
    """What int8 costs.

    Args:
        images: that it was measured on, none of which the judging head, or the network, learnt
            from.
        accuracy: of f32 and of int8 on these.
        points: by how much the second is lower, in points.
        interval: of these points, 95 %, of the paired difference.
        budget: what was allowed.
        kind: what is int8: "weights and computation", or "weights".
    """

    images: int
    accuracy: tuple[float, float]
    points: float
    interval: tuple[float, float]
    budget: float
    kind: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Judged(NamedTuple):
    """Images to judge by.

    Args:
        squares: of each.
        labels: theirs, in the classifier's numbering.
        groups: theirs, of the run.
    """

    squares: list[Squares]
    labels: Numbers
    groups: Numbers


def quantise(
    classifier: Classifier, path: Path, images: Any, budget: float, progress: Progress
) -> Int8Loss:
    """Replace an ONNX file by one in int8.

    Args:
        classifier: that it was written from, in its run.
        path: of the file.
        images: the run's own data, as `train` takes them; found by their name if None.
        budget: points of accuracy that it may cost.

    Raises:
        FoveateError: it costs more, whatever stays in f32.
        DataError: too few of the run's images are among these.
        UsageError: the images are not a labelled set; the classifier is not in its run.
    """
    onnx = onnx_package()
    calibration, judged = material(classifier, images, progress)
    model = onnx.load(path)
    right = right_of(classifier, judged, features_of(classifier, model, judged, progress))
    found: list[Int8Loss] = []
    for kind in (COMPUTED, WEIGHTS):
        smaller = model
        if kind == COMPUTED:
            smaller = computed_in_int8(onnx, model, classifier, calibration)
        smaller = with_int8_weights(onnx, smaller)
        outputs = features_of(classifier, smaller, judged, progress)
        found.append(compare(right(None), right(outputs), budget, kind))
        if found[-1].points <= budget:
            onnx.checker.check_model(smaller)
            path.write_bytes(smaller.SerializeToString())
            return found[-1]
    raise too_costly(found)


def loss_of_weights(
    classifier: Classifier,
    model: Any,
    smaller: Any,
    images: Any,
    budget: float,
    progress: Progress,
) -> Int8Loss:
    """What it costs that some of a model's weights are int8.

    Args:
        model, smaller: `onnx.ModelProto`, before and after.
        classifier, images, budget, progress: as of `quantise`.

    Raises:
        FoveateError, DataError, UsageError: as of `quantise`.
    """
    _, judged = material(classifier, images, progress)
    right = right_of(classifier, judged, features_of(classifier, model, judged, progress))
    outputs = features_of(classifier, smaller, judged, progress)
    loss = compare(right(None), right(outputs), budget, WEIGHTS)
    if loss.points > budget:
        raise too_costly([loss])
    return loss


def too_costly(found: Sequence[Int8Loss]) -> FoveateError:
    """What to raise where int8 costs more than its budget, whatever was tried."""
    tried = "; ".join(
        f"{loss.kind} {loss.points:.2f} points ({loss.interval[0]:.2f} to {loss.interval[1]:.2f})"
        for loss in found
    )
    return FoveateError(
        f"int8 costs more accuracy than the budget of {found[0].budget:g} points allows, on "
        f"{found[0].images} images: {tried}; export it without {option('int8', True)}, or with a "
        f"larger {option('budget')}"
    )


def compare(
    before: NDArray[np.float64], after: NDArray[np.float64], budget: float, kind: str
) -> Int8Loss:
    """The paired difference of how often each image is right."""
    drop = 100 * (before - after)
    points, spread = float(drop.mean()), 1.96 * float(drop.std(ddof=1)) / len(drop) ** 0.5
    accuracy = float(before.mean()), float(after.mean())
    return Int8Loss(len(drop), accuracy, points, (points - spread, points + spread), budget, kind)


# Images


def material(
    classifier: Classifier, images: Any, progress: Progress
) -> tuple[list[Squares], Judged]:
    """Training images for the scales, and those to judge by: of a probe the images that its head
    was solved on, which are judged by heads of folds; else the run's validation split."""
    dataset = as_dataset(data_of(classifier) if images is None else images, classifier.task)
    files = read_json(classifier.run / "data.json", {"files": {str: {"split": str}}})
    names = {entry.get("sha256"): name for name, entry in files["files"].items()}
    known = [names.get(digest[:HEX], "") for digest in dataset.digests]
    split = np.array([files["files"][name]["split"] if name else "" for name in known])
    learnt = np.flatnonzero(split == "train")
    judging = ["train", "validation"] if is_probe(classifier) else ["validation"]
    held = np.flatnonzero(np.isin(split, judging))
    if len(held) < LEAST or not len(learnt):
        raise DataError(
            f"int8 is judged on at least {LEAST} of the run's own images, and {len(held)} of them "
            f"are here: name the data that it was trained on, with {option('images')}"
        )
    group = {
        name: number
        for number, entry in enumerate(files.get("groups", []))
        for name in entry.get("files", [])
    }
    held = evenly(held, JUDGED_ON)
    squares, kept = decoded(classifier, dataset, held, progress)
    labels = known_labels(dataset.select(kept), classifier.classes)
    groups = np.array([group.get(known[row], -1 - row) for row in kept])
    calibration, _ = decoded(classifier, dataset, evenly(learnt, CALIBRATED_ON), progress)
    return calibration, Judged(squares, labels, groups)


def evenly(rows: Numbers, most: int) -> Numbers:
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    return rows[places]


def decoded(
    classifier: Classifier, dataset: Dataset, rows: Numbers, progress: Progress
) -> tuple[list[Squares], Numbers]:
    """The squares of rows that can be read, and these rows."""

    def squares(row: int) -> Squares:
        return decode_squares(dataset.read(row), dataset.files[row], classifier.preprocess)

    name, threads = dataset.files.__getitem__, classifier.threads
    progress.begin("images", len(rows))
    found: list[Squares] = []
    kept: list[int] = []
    for row, outcome in decode_ahead(rows, squares, name, classifier.preprocess, threads):
        progress.advance()
        if not isinstance(outcome, ImageError):
            found.append(outcome)
            kept.append(row)
    return found, np.array(kept, np.int64)


# Judging


def is_probe(classifier: Classifier) -> bool:
    """Whether the head was solved on frozen features, so that it can be solved once more without a
    fold."""
    return classifier.card.get("recipe") == "probe"


def right_of(
    classifier: Classifier, judged: Judged, outputs: NDArray[np.float32]
) -> Callable[[NDArray[np.float32] | None], NDArray[np.float64]]:
    """A function from what a network says of the judged images to whether each is right, 0 or 1;
    None is `outputs`, what it said in f32.

    Of a probe it is features, read by heads that were solved in f32 without the image's fold, and
    the share of several divisions into folds in which the image is right: with one division alone,
    a few images at the edge between two classes would decide.
    """
    decision, labels = classifier.decision, judged.labels

    def right(probabilities: NDArray[Any]) -> NDArray[np.float64]:
        given = decision.answers(probabilities)
        if labels.ndim == 2:
            return (given == (labels == 1)).all(axis=1).astype(np.float64)
        return given[np.arange(len(labels)), labels].astype(np.float64)

    if not is_probe(classifier):
        return lambda found: right(outputs if found is None else found)
    classes, threads = len(classifier.classes), classifier.threads
    penalty: float | None = None
    heads: list[tuple[Numbers, list[Head]]] = []  # of each division into folds
    for seed in range(DIVISIONS):
        folds = judging_folds(labels, judged.groups, seed)
        if folds.max() < 0:
            raise DataError("int8 cannot be judged: all images of each class are of one group")
        if penalty is None:
            penalty = fit_head(outputs, labels, folds, classes, threads).penalty
        heads.append((folds, []))
        for fold in range(folds.max() + 1):
            rows = folds != fold
            halves = stratified_folds(labels[rows], judged.groups[rows], 2, seed)
            found = outputs[rows], labels[rows], halves, classes, threads
            heads[-1][1].append(fit_head(*found, penalties=(penalty,)))

    def by_folds(found: NDArray[np.float32] | None) -> NDArray[np.float64]:
        features = outputs if found is None else found
        shares = []
        for folds, solved in heads:
            logits = np.zeros((len(features), classes), np.float32)
            for fold, head in enumerate(solved):
                rows = folds == fold
                logits[rows] = features[rows] @ head.weight.T + head.bias
            shares.append(right(decision.probabilities(logits)))
        judged_ever = heads[0][0] >= 0  # the same in every division
        return np.mean(shares, axis=0)[judged_ever]

    return by_folds


def features_of(
    classifier: Classifier, model: Any, judged: Judged, progress: Progress
) -> NDArray[np.float32]:
    """What a model says of the judged images: of a probe what its head reads, else probabilities,
    (N, outputs)."""
    import onnxruntime

    onnx = onnx_package()
    name = read_by_head(model) if is_probe(classifier) else model.graph.output[0].name
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    if is_probe(classifier):
        float32 = onnx.TensorProto.FLOAT
        asked.graph.output.append(onnx.helper.make_tensor_value_info(name, float32, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = classifier.threads
    session = onnxruntime.InferenceSession(
        asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    progress.begin("judged", len(judged.squares))
    rows = []
    for squares in judged.squares:
        rows.append(session.run([name], fed(classifier, squares))[0])
        progress.advance()
    return np.concatenate(rows)


def run_model(path: Path, classifier: Classifier, files: Iterable[Path]) -> Rows:
    """What a model says of files, decoded as the classifier decodes them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = [Given(str(file), file) for file in files]
    found: Rows = {}
    for image, squares in classifier.decoded(given, "none"):
        if not isinstance(squares, ImageError):
            row = session.run(None, fed(classifier, squares))[0][0]
            found[image.content] = row.astype(np.float64)
    return found


def fed(classifier: Classifier, squares: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    """One image as a model's inputs."""
    pairs = zip(input_names(classifier), squares, strict=True)
    return {name: np.ascontiguousarray(pixels[None]) for name, pixels in pairs}


def read_by_head(model: Any) -> str:
    """The name of the features of a probe: `attach_head` multiplies them, as a column, by weights
    (1, width, classes)."""
    weights = {w.name for w in model.graph.initializer if len(w.dims) == 3 and w.dims[0] == 1}
    columns = {node.output[0]: node.input[0] for node in model.graph.node if is_column(node)}
    for node in model.graph.node:
        if node.op_type == "Mul" and node.input[1] in weights and node.input[0] in columns:
            return str(columns[node.input[0]])
    raise UsageError(
        "int8 reads a probe's features in its graph, and this classifier's graph is of another "
        "form: train it again"
    )


def is_column(node: Any) -> bool:
    return bool(node.op_type == "Unsqueeze")


# Rounding


def computed_in_int8(
    onnx: Any, model: Any, classifier: Classifier, calibration: list[Squares]
) -> Any:
    """The model with its convolutions in int8, but the first and the depthwise ones.

    Weights have 7 bits here: processors without VNNI add pairs of products in 16 bits, which 8
    would overflow.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # its package has no types
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            squares = next(self.left, None)
            return None if squares is None else fed(classifier, squares)

    shapes = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    exact = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and stays(node, shapes, classifier.preprocess.channels)
    ]
    with TemporaryDirectory() as folder, quiet_root():
        before, after = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        quantization.quantize_static(
            before,
            after,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=exact,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(after)


def stays(node: Any, shapes: dict[str, list[int]], channels: int) -> bool:
    """Whether a convolution is computed in f32: one of groups, or one that reads pixels."""
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    weight = shapes.get(node.input[1])
    return groups > 1 or weight is None or weight[1] == channels


def with_int8_weights(onnx: Any, model: Any) -> Any:
    """The model with the weights that are left in f32, of convolutions and matrices, as int8."""
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    graph, nodes = smaller.graph, []
    read = {name for node in graph.node if node.op_type in KINDS for name in node.input}
    for weight in list(graph.initializer):
        value = onnx.numpy_helper.to_array(weight)
        large = value.dtype == np.float32 and value.size >= SMALL
        if not large or value.ndim not in (2, 4) or weight.name not in read:
            continue
        scale = np.abs(value).reshape(len(value), -1).max(axis=1) / 127
        scale[scale == 0] = 1
        steps = np.round(value / scale.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
        graph.initializer.remove(weight)
        named = [f"{weight.name}_int8", f"{weight.name}_scale"]
        for array, name in zip((steps, scale.astype(np.float32)), named, strict=True):
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        nodes.append(onnx.helper.make_node("DequantizeLinear", named, [weight.name], axis=0))
    for number, node in enumerate(nodes):
        graph.node.insert(number, node)
    return smaller


KINDS = ("Conv", "MatMul", "Transpose")  # what reads weights; matrices may be turned first


@contextmanager
def quiet_root() -> Iterator[None]:
    """No warnings of ONNX Runtime's quantiser, and no handler left behind: it logs to the root."""
    root, handler = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def described(loss: Int8Loss) -> str:
    """The loss in words."""
    before, after = (f"{100 * share:.2f} %" for share in loss.accuracy)
    return (
        f"int8 ({loss.kind}): {after} right where f32 has {before}, {loss.points:+.2f} points lost "
        f"(95 % interval {loss.interval[0]:.2f} to {loss.interval[1]:.2f}, budget "
        f"{loss.budget:g}) on {loss.images} images that the judging head did not learn from"
    )
