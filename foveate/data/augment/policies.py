"""Augmentation policies: which changes training images undergo, how strong, and why.

A policy is a name for an `Augmentation`, the full list of parts. `resolve` makes one from the data,
a name and the
parts that a user gives: every part can be overridden, and what does not apply is refused.
    `augment.py` does the rest.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import numpy as np

from foveate.data.augment.pca import PcaColour
from foveate.data.dataset import Dataset
from foveate.errors import ArtefactError, UsageError

FEW = 100  # training images in the median class: fewer are soon known by heart
SMALL = 64  # pixels a side: there is nothing to crop out of
MAGNITUDES = 31  # steps of RandAugment and TrivialAugment, from nothing to the most

CHOICES = {
    "crop": ("none", "random", "resized"),
    "pca_from": ("data", "imagenet"),
    "auto": ("none", "trivial", "rand"),
}
RANGES = {
    "padding": (0, 1, "parts of the side"),
    "hflip": (0, 1, "probability"),
    "vflip": (0, 1, "probability"),
    "rotation": (0, 180, "degrees"),
    "translate": (0, 1, "parts of the side"),
    "scale": (0, 0.9, "parts of the size"),
    "shear": (0, 60, "degrees"),
    "brightness": (0, 1, "parts of it"),
    "contrast": (0, 1, "parts of it"),
    "saturation": (0, 1, "parts of it"),
    "hue": (0, 0.5, "turns of the colour circle"),
    "pca_colour": (0, 1, "standard deviation"),
    "magnitude": (0, MAGNITUDES - 1, "steps"),
    "erasing": (0, 1, "probability"),
    "mixup": (0, 10, "alpha"),
    "cutmix": (0, 10, "alpha"),
}
NEEDS = {
    "padding": ("crop", "random"),
    "crop_area": ("crop", "resized"),
    "crop_ratio": ("crop", "resized"),
}
NEEDS |= {"magnitude": ("auto", "rand")}
COLOURED = ("saturation", "hue", "pca_colour")  # they change nothing in an image of one channel


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image, in this order. By default nothing: the square in the
    middle.

    Args:
        crop: "none" the middle; "random" a square at its own scale from anywhere; "resized" a
            rectangle of any size from anywhere, resized (Szegedy et al., arXiv:1409.4842, section
            6).
        padding: with crop "random", how far the square may reach outside, in parts of its side.
        crop_area: with crop "resized", the rectangle's share of the image's area, from and to.
        crop_ratio: with crop "resized", width by height, from and to.
        hflip, vflip: probability of a mirror image, left to right and top to bottom.
        rotation: degrees, at most, either way.
        translate: at most, either way and along each axis, in parts of the side.
        scale: at most, larger or smaller: 0.1 is from 0.9 to 1.1.
        shear: degrees, at most, either way, along x.
        brightness, contrast, saturation: at most, more or less: 0.4 is from 0.6 to 1.4 times.
        hue: at most, either way, in turns of the colour circle.
        pca_colour: standard deviation of the shift along the colours' principal components; 0.1 in
            the AlexNet paper.
        pca_from: "data" fits the components to the training images, "imagenet" takes the published
            ones.
        pca: the components; `augment.with_pca` fills them in before training, and a run saves them.
        auto: "trivial", one operation of random strength (TrivialAugment, arXiv:2103.10158);
            "rand", two operations of one strength (RandAugment, arXiv:1909.13719); "none".
        magnitude: RandAugment's strength, 0 to 30.
        erasing: probability that a rectangle becomes noise (Zhong et al., arXiv:1708.04896).
        mixup, cutmix: alpha of the Beta distribution of the shares; 0 is off. Where both are on,
            each batch takes one.

    Raises:
        UsageError: a value is none of its choices or out of its range.
    """

    crop: Literal["none", "random", "resized"] = "none"
    padding: float = 0.125
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.0
    vflip: float = 0.0
    rotation: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    pca_colour: float = 0.0
    pca_from: Literal["data", "imagenet"] = "data"
    pca: PcaColour | None = None
    auto: Literal["none", "trivial", "rand"] = "none"
    magnitude: int = 9
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} {getattr(self, name)!r} is none of {', '.join(choices)}")
        for name, (low, high, unit) in RANGES.items():
            value = getattr(self, name)
            if not is_number(value) or not low <= value <= high:
                raise UsageError(f"{name} must be from {low} to {high} ({unit}), not {value!r}")
        if not isinstance(self.magnitude, int):
            raise UsageError(f"magnitude must be a whole number, not {self.magnitude!r}")
        for name, most in (("crop_area", 1), ("crop_ratio", 100)):
            pair = getattr(self, name)
            if not (is_pair(pair) and 0 < pair[0] <= pair[1] <= most):
                raise UsageError(
                    f"{name} must be two numbers above 0 and up to {most}, the smaller first, not "
                    f"{pair!r}"
                )
        if self.pca is not None and not isinstance(self.pca, PcaColour):
            raise UsageError(f"pca must be a PcaColour, not {self.pca!r}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Any) -> "Augmentation":
        """Read back what `to_dict` wrote; ArtefactError if it is anything else."""
        try:
            if set(value) != {field.name for field in fields(cls)}:
                raise KeyError("other fields than expected")
            pairs = {name: tuple(value[name]) for name in ("crop_area", "crop_ratio")}
            pca = value["pca"] and PcaColour.from_dict(value["pca"])
            return cls(**{**value, **pairs, "pca": pca or None})
        except (TypeError, ValueError, KeyError, ArtefactError) as error:
            raise ArtefactError(f"not an Augmentation: {value!r}") from error


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple) and len(value) == 2 and all(is_number(number) for number in value)
    )


LIGHT = Augmentation(crop="random", hflip=0.5)
STANDARD = Augmentation(crop="resized", crop_area=(0.35, 1.0), hflip=0.5)
POLICIES = {
    "none": Augmentation(),
    # as in the AlexNet paper; with small images as in the ResNet paper's CIFAR experiments
    "light": LIGHT,
    # GoogLeNet's; its 8 % of the area suit a hundred epochs of a million images, not these
    "standard": STANDARD,
    # torchvision's recipe of 2021
    "strong": replace(STANDARD, auto="trivial", erasing=0.1, mixup=0.2, cutmix=1.0),
}


class Choice(NamedTuple):
    """A resolved policy, and in sentences what the data had to say to it."""

    policy: str
    augmentation: Augmentation
    reasons: tuple[str, ...]


def resolve(
    dataset: Dataset,
    size: int,
    channels: int = 3,
    policy: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> Choice:
    """The augmentation for a data set: a policy, chosen from the data if none is named, and the
    parts that are given.

    A policy mirrors no digits, letters, or classes that are called left or right; a part that is
    given always counts.

    Args:
        dataset: its class names and counts are looked at.
        size: side in pixels of what the network reads.
        channels: of what the network reads, 3 or 1.
        policy: a name in POLICIES.
        given: fields of `Augmentation` and their values.

    Raises:
        UsageError: no such policy or part; a value out of its range; a part that does not apply.
    """
    given = given or {}
    reasons = []
    if policy is None:
        policy, why = choose_policy(dataset, size)
        reasons.append(why)
    if policy not in POLICIES:
        raise UsageError(f"no augmentation policy {policy!r}; there are {', '.join(POLICIES)}")
    augmentation = POLICIES[policy]
    hand = handedness(dataset.classes)
    if hand and augmentation.hflip and "hflip" not in given:
        augmentation = replace(augmentation, hflip=0.0)
        reasons.append(f"images are not mirrored: {hand}; hflip mirrors them all the same")
    augmentation = with_overrides(augmentation, given, channels)
    if (
        augmentation.hflip
        and "hflip" not in given
        and all(name.isdecimal() for name in dataset.classes)
    ):
        reasons.append(
            "class names are numbers; if mirror images mean something else, turn hflip off"
        )
    return Choice(policy, augmentation, tuple(reasons))


def choose_policy(dataset: Dataset, size: int) -> tuple[str, str]:
    """A policy's name, and the reason in a sentence."""
    if symbols(dataset.classes):
        return (
            "light",
            "the policy is light, since a hard crop of a digit or a letter is another one",
        )
    if size <= SMALL:
        return "light", f"the policy is light, since there is little to crop out of {size} pixels"
    median = int(
        np.median(
            dataset.sizes(np.array([split == "train" for split in dataset.splits], dtype=bool))
        )
    )
    if median < FEW:
        return "strong", f"the policy is strong, since {median} training images a class are few"
    return "standard", f"the policy is standard, since there are {median} training images a class"


SYMBOL = re.compile("[0-9a-z]|zero|one|two|three|four|five|six|seven|eight|nine", re.IGNORECASE)
SIDES = re.compile(r"(^|[^a-z])(left|right)([^a-z]|$)", re.IGNORECASE)


def symbols(classes: tuple[str, ...]) -> bool:
    """Whether the classes are digits or letters. Fewer than ten may be anything that was numbered,
    as 0 and 1."""
    return len(classes) >= 10 and all(SYMBOL.fullmatch(name) for name in classes)


def handedness(classes: tuple[str, ...]) -> str:
    """Why a mirror image would be of another class, or nothing.

    >>> handedness(("left_hand", "right_hand"))
    "class 'left_hand' tells left from right"
    """
    if symbols(classes):
        return "the classes are digits or letters"
    sided = [name for name in classes if SIDES.search(name)]
    return f"class {sided[0]!r} tells left from right" if sided else ""


def with_overrides(
    augmentation: Augmentation, given: Mapping[str, Any], channels: int = 3
) -> Augmentation:
    """The same with some parts replaced.

    Raises:
        UsageError: no such part; a value out of its range; a part that does not apply: a detail of
            a part that is off, or a change of colour on images of one channel.
    """
    parts = [field.name for field in fields(Augmentation) if field.name != "pca"]
    for name in given:
        if name not in parts:
            near = get_close_matches(name, parts, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(parts)}"
            raise UsageError(f"no part of augmentation is called {name!r}; {hint}")
    changed = replace(augmentation, **given)
    for name in given:
        part, kind = NEEDS.get(name, ("", ""))
        if part and getattr(changed, part) != kind:
            raise UsageError(
                f"{name} applies to {part} {kind!r} alone, and {part} is {getattr(changed, part)!r}"
            )
        if name in COLOURED and channels == 1 and given[name]:
            raise UsageError(f"{name} does not apply to images of one channel: they have no colour")
    if "pca_from" in given and not changed.pca_colour:
        raise UsageError(
            "pca_from applies to pca_colour, which is off; give it a standard deviation, 0.1 in "
            "the paper"
        )
    return changed


def describe(a: Augmentation) -> list[str]:
    """The parts that are on, in words, in the order in which they happen.

    >>> describe(POLICIES["standard"])
    ['a rectangle of 35 to 100 % of the area, 3:4 to 4:3, resized', 'mirrored with probability 0.5']
    """
    crops = {
        "none": "the middle",
        "random": f"a square from anywhere, up to {100 * a.padding:.3g} % of its side outside",
        "resized": f"a rectangle of {100 * a.crop_area[0]:.3g} to {100 * a.crop_area[1]:.3g} % of "
        f"the area, {proportion(a.crop_ratio[0])} to {proportion(a.crop_ratio[1])}, resized",
    }
    basis = {"data": "of the training images", "imagenet": "of ImageNet"}[a.pca_from]
    auto = {"trivial": "TrivialAugment", "rand": f"RandAugment of magnitude {a.magnitude}"}
    parts = [
        (True, crops[a.crop]),
        (a.hflip, f"mirrored with probability {a.hflip:g}"),
        (a.vflip, f"upside down with probability {a.vflip:g}"),
        (a.rotation, f"rotated by up to {a.rotation:g}°"),
        (a.translate, f"moved by up to {a.translate:.3g} of the side"),
        (a.scale, f"scaled by {1 - a.scale:.3g} to {1 + a.scale:.3g}"),
        (a.shear, f"sheared by up to {a.shear:g}°"),
        *(
            (getattr(a, name), f"{name} ±{getattr(a, name):g}")
            for name in ("brightness", "contrast", "saturation")
        ),
        (a.hue, f"hue ±{a.hue:g} turns"),
        (a.pca_colour, f"PCA colour {basis}, sigma {a.pca_colour:g}"),
        (a.auto != "none", auto.get(a.auto, "")),
        (a.erasing, f"a rectangle erased with probability {a.erasing:g}"),
        (a.mixup, f"mixup {a.mixup:g}"),
        (a.cutmix, f"CutMix {a.cutmix:g}"),
    ]
    return [words for on, words in parts if on]


def proportion(ratio: float) -> str:
    return {3 / 4: "3:4", 4 / 3: "4:3", 1.0: "1:1"}.get(ratio, f"{ratio:.2f}:1")
