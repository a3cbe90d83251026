"""A pretrained backbone as an OpenVINO graph: uint8 pixels (N, H, W, C) -> its pooled stages (N,
width).

Run as `python -m foveate.engine.conversion NETWORK SIZE`; it writes into the cache. It needs torch,
and is the only thing on the way from images to a probe that does.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.data.preprocess import Preprocess
from foveate.engine import RULES
from foveate.errors import FoveateError
from foveate.storage import cache_root, fingerprint, replacing, sha256
from foveate.weights import find_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

STAMP = "SHA256"


def graph_path(network: str, preprocess: Preprocess) -> Path:
    """Where the graph is kept: one for each network, its weights, the images' size, and what reads
    and writes it."""
    made = {
        "network": network,
        "weights": find_weights(network).identity,
        "size": preprocess.crop,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "openvino": version("openvino"),
        "rules": RULES,
    }
    return (
        cache_root()
        / "networks"
        / f"{network}-{preprocess.crop}-{fingerprint(made)[:16]}"
        / "graph.xml"
    )


def graph_hash(path: Path) -> str:
    return f"{sha256(path)} {sha256(path.with_suffix('.bin'))}"


def is_whole(path: Path) -> bool:
    """Whether the graph is there and its bytes are those that were written."""
    try:
        return (path.parent / STAMP).read_bytes().strip() == graph_hash(path).encode()
    except OSError:
        return False


def convert(network: str, preprocess: Preprocess) -> Path:
    """Build the network, load its weights, convert, save."""
    from foveate.engine.openvino import save_graph
    from foveate.probe import PooledStages
    from foveate.weights import pretrained

    model = to_graph(PooledStages(pretrained(network)), preprocess)
    path = graph_path(network, preprocess)
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

    class FromPixels(torch.nn.Module):
        """Normalise inside the graph, so that whoever runs it cannot do it otherwise."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.mean = torch.nn.Buffer(255 * torch.tensor(preprocess.mean).view(-1, 1, 1))
            self.std = torch.nn.Buffer(255 * torch.tensor(preprocess.std).view(-1, 1, 1))

        def forward(self, pixels: "Tensor") -> "Tensor":
            x = pixels.permute(0, 3, 1, 2).float().contiguous()  # (N, C, H, W); some call view
            return self.module((x - self.mean) / self.std)

    whole = FromPixels().eval()
    pixels = torch.zeros(
        2, preprocess.crop, preprocess.crop, preprocess.channels, dtype=torch.uint8
    )
    with torch.no_grad():
        noise = torch.Generator().manual_seed(0)
        fold_batchnorm(whole, torch.randint(256, pixels[:1].shape, generator=noise).byte())
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


def fold_batchnorm(module: "nn.Module", example: "Tensor") -> None:
    """Multiply each batch-norm that reads a convolution's output into that convolution, in place.

    Which reads which is seen by running the module once. Frozen statistics make the two one linear
    map; the exporter then has a third fewer nodes to trace. Whether nothing else reads that output,
    or changes it before the norm does, is not asked but tried: if the outputs differ, nothing is
    folded. Subclasses of batch-norm do more (timm's hold the activation), and stay.
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    from foveate.models.folding import AGREE

    made: dict[int, nn.Conv2d] = {}
    kept: list[Tensor] = []  # alive, so that no two outputs share an id
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_conv(conv: "nn.Module", _: object, output: "Tensor") -> None:
        assert isinstance(conv, nn.Conv2d)
        made[id(output)] = conv
        kept.append(output)

    def before_norm(norm: "nn.Module", inputs: tuple["Tensor", ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        if id(inputs[0]) in made and norm.running_var is not None:
            pairs.append((made[id(inputs[0])], norm))

    hooks = [
        m.register_forward_hook(after_conv) for m in module.modules() if isinstance(m, nn.Conv2d)
    ]
    hooks += [
        m.register_forward_pre_hook(before_norm)
        for m in module.modules()
        if type(m) is nn.BatchNorm2d
    ]
    expected = module(example)
    for hook in hooks:
        hook.remove()

    before = [(conv, conv.weight, conv.bias) for conv, _ in pairs]
    norms = {norm for _, norm in pairs}
    places = [
        (parent, name, norm)
        for parent in module.modules()
        for name, norm in parent.named_children()
        if norm in norms
    ]
    for conv, norm in pairs:
        assert norm.running_mean is not None and norm.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
    for parent, name, _ in places:
        setattr(parent, name, nn.Identity())
    difference = float((module(example) - expected).abs().max())
    if difference <= AGREE * max(1.0, float(expected.abs().max())):
        return
    for conv, weight, bias in before:
        conv.weight, conv.bias = weight, bias
    for parent, name, norm in places:
        setattr(parent, name, norm)


if __name__ == "__main__":
    name, size = sys.argv[1], int(sys.argv[2])
    try:
        convert(name, find_weights(name).preprocess.at(size))
    except FoveateError as error:
        # the sentence, on stderr, for the process that waits
        raise SystemExit(str(error)) from error
