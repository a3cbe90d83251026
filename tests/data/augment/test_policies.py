import json
import math
from typing import Any

import numpy as np
import pytest

from foveate.data.augment.pca import PAPER_PCA
from foveate.data.augment.policies import (
    CHOICES,
    NEEDS,
    POLICIES,
    RANGES,
    Augmentation,
    choose_policy,
    describe,
    handedness,
    resolve,
    with_overrides,
)
from foveate.data.dataset import Dataset
from foveate.errors import ArtefactError, UsageError


def dataset(*classes: str, each: int = 200, test: int = 0) -> Dataset:
    """An index of images that nobody looks at."""
    n = (each + test) * len(classes)
    labels = np.repeat(np.arange(len(classes)), each + test)
    splits = (("train",) * each + ("test",) * test) * len(classes)
    return Dataset("set", "", ("",) * n, labels, classes, splits, ("",) * n, read=lambda i: b"")


CLOTHES = ("dress", "hat", "shirt")
DIGITS = tuple("0123456789")


@pytest.mark.parametrize(
    ("data", "size", "policy", "words"),
    [
        (dataset(*CLOTHES), 224, "standard", "there are 200 training images a class"),
        (dataset(*CLOTHES, each=99, test=500), 224, "strong", "99 training images a class are few"),
        (dataset(*CLOTHES, each=0, test=5), 224, "strong", "0 training images a class are few"),
        (dataset(*CLOTHES), 32, "light", "little to crop out of 32 pixels"),
        (dataset(*DIGITS), 224, "light", "digit or a letter"),
        (dataset(*"abcdefghijklmnopqrstuvwxyz"), 224, "light", "digit or a letter"),
        (
            dataset("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            28,
            "light",
            "digit",
        ),
        (dataset("0", "1"), 224, "standard", "200"),  # healthy or not, perhaps
        (dataset("猫", "犬"), 224, "standard", "200"),
    ],
)
def test_choose_policy(data: Dataset, size: int, policy: str, words: str) -> None:
    name, reason = choose_policy(data, size)
    assert name == policy
    assert words in reason and name in reason


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (DIGITS, "digits or letters"),
        (("turn-left", "turn-right", "stop"), "class 'turn-left' tells left from right"),
        (("hand", "Right"), "class 'Right' tells"),
        (("cleft", "bright"), ""),
        (("leftovers", "soup"), ""),
        (("0", "1"), ""),
        (CLOTHES, ""),
    ],
)
def test_handedness(classes: tuple[str, ...], words: str) -> None:
    assert words in handedness(classes) and bool(words) == bool(handedness(classes))


@pytest.mark.parametrize("policy", POLICIES)
def test_digits_are_not_mirrored_unless_asked(policy: str) -> None:
    choice = resolve(dataset(*DIGITS), 28, policy=policy)
    assert choice.augmentation.hflip == 0
    assert any("not mirrored" in reason for reason in choice.reasons) == (policy != "none")
    asked = resolve(dataset(*DIGITS), 28, policy=policy, given={"hflip": 0.5})
    assert (asked.augmentation.hflip, asked.reasons) == (0.5, ())


def test_numbers_are_warned_of() -> None:
    roads = dataset(*map(str, range(43)))
    assert "class names are numbers" in resolve(roads, 224).reasons[1]
    assert not any("numbers" in r for r in resolve(roads, 224, given={"hflip": 0.0}).reasons)


def test_resolve_takes_the_named_policy_and_the_parts() -> None:
    choice = resolve(dataset(*CLOTHES), 224, policy="light", given={"rotation": 15, "padding": 0.0})
    assert choice == ("light", Augmentation(crop="random", hflip=0.5, rotation=15, padding=0.0), ())
    chosen = resolve(dataset(*CLOTHES), 224)
    assert chosen[:2] == ("standard", POLICIES["standard"]) and len(chosen.reasons) == 1


def test_the_table_of_policies() -> None:
    assert POLICIES["none"] == Augmentation()
    assert (
        POLICIES["light"].crop == "random"
        and POLICIES["standard"].crop == POLICIES["strong"].crop == "resized"
    )
    assert (
        POLICIES["strong"].auto == "trivial"
        and POLICIES["strong"].mixup
        and POLICIES["strong"].cutmix
    )


@pytest.mark.parametrize(
    ("given", "channels", "words"),
    [
        (
            {"rotatoin": 3},
            3,
            "no part of augmentation is called 'rotatoin'; did you mean rotation?",
        ),
        ({"xyz": 3}, 3, "no part of augmentation is called 'xyz'; there are crop, padding"),
        ({"pca": PAPER_PCA}, 3, "no part of augmentation is called 'pca'"),
        ({"hue": 0.1}, 1, "hue does not apply to images of one channel"),
        ({"saturation": 0.1}, 1, "saturation does not apply to images of one channel"),
        ({"pca_colour": 0.1}, 1, "pca_colour does not apply to images of one channel"),
        ({"magnitude": 5}, 3, "magnitude applies to auto 'rand' alone, and auto is 'none'"),
        ({"magnitude": 5, "auto": "trivial"}, 3, "auto is 'trivial'"),
        ({"padding": 0.1}, 3, "padding applies to crop 'random' alone, and crop is 'resized'"),
        ({"crop": "none", "crop_area": (0.5, 1.0)}, 3, "crop_area applies to crop 'resized' alone"),
        (
            {"crop": "random", "crop_ratio": (0.5, 1.0)},
            3,
            "crop_ratio applies to crop 'resized' alone",
        ),
        ({"pca_from": "imagenet"}, 3, "pca_from applies to pca_colour, which is off"),
    ],
)
def test_what_does_not_apply_is_refused(given: dict[str, Any], channels: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        with_overrides(POLICIES["standard"], given, channels)


def test_what_is_turned_off_applies_to_anything() -> None:
    assert with_overrides(POLICIES["standard"], {"hue": 0.0}, channels=1) == POLICIES["standard"]
    changed = with_overrides(
        POLICIES["none"], {"auto": "rand", "magnitude": 5, "brightness": 0.3}, channels=1
    )
    assert (changed.auto, changed.magnitude) == ("rand", 5)


def test_no_such_policy() -> None:
    with pytest.raises(
        UsageError, match="no augmentation policy 'hard'; there are none, light, standard, strong"
    ):
        resolve(dataset(*CLOTHES), 224, policy="hard")


@pytest.mark.parametrize("name", RANGES)
def test_ranges(name: str) -> None:
    low, high, unit = RANGES[name]
    assert getattr(Augmentation(**{name: high}), name) == high
    for value in (low - 1, high + 1, math.nan, math.inf, "1", None, True):
        with pytest.raises(
            UsageError, match=f"{name} must be from {low} to {high} \\({unit}\\), not"
        ):
            Augmentation(**{name: value})


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} 'other' is none of {', '.join(CHOICES[name])}"):
        Augmentation(**{name: "other"})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"crop_area": (0.5, 0.2)}, "crop_area must be two numbers above 0 and up to 1"),
        ({"crop_area": (0.0, 1.0)}, "crop_area must be two numbers"),
        ({"crop_area": (0.5, 1.5)}, "crop_area must be two numbers"),
        ({"crop_area": 0.5}, "crop_area must be two numbers"),
        ({"crop_area": (0.5,)}, "crop_area must be two numbers"),
        ({"crop_ratio": (math.nan, 1.0)}, "crop_ratio must be two numbers"),
        ({"crop_ratio": ("a", "b")}, "crop_ratio must be two numbers"),
        ({"magnitude": 2.5}, "magnitude must be a whole number, not 2.5"),
        ({"pca": 3}, "pca must be a PcaColour, not 3"),
    ],
)
def test_values_that_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Augmentation(**values)


def test_every_part_is_checked() -> None:
    fields = set(Augmentation.__dataclass_fields__)
    assert fields == {*RANGES, *CHOICES, "crop_area", "crop_ratio", "pca"}
    assert set(NEEDS) <= fields


@pytest.mark.parametrize(
    "augmentation", [*POLICIES.values(), Augmentation(pca_colour=0.1, pca=PAPER_PCA)], ids=str
)
def test_round_trip_through_json(augmentation: Augmentation) -> None:
    assert Augmentation.from_dict(json.loads(json.dumps(augmentation.to_dict()))) == augmentation


GOOD = json.loads(json.dumps(Augmentation(pca=PAPER_PCA).to_dict()))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {**GOOD, "code": 1},
        {**GOOD, "hue": 2},
        {**GOOD, "hue": None},
        {**GOOD, "crop": []},
        {**GOOD, "crop_area": None},
        {**GOOD, "crop_area": [1]},
        {**GOOD, "pca": {"eigenvalues": 3}},
        {**GOOD, "magnitude": 1.5},
    ],
)
def test_from_dict_refuses(value: Any) -> None:
    with pytest.raises(ArtefactError, match="not an Augmentation"):
        Augmentation.from_dict(value)


def test_describe_names_every_part_that_is_on() -> None:
    on = Augmentation(
        "resized",
        0,
        (0.5, 1),
        (1, 2),
        0.5,
        0.5,
        15,
        0.1,
        0.1,
        5,
        0.2,
        0.2,
        0.2,
        0.1,
        0.1,
        auto="rand",
    )
    words = "; ".join(describe(on))
    assert words == (
        "a rectangle of 50 to 100 % of the area, 1:1 to 2.00:1, resized; mirrored with probability "
        "0.5; "
        "upside down with probability 0.5; rotated by up to 15°; moved by up to 0.1 of the side; "
        "scaled by 0.9 to 1.1; "
        "sheared by up to 5°; brightness ±0.2; contrast ±0.2; saturation ±0.2; hue ±0.1 turns; "
        "PCA colour of the training images, sigma 0.1; RandAugment of magnitude 9"
    )
    assert describe(POLICIES["none"]) == ["the middle"]
    assert (
        describe(POLICIES["light"])[0] == "a square from anywhere, up to 12.5 % of its side outside"
    )
    assert describe(POLICIES["strong"])[-4:] == [
        "TrivialAugment",
        "a rectangle erased with probability 0.1",
        "mixup 0.2",
        "CutMix 1",
    ]
