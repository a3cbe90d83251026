"""A diagram of a network, as papers draw it: its blocks in a row, and inside of each kind of block
the layers with their branches, additions and concatenations.

What reads what comes of the network itself (see `foveate.models.graph`), so that any module of
yours can be drawn too. Blocks in a row that do the same in the same size are one box, "×3"; each
kind of block is drawn inside once, beside the row. The drawing is always the same for the same
network.

>>> from foveate.models import build
>>> diagram = draw(build("resnet18"), title="ResNet-18")
>>> "ResNet-18" in str(diagram), "Basic A ×2" in str(diagram)
(True, True)

In a notebook the last expression of a cell is shown: `draw(network)`.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

from torch import nn

from foveate.models.drawing import (
    Arrow,
    Rectangle,
    Shape,
    Text,
    as_svg,
    save_png,
    width_of,
)
from foveate.models.graph import Node, inputs, outside, signature, trace
from foveate.models.network import as_network, missing_parts

MARGIN, GAP = 24, 24  # around the page; between boxes above each other
ASIDE, LANE = 18, 16  # between boxes beside each other; of an edge that passes boxes
PAD, LINE_HEIGHT, LEAST = 10, 15, 84  # of a box: beside its text, a line, its width
SIGN = 26  # diameter of + and ×
MANY = 20  # a row of more layers has equal ones in one box
PANEL, HEADING = 16, 44  # inside a panel: around the graph, and above it
COLUMNS, ASPECT = 4, 1.5  # of the row at most; width by height of the page that is aimed at


@dataclass(frozen=True)
class Diagram:
    """A drawing of a network: `str()` is its SVG, a notebook shows it.

    Args:
        title: what stands above it.
        width, height: in pixels.
        shapes: from back to front.
    """

    title: str
    width: float
    height: float
    shapes: tuple[Shape, ...]

    def __str__(self) -> str:
        return as_svg(self.shapes, self.width, self.height, self.title)

    def __repr__(self) -> str:
        return f"<Diagram of {self.title}, {self.width:.0f} × {self.height:.0f} pixels>"

    def _repr_svg_(self) -> str:
        return str(self)

    def save(self, path: str | Path) -> None:
        """Write it into a file, as SVG or as PNG by the end of its name.

        Raises:
            ValueError: the name ends in neither.
        """
        path = Path(path)
        check_suffix(path)
        if path.suffix.lower() == ".svg":
            path.write_text(f"{self}\n", encoding="utf-8")
        else:
            save_png(self.shapes, self.width, self.height, path, self.title)


def check_suffix(path: Path) -> None:
    """
    Raises:
        ValueError: the name ends neither in .svg nor in .png.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise ValueError(
            f"a diagram is written as .svg or as .png: expected a name that ends so, got '{path}'"
        )


def draw(
    network: nn.Module, size: tuple[int, int, int] | None = None, title: str | None = None
) -> Diagram:
    """A network as a graph of its blocks, and each kind of block as a graph of its layers.

    Args:
        network: any module that takes a batch of images, on any device; it is left as it is.
        size: of the image, (channels, height, width); by default the network's own.
        title: by default the class's name.

    Raises:
        TypeError: no size is given, and the module has no `input_size`.
        ValueError: as `foveate.models.graph.trace`.
    """
    size = size or own_size(network)
    title = title or type(network).__name__
    nodes = trace(network, size)
    kinds = Kinds(nodes)
    parameters = sum(p.numel() for p in network.parameters())
    note = f"{parameters:,} parameters. In each box: channels × height × width of its output"
    row = kinds.boxes(nodes, Box(["image", by_times(size)], "image", size), wide=True)
    panels = [kinds.panel(members) for members in kinds.members.values()]
    return page(title, note, row, panels)


def beside(first: Diagram, second: Diagram) -> Diagram:
    """Two diagrams as one, the second to the right of the first."""
    aside = [moved(shape, first.width, 0) for shape in second.shapes]
    return Diagram(
        title=f"{first.title} and {second.title}",
        width=first.width + second.width,
        height=max(first.height, second.height),
        shapes=(*first.shapes, *aside),
    )


def own_size(network: nn.Module) -> tuple[int, int, int]:
    if missing_parts(network)[:1] == ["input_size"]:
        raise TypeError(
            f"{type(network).__name__} has no input_size: give the size of an image as "
            "(channels, height, width)"
        )
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    side = as_network(network, "input_size").input_size
    return (first.in_channels if first else 3, side, side)


def by_times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


class Box:
    """A rectangle with lines of text, or the circle of an addition or a product.

    Args:
        lines: the first one bold.
        role: as of a Node, or "image" for what comes in.
        shape: of the output.
        reads: indices of the boxes that it reads.
    """

    def __init__(
        self,
        lines: list[str],
        role: str,
        shape: tuple[int, ...],
        reads: list[int] | None = None,
        tip: str = "",
    ):
        self.role, self.shape, self.reads, self.tip = role, shape, reads or [], tip
        self.lines = lines[:1] if role == "join" else [line for line in lines if line]
        self.width = max(width_of(line, style) for line, style in self.styled()) + 2 * PAD
        self.width = SIGN if role == "join" else max(LEAST, self.width)
        self.height = SIGN if role == "join" else LINE_HEIGHT * len(self.lines) + 8
        self.rank = 0  # boxes on the longest way from what comes in
        self.x = self.top = 0.0  # of its middle, of its upper side

    def styled(self) -> list[tuple[str, str]]:
        first = "sign" if self.role == "join" else "name"
        return [(line, first if i == 0 else "faint") for i, line in enumerate(self.lines)]

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def shapes(self) -> Iterator[Shape]:
        left, radius = self.x - self.width / 2, SIGN / 2 if self.role == "join" else 5
        yield Rectangle(left, self.top, self.width, self.height, self.role, radius, self.tip)
        y = self.top + (18.5 if self.role == "join" else LINE_HEIGHT)
        for i, (line, style) in enumerate(self.styled()):
            yield Text(self.x, y + i * LINE_HEIGHT, line, style)


class Kinds:
    """The kinds of blocks in a network, and their names: "Basic", or "Basic A" and "Basic B".

    Blocks of one class are of one kind if they have the same layers, whatever their channels,
    kernels and strides are.
    """

    def __init__(self, nodes: list[Node]):
        self.members: dict[Any, list[Node]] = {}  # in the order of their first appearance
        self.collect(nodes)
        self.names: dict[Any, str] = {}
        classes = Counter(members[0].label for members in self.members.values())
        letters = {label: iter(ascii_uppercase * 9) for label in classes}
        for kind, members in self.members.items():
            label = members[0].label
            self.names[kind] = f"{label} {next(letters[label])}" if classes[label] > 1 else label

    def collect(self, nodes: list[Node]) -> None:
        for node in nodes:
            if node.inner:
                self.members.setdefault(kind_of(node), []).append(node)
        for node in nodes:
            self.collect(node.inner)

    def boxes(self, nodes: list[Node], source: Box, wide: bool) -> list[Box]:
        """A graph's nodes behind what comes in, equal neighbours in one box.

        Args:
            wide: in as few lines as can be.
        """
        reads = inputs(nodes)
        readers = Counter(j for read in reads for j in read)
        found, index = [source], {-1: 0}
        groups: list[list[int]] = []
        for i, node in enumerate(nodes):
            alike = i > 0 and signature(node) == signature(nodes[i - 1])
            in_a_row = reads[i] == [i - 1] and readers[i - 1] == 1
            if alike and in_a_row and (node.inner or len(nodes) > MANY):
                groups[-1].append(i)
            else:
                groups.append([i])
        for group in groups:
            first = group[0]
            before = nodes[reads[first][0]].shape if reads[first][0] >= 0 else source.shape
            box = self.box(nodes[first], len(group), before, wide)
            box.reads = sorted({index[j] for j in reads[first]})
            index |= dict.fromkeys(group, len(found))
            found.append(box)
        return found

    def box(self, node: Node, n: int, before: tuple[int, ...], wide: bool) -> Box:
        extras = " · ".join(node.extras)
        count = f" ×{n}" if n > 1 else ""
        label, more = f"{node.label}{count}", ""
        if node.inner:
            label, more = self.block(node, before, count)
        elif extras and (wide or node.role == "point"):
            label, extras = f"{node.label} · {extras}{',' * (n > 1)}{count}", ""
        tip = f"{node.name}: {node.about}" if node.about else node.name
        return Box([label, more, extras, by_times(node.shape)], node.role, node.shape, tip=tip)

    def block(self, node: Node, before: tuple[int, ...], count: str) -> tuple[str, str]:
        """A block's name with what differs from the others of its kind; and its inner blocks."""
        kind = kind_of(node)
        kernels = {kernel(member) for member in self.members[kind]}
        strided = len(before) == len(node.shape) == 3 and before[1] > node.shape[1]
        details = [kernel(node)] if len(kernels) > 1 else []
        details += [f"/{round(before[1] / node.shape[1])}"] if strided else []
        comma = "," if len(kernels) > 1 else ""
        label = " ".join([f"{self.names[kind]}{count}{comma}", *details])
        blocks = Counter(self.names[kind_of(inside)] for inside in node.inner if inside.inner)
        more = ", ".join(f"{n} × {name}" for name, n in blocks.items() if n > 1)
        return label, more

    def panel(self, members: list[Node]) -> "Panel":
        """A kind of block, inside: the smallest one of the kind."""
        node = min(members, key=lambda m: (len(m.inner), len(outside(m.inner)) < 2))
        reads = [node.sizes[number] for number in outside(node.inner)]
        lines = ["input" if len(reads) == 1 else f"{len(reads)} inputs"]
        source = Box([*lines, *map(by_times, reads[:3])], "image", reads[0])
        note = f"as in {node.name}" if len(members) > 1 else node.name
        boxes = self.boxes(node.inner, source, wide=False)
        return Panel(self.names[kind_of(node)], note, Layout(boxes))


def kind_of(node: Node) -> tuple[Any, ...]:
    """A block's class and its layers without their sizes; equal blocks in a row count once."""
    layers: list[Any] = []
    for inside in node.inner:
        layer = kind_of(inside) if inside.inner else (inside.role, inside.label.split()[0])
        if not (inside.inner and layers[-1:] == [layer]):
            layers.append(layer)
    edges = inputs(node.inner) if len(layers) == len(node.inner) else []
    return (node.label, tuple(layers), tuple(map(tuple, edges)))


def kernel(node: Node) -> str:
    """Of a block: the kernel of its convolutions, if they have one beside 1×1."""
    found = {
        word
        for inside in node.inner
        if inside.role == "conv"
        for word in inside.label.split()
        if "×" in word and word != "1×1"
    }
    return found.pop() if len(found) == 1 else ""


@dataclass
class Track:
    """Boxes above each other, or an edge that passes others (a lane), in one column."""

    start: int  # rank of the first and of the last row that it needs
    end: int
    boxes: list[int] = field(default_factory=list)

    def collides(self, other: "Track") -> bool:
        """Between two of one column an empty row is left, for the edges."""
        return self.start <= other.end + 1 and other.start <= self.end + 1


class Layout:
    """Boxes in rows from top to bottom, and the arrows between them.

    A box stands below all that it reads. Where the graph branches, each branch has a column, and an
    edge that passes boxes has a lane to the right of them; where it comes together again, all is on
    one axis.

    Args:
        boxes: the first one is what comes in; each reads boxes before it.
        columns: so many times the row begins again at the top, at most.
    """

    def __init__(self, boxes: list[Box], columns: int = 1):
        self.boxes = boxes
        for box in boxes:
            box.rank = max((boxes[j].rank + 1 for j in box.reads), default=0)
        self.rows = [
            [box for box in boxes if box.rank == rank]
            for rank in range(max(box.rank for box in boxes) + 1)
        ]
        self.edges = [(j, i) for i, box in enumerate(boxes) for j in box.reads]
        self.readers = Counter(j for j, _ in self.edges)
        self.passed = {  # ranks that an edge passes
            rank for j, i in self.edges for rank in range(boxes[j].rank + 1, boxes[i].rank)
        }
        self.lanes: dict[int, float] = {}  # index of a box -> x of the lane that begins there
        self.extent: list[tuple[float, float]] = [(0, 0)] * len(self.rows)
        self.set_columns()
        self.tops, self.part = self.set_rows(columns)
        self.arrows = [self.arrow(j, i) for j, i in self.edges]
        self.to_origin()

    def alone(self, rank: int) -> bool:
        """All that is computed passes through this row's box."""
        return len(self.rows[rank]) == 1 and rank not in self.passed

    def set_columns(self) -> None:
        cuts = [rank for rank in range(len(self.rows)) if self.alone(rank)]
        for start, end in zip(cuts, [*cuts[1:], len(self.rows)], strict=True):
            if end > start + 1:
                self.set_branches(start + 1, end - 1)
        for rank, row in enumerate(self.rows):
            left, right = self.extent[rank]
            sides = [(box.x - box.width / 2, box.x + box.width / 2) for box in row]
            self.extent[rank] = (
                min(left, *(s[0] for s in sides)),
                max(right, *(s[1] for s in sides)),
            )

    def set_branches(self, start: int, end: int) -> None:
        """Columns and lanes of the rows between two through which all passes."""
        tracks, lanes = self.tracks(start, end)
        columns = in_columns(tracks)
        widths = [max(self.boxes[i].width for track in c for i in track.boxes) for c in columns]
        x = right = -(sum(widths) + ASIDE * (len(widths) - 1)) / 2
        for column, width in zip(columns, widths, strict=True):
            for i in (i for track in column for i in track.boxes):
                self.boxes[i].x = x + width / 2
            right = x + width
            x = right + ASIDE
        # the lane that begins first is the outermost one, so that they do not cross
        for lane_column in in_columns(sorted(lanes, key=lambda lane: -lane.start)):
            right += LANE
            for lane in lane_column:
                self.lanes[lane.boxes[0]] = right
        for rank in range(start - 1, min(end + 2, len(self.rows))):
            self.extent[rank] = (self.extent[rank][0], max(self.extent[rank][1], right))

    def tracks(self, start: int, end: int) -> tuple[list[Track], list[Track]]:
        """The branches of some rows, and the lanes, whose first box is where the edge begins."""
        boxes = self.boxes
        inside = [i for i, box in enumerate(boxes) if start <= box.rank <= end]
        tracks: list[Track] = []
        last: dict[int, Track] = {}  # by the box that ends it
        for i in inside:
            before = next((j for j in boxes[i].reads if j in last), None)
            track = last.pop(before) if before is not None else Track(boxes[i].rank, boxes[i].rank)
            if before is None:
                tracks.append(track)
            track.boxes.append(i)
            track.end = boxes[i].rank
            last[i] = track
        after = {j: i for track in tracks for j, i in pairwise(track.boxes)}
        lanes: dict[int, Track] = {}
        for j, i in self.edges:
            begin, stop = boxes[j].rank + 1, boxes[i].rank - 1
            if not (start <= begin <= stop <= end) or after.get(j) == i:
                continue
            if j in last:
                last[j].end = max(last[j].end, stop)
            else:
                lane = lanes.setdefault(j, Track(begin, stop, [j]))
                lane.end = max(lane.end, stop)
        return tracks, list(lanes.values())

    def set_rows(self, columns: int) -> tuple[list[float], list[int]]:
        """The top of each row, and in which column of the page it is."""
        self.heights = [max(box.height for box in row) for row in self.rows]
        self.gap = GAP + (12 if len(self.lanes) > 2 else 0)
        heights = [height + self.gap for height in self.heights]
        ends = list(accumulate(heights))
        can_begin = [r for r in range(1, len(ends)) if self.alone(r) and self.alone(r - 1)]
        begins = []
        for n in range(1, columns):
            wanted = ends[-1] * n / columns
            begins.append(min(can_begin, key=lambda r: abs(ends[r - 1] - wanted), default=0))
        part = [sum(begin <= rank for begin in set(begins) - {0}) for rank in range(len(ends))]
        tops, x = [0.0] * len(ends), 0.0
        for n in range(part[-1] + 1):
            ranks = [rank for rank in range(len(ends)) if part[rank] == n]
            y, left = 0.0, min(self.extent[rank][0] for rank in ranks)
            for rank in ranks:
                tops[rank] = y
                for box in self.rows[rank]:
                    box.x += x - left
                    box.top = y + (self.heights[rank] - box.height) / 2
                    index = self.boxes.index(box)
                    if index in self.lanes:
                        self.lanes[index] += x - left
                y += heights[rank]
            x += max(self.extent[rank][1] for rank in ranks) - left + 3 * ASIDE
        return tops, part

    def arrow(self, j: int, i: int) -> Arrow:
        """From the bottom of one box to the top of another, or to the side of a circle."""
        above, below = self.boxes[j], self.boxes[i]
        start, end = (above.x, above.bottom), (below.x, below.top)
        leave = self.tops[above.rank] + self.heights[above.rank] + self.gap / 3
        arrive = self.tops[below.rank] - GAP / 2
        if self.part[above.rank] != self.part[below.rank]:
            first = [r for r in range(len(self.rows)) if self.part[r] == self.part[below.rank]]
            x = below.x + min(self.extent[r][0] for r in first) - 1.5 * ASIDE
            points = [start, (above.x, leave), (x, leave), (x, arrive), (below.x, arrive), end]
        elif below.rank == above.rank + 1:
            # edges of one box share a level, and so do edges into one box
            level = leave if self.readers[j] > 1 else arrive
            points = [start, (above.x, level), (below.x, level), end]
        elif j not in self.lanes or self.follows(j, i):
            points = [start, (above.x, arrive), (below.x, arrive), end]
        else:
            x = self.lanes[j]
            points = [start, (above.x, leave), (x, leave)]
            if below.role == "join" and self.alone(below.rank):
                y = below.top + SIGN / 2
                points += [(x, y), (below.x + SIGN / 2, y)]
            else:
                points += [(x, arrive), (below.x, arrive), end]
        return Arrow(tuple(straight(points)))

    def follows(self, j: int, i: int) -> bool:
        """One below the other in one branch, with nothing between."""
        above, below = self.boxes[j], self.boxes[i]
        between = (b for b in self.boxes if above.rank < b.rank < below.rank)
        return (
            above.x == below.x
            and not self.alone(above.rank)
            and all(b.x != above.x for b in between)
        )

    def to_origin(self) -> None:
        """Move all so that it begins at 0, 0."""
        points = [point for arrow in self.arrows for point in arrow.points]
        left = min([x for x, _ in points] + [box.x - box.width / 2 for box in self.boxes])
        top = min([y for _, y in points] + [box.top for box in self.boxes])
        for box in self.boxes:
            box.x, box.top = box.x - left, box.top - top
        self.arrows = [moved(arrow, -left, -top) for arrow in self.arrows]
        points = [point for arrow in self.arrows for point in arrow.points]
        self.width = max([x for x, _ in points] + [box.x + box.width / 2 for box in self.boxes])
        self.height = max([y for _, y in points] + [box.bottom for box in self.boxes])

    def shapes(self, x: float, y: float) -> Iterator[Shape]:
        for shape in (*self.arrows, *(s for box in self.boxes for s in box.shapes())):
            yield moved(shape, x, y)


def in_columns(tracks: list[Track]) -> list[list[Track]]:
    """Each track in the first column where it collides with none."""
    columns: list[list[Track]] = []
    for track in tracks:
        free = (c for c in columns if not any(track.collides(other) for other in c))
        column = next(free, None)
        if column is None:
            columns.append([track])
        else:
            column.append(track)
    return columns


def straight(points: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Without points that lie on the way between their neighbours."""
    for i, (x, y) in enumerate(points):
        around = points[max(0, i - 1) : i + 2]
        on_the_way = (
            len({round(a, 3) for a, _ in around}) == 1 or len({round(b, 3) for _, b in around}) == 1
        )
        if i in (0, len(points) - 1) or not on_the_way:
            yield (x, y)


ShapeType = TypeVar("ShapeType", bound=Shape)


def moved(shape: ShapeType, x: float, y: float) -> ShapeType:
    if isinstance(shape, Arrow):
        return replace(shape, points=tuple((a + x, b + y) for a, b in shape.points))
    return replace(shape, x=shape.x + x, y=shape.y + y)


@dataclass(frozen=True)
class Panel:
    """A kind of block, drawn inside."""

    heading: str
    note: str
    layout: Layout

    @property
    def width(self) -> float:
        words = max(width_of(self.heading, "heading"), width_of(self.note, "faint"))
        return max(words, self.layout.width) + 2 * PANEL

    @property
    def height(self) -> float:
        return HEADING + self.layout.height + 2 * PANEL

    def shapes(self, x: float, y: float) -> Iterator[Shape]:
        yield Rectangle(x, y, self.width, self.height, "panel", radius=8)
        yield Text(x + PANEL, y + PANEL + 10, self.heading, "heading", middle=False)
        yield Text(x + PANEL, y + PANEL + 26, self.note, "faint", middle=False)
        left = x + (self.width - self.layout.width) / 2
        yield from self.layout.shapes(left, y + HEADING + PANEL)


def page(title: str, note: str, row: list[Box], panels: list[Panel]) -> Diagram:
    """The row of blocks on the left, the panels beside it, in the shape of a page."""

    def unshapely(parts: tuple[Any, ...]) -> float:
        columns, _, width, height = parts
        area = math.log(width * height) / 2
        return abs(math.log(width / height / ASPECT)) + area + columns / 10

    tries = [
        (columns, filled, *size)
        for columns in range(1, COLUMNS + 1)
        for filled, size in fillings(Layout(fresh(row), columns), panels)
    ]
    columns, filled, width, height = min(tries, key=unshapely)
    words = max(width_of(title, "title"), width_of(note, "faint"))
    top = MARGIN + 56
    shapes: list[Shape] = [
        Text(MARGIN, MARGIN + 16, title, "title", middle=False),
        Text(MARGIN, MARGIN + 36, note, "faint", middle=False),
        *Layout(fresh(row), columns).shapes(MARGIN, top),
    ]
    for panel, x, y in filled:
        shapes += panel.shapes(MARGIN + x, top + y)
    return Diagram(title, max(width, words) + 2 * MARGIN, height + top + MARGIN, tuple(shapes))


def fresh(row: list[Box]) -> list[Box]:
    """The same boxes, placed nowhere yet."""
    return [Box(box.lines, box.role, box.shape, box.reads, box.tip) for box in row]


Filling = tuple[list[tuple[Panel, float, float]], tuple[float, float]]


def fillings(main: Layout, panels: list[Panel]) -> Iterator[Filling]:
    """Panels in columns to the right of a layout: where each is, and how large it is in all."""
    tallest = max([main.height, *(panel.height for panel in panels)])
    for limit in (tallest, 1.2 * tallest, 1.5 * tallest, 2 * tallest):
        placed = []
        x, y, wide, height = main.width + 2 * MARGIN, 0.0, 0.0, main.height
        for panel in panels:
            if y and y + panel.height > limit:
                x, y, wide = x + wide + MARGIN, 0.0, 0.0
            placed.append((panel, x, y))
            wide, y = max(wide, panel.width), y + panel.height + MARGIN
            height = max(height, y - MARGIN)
        yield placed, (x + wide if panels else main.width, height)
