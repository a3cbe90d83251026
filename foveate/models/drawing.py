"""Boxes, lines of text, arrows and images, written as SVG or as PNG.

The SVG has no scripts and no web fonts and is legible on light and on dark pages; the PNG is the
same drawing, light.

>>> box = Rectangle(10, 10, 60, 24, "conv", tip="the first layer")
>>> svg = as_svg([box, Text(40, 26, "conv", "name")], 80, 44, "A small <drawing>")
>>> "<title>A small &lt;drawing&gt;</title>" in svg, "<title>the first layer</title>" in svg
(True, True)
"""

import base64
import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

FILL = {  # of boxes, on light and on dark pages
    "page": ("#ffffff", "#0d1117"),
    "panel": ("#f6f8fa", "#151b23"),
    "conv": ("#dbe8f8", "#1d3a5c"),
    "linear": ("#eadff5", "#45325f"),
    "pool": ("#fbe3d0", "#5a3820"),
    "block": ("#dcefdc", "#22472b"),
    "concat": ("#fff3bf", "#574a12"),
    "split": ("#fff3bf", "#574a12"),
    "join": ("#ffffff", "#0d1117"),
    "point": ("#eceff2", "#2d333b"),
    "other": ("#eceff2", "#2d333b"),
    "image": ("#ffffff", "#0d1117"),
}
INK, FAINT, LINE = ("#1f2328", "#e6edf3"), ("#4d5661", "#a5adb8"), ("#6e7781", "#8b949e")
PANEL_EDGE = "#d7dce1"  # in a PNG
SIZES = {"title": 20, "heading": 13, "name": 12.5, "faint": 11, "sign": 15}  # pixels
BOLD = ("title", "heading", "name", "sign")
FONTS = "system-ui,-apple-system,'Segoe UI',Helvetica,Arial,'DejaVu Sans',sans-serif"
SCALE = 2  # pixels of the PNG for one of the SVG
HEAD = 7  # an arrow's head


@dataclass(frozen=True)
class Rectangle:
    x: float  # of its left side
    y: float  # of its upper side
    width: float
    height: float
    style: str  # a key of FILL
    radius: float = 5
    tip: str = ""


@dataclass(frozen=True)
class Text:
    """A line, in the middle of x or, of a title or heading, from x on; y is its base line."""

    x: float
    y: float
    line: str
    style: str  # a key of SIZES
    middle: bool = True


@dataclass(frozen=True)
class Arrow:
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ImageShape:
    """Pixels, in the shape of a box; few ones are shown as squares."""

    x: float
    y: float
    width: float
    height: float
    png: bytes  # the file
    smooth: bool  # whether pixels are too many to be told apart
    tip: str = ""


Shape = Rectangle | Text | Arrow | ImageShape

# em, in DejaVu Sans, which is wider than the fonts of most systems
NARROW = {".": 0.35, ",": 0.35, ":": 0.37, " ": 0.35, "i": 0.32, "l": 0.32, "j": 0.32, "/": 0.37}
NARROW |= {"·": 0.35, "-": 0.4, "(": 0.44, ")": 0.44, "t": 0.44, "r": 0.45, "f": 0.4}
WIDE = {"m": 1.0, "w": 0.88, "M": 0.93, "W": 1.1, "×": 0.84, "+": 0.84, "%": 1.0}


def width_of(line: str, style: str) -> float:
    """Of a line of text, in pixels, at the most.

    >>> round(width_of("conv 3×3", "name")), round(width_of("conv 3×3", "faint"))
    (69, 55)
    """
    em = sum(
        NARROW.get(c) or WIDE.get(c) or (0.77 if c.isupper() else 0.64 if c.isascii() else 0.7)
        for c in line
    )
    return em * SIZES[style] * (1.1 if style in BOLD else 1)


def as_svg(shapes: Iterable[Shape], width: float, height: float, title: str) -> str:
    frame = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {frame} role="img">'
    page = svg_rectangle(Rectangle(0, 0, round(width), round(height), "page", radius=0))
    lines = [head, f"<title>{escape(title)}</title>", f"<style>{style_sheet()}</style>", page]
    for shape in shapes:
        if isinstance(shape, Rectangle):
            lines.append(svg_rectangle(shape))
        elif isinstance(shape, Arrow):
            lines.append(svg_arrow(shape))
        elif isinstance(shape, ImageShape):
            lines.append(svg_image(shape))
        else:
            kind = f"{shape.style}{' middle' if shape.middle else ''}"
            where = f'x="{shape.x:.1f}" y="{shape.y:.1f}"'
            lines.append(f'<text class="{kind}" {where}>{escape(shape.line)}</text>')
    return "\n".join([*lines, "</svg>"])


def style_sheet() -> str:
    rules = [f"text{{font-family:{FONTS}}}.middle{{text-anchor:middle}}"]
    for style, size in SIZES.items():
        weight = ";font-weight:600" if style in BOLD else ""
        rules.append(f".{style}{{font-size:{size}px{weight}}}")
    rules.append(colours(0) + f"@media(prefers-color-scheme:dark){{{colours(1)}}}")
    return "".join(rules)


def colours(dark: int) -> str:
    fills = "".join(f".{style}{{fill:{fill[dark]}}}" for style, fill in FILL.items())
    boxes = f"rect{{stroke:{LINE[dark]}}}.page{{stroke:none}}.panel{{stroke-opacity:.35}}"
    lines = f".arrow{{fill:none;stroke:{LINE[dark]};stroke-width:1.4}}.head{{fill:{LINE[dark]}}}"
    return f"text{{fill:{INK[dark]}}}text.faint{{fill:{FAINT[dark]}}}{fills}{boxes}{lines}"


def svg_rectangle(box: Rectangle) -> str:
    where = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    rect = f'<rect class="{box.style}" {where} rx="{box.radius:.1f}"'
    return f"{rect}><title>{escape(box.tip)}</title></rect>" if box.tip else f"{rect}/>"


def svg_image(image: ImageShape) -> str:
    where = f'x="{image.x:.1f}" y="{image.y:.1f}"'
    size = f'width="{image.width:.1f}" height="{image.height:.1f}" preserveAspectRatio="none"'
    pixels = "" if image.smooth else ' style="image-rendering:pixelated"'
    data = f"data:image/png;base64,{base64.b64encode(image.png).decode()}"
    return f'<image {where} {size}{pixels} href="{data}"><title>{escape(image.tip)}</title></image>'


def as_png(pixels: bytes, width: int, height: int) -> bytes:
    """The file of an image, of which each pixel has a byte (grey) or three (RGB).

    >>> as_png(bytes(6), 2, 1)[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    row = len(pixels) // height
    lines = b"".join(b"\0" + pixels[i * row : (i + 1) * row] for i in range(height))  # 0: as it is

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    colour = 0 if row == width else 2
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(lines, 9))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def svg_arrow(arrow: Arrow) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in arrow.points)
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in arrow_head(arrow))
    return f'<polyline class="arrow" points="{points}"/><polygon class="head" points="{head}"/>'


def arrow_head(arrow: Arrow) -> list[tuple[float, float]]:
    """A triangle whose tip is the arrow's last point."""
    (x0, y0), (x, y) = arrow.points[-2:]
    if abs(x - x0) > abs(y - y0):
        back = HEAD if x0 > x else -HEAD
        return [(x, y), (x + back, y - HEAD / 2), (x + back, y + HEAD / 2)]
    back = HEAD if y0 > y else -HEAD
    return [(x, y), (x - HEAD / 2, y + back), (x + HEAD / 2, y + back)]


def save_png(shapes: Iterable[Shape], width: float, height: float, path: Path, title: str) -> None:
    """By matplotlib, which is imported here: nothing else in `foveate.models` needs it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imread
    from matplotlib.patches import Circle, FancyBboxPatch, Polygon

    width, height = round(width), round(height)
    figure = Figure(figsize=(width / 72, height / 72), dpi=72 * SCALE, facecolor=FILL["page"][0])
    axes: Any = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    for z, shape in enumerate(shapes):
        if isinstance(shape, Rectangle):
            radius, x, y = shape.radius, shape.x + shape.radius, shape.y + shape.radius
            inner = shape.width - 2 * radius, shape.height - 2 * radius
            round_box = FancyBboxPatch((x, y), *inner, boxstyle=f"round,pad={radius}")
            patch = round_box if inner[0] > 0 else Circle((x, y), radius)
            edge = PANEL_EDGE if shape.style == "panel" else LINE[0]
            patch.set(facecolor=FILL[shape.style][0], edgecolor=edge, linewidth=1, zorder=z)
            axes.add_patch(patch)
        elif isinstance(shape, Arrow):
            along, down = zip(*shape.points, strict=True)
            axes.plot(along, down, color=LINE[0], linewidth=1.4, zorder=z, solid_joinstyle="round")
            axes.add_patch(Polygon(arrow_head(shape), color=LINE[0], linewidth=0, zorder=z))
        elif isinstance(shape, ImageShape):
            axes.imshow(
                imread(io.BytesIO(shape.png), format="png"),
                cmap="gray",
                vmin=0,
                vmax=1,
                extent=(shape.x, shape.x + shape.width, shape.y + shape.height, shape.y),
                interpolation="hanning" if shape.smooth else "nearest",
                aspect="auto",
                zorder=z,
            )
        else:
            axes.text(
                shape.x,
                shape.y,
                shape.line,
                fontsize=SIZES[shape.style],
                fontweight="bold" if shape.style in BOLD else "normal",
                color=(FAINT if shape.style == "faint" else INK)[0],
                ha="center" if shape.middle else "left",
                va="baseline",
                parse_math=False,
                zorder=z,
            )
    axes.set(xlim=(0, width), ylim=(height, 0))  # a image has changed them
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(str(path), metadata={"Title": title})
