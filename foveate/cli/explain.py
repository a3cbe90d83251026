"""foveate explain"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foveate.cli.console import JSON_HELP, Quiet, complain, print_json, say

if TYPE_CHECKING:
    from foveate.explanation import Explanation


def explain(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a classifier's.")],
    image: Annotated[str, typer.Argument(help="One image.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Draw the maps into this file; .npy: write them as numbers."
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="NAME", help="The class, or several [default: the most probable]"
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, max=20, help="The most probable classes, side by side.")
    ] = None,
    method: Annotated[
        Literal["auto", "exact", "gradcam", "gradcam++", "gradients", "occlusion"],
        typer.Option(help="auto: exact for a probe, gradcam for every other network."),
    ] = "auto",
    neighbours: Annotated[
        int, typer.Option(min=0, help="Name so many training images that are the closest.")
    ] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Show which parts of an image speak for a class, and whether to believe that.

    Each map is checked: hiding what it finds has to matter more than hiding random parts or the
    centre, and a network with random weights has to give another map.
    """
    from foveate.classifier import Classifier
    from foveate.errors import UsageError
    from foveate.explanation import Explainer

    if label and top is not None:
        raise UsageError("--class names classes, and --top counts them: give one of the two")
    if out is not None and out.suffix.lower() not in (".png", ".npy"):
        raise UsageError(f"'{out}' must end in .png, or in .npy for the numbers")
    classifier = Classifier.load(run)
    if threads:
        classifier.threads = min(threads, classifier.threads)
    near, gone = [], 0
    if neighbours:
        from foveate.explanation.neighbours import TrainingImages

        training = TrainingImages(classifier)
        near, gone = training.nearest(image, neighbours), training.gone
    found = Explainer(classifier, method).compare(image, label or top or 1)
    if out is not None:
        write(found, out)
    if as_json:
        print_json(
            {
                "file": found[0].file,
                "predicted": found[0].predicted,
                "explanations": [one.to_dict() for one in found],
                "neighbours": [one.to_dict() for one in near],
                "out": None if out is None else str(out),
            }
        )
        return
    for one in found:
        show(one)
    for other in near:
        say(f"near  {other.similarity:.2f}  {other.file}  {'|'.join(other.labels)}")
    if gone and not quiet:
        complain(f"note: the cache no longer knows {gone} of the training images")
    say(found[0].caption)
    if out is not None:
        say(f"map   {out}")


def show(one: "Explanation") -> None:
    """A few lines on one class."""
    say(f"{one.file}  {one.label} {100 * one.probability:.1f} %  logit {one.logit:.2f}")
    if one.trusted:
        say(f"{one.method}: it passed its checks")
    else:
        say(f"{one.method}: NOT TO BE TRUSTED: {one.why}")
    for name in ("deletion", "insertion"):
        figures = "  ".join(f"{who} {value:.3f}" for who, value in one.checks[name].items())
        say(f"  {name:<9}  {figures}")
    alike = "  ".join(f"{part} {rho:.2f}" for part, rho in one.checks["randomisation"].items())
    say(f"  alike with random weights:  {alike}")


def write(found: "list[Explanation]", out: Path) -> None:
    """The maps as an image; or, as .npy, (classes, H, W), float32."""
    from foveate.storage import replacing

    with replacing(out) as temporary:
        if out.suffix.lower() == ".npy":
            import numpy as np

            with temporary.open("wb") as file:
                np.save(file, np.stack([one.image for one in found]), allow_pickle=False)
            return
        from foveate.explanation.drawing import draw

        draw(found).save(temporary, format="PNG")
