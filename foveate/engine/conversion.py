"""A pretrained backbone as an OpenVINO graph: uint8 pixels (N, H, W, C) -> its pooled stages (N,
width).

Run as `python -m foveate.engine.conversion NETWORK SIZE`; it writes into the cache. It needs torch,
and is the only thing on the way from images to a probe that does.
"""

import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.data.preprocess import Preprocess
from foveate.engine import RULES
from foveate.errors import FoveateError
from foveate.progress import unmonitored
from foveate.storage import cache_root, fingerprint, read_bytes, replacing, sha256
from foveate.weights.starting_point import StartingPoint, find_start

if TYPE_CHECKING:
    from torch import nn

STAMP = "SHA256"


def graph_path(start: StartingPoint, preprocess: Preprocess) -> Path:
    """Where the graph is kept: one for each network, its weights, the images' size, and what reads
    and writes it."""
    made = {
        "network": start.name,
        "weights": start.identity,
        "size": preprocess.crop,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "openvino": version("openvino"),
        "rules": RULES,
    }
    name = re.sub(r"[^\w.-]+", "-", start.name)
    made_of = fingerprint(made)[:16]
    return cache_root() / "networks" / f"{name}-{preprocess.crop}-{made_of}" / "graph.xml"


def graph_hash(path: Path) -> str:
    return f"{sha256(path)} {sha256(path.with_suffix('.bin'))}"


def is_whole(path: Path) -> bool:
    """Whether the graph is there and its bytes are those that were written."""
    try:
        return read_bytes(path.parent / STAMP).strip() == graph_hash(path).encode()
    except OSError:
        return False


def backbone_graph(start: StartingPoint, preprocess: Preprocess) -> Any:
    """The graph of a backbone's pooled stages: its path in the cache, where it is put if need be;
    or the graph itself, of a network that nothing may be cached of."""
    path = graph_path(start, preprocess)
    if start.identity and is_whole(path):
        return path

    from foveate.engine.openvino import save_graph  # these import torch
    from foveate.probe import PooledStages

    model = to_graph(PooledStages(start.network()), preprocess)
    if not start.identity:
        return model
    with replacing(path.parent) as folder:
        folder.mkdir()
        save_graph(model, folder / path.name)
        (folder / STAMP).write_text(graph_hash(folder / path.name) + "\n")
    return path


def to_graph(module: "nn.Module", preprocess: Preprocess, every_view: bool = False) -> Any:
    """Fold a module's batch-norms, in place, export it and convert it: pixels (N, H, W, C), uint8
    -> its output.

    Args:
        module: reads normalised images.
        preprocess: gives the mean and std to normalise with, and the size.
        every_view: it reads all views, not the first alone.
    """
    from foveate.engine.openvino import ov

    program = traced(module, preprocess, every_view)
    with unmonitored():
        model = ov.convert_model(program)
        # A trace for a batch of two takes a third of the time of one for any, and is enough if
        # nothing in the network depends on it; a channel shuffle does, that of ShuffleNet, which
        # makes the number of images a constant of the graph.
        if not reads_any_batch(model):
            model = ov.convert_model(traced(module, preprocess, every_view, any_batch=True))
    model.reshape(
        {number: [-1, *shape] for number, shape in enumerate(shapes_of(preprocess, every_view))}
    )
    return model


def shapes_of(preprocess: Preprocess, every_view: bool) -> list[tuple[int, int, int]]:
    """(H, W, C) of the views that a module reads."""
    views = preprocess.views if every_view else preprocess.views[:1]
    return [(view.crop, view.crop, preprocess.channels) for view in views]


def traced(
    module: "nn.Module", preprocess: Preprocess, every_view: bool = False, any_batch: bool = False
) -> Any:
    """A module as torch's ExportedProgram: pixels (N, H, W, C), uint8, of each view -> its output;
    its batch-norms are folded in place. N is 2, or any number."""
    import torch

    from foveate.engine.pixels import FromPixels
    from foveate.models.folding import fold_batchnorm

    whole = FromPixels(module, preprocess).eval()
    noise = torch.Generator().manual_seed(0)
    pixels = tuple(
        torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=noise)
        for shape in shapes_of(preprocess, every_view)
    )
    batch = {0: torch.export.Dim("batch")}
    more = {"more": tuple(batch for _ in pixels[1:])} if len(pixels) > 1 else {}
    free = {"pixels": batch, **more} if any_batch else None
    with torch.no_grad(), unmonitored():
        fold_batchnorm(whole, *(view[:1] for view in pixels))
        return torch.export.export(whole, pixels, dynamic_shapes=free)


def reads_any_batch(model: Any) -> bool:
    """Whether a graph that was exported for a batch of two gives a row an image for three."""
    try:
        sizes = [list(end.get_partial_shape())[1:] for end in model.inputs]
        model.reshape({number: [3, *size] for number, size in enumerate(sizes)})
    except RuntimeError:
        return False
    rows = model.output(0).get_partial_shape()[0]
    return bool(rows.is_static and rows.get_length() == 3)


if __name__ == "__main__":
    name, size = sys.argv[1], int(sys.argv[2])
    try:
        start = find_start(name)
        backbone_graph(start, start.preprocess.at(size))
    except FoveateError as error:
        raise SystemExit(
            str(error)
        ) from error  # the sentence, on stderr, for the process that waits
