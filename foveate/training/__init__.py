"""From images to a classifier: one function, three recipes.

probe      a frozen backbone, a solved head: seconds                          training/probe.py
finetune   the probe, then the later stages learn on, step by step: minutes
           training/descent.py, loop.py
scratch    a random start                                                     the same
"""

import os
from collections.abc import Mapping
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foveate.catalogue import CATALOGUE
from foveate.classifier import Classifier
from foveate.data.dataset import Dataset, Task, check_trainable
from foveate.data.layouts import load_dataset
from foveate.engine import choose_engine
from foveate.errors import UsageError
from foveate.machine import cores
from foveate.progress import Progress, Silent
from foveate.runs import Run
from foveate.training.probe import EFFORTS, ProbeConfig, solve_probe
from foveate.training.report import Clock, dataset_fingerprint
from foveate.weights import WEIGHTS, find_weights

if TYPE_CHECKING:
    from foveate.training.lr_finder import RateTest

RECIPES = ("probe", "finetune", "scratch")


def train(
    data: str | os.PathLike[str] | Dataset,
    model: str = "efficientnet_lite0",
    recipe: Literal["probe", "finetune", "scratch"] | None = None,
    task: Task = "multiclass",
    effort: Literal["fast", "best"] | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    on_bad: Literal["skip", "error"] = "skip",
    engine: Literal["auto", "openvino", "torch"] = "auto",
    threads: int | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    augment: Literal["none", "light", "standard", "strong"] | None = None,
    parts: Mapping[str, Any] | None = None,
    size: int | None = None,
    channels: Literal[1, 3] | None = None,
    cache: Literal["off", "ram", "disk"] | None = None,
    tensorboard: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> Classifier:
    """Turn labelled images into a classifier.

    Args:
        data: a folder (one folder per class, or train / val / test), a CSV, a built-in name, or a
            Dataset.
        model: a network of the canon. `probe` and `finetune` need its published weights, which are
            downloaded if they are not here; `foveate models` lists them.
        recipe: "probe", the default where there are published weights; "finetune"; or "scratch",
            the default elsewhere.
        task: "multiclass", each image is of one class; or "multilabel", it has any number of
            labels, from a CSV. A Dataset has its own.
        effort: of a probe: "fast" (the default) sees each image once at the weights' own size;
            "best" sees it larger, and its mirror image, for about twice the cost.
        out: the run's folder; by default runs/NAME, never one that exists.
        seed: of folds, splits, random starts, order and augmentation.
        on_bad: unreadable images: "skip" them, naming each, unless they are more than 5 %; or make
            it an "error".
        engine: what runs the network without gradients; "auto" takes the fastest that is there.
        threads: cores to use; all by default.
        resume: go on with the interrupted run in `out`; a finished one is left as it is.
        progress: hears how far it is.
        command: what was typed, for the card.

    The rest belongs to `finetune` and `scratch`:

        settings: fields of `training.config.TrainConfig` and their values, such as {"epochs": 5}.
        augment: an augmentation policy; chosen from the data by default.
        parts: fields of `data.policy.Augmentation` and their values, such as {"rotation": 15}.
        size: side in pixels of what the network reads.
        channels: 3 for colour, 1 for grey; from scratch it is 1 by default where all images are
            grey.
        cache: where decoded pixels are kept, "ram" by default.
        tensorboard: also write the history for TensorBoard, in the run's folder.

    Returns:
        The saved Classifier. Its `run` is the folder with the metrics, which come from images that
        the judged network
        did not learn from: of a probe `out_of_fold`, from cross-validation over all but the test
        split; of the others `validation`, which chose the epoch, and `test`. Where the data has no
        such splits, they are held
        out: 15 % each, of large sets less.

    Raises:
        DataError: the data cannot be learnt from.
        UsageError: an argument that does not exist, does not fit, or does not apply to the recipe;
            a run that exists.
        ArtefactError: a run to be resumed that is none, or whose checkpoints are damaged.
        MissingExtraError: tensorboard is asked for and not installed.
        FoveateError: the model's weights cannot be had; training cannot go on.
    """
    if on_bad not in ("skip", "error"):
        raise UsageError(f"no policy is called '{on_bad}'; expected skip or error")
    threads = cores_to_use(threads)
    kind = choose_engine(engine)
    recipe = recipe or choose_recipe(model)
    of_descent = {
        "augment": augment,
        "size": size,
        "channels": channels,
        "cache": cache,
        "tensorboard": tensorboard,
    }
    given = [name for name, value in of_descent.items() if value is not None and value is not False]
    check_recipe(recipe, model, seed, effort, [*given, *(settings or {}), *(parts or {})])
    progress = progress or Silent()
    clock = Clock()

    dataset = data if isinstance(data, Dataset) else load_dataset(data, task)
    check_trainable(dataset)
    folder = Path(out) if out is not None else None
    with clock.phase("reading"):
        digest = dataset_fingerprint(dataset)
    if recipe != "probe":
        from foveate.training import descent
        from foveate.training.setup import Means, Request

        asked = (dict(settings or {}), augment, dict(parts or {}), size, channels)
        request = Request(recipe, model, *asked, seed, on_bad, kind)
        means = Means(threads, cache or "ram", tensorboard, progress, clock, command)
        return descent.descend(dataset, digest, request, means, folder, resume)

    weights = find_weights(model)
    config = ProbeConfig(
        dataset.name, digest, model, effort or "fast", seed, on_bad, kind, dataset.task
    )
    run = Run.open(folder, dataset.name, asdict(config), resume)
    if resume and run.finished:
        return Classifier.load(run.folder)
    with run.kept_if_whole():
        return solve_probe(run, dataset, config, weights, threads, progress, clock, command)


def find_lr(
    data: str | os.PathLike[str] | Dataset,
    model: str = "efficientnet_lite0",
    recipe: Literal["finetune", "scratch"] = "finetune",
    task: Task = "multiclass",
    seed: int = 0,
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    augment: Literal["none", "light", "standard", "strong"] | None = None,
    parts: Mapping[str, Any] | None = None,
    size: int | None = None,
    channels: Literal[1, 3] | None = None,
    progress: Progress | None = None,
) -> "RateTest":
    """The learning rate range test: a hundred steps, at a thousandth to a thousand times the
    configured rate.

    Arguments and errors are those of `train`. Nothing is saved.

    Returns:
        A RateTest: the rates, the smoothed losses, and a suggestion for the highest rate.
    """
    from foveate.training import descent
    from foveate.training.setup import Means, Request

    check_recipe(recipe, model, seed, None, ["find-lr"])
    dataset = data if isinstance(data, Dataset) else load_dataset(data, task)
    check_trainable(dataset)
    asked = (dict(settings or {}), augment, dict(parts or {}), size, channels)
    request = Request(recipe, model, *asked, seed, "skip", choose_engine())
    means = Means(cores_to_use(threads), "ram", False, progress or Silent(), Clock(), "")
    return descent.try_rates(dataset, dataset_fingerprint(dataset), request, means)


def cores_to_use(threads: int | None) -> int:
    """As many as were asked for, if there are so many; by default all, shared by torchrun's
    processes here."""
    if threads is not None and not threads >= 1:
        raise UsageError(f"expected at least 1 thread, got {threads}")
    processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return min(threads, cores()) if threads else max(1, cores() // processes)


def choose_recipe(model: str) -> Literal["probe", "scratch"]:
    """A probe where there are published weights to start from."""
    return "scratch" if model in CATALOGUE and model not in WEIGHTS else "probe"


def check_recipe(
    recipe: str, model: str, seed: int, effort: str | None, of_descent: list[str]
) -> None:
    """UsageError for a recipe, model, seed or effort that does not exist, and for what does not
    apply."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"a seed is a whole number from 0 to 2^63 - 1, got {seed}")
    if recipe not in RECIPES:
        raise UsageError(f"no recipe is called '{recipe}'; expected {', '.join(RECIPES)}")
    if recipe == "scratch" and model not in CATALOGUE:
        near = get_close_matches(model, CATALOGUE, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see: foveate models"
        raise UsageError(f"no network is called '{model}'; {hint}")
    if effort is not None and effort not in EFFORTS:
        raise UsageError(f"no effort is called '{effort}'; expected {' or '.join(EFFORTS)}")
    if effort is not None and recipe != "probe":
        raise UsageError(
            f"effort applies to the recipe probe, and this one is {recipe}; choose a --size instead"
        )
    if of_descent and recipe == "probe":
        names = ", ".join(name.replace("_", "-") for name in of_descent)
        raise UsageError(
            f"{names}: this applies to the recipes finetune and scratch; give --recipe finetune"
        )
