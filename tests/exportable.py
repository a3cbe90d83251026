"""Classifiers of small networks with random weights, and files that are decoded in every way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from foveate.classifier import Classifier
from foveate.classifier.decision import Decision
from foveate.classifier.saving import make_card, write_classifier
from foveate.data.preprocess import Preprocess
from foveate.engine.conversion import to_graph
from foveate.engine.openvino import Branch, attach_head
from foveate.models.surgery import drop_head
from foveate.probe import PooledStages, pooled_width
from foveate.weights import build

CLASSES = ("cat", "dog", "猫 & <bird>")
ABOUT = {"metrics": {}, "provenance": {"command": "train photos"}}


def small_classifier(
    folder: Path,
    model: str = "nin_cifar",
    preprocess: Preprocess | None = None,
    thresholds: tuple[float, ...] | None = None,
    graph: bool = True,
    temperature: float = 1.0,
) -> Classifier:
    """A network as it is, in `folder`/classifier."""
    torch.manual_seed(0)
    network = build(model, len(CLASSES)).eval()
    side = network.input_size
    preprocess = preprocess or Preprocess(side, side)
    network = spread(network, preprocess)
    card = make_card(
        form="network",
        recipe="scratch",
        model=model,
        mirror=False,
        temperature=temperature,
        divide=temperature != 1,
        decision=Decision(thresholds),
        classes=CLASSES,
        preprocess=preprocess,
        about=ABOUT,
    )
    tensors = {n: t.detach().clone().numpy() for n, t in network.state_dict().items()}
    made = to_graph(network, preprocess) if graph else None
    return write_classifier(folder / "classifier", card, tensors, made)


def spread(network: Any, preprocess: Preprocess) -> Any:
    """The network with a head whose probabilities differ from image to image."""
    noise = torch.Generator().manual_seed(0)
    shape = (16, preprocess.channels, preprocess.crop, preprocess.crop)
    x = torch.randn(*shape, generator=noise) * torch.linspace(0.2, 2, 16)[:, None, None, None]
    with torch.no_grad():
        logits = network(x)
        if isinstance(network.head, (torch.nn.Linear, torch.nn.Conv2d)):
            network.head.weight *= 1 / float(logits.std(dim=0).mean())
            assert network.head.bias is not None
            network.head.bias -= network(x).mean(dim=0)
    return network


def probe_of_views(folder: Path, graph: bool = True, mirror: bool = True) -> Classifier:
    """A probe of two views, and of their mirror images."""
    torch.manual_seed(0)
    preprocess = Preprocess(32, 32).framed("whole+2/3")
    backbone = drop_head(build("nin_cifar", 3)).eval()
    width = 2 * pooled_width(backbone, torch.zeros(1, 3, 32, 32))
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, width)).astype(np.float32)
    bias = rng.normal(size=3).astype(np.float32)
    tensors = {"linear.weight": weight, "linear.bias": bias}
    tensors |= {f"backbone.{n}": t.clone().numpy() for n, t in backbone.state_dict().items()}
    made = None
    if graph:
        pooled = to_graph(PooledStages(backbone), preprocess)
        made = attach_head([Branch(pooled, 2, mirror)], weight, bias)
    card = make_card(
        form="probe",
        recipe="probe",
        model="nin_cifar",
        mirror=mirror,
        temperature=1.0,
        divide=False,
        decision=Decision(),
        classes=CLASSES,
        preprocess=preprocess,
        about=ABOUT,
    )
    return write_classifier(folder / "classifier", card, tensors, made)


def joined_probe(folder: Path) -> Classifier:
    """A probe of two backbones, of which the first reads two views, with a graph."""
    torch.manual_seed(0)
    preprocess = Preprocess(32, 32)
    views = [preprocess.framed("whole+2/3"), preprocess]
    backbones: list[Any] = [drop_head(build("nin_cifar", 3)).eval() for _ in views]
    image, rng = torch.zeros(1, 3, 32, 32), np.random.default_rng(0)
    width = sum(
        len(seen.views) * pooled_width(backbone, image)
        for backbone, seen in zip(backbones, views, strict=True)
    )
    weight = rng.normal(size=(3, width)).astype(np.float32)
    bias = rng.normal(size=3).astype(np.float32)
    tensors = {"linear.weight": weight, "linear.bias": bias}
    branches = []
    for i, (backbone, seen) in enumerate(zip(backbones, views, strict=True)):
        state = backbone.state_dict()
        tensors |= {f"backbones.{i}.{n}": t.clone().numpy() for n, t in state.items()}
        branches.append(Branch(to_graph(PooledStages(backbone), seen), len(seen.views), False))
    first = views[0].views[1:]
    card = make_card(
        form="joined",
        recipe="probe",
        model="nin_cifar",
        branches=[("nin_cifar", len(seen.views), 0.1) for seen in views],
        mirror=False,
        temperature=1.0,
        divide=False,
        decision=Decision(),
        classes=CLASSES,
        preprocess=replace(preprocess, more=(*first, *preprocess.views)),
        about=ABOUT,
    )
    graph = attach_head(branches, weight, bias)
    return write_classifier(folder / "classifier", card, tensors, graph)


def odd_files(folder: Path) -> Path:
    """Images that are decoded in every way: turned, transparent, deep, grey, with a palette, for
    print, wide, high, small and large."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    waves = np.stack([np.sin(x / 40), np.cos(y / 25), np.sin((x + y) / 60)], axis=2)
    image = Image.fromarray((127 + 90 * waves + rng.integers(0, 30, waves.shape)).astype(np.uint8))
    for orientation in (3, 6, 7):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(folder / f"turned-{orientation}.jpg", exif=exif, quality=90)
    alpha = image.copy()
    alpha.putalpha(Image.fromarray((x % 256).astype(np.uint8)))
    alpha.save(folder / "transparent.png")
    image.quantize(16).save(folder / "palette.png")
    image.quantize(16).save(folder / "palette.gif", transparency=3)
    image.convert("L").save(folder / "grey.jpg")
    image.convert("1").save(folder / "bits.png")
    image.convert("CMYK").save(folder / "print.jpg")
    Image.fromarray(257 * np.asarray(image.convert("L")).astype(np.uint16)).save(
        folder / "deep.png"
    )
    image.crop((0, 0, 640, 100)).save(folder / "wide.webp", lossless=True)
    image.crop((0, 0, 37, 480)).save(folder / "high.bmp")
    image.resize((20, 18)).save(folder / "small.png")
    image.resize((2100, 1500)).save(folder / "large.jpg", quality=80)
    return folder


def viewed(fit: str = "crop", **other: Any) -> Preprocess:
    """A Preprocess for 32 pixels."""
    return replace(Preprocess(32, 32, fit=fit), **other)
