"""Drawings that browsers read, in which nothing lies on top of anything else."""

import functools
import itertools
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from PIL import Image
from refusals import refused
from torch import Tensor, nn

from foveate import models
from foveate.models import MODELS
from foveate.models.diagram import Diagram, draw
from foveate.models.drawing import BOLD, SIZES, Arrow, Rectangle, Text, width_of

SVG = "{http://www.w3.org/2000/svg}"


@functools.cache
def drawing(name: str) -> Diagram:
    with torch.device("meta"):
        network = models.build(name)
    return draw(network, title=name)


def panels(diagram: Diagram) -> list[Rectangle]:
    return [s for s in diagram.shapes if isinstance(s, Rectangle) and s.style == "panel"]


def boxes(diagram: Diagram) -> list[Rectangle]:
    return [s for s in diagram.shapes if isinstance(s, Rectangle) and s.style != "panel"]


def lines(diagram: Diagram) -> list[Text]:
    return [s for s in diagram.shapes if isinstance(s, Text)]


def holds(box: Rectangle, x: float, y: float, edge: float = 0) -> bool:
    """A point is in a box; with an edge, that far from its border or farther."""
    across = box.x + edge <= x <= box.x + box.width - edge
    return across and box.y + edge <= y <= box.y + box.height - edge


def overlap(a: Rectangle, b: Rectangle) -> bool:
    across = a.x < b.x + b.width and b.x < a.x + a.width
    return across and a.y < b.y + b.height and b.y < a.y + a.height


def crosses(box: Rectangle, a: tuple[float, float], b: tuple[float, float]) -> bool:
    """A horizontal or vertical line passes through the inside of a box."""
    left, right = sorted((a[0], b[0]))
    top, bottom = sorted((a[1], b[1]))
    across = left < box.x + box.width - 0.1 and box.x + 0.1 < right
    along = top < box.y + box.height - 0.1 and box.y + 0.1 < bottom
    if left == right:
        across = box.x + 0.1 < left < box.x + box.width - 0.1
    if top == bottom:
        along = box.y + 0.1 < top < box.y + box.height - 0.1
    return across and along


def check(diagram: Diagram) -> None:
    """Nothing overlaps, nothing sticks out, and every arrow leads from a box to a box."""
    found, around = boxes(diagram), panels(diagram)
    page = Rectangle(0, 0, diagram.width, diagram.height, "page")
    for group in (found, around):
        for a, b in itertools.combinations(group, 2):
            assert not overlap(a, b), (a, b)
    for box in found + around:
        assert holds(page, box.x, box.y) and holds(page, box.x + box.width, box.y + box.height)
    for box in found:
        inside = [p for p in around if overlap(p, box)]
        assert len(inside) <= 1
        assert all(holds(p, box.x, box.y) for p in inside)
        assert all(holds(p, box.x + box.width, box.y + box.height) for p in inside)

    for arrow in (s for s in diagram.shapes if isinstance(s, Arrow)):
        (x0, y0), (x1, y1) = arrow.points[0], arrow.points[-1]
        assert any(abs(y0 - b.y - b.height) < 0.1 and holds(b, x0, y0 - 0.2) for b in found)
        assert any(
            (abs(y1 - b.y) < 0.1 and holds(b, x1, y1 + 0.2))
            or (b.style == "join" and abs(x1 - b.x - b.width) < 0.1 and holds(b, x1 - 0.2, y1))
            for b in found
        )
        for a, b in itertools.pairwise(arrow.points):
            assert a[0] == pytest.approx(b[0]) or a[1] == pytest.approx(b[1]), "a slanting line"
            assert not any(crosses(box, a, b) for box in found)
            assert holds(page, *a) and holds(page, *b)

    for line in lines(diagram):
        long = width_of(line.line, line.style)
        left = line.x - long / 2 if line.middle else line.x
        owner = [b for b in found if holds(b, line.x, line.y - 2)]
        assert len(owner) == line.middle  # titles and headings are in no box
        for box in owner or [page]:
            assert box.x < left and left + long < box.x + box.width, line
            assert box.y < line.y - 0.75 * SIZES[line.style] and line.y + 2 < box.y + box.height
    for box in found:
        base = [line.y for line in lines(diagram) if holds(box, line.x, line.y - 2)]
        assert base, "an empty box"
        assert all(b - a >= 14 for a, b in itertools.pairwise(sorted(base)))


@pytest.mark.parametrize("name", MODELS)
def test_drawings_are_sound(name: str) -> None:
    diagram = drawing(name)
    check(diagram)
    root = ElementTree.fromstring(str(diagram))
    assert [float(n) for n in root.attrib["viewBox"].split()][2:] == pytest.approx(
        [diagram.width, diagram.height], abs=0.51
    )
    assert root.attrib["role"] == "img" and root[0].tag == f"{SVG}title" and root[0].text == name
    assert f"{SVG}script" not in {element.tag for element in root.iter()}
    # legible on a slide or a page: no more than so many boxes
    assert len(boxes(diagram)) <= 75 and max(diagram.width, diagram.height) < 2100


@pytest.mark.parametrize("name", MODELS)
def test_text_is_as_wide_as_it_is_taken_for(name: str) -> None:
    """In the font of the PNG, which is wider than those of most browsers."""
    for line in {(line.line, line.style) for line in lines(drawing(name))}:
        text, style = line
        font = FontProperties(weight="bold" if style in BOLD else "normal")
        path = TextPath((0, 0), text, size=SIZES[style], prop=font)
        assert path.get_extents().width <= width_of(text, style) + 1, line


@pytest.mark.parametrize(
    ("name", "sign", "times"),
    [
        ("resnet18", "+", 8),
        ("resnet152", "+", 50),
        ("googlenet", "concat", 9),
        ("squeezenet1_0", "concat", 8),
        ("mobilenet_v2", "+", 10),
        ("shufflenet_v1", "channel shuffle", 16),
        ("shufflenet_v2_x1_0", "channel shuffle", 16),
        ("efficientnet_b0", "+", 9),
    ],
)
def test_what_is_drawn_is_all_there_is(name: str, sign: str, times: int) -> None:
    """So many in the panels, each as often as its block is in the row."""
    diagram = drawing(name)
    inside: Counter[str] = Counter()
    for panel in panels(diagram):
        texts = [line.line for line in lines(diagram) if holds(panel, line.x, line.y)]
        inside[texts[0]] = texts.count(sign)
    row = [
        line.line
        for line in lines(diagram)
        if line.style == "name" and not any(holds(p, line.x, line.y) for p in panels(diagram))
    ]
    found = row.count(sign)
    for label in row:
        block = re.fullmatch(r"(\w+(?: [A-Z])?)(?: ×(\d+))?,?(?: .*)?", label)
        if block:
            found += inside[block[1]] * int(block[2] or 1)
    assert found == times


def test_layers_of_a_plain_network_are_all_there() -> None:
    labels = [line.line for line in lines(drawing("lenet5")) if line.style == "name"]
    convolutions = ["conv 5×5 · ReLU", "avg pool 2×2 /2"] * 2
    assert labels == ["image", *convolutions, *["linear · ReLU"] * 2, "linear"]
    shapes = [line.line for line in lines(drawing("lenet5")) if line.style == "faint"][1:]
    assert shapes[:3] == ["1 × 28 × 28", "6 × 28 × 28", "6 × 14 × 14"] and shapes[-1] == "10"


def test_repeated_blocks_are_one_box_and_say_what_they_do() -> None:
    labels = [line.line for line in lines(drawing("efficientnet_lite0")) if line.style == "name"]
    assert {"MBConv C ×2, 5×5", "MBConv B, 3×3 /2", "conv 1×1 · BN · ReLU6"} <= set(labels)
    tips = [box.tip for box in boxes(drawing("efficientnet_lite0"))]
    assert any(tip.startswith("features.2.0: Widen, filter") for tip in tips)
    assert "16 × DenseLayer" in {line.line for line in lines(drawing("densenet121"))}


def test_the_same_network_gives_the_same_drawing() -> None:
    torch.manual_seed(0)
    network = models.build("resnet18")
    assert str(draw(network, title="resnet18")) == str(drawing("resnet18"))


class Mixed(nn.Module):
    """1x1 & 3x3, <side by side>, and the input twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.deep = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(x)
        left = torch.cat([self.one(three), three, x], dim=1).narrow(1, 0, 4)
        return self.deep(left) + left * torch.sigmoid(three) + x


class Ladder(nn.Module):
    """Maps that go past others, and two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.steps[0](x)
        b = self.steps[1](a)
        c = self.steps[2](b) + a
        return self.steps[3](c) + b, c + x


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(Mixed(), Mixed(), Mixed())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


@pytest.mark.parametrize("network", [Both(), Ladder(), Mixed()], ids=lambda n: type(n).__name__)
def test_a_module_of_yours_is_drawn(network: nn.Module) -> None:
    diagram = draw(network, (4 if isinstance(network, Mixed) else 3, 20, 30))
    check(diagram)
    assert diagram.title == type(network).__name__
    if isinstance(network, Both):
        assert "Mixed ×3" in {line.line for line in lines(diagram)}
        assert "blocks.0: 1x1 &amp; 3x3, &lt;side by side&gt;" in str(diagram)


def test_a_notebook_shows_it_and_files_hold_it(tmp_path: Path) -> None:
    diagram = drawing("lenet5")
    assert diagram._repr_svg_() == str(diagram) and "lenet5" in repr(diagram)
    diagram.save(tmp_path / "lenet.svg")
    assert (tmp_path / "lenet.svg").read_text("utf-8") == f"{diagram}\n"
    diagram.save(str(tmp_path / "lenet.png"))
    with Image.open(tmp_path / "lenet.png") as image:
        assert image.size == (2 * round(diagram.width), 2 * round(diagram.height))
        assert image.text["Title"] == "lenet5"
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50
    with refused(ValueError, "lenet.pdf", ".svg", ".png"):
        diagram.save(tmp_path / "lenet.pdf")


def test_titles_are_escaped(tmp_path: Path) -> None:
    diagram = draw(Both(), (3, 8, 8), title="a < b & c $x_1$")
    root = ElementTree.fromstring(str(diagram))
    assert next(line.text for line in root.iter(f"{SVG}text")) == diagram.title
    diagram.save(tmp_path / "x.png")


def test_a_size_is_needed() -> None:
    with refused(TypeError, "Both", "input_size", "channels, height, width"):
        draw(Both())
    with refused(ValueError, "channels, height, width"):
        draw(Both(), (4, 0, 3))
