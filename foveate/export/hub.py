"""A classifier as the folder of a model at the Hugging Face Hub. Nothing is sent: upload it with
the Hub's own tools, under a licence of your choice.

DIR/
  README.md           the card; its front matter has the measured figures (model-index)
  config.json         classes and preprocessing under the names that others read
  model.safetensors   the network's tensors
  card.json, engine.* what Foveate loads: the folder is a classifier
"""

import shutil
from pathlib import Path
from typing import Any

from foveate import __version__
from foveate.classifier import Classifier
from foveate.classifier.card import limit_of, title_of
from foveate.export.card import about_it, proven
from foveate.export.proof import Proof
from foveate.storage import encode, write_json

KNOWN = ("accuracy", "macro_f1", "ece")  # figures that a card has of each split
NAMES = {"macro_f1": "f1"}  # as the Hub calls them


def copy_classifier(classifier: Classifier, folder: Path) -> None:
    """The classifier's own files, and config.json."""
    for name in [*classifier.card["files"], "card.json"]:
        shutil.copyfile(classifier.folder / name, folder / name)
    numbered = dict(enumerate(classifier.classes))
    several = classifier.task == "multilabel"
    config = {
        "architecture": classifier.card["model"],
        "num_labels": len(numbered),
        "id2label": numbered,
        "label2id": {label: number for number, label in numbered.items()},
        "problem_type": f"{'multi' if several else 'single'}_label_classification",
        "preprocess": classifier.card["preprocess"],
        "foveate_version": __version__,
    }
    write_json(folder / "config.json", config)


def hub_card(classifier: Classifier, proof: Proof) -> str:
    """README.md, with the front matter that the Hub reads."""
    card = classifier.card
    front = {
        "library_name": "foveate",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "foveate", card["model"]],
        "model-index": [{"name": title_of(card), "results": results(card)}],
    }
    lines = [
        "---",
        *(f"{key}: {encode(value)}" for key, value in front.items()),  # JSON is YAML
        "---",
        f"# {title_of(card)}",
        "",
        *about_it(card),
        "",
        "```python",
        "import foveate",
        'clf = foveate.Classifier.load("FOLDER")  # where this repository was downloaded to',
        'clf.predict("x.jpg")',
        "```",
        "",
        proven(proof, "The folder"),
        "",
        limit_of(card),
        "",
    ]
    return "\n".join(lines)


def results(card: dict[str, Any]) -> list[dict[str, Any]]:
    """The measured figures, as a model-index has them."""
    data = str(card.get("provenance", {}).get("data", "images"))
    found = []
    for split, figures in card.get("metrics", {}).items():
        known = [key for key in KNOWN if figures.get(key) is not None]
        if not known:
            continue
        found.append(
            {
                "task": {"type": "image-classification"},
                "dataset": {"name": f"{data}, {split.replace('_', ' ')}", "type": data},
                "metrics": [
                    {"type": NAMES.get(key, key), "name": key, "value": figures[key]}
                    for key in known
                ],
            }
        )
    return found
