"""Writing a classifier's folder, whole or not at all."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from foveate.classifier import Classifier
from foveate.classifier.card import FORMAT, GRAPH, TENSORS, model_card
from foveate.classifier.decision import Decision
from foveate.data.preprocess import Preprocess
from foveate.heads import Head
from foveate.storage import replacing, sha256, write_json
from foveate.weights import find_weights, weights_file


def save_probe(
    folder: Path,
    model: str,
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
        model: name of the backbone.
        head: solved on its features.
        decision: how its logits become an answer.
        about: provenance and metrics, for the card.
        engine: with "openvino" the graph is saved beside the tensors.
    """
    prefix = find_weights(model).head + "."
    backbone = load_file(weights_file(model))
    tensors = {f"backbone.{name}": t for name, t in backbone.items() if not name.startswith(prefix)}
    tensors |= {"linear.weight": head.weight, "linear.bias": head.bias}
    graph = None
    if engine == "openvino":
        from foveate.engine.conversion import graph_path
        from foveate.engine.openvino import attach_head

        graph = attach_head(graph_path(model, preprocess), head.weight, head.bias, mirror)
    kind = {
        "form": "probe",
        "recipe": "probe",
        "model": model,
        "mirror": mirror,
        "temperature": head.temperature,
    }
    return write_classifier(folder, kind, decision, tensors, graph, classes, preprocess, about)


def save_network(
    folder: Path,
    recipe: str,
    model: str,
    network: Any,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    temperature: float,
    decision: Decision,
    graph: Any,
    about: dict[str, Any],
) -> Classifier:
    """Write the classifier of a trained network, whole or not at all.

    Args:
        folder: to be written; an older one there is replaced.
        recipe: "finetune" or "scratch".
        model: the network's name, or that of a Probe's backbone.
        network: a Probe or a network of the canon; the temperature is folded into its head.
        decision: how its logits become an answer.
        graph: the same as an OpenVINO model, or None.
        about: provenance and metrics, for the card.
    """
    from foveate.probe import Probe

    tensors = {
        name: t.detach().contiguous().cpu().numpy() for name, t in network.state_dict().items()
    }
    form = "probe" if isinstance(network, Probe) else "network"
    kind = {
        "form": form,
        "recipe": recipe,
        "model": model,
        "mirror": False,
        "temperature": temperature,
    }
    return write_classifier(folder, kind, decision, tensors, graph, classes, preprocess, about)


def write_classifier(
    folder: Path,
    kind: dict[str, Any],
    decision: Decision,
    tensors: dict[str, NDArray[Any]],
    graph: Any,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    about: dict[str, Any],
) -> Classifier:
    """The folder, with its card and the SHA-256 of each file."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / TENSORS).write_bytes(save(tensors))
        if graph is not None:
            from foveate.engine.openvino import save_graph

            save_graph(graph, temporary / GRAPH)
        card = {
            "format": FORMAT,
            **kind,
            "classes": list(classes),
            "thresholds": decision.thresholds,
            "preprocess": preprocess.to_dict(),
            **about,
            "files": {file.name: sha256(file) for file in sorted(temporary.iterdir())},
        }
        (temporary / "README.md").write_text(model_card(card), encoding="utf-8")
        write_json(temporary / "card.json", card)
    return Classifier.load(folder)
