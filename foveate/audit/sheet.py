"""An image of sets of images, one row each: so that people see what belongs together, or is bad."""

from PIL import Image, ImageDraw

from foveate.data.dataset import Dataset
from foveate.data.image import load_image
from foveate.errors import ImageError

SIDE, GAP = 112, 4  # pixels of an image, and between two
ACROSS, DOWN = 10, 24  # images of a group, and sets, that are shown


def draw_rows(dataset: Dataset, sets: list[list[int]]) -> Image.Image | None:
    """The first DOWN sets, a row of images each; None if there is none.

    Args:
        dataset: its images are read again.
        sets: rows of the dataset, none of them empty.
    """
    shown = sets[:DOWN]
    if not shown:
        return None
    step = SIDE + GAP
    across = min(ACROSS, max(map(len, shown)))
    sheet = Image.new("RGB", (across * step + GAP, len(shown) * step + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for down, rows in enumerate(shown):
        for place, row in enumerate(rows[:ACROSS]):
            corner = (GAP + place * step, GAP + down * step)
            try:
                image = load_image(dataset.read(row), dataset.files[row], SIDE)
            except ImageError:
                continue  # it is among the bad ones
            image.thumbnail((SIDE, SIDE))
            sheet.paste(image, corner)
        if len(rows) > ACROSS:
            last = (GAP + (ACROSS - 1) * step + 6, GAP + down * step + 6)
            pen.text(
                last, f"and {len(rows) - ACROSS} more", "black", stroke_width=3, stroke_fill="white"
            )
    return sheet
