"""Export: a classifier for another runtime, proven on real images before the files are there.

DIR/
  model.onnx | model.xml, model.bin | model.pt2   pixels in, calibrated probabilities out
  predict.py      a program that needs one runtime, neither Foveate nor torch (but for model.pt2)
  metadata.json   the metadata once more, for runtimes that do not show them
  README.md       what it is, and how it was compared with the classifier

or, of the format web, classifier.html alone with its README.md (foveate/export/web).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from foveate.arguments import check_switch, checked_path, option
from foveate.classifier import Classifier
from foveate.classifier.given import Given
from foveate.data.preprocess import is_number
from foveate.errors import MissingExtraError, UsageError, quoted
from foveate.export.card import export_card, web_card
from foveate.export.graph import facts, input_names, metadata, served_graph
from foveate.export.hub import copy_classifier, hub_card
from foveate.export.int8 import BUDGET, Int8Loss, loss_of_weights, quantise, run_model
from foveate.export.mlflow import write_model_file
from foveate.export.onnx import onnx_package, to_onnx
from foveate.export.program import ONNX, OPENVINO, TORCH, Runtime, program
from foveate.export.proof import Proof, proof_images, prove, run_classifier, run_program
from foveate.export.torch import save_program
from foveate.export.web import PAGE, check_exportable, check_images_of, page_of
from foveate.export.web.checks import expected
from foveate.export.web.network import PageNetwork
from foveate.export.web.runtime import web_runtime
from foveate.progress import Progress, Silent
from foveate.storage import replacing, sha256, write_json

Format = Literal["onnx", "openvino", "torch", "hub", "mlflow", "web"]
IN_INT8: tuple[Format, ...] = ("onnx", "mlflow", "web")
FORMATS: tuple[Format, ...] = get_args(Format)
IN_HALVES = 0.02  # what a probability may differ by where weights are rounded to float16


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        folder: with the files.
        format: one of FORMATS.
        files: SHA-256 by name, of all but predict.py and README.md.
        bytes: of these together.
        proof: how they agree with the classifier; of int8, how predict.py agrees with the file.
        int8: what int8 costs in accuracy, where it was asked for.
    """

    folder: Path
    format: Format
    files: dict[str, str]
    bytes: int
    proof: Proof
    int8: Int8Loss | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "format": self.format,
            "files": self.files,
            "bytes": self.bytes,
            "proof": self.proof.to_dict(),
            "int8": None if self.int8 is None else self.int8.to_dict(),
        }


def export_classifier(
    classifier: Classifier | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    format: Format = "onnx",
    images: Any = None,
    int8: bool = False,
    budget: float = BUDGET,
    progress: Progress | None = None,
    check_images: str | os.PathLike[str] | None = None,
) -> Exported:
    """Write a classifier as files for another runtime, and prove that they agree with it.

    The files come with a program, predict.py, which is run beside the classifier before anything is
    there: the most probable class has to be the same on every image, and each probability within
    1e-4 of the classifier's in f32. Neither torch nor the network's code is needed where the
    classifier has a graph (`Classifier.has_graph`).

    Args:
        classifier: or the path of a run or of a classifier's folder.
        out: a folder that does not exist yet; by default `export-FORMAT` in the run's.
        format: "onnx", for ONNX Runtime and whatever else reads ONNX; "openvino"; "torch", a .pt2;
            "hub", the folder of a model at the Hugging Face Hub; "mlflow", one of MLflow's ONNX
            flavour; or "web", a page that is the classifier. Nothing is sent anywhere.
        images: to compare on, what `Classifier.predict` takes, a built-in set or a CSV; at most 100
            are taken, evenly. By default the run's own data, where they are found by their name.
        int8: with the formats onnx, mlflow and web: in int8, a quarter as large. `images` are then
            the data that the run learnt from, or not given.
        budget: points of accuracy, in percent, that int8 may cost on images that the judging head
            did not learn from.
        progress: receives what is being done.
        check_images: of the format web: a folder of images with which the page shows that it
            computes what Python computes; they are kept in the page. By default some are drawn.

    Returns:
        What was written, and the proof.

    Raises:
        FoveateError: int8 costs more than its budget; the page's runtime is not here, and cannot be
            downloaded.
        UsageError: no such format; the folder exists; no images are given and the run's own are not
            here; int8 or check images of another format; a budget below 0; a browser cannot read
            what the classifier learnt from.
        MissingExtraError: the package onnx, or a runtime, is not installed.
        ArtefactError: the classifier is damaged; an operation has no counterpart; the export
            disagrees with the classifier.
        DataError: there is no image to compare on that can be read.
    """
    if format not in FORMATS:
        raise UsageError(f"no format is called {format!r}; expected {', '.join(FORMATS)}")
    check_switch("int8", int8)
    if int8 and format not in IN_INT8:
        raise UsageError(f"int8 is for the formats {', '.join(IN_INT8)}, not {format}")
    if check_images is not None and format != "web":
        raise UsageError(f"{option('check_images')} is for the format web, not {format}")
    if not is_number(budget) or budget < 0:
        raise UsageError(f"budget is points of accuracy, a number from 0, not {budget!r}")
    if not isinstance(classifier, Classifier):
        classifier = Classifier.load(classifier)
    name = f"export-{format}"
    folder = classifier.run / name if out is None else checked_path("out is a new folder", out)
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{quoted(folder)} exists; choose another {option('out')}")
    progress = progress or Silent()
    if format == "web":
        return export_page(classifier, folder, images, int8, budget, check_images, progress)
    given, of = proof_images(classifier, images)
    progress.begin(f"export to {format}", 2)
    with replacing(folder) as temporary:
        temporary.mkdir()
        WRITERS[format](classifier, temporary)
        loss = None
        if int8:
            loss = quantise(classifier, temporary / ONNX.file, images, budget, progress)
        written = sorted(temporary.iterdir())
        files = {path.name: sha256(path) for path in written}
        size = sum(path.stat().st_size for path in written)
        progress.advance()
        proof, card = proven_files(classifier, format, temporary, files, given, of, loss)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        progress.advance()
    return Exported(folder, format, files, size, proof, loss)


def export_page(
    classifier: Classifier,
    folder: Path,
    images: Any,
    int8: bool,
    budget: float,
    check_images: str | os.PathLike[str] | None,
    progress: Progress,
) -> Exported:
    """`export_classifier` of the format web."""
    onnx_package()  # before anything that takes long
    check_runtime(ONNX)
    check_exportable(classifier)
    checks = check_images_of(classifier, check_images)
    given, of = proof_images(classifier, images)
    runtime = web_runtime(progress)
    progress.begin("export to web", 2)
    network, loss = PageNetwork(classifier, int8), None
    if int8:
        loss = loss_of_weights(classifier, *network.served(), images, budget, progress)
    # of int8 its loss is bounded, and how far probabilities are apart is said
    tolerance = 1.0 if int8 else IN_HALVES
    proof = prove(network.say, classifier, given, of, tolerance=tolerance)
    progress.advance()
    page = page_of(network, runtime, expected(network, checks), proof, loss)
    with replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / PAGE).write_text(page, encoding="utf-8", newline="\n")
        files = {PAGE: sha256(temporary / PAGE)}
        size = (temporary / PAGE).stat().st_size
        card = web_card(classifier.card, files, size, proof, loss)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        progress.advance()
    return Exported(folder, "web", files, size, proof, loss)


def proven_files(
    classifier: Classifier,
    format: Format,
    folder: Path,
    files: dict[str, str],
    images: list[Given],
    of: int,
    loss: Int8Loss | None,
) -> tuple[Proof, str]:
    """The proof of what was written, and README.md."""
    if format == "hub":
        proof = prove(partial(run_classifier, folder), classifier, images, of)
        return proof, hub_card(classifier, proof)
    runtime, path = RUNTIMES[format], folder / "predict.py"
    path.write_text(program(runtime, classifier.card["preprocess"]), encoding="utf-8")
    # of int8 the classifier's own answers differ: its loss is measured, and the program is proven
    expects = partial(run_model, folder / runtime.file, classifier) if loss else None
    proof = prove(partial(run_program, path), classifier, images, of, expects)
    card = export_card(classifier.card, runtime, files, inputs_of(classifier), proof, loss)
    return proof, card


def write_onnx(classifier: Classifier, folder: Path) -> None:
    onnx_package()  # before anything that takes long
    check_runtime(ONNX)
    model = to_onnx(served_graph(classifier), metadata(classifier))
    (folder / ONNX.file).write_bytes(model.SerializeToString())
    write_json(folder / "metadata.json", facts(classifier))


def write_mlflow(classifier: Classifier, folder: Path) -> None:
    write_onnx(classifier, folder)
    write_model_file(classifier, folder)


def write_openvino(classifier: Classifier, folder: Path) -> None:
    model = served_graph(classifier)
    from foveate.engine.openvino import save_graph

    for key, value in metadata(classifier).items():
        model.set_rt_info(value, key.split("."))
    save_graph(model, folder / OPENVINO.file)
    write_json(folder / "metadata.json", facts(classifier))


def write_torch(classifier: Classifier, folder: Path) -> None:
    save_program(classifier, folder / TORCH.file)
    write_json(folder / "metadata.json", facts(classifier))


WRITERS: dict[Format, Callable[[Classifier, Path], None]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch": write_torch,
    "hub": copy_classifier,
    "mlflow": write_mlflow,
}
RUNTIMES: dict[Format, Runtime] = {
    "onnx": ONNX,
    "openvino": OPENVINO,
    "torch": TORCH,
    "mlflow": ONNX,
}


def check_runtime(runtime: Runtime) -> None:
    """MissingExtraError if the runtime that the proof needs is not installed."""
    if find_spec(runtime.package) is None:
        raise MissingExtraError(
            f"the export is run by {runtime.package}, which is not installed: pip install "
            "'foveate[export]'"
        )


def inputs_of(classifier: Classifier) -> str:
    """The graph's inputs, in words.

    >>> from types import SimpleNamespace as Some
    >>> from foveate.data.preprocess import Preprocess
    >>> inputs_of(Some(preprocess=Preprocess(224, 224)))
    '`pixels` (N, 224, 224, 3), uint8'
    """
    channels, views = classifier.preprocess.channels, classifier.preprocess.views
    pairs = zip(input_names(classifier), views, strict=True)
    parts = [f"`{name}` (N, {view.crop}, {view.crop}, {channels})" for name, view in pairs]
    return f"{', '.join(parts)}, uint8"
