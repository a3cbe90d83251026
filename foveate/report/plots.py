"""A run's confusion matrix and reliability curve as PNG files, for slides and papers.

Pillow draws them: to load matplotlib would take longer than all else that a report does.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from foveate.errors import UsageError, printable, quoted
from foveate.lettering import font_for, has_letters
from foveate.metrics import wilson_interval
from foveate.report.calibration import Bin
from foveate.report.charts import NUMBERED, short, worst_classes
from foveate.storage import replacing

CONFUSION, RELIABILITY = "confusion.png", "reliability.png"
WHITE, INK, QUIET = (255, 255, 255), (27, 31, 36), (110, 119, 130)
RIGHT, WRONG = (31, 95, 168), (179, 65, 28)
GAP = 12
OURS = "Foveate report"


def plot_confusion(path: Path, confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """The matrix, each cell shaded by its share of its row, as the report has it."""
    shown = worst_classes(confusion)
    n = len(shown)
    cell, size = (64, 22) if n <= 12 else (40, 20) if n <= NUMBERED else (24, 18)
    names = [drawable(classes[c], c) for c in shown]
    beside = math.ceil(max((font_for(n, size).getlength(n) for n in names), default=0))
    left = beside + 2 * GAP + size
    side = left + n * cell + GAP
    image = Image.new("RGB", (side, side), WHITE)
    pen = ImageDraw.Draw(image)
    middle = left + n * cell / 2
    plain = font_for("", size)
    pen.text((middle, GAP), "answer", QUIET, plain, anchor="mt")
    turned(image, (GAP, middle), "true class", QUIET, size, anchor="middle")
    for place, (row, name) in enumerate(zip(shown, names, strict=True)):
        at = left + (place + 0.5) * cell
        pen.text((left - GAP, at), name, INK, font_for(name, size), anchor="rm")
        turned(image, (at - size / 2, left - GAP), name, INK, size)
        total = max(1, sum(confusion[row]))
        for column, other in enumerate(shown):
            if count := confusion[row][other]:
                share = 0.12 + 0.88 * math.sqrt(count / total)
                colour = mixed(RIGHT if row == other else WRONG, share)
                x, y = left + column * cell, left + place * cell
                pen.rectangle((x + 1, y + 1, x + cell - 1, y + cell - 1), colour)
                number = font_for("", min(size, int(cell * (0.5 if count < 100 else 0.36))))
                ink = WHITE if share > 0.6 else INK
                pen.text((x + cell / 2, y + cell / 2), str(count), ink, number, anchor="mm")
    pen.rectangle((left, left, left + n * cell, left + n * cell), outline=QUIET)
    save(image, path)


def plot_reliability(path: Path, bins: Sequence[Bin]) -> None:
    """How often it is right against how sure it is, with 95 % intervals."""
    left, top, side, size = 110, 24, 560, 22
    image = Image.new("RGB", (left + side + 40, top + side + 100), WHITE)
    pen, plain = ImageDraw.Draw(image), font_for("", size)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + side * x, top + side * (1 - y)

    for i in range(5):
        x, y = place(i / 4, i / 4)
        pen.line([(left, y), (left + side, y)], (216, 221, 227))
        pen.line([(x, top), (x, top + side)], (216, 221, 227))
        pen.text((left - GAP, y), f"{25 * i}", QUIET, plain, anchor="rm")
        pen.text((x, top + side + GAP), f"{25 * i}", QUIET, plain, anchor="mt")
    pen.line([place(0, 0), place(1, 1)], QUIET, 2)
    for b in bins:
        low, high = wilson_interval(b.accuracy * b.n, b.n)
        pen.line([place(b.confidence, low), place(b.confidence, high)], RIGHT, 3)
        x, y = place(b.confidence, b.accuracy)
        pen.ellipse((x - 7, y - 7, x + 7, y + 7), RIGHT)
    middle = (left + side / 2, top + side + 56)
    pen.text(middle, "probability of the answer (%)", INK, plain, anchor="mt")
    turned(image, (GAP, top + side / 2), "share that is right (%)", INK, size, anchor="middle")
    save(image, path)


def turned(
    image: Image.Image,
    at: tuple[float, float],
    words: str,
    colour: tuple[int, int, int],
    size: int,
    anchor: str = "start",
) -> None:
    """Words that are read from below, whose start or middle is at a height."""
    font = font_for(words, size)
    long = math.ceil(font.getlength(words)) + 2
    line = Image.new("L", (long, size + 8))
    ImageDraw.Draw(line).text((0, (size + 8) / 2), words, 255, font, anchor="lm")
    line = line.rotate(90, expand=True)
    down = at[1] - (long / 2 if anchor == "middle" else long)
    image.paste(Image.new("RGB", line.size, colour), (round(at[0]), round(down)), line)


def mixed(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    """A colour over white.

    >>> mixed((0, 0, 0), 0.5)
    (128, 128, 128)
    """
    red, green, blue = (round(255 + share * (c - 255)) for c in colour)
    return red, green, blue


def drawable(name: str, number: int) -> str:
    """A class's name, or its number where no font has all of its letters."""
    name = printable(name)
    font = font_for(name, 20)
    there = isinstance(font, ImageFont.FreeTypeFont) and has_letters(font, name)
    return short(name) if there else f"class {number + 1}"


def save(image: Image.Image, path: Path) -> None:
    check_figure(path)
    about = PngInfo()
    about.add_text("Software", OURS)
    with replacing(path) as temporary:
        image.save(temporary, "PNG", pnginfo=about)


def check_figure(path: Path) -> None:
    """UsageError if a file of others has the place of a figure."""
    if not os.path.lexists(path):
        return
    try:
        with Image.open(path) as image:
            ours = image.info.get("Software") == OURS
    except (OSError, SyntaxError, ValueError):  # no image, or damaged
        ours = False
    if not ours:
        raise UsageError(
            f"{quoted(path)} exists and is no figure of a report; choose another --out"
        )
