"""From images to a classifier: one function, three recipes.

probe      a frozen backbone, a solved head: seconds                           probe.py
finetune   the probe, then the later stages learn on, step by step: minutes    setup.py, trainer.py
scratch    a random start                                                      the same
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

from foveate.arguments import check_switch, checked_path, option, spoken, whole_number
from foveate.audit.groups import Grouping, Groups, check_groups
from foveate.catalogue import CATALOGUE, canonical, unknown_network
from foveate.classifier import Classifier
from foveate.data.augment import PolicyOptions
from foveate.data.corrections import Corrected, correct
from foveate.data.dataset import (
    Dataset,
    OnBad,
    Task,
    check_policy,
    check_trainable,
    learnable,
)
from foveate.data.layouts import as_dataset
from foveate.data.preprocess import Fit, Preprocess
from foveate.engine import choose_engine
from foveate.errors import FoveateError, UsageError, quoted
from foveate.evaluation.operating import check_point
from foveate.evaluation.point import fix_point
from foveate.forking import torch_threads
from foveate.machine import cores_to_use
from foveate.progress import Progress, bars, log_notes
from foveate.report.run import REPORT, write_report
from foveate.report.texts import Lang, check_lang
from foveate.runs import Run
from foveate.training.config import Freeze, TrainConfig, check_names
from foveate.training.framing import Framing, check_framing
from foveate.training.probe import EFFORTS, ProbeConfig, solve_probe
from foveate.training.refusal import check_class_names, check_reject
from foveate.training.report import Clock, dataset_fingerprint
from foveate.weights import WEIGHTS
from foveate.weights.starting_point import (
    EMBEDDED,
    TIMM,
    WEIGHTS_TAKEN,
    Loaded,
    StartingPoint,
    check_module,
    find_start,
    name_of,
)

if TYPE_CHECKING:
    from torch import nn

    from foveate.data.augment import Augment
    from foveate.training.lr_finder import RateTest
    from foveate.training.setup import Job, Request, Resources

Recipe = Literal["probe", "finetune", "scratch"]
RECIPES = get_args(Recipe)


class Settings(TypedDict, total=False):
    """The fields of `TrainConfig`, as keywords of `train`; TrainConfig explains them."""

    epochs: int
    batch_size: int
    accumulate: int
    optimizer: Literal["sgd", "adamw"]
    lr: float
    head_lr: float
    layer_decay: float
    momentum: float
    weight_decay: float
    schedule: Literal["cosine", "one-cycle", "constant"]
    warmup: float
    label_smoothing: float
    clip: float
    ema: float
    patience: int
    freeze: Freeze
    unfreeze_at: int
    batch_norm: Literal["train", "frozen"]
    balance: Literal["none", "weights", "sampling"]
    precision: Literal["auto", "f32", "bf16"]
    compile: bool
    progressive: float
    auxiliary: float


@torch_threads()
def train(
    data: str | os.PathLike[str] | Dataset,
    model: "str | nn.Module" = "efficientnet_lite0",
    recipe: Recipe | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    task: Task | None = None,
    effort: Literal["fast", "best", "most"] | None = None,
    framing: Framing = "auto",
    fit: Fit | None = None,
    reject: float | Literal["off"] | None = None,
    positive: str | None = None,
    recall: float | None = None,
    augment: "str | Augment | PolicyOptions | None" = None,
    size: int | None = None,
    channels: Literal[1, 3] | None = None,
    config: TrainConfig | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    seed: int = 0,
    groups: Groups | Grouping = "auto",
    on_bad: OnBad | None = None,
    corrections: str | os.PathLike[str] | None = None,
    engine: Literal["auto", "openvino", "torch"] = "auto",
    threads: int | None = None,
    cache: Literal["off", "ram", "disk"] | None = None,
    tensorboard: bool = False,
    lang: Lang = "en",
    progress: Progress | None = None,
    command: str = "",
    **settings: Unpack[Settings],
) -> Classifier:
    """Turn labelled images into a classifier.

    Args:
        data: a folder (one folder per class, or train / val / test), a CSV, a built-in name, or a
            Dataset.
        model: a network of the canon (`foveate models` lists them); `timm:NAME` of the extra timm;
            or a module. A module that has `stages` and `head` can be probed and fine-tuned, with
            the weights it has; one that only maps images to logits is trained as it is.
        recipe: "probe", the default where there are published weights; "finetune"; or "scratch",
            the default elsewhere.
        weights: of probe and finetune: a checkpoint file of the model, or the run to go on from,
            whose network and weights are then the start.
        task: "multiclass", each image is of one class, the default; or "multilabel", it has any
            number of labels, from a CSV. A Dataset has its own.
        effort: of a probe: "fast" (the default) sees each image once at the weights' own size;
            "best" sees it larger, and its mirror image, and tries each framing; "most" puts three
            backbones side by side, which takes the extra backbones.
        framing: how much of the shorter side is seen: "whole", "7/8", "2/3" or "1/2" around the
            centre; "whole+2/3", both, of a probe; or "auto", what the training images ask for
            (`foveate.training.framing`). A random start sees the whole.
        fit: what happens to a longer side: "crop" cuts its ends off, the default; "pad" keeps all
            of it between borders; "squash" squeezes it. The latter two show the whole image.
        reject: the share of images like the training images that may be answered with
            "none of these", so that others are; 0.05 by default, or "off". Not of labels.
        positive, recall: a class, and the recall that is to be kept of it on new images, such as
            0.99: the probability from which on an image is given it is fixed when training has
            ended (`foveate.evaluation.fix_point`, which also keeps a precision).
        augment: of finetune and scratch: a policy, "none", "light", "standard" or "strong"; an
            Augment; or a PolicyOptions, of which the data decide what is left out. Chosen from the
            data by default.
        size: of finetune and scratch: side in pixels of what the network reads.
        channels: of scratch: 3 for colour, 1 for grey; by default 1 where all images are grey.
        config: of finetune and scratch: settings that take the place of the recipe's; single ones
            win over it.
        out: the run's folder; by default runs/NAME, never one that exists.
        resume: go on with the interrupted run in `out`; a finished one is left as it is.
        seed: of folds, splits, random starts, order and augmentation.
        groups: images that are kept on one side of every fold and split, so that what judges is
            new: "auto", copies, bursts and occasions, which are found, and those that a table
            gives; "given", the latter and files with the same bytes; "none", files with the same
            bytes alone. Or a Grouping of this Dataset, found before, that trainings share.
        on_bad: unreadable images: "skip" them, naming each, or make them, and damaged ones, an
            "error". By default they are skipped unless there are several and more than 5 %.
        corrections: a table in which a person says which labels are right, as `foveate review`
            writes it (`foveate.data.corrections`); it is kept in the run.
        engine: what runs the network without gradients; "auto" takes the fastest that is there.
        threads: cores to use; all by default.
        cache: of finetune and scratch: where decoded pixels are kept, "ram" by default.
        tensorboard: of finetune and scratch: also write the history for TensorBoard, in the run's
            folder.
        lang: of the run's report: "en" or "zh".
        progress: is informed of how far it is; by default bars in a terminal or a notebook.
        command: what was typed, for the card.
        settings: of finetune and scratch: single fields of `TrainConfig`, such as `epochs=5`.

    Returns:
        The saved Classifier. Its `metrics` come from images that the measured head or network did
        not learn from: of a probe `out_of_fold`, from cross-validation over all but the test
        split; of the others `validation`, which chose the epoch, and `test`. Where the data has no
        such splits, they are held out: 15 % each, of large sets less. `compared_with` is there
        where a finished run of the same data lies beside this one.

    Raises:
        DataError: the data cannot be learnt from; corrections do not fit them.
        UsageError: an argument that does not exist, does not fit, or does not apply to the recipe;
            a run that exists; a module that lacks what the recipe needs.
        ArtefactError: a run to be resumed or to start from that is none, or whose files are
            damaged.
        MissingExtraError: timm or tensorboard is asked for and not installed.
        FoveateError: the model's weights cannot be had; training cannot go on.
    """
    check_policy(on_bad)
    check_names(settings)
    model = canonical(model) if isinstance(model, str) else model
    recipe = choose_recipe(model, weights) if recipe is None else recipe
    threads = cores_to_use(threads, shared=recipe != "probe")
    kind = choose_engine(engine)
    by_steps = {"augment": augment, "size": size, "channels": channels, "config": config}
    by_steps |= {"cache": cache, "tensorboard": tensorboard or None}
    given = [name for name, value in by_steps.items() if value is not None]
    if isinstance(augment, PolicyOptions):
        given = [*augment.options, *given[int(augment.policy is None) :]]
    seed = check_request(recipe, model, seed, effort, [*given, *settings])
    framing, fit = check_framing(framing, fit, recipe)
    if effort == "most":
        check_most(model, weights)
    folder = None if out is None else checked_path("out is the path of the run's folder", out)
    grouping = groups if isinstance(groups, Grouping) else None
    kinds = "auto" if isinstance(groups, Grouping) else check_groups(groups)
    check_switch("resume", resume)
    check_switch("tensorboard", tensorboard)
    check_lang(lang)
    if not isinstance(command, str):
        raise UsageError(f"command is text, not {type(command).__name__}")
    dataset = as_dataset(data, task)
    right = Corrected(dataset) if corrections is None else correct(dataset, corrections)
    dataset = learnable(right.dataset)
    check_trainable(dataset)
    if grouping is not None and len(grouping.groups) != len(dataset):
        raise UsageError(
            f"groups is a Grouping of {len(grouping.groups)} images, and the data have "
            f"{len(dataset)}"
        )
    rate = check_reject(reject, dataset.task)
    if positive is not None or recall is not None:
        check_point(positive, recall, dataset)

    def decided(classifier: Classifier) -> Classifier:
        if positive is None:
            return classifier
        return fix_point(classifier, positive, recall=recall)

    check_class_names(dataset.classes)
    clock = Clock()
    with bars(progress) as progress:
        with clock.phase("reading"):
            fingerprint = dataset_fingerprint(dataset)
        if recipe == "probe":
            start = starting_point(model, weights)
            asked = ProbeConfig(
                data=dataset.name,
                fingerprint=fingerprint,
                model=start.name,
                effort=effort or "fast",
                framing=framing,
                fit=fit,
                reject=rate,
                seed=seed,
                on_bad=on_bad or "skip",
                engine=kind,
                task=dataset.task,
                groups=kinds,
                weights=start.identity if start.own_weights else "",
            )

            def solve() -> Classifier:
                run = Run.open(folder, dataset.name, asked.to_dict(), resume)
                if resume and run.finished:
                    return decided(Classifier.load(run.folder, threads))
                with run.kept_if_whole():
                    run.keep_table(right.table)
                    found = solve_probe(
                        *(run, dataset, asked, on_bad, start, threads, progress, clock, command),
                        confirmed=right.confirmed,
                        shared=grouping,
                    )
                found = decided(found)
                leave_report(run, dataset, lang, threads, progress)
                return found

            return by_first_rank(solve, threads)

        from foveate.training.setup import Request, Resources

        request = Request(
            *origin(model, weights, recipe),
            recipe=recipe,
            settings=dict(settings),
            config=config,
            augment=augment,
            size=size,
            framing=framing,
            fit=fit,
            channels=channels,
            seed=seed,
            on_bad=on_bad,
            engine=kind,
            groups=kinds,
            grouping=grouping,
            reject=rate,
        )
        resources = Resources(threads, cache or "ram", tensorboard, progress, clock, command)
        with opened(dataset, fingerprint, request, resources, folder, resume) as job:
            if resume and job.run.finished:
                found = Classifier.load(job.run.folder, threads)
                return decided(found) if job.ranks.first else found
            with job.own_folder():
                if job.ranks.first:
                    job.run.keep_table(right.table)
                found = job.fit(resume)
            if job.ranks.first:
                found = decided(found)
                leave_report(job.run, dataset, lang, threads, job.resources.progress)
            return found


def leave_report(run: Run, dataset: Dataset, lang: Lang, threads: int, progress: Progress) -> None:
    """Write the report of a finished run. What prevents it is said, and does the run no harm."""
    try:
        write_report(run.folder, dataset, lang, False, run.folder / REPORT, threads, progress)
    except (FoveateError, OSError) as error:
        note = f"no report was written: {error}"
        log_notes([note], {})
        with suppress(FoveateError, OSError):
            run.log(note)


@torch_threads()
def find_lr(
    data: str | os.PathLike[str] | Dataset,
    model: "str | nn.Module" = "efficientnet_lite0",
    recipe: Literal["finetune", "scratch"] = "finetune",
    *,
    weights: str | os.PathLike[str] | None = None,
    task: Task | None = None,
    framing: Framing = "auto",
    fit: Fit | None = None,
    augment: "str | Augment | PolicyOptions | None" = None,
    size: int | None = None,
    channels: Literal[1, 3] | None = None,
    config: TrainConfig | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    **settings: Unpack[Settings],
) -> "RateTest":
    """The learning rate range test: a hundred steps, at a thousandth to a thousand times the
    configured rate.

    Arguments and errors are those of `train`. Nothing is saved.

    Returns:
        A RateTest: the rates, the smoothed losses, and a suggestion for the highest rate.
    """
    from foveate.training.lr_finder import range_test
    from foveate.training.setup import Request, Resources

    check_names(settings)
    model = canonical(model) if isinstance(model, str) else model
    seed = check_request(recipe, model, seed, None, ["find_lr"])
    framing, fit = check_framing(framing, fit, recipe)
    threads = cores_to_use(threads)
    dataset = learnable(as_dataset(data, task))
    check_trainable(dataset)
    request = Request(
        *origin(model, weights, recipe),
        recipe=recipe,
        settings=dict(settings),
        config=config,
        augment=augment,
        size=size,
        framing=framing,
        fit=fit,
        channels=channels,
        seed=seed,
        on_bad=None,
        engine=choose_engine(),
        groups="given",
        reject=None,
    )
    with bars(progress) as progress, TemporaryDirectory() as folder:
        resources = Resources(threads, "ram", False, progress, Clock(), "")
        out, fingerprint = Path(folder) / "run", dataset_fingerprint(dataset)
        job_of = opened(dataset, fingerprint, request, resources, out, resume=False)
        with job_of as job, job.own_folder():
            return range_test(job.prepare())


@torch_threads()
def measure_epoch(
    data: str | os.PathLike[str] | Dataset,
    model: str = "efficientnet_lite0",
    *,
    framing: Framing = "auto",
    groups: Groups | Grouping = "auto",
    on_bad: OnBad | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[float, int]:
    """The seconds that an epoch of fine-tuning takes here, measured on its first steps, and how
    many epochs the recipe has.

    Arguments and errors are those of `train`. Nothing is saved.
    """
    from foveate.training.pace import seconds_an_epoch
    from foveate.training.setup import Request, Resources

    framing, fit = check_framing(framing, None, "finetune")
    threads = cores_to_use(threads)
    dataset = learnable(as_dataset(data))
    check_trainable(dataset)
    request = Request(
        *origin(canonical(model), None, "finetune"),
        recipe="finetune",
        settings={},
        config=None,
        augment=None,
        size=None,
        framing=framing,
        fit=fit,
        channels=None,
        seed=seed,
        on_bad=on_bad,
        engine=choose_engine(),
        groups="auto" if isinstance(groups, Grouping) else check_groups(groups),
        grouping=groups if isinstance(groups, Grouping) else None,
        reject=None,
    )
    with bars(progress) as progress, TemporaryDirectory() as folder:
        resources = Resources(threads, "ram", False, progress, Clock(), "")
        out, fingerprint = Path(folder) / "run", dataset_fingerprint(dataset)
        with opened(dataset, fingerprint, request, resources, out, False) as job, job.own_folder():
            trainer = job.prepare()
            return seconds_an_epoch(trainer), trainer.config.epochs


@contextmanager
def opened(
    dataset: Dataset,
    fingerprint: str,
    request: "Request",
    resources: "Resources",
    out: Path | None,
    resume: bool,
) -> Iterator["Job"]:
    """A job on each of the processes that torchrun started, or on this one, with its threads."""
    from foveate.training.distributed import joined
    from foveate.training.setup import Job

    with joined() as ranks, torch_threads(resources.threads):
        yield Job.open(dataset, fingerprint, request, resources, ranks, out, resume)


def by_first_rank(solve: Callable[[], Classifier], threads: int) -> Classifier:
    """A probe is solved in one piece: of the processes that torchrun started, rank 0 does it, with
    the cores of all on its machine, while the others wait for what it leaves."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return solve()
    from foveate.training.distributed import joined

    with joined() as ranks:
        classifier = solve() if ranks.first else None
        folder = ranks.share(None if classifier is None else classifier.folder)
        return classifier or Classifier.load(folder or "", threads)


# Where a training starts


def origin(
    model: Any, weights: Any, recipe: str
) -> "tuple[str, StartingPoint | None, nn.Module | None]":
    """The network's name; of finetune its weights; of scratch the module that was handed in."""
    if recipe == "finetune":
        start = starting_point(model, weights)
        return start.name, start, None
    if weights is not None:
        raise UsageError(
            "weights applies to the recipes probe and finetune: scratch has a random start"
        )
    if isinstance(model, str):
        return model, None, None
    return name_of(model), None, model


def starting_point(model: Any, weights: Any) -> StartingPoint:
    """The network and weights of a probe or a fine-tuning."""
    if weights is not None and (path := checked_path(WEIGHTS_TAKEN, weights)).is_dir():
        return from_run(path, model)
    if weights is None and is_module_of_run(model):
        return Loaded(model.name, model.backbone, model.preprocess)
    return find_start(model, weights)


def is_module_of_run(model: Any) -> bool:
    """Whether it is the Probe that `Classifier.network` gives: its backbone is then the start."""
    if isinstance(model, str) or not isinstance(getattr(model, "name", None), str):
        return False
    from foveate.probe import Probe

    return isinstance(model, Probe) and isinstance(getattr(model, "preprocess", None), Preprocess)


def from_run(folder: Path, model: Any) -> Loaded:
    """The network that a run left, as a start; of several backbones the one whose head alone had
    the lowest log-loss out of fold."""
    classifier = Classifier.load(folder)
    network: Any = classifier.network(None if isinstance(model, str) else model)
    digest = classifier.card["files"]["model.safetensors"]
    if "branches" in classifier.card:
        branches = classifier.card["branches"]
        best = min(range(len(branches)), key=lambda i: branches[i]["log_loss"])
        name, before = branches[best]["model"], sum(b["views"] for b in branches[:best])
        preprocess = classifier.preprocess.alone(classifier.preprocess.views[before])
        names = {branch["model"] for branch in branches}
        remark = f"of the {len(names)} backbones of {quoted(folder)}, {name} is the best alone"
        remark = remark if len(names) > 1 else ""
        source = f"run {digest} {best}"
        return Loaded(name, network.backbones[best], preprocess, source, remark)
    name = classifier.card["model"]
    backbone = network.backbone if classifier.card["form"] == "probe" else network
    return Loaded(name, backbone, classifier.preprocess, f"run {digest}")


# Checks


def choose_recipe(model: Any, weights: Any = None) -> Literal["probe", "scratch"]:
    """A probe where there are weights to start from."""
    if weights is not None:
        return "probe"
    if isinstance(model, str):
        name = canonical(model)
        return "scratch" if name in CATALOGUE and name not in WEIGHTS else "probe"
    return "probe" if getattr(model, "preprocess", None) is not None else "scratch"


def check_most(model: Any, weights: Any) -> None:
    """UsageError for what does not go with the effort "most"."""
    if model != EMBEDDED or weights is not None:
        raise UsageError(
            f"effort most puts {EMBEDDED} and larger ones side by side: leave model and weights out"
        )


def check_request(recipe: Any, model: Any, seed: Any, effort: Any, by_steps: list[str]) -> int:
    """The seed; UsageError for a recipe, model, seed or effort that does not exist, and for what
    does not apply."""
    seed = whole_number("seed", seed, 0, 2**63 - 1)
    if recipe not in RECIPES:
        raise UsageError(f"no recipe is called {recipe!r}; expected {', '.join(RECIPES)}")
    if isinstance(model, str):
        if recipe == "scratch" and model not in CATALOGUE and not model.startswith(TIMM):
            raise UsageError(unknown_network(model))
    else:
        check_module(model)
    if effort is not None and effort not in tuple(EFFORTS):
        raise UsageError(f"no effort is called {effort!r}; expected {', '.join(EFFORTS)}")
    if effort is not None and recipe != "probe":
        raise UsageError(
            f"effort applies to the recipe probe, and this one is {recipe}; choose a "
            f"{option('size')} instead"
        )
    if by_steps and recipe == "probe":
        names = ", ".join(map(spoken, by_steps))
        raise UsageError(
            f"{names}: this applies to the recipes finetune and scratch; give "
            f"{option('recipe', 'finetune')}"
        )
    return seed
