"""Writing a classifier's folder, whole or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from foveate.classifier import Classifier
from foveate.classifier.card import FORMAT, GRAPH, RELATION, TENSORS, model_card
from foveate.classifier.decision import Decision
from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError, quoted
from foveate.heads import Head
from foveate.novelty import Relation
from foveate.rejection import Rejection
from foveate.storage import replacing, sha256, write_json
from foveate.weights.starting_point import StartingPoint


class ProbeBranch(NamedTuple):
    """A frozen backbone, how it sees an image, and the log-loss out of fold of a head on it alone,
    where there are several."""

    start: StartingPoint
    preprocess: Preprocess
    mirror: bool = False
    log_loss: float | None = None


def save_probe(
    folder: Path,
    branches: Sequence[ProbeBranch],
    head: Head,
    decision: Decision,
    classes: tuple[str, ...],
    engine: str,
    about: dict[str, Any],
    relation: Relation | None = None,
    rejection: Rejection | None = None,
) -> Classifier:
    """Write the classifier of frozen backbones, whole or not at all. It takes no torch.

    Args:
        folder: to be written; an older one there is replaced.
        branches: the backbones, in the order in which the head reads them.
        head: solved on their features.
        decision: how its logits become an answer.
        about: provenance and metrics, for the card.
        engine: with "openvino" the graph is saved beside the tensors.
        relation: of confidence and distance to being right, where it is known.
        rejection: when to answer none of these, if ever; `about` then has a "rejection" for the
            card.
    """
    joined = len(branches) > 1
    tensors = {"linear.weight": head.weight, "linear.bias": head.bias}
    for number, branch in enumerate(branches):
        prefix = f"backbones.{number}" if joined else "backbone"
        tensors |= {f"{prefix}.{n}": t for n, t in branch.start.backbone_tensors().items()}
    graph = None
    if engine == "openvino":
        from foveate.engine.conversion import backbone_graph
        from foveate.engine.openvino import Branch, attach_head

        graphs = [
            Branch(backbone_graph(start, preprocess), len(preprocess.views), mirror)
            for start, preprocess, mirror, _ in branches
        ]
        graph = attach_head(graphs, head.weight, head.bias)
    first = branches[0].preprocess
    views = [view for branch in branches for view in branch.preprocess.views]
    preprocess = replace(first, more=tuple(views[1:]))
    card = make_card(
        form="joined" if joined else "probe",
        recipe="probe",
        model=branches[0].start.name,
        branches=[(b.start.name, len(b.preprocess.views), b.log_loss) for b in branches],
        mirror=branches[0].mirror,
        temperature=head.temperature,
        divide=False,
        decision=decision,
        classes=classes,
        preprocess=preprocess,
        about=about,
    )
    return write_classifier(folder, card, tensors, graph, relation_file(relation, rejection))


def relation_file(relation: Relation | None, rejection: Rejection | None) -> dict[str, bytes]:
    """What is known of images, as a file by its name; none if that is nothing."""
    known = {} if relation is None else relation.tensors()
    if rejection is not None:
        known |= rejection.tensors()
    # safetensors writes an array's bytes as they lie, whatever their order
    known = {name: np.ascontiguousarray(tensor) for name, tensor in known.items()}
    return {RELATION: save(known)} if known else {}


def make_card(
    *,
    form: str,
    recipe: str,
    model: str,
    mirror: bool,
    temperature: float,
    divide: bool,
    decision: Decision,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    about: dict[str, Any],
    branches: Sequence[tuple[str, int, float | None]] = (),
) -> dict[str, Any]:
    """What card.json holds, without the hashes of the files.

    Args:
        form: "probe", a backbone with a linear layer on its pooled stages; "joined", several; or
            "network".
        recipe: "probe", "finetune" or "scratch".
        model: the network's name, or that of a probe's backbone.
        mirror: whether the mirror image is seen too.
        temperature: of the calibration.
        divide: whether the logits are still to be divided by it; else the head's weights are.
        decision: how logits become an answer.
        classes: names.
        preprocess: of the run.
        about: provenance and metrics.
        branches: of "joined", each backbone's name, how many of the views it reads, and its own
            log-loss.
    """
    oldest = 3 if preprocess.levels else 2 if divide else 1  # that can be read as this one
    if form != "network" or preprocess.more or preprocess.fit != "crop":
        oldest = 4
    joined = [{"model": name, "views": n, "log_loss": loss} for name, n, loss in branches]
    return {
        "format": oldest,
        "form": form,
        "recipe": recipe,
        "model": model,
        **({"branches": joined} if form == "joined" else {}),
        **({"pooling": 2} if form == "probe" else {}),
        "mirror": mirror,
        "temperature": temperature,
        **({"divide_logits": True} if divide else {}),
        "classes": list(classes),
        "thresholds": decision.thresholds,
        "preprocess": preprocess.to_dict(),
        **about,
    }


def write_classifier(
    folder: Path,
    card: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    graph: Any,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> Classifier:
    """Write the folder, whole or not at all, with the SHA-256 of each file.

    Args:
        folder: to be written; an older one there is replaced.
        card: from `make_card`.
        tensors: by the network's names.
        graph: the same as an OpenVINO model, or None.
        beside: other files, by name.

    Raises:
        ArtefactError: a tensor holds numbers that are not finite.
    """
    unfit = [n for n, t in tensors.items() if t.dtype.kind == "f" and not np.isfinite(t).all()]
    if unfit:
        raise ArtefactError(
            f"the weights of {card['model']} hold numbers that are not finite, in "
            f"{quoted(unfit[0])}: nothing was saved; see: foveate weights check FILE"
        )
    with replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / TENSORS).write_bytes(save(tensors))
        for name, content in beside.items():
            (temporary / name).write_bytes(content)
        if graph is not None:
            from foveate.engine.openvino import save_graph

            save_graph(graph, temporary / GRAPH)
        if card["form"] == "network" and card.get("rejection") is not None:
            card = card | {"format": FORMAT}
        files = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        write_card(temporary, card | {"files": files})
    return Classifier.load(folder)


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write a classifier's card, for programs and for people; each file whole or not at all."""
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(model_card(card), encoding="utf-8")
    write_json(folder / "card.json", card)
