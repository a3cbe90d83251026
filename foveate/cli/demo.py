"""foveate demo"""

from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.console import Quiet, TerminalProgress, say
from foveate.cli.train import show, typed

SHOWN = 6  # images drawn
LETTERS = "AKMRX?"  # of which none is a digit
WIDE = 16  # characters of an image that is drawn


def demo(
    out: Annotated[
        Path | None, typer.Option(help="The run's folder [default: runs/digits]")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train on the 1,797 hand-written digits of scikit-learn, and show the result."""
    from foveate import training
    from foveate.data.layouts import load_dataset
    from foveate.report.run import REPORT

    dataset = load_dataset("digits")
    with TerminalProgress(quiet) as progress:
        classifier = training.train(dataset, out=out, progress=progress, command=typed())
    metrics = classifier.metrics
    show(metrics, classifier.classes)

    say(f"its predictions for {SHOWN} of the images:")
    rows = [len(dataset) * i // SHOWN + 7 for i in range(SHOWN)]
    show_images(classifier, [dataset.read(i) for i in rows])
    say("and for letters, which it was never taught:")
    show_images(classifier, [letter(character) for character in LETTERS])
    say(f"run   {classifier.run}   ({metrics['seconds']['total']:.1f} s)")
    if (page := classifier.run / REPORT).is_file():
        say(f"open  {page}")
    say("next  foveate train PHOTOS   (a folder with one folder per class)")


def show_images(classifier: Any, images: list[bytes]) -> None:
    """Small images beside each other, and what each is."""
    for lines in zip(*map(draw, images), strict=True):
        typer.echo("   ".join(lines))
    found = classifier.predict(images)
    answers = [p.label if p.rejected else f"{p.label} {100 * p.probability:3.0f} %" for p in found]
    say("   ".join(answer.ljust(WIDE) for answer in answers))
    say()


def letter(character: str) -> bytes:
    """An image of a character, of the digits' size."""
    import io

    from PIL import Image, ImageDraw

    image = Image.new("L", (WIDE // 2, WIDE // 2))
    ImageDraw.Draw(image).text((1, -2), character, fill=255)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def draw(data: bytes) -> list[str]:
    """A small grey image as lines of text, two characters a pixel."""
    from foveate.data.image import load_image

    image = load_image(data).convert("L")
    shades: Any = " ░▒▓█"
    grey = image.tobytes()
    width = image.width
    return [
        "".join(2 * shades[grey[y * width + x] * 4 // 255] for x in range(width))
        for y in range(image.height)
    ]
