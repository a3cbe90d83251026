"""A diagram of a network, as papers draw it: on the left the maps, on the right what makes each
of them from the one above.

A map is a slab, as high and as deep as the map has pixels, as long as it has channels, all by their
square root. The drawing is one SVG file without scripts or web fonts, legible on light and on dark
pages, and always the same for the same network; what a block does is in its tooltip.

>>> from foveate.models import build
>>> svg = draw(build("efficientnet_lite0"), title="EfficientNet-Lite0")
>>> "EfficientNet-Lite0" in svg, "MBConv ×3" in svg
(True, True)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape

from torch import nn

from foveate.models.summary import Layer, Stage, sides, summarise, summarise_stages

WIDTH, MARGIN, RIGHT = 680, 24, 208  # RIGHT: where the operations begin
# The largest slab, and how much of its depth goes up and to the right.
LONG, HIGH, SKEW = 136, 56, 0.3
BOX, GAP = 26, 20  # a box's height; the least space between rows, and between boxes
LETTER = 0.6  # em that a letter takes at most, on average over a line
STYLE = """
text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2328}
.title{font-size:18px;font-weight:600}.name{font-weight:600}.middle{text-anchor:middle}
.faint{font-size:11px;font-weight:400;fill:#59636e}.page{fill:#fff}.arrow{fill:none;stroke:#818b98;stroke-width:1.2}
.front{fill:#6c9bd2}.top{fill:#a9c6e8}.side{fill:#4a77ad}
.conv{fill:#dbe8f8}.pool{fill:#fbe3d0}.block{fill:#dcefdc}.linear{fill:#eadff5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.page{fill:#0d1117}
.conv{fill:#1d3a5c}.pool{fill:#5a3820}.block{fill:#22472b}.linear{fill:#45325f}}
"""


@dataclass(frozen=True)
class Box:
    """An operation, or several alike that follow each other."""

    label: str
    tip: str
    colour: str  # a class of STYLE
    times: int = 1

    @property
    def text(self) -> str:
        return self.label if self.times == 1 else f"{self.label} ×{self.times}"

    @property
    def width(self) -> float:
        return 12 * LETTER * len(self.text) + 20


def draw(
    network: nn.Module, size: tuple[int, int, int] | None = None, title: str | None = None
) -> str:
    """A network's stages and its head, from top to bottom, as SVG.

    Args:
        network: of the canon, on any device; it is left as it is.
        size: of the image, (channels, height, width); by default the network's own.
        title: by default the class's name.

    Raises:
        ValueError, NotImplementedError: as `summarise`.
    """
    total = summarise(network, size)
    rows = [Stage("image", (), total.size, 0, 0, (1, 1), (1, 1)), *summarise_stages(network, total)]
    largest = max(row.shape[0] for row in rows), max(total.size[1:])
    title = title or type(network).__name__
    costs = f"{total.parameters:,} parameters, {short(total.macs)} MACs, {total.depth} layers deep"
    parts = [text(MARGIN, 36, title, "title"), text(MARGIN, 56, costs, "faint")]
    y, tail = 76.0, 0.0  # where the row begins, and where the last slab's caption ended
    for row in rows:
        if tail:
            parts.append(arrow(MARGIN + LONG / 2, tail + 4, 0, y - tail - 8))
        slab, tail = draw_slab(row.shape, largest, y)
        boxes, bottom = draw_boxes(merged(boxes_of(network, row)), y + 22)
        parts += [*slab, text(RIGHT, y + 12, row.name, "name", figures(row)), *boxes]
        y = max(tail, bottom) + GAP
    frame = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" height="{y:.0f}"'
    page = f'<rect class="page" width="{WIDTH}" height="{y:.0f}"/>'
    head = f'<svg {frame} role="img"><title>{escape(title)}</title><style>{STYLE}</style>{page}'
    return "\n".join([head, *parts, "</svg>\n"])


def boxes_of(network: nn.Module, stage: Stage) -> Iterator[Box]:
    """What a stage is made of: norms belong to their convolutions, sequences are their blocks."""
    inside = "/"  # of no block yet
    for layer in stage.layers:
        module = network.get_submodule(layer.name)
        if not (
            layer.name.startswith(inside) or strings(module) or isinstance(module, nn.BatchNorm2d)
        ):
            inside = f"{layer.name}." if layer.block else "/"
            yield Box(layer.kind.lstrip("_"), described(layer, module), colour(layer))


def strings(module: nn.Module) -> bool:
    """Any plain Sequential, and other containers that hold nothing but blocks."""
    of_blocks = isinstance(module, (nn.Sequential, nn.ModuleDict)) and all(
        any(m.children()) for m in module.children()
    )
    return type(module) is nn.Sequential or of_blocks


def described(layer: Layer, module: nn.Module) -> str:
    """The tooltip: the layer's name and, of a class of the network's own, what it is."""
    ours = not type(module).__module__.startswith("torch.") and type(module).__doc__
    return f"{layer.name}: {ours.strip().splitlines()[0]}" if ours else layer.name


def colour(layer: Layer) -> str:
    if layer.block:
        return "block"
    if len(layer.shape) == 1:
        return "linear"
    return "conv" if layer.macs else "pool"


def merged(boxes: Iterator[Box]) -> list[Box]:
    """Equal neighbours in one box."""
    found: list[Box] = []
    for box in boxes:
        if found and (found[-1].label, found[-1].colour) == (box.label, box.colour):
            found[-1] = replace(found[-1], times=found[-1].times + 1)
        else:
            found.append(box)
    return found


def figures(stage: Stage) -> str:
    """What a stage costs and sees, in words."""
    if not stage.layers:
        return "field: side of what one pixel of a map sees of it, in pixels"
    costs = f"{stage.parameters:,} parameters, {short(stage.macs)} MACs"
    return f"{costs}, field {sides(stage.field, 'global')}" if stage.stride else costs


def short(macs: int) -> str:
    return f"{macs / 1e9:.2f} G" if macs >= 1e9 else f"{macs / 1e6:.2f} M"


def draw_slab(
    shape: tuple[int, ...], largest: tuple[int, int], top: float
) -> tuple[list[str], float]:
    """A map in the left column, its shape below it; and where that ends."""
    channels, height, width = (*shape, 1, 1)[:3]
    long = 4 + (LONG - 4) * math.sqrt(channels / largest[0])
    high, wide = (4 + (HIGH - 4) * math.sqrt(side / largest[1]) for side in (height, width))
    skew = SKEW * wide
    x, y = MARGIN + (LONG - long) / 2, top + skew
    front = f'<rect class="front" x="{x:.1f}" y="{y:.1f}" width="{long:.1f}" height="{high:.1f}"/>'
    roof = f'<path class="top" d="M{x:.1f} {y:.1f}l{skew:.1f} {-skew:.1f}h{long:.1f}l{-skew:.1f} {skew:.1f}z"/>'
    wall = f'<path class="side" d="M{x + long:.1f} {y:.1f}l{skew:.1f} {-skew:.1f}v{high:.1f}l{-skew:.1f} {skew:.1f}z"/>'
    caption = text(MARGIN + LONG / 2, y + high + 15, " × ".join(map(str, shape)), "middle faint")
    return [front, roof, wall, caption], y + high + 18


def draw_boxes(boxes: list[Box], top: float) -> tuple[list[str], float]:
    """The operations in the right column, in lines; and where they end."""
    parts: list[str] = []
    x, y = float(RIGHT), top
    for i, box in enumerate(boxes):
        if i and x + GAP + box.width > WIDTH - MARGIN:
            x, y = float(RIGHT), y + BOX + 8
        elif i:
            parts.append(arrow(x + 3, y + BOX / 2, GAP - 6, 0))
            x += GAP
        frame = f'<rect class="{box.colour}" x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{BOX}" rx="5"/>'
        label = text(x + box.width / 2, y + BOX / 2 + 4, box.text, "middle")
        parts.append(f"<g><title>{escape(box.tip)}</title>{frame}{label}</g>")
        x += box.width
    return parts, y + BOX if boxes else top


def arrow(x: float, y: float, right: float, down: float) -> str:
    head = "m-4 -3l4 3l-4 3" if right else "m-3 -4l3 4l3 -4"
    return f'<path class="arrow" d="M{x:.1f} {y:.1f}l{right:.1f} {down:.1f}{head}"/>'


def text(x: float, y: float, line: str, style: str, then: str = "") -> str:
    """A line, and what goes on in small letters behind it."""
    more = f'<tspan class="faint" dx="10">{escape(then)}</tspan>' if then else ""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(line)}{more}</text>'
