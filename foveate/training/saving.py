"""What a training by steps leaves: the calibrated classifier, measured as it is saved, and the
run's files."""

import copy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.classifier import Classifier
from foveate.classifier.decision import decide
from foveate.classifier.saving import make_card, relation_file, write_classifier
from foveate.data.batches import EvaluationBatches, normalise
from foveate.errors import ArtefactError, ImageError
from foveate.heads import fit_temperature
from foveate.probe import PooledStages, Probe
from foveate.progress import log_notes
from foveate.rejection import FEWEST
from foveate.training.framing import area_seen, name_of
from foveate.training.honest import contradictions, held_out, without_leaks
from foveate.training.previous import compare_with_last
from foveate.training.refusal import (
    KEPT,
    LEARNT,
    NO_FEATURES,
    TOO_FEW,
    Refusal,
    fit_refusal_of_trained,
    note_of,
)
from foveate.training.report import (
    ALONE,
    brief,
    data_json,
    draw_curves,
    duplicate_notes,
    remarks,
    write_metrics,
    write_predictions,
)
from foveate.training.trainer import Fitted
from foveate.weights.starting_point import OWN

if TYPE_CHECKING:
    from foveate.training.setup import Job

FEW = 8  # images by which what is saved is compared
AGREE = 2e-3  # of the largest logit: how far the two engines may be apart in f32

Evaluated = dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]  # rows, probabilities


def save_trained(job: "Job", network: nn.Module, fitted: Fitted) -> Classifier:
    """Calibrate, measure what will be saved, save it, and write the run's files."""
    logged = len(job.notes)
    labels, classes = job.dataset.labels[job.rows["validation"]], job.dataset.classes
    temperature = fit_temperature(fitted.logits, labels)
    divide = not fold_temperature(network.cpu(), temperature)
    calibrated = fitted.logits / np.float32(temperature)
    decision = decide(calibrated, labels)
    graph, doubts = graph_of(job, network)
    job.notes += doubts
    given = decision.answers(decision.probabilities(calibrated))
    job.notes += remarks(
        fitted.history,
        given,
        labels,
        classes,
        fitted.stopped_early,
        sizes=job.dataset.sizes(job.rows["train"]),
        policy=job.policy,
        balance=job.config.balance,
    )

    card = make_card(
        form="probe" if isinstance(network, Probe) else "network",
        recipe=job.request.recipe,
        model=job.request.model,
        mirror=False,
        temperature=temperature,
        divide=divide,
        decision=decision,
        classes=classes,
        preprocess=job.preprocess,
        about={"metrics": {}, "provenance": job.provenance},
    )
    folder, threads = job.run.folder / "classifier", job.resources.threads
    unsaved = Classifier(folder, card, threads, module=handed_in(job, network))
    refusal, why = refusal_of(job, unsaved, graph, network, fitted.best == 0)
    job.notes += note_of(refusal, job.request.reject, why)
    beside: dict[str, bytes] = {}
    if refusal is not None:
        card["rejection"], unsaved.rejection = refusal.certificate, refusal.rejection
        beside = relation_file(None, refusal.rejection)
    splits, evaluated = measure(job, unsaved, refusal)
    card["metrics"] = brief(splits)
    tensors = {n: t.detach().contiguous().cpu().numpy() for n, t in network.state_dict().items()}
    classifier = write_classifier(folder, card, tensors, graph, beside)
    classifier.threads, classifier.module = threads, unsaved.module

    run = job.run
    kept = job.dataset.select(np.sort(np.concatenate([*job.rows.values()])))
    job.notes += duplicate_notes(kept)
    job.notes += contradictions(splits)
    run.write(
        "data.json",
        data_json(
            kept,
            job.bad,
            job.notes,
            groups=job.grouping.listed(job.dataset),
            looked_for=job.grouping.looked_for,
        ),
    )
    run.write_lines("history.jsonl", [asdict(record) for record in fitted.history])
    rows = write_predictions(run, job.dataset, evaluated, decision)
    for sentence in [*job.notes[logged:], *job.bad.values()]:
        run.log(sentence)
    log_notes([*job.dataset.notes, *job.notes[logged:]], job.bad)
    draw_curves(run.folder / "curves.png", fitted.history)
    write_metrics(
        run,
        model=job.request.model,
        recipe=job.request.recipe,
        engine=job.request.engine,
        seed=job.request.seed,
        seconds=job.resources.clock.seconds(),
        bad=job.bad,
        notes=job.notes,
        details={
            "seen": {
                "area": round(area_seen(job.dataset, job.rows["train"], job.preprocess), 4),
                "framing": name_of(job.preprocess),
                "fit": job.preprocess.fit,
                "views": 1,
                "passes": 1,
                "backbones": [job.request.model],
                "tried": [trial.to_dict() for trial in job.tried],
            },
            "epochs": sum(record.epoch > 0 for record in fitted.history),
            "best_epoch": fitted.best,
            "stopped_early": fitted.stopped_early,
            "temperature": temperature,
            "rejection": None if refusal is None else refusal.certificate,
            **compare_with_last(run, job.dataset, without_leaks(rows, splits)),
        },
        splits=splits,
    )
    return classifier


def fold_temperature(network: nn.Module, temperature: float) -> bool:
    """Divide the logits by a temperature, in the head's own weights; whether that could be done.

    A head that is neither linear nor a convolution (`lenet5_1998`'s distances), and a network that
    names no head, keep their weights: then whoever predicts divides.
    """
    head: Any = getattr(network, "head", None)
    if not isinstance(head, (nn.Linear, nn.Conv2d)):
        return False
    with torch.no_grad():
        head.weight /= temperature
        if head.bias is not None:
            head.bias /= temperature
    return True


def handed_in(job: "Job", network: nn.Module) -> nn.Module | None:
    """The user's network, without which a classifier of it cannot be rebuilt."""
    if not job.request.model.startswith(OWN):
        return None
    if job.request.module is not None:
        return job.request.module
    return None if job.request.start is None else job.request.start.unweighted()


def graph_of(job: "Job", network: nn.Module) -> tuple[Any, list[str]]:
    """The network as an OpenVINO graph that agrees with it on real images, if that is the engine;
    or None, and notes on why there is none."""
    own = job.request.model.startswith(OWN)
    if job.request.engine != "openvino":
        return None, [ALONE] if own else []
    from foveate.engine.conversion import to_graph
    from foveate.engine.openvino import Branch, OpenVinoEngine, attach_head

    pixels = few_images(job)
    x = normalise(pixels, job.preprocess)
    with torch.no_grad():
        expected = network.eval()(x if job.request.channels_last else x.contiguous()).numpy()
    twin: Any = copy.deepcopy(network)
    try:
        if isinstance(network, Probe):
            head = network.linear
            pooled = to_graph(PooledStages(twin.backbone), job.preprocess)
            weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
            graph = attach_head([Branch(pooled)], weight, bias)
        else:
            graph = to_graph(twin, job.preprocess)
    except Exception as error:  # a forward of the user's can fail to be exported in any way
        if not own:
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return None, [f"the network cannot be exported ({reason[:200]})", ALONE]
    engine = OpenVinoEngine(graph.clone(), job.resources.threads, "f32")
    rows = pixels.permute(0, 2, 3, 1).numpy()
    gap = 0.0
    for n in {1, min(engine.batch, len(rows))}:  # as prediction gives them: alone, and several
        found = np.concatenate(list(engine.run(rows[i : i + n] for i in range(0, len(rows), n))))
        gap = max(gap, float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max())))
    if gap > AGREE:
        doubt = f"OpenVINO's graph disagrees with the network by {gap:.2g} of its logits"
        return None, [f"{doubt}: torch predicts", *([ALONE] if own else [])]
    return graph, []


def refusal_of(
    job: "Job", unsaved: Classifier, graph: Any, network: nn.Module, probe_kept: bool
) -> tuple[Refusal | None, str]:
    """When it answers none of these; or None, and what that takes. The classifier can predict
    then.

    Args:
        probe_kept: whether no epoch was better than the probe that fine-tuning began with.
    """
    refusal, why = None, TOO_FEW
    if job.request.reject is not None and len(job.rows["validation"]) >= FEWEST:
        try:
            check_head(job, network)
            unsaved.use(graph, network, features=True)
        except ArtefactError:
            why = NO_FEATURES
        else:
            refusal = fit_refusal_of_trained(
                unsaved,
                job.dataset,
                job.rows["train"],
                job.rows["validation"],
                job.grouping.groups,
                job.request.reject,
                job.request.seed,
                KEPT if probe_kept else LEARNT,
            )
    if refusal is None:
        unsaved.use(graph, network)
    return refusal, why


def few_images(job: "Job") -> Tensor:
    """(n, C, H, W), uint8: images that were held out, by which what is saved is compared."""
    few = EvaluationBatches(
        job.dataset, job.rows["validation"][:FEW], job.preprocess, FEW, job.resources.threads
    )
    return next(iter(few)).pixels


def check_head(job: "Job", network: Any) -> None:
    """ArtefactError unless the network is its linear head on what it embeds an image as."""
    if not isinstance(getattr(network, "head", None), nn.Linear) or not hasattr(network, "embed"):
        raise ArtefactError(NO_FEATURES)
    x = normalise(few_images(job), job.preprocess)
    with torch.no_grad():
        features = network.eval().embed(x)
        if features.ndim != 2 or not torch.allclose(network.head(features), network(x), atol=1e-4):
            raise ArtefactError(NO_FEATURES)


def measure(
    job: "Job", classifier: Classifier, refusal: Refusal | None
) -> tuple[dict[str, dict[str, Any]], Evaluated]:
    """Metrics and probabilities of each evaluated split, by the classifier as it will be saved."""
    results: dict[str, dict[str, Any]] = {}
    evaluated: Evaluated = {}
    for split in ("validation", "test"):
        rows = job.rows[split]
        if not len(rows):
            continue
        job.resources.progress.begin(split, len(rows))
        outcomes = []
        for _, found in classifier.dataset_outcomes(job.dataset.select(rows)):
            if isinstance(found, ImageError):  # it was readable before
                raise found
            outcomes.append(found)
            job.resources.progress.advance()
        probabilities = np.stack([outcome.probabilities for outcome in outcomes])
        evaluated[split] = (rows, probabilities)
        results[split] = held_out(
            job.dataset, job.grouping, rows, probabilities, classifier.decision
        )
        if refusal is not None:
            right = probabilities.argmax(axis=1) == job.dataset.labels[rows]
            reasons = [outcome.rejected for outcome in outcomes] if split == "test" else None
            groups = job.grouping.groups[rows]
            refusal.judge(split, results[split], right, reasons, groups, job.request.seed)
    return results, evaluated
