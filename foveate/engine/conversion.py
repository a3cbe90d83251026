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


def to_graph(module: "nn.Module", preprocess: Preprocess) -> Any:
    """Fold a module's batch-norms, in place, export it and convert it: pixels (N, H, W, C), uint8
    -> its output."""
    import torch

    from foveate.engine.openvino import ov
    from foveate.engine.pixels import FromPixels
    from foveate.models.folding import fold_batchnorm

    whole = FromPixels(module, preprocess).eval()
    shape = (2, preprocess.crop, preprocess.crop, preprocess.channels)
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise)
    with torch.no_grad(), unmonitored():
        fold_batchnorm(whole, pixels[:1])
        # Exported for a batch of two, as that takes a third of the time, if nothing in the network
        # depends on it; a channel shuffle does, that of ShuffleNet, which makes the number of
        # images a constant of the graph.
        model = ov.convert_model(torch.export.export(whole, (pixels,)))
        if not reads_any_batch(model):
            batch = {"pixels": {0: torch.export.Dim("batch")}}
            model = ov.convert_model(torch.export.export(whole, (pixels,), dynamic_shapes=batch))
    model.reshape([-1, *pixels.shape[1:]])
    return model


def reads_any_batch(model: Any) -> bool:
    """Whether a graph that was exported for a batch of two gives a row an image for three."""
    try:
        model.reshape([3, *list(model.input(0).get_partial_shape())[1:]])
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
