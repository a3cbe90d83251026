"""What a training leaves: the calibrated classifier, measured as it was saved, and the run's
files."""

import copy
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from foveate.classifier import Classifier
from foveate.classifier.decision import decide
from foveate.classifier.saving import save_network
from foveate.data.batches import EvaluationBatches, normalise
from foveate.errors import ImageError
from foveate.heads import fit_temperature
from foveate.probe import PooledStages, Probe
from foveate.training.report import BRIEF, describe, draw_curves, judgements, remarks, twins
from foveate.training.setup import Job, Rows
from foveate.training.trainer import Fitted

AGREE = 2e-3  # of the largest logit: how far the two engines may be apart in f32


def keep(job: Job, network: nn.Module, fitted: Fitted) -> Classifier | None:
    """Calibrate, save, measure with what was saved, and write the run's files; on rank 0 alone."""
    if not job.ranks.first:
        return None
    told = len(job.notes)
    labels = job.dataset.labels[job.rows["validation"]]
    temperature = fold_temperature(network.cpu(), fit_temperature(fitted.logits, labels))
    calibrated = fitted.logits / np.float32(temperature)
    decision = decide(calibrated, labels)
    graph, doubts = graph_of(job, network)
    job.notes += doubts
    given = decision.answers(decision.probabilities(calibrated))
    job.notes += remarks(fitted.history, given, labels, job.dataset.classes, fitted.stopped_early)
    saved = job.run.folder / "classifier"
    arguments = (
        job.request.recipe,
        job.request.model,
        network,
        job.dataset.classes,
        job.preprocess,
        temperature,
        decision,
        graph,
    )
    first = save_network(saved, *arguments, job.about | {"metrics": {}})
    first.threads = job.means.threads
    results, judged = measure(job, first)
    brief = {split: {key: result[key] for key in BRIEF} for split, result in results.items()}
    classifier = save_network(saved, *arguments, {"metrics": brief} | job.about)

    run = job.run
    kept = job.dataset.select(np.sort(np.concatenate([*job.rows.values()])))
    job.notes += twins(kept)
    run.write("data.json", describe(kept, job.bad, job.notes))
    run.write_lines("history.jsonl", [asdict(record) for record in fitted.history])
    run.write_lines("predictions.jsonl", list(judgements(job.dataset, judged, decision)))
    for sentence in [*job.notes[told:], *job.bad.values()]:
        run.log(sentence)
    draw_curves(run.folder / "curves.png", fitted.history)
    run.write(
        "metrics.json",
        {
            "model": job.request.model,
            "recipe": job.request.recipe,
            "engine": job.request.engine,
            "seed": job.request.seed,
            "seconds": job.means.clock.seconds(),
            "epochs": sum(record.epoch > 0 for record in fitted.history),
            "best_epoch": fitted.best,
            "stopped_early": fitted.stopped_early,
            "temperature": temperature,
            "bad": job.bad,
            "notes": job.notes,
            **results,
        },
    )
    return classifier


def fold_temperature(network: nn.Module, temperature: float) -> float:
    """Divide the logits by a temperature, in the head's own weights; gives the temperature that was
    folded in.

    A head that is neither linear nor a convolution (`lenet5_1998`'s distances) keeps its logits: 1.
    """
    head: Any = network.head
    if not isinstance(head, (nn.Linear, nn.Conv2d)):
        return 1.0
    with torch.no_grad():
        head.weight /= temperature
        if head.bias is not None:
            head.bias /= temperature
    return temperature


class Doubts(NamedTuple):
    """A graph, or None and why there is none."""

    graph: Any
    reasons: list[str]


def graph_of(job: Job, network: nn.Module) -> Doubts:
    """The network as an OpenVINO graph that agrees with it on real images, if that is the
    engine."""
    if job.request.engine != "openvino":
        return Doubts(None, [])
    from foveate.engine.conversion import to_graph
    from foveate.engine.openvino import OpenVinoEngine, attach_head

    few = EvaluationBatches(
        job.dataset, job.rows["validation"][:8], job.preprocess, 8, job.means.threads
    )
    pixels = next(iter(few)).pixels
    with torch.no_grad():
        expected = network.eval()(normalise(pixels, job.preprocess)).numpy()
    twin: Any = copy.deepcopy(network)
    if isinstance(network, Probe):
        head = network.linear
        pooled = to_graph(PooledStages(twin.backbone), job.preprocess)
        graph = attach_head(
            pooled, head.weight.detach().numpy(), head.bias.detach().numpy(), mirror=False
        )
    else:
        graph = to_graph(twin, job.preprocess)
    engine = OpenVinoEngine(graph.clone(), job.means.threads, "f32")
    rows = pixels.permute(0, 2, 3, 1).numpy()
    gap = 0.0
    for n in {
        1,
        min(engine.batch, len(rows)),
    }:  # as prediction hands them over: one by one, and several at once
        found = np.concatenate(list(engine.run(rows[i : i + n] for i in range(0, len(rows), n))))
        gap = max(gap, float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max())))
    if gap > AGREE:
        return Doubts(
            None,
            [
                f"OpenVINO's graph disagrees with the network by {gap:.2g} of its logits: torch "
                "predicts"
            ],
        )
    return Doubts(graph, [])


def measure(
    job: Job, classifier: Classifier
) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[Rows, NDArray[np.float64]]]]:
    """Metrics and probabilities of each judged split, by the classifier as it was saved."""
    results, judged = {}, {}
    for split in ("validation", "test"):
        rows = job.rows[split]
        if not len(rows):
            continue
        job.means.progress.begin(split, len(rows))
        probabilities = []
        for _, found in classifier.dataset_probabilities(job.dataset.select(rows)):
            if isinstance(found, ImageError):  # it was readable before
                raise found
            probabilities.append(found)
            job.means.progress.advance()
        judged[split] = (rows, np.stack(probabilities))
        results[split] = classifier.decision.summarise(
            judged[split][1], job.dataset.labels[rows], job.dataset.classes
        )
    return results, judged
