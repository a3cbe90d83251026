"""Draw docs/framing.jpg: one photo, what each framing and each fit sees of it.

python docs/make_framing.py PHOTO
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import foveate
from foveate.features import STRETCH

SIDE, GAP, LINE = 180, 14, 22
WAYS = [("framing", name) for name in ("whole", "7/8", "2/3", "1/2")] + [
    ("fit", name) for name in ("squash", "pad")
]


def main(path: str) -> None:
    photo = foveate.load_image(path)
    whole = foveate.Preprocess(224, 224, stretch=STRETCH, mean=(0.5,) * 3)
    scale = SIDE / min(photo.size)
    given = photo.resize((round(photo.width * scale), round(photo.height * scale)))
    height = max(given.height, SIDE) + LINE + 2 * GAP
    width = given.width + GAP + len(WAYS) * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    sheet.paste(given, (GAP, GAP + LINE))
    draw.text((GAP, GAP), "the photo", "black", font)
    for number, (what, name) in enumerate(WAYS):
        seen = whole.framed(name) if what == "framing" else whole.framed(fit=name)
        left = 2 * GAP + given.width + number * (SIDE + GAP)
        share = 100 * seen.seen(*photo.size)
        draw.text((left, GAP), f"{what} {name}: {share:.0f} %", "black", font)
        square = Image.fromarray(seen.pixels(photo)).resize((SIDE, SIDE))
        sheet.paste(square, (left, GAP + LINE))
    sheet.save(Path(__file__).with_name("framing.jpg"), quality=88)


if __name__ == "__main__":
    main(sys.argv[1])
