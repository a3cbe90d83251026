"""A run's config.json as arguments of `train`: the same training once more, on any data."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from foveate.arguments import option
from foveate.data.augment import Augment
from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError, UsageError, quoted
from foveate.runs import is_absent, read_json
from foveate.training.config import TrainConfig
from foveate.weights.starting_point import OWN

# recorded as `train` takes them
ALWAYS = ("recipe", "model", "seed", "groups", "on_bad", "engine", "task")
OF_DATA = ("data", "fingerprint")  # other data are welcome
OF_STEPS = ("order", "images", "policy", "augmentation", "preprocess", "training")
OF_RECIPE = {"probe": ("effort",), "finetune": OF_STEPS, "scratch": OF_STEPS}
REJECT = "reject"  # an older version's run refused nothing
SEEN = ("framing", "fit")  # of a probe; an older version's saw the whole of each image
WEIGHTS = "weights"  # identity of weights that are not published ones


def read_arguments(path: Path, weights_given: bool) -> dict[str, Any]:
    """All that decides what is learnt, as a run's config.json has it.

    What follows from the data (mean and deviation of a random start, splits) is not among it.

    Args:
        path: a config.json, or the run's folder.
        weights_given: whether the caller names the weights that the run started from.

    Returns:
        Keyword arguments of `foveate.train`.

    Raises:
        ArtefactError: no such file; a field that is unknown, missing or damaged.
        UsageError: the run started from weights of its own, and none are named; its network was a
            module.
    """
    path = path / "config.json" if path.is_dir() else path
    if is_absent(path):
        raise ArtefactError(f"there is no {quoted(path)}; expected a run, or its config.json")
    found = read_json(path)
    recipe = found.get("recipe")
    if recipe not in OF_RECIPE:
        raise ArtefactError(
            f"{quoted(path)} has the recipe {recipe!r}; expected {', '.join(OF_RECIPE)}"
        )
    expected = {*ALWAYS, *OF_DATA, *OF_RECIPE[recipe]}
    newer = {REJECT, *SEEN} if recipe == "probe" else {REJECT}
    check_fields(path, "", set(found) - {WEIGHTS, *newer}, expected)
    if str(found["model"]).startswith(OWN):
        raise UsageError(
            f"the network of {quoted(path)} is a module: pass it to foveate.train in Python"
        )
    if WEIGHTS in found and not weights_given:
        raise UsageError(
            f"{quoted(path)} began with weights of its own: give them with {option('weights')}"
        )
    arguments = {name: found[name] for name in ALWAYS}
    arguments[REJECT] = found.get(REJECT) or "off"
    if recipe == "probe":
        seen = {"framing": found.get("framing", "whole"), "fit": found.get("fit")}
        return arguments | {"effort": found["effort"], **seen}
    try:
        preprocess = Preprocess.from_dict(found["preprocess"])
        augment = Augment.from_dict(found["augmentation"])
        training = dict(found["training"])
        check_fields(path, "training.", set(training), {f.name for f in fields(TrainConfig)})
        config = TrainConfig(**training)
    except (UsageError, TypeError, ValueError) as error:
        raise ArtefactError(f"{quoted(path)} is damaged: {error}") from error
    channels = {"channels": preprocess.channels} if recipe == "scratch" else {}
    seen = {"size": preprocess.crop, "framing": preprocess.framing, "fit": preprocess.fit}
    return arguments | channels | seen | {"augment": augment, "config": config}


def check_fields(path: Path, above: str, found: set[str], expected: set[str]) -> None:
    """ArtefactError that names what is too much and what is missing."""
    problems = {"unknown": found - expected, "missing": expected - found}
    named = [
        f"{problem} {', '.join(above + name for name in sorted(names))}"
        for problem, names in problems.items()
        if names
    ]
    if named:
        raise ArtefactError(
            f"{quoted(path)} is not a config.json of this version: {'; '.join(named)}"
        )
