"""A probe, solved once more from the features in the cache: the same folds, the same head, and all
that follows from it. No image is read."""

from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from foveate.audit.groups import GIVEN, Grouping, from_links
from foveate.classifier.card import RELATION, TENSORS
from foveate.data.dataset import Dataset
from foveate.data.preprocess import Preprocess
from foveate.engine import prepare_backbone
from foveate.errors import ArtefactError, FoveateError, ImageError
from foveate.features import shown, store_of
from foveate.progress import Silent
from foveate.recomputation.comparison import Verification
from foveate.recomputation.predictions import read_probabilities
from foveate.report.run import RunFiles
from foveate.runs import HEX, PROBABILITIES
from foveate.training.framing import LONG, ViewExtractor
from foveate.training.honest import Judging, plan_judging
from foveate.training.probe import EFFORTS, Learnt, ProbeConfig, learn
from foveate.training.report import dataset_fingerprint, predictions
from foveate.weights.starting_point import StartingPoint, find_start

OF_IMAGES = ("area",)  # of what is seen: it follows from the images' sizes


class Again(NamedTuple):
    """What a run's probe learnt, solved once more.

    Args:
        config: of the run.
        dataset: its images, of which all is known but their pixels.
        grouping, judging: of them.
        starts: the backbones, which may be chosen from.
        wholes: how each sees whole images.
        learnt: from their features.
    """

    config: ProbeConfig
    dataset: Dataset
    grouping: Grouping
    judging: Judging
    starts: list[StartingPoint]
    wholes: list[Preprocess]
    learnt: Learnt


def verify_probe(run: RunFiles, card: dict[str, Any], found: Verification, threads: int) -> str:
    """Compare all that follows from features with what was recorded.

    Returns:
        Why it could not be done; "" where it was.
    """
    try:
        again = learn_again(run, card, threads)
    except FoveateError as error:
        return str(error)
    compare(run, card, again, found)
    return ""


def learn_again(run: RunFiles, card: dict[str, Any], threads: int) -> Again:
    """Solve a run's probe from the features in the cache.

    Raises:
        ArtefactError: the run cannot be solved again, or the cache has not all of them.
    """
    if "links" not in run.data:
        raise ArtefactError("the run is of a version that did not record what makes its groups")
    if run.config.get("weights"):
        raise ArtefactError(
            "it began with weights of its own, whose features go by the file that they came from"
        )
    config = ProbeConfig(
        **{f.name: run.config[f.name] for f in fields(ProbeConfig) if f.name in run.config}
    )
    starts = [find_start(name) for name in (config.model, *EFFORTS[config.effort].beside)]
    if not all(start.is_here for start in starts):
        raise ArtefactError("the backbone's weights are not on this machine")
    wholes = wholes_of(starts, config, card)
    digests = full_digests(run, starts[0], wholes[0], config, threads)
    n, known = len(run.data["files"]), len([d for d in digests if d])
    if known < n:
        raise ArtefactError(f"the cache has features of {known} of its {n} images")
    dataset = dataset_of(run, config, tuple(digests))
    grouping = from_links(dataset, run.data["links"], tuple(run.data["looked_for"]))
    is_test = np.array([split == "test" for split in dataset.splits])
    judging = plan_judging(dataset, grouping, ~is_test, config.seed)
    try:
        learnt = solved_again(run, dataset, grouping, judging, starts, wholes, config, threads)
    except ImageError:
        raise ArtefactError("the cache has not all features of its images any more") from None
    return Again(config, dataset, grouping, judging, starts, wholes, learnt)


def wholes_of(
    starts: list[StartingPoint], config: ProbeConfig, card: dict[str, Any]
) -> list[Preprocess]:
    """How each backbone sees whole images, with the run's levels."""
    levels = Preprocess.from_dict(card["preprocess"]).levels
    size = EFFORTS[config.effort].size
    return [replace(shown(start.preprocess, size), levels=levels) for start in starts]


def first_view(whole: Preprocess, config: ProbeConfig) -> Preprocess:
    """What is seen where there is no choice."""
    framing = "whole" if config.framing == "auto" else config.framing
    return whole.framed(framing, config.fit or "crop")


def full_digests(
    run: RunFiles, start: StartingPoint, whole: Preprocess, config: ProbeConfig, threads: int
) -> list[str]:
    """The SHA-256 of each image, of which a run's files have the first digits; "" of one that the
    cache does not know."""
    backbone = prepare_backbone(config.engine, start, whole, threads)
    view = first_view(whole, config)
    store = store_of(start, view.alone(view.views[0]), backbone, mirrored=False)
    known = {digest[:HEX]: digest for digest in store.digests()}
    return [known.get(file["sha256"], "") for file in run.data["files"].values()]


def dataset_of(run: RunFiles, config: ProbeConfig, digests: tuple[str, ...]) -> Dataset:
    """The run's images, of which all is known but their pixels."""
    files, classes = run.data["files"], tuple(run.data["classes"])
    if config.task == "multilabel":
        labels = np.zeros((len(files), len(classes)), np.int64)
        for row, file in enumerate(files.values()):
            labels[row, file["label"]] = 1
    else:
        labels = np.array([file["label"] for file in files.values()], np.int64)

    def read(row: int) -> bytes:
        raise ImageError("no image is read")

    found = Dataset(
        name=run.data["name"],
        layout=run.data["layout"],
        files=tuple(files),
        labels=labels,
        classes=classes,
        splits=tuple(file["split"] for file in files.values()),
        groups=("",) * len(files),
        read=read,
    )
    found.__dict__["digests"] = digests  # a cached property, which would read all images
    return found


def solved_again(
    run: RunFiles,
    dataset: Dataset,
    grouping: Grouping,
    judging: Judging,
    starts: list[StartingPoint],
    wholes: list[Preprocess],
    config: ProbeConfig,
    threads: int,
) -> Learnt:
    """Solve the probe; ImageError if the cache lacks a feature."""
    mirror = EFFORTS[config.effort].mirror
    extractors = [
        ViewExtractor(dataset, start, whole, mirror, config.engine, threads, Silent())
        for start, whole in zip(starts, wholes, strict=True)
    ]
    tried = [trial["name"] for trial in run.metrics["seen"]["tried"]]
    squashed = any(name.split()[-1] == "squash" for name in tried)
    return learn(
        dataset,
        grouping,
        judging,
        extractors,
        first_view(wholes[0], config),
        LONG / 2 if squashed else 1.0,  # of it only this much is asked
        config,
        threads,
        Silent(),
        frozenset(run.review.get("confirmed", ())),
        lambda sentence: None,
        foreign=False,
    )


def compare(
    run: RunFiles,
    card: dict[str, Any],
    again: Again,
    found: Verification,
) -> None:
    """All of it beside what was recorded."""
    config, dataset, grouping, _, starts, _, learnt = again
    metrics, head = run.metrics, learnt.solved.head
    links = [kind for _, _, kind in run.data["links"]["others"]]
    found.compare(
        "data.json groups", "data.json: groups", run.data["groups"], grouping.listed(dataset)
    )
    if GIVEN in links:
        why = "the names of a table's groups, which it takes, are not recorded"
        found.unverified["config.json fingerprint"] = why
    elif run.data["bad"]:
        why = "it takes the images that could not be read, too"
        found.unverified["config.json fingerprint"] = why
    else:
        found.compare(
            "config.json fingerprint",
            "config.json: fingerprint of images, labels and splits",
            config.fingerprint,
            dataset_fingerprint(dataset),
        )
    verify_folds(run, dataset, config, found)
    for split, figures in learnt.splits.items():
        found.compare(f"metrics.json {split}", f"metrics.json: {split}", metrics[split], figures)
    seen = {key: v for key, v in metrics["seen"].items() if key not in OF_IMAGES}
    found.compare("metrics.json seen", "metrics.json: what is seen", seen, learnt.choice.to_dict())
    chosen = {
        "penalty": head.penalty,
        "temperature": head.temperature,
        "suspects": len(learnt.doubts.suspects),
    }
    recorded = {key: metrics[key] for key in chosen}
    found.compare("metrics.json", "metrics.json: penalty, temperature, suspects", recorded, chosen)
    certificate = None if learnt.refusal is None else learnt.refusal.certificate
    before, now = (
        {key: v for key, v in (one or {}).items() if key != "foreign"}
        for one in (metrics.get("rejection"), certificate)
    )
    found.compare("metrics.json rejection", "metrics.json: what is refused", before, now)
    for what in ("seen.area", "rejection.foreign"):
        found.unverified[f"metrics.json {what}"] = "it takes the images"
    path = [{"penalty": penalty, "log_loss": loss} for penalty, loss in head.path]
    found.compare("history.jsonl", "history.jsonl", run.history, path)
    rows = list(predictions(dataset, learnt.evaluated, learnt.solved.decision))
    found.compare("predictions.jsonl", "predictions.jsonl", run.predictions, rows)
    if kept := read_probabilities(run):
        whole = {split: p.astype(np.float32) for split, (_, p) in learnt.evaluated.items()}
        compare_tensors(PROBABILITIES, kept, whole, found)
    doubts = {k: v for k, v in run.review.items() if k != "confirmed"}
    found.compare("review.json", "review.json", doubts, learnt.doubts.to_dict(dataset))
    thresholds = learnt.solved.decision.thresholds
    decided = {"thresholds": thresholds, "temperature": head.temperature}
    recorded = {key: card[key] for key in decided}
    found.compare("classifier/card.json", "card.json: how it decides", recorded, decided)
    verify_tensors(run, learnt, starts, found)


def verify_folds(run: RunFiles, dataset: Dataset, config: ProbeConfig, found: Verification) -> None:
    grouping = from_links(dataset, run.data["links"], tuple(run.data["looked_for"]))
    learnt = np.flatnonzero([split != "test" for split in dataset.splits])
    judging = plan_judging(dataset, grouping, np.isin(np.arange(len(dataset)), learnt), config.seed)
    folds = judging.folds_of(grouping.photos, learnt).tolist()
    recorded = [run.data["files"][dataset.files[row]].get("fold") for row in learnt]
    found.compare("data.json fold", "data.json: folds", recorded, folds)


def verify_tensors(
    run: RunFiles, learnt: Learnt, starts: list[StartingPoint], found: Verification
) -> None:
    """The head, the backbones and what goes with them."""
    folder, head = run.folder / "classifier", learnt.solved.head
    tensors: dict[str, NDArray[Any]] = {"linear.weight": head.weight, "linear.bias": head.bias}
    joined = len(learnt.choice.branches) > 1
    for number, branch in enumerate(learnt.choice.branches):
        prefix = f"backbones.{number}" if joined else "backbone"
        tensors |= {f"{prefix}.{n}": t for n, t in branch.start.backbone_tensors().items()}
    compare_tensors(f"classifier/{TENSORS}", load_file(folder / TENSORS), tensors, found)
    known = {} if learnt.relation is None else learnt.relation.tensors()
    if learnt.refusal is not None:
        known |= learnt.refusal.rejection.tensors()
    if known:
        compare_tensors(f"classifier/{RELATION}", load_file(folder / RELATION), known, found)


def compare_tensors(
    file: str,
    recorded: dict[str, NDArray[Any]],
    computed: dict[str, NDArray[Any]],
    found: Verification,
) -> None:
    """By their names; a tensor of other numbers is named with the largest difference."""
    found.compare(file, f"{file}: names of tensors", sorted(recorded), sorted(computed))
    same = True
    for name in recorded.keys() & computed.keys():
        a, b = recorded[name], computed[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            found.compare(file, name, [str(a.dtype), *a.shape], [str(b.dtype), *b.shape])
            same = False
        elif not np.array_equal(a, b):
            apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
            scale = max(1.0, float(np.abs(b).max(initial=0)))
            if float(apart.max()) <= found.tolerance * scale:
                found.largest = max(found.largest, float(apart.max()))
                continue
            same = False
            place = np.unravel_index(int(apart.argmax()), apart.shape)
            where = f"{name}[{', '.join(map(str, place))}]"
            found.compare(f"{file} {where}", where, float(a[place]), float(b[place]), 0.0)
    if same:
        found.verified.append(f"{file}: tensors")
