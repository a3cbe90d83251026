"""README.md of an exported folder, for people."""

from typing import Any

from foveate.classifier.card import described, limit_of, title_of
from foveate.export.int8 import Int8Loss
from foveate.export.int8 import described as in_words
from foveate.export.program import Runtime
from foveate.export.proof import Proof


def about_it(card: dict[str, Any]) -> list[str]:
    """How it was made, how good it is, and its classes; of an older card without, nothing."""
    return described(card) if {"recipe", "metrics"} <= card.keys() else []


def export_card(
    card: dict[str, Any],
    runtime: Runtime,
    files: dict[str, str],
    inputs: str,
    proof: Proof,
    loss: Int8Loss | None,
) -> str:
    """The README as Markdown.

    Args:
        card: the classifier's.
        runtime: what the file is for.
        files: SHA-256 by name.
        inputs: the graph's inputs, in words.
        proof: that it agrees with the classifier.
        loss: what int8 costs.
    """
    several = card["thresholds"] is not None
    own = "each label's own" if several else "they sum to 1"
    lines = [
        f"# {title_of(card)}, as {runtime.file}",
        "",
        *about_it(card),
        "",
        "```bash",
        f"pip install numpy 'pillow>=11' {runtime.package}",
        "python predict.py IMAGE ...",
        "```",
        "",
        "| | |",
        "|---|---|",
        f"| input | {inputs}: any number N of images, RGB, not normalised |",
        f"| output | `probabilities` (N, {len(card['classes'])}), float32: calibrated; {own} |",
        "| metadata | `foveate.classes`, `foveate.preprocess`, `foveate.thresholds`, "
        "`foveate.operating_point`, `foveate.provenance`, `foveate.sha256` (of the tensors), each "
        "JSON |",
        "",
        "Mean and deviation are in the graph. How an image becomes its input is in predict.py, in "
        "full: a resize of another library gives other numbers.",
        "",
        *([f"In {in_words(loss)}.", ""] if loss else []),
        proven(proof, "predict.py", ROUNDED if loss else EXACT),
        "",
        *(f"- `{name}` SHA-256 {digest}" for name, digest in files.items()),
        "",
        limit_of(card | {"rejection": None}),  # which is not in the graph
        "",
    ]
    return "\n".join(lines)


def web_card(
    card: dict[str, Any], files: dict[str, str], size: int, proof: Proof, loss: Int8Loss | None
) -> str:
    """README.md beside a page that is a classifier, as Markdown.

    Args:
        card: the classifier's.
        files: SHA-256 by name.
        size: bytes of the page.
        proof: that its network agrees with the classifier.
        loss: what int8 costs.
    """
    lines = [
        f"# {title_of(card)}, as a page",
        "",
        *about_it(card),
        "",
        f"Open `classifier.html` ({size / 1e6:.1f} MB) with a browser: it is the whole classifier, "
        "and works without a network. Images that are dropped, pasted, photographed or chosen stay "
        "on the device. Its section Check shows that the browser computes what Python computes.",
        "",
        *([f"In {in_words(loss)}.", ""] if loss else []),
        rounded(proof) if loss else proven(proof, "Its network, with weights in float16,"),
        "",
        *(f"- `{name}` SHA-256 {digest}" for name, digest in files.items()),
        "",
        limit_of(card),
        "",
    ]
    return "\n".join(lines)


def rounded(proof: Proof) -> str:
    """How far a network with weights in int8 is from the classifier."""
    return (
        f"Its network was run beside {EXACT} on {proof.images} of {proof.of} images: another most "
        f"probable class on {proof.others} of them, and probabilities that differ by "
        f"{proof.difference:.1e} at most."
    )


EXACT = "the classifier, in f32,"
ROUNDED = "this file, which read pixels as the classifier decodes them,"


def proven(proof: Proof, subject: str, other: str = EXACT) -> str:
    """The proof in words."""
    text = (
        f"{subject} was run beside {other} on {proof.images} of {proof.of} images: the same class "
        f"on every one, and probabilities that differ by {proof.difference:.1e} at most (allowed: "
        f"{proof.tolerance:g})."
    )
    if proof.on_this_machine is not None:
        gap, others = proof.on_this_machine
        text += (
            f" The machine that wrote it computes in bf16, which rounds: there the classifier's "
            f"own probabilities were up to {gap:.2g} away, and {others} of these images had "
            "another most probable class."
        )
    if proof.unread:
        text += (
            f" {len(proof.unread)} more that the classifier reads, predict.py does not: "
            f"{', '.join(f'{name} ({why})' for name, why in list(proof.unread.items())[:3])}."
        )
    return text
