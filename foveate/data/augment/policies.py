"""Which augmentation suits a data set: a policy chosen by its classes and counts, without the flips
that would make another class of an image."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from foveate.data.augment import Augment, check_policy
from foveate.data.dataset import Dataset
from foveate.errors import UsageError

FEW = 100  # training images in the median class: a network soon knows fewer by heart
SMALL = 64  # pixels a side: there is nothing to crop out of


class Choice(NamedTuple):
    """An augmentation, the policy that it is or is made from, and the reasons in sentences."""

    policy: str
    augmentation: Augment
    reasons: tuple[str, ...]


def resolve(
    dataset: Dataset,
    size: int,
    channels: int = 3,
    policy: str | Augment | None = None,
    given: Mapping[str, Any] | None = None,
) -> Choice:
    """The augmentation for a data set: a policy, chosen from the data if none is named, and the
    options that are given.

    No policy flips digits, letters, or classes that are called left or right. An option that is
    given always counts, and an `Augment` that is given is taken as it is.

    Args:
        dataset: its class names and counts decide.
        size: side in pixels of what the network reads.
        channels: of what the network reads, 3 or 1.
        policy: a name in POLICIES, or an `Augment`, whose own size, if it has one, must be `size`.
        given: options of `Augment` and their values.

    Returns:
        Its augmentation has no size of its own: `size` may change from epoch to epoch.

    Raises:
        UsageError: no such policy or option; a value out of its range; an option that does not
            apply; another size.
    """
    given = dict(given or {})
    if isinstance(policy, Augment):
        if policy.size not in (None, size):
            raise UsageError(
                f"the Augment has size {policy.size}, and the network reads {size} pixels: leave "
                "its size out"
            )
        augmentation = policy.unsized().replace(**given)
        augmentation.check_channels(channels)
        return Choice(augmentation.policy, augmentation, ())
    reasons = []
    if policy is None:
        policy, why = choose_policy(dataset, size)
        reasons.append(why)
    check_policy(policy)
    hand = handedness(dataset.classes)
    if hand and Augment(policy).hflip and "hflip" not in given:
        given["hflip"] = 0.0
        reasons.append(f"no horizontal flips: {hand}; hflip flips all the same")
    augmentation = Augment(policy, **given)
    augmentation.check_channels(channels)
    numbers = all(name.isdecimal() for name in dataset.classes)
    if augmentation.hflip and "hflip" not in given and numbers:
        reasons.append(
            "class names are numbers; if mirror images mean something else, turn hflip off"
        )
    return Choice(policy, augmentation, tuple(reasons))


def choose_policy(dataset: Dataset, size: int) -> tuple[str, str]:
    """A policy's name, and the reason in a sentence."""
    if symbols(dataset.classes):
        return "light", "the policy is light, since a part of a digit or a letter may be another"
    if size <= SMALL:
        return "light", f"the policy is light, since there is little to crop out of {size} pixels"
    training = np.array([split == "train" for split in dataset.splits], dtype=bool)
    n = int(np.median(dataset.sizes(training)))
    if n < FEW:
        return "strong", f"the policy is strong, since {n} training images per class are few"
    return "standard", f"the policy is standard, since there are {n} training images per class"


SYMBOL = re.compile("[0-9a-z]|zero|one|two|three|four|five|six|seven|eight|nine", re.IGNORECASE)
SIDES = re.compile(r"(^|[^a-z])(left|right)([^a-z]|$)", re.IGNORECASE)


def symbols(classes: tuple[str, ...]) -> bool:
    """Whether the classes are digits or letters. Fewer than ten may be anything that was numbered:
    0 and 1, healthy and sick."""
    return len(classes) >= 10 and all(SYMBOL.fullmatch(name) for name in classes)


def handedness(classes: tuple[str, ...]) -> str:
    """Why a mirror image would be of another class, or nothing.

    >>> handedness(("left_hand", "right_hand"))
    "class 'left_hand' depends on left and right"
    """
    if symbols(classes):
        return "the classes are digits or letters"
    sided = [name for name in classes if SIDES.search(name)]
    return f"class {sided[0]!r} depends on left and right" if sided else ""
