"""Policies, the options that override them, which of them the data choose, and what is saved."""

import json
import math
import re
from typing import Any, get_type_hints

import numpy as np
import pytest
from refusals import refused

from foveate.data.augment import (
    PARTS,
    POLICIES,
    Augment,
    Options,
    defaults,
    options_of,
)
from foveate.data.augment.part import Choice, Number, Option, Pair
from foveate.data.augment.pca import PAPER_PCA
from foveate.data.augment.policies import choose_policy, handedness, resolve
from foveate.data.dataset import Dataset
from foveate.errors import ArtefactError, UsageError

OPTIONS = options_of(PARTS)
NUMBERS = {name: option for name, option in OPTIONS.items() if isinstance(option, Number)}
CHOICES = {name: option for name, option in OPTIONS.items() if isinstance(option, Choice)}
# What must be on for an option to apply
BESIDE: dict[str, dict[str, Any]] = {
    "padding": {"crop": "random"},
    "crop_area": {"crop": "resized"},
    "crop_ratio": {"crop": "resized"},
    "magnitude": {"auto": "rand"},
    "pca_from": {"pca_colour": 0.1},
}


def dataset(*classes: str, each: int = 200, test: int = 0) -> Dataset:
    """An index of images that nobody reads."""
    n = (each + test) * len(classes)
    labels = np.repeat(np.arange(len(classes)), each + test)
    splits = (("train",) * each + ("test",) * test) * len(classes)
    return Dataset("set", "", ("",) * n, labels, classes, splits, ("",) * n, read=lambda i: b"")


CLOTHES = ("dress", "hat", "shirt")
DIGITS = tuple("0123456789")
SPELLED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.mark.parametrize(
    ("data", "size", "policy", "reason"),
    [
        (dataset(*CLOTHES), 224, "standard", "200"),
        (dataset(*CLOTHES, each=99, test=500), 224, "strong", "99"),
        (dataset(*CLOTHES, each=0, test=5), 224, "strong", "0"),
        (dataset(*CLOTHES), 32, "light", "32 pixels"),
        (dataset(*DIGITS), 224, "light", "digit"),
        (dataset(*"abcdefghijklmnopqrstuvwxyz"), 224, "light", "letter"),
        (dataset(*SPELLED), 28, "light", "digit"),
        (dataset("0", "1"), 224, "standard", "200"),  # healthy or not, perhaps
        (dataset("猫", "犬"), 224, "standard", "200"),
    ],
)
def test_choose_policy(data: Dataset, size: int, policy: str, reason: str) -> None:
    name, why = choose_policy(data, size)
    assert name == policy
    assert reason in why and name in why


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (DIGITS, "digits"),
        (("turn-left", "turn-right", "stop"), "'turn-left'"),
        (("hand", "Right"), "'Right'"),
        (("cleft", "bright"), ""),
        (("leftovers", "soup"), ""),
        (("0", "1"), ""),
        (CLOTHES, ""),
    ],
)
def test_handedness(classes: tuple[str, ...], reason: str) -> None:
    assert reason in handedness(classes) and bool(reason) == bool(handedness(classes))


@pytest.mark.parametrize("policy", POLICIES)
def test_digits_are_not_flipped_unless_asked(policy: str) -> None:
    choice = resolve(dataset(*DIGITS), 28, policy=policy)
    assert choice.augmentation.hflip == 0
    assert any("hflip" in reason for reason in choice.reasons) == (policy != "none")
    asked = resolve(dataset(*DIGITS), 28, policy=policy, given={"hflip": 0.5})
    assert (asked.augmentation.hflip, asked.reasons) == (0.5, ())


def test_classes_that_are_numbers_are_pointed_out() -> None:
    roads = dataset(*map(str, range(43)))
    assert "hflip" in resolve(roads, 224).reasons[1]
    assert not any("hflip" in r for r in resolve(roads, 224, given={"hflip": 0.0}).reasons)


def test_resolve_takes_the_named_policy_and_the_options() -> None:
    choice = resolve(dataset(*CLOTHES), 224, policy="light", given={"rotation": 15, "padding": 0.0})
    assert choice == ("light", Augment("light", rotation=15, padding=0.0), ())
    chosen = resolve(dataset(*CLOTHES), 224)
    assert chosen[:2] == ("standard", Augment("standard")) and len(chosen.reasons) == 1


def test_resolve_takes_an_augment_as_it_is() -> None:
    mine = Augment("light", vflip=0.5)
    assert resolve(dataset(*DIGITS), 28, policy=mine) == ("light", mine, ())
    sized = resolve(dataset(*DIGITS), 28, policy=mine.replace(size=28), given={"rotation": 3})
    assert sized.augmentation == mine.replace(rotation=3)
    with refused(UsageError, "size 32", "28"):
        resolve(dataset(*DIGITS), 28, policy=mine.replace(size=32))
    with refused(UsageError, "hue", "one channel"):
        resolve(dataset(*DIGITS), 28, 1, policy=Augment(hue=0.1))


def test_the_table_of_policies() -> None:
    assert Augment("none") == Augment()
    assert Augment("light") == Augment(crop="random", hflip=0.5)
    standard, strong = Augment("standard"), Augment("strong")
    assert standard.crop == strong.crop == "resized" and standard.crop_area == (0.35, 1)
    assert strong.auto == "trivial" and strong.mixup and strong.cutmix
    assert [Augment(name).policy for name in POLICIES] == list(POLICIES)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"rotatoin": 3}, ["'rotatoin'", " rotation"]),
        ({"xyz": 3}, ["'xyz'", "crop", "padding"]),
        ({"pca": PAPER_PCA}, ["'pca'"]),
        ({"magnitude": 5}, ["magnitude", "'rand'", "'none'"]),
        ({"magnitude": 5, "auto": "trivial"}, ["magnitude", "'rand'", "'trivial'"]),
        ({"padding": 0.1}, ["padding", "'random'", "'resized'"]),
        ({"crop": "none", "crop_area": (0.5, 1.0)}, ["crop_area", "'resized'", "'none'"]),
        ({"crop": "random", "crop_ratio": (0.5, 1.0)}, ["crop_ratio", "'resized'", "'random'"]),
        ({"pca_from": "imagenet"}, ["pca_from", "pca_colour"]),
    ],
)
def test_what_does_not_apply_is_refused(given: dict[str, Any], named: list[str]) -> None:
    with refused(UsageError, *named):
        Augment("standard", **given)
    with refused(UsageError, *named):
        Augment("standard").replace(**given)


@pytest.mark.parametrize("option", ["hue", "saturation", "pca_colour"])
def test_colours_do_not_apply_to_one_channel(option: str) -> None:
    with refused(UsageError, option, "one channel"):
        resolve(dataset(*CLOTHES), 224, 1, given={option: 0.1})
    assert resolve(dataset(*CLOTHES), 224, 1, given={option: 0.0}).augmentation == Augment(
        "standard"
    )
    resolve(dataset(*CLOTHES), 224, 1, given={"brightness": 0.3, "contrast": 0.3})


@pytest.mark.parametrize("policy", ["hard", None, 3, ["light"]])
def test_no_such_policy(policy: Any) -> None:
    with refused(UsageError, *POLICIES):
        Augment(policy)
    if policy is not None:
        with refused(UsageError, *POLICIES):
            resolve(dataset(*CLOTHES), 224, policy=policy)


@pytest.mark.parametrize("size", [0, -1, 2.5, "224", True, 4097])
def test_no_such_size(size: Any) -> None:
    with refused(UsageError, "size"):
        Augment(size=size)


@pytest.mark.parametrize("name", NUMBERS)
def test_ranges(name: str) -> None:
    option, beside = NUMBERS[name], BESIDE.get(name, {})
    assert option.unit and option.help
    assert getattr(Augment(**{**beside, name: option.high}), name) == option.high
    for value in (option.low - 1, option.high + 1, math.nan, math.inf, "1", None, True):
        with refused(UsageError, name, f"{option.low:g}", f"{option.high:g}", option.unit):
            Augment(**{**beside, name: value})


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["other", None, 3, []])
def test_choices(name: str, value: Any) -> None:
    with refused(UsageError, name, *CHOICES[name].choices):
        Augment(**{**BESIDE.get(name, {}), name: value})


@pytest.mark.parametrize(
    "values",
    [
        {"crop_area": (0.5, 0.2)},
        {"crop_area": (0.0, 1.0)},
        {"crop_area": (0.5, 1.5)},
        {"crop_area": 0.5},
        {"crop_area": (0.5,)},
        {"crop_ratio": (math.nan, 1.0)},
        {"crop_ratio": ("a", "b")},
    ],
)
def test_pairs(values: dict[str, Any]) -> None:
    with refused(UsageError, next(iter(values)), "two"):
        Augment("standard", **values)


def test_a_list_is_a_pair() -> None:
    assert Augment("standard", crop_area=[0.1, 1]) == Augment("standard", crop_area=(0.1, 1))


def test_whole_numbers() -> None:
    with refused(UsageError, "magnitude", "whole", "2.5"):
        Augment(auto="rand", magnitude=2.5)


def test_an_option_is_a_number_a_choice_or_a_pair() -> None:
    assert {type(option) for option in OPTIONS.values()} == {Number, Choice, Pair}
    with pytest.raises(TypeError, match=r"check.*type"):
        Option("help", None)  # type: ignore[abstract]


def test_type_checkers_know_every_option() -> None:
    hints = get_type_hints(Options)
    assert list(hints) == list(OPTIONS)
    for name, option in OPTIONS.items():
        assert hints[name] == (float if option.type is bool else option.type), name


def test_no_two_parts_share_an_option() -> None:
    assert len(OPTIONS) == sum(len(kind.options()) for kind in PARTS)
    assert all(name in OPTIONS for o in OPTIONS.values() if o.needs for name in o.needs[:1])


FITTED = Augment("light", pca_colour=0.1).with_components(PAPER_PCA)


@pytest.mark.parametrize("augment", [*map(Augment, POLICIES), FITTED, Augment(size=32)], ids=repr)
def test_round_trip_through_json(augment: Augment) -> None:
    again = Augment.from_dict(json.loads(json.dumps(augment.to_dict())))
    assert again == augment and hash(again) == hash(augment) and again.size == augment.size


def test_what_runs_have_saved() -> None:
    """A run that is resumed compares: the same keys and values as ever, and no size."""
    assert Augment("strong").to_dict() == {
        "crop": "resized",
        "padding": 0.125,
        "crop_area": (0.35, 1.0),
        "crop_ratio": (0.75, 4 / 3),
        "hflip": 0.5,
        "vflip": 0.0,
        "rotation": 0.0,
        "translate": 0.0,
        "scale": 0.0,
        "shear": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
        "hue": 0.0,
        "pca_colour": 0.0,
        "pca_from": "data",
        "pca": None,
        "auto": "trivial",
        "magnitude": 9,
        "erasing": 0.1,
        "mixup": 0.2,
        "cutmix": 1.0,
    }
    assert FITTED.to_dict()["pca"] == {
        "eigenvalues": PAPER_PCA.eigenvalues,
        "eigenvectors": PAPER_PCA.eigenvectors,
    }


GOOD = json.loads(json.dumps(FITTED.to_dict()))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {**GOOD, "code": 1},
        {name: value for name, value in GOOD.items() if name != "hue"},
        {**GOOD, "hue": 2},
        {**GOOD, "hue": None},
        {**GOOD, "crop": []},
        {**GOOD, "crop_area": None},
        {**GOOD, "crop_area": [1]},
        {**GOOD, "pca": {"eigenvalues": 3}},
        {**GOOD, "pca": 3},
        {**GOOD, "magnitude": 1.5},
        {**GOOD, "size": "large"},
    ],
)
def test_from_dict_refuses(value: Any) -> None:
    with refused(ArtefactError, "Augment"):
        Augment.from_dict(value)


def test_describe_names_every_part_that_is_on() -> None:
    on: dict[str, Any] = {
        "crop": "resized",
        "crop_area": (0.5, 1),
        "crop_ratio": (1, 2),
        "hflip": 0.5,
        "vflip": 0.25,
        "rotation": 15,
        "translate": 0.1,
        "scale": 0.1,
        "shear": 5,
        "brightness": 0.2,
        "contrast": 0.3,
        "saturation": 0.4,
        "hue": 0.1,
        "pca_colour": 0.1,
        "auto": "rand",
        "erasing": 0.6,
        "mixup": 0.7,
        "cutmix": 0.8,
    }
    phrases = Augment(**on).describe()
    expected = [
        "50 to 100 %.*1:1 to 2.00:1",
        "horizontal.*0.5",
        "vertical.*0.25",
        "rotation.*15°",
        "translation.*0.1",
        "0.9 to 1.1",
        "shear.*5°",
        "brightness.*0.2",
        "contrast.*0.3",
        "saturation.*0.4",
        "hue.*0.1",
        "PCA colour.*training.*0.1",
        "RandAugment.*9",
        "0.6",
        "mixup 0.7",
        "CutMix 0.8",
    ]
    assert len(phrases) == len(expected)
    assert all(re.search(e, phrase) for e, phrase in zip(expected, phrases, strict=True))
    assert len(Augment("none").describe()) == 1
    assert "12.5 %" in Augment("light").describe()[0]
    assert "ImageNet" in Augment(pca_colour=0.1, pca_from="imagenet").describe()[-1]
    assert "TrivialAugment" in Augment("strong").describe()


def test_defaults_are_off() -> None:
    assert [part for part in Augment().parts if part.on] == [Augment().parts[0]]
    assert set(defaults(PARTS)) == set(OPTIONS)
