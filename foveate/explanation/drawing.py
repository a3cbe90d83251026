"""Explanations as an image: the image itself, and beside it the map of each class over it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from foveate.errors import printable
from foveate.explanation import Explanation
from foveate.lettering import font_for, shorten, wrap

FOR, AGAINST = (214, 39, 40), (31, 85, 180)  # red and blue, told apart by those who see no red
STRONGEST = 0.75  # how much of the colour the largest value has
GREYED = 0.35  # of the image's own colours below a map
INK, FAINT, ALARM, PAPER = (32, 32, 32), (110, 110, 110), (176, 0, 0), (255, 255, 255)
GAP, MARGIN, SIZE = 12, 16, 15  # pixels; the last of letters
LEAST = 220  # pixels of the width of one class, for its words


def draw(explanations: Sequence[Explanation]) -> Image.Image:
    """One image of all of them, which are of one image; their colours have one scale.

    Args:
        explanations: at least one.
    """
    first = explanations[0]
    height, width = first.pixels.shape[:2]
    cell, line = max(width, LEAST), SIZE + 6
    panels = [panel(one, cell) for one in explanations]
    lines = max(len(words) for words, _ in panels)
    across = (cell + GAP) * (1 + len(panels)) - GAP
    footer = wrap(first.caption + " Red speaks for the class, blue against it.", across, SIZE)
    top = MARGIN + lines * line
    size = (across + 2 * MARGIN, top + height + GAP + len(footer) * line + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, colour: tuple[int, int, int]) -> None:
        pen.text((x, y), text, colour, font_for(text, SIZE))

    write(MARGIN, MARGIN, shorten(printable(Path(first.file).name), cell, SIZE), FAINT)
    sheet.paste(Image.fromarray(first.pixels), (MARGIN, top))
    largest = max(float(np.abs(one.image).max(initial=0)) for one in explanations)
    for number, (one, (words, alarm)) in enumerate(zip(explanations, panels, strict=True), 1):
        x = MARGIN + number * (cell + GAP)
        for row, text in enumerate(words):
            write(x, MARGIN + row * line, text, INK if row == 0 else ALARM if alarm else FAINT)
        sheet.paste(Image.fromarray(overlaid(one, largest)), (x, top))
        if alarm:
            pen.rectangle((x, top, x + width - 1, top + height - 1), outline=ALARM, width=4)
    for row, text in enumerate(footer):
        write(MARGIN, top + height + GAP + row * line, text, FAINT)
    return sheet


def panel(one: Explanation, room: int) -> tuple[list[str], bool]:
    """The words above a map, and whether it is not to be trusted."""
    title = f"{printable(one.label)}  {100 * one.probability:.1f} %"
    if one.trusted:
        said = f"{one.method}; it passed its checks"
    elif one.checks:
        said = f"{one.method}; NOT TO BE TRUSTED: {one.why}"
    else:
        said = f"{one.method}; not checked"
    alarm = bool(one.checks) and not one.trusted
    return [shorten(title, room, SIZE), *wrap(said, room, SIZE)], alarm


def overlaid(one: Explanation, largest: float) -> NDArray[np.uint8]:
    """The image, grey below the map: red where it speaks for the class, blue where against it.

    Args:
        largest: the value that has the strongest colour.
    """
    pixels = one.pixels.astype(np.float32)
    grey = pixels.mean(axis=2, keepdims=True)
    base = GREYED * pixels + (1 - GREYED) * grey
    strength = STRONGEST * np.abs(one.image)[:, :, None] / (largest or 1.0)
    colours = np.array([AGAINST, FOR], dtype=np.float32)
    colour = colours[(one.image > 0).astype(np.int64)]
    return np.round(base + strength * (colour - base)).astype(np.uint8)
