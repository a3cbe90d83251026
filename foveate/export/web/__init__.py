"""One file that is the classifier: a page that works by a double click, without a network.

classifier.html     runtime.py    onnxruntime-web, one thread, gzipped
                    network.py    the graph, its weights in float16 or int8, when to refuse
                    checks.py     check images, with Python's answers
                    *.js          decoding, Pillow's resampling, the decision, the page; each does
                                  what the module of the same act does in Python
README.md           what it is, and how it was compared
"""

import base64
import hashlib
import html
import json
import os
import re
from importlib import resources
from typing import Any

from foveate import __version__
from foveate.arguments import checked_path
from foveate.classifier import Classifier
from foveate.classifier.card import title_of
from foveate.classifier.given import Given
from foveate.errors import FoveateError, UsageError
from foveate.export.graph import ROWS, input_names
from foveate.export.int8 import Int8Loss
from foveate.export.proof import Proof
from foveate.export.web.checks import drawn_images, images_of
from foveate.export.web.coding import BESIDE, as_text, packed
from foveate.export.web.network import PageNetwork
from foveate.export.web.runtime import VERSION, WebRuntime

PAGE = "classifier.html"
SCRIPTS = ("texts.js", "resample.js", "decode.js", "classify.js", "page.js")
LARGEST = 250_000_000  # bytes of a page that browsers open
EXPORTS = re.compile(r"export\{([^}]*)\};?")


def check_exportable(classifier: Classifier) -> None:
    """UsageError if a browser cannot see images as the classifier does."""
    if classifier.preprocess.levels is not None:
        raise UsageError(
            "this classifier learnt from images with more than 8 bits a channel, of which a "
            "browser gives 8: export it with the format onnx, or train it on images of 8 bits"
        )


def page_of(
    network: PageNetwork,
    runtime: WebRuntime,
    checks: dict[str, Any],
    proof: Proof,
    loss: Int8Loss | None,
) -> str:
    """The page.

    Args:
        network: that it runs.
        runtime: that runs it.
        checks: of `expected`.
        proof: how its weights agree with the classifier.
        loss: what int8 costs.

    Raises:
        FoveateError: it would be larger than browsers open.
    """
    content = network.content()
    binary, numbers = packed(runtime.binary), packed(content)
    known = facts(network, checks) | {"runtime": len(binary)}
    known["network"] |= {"bytes": len(numbers)}
    known["proof"] = {
        "images": proof.images,
        "difference": float(f"{proof.difference:.1e}"),
        "points": None if loss is None else round(loss.points, 2),
    }
    texts = {"runtime": as_text(binary), "network": as_text(numbers)}
    size = sum(map(len, texts.values()))
    if size > LARGEST:
        raise FoveateError(
            f"the page would have {size / 1e6:.0f} MB, more than the {LARGEST / 1e6:.0f} MB that "
            "browsers open; train a smaller network, such as efficientnet_lite0"
        )
    script = "\n".join(source(name) for name in SCRIPTS)
    style = source("page.css")
    scripts = [as_global(runtime.script), script]
    written = [*texts.values(), *scripts, style, source("page.html"), inert(known)]
    known["size"] = f"{sum(len(text.encode()) for text in written) / 1e6:.1f}"
    filled = {
        "policy": policy(scripts, style),
        "title": html.escape(title_of(network.classifier.card)),
        "version": __version__,
        "runtime_version": VERSION,
        "licence": html.escape(source("MIT.txt")),
        "style": style,
        "about": inert(known),
        "runtime_script": scripts[0],
        "script": scripts[1],
    } | texts
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: filled[found[1]], source("page.html"))


def facts(network: PageNetwork, checks: dict[str, Any]) -> dict[str, Any]:
    """All that the page's program has to know."""
    classifier = network.classifier
    card, preprocess, decision = classifier.card, classifier.preprocess, classifier.decision
    rejection = None
    if classifier.rejection is not None:
        rejection = {
            "thresholds": classifier.rejection.thresholds.tolist(),
            "tensors": [{"name": n} | part.about() for n, part in network.tensors.items()],
        }
    point = decision.point and {"positive": decision.point[0], "threshold": decision.point[1]}
    views = ("resize", "crop", "stretch", "interpolation", "fit")
    return {
        "title": title_of(card),
        "model": card["model"],
        "version": __version__,
        "classes": list(classifier.classes),
        "thresholds": decision.thresholds,
        "point": point,
        "temperature": card["temperature"] if card.get("divide_logits", False) else 1,
        "views": [{key: getattr(view, key) for key in views} for view in preprocess.views],
        "channels": preprocess.channels,
        "border": [round(255 * mean) for mean in preprocess.mean],
        "inputs": input_names(classifier),
        "output": ROWS,
        "network": {
            "graph": network.graph.ByteSize(),
            "beside": BESIDE,
            "weights": [part.about() for part in network.weights],
        },
        "rejection": rejection,
        "checks": checks,
        "metrics": measured(card),
        "refusals": refused(card),
    }


def measured(card: dict[str, Any]) -> list[dict[str, Any]]:
    """The accuracy of each split."""
    return [
        {"split": split, "share": m["accuracy"], "ci": m.get("accuracy_ci95"), "n": m["n"]}
        for split, m in card.get("metrics", {}).items()
        if m.get("accuracy") is not None
    ]


def refused(card: dict[str, Any]) -> dict[str, Any] | None:
    """What is refused, as the card has it."""
    rejection = card.get("rejection")
    if rejection is None or rejection["unknown_kinds"]["share"] is None:
        return None
    kinds, wrong = rejection["unknown_kinds"], list(rejection["false_refusals"].values())[-1]
    return {"share": kinds["share"], "ci": kinds["share_ci95"], "wrong": wrong["share"]}


def check_images_of(classifier: Classifier, folder: str | os.PathLike[str] | None) -> list[Given]:
    """A folder's, or ours."""
    if folder is not None:
        return images_of(checked_path("check_images is a folder", folder))
    return drawn_images(max(view.resize for view in classifier.preprocess.views))


def source(name: str) -> str:
    return (resources.files("foveate.export.web") / name).read_text(encoding="utf-8").rstrip("\n")


def as_global(script: str) -> str:
    """The runtime's module as one whose exports are in `globalThis.ort`: of what is inside a page,
    nothing can be imported."""
    found = EXPORTS.search(script)
    if found is None:
        raise FoveateError("onnxruntime-web's script has no exports where they are expected")
    pairs = (pair.strip().partition(" as ") for pair in found[1].split(","))
    listed = ",".join(f"{json.dumps(name or own)}:{own}" for own, _, name in pairs)
    text = f"{script[: found.start()]}globalThis.ort={{{listed}}};"
    if "</script" in text or "<!--" in text:
        raise FoveateError("onnxruntime-web's script cannot stand in a page")
    return text


def policy(scripts: list[str], style: str) -> str:
    """The page's Content-Security-Policy: its own scripts run, WebAssembly is compiled, and nothing
    is asked of anyone."""
    hashes = " ".join(map(hash_of, scripts))
    return (
        f"default-src 'none'; script-src {hashes} 'wasm-unsafe-eval'; style-src {hash_of(style)}; "
        "img-src blob: data:; media-src blob: data:; connect-src 'none'; base-uri 'none'; "
        "form-action 'none'"
    )


def hash_of(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def inert(value: Any) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
