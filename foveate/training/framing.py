"""What of each image is seen: chosen on honest folds, by the rule of one standard error.

A view more is as much more time for every prediction, and a class may show at an image's edge as
well as in its centre; so nothing is taken for granted, and nothing is chosen that the images do not
clearly ask for. Losses of two ways are compared image by image, and the standard error of their
difference counts groups, not images.

    fast   the whole of each image; the centre 2/3 is tried on a sample, and on all images where it
           does better there
    best   each framing is tried, on all images but for those that do worse on the sample; then the
           whole at the weights' own size beside it
    most   several backbones side by side, each with the whole and the centre 2/3; a branch stays
           if it lowers the loss of those before it
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foveate.classifier.saving import ProbeBranch
from foveate.data.dataset import Dataset, evenly_spaced
from foveate.data.image import opened
from foveate.data.preprocess import FRAMINGS, Fit, Preprocess, View
from foveate.data.splits import judging_folds
from foveate.engine import prepare_backbone
from foveate.errors import ImageError, UsageError
from foveate.features import Extracted, extract
from foveate.heads import PENALTIES, Head, fit_head
from foveate.progress import Progress, Silent
from foveate.training.honest import Judging, numbered
from foveate.weights.starting_point import StartingPoint

Framing = Literal["auto", "whole", "7/8", "2/3", "1/2", "whole+2/3"]
AUTO: Literal["auto"] = "auto"
FRAMING_NAMES = get_args(Framing)
# photos on which a framing is tried first, and how many of each class at least
SAMPLES = (96, 256)
A_CLASS = 6
INSPECTED = 200  # images whose proportions are looked at
LITTLE = 0.25  # share of an image's area that is worth a note
LONG = 0.5  # share under which squashing is tried as well
LEAST = 0.002  # of log-loss, below which a gain is none, however sure it is

Rows = NDArray[np.int64]
Losses = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One way of seeing images that was tried.

    Args:
        name: of the framing, the fit, or a branch.
        views: squares an image that are run through a network.
        photos: on how many it was judged, out of fold.
        log_loss: there.
        difference, error: of its log-loss to that of the whole, or of the branches before it,
            image by image, and the standard error over groups; None of the first.
        chosen: whether it was taken.
    """

    name: str
    views: int
    photos: int
    log_loss: float
    difference: float | None = None
    error: float | None = None
    chosen: bool = False

    def to_dict(self) -> dict[str, Any]:
        numbers = {"log_loss": self.log_loss, "difference": self.difference, "error": self.error}
        rounded = {name: None if n is None else round(n, 4) for name, n in numbers.items()}
        about = {"name": self.name, "views": self.views, "photos": self.photos}
        return about | rounded | {"chosen": self.chosen}


@dataclass(frozen=True)
class Choice:
    """What was chosen, and on what grounds.

    Args:
        branches: the backbones, and how each sees an image.
        features: (N, width), of the dataset's images, as the head reads them.
        head: solved on them; None where there was no choice.
        rivals: the heads of what was tried on all images and not taken: a figure is corrected for
            having been chosen among them.
        tried: all trials.
    """

    branches: tuple[ProbeBranch, ...]
    features: NDArray[np.float32]
    head: Head | None = None
    rivals: tuple[Head, ...] = ()
    tried: tuple[Trial, ...] = ()

    @property
    def name(self) -> str:
        """Of what each backbone sees."""
        return ", ".join(dict.fromkeys(name_of(branch.preprocess) for branch in self.branches))

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json: what is seen by which backbones, how often a prediction runs one, and
        what was tried."""
        return {
            "framing": self.name,
            "fit": self.branches[0].preprocess.fit,
            "views": sum(len(branch.preprocess.views) for branch in self.branches),
            "passes": sum(passes(branch) for branch in self.branches),
            "backbones": [branch.start.name for branch in self.branches],
            "tried": [trial.to_dict() for trial in self.tried],
        }


def name_of(preprocess: Preprocess) -> str:
    """Of what is seen: the framing, or the fit where all of an image is."""
    return preprocess.framing if preprocess.fit == "crop" else preprocess.fit


def passes(branch: ProbeBranch) -> int:
    """Squares that a prediction runs through a backbone."""
    return len(branch.preprocess.views) * (2 if branch.mirror else 1)


def parts_of(framing: str) -> tuple[str, ...]:
    """The framings of one view that a framing is made of.

    >>> parts_of("whole+2/3")
    ('whole', '2/3')
    """
    return tuple(framing.split("+"))


class ViewExtractor:
    """One backbone, and what it makes of each view of a dataset's images: extracted once, when it
    is asked for.

    Args:
        dataset: whose images can all be read.
        start: the backbone.
        whole: how it sees whole images.
        mirror, engine, threads, progress: as for `extract`.
    """

    def __init__(
        self,
        dataset: Dataset,
        start: StartingPoint,
        whole: Preprocess,
        mirror: bool,
        engine: str,
        threads: int,
        progress: Progress,
    ):
        self.dataset, self.start, self.whole = dataset, start, whole
        self.mirror, self.engine = mirror, engine
        self.threads, self.progress = threads, progress
        self.known: dict[View, NDArray[np.float32]] = {}
        self.backbone = prepare_backbone(engine, start, whole, threads)

    def branch(self, preprocess: Preprocess) -> ProbeBranch:
        return ProbeBranch(self.start, preprocess, self.mirror)

    def features(self, preprocess: Preprocess) -> NDArray[np.float32]:
        """(N, width), of all images."""
        lacking = [view for view in preprocess.views if view not in self.known]
        if lacking:
            wanted = replace(preprocess.alone(lacking[0]), more=tuple(lacking[1:]))
            parts = np.split(self.extracted(self.dataset, wanted), len(lacking), axis=1)
            self.known |= dict(zip(lacking, parts, strict=True))
        views = [self.known[view] for view in preprocess.views]
        return views[0] if len(views) == 1 else np.concatenate(views, axis=1)

    def some(self, preprocess: Preprocess, rows: Rows) -> NDArray[np.float32]:
        """The same of these rows alone."""
        if all(view in self.known for view in preprocess.views):
            return self.features(preprocess)[rows]
        return self.extracted(self.dataset.select(rows), preprocess, Silent())

    def extracted(
        self, dataset: Dataset, preprocess: Preprocess, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        found = self.extract(dataset, preprocess, progress)
        if found.bad:  # all could be read before
            raise ImageError(next(iter(found.bad.values())))
        return found.features

    def extract(
        self, dataset: Dataset, preprocess: Preprocess, progress: Progress | None = None
    ) -> Extracted:
        """As `features.extract`, of any images."""
        asked = (self.mirror, self.engine, self.threads, progress or self.progress, self.backbone)
        return extract(dataset, self.start, preprocess, *asked)

    def keep(self, dataset: Dataset, features: dict[View, NDArray[np.float32]]) -> None:
        """From now on the images are these, of which so much is known."""
        self.dataset, self.known = dataset, features


class HonestFolds:
    """Judges ways of seeing, all on the same folds.

    Args:
        labels: of the dataset.
        judging: of the images that are learnt from.
        classes: how many.
        threads: to solve with.
        progress: is advanced with each penalty of a head on all images.
    """

    def __init__(
        self, labels: Rows, judging: Judging, classes: int, threads: int, progress: Progress
    ):
        self.labels, self.judging = labels, judging
        self.classes, self.threads, self.progress = classes, threads, progress
        self.judged = np.flatnonzero(judging.solved >= 0)  # of the judging's rows

    def head(
        self,
        features: NDArray[np.float32],
        places: Rows | None = None,
    ) -> Head:
        """Solved on the judging's rows, or on those at some places of it.

        Args:
            features: (n, width), of these rows.
        """
        rows, folds = self.judging.rows, self.judging.solved
        if places is not None:
            rows, folds = rows[places], folds[places]
        else:
            self.progress.begin("head", len(PENALTIES))
        advance = self.progress.advance if places is None else lambda: None
        labels = self.labels[rows]
        return fit_head(features, labels, folds, self.classes, self.threads, advance)

    def samples(self) -> list[Rows]:
        """Places of photos that can be judged, a few of each class: samples of each size, each a
        part of the next."""
        labels = self.labels[self.judging.rows[self.judged]]
        chosen = self.judged
        if labels.ndim == 1:
            chosen = chosen[np.argsort(labels, kind="stable")]
        found = []
        for size in reversed(SAMPLES):
            chosen = evenly_spaced(chosen, max(size, A_CLASS * self.classes))
            found.append(np.sort(chosen))
        return found[::-1]

    def compare(
        self, losses: Losses, before: Losses, places: Rows | None = None
    ) -> tuple[float, float]:
        """Mean difference of two log-losses, image by image, and its standard error over groups."""
        difference = losses - before
        groups = self.judging.groups[self.judged if places is None else places]
        _, which = np.unique(groups, return_inverse=True)
        sums = np.bincount(which, difference - difference.mean())
        return float(difference.mean()), float(np.sqrt((sums**2).sum()) / len(difference))


def wins(difference: float, error: float) -> bool:
    """Whether a log-loss is lower by more than one standard error, and by LEAST."""
    return difference < -max(error, LEAST)


def least_losses(head: Head) -> Losses:
    """(judged,), each image's log-loss out of fold with the penalty that was chosen."""
    best: Losses = head.losses[int(head.losses.mean(axis=1).argmin())]
    return best


def area_seen(dataset: Dataset, rows: Rows, preprocess: Preprocess) -> float:
    """The share of an image's area that a network will see, of the median image."""
    if dataset.pixels is not None:
        height, width = dataset.pixels.shape[1:3]
        return preprocess.seen(width, height)
    shares = []
    for row in evenly_spaced(rows, INSPECTED).tolist():
        try:
            shares.append(preprocess.seen(*opened(dataset.read(row)).size))
        except Exception:  # damaged in any way: whoever decodes it says so
            continue
    return float(np.median(shares)) if shares else 1.0


def area_note(area: float, framing: str, fit: str) -> str:
    """A sentence where little is seen; else ""."""
    if area >= LITTLE:
        return ""
    remedy = "--framing whole or " if framing not in ("whole", AUTO) else ""
    more = "--fit squash or --fit pad" if fit == "crop" else ""
    return (
        f"only {area:.0%} of an image's area is seen, of the median image: if a class shows "
        f"elsewhere, try {remedy}{more}"
    )


def check_framing(framing: Any, fit: Any, recipe: str) -> tuple[Framing, Fit | None]:
    """The framing and the fit as they are asked for; UsageError if there are no such ones, or they
    do not go together, or with the recipe."""
    if framing not in FRAMING_NAMES:
        raise UsageError(f"no framing is called {framing!r}; expected {', '.join(FRAMING_NAMES)}")
    if fit is not None:
        Preprocess(1, 1).framed("whole" if framing == AUTO else framing, fit)
    if recipe != "probe" and len(FRAMINGS.get(framing, (1,))) > 1:
        raise UsageError(
            f"framing {framing} applies to the recipe probe: {recipe} trains on one view; choose "
            f"{' or '.join(parts_of(framing))}"
        )
    return framing, fit


def seen_as(whole: Preprocess, name: str) -> Preprocess:
    """The Preprocess of a framing's name, or of a fit's."""
    if name in FRAMINGS:
        return whole.framed(name)
    return whole.framed(fit="squash" if name == "squash" else "pad")


def ways_of(whole: Preprocess, area: float) -> dict[str, Preprocess]:
    """What may be tried, by name; squashing only where little of long images is seen otherwise.

    Args:
        area: share of an image's area that is seen of whole images.
    """
    names = (*FRAMINGS, "squash") if area < LONG else tuple(FRAMINGS)
    return {name: seen_as(whole, name) for name in names}


def screen(
    extractor: ViewExtractor, honest: HonestFolds, ways: dict[str, Preprocess], thorough: bool
) -> tuple[list[str], dict[str, Trial]]:
    """The ways of one view that do better than the whole on samples, the best first; and all that
    was tried. That a sample is small is no reason to let a way go: all images decide.

    Args:
        thorough: try each framing, not the centre 2/3 alone.
    """
    samples, tried = honest.samples(), dict[str, Trial]()

    def losses_on(places: Rows, name: str) -> Losses:
        rows = honest.judging.rows[places]
        return least_losses(honest.head(extractor.some(ways[name], rows), places))

    of_whole = [losses_on(places, "whole") for places in samples]

    def promises(name: str) -> bool:
        """Whether a way has the lower log-loss on the larger sample; what is behind by more than
        one standard error on the smaller one is not tried there."""
        difference = 0.0
        for places, before in zip(samples, of_whole, strict=True):
            losses = losses_on(places, name)
            difference, error = honest.compare(losses, before, places)
            tried[name] = Trial(name, 1, len(places), float(losses.mean()), difference, error)
            if difference > error:
                return False
        return difference < 0

    others = ("7/8", "1/2") if thorough else ()
    found = [name for name in ("2/3", "squash", *others) if name in ways and promises(name)]
    return sorted(found, key=lambda name: tried[name].log_loss), tried


def choose_framing(
    extractor: ViewExtractor, honest: HonestFolds, thorough: bool, area: float
) -> Choice:
    """The framing of one backbone, by the rule of one standard error.

    Args:
        extractor: the backbone.
        honest: of the images that are learnt from.
        thorough: try each framing, as the effort "best" does.
        area: share of an image's area that is seen of whole images.
    """
    rows, ways = honest.judging.rows, ways_of(extractor.whole, area)
    promising, tried = screen(extractor, honest, ways, thorough)
    on_all = [*dict.fromkeys(["2/3", "whole+2/3", *promising])] if thorough else promising[:1]
    heads = {name: honest.head(extractor.features(ways[name])[rows]) for name in ("whole", *on_all)}
    chosen = "whole"
    for name in sorted(heads, key=lambda n: (len(ways[n].views), least_losses(heads[n]).mean())):
        losses = least_losses(heads[name])
        difference, error = honest.compare(losses, least_losses(heads[chosen]))
        if name != chosen and wins(difference, error):
            chosen = name
    for name, head in heads.items():
        losses = least_losses(head)
        against = honest.compare(losses, least_losses(heads["whole"])) if name != "whole" else ()
        views = len(ways[name].views)
        tried[name] = Trial(name, views, len(losses), float(losses.mean()), *against)
    tried[chosen] = replace(tried[chosen], chosen=True)
    return Choice(
        branches=(extractor.branch(ways[chosen]),),
        features=extractor.features(ways[chosen]),
        head=heads[chosen],
        rivals=tuple(head for name, head in heads.items() if name != chosen),
        tried=tuple(tried[name] for name in ways if name in tried),
    )


def choose_size_beside(choice: Choice, extractor: ViewExtractor, honest: HonestFolds) -> Choice:
    """What was chosen, with whole images of another size beside it where that lowers the log-loss
    by more than one standard error.

    Args:
        extractor: of the same backbone, at the other size.
    """
    rows, whole = honest.judging.rows, extractor.whole
    assert choice.head is not None
    features = np.concatenate([choice.features, extractor.features(whole)], axis=1)
    head = honest.head(features[rows])
    losses, before = least_losses(head), least_losses(choice.head)
    difference, error = honest.compare(losses, before)
    name, chosen = f"{choice.name}, whole at {whole.crop} pixels", wins(difference, error)
    views = 1 + sum(len(branch.preprocess.views) for branch in choice.branches)
    trial = Trial(name, views, len(losses), float(losses.mean()), difference, error, chosen)
    if not chosen:
        return replace(choice, rivals=(*choice.rivals, head), tried=(*choice.tried, trial))
    alone = honest.head(extractor.features(whole)[rows])
    first = choice.branches[0]._replace(log_loss=float(before.mean()))
    second = extractor.branch(whole)._replace(log_loss=float(least_losses(alone).mean()))
    given_way = tuple(replace(one, chosen=False) for one in choice.tried)
    return Choice(
        branches=(first, second),
        features=features,
        head=head,
        rivals=(*choice.rivals, choice.head),
        tried=(*given_way, trial),
    )


def choose_view(
    dataset: Dataset,
    rows: Rows,
    start: StartingPoint,
    whole: Preprocess,
    engine: str,
    threads: int,
    progress: Progress,
    seed: int,
    squash: bool,
) -> tuple[str, list[Trial]]:
    """The framing or fit of a network that will be fine-tuned, by a probe of it on a sample of the
    training images: the best one that beats the whole there by more than one standard error. And
    what was tried.

    Args:
        rows: of the training images; those of the sample that cannot be read are passed over.
        squash: whether squashing may be tried.
    """
    labels = dataset.labels[rows]
    by_class = rows if labels.ndim == 2 else rows[np.argsort(labels, kind="stable")]
    rows = evenly_spaced(by_class, max(SAMPLES[-1], A_CLASS * len(dataset.classes)))
    sample = dataset.select(np.sort(rows))
    extractor = ViewExtractor(sample, start, whole, False, engine, threads, progress)
    found = extractor.extract(sample, whole)
    good = np.flatnonzero([name not in found.bad for name in sample.files])
    sample = sample.select(good)
    extractor.keep(sample, {whole.views[0]: found.features[good]})
    groups = numbered(sample.grouping())
    folds = judging_folds(sample.labels, groups, seed)
    if (folds < 0).all():
        return "whole", []
    alone = np.arange(len(sample))
    judging = Judging(alone, groups, folds, folds)
    honest = HonestFolds(sample.labels, judging, len(sample.classes), threads, progress)
    ways = ways_of(whole, area_seen(sample, alone, whole) if squash else 1.0)
    promising, tried = screen(extractor, honest, ways, thorough=False)
    sure = [n for n in promising if wins(tried[n].difference or 0.0, tried[n].error or 0.0)]
    name = sure[0] if sure else "whole"
    return name, [replace(trial, chosen=trial.name == name) for trial in tried.values()]


def choose_branches(
    backbones: Sequence[ViewExtractor],
    framings: Sequence[str],
    honest: HonestFolds,
    say: Callable[[str], object],
) -> Choice:
    """Backbones and framings side by side: each stays that lowers the log-loss of those before it
    by more than one standard error.

    Args:
        backbones: the first one's first view is seen in any case.
        framings: of each backbone, one view each; or fits.
        say: is given a line on each branch.
    """
    rows = honest.judging.rows
    kept: list[tuple[ViewExtractor, View, NDArray[np.float32]]] = []
    tried: list[Trial] = []
    heads: list[Head] = []  # of all that was tried; the last one that was kept is `head`
    head: Head | None = None
    for extractor in backbones:
        for framing in framings:
            preprocess = seen_as(extractor.whole, framing)
            features = extractor.features(preprocess)
            beside = np.concatenate([*(f for _, _, f in kept), features], axis=1)
            new = honest.head(beside[rows])
            losses = least_losses(new)
            name = f"{extractor.start.name} {framing}"
            trial = Trial(name, 1, len(losses), float(losses.mean()), chosen=head is None)
            if head is not None:
                found = honest.compare(losses, least_losses(head))
                trial = replace(trial, difference=found[0], error=found[1], chosen=wins(*found))
            tried.append(trial)
            heads.append(new)
            say(account(trial))
            if trial.chosen:
                head = new
                kept.append((extractor, preprocess.views[0], features))
    assert head is not None
    branches = []
    for extractor in backbones:
        views = [view for other, view, _ in kept if other is extractor]
        if views:
            preprocess = replace(extractor.whole.alone(views[0]), more=tuple(views[1:]))
            alone = honest.head(extractor.features(preprocess)[rows])
            loss = float(least_losses(alone).mean())
            branches.append(extractor.branch(preprocess)._replace(log_loss=loss))
    return Choice(
        branches=tuple(branches),
        features=np.concatenate([f for _, _, f in kept], axis=1),
        head=head,
        rivals=tuple(other for other in heads if other is not head),
        tried=tuple(tried),
    )


def account(trial: Trial) -> str:
    """A line on what a branch brought.

    >>> account(Trial("efficientnet_lite1 2/3", 1, 900, 0.2461, -0.012, 0.004, chosen=True))
    'efficientnet_lite1 2/3: log-loss 0.246 out of fold, -0.012 +- 0.004: kept'
    """
    line = f"{trial.name}: log-loss {trial.log_loss:.3f} out of fold"
    if trial.difference is None:
        return line
    verdict = "kept" if trial.chosen else "left out"
    return f"{line}, {trial.difference:+.3f} +- {trial.error:.3f}: {verdict}"
