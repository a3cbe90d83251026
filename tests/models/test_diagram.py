"""Drawings that browsers read, in which nothing lies on top of anything else."""

import functools
import itertools
import re
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from refusals import refused
from torch import Tensor, nn

from foveate import models
from foveate.models import MODELS
from foveate.models.diagram import LETTER, WIDTH, draw
from foveate.models.efficientnet_lite import MBConv

SVG = "{http://www.w3.org/2000/svg}"
SIZES = {"title": 18, "name": 12, "middle": 12, "faint": 11}  # pixels, as in the style sheet


@functools.cache
def drawing(name: str) -> str:
    with torch.device("meta"):
        network = models.build(name)
    return draw(network, title=name)


def boxes(root: ElementTree.Element) -> list[dict[str, Any]]:
    """All rectangles but the page: left, top, right, bottom, and the line in it if it has one."""
    found = []
    for parent in root.iter():
        for rect in parent.findall(f"{SVG}rect"):
            x, y, width, height = (
                float(rect.attrib.get(key, 0)) for key in ("x", "y", "width", "height")
            )
            line = parent.find(f"{SVG}text") if parent.tag == f"{SVG}g" else None
            label = line.text if line is not None else None
            found.append(
                {
                    "box": (x, y, x + width, y + height),
                    "label": label,
                    "class": rect.attrib["class"],
                }
            )
    return [box for box in found if box["class"] != "page"]


def length(line: ElementTree.Element) -> float:
    """In pixels, at the most."""
    style = line.attrib["class"].split()[-1]
    rest = line.find(f"{SVG}tspan")
    return SIZES[style] * LETTER * len(line.text or "") + (
        0 if rest is None else 10 + 11 * LETTER * len(rest.text or "")
    )


@pytest.mark.parametrize("name", MODELS)
def test_drawings_are_sound(name: str) -> None:
    root = ElementTree.fromstring(drawing(name))
    _, _, width, height = (float(n) for n in root.attrib["viewBox"].split())
    assert width == WIDTH and f"{SVG}script" not in {e.tag for e in root.iter()}
    found = boxes(root)
    for a, b in itertools.combinations([box["box"] for box in found], 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], "two boxes overlap"
    for box in found:
        left, top, right, bottom = box["box"]
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        if box["label"]:
            assert 12 * LETTER * len(box["label"]) <= right - left
    for line in root.iter(f"{SVG}text"):
        x, y, long = float(line.attrib["x"]), float(line.attrib["y"]), length(line)
        assert 0 < y < height
        start = x - long / 2 if "middle" in line.attrib["class"] else x
        assert start >= 0 and start + long <= width, line.text


@pytest.mark.parametrize("name", list({MODELS[name].__module__: name for name in MODELS}.values()))
def test_every_stage_is_there(name: str) -> None:
    root = ElementTree.fromstring(drawing(name))
    with torch.device("meta"):
        network = models.build(name).eval()
        first = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).in_channels
        x = torch.zeros(1, first, network.input_size, network.input_size)
    lines = [line.text for line in root.iter(f"{SVG}text")]
    shapes = [" × ".join(str(n) for n in y.shape[1:]) for y in (x, *network.stages(x), network(x))]
    assert [line for line in lines if re.fullmatch(r"\d+( × \d+)*", line or "")] == shapes
    names = ["image", *(f"stage {i}" for i in range(1, len(shapes) - 1)), "head"]
    assert [line for line in lines if re.fullmatch(r"image|stage \d+|head", line or "")] == names
    assert not any("BatchNorm" in (line or "") or "Sequential" in (line or "") for line in lines)
    fronts = [b["box"] for b in boxes(root) if b["class"] == "front"]
    heights = [round(bottom - top, 1) for _, top, _, bottom in fronts]
    assert heights == sorted(heights, reverse=True) and len(fronts) == len(shapes)


def test_the_same_network_gives_the_same_drawing() -> None:
    torch.manual_seed(0)
    network = models.build("efficientnet_lite0")
    assert draw(network, title="efficientnet_lite0") == drawing("efficientnet_lite0")


def test_repeated_blocks_are_one_box_and_say_what_they_do() -> None:
    root = ElementTree.fromstring(drawing("efficientnet_lite0"))
    labels = [box["label"] for box in boxes(root) if box["label"]]
    blocks = ["MBConv", "MBConv ×2", "MBConv ×2", "MBConv ×3", "MBConv ×3", "MBConv ×4", "MBConv"]
    assert labels == ["ConvSame 3x3 /2", *blocks, "Conv2d 1x1", "Linear"]
    tips = [title.text for group in root.iter(f"{SVG}g") for title in group.findall(f"{SVG}title")]
    docstring = (MBConv.__doc__ or "").splitlines()[0]
    assert tips[2] == f"features.2.0: {docstring}" and docstring.startswith("Widen")
    assert tips[-1] == "classifier.1"  # a class of torch needs no words
    figures = [line.text for line in root.iter(f"{SVG}tspan")]
    assert figures[2] == "13,968 parameters, 54.94 M MACs, field 19"
    assert figures[-1] == "1,281,000 parameters, 1.28 M MACs"


class Wide(nn.Module):
    """Many & various layers, one after the other: <not all fit into a line>."""

    input_size, min_size = 32, 1

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(4, 4, kernel, padding=kernel // 2) for kernel in (3, 5, 3, 5, 3, 5, 3))
        )
        self.mixed = Mixed()
        self.head = nn.Linear(4, 2)

    def stages(self, x: Tensor) -> list[Tensor]:
        return [self.mixed(self.body(x))]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x)[-1].mean(dim=(2, 3)))


class Mixed(nn.Module):
    """1x1 & 3x3, <concatenated>."""

    def __init__(self, c_in: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_long_stages_go_on_in_the_next_line() -> None:
    root = ElementTree.fromstring(draw(Wide(), (4, 20, 30)))
    found = [box for box in boxes(root) if box["label"]]
    assert [box["label"] for box in found] == [
        *(f"Conv2d {k}x{k}" for k in (3, 5, 3, 5, 3, 5, 3)),
        "Mixed",
        "Linear",
    ]
    assert len({box["box"][1] for box in found[:-1]}) == 2  # lines
    assert max(box["box"][2] for box in found) <= WIDTH
    title = root.find(f"{SVG}title")
    assert title is not None and title.text == "Wide"
    assert "body.0" in draw(Wide()) and "mixed: 1x1 &amp; 3x3, &lt;concatenated&gt;." in draw(
        Wide()
    )


class Dense(nn.ModuleDict):
    """Blocks in a row, each reading all before it."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.values():
            x = torch.cat([x, block(x)], dim=1)
        return x


class Transition(nn.Sequential):
    """A block, whatever it is made of."""


def test_a_container_of_blocks_is_drawn_as_its_blocks() -> None:
    network = Wide()
    blocks = {f"block{i}": nn.Sequential(Mixed(4 + 4 * i)) for i in range(3)}
    halve = Transition(nn.BatchNorm2d(16), nn.Conv2d(16, 4, 1), nn.AvgPool2d(2))
    network.body = nn.Sequential(Dense(blocks), halve, nn.BatchNorm2d(4))
    labels = [box["label"] for box in boxes(ElementTree.fromstring(draw(network))) if box["label"]]
    assert labels == ["Mixed ×3", "Transition", "Mixed", "Linear"]


def test_titles_are_escaped() -> None:
    root = ElementTree.fromstring(draw(Wide(), title="a < b & c"))
    assert next(line.text for line in root.iter(f"{SVG}text")) == "a < b & c"


def test_sizes_are_refused_as_in_a_summary() -> None:
    with refused(ValueError, "channels, height, width"):
        draw(Wide(), (4, 0, 3))
