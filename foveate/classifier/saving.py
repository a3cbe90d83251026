"""Writing a classifier's folder, whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from foveate.classifier import Classifier
from foveate.classifier.card import FORMAT, GRAPH, TENSORS, model_card
from foveate.classifier.decision import Decision
from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError, quoted
from foveate.heads import Head
from foveate.storage import replacing, sha256, write_json
from foveate.weights.starting_point import StartingPoint


def save_probe(
    folder: Path,
    start: StartingPoint,
    head: Head,
    decision: Decision,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    mirror: bool,
    engine: str,
    about: dict[str, Any],
) -> Classifier:
    """Write the classifier of a frozen backbone, whole or not at all. It takes no torch.

    Args:
        folder: to be written; an older one there is replaced.
        start: the backbone.
        head: solved on its features.
        decision: how its logits become an answer.
        about: provenance and metrics, for the card.
        engine: with "openvino" the graph is saved beside the tensors.
    """
    tensors = {f"backbone.{name}": t for name, t in start.backbone_tensors().items()}
    tensors |= {"linear.weight": head.weight, "linear.bias": head.bias}
    graph = None
    if engine == "openvino":
        from foveate.engine.conversion import backbone_graph
        from foveate.engine.openvino import attach_head

        backbone = backbone_graph(start, preprocess)
        graph = attach_head(backbone, head.weight, head.bias, mirror)
    card = make_card(
        form="probe",
        recipe="probe",
        model=start.name,
        mirror=mirror,
        temperature=head.temperature,
        divide=False,
        decision=decision,
        classes=classes,
        preprocess=preprocess,
        about=about,
    )
    return write_classifier(folder, card, tensors, graph)


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
) -> dict[str, Any]:
    """What card.json holds, without the hashes of the files.

    Args:
        form: "probe", a backbone with a linear layer on its pooled stages; or "network".
        recipe: "probe", "finetune" or "scratch".
        model: the network's name, or that of a probe's backbone.
        mirror: whether the mirror image is seen too.
        temperature: of the calibration.
        divide: whether the logits are still to be divided by it; else the head's weights are.
        decision: how logits become an answer.
        classes: names.
        preprocess: of the run.
        about: provenance and metrics.
    """
    return {
        "format": FORMAT if preprocess.levels else 2 if divide else 1,
        "form": form,
        "recipe": recipe,
        "model": model,
        "mirror": mirror,
        "temperature": temperature,
        **({"divide_logits": True} if divide else {}),
        "classes": list(classes),
        "thresholds": decision.thresholds,
        "preprocess": preprocess.to_dict(),
        **about,
    }


def write_classifier(
    folder: Path, card: dict[str, Any], tensors: dict[str, NDArray[Any]], graph: Any
) -> Classifier:
    """Write the folder, whole or not at all, with the SHA-256 of each file.

    Args:
        folder: to be written; an older one there is replaced.
        card: from `make_card`.
        tensors: by the network's names.
        graph: the same as an OpenVINO model, or None.

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
        if graph is not None:
            from foveate.engine.openvino import save_graph

            save_graph(graph, temporary / GRAPH)
        files = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        card = card | {"files": files}
        (temporary / "README.md").write_text(model_card(card), encoding="utf-8")
        write_json(temporary / "card.json", card)
    return Classifier.load(folder)
