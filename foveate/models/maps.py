"""What a network makes of an image: beside each stage's figures, its receptive field and some maps.

>>> import torch
>>> from foveate.models import build
>>> stages = varied_maps(build("lenet5").eval(), torch.zeros(1, 28, 28))
>>> drawing = draw_maps(stages, torch.zeros(28, 28, 1, dtype=torch.uint8), "LeNet-5")
>>> drawing.title, "stage 2" in str(drawing)
('LeNet-5', True)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.diagram import MARGIN, Diagram
from foveate.models.drawing import (
    SCALE,
    ImageShape,
    Rectangle,
    Shape,
    Text,
    as_png,
    width_of,
)
from foveate.models.network import as_network
from foveate.models.summary import Stage, in_units, sides, summarise, summarise_stages

SHOWN = 6  # maps of a stage
CELL, GAP, CAPTION, WORDS = 96, 8, 16, 168  # pixels: of a image, between, below; of the figures
HEADING = f"the {SHOWN} maps that vary most, each from its least (black) to its most (white)"
COLOURS = ("red", "green", "blue")
FADED = 0.25  # how much is left of the image around a receptive field


@dataclass(frozen=True)
class StageMaps:
    """The maps of a stage that vary most over the image.

    Args:
        stage: its figures.
        channels: numbers of the maps, from the largest variance on.
        maps: (n, H, W).
    """

    stage: Stage
    channels: tuple[int, ...]
    maps: Tensor


@torch.no_grad()
def varied_maps(network: nn.Module, image: Tensor) -> list[StageMaps]:
    """Of each stage, the maps that vary most over the image.

    Args:
        network: in evaluation, with `stages`.
        image: (C, H, W), as the network reads it.

    Raises:
        TypeError, ValueError, NotImplementedError: as `summarise_stages`.
    """
    channels, height, width = image.shape
    stages = summarise_stages(network, summarise(network, (channels, height, width)))
    found = []
    for stage, [maps] in zip(
        stages, as_network(network, "stages").stages(image[None]), strict=False
    ):
        order = maps.var(dim=(1, 2), correction=0).argsort(descending=True, stable=True)[:SHOWN]
        found.append(StageMaps(stage, tuple(order.tolist()), maps[order]))
    return [*found, StageMaps(stages[-1], (), torch.empty(0, 1, 1))]  # the head has no maps


def draw_maps(stages: list[StageMaps], pixels: Tensor, title: str, note: str = "") -> Diagram:
    """The stages of a network from top to bottom, each with its figures, how much of the image one
    of its pixels sees, and its maps that vary most.

    Args:
        stages: of `varied_maps`.
        pixels: (H, W, C), uint8, the image for the eye, grey or RGB.
        title: such as the network's name.
        note: below it, such as whether the network has learnt anything.
    """
    shapes: list[Shape] = [Text(MARGIN, MARGIN + 16, title, "title", middle=False)]
    shapes.append(Text(MARGIN, MARGIN + 36, note, "faint", middle=False))
    left = MARGIN + WORDS
    right = left + CELL + 3 * GAP
    y = MARGIN + 68.0
    for x, line in ((left, "receptive field"), (right, HEADING)):
        shapes.append(Text(x, y, line, "heading", middle=False))
    y += 12

    planes = pixels.permute(2, 0, 1)
    size = " × ".join(str(n) for n in planes.shape)
    names = COLOURS if len(planes) == 3 else ("grey",)
    cell = CELL * pixels.shape[0] / pixels.shape[1]  # height of a image
    shapes += words("image", [size], y)
    shapes.append(image_shape(left, y, cell, pixels, "the image"))
    shapes += image_row(right, y, cell, planes, names)
    y += cell + CAPTION + 1.5 * GAP
    for row in stages:
        stage = row.stage
        shapes += words(stage.name, figures(stage), y)
        if not len(row.maps):  # the head
            continue
        shapes.append(frame(left, y, cell))
        shapes.append(image_shape(left, y, cell, around(pixels, stage.field), "receptive field"))
        captions = [f"map {channel}" for channel in row.channels]
        shapes += image_row(right, y, cell, in_bytes(row.maps), captions)
        y += cell + CAPTION + 1.5 * GAP
    width = max(right + SHOWN * (CELL + GAP) - GAP, MARGIN + width_of(note, "faint"))
    return Diagram(title, width + MARGIN, y + 70 + MARGIN, tuple(shapes))


def figures(stage: Stage) -> list[str]:
    costs = [f"{stage.parameters:,} parameters", f"{in_units(stage.macs)} MACs"]
    field = [f"field {sides(stage.field, 'global')}, stride {sides(stage.stride, '-')}"]
    shape = " × ".join(str(n) for n in stage.shape)
    return [shape, *costs, *(field if stage.name != "head" else [])]


def words(name: str, lines: list[str], y: float) -> Iterator[Text]:
    yield Text(MARGIN, y + 14, name, "heading", middle=False)
    for i, line in enumerate(lines):
        yield Text(MARGIN, y + 33 + 17 * i, line, "faint", middle=False)


def image_row(x: float, y: float, cell: float, planes: Tensor, captions: Any) -> Iterator[Shape]:
    """A row of grey images, (n, H, W), uint8, with a line below each."""
    for i, (plane, caption) in enumerate(zip(planes, captions, strict=True)):
        place = x + i * (CELL + GAP)
        yield frame(place, y, cell)
        yield image_shape(place, y, cell, plane[:, :, None], caption)
        yield Text(place + CELL / 2, y + cell + 12, caption, "faint")


def frame(x: float, y: float, cell: float) -> Rectangle:
    """A thin line around a image, of which parts may be as white as the page."""
    return Rectangle(x - 0.5, y - 0.5, CELL + 1, cell + 1, "panel", radius=0)


def image_shape(x: float, y: float, cell: float, pixels: Tensor, tip: str) -> ImageShape:
    """(H, W, C), uint8, made smaller if a page cannot show as many pixels."""
    most = CELL * SCALE
    if pixels.shape[1] > most:
        planes = pixels.permute(2, 0, 1)[None].float()
        rows = max(1, round(most * cell / CELL))
        smaller = F.interpolate(planes, (rows, most), mode="bilinear", antialias=True)
        pixels = smaller[0].round().clamp(0, 255).byte().permute(1, 2, 0)
    height, width, _ = pixels.shape
    png = as_png(bytes(pixels.contiguous().flatten().tolist()), width, height)
    return ImageShape(x, y, CELL, cell, png, smooth=width > CELL / 2, tip=tip)


def around(pixels: Tensor, field: tuple[int, int] | None) -> Tensor:
    """The image, faded to white but for a field of this size in its middle; None: all of it."""
    if field is None:
        return pixels
    seen = torch.zeros(pixels.shape[:2], dtype=torch.bool)
    top, left = (max(0, (n - f) // 2) for n, f in zip(seen.shape, field, strict=True))
    seen[top : top + field[0], left : left + field[1]] = True
    faded = 255 - FADED * (255 - pixels.float())
    return torch.where(seen[:, :, None], pixels, faded.byte())


def in_bytes(maps: Tensor) -> Tensor:
    """(n, H, W) -> the same as uint8, each from its least number, black, to its largest, white."""
    flat = maps.flatten(1).double()  # maps of a random network may be tiny
    low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    span = torch.where(high > low, high - low, 1.0)
    return (255 * (flat - low) / span).round().byte().reshape(maps.shape)
