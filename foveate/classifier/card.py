"""The card of a classifier: what it is and where it comes from, for programs and for people."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from foveate.catalogue import CATALOGUE
from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError
from foveate.storage import sha256
from foveate.weights import WEIGHTS
from foveate.weights.starting_point import OWN, TIMM

# 1 had no `divide_logits`, 2 no levels of the Preprocess; the least that is needed is written
FORMAT = 3
READABLE = (1, 2, 3)
TENSORS, GRAPH = "model.safetensors", "engine.xml"
FORMS = ("probe", "network")  # a backbone with a linear layer on its stages; a network as it is


def read_card(folder: Path) -> dict[str, Any]:
    """card.json, checked: its form, and the SHA-256 of each file it names."""
    path = folder / "card.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["format"] not in READABLE:
            raise ArtefactError(
                f"'{path}' has format {card['format']!r}, this version reads up to {FORMAT}; "
                "update Foveate"
            )
        fits = (
            card["form"] in FORMS
            and is_name(card["model"])
            and isinstance(card["classes"], list)
            and len(set(card["classes"]))
            == len(card["classes"])
            >= (2 if card["thresholds"] is None else 1)
            and all(isinstance(c, str) for c in card["classes"])
            and (card["thresholds"] is None or fit(card["thresholds"], len(card["classes"])))
            and isinstance(card["mirror"], bool)
            and isinstance(card.get("divide_logits", False), bool)
            and positive(card.get("temperature", 1.0))
            and TENSORS in card["files"]
            and all(Path(name).name == name for name in card["files"])
        )
        if not fits:
            raise ValueError("a field has an impossible value")
        Preprocess.from_dict(card["preprocess"])
        files = dict(card["files"])
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ArtefactError(
            f"'{path}' is damaged: {error!r}; train again, or restore it from a backup"
        ) from error
    for name, digest in files.items():
        try:
            found = sha256(folder / name) if (folder / name).is_file() else ""
        except (OSError, ValueError):  # it is shut, or no system allows the name
            found = ""
        if not found:
            raise ArtefactError(
                f"'{folder / name}' is missing; train again, or restore it from a backup"
            )
        if found != digest:
            raise ArtefactError(
                f"'{folder / name}' is damaged (its SHA-256 is not the card's); restore it from a "
                "backup"
            )
    if card["form"] == "probe" and head_shape(folder / TENSORS) != [len(card["classes"])]:
        raise ArtefactError(
            f"'{folder / TENSORS}' does not fit the card's {len(card['classes'])} classes"
        )
    return card


def positive(number: Any) -> bool:
    return isinstance(number, (int, float)) and 0 < number < 1e9


def is_name(model: Any) -> bool:
    """Whether it names a network: of ours, of timm, or one that was handed in. A name runs no
    code."""
    if not isinstance(model, str):
        return False
    return model in WEIGHTS or model in CATALOGUE or model.startswith((TIMM, OWN))


def fit(thresholds: list[Any], classes: int) -> bool:
    """Whether there is a probability for each class."""
    return len(thresholds) == classes and all(
        isinstance(t, float) and 0 < t < 1 for t in thresholds
    )


def head_shape(path: Path) -> list[int]:
    """The shape of the head's bias, read from the file's header; [] if that is none."""
    try:
        with safe_open(path, "np") as tensors:
            shape: list[int] = tensors.get_slice("linear.bias").get_shape()
            return shape if tensors.get_slice("linear.weight").get_shape()[:1] == shape else []
    except SafetensorError:
        return []


def model_card(card: dict[str, Any]) -> str:
    """The card as Markdown, for people."""

    def safe(text: str) -> str:
        return "".join(c if c.isalnum() or c in " -_.,+" else f"&#{ord(c)};" for c in text)

    several = card["thresholds"] is not None
    kinds = "labels, of which an image may have any number" if several else "classes"
    lines = [f"# A classifier of {len(card['classes'])} {kinds}", ""]
    how = {
        "probe": (
            f"Backbone {card['model']}, frozen; a linear head solved on its stages with Foveate."
        ),
        "finetune": (
            f"{card['model']}, fine-tuned from published weights, a linear head on its stages, "
            "with Foveate."
        ),
        "scratch": f"{card['model']}, trained from a random start with Foveate.",
    }
    lines += [how[card["recipe"]], ""]
    for split, m in card["metrics"].items():
        low, high = m["accuracy_ci95"]
        lines.append(
            f"- {split.replace('_', ' ')}: {'all labels right' if several else 'accuracy'} "
            f"{m['accuracy']:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%}) on {m['n']} images, macro-F1 "
            f"{m['macro_f1']:.3f}, "
            f"ECE {m['ece']:.3f}"
        )
    names = [safe(c) for c in card["classes"]]
    if several:
        names = [
            f"{name} (from {t:.0%} on)" for name, t in zip(names, card["thresholds"], strict=True)
        ]
    lines += ["", f"{'Labels' if several else 'Classes'}: {', '.join(names)}.", ""]
    lines += [
        "```python",
        "import foveate",
        'clf = foveate.Classifier.load("classifier")',
        'clf.predict("x.jpg")',
        "```",
    ]
    limit = "labels." if several else "classes: an image of anything else gets one of them too."
    lines += ["", f"It knows only these {limit}", ""]
    return "\n".join(lines)
