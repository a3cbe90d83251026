"""The figures of a report as inline SVG, in the colours of the page's own style.

Colours are those of the page: `line` for what is measured, `second` for a second line, `quiet` for
axes and marks, `heat` for a cell, `paper` for what is written on a dark cell.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from foveate.errors import printable
from foveate.metrics import wilson_interval
from foveate.report.calibration import Bin
from foveate.report.texts import Texts

MOST = 100  # classes of a confusion matrix that has them all
WORST = 60  # classes of one that has not
LONGEST = 24  # characters of a class's name beside it
NUMBERED = 30  # classes up to which each cell has its number and its names
IN_A_ROW = 2  # names of lines
STEPS = (1, 1.5, 2, 3, 4, 5, 7)  # of an axis in powers
STYLES = ("line", "second", "third", "fourth", "fifth", "sixth")  # of several lines


class Line(NamedTuple):
    """One line of a chart: its name, its style, and its points."""

    name: Markup
    style: str
    points: Sequence[tuple[float, float]]


class Point(NamedTuple):
    """One point of a scatter chart: its name, its place, the interval of its height, and whether
    it is on the front."""

    name: Markup
    x: float
    y: float
    interval: tuple[float, float] | None
    front: bool


def text(x: float, y: float, words: str | Markup, more: str = "") -> Markup:
    """Words at a place; `more` are attributes of our own."""
    return Markup('<text x="{:g}" y="{:g}" {}>{}</text>').format(x, y, Markup(more), words)


def svg(width: float, height: float, label: Markup, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {w:g} {h:g}" width="{w:g}" height="{h:g}" role="img" '
        'aria-label="{label}">{parts}</svg>'
    ).format(
        w=round(width, 1), h=round(height, 1), label=label.striptags(), parts=Markup("").join(parts)
    )


def short(name: str) -> str:
    """A name that finds room beside a matrix.

    >>> short("a" * 30)
    'aaaaaaaaaaaaaaaaaaaaaaa…'
    """
    name = printable(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def worst_classes(confusion: Sequence[Sequence[int]]) -> list[int]:
    """The classes that a matrix shows: all, or where they are too many, those with the most
    mistakes, in their own order."""
    if len(confusion) <= MOST:
        return list(range(len(confusion)))
    counts = np.asarray(confusion)
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    return sorted(np.argsort(-wrong, kind="stable")[:WORST].tolist())


def confusion_matrix(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], t: Texts
) -> Markup:
    """The matrix; each cell's shade is its share of its row.

    Args:
        confusion: (classes, classes), rows: true.
        classes: names.
        t: of the page's language.
    """
    shown = worst_classes(confusion)
    n = len(shown)
    cell = 44 if n <= 12 else 26 if n <= NUMBERED else 14
    size = 13 if n <= NUMBERED else 11
    names = [short(classes[c]) for c in shown]
    margin = 34 + 0.62 * size * max(map(width_of, names), default=0)
    parts = [
        text(margin + n * cell / 2, 14, t("answer"), 'class="quiet" text-anchor="middle"'),
        text(
            *(12, margin + n * cell / 2, t("true_class")),
            f'class="quiet" text-anchor="middle" '
            f'transform="rotate(-90 12 {margin + n * cell / 2:g})"',
        ),
    ]
    for place, (row, name) in enumerate(zip(shown, names, strict=True)):
        middle = margin + (place + 0.5) * cell
        font = f'font-size="{size}"'
        parts.append(text(margin - 6, middle + 0.35 * size, name, f'{font} text-anchor="end"'))
        turn = f'{font} transform="rotate(-90 {middle + 0.35 * size:g} {margin - 6:g})"'
        parts.append(text(middle + 0.35 * size, margin - 6, name, turn))
        total = max(1, sum(confusion[row]))
        for column, other in enumerate(shown):
            count = confusion[row][other]
            if count:
                title = Markup("")
                if n <= NUMBERED:
                    pair = f"{printable(classes[row])} → {printable(classes[other])}"
                    title = Markup("<title>{}: {} / {}</title>").format(pair, count, total)
                kind = "heat" if row == other else "wrong"
                x, y = margin + column * cell, margin + place * cell
                parts.append(cell_of(x, y, cell, count, count / total, kind, title))
    edge = margin + n * cell
    frame = '<rect class="frame" x="{0:g}" y="{0:g}" width="{1:g}" height="{1:g}"/>'
    parts.append(Markup(frame).format(margin, n * cell))
    return svg(edge + 4, edge + 4, t("confusion"), parts)


def width_of(name: str) -> float:
    """Of a name in characters: those of East Asia are twice as wide."""
    return sum(1.7 if ord(c) >= 0x2E80 else 1.0 for c in name)


def cell_of(
    x: float, y: float, side: float, count: int, share: float, kind: str, title: Markup
) -> Markup:
    shade = 0.12 + 0.88 * math.sqrt(share)
    rect = Markup(
        '<rect class="{}" x="{:g}" y="{:g}" width="{:g}" height="{:g}" '
        'fill-opacity="{:.2f}">{}</rect>'
    ).format(kind, x + 0.5, y + 0.5, side - 1, side - 1, shade, title)
    size = min(13, side * (0.5 if count < 100 else 0.36))
    if size < 5 or (side < 20 and count >= 100):
        return rect
    attributes = f'class="{"paper" if shade > 0.6 else ""}" font-size="{size:g}" '
    attributes += 'text-anchor="middle" pointer-events="none"'
    return rect + text(x + side / 2, y + side / 2 + 0.36 * size, str(count), attributes)


def reliability_curve(bins: Sequence[Bin], t: Texts) -> Markup:
    """How often it is right against how sure it is, and below it how many images are so sure."""
    left, top, side, below = 46, 8, 300, 60
    most = max((b.n for b in bins), default=1)
    parts = axes(left, top, side, side, t("says"), t("is_right"), below)
    parts.append(
        Markup('<path class="quiet dashed" d="M{} {}L{} {}"/>').format(
            left, top + side, left + side, top
        )
    )
    for b in bins:
        x, y = left + side * b.confidence, top + side * (1 - b.accuracy)
        low, high = wilson_interval(b.accuracy * b.n, b.n)
        parts.append(
            Markup('<path class="line" d="M{0:.1f} {1:.1f}V{2:.1f}"/>').format(
                x, top + side * (1 - low), top + side * (1 - high)
            )
        )
        title = Markup("<title>{:.0%} → {:.0%} ({})</title>").format(b.confidence, b.accuracy, b.n)
        parts.append(
            Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4">{}</circle>').format(
                x, y, title
            )
        )
        tall = max(1.0, (below - 26) * b.n / most)
        bar = '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
        wide = side * (b.high - b.low)
        floor = top + side + below + 20
        parts.append(Markup(bar).format(left + side * b.low + 1, floor - tall, wide - 2, tall))
        parts.append(
            text(
                left + side * (b.low + b.high) / 2,
                floor + 13,
                str(b.n),
                'class="quiet" font-size="10" text-anchor="middle"',
            )
        )
    return svg(left + side + 12, top + side + below + 38, t("calibration"), parts)


def axes(
    left: float, top: float, width: float, height: float, below: Markup, beside: Markup, drop: float
) -> list[Markup]:
    """Those of fractions from 0 to 1, with a grid at each quarter."""
    parts = []
    for i in range(5):
        x, y = left + width * i / 4, top + height * (1 - i / 4)
        parts.append(
            Markup('<path class="grid" d="M{} {}H{}M{} {}V{}"/>').format(
                left, y, left + width, x, top, top + height
            )
        )
        parts.append(text(left - 6, y + 4, f"{25 * i}", 'class="quiet" text-anchor="end"'))
        parts.append(text(x, top + height + 15, f"{25 * i}", 'class="quiet" text-anchor="middle"'))
    middle = top + height / 2
    parts.append(
        text(
            left + width / 2,
            top + height + 30,
            below + " (%)",
            'class="quiet" text-anchor="middle"',
        )
    )
    parts.append(
        text(
            11,
            middle,
            beside + " (%)",
            f'class="quiet" text-anchor="middle" transform="rotate(-90 11 {middle:g})"',
        )
    )
    return parts


def lines(
    name: Markup, under: Markup, drawn: Sequence[Line], mark: float | None, log: bool = False
) -> Markup:
    """Lines over one axis, with their names above, and a mark at what was kept.

    Args:
        name: of what is drawn.
        under: of the axis.
        drawn: the lines, of finite numbers.
        mark: the place on the axis.
        log: the axis is one of powers of ten, from the largest down.
    """
    left, width, height = 54, 360, 190
    top = 24 + 16 * max(1, -(-len(drawn) // IN_A_ROW))
    points = [p for line in drawn for p in line.points]

    def along(x: float) -> float:
        return -math.log10(x) if log else x

    low_x, high_x = min(along(x) for x, _ in points), max(along(x) for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    spare = 0.06 * (high - low) or 0.05
    low, high = low - spare, high + spare

    def place(x: float, y: float) -> tuple[float, float]:
        across = (along(x) - low_x) / ((high_x - low_x) or 1)
        return left + 8 + (width - 16) * across, top + height * (high - y) / (high - low)

    parts = [text(left, 14, name, 'class="strong"')]
    for i in range(5):
        y = low + (high - low) * i / 4
        _, down = place(points[0][0], y)
        parts.append(
            Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(left, down, left + width)
        )
        parts.append(
            text(left - 6, round(down + 4, 1), f"{y:.3g}", 'class="quiet" text-anchor="end"')
        )
    free = -math.inf
    for x in sorted({x for x, _ in points}, key=along):
        if place(x, low)[0] < free:
            continue  # it would lie on the one before
        free = place(x, low)[0] + 44
        parts.append(
            text(
                round(place(x, low)[0], 1),
                top + height + 16,
                f"{x:.2g}" if log else f"{x:g}",
                'class="quiet" text-anchor="middle"',
            )
        )
    parts.append(
        text(left + width / 2, top + height + 33, under, 'class="quiet" text-anchor="middle"')
    )
    if mark is not None:
        parts.append(
            Markup('<path class="quiet dashed" d="M{0:.1f} {1}V{2}"/>').format(
                place(mark, low)[0], top, top + height
            )
        )
    for number, line in enumerate(drawn):
        path = "L".join("{:.1f} {:.1f}".format(*place(x, y)) for x, y in line.points)
        parts.append(Markup('<path class="{}" d="M{}"/>').format(line.style, path))
        dots = line.points if len(line.points) <= 40 else ()
        parts += [
            Markup('<circle class="{} point" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(
                line.style, *place(x, y)
            )
            for x, y in dots
        ]
        if line.name:
            x, y = left + 180 * (number % IN_A_ROW), 28 + 16 * (number // IN_A_ROW)
            parts.append(Markup('<path class="{}" d="M{} {}h16"/>').format(line.style, x, y))
            parts.append(text(x + 21, y + 4, line.name, 'class="quiet"'))
    return svg(left + width + 12, top + height + 40, name, parts)


def round_numbers(low: float, high: float) -> list[float]:
    """Those between two positive ones that a person would write below an axis.

    >>> round_numbers(6, 25)
    [7, 10, 15, 20]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rounded = [float(f"{step * 10.0**power:.2g}") for power in powers for step in STEPS]
    return [int(x) if x == int(x) else x for x in rounded if low <= x <= high]


def scatter(name: Markup, under: Markup, points: Sequence[Point]) -> Markup:
    """Accuracies against a cost, which is drawn in powers of two; a line joins the front.

    Args:
        name: of what is drawn.
        under: of the axis of costs.
        points: one or more; heights are fractions, costs above 0.
    """
    left, top, width, height = 54, 24, 560, 300
    costs = [math.log2(point.x) for point in points]
    first, last = min(costs) - 0.4, max(costs) + 1.2  # to the right there is room for names
    ends = [end for point in points for end in (point.interval or (point.y, point.y))]
    low, high = max(0.0, min(ends) - 0.01), min(1.0, max(ends) + 0.01)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log2(x) - first) / (last - first)
        return left + width * across, top + height * (high - y) / (high - low)

    parts = [text(left, 14, name + " (%)", 'class="strong"')]
    for i in range(5):
        y = low + (high - low) * i / 4
        down = place(points[0].x, y)[1]
        parts.append(
            Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(left, down, left + width)
        )
        label = f"{100 * y:.1f}"
        parts.append(text(left - 6, round(down + 4, 1), label, 'class="quiet" text-anchor="end"'))
    free = -math.inf
    for x in round_numbers(2**first, 2**last):
        across = round(place(x, low)[0], 1)
        if across < free:
            continue  # it would lie on the one before
        free = across + 40
        parts.append(
            text(across, top + height + 16, f"{x:g}", 'class="quiet" text-anchor="middle"')
        )
    parts.append(
        text(left + width / 2, top + height + 33, under, 'class="quiet" text-anchor="middle"')
    )
    joined = sorted((point.x, point.y) for point in points if point.front)
    if len(joined) > 1:
        path = "L".join("{:.1f} {:.1f}".format(*place(x, y)) for x, y in joined)
        parts.append(Markup('<path class="line" d="M{}"/>').format(path))
    taken: list[tuple[float, float]] = []  # where names are
    for point in sorted(points, key=lambda point: -point.y):
        across, down = place(point.x, point.y)
        if point.interval is not None:
            ends_at = [place(point.x, end)[1] for end in point.interval]
            bar = Markup('<path class="quiet" d="M{:.1f} {:.1f}V{:.1f}"/>')
            parts.append(bar.format(across, *ends_at))
        style = "dot" if point.front else "hollow"
        dot = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4.5"/>')
        parts.append(dot.format(style, across, down))
        beside = down + 4
        while any(abs(beside - y) < 14 and abs(across - x) < 200 for x, y in taken):
            beside += 14
        taken.append((across, beside))
        parts.append(text(round(across + 9, 1), round(beside, 1), point.name))
    return svg(left + width + 12, top + height + 40, name, parts)
