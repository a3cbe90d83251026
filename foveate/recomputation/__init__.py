"""A run's numbers, computed again from what it left: predictions, the features in the cache, and
the saved head. No image is read.

    the features are in the cache   the head is solved again on the same folds, and everything that
                                    follows from it: figures, predictions, doubts, tensors
    they are not; no probe          the figures are counted again from the predictions and the
                                    probabilities of all classes

What a machine of the same kind computes from features is the same to the bit. Another one may
differ in the last digits, by at most `comparison.TOLERANCE`.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from foveate.classifier.card import model_card, read_card
from foveate.errors import ArtefactError, quoted
from foveate.evaluation.point import POINT
from foveate.machine import environment
from foveate.recomputation.comparison import Difference, Verification
from foveate.recomputation.predictions import verify_data, verify_history, verify_predictions
from foveate.report.page import is_as_written, metrics_of
from foveate.report.run import REPORT, RunFiles, digest_of_metrics, read_run
from foveate.runs import is_absent
from foveate.training.report import brief

__all__ = ["Difference", "Verification", "verify_run"]

MEASURED = {  # of metrics.json
    "seconds": "they were measured",
    "computed": "it says how much was not in the cache then",
    "compared_with": "it depends on the runs that lay beside this one then",
}
CARD, PACKAGES = "classifier/card.json", ("numpy", "foveate")
SPLITS = ("out_of_fold", "validation", "test")


def verify_run(folder: Path, threads: int = 1) -> Verification:
    """Compute the numbers of a finished run again, and compare them with what it recorded.

    Args:
        folder: of the run.
        threads: cores to use; they change no number.

    Raises:
        ArtefactError: there is no finished run.
    """
    if is_absent(folder / "metrics.json"):
        raise ArtefactError(f"{quoted(folder)} is not a finished run: it has no metrics.json")
    found = Verification(folder)
    verify_pages(folder, found)
    card: dict[str, Any] | None = None
    with found.reading("classifier"):
        card = read_card(folder / "classifier")
    run: RunFiles | None = None
    with found.reading("(run)"):
        run = read_run(folder)
    if run is None or card is None:
        return found
    found.same_kind = of_same_kind(run.env)
    with found.reading(CARD):
        verify_card(run, card, found)
    with found.reading("data.json"):
        verify_data(run, found)
    with found.reading("predictions.jsonl"):
        verify_predictions(run, card, found)
    with found.reading("history.jsonl"):
        verify_history(run, found)
    for name in (name for name in MEASURED if name in run.metrics):
        found.unverified[f"metrics.json {name}"] = MEASURED[name]
    found.unverified["log.txt"] = "it holds messages"
    with found.reading("predictions.jsonl"):
        why = again_from_features(run, card, found, threads)
        if why:
            found.unverified["predictions, from features"] = why
    return found


def again_from_features(
    run: RunFiles, card: dict[str, Any], found: Verification, threads: int
) -> str:
    """Why it cannot be done; "" where it was."""
    if run.metrics["recipe"] != "probe":
        return "only a probe's follow from them; those of a trained network take the images"
    from foveate.recomputation.features import verify_probe

    return verify_probe(run, card, found, threads)


def of_same_kind(env: dict[str, Any]) -> bool:
    """Whether this machine computes as that of the run did: the same processor and numpy."""
    here = environment()

    def kind(environment: dict[str, Any]) -> list[Any]:
        packages = environment.get("packages", {})
        return [environment.get("cpu"), *(packages.get(name) for name in PACKAGES)]

    return kind(here) == kind(env)


def verify_card(run: RunFiles, card: dict[str, Any], found: Verification) -> None:
    """That the card says what the run's other files say."""
    folder, metrics = run.folder / "classifier", run.metrics
    provenance = dict(card["provenance"])
    provenance.pop("command", None)
    recorded = {
        "model": card["model"],
        "classes": card["classes"],
        "recipe": card["recipe"],
        "temperature": card["temperature"],
        "metrics": card["metrics"],
        "rejection": card.get("rejection"),
        POINT: card.get(POINT),
        "environment": provenance.pop("environment", None),
        "provenance": provenance,
    }
    expected = {
        "model": metrics["seen"]["backbones"][0] if metrics.get("seen") else metrics["model"],
        "classes": run.classes,
        "recipe": metrics["recipe"],
        "temperature": metrics["temperature"],
        "metrics": brief({split: metrics[split] for split in SPLITS if split in metrics}),
        "rejection": metrics.get("rejection"),
        POINT: metrics.get(POINT),
        "environment": run.env,
        "provenance": run.config,
    }
    found.compare(
        CARD, "card.json, config.json and env.json beside metrics.json", recorded, expected
    )
    asked = {key: run.config[key] for key in ("recipe", "seed", "engine")}
    found.compare("config.json", "config.json", asked, {key: metrics[key] for key in asked})
    text = (folder / "README.md").read_text(encoding="utf-8")
    found.compare("classifier/README.md", "classifier/README.md", text, model_card(card))
    found.verified += [f"classifier/{name}: SHA-256" for name in card["files"]]


def verify_pages(folder: Path, found: Verification) -> None:
    """That the report is of these figures and as it was written, and that figures can be read."""
    page = folder / REPORT
    if is_absent(page):
        found.unverified[REPORT] = "it is not there"
    else:
        with found.reading(REPORT):
            text = page.read_bytes().decode("utf-8", "replace")
            if metrics_of(text) != digest_of_metrics(folder):
                found.wrong(REPORT, "it was written of another metrics.json: foveate report")
            elif not is_as_written(text):
                found.wrong(REPORT, "it was changed since it was written: foveate report")
            else:
                found.verified.append(REPORT)
    for figure in sorted(folder.glob("*.png")):
        try:
            with Image.open(figure) as image:
                image.verify()
        except (OSError, SyntaxError, ValueError) as error:
            found.wrong(figure.name, f"it is damaged ({error})")
