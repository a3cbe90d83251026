"""What would help a classifier most: more images, other labels, another framing, another backbone.

    advice = advise("runs/mine")
    advice.verdict, advice.suggestions

Each gain is measured on the run's own folds, or said not to be. Of several measures the best one
looks better than it is; so all are drawn towards nothing by as much as their errors ask for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from foveate.advice.curve import PIECES, Curve, learn_curve
from foveate.advice.gain import Gain, shrunk
from foveate.advice.trials import try_others
from foveate.audit.suspects import STEPS, measure_gains
from foveate.classifier.card import read_card
from foveate.data.dataset import Dataset
from foveate.errors import ArtefactError, UsageError, quoted
from foveate.machine import cores_to_use
from foveate.progress import Progress, bars
from foveate.recomputation.features import Again, learn_again
from foveate.report.run import check_whole, read_run

MATTERS = 0.002  # of accuracy, below which a gain is none
# of the errors of a probe that fine-tuning left on clothing, over three seeds
# (benchmarks/results/finetune.json): the one set on which it was measured so
FINE_TUNED = 0.77
SECONDS_A_LABEL = 3.0  # for a person to look at one on the sheet of `foveate review`


@dataclass(frozen=True)
class Suggestion:
    """One thing that may help.

    Args:
        name: "more images", "more of the same occasions", "correct labels", "framing NAME",
            "backbone NAME", "fine-tune".
        what: it in words.
        gain: of accuracy on new images, a fraction, drawn towards nothing; None if it was not
            measured.
        interval: 80 %, in which it lies; None if it was not measured.
        minutes: of computing, or of looking at labels; None where that is not known.
        command: what does it, or how to go on.
        classes: for more images, the share of the gain that each class brings, the largest first.
    """

    name: str
    what: str
    gain: float | None
    interval: tuple[float, float] | None
    minutes: float | None
    command: str
    classes: dict[str, float]

    @property
    def helps(self) -> bool:
        """Whether it helps measurably."""
        return (
            self.gain is not None
            and self.interval is not None
            and self.interval[0] > 0
            and self.gain >= MATTERS
        )


@dataclass(frozen=True)
class Advice:
    """What to do next.

    Args:
        accuracy: of the run, on new images.
        images: that it learnt from.
        verdict: "NAME helps most ...", "nothing here helps measurably", or to stop.
        suggestions: the largest gain first; those without a measured one last.
        not_tried: what could not be, and why.
    """

    accuracy: float
    images: int
    verdict: str
    suggestions: tuple[Suggestion, ...]
    not_tried: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [asdict(one) | {"helps": one.helps} for one in self.suggestions]
        return asdict(self) | {"suggestions": rows}


def advise(
    run: str | Path,
    dataset: Dataset | None = None,
    *,
    source: str = "DATA",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Advice:
    """Say what would help a probe most.

    Args:
        run: its folder. Its features must be in the cache still.
        dataset: the images that it was trained on, by which framings and backbones are tried; else
            they are not.
        source: how the images are called in commands.
        threads: cores to use, all by default.
        progress: is shown what is done.

    Raises:
        UsageError: the run is no probe of one class an image.
        ArtefactError: there is no run; it is damaged; the cache has not all its features.
        DataError: nothing of it can be judged.
    """
    files, n = read_run(Path(run)), cores_to_use(threads)
    check_whole(files)
    if files.metrics["recipe"] != "probe" or files.config.get("task") == "multilabel":
        raise UsageError(
            f"{quoted(Path(run))} is no probe with one class an image, for which advice is given: "
            f"train one, which takes seconds: foveate train {quote(source)}"
        )
    with bars(progress) as shown:
        shown.begin("features", 1)
        card = read_card(Path(run) / "classifier")
        try:
            again = learn_again(files, card, n)
        except ArtefactError as error:
            raise ArtefactError(
                f"nothing can be said of {quoted(Path(run))}: {error}; train once more: foveate "
                f"train {quote(source)}"
            ) from error
        figures = files.metrics["out_of_fold"]
        if figures["accuracy"] is None:
            raise UsageError(f"nothing of {quoted(Path(run))} could be judged: {figures['why']}")
        found, not_tried = more_images(again, n, shown)
        found += corrected(again, str(run), source, n, shown)
        if dataset is None:
            not_tried["framings and backbones"] = "the images are not here: name them"
        else:
            found += other_ways(again, dataset, source, n, shown)
    errors = 1 - figures["accuracy"]
    estimates = [gain for gain, _ in found]
    suggestions = [
        replace(suggestion, gain=gain.mean, interval=gain.interval)
        for gain, (_, suggestion) in zip(shrunk(estimates), found, strict=True)
    ]
    suggestions.sort(key=lambda one: -(one.gain or 0.0))
    suggestions.append(fine_tuned(errors, source))
    images = int((~np.isin(again.dataset.splits, ["test"])).sum())
    verdict = verdict_of(suggestions[:-1], errors)
    return Advice(figures["accuracy"], images, verdict, tuple(suggestions), not_tried)


Found = tuple[Gain, Suggestion]


def more_images(
    again: Again, threads: int, progress: Progress
) -> tuple[list[Found], dict[str, str]]:
    """Twice as many of them: of new occasions, and of those that are there."""
    judging, solved = again.judging, again.learnt.solved
    labels = again.dataset.labels[judging.rows]
    features = again.learnt.choice.features[judging.rows]
    progress.begin("learning curve", PIECES)
    classes = len(again.dataset.classes)
    curve = learn_curve(features, labels, judging, solved.head, classes, threads, progress.advance)
    if curve is None:
        return [], {"more images": "parts of the images are too few to learn from"}
    n = len(judging.rows)
    several = curve.within is not None
    what = f"{n} more photos" + (", of new occasions" if several else "")
    shares = by_class(curve, again.dataset.classes)
    most = " and ".join(list(shares)[:2])
    command = f"photograph {most} first" if most else ""
    found = [(curve.gain(), Suggestion("more images", what, None, None, None, command, shares))]
    if curve.within is not None:
        name, what = "more of the same occasions", "twice the photos of each occasion that is there"
        found.append(
            (curve.within, Suggestion(name, what, None, None, None, "photograph each again", {}))
        )
    return found, {}


def by_class(curve: Curve, names: Sequence[str]) -> dict[str, float]:
    """The share of the errors that went away as images were added, of each class where some did,
    the largest first."""
    fallen = np.maximum(curve.fallen(len(names)), 0)
    if fallen.sum() <= 0:
        return {}
    shares = fallen / fallen.sum()
    order = np.argsort(-shares, kind="stable")
    return {names[c]: round(float(shares[c]), 3) for c in order if shares[c] > 0}


def corrected(again: Again, run: str, source: str, threads: int, progress: Progress) -> list[Found]:
    """The labels that look wrong, put right."""
    judging, learnt = again.judging, again.learnt
    suspects = learnt.doubts.suspects
    progress.begin("labels", len(STEPS) + 2)
    gains = measure_gains(
        again.dataset,
        learnt.choice.features,
        judging.rows,
        judging.folds,
        judging.groups,
        learnt.solved.head,
        suspects,
        threads,
        progress.advance,
    )
    if not gains:
        return []
    most = gains[-1]
    gain = Gain.of_95(most.accuracy, most.interval)
    if gain is None:
        return []
    what = f"{most.images} labels that look wrong, corrected as is suggested"
    command = f"foveate review {quote(run)} {quote(source)}"
    minutes = round(most.images * SECONDS_A_LABEL / 60, 1)
    return [(gain, Suggestion("correct labels", what, None, None, minutes, command, {}))]


def other_ways(
    again: Again, dataset: Dataset, source: str, threads: int, progress: Progress
) -> list[Found]:
    """Other framings, and other backbones, on a sample."""
    found = []
    n = len(again.judging.rows)
    for trial in try_others(again, dataset, threads, progress):
        seconds = trial.seconds_an_image
        minutes = None if seconds is None else round(seconds * n / 60, 1)
        command = f"foveate train {quote(source)} {trial.options}"
        what = f"{trial.what}, tried on {trial.photos} photos"
        found.append((trial.gain, Suggestion(trial.name, what, None, None, minutes, command, {})))
    return found


def fine_tuned(errors: float, source: str) -> Suggestion:
    """What is known of fine-tuning from elsewhere."""
    left = 100 * (1 - FINE_TUNED)
    what = (
        f"it took {left:.0f} % of the errors away where it was measured, on 3,400 photos of "
        f"clothing; here that would be {100 * errors * (1 - FINE_TUNED):.1f} points"
    )
    command = f"foveate train {quote(source)} --recipe finetune"
    return Suggestion("fine-tune", what, None, None, None, command, {})


def verdict_of(measured: Sequence[Suggestion], errors: float) -> str:
    """The advice in a sentence."""
    if errors < MATTERS:
        return "stop: there is next to nothing left to gain"
    best = next((one for one in measured if one.helps), None)
    if best is None or best.gain is None or best.interval is None:
        return "nothing here helps measurably: stop, or look for what is not in these images"
    low, high = (100 * end for end in best.interval)
    return (
        f"{best.name} would help most: {100 * best.gain:+.1f} points of accuracy ({low:+.1f} to "
        f"{high:+.1f}): {best.what}"
    )
