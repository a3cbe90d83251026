"""foveate demo"""

from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.console import Quiet, TerminalProgress, say
from foveate.cli.train import show, typed

SHOWN = 6  # images drawn


def demo(
    out: Annotated[
        Path | None, typer.Option(help="The run's folder [default: runs/digits]")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train on the 1,797 hand-written digits of scikit-learn, and show the result."""
    from foveate import training
    from foveate.data.layouts import load_dataset

    dataset = load_dataset("digits")
    with TerminalProgress(quiet) as progress:
        classifier = training.train(dataset, out=out, progress=progress, command=typed())
    metrics = classifier.metrics
    show(metrics, classifier.classes)

    rows = [len(dataset) * i // SHOWN + 7 for i in range(SHOWN)]
    say(f"its predictions for {SHOWN} of the images:")
    images = [draw(dataset.read(i)) for i in rows]
    for lines in zip(*images, strict=True):
        typer.echo("   ".join(lines))
    guesses = [g.top[0] for g in classifier.predict([dataset.read(i) for i in rows])]
    say("   ".join(f"{label} {100 * p:3.0f} %".ljust(16) for label, p in guesses))
    say()
    say(f"run   {classifier.run}   ({metrics['seconds']['total']:.1f} s)")
    say("next  foveate train PHOTOS   (a folder with one folder per class)")


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
