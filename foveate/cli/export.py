"""foveate export"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from foveate.cli.console import JSON_HELP, Quiet, TerminalProgress, complain, print_json, say


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a classifier's.")],
    format: Annotated[
        Literal["onnx", "openvino", "torch", "hub", "mlflow", "web"],
        typer.Option(help="What will run the network, or keep it."),
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="A new folder [default: export-FORMAT in the run's]")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Images to compare the export and the classifier on: a folder, a CSV, a built-in "
            "set [default: the run's own data]"
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Of onnx, mlflow and web: in int8, a quarter as large.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(help="Points of accuracy that --int8 may cost [default: 0.3]"),
    ] = None,
    check_images: Annotated[
        Path | None,
        typer.Option(
            help="Of web: a folder of images, kept in the page, with which it shows that it "
            "computes what Python computes [default: some are drawn]"
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Write a classifier as files for another runtime, proven on real images."""
    from foveate.classifier import Classifier
    from foveate.errors import UsageError
    from foveate.export import export_classifier
    from foveate.export.int8 import BUDGET, described

    if budget is not None and not int8:
        raise UsageError("--budget is what --int8 may cost: give both")
    classifier = Classifier.load(run)
    if threads:
        classifier.threads = min(threads, classifier.threads)
    with TerminalProgress(quiet) as progress:
        allowed = BUDGET if budget is None else budget
        exported = export_classifier(
            classifier, out, format, images, int8, allowed, progress, check_images
        )
    if as_json:
        print_json(exported.to_dict())
        return
    proof = exported.proof
    for name, why in proof.unread.items():
        complain(f"note: {name}: predict.py does not read it: {why}")
    say(f"export  {exported.folder}   ({exported.bytes / 1e6:.1f} MB)")
    if exported.int8 is not None:
        say(f"loss    {described(exported.int8)}")
    beside = "the classifier's in f32" if exported.int8 is None else "those of the same file"
    if format == "web" and exported.int8 is not None:
        say(
            f"beside  the classifier in f32, on {proof.images} of {proof.of} images: another class "
            f"on {proof.others}, probabilities within {proof.difference:.1e}"
        )
    else:
        say(
            f"proof   the same class on {proof.images} of {proof.of} images, probabilities within "
            f"{proof.difference:.1e} of {beside}"
        )
    if proof.on_this_machine is not None:
        gap, others = proof.on_this_machine
        say(
            f"note    this machine predicts in bf16, which rounds: probabilities up to {gap:.2g} "
            f"away, another class on {others}"
        )
    if format == "web":
        say(f"open    {exported.folder / 'classifier.html'}")
    elif format != "hub":
        say(f"next    python {exported.folder / 'predict.py'} IMAGE")
