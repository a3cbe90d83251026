import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError, UsageError

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def torchvision_pixels(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    steps = v2.Compose(
        [
            v2.Resize(preprocess.resize, MODES[preprocess.interpolation], antialias=True),
            v2.CenterCrop(preprocess.crop),
        ]
    )
    return np.asarray(steps(image)).astype(int)


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("resize,crop", [(256, 224), (224, 224), (64, 32)])
@pytest.mark.parametrize(
    "width,height", [(500, 375), (375, 500), (256, 256), (1000, 300), (100, 80), (31, 57)]
)
def test_equals_torchvision(
    interpolation: str, resize: int, crop: int, width: int, height: int
) -> None:
    preprocess = Preprocess(resize, crop, interpolation=interpolation)
    found = preprocess.pixels(photo(width, height))
    assert found.shape == (crop, crop, 3) and found.dtype == np.uint8
    reference = torchvision_pixels(photo(width, height), preprocess)
    # torchvision rounds the long side and the crop's edge to whole pixels, we do not: so a pixel of
    # ours lies between that pixel of theirs and its neighbours, or a little beyond where there is a
    # peak
    around = np.lib.stride_tricks.sliding_window_view(reference, (3, 3), axis=(0, 1))
    inner = found[1:-1, 1:-1]
    assert (inner >= around.min(axis=(-2, -1)) - 8).all() and (
        inner <= around.max(axis=(-2, -1)) + 8
    ).all()
    assert np.abs(found - reference).mean() < 8


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("side,resize,crop", [(448, 256, 224), (300, 224, 224), (128, 64, 32)])
def test_equals_torchvision_exactly_where_nothing_is_rounded(
    interpolation: str, side: int, resize: int, crop: int
) -> None:
    preprocess = Preprocess(resize, crop, interpolation=interpolation)
    difference = preprocess.pixels(photo(side, side)) - torchvision_pixels(
        photo(side, side), preprocess
    )
    assert np.abs(difference).max() <= 1


def test_an_image_of_the_right_size_is_unchanged() -> None:
    image = photo(40, 40)
    assert np.array_equal(Preprocess(40, 40).pixels(image), np.asarray(image))


def test_normalise_equals_torchvision() -> None:
    preprocess = Preprocess(32, 32)
    batch = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    found = preprocess.normalise(batch)
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
    assert found.dtype == np.float32 and found.shape == (5, 3, 8, 9) and found.flags.c_contiguous
    np.testing.assert_allclose(
        found, v2.Normalize(preprocess.mean, preprocess.std)(tensor).numpy(), atol=1e-6
    )
    np.testing.assert_array_equal(preprocess.normalise(batch[0]), found[0])


def test_grey() -> None:
    preprocess = Preprocess(20, 16, channels=1, mean=(0.5,), std=(0.25,))
    found = preprocess.pixels(photo(60, 50))
    as_rgb = Preprocess(20, 16).pixels(photo(60, 50).convert("L").convert("RGB"))
    assert found.shape == (16, 16, 1)
    assert np.array_equal(found, as_rgb[..., :1])
    assert preprocess.normalise(np.full((2, 2, 1), 255, np.uint8)).tolist() == [[[2, 2], [2, 2]]]


@pytest.mark.parametrize(
    "resize,crop,stretch,size,window",
    [
        (100, 100, 1.0, (200, 100), (50, 0, 150, 100)),
        (100, 100, 1.5, (200, 100), (25, 0, 175, 100)),
        (100, 100, 1.5, (100, 200), (0, 25, 100, 175)),
        (100, 100, 1.5, (120, 100), (0, 0, 120, 100)),  # no more than there is
        (100, 100, 9.0, (100, 200), (0, 0, 100, 200)),
        (100, 100, 1.5, (100, 100), (0, 0, 100, 100)),
        (200, 100, 1.0, (400, 200), (150, 50, 250, 150)),
        (200, 100, 1.2, (400, 200), (140, 50, 260, 150)),
    ],
)
def test_window(
    resize: int,
    crop: int,
    stretch: float,
    size: tuple[int, int],
    window: tuple[float, float, float, float],
) -> None:
    (view,) = Preprocess(resize, crop, stretch).views
    assert view.window(*size) == pytest.approx(window)


def test_stretch_squeezes_the_longer_side() -> None:
    image = photo(200, 100)
    cut = image.crop((40, 0, 160, 100)).resize((50, 50), Image.Resampling.BICUBIC)
    found = Preprocess(50, 50, stretch=1.2).pixels(image)
    assert np.abs(found[:, 3:-3].astype(int) - np.asarray(cut)[:, 3:-3]).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_the_smallest_and_thinnest_images(size: tuple[int, int]) -> None:
    colour = Image.new("RGB", size, (10, 200, 30))
    found = Preprocess(256, 224, stretch=1.12).pixels(colour)
    assert (found == (10, 200, 30)).all()


def test_at_keeps_the_colours() -> None:
    published = Preprocess(256, 224, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert published.at(288, 1.12) == Preprocess(
        288, 288, 1.12, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(1, 2, 3)
    )
    assert published.at(64).stretch == 1


PRESETS = [
    Preprocess(256, 224),
    Preprocess(224, 224, stretch=1.12, interpolation="bilinear"),
    Preprocess(28, 28, channels=1, mean=(0.1307,), std=(0.3081,)),
]


@pytest.mark.parametrize("preset", PRESETS)
def test_round_trip_through_json(preset: Preprocess) -> None:
    assert Preprocess.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset


GOOD = json.loads(json.dumps(PRESETS[0].to_dict()))


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "resize",
        [],
        {},
        list(GOOD),
        [{}],
        {**GOOD, "code": "os.system"},
        {key: GOOD[key] for key in list(GOOD)[1:]},
        *(
            {**GOOD, key: value}
            for key, value in [
                ("resize", 0),
                ("resize", -256),
                ("resize", 100),
                ("resize", None),
                ("resize", math.inf),
                ("resize", math.nan),
                ("crop", 0),
                ("crop", 257),
                ("crop", "wide"),
                ("crop", [224]),
                ("stretch", 0.9),
                ("stretch", math.nan),
                ("stretch", math.inf),
                ("stretch", 10**400),
                ("stretch", {}),
                ("interpolation", "nearest"),
                ("interpolation", None),
                ("channels", 2),
                ("channels", 1),
                ("mean", []),
                ("mean", [0.5, 0.5]),
                ("mean", 0.5),
                ("mean", [0.5, None, 0.5]),
                ("mean", [0.5, math.nan, 0.5]),
                ("mean", [0.5, math.inf, 0.5]),
                ("std", [0.2, 0.2, 0]),
                ("std", [0.2, 0.2, -1]),
                ("std", [0.2, 0.2, math.inf]),
                ("std", [10**400] * 3),
            ]
        ),
    ],
)
def test_from_dict_refuses(value: Any) -> None:
    with refused(ArtefactError, "Preprocess"):
        Preprocess.from_dict(value)


def rubbish(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value, with the field names and the odd numbers more often than chance would."""
    kind = rng.randrange(8 if depth < 3 else 6)
    if kind < 6:
        return rng.choice(
            [
                None,
                True,
                0,
                -1,
                3,
                224,
                0.5,
                1e308,
                10**400,
                math.inf,
                math.nan,
                "",
                "bicubic",
                "3",
                "1e400",
                "\ud800",
            ]
        )
    if kind == 6:
        return [rubbish(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice([*GOOD, "x"]): rubbish(rng, depth + 1) for _ in range(rng.randrange(8))}


@pytest.mark.parametrize("seed", range(20))
def test_from_dict_survives_rubbish(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(300):
        value = rubbish(rng)
        if rng.random() < 0.7:
            value = {
                **GOOD,
                **{rng.choice(list(GOOD)): rubbish(rng) for _ in range(rng.randrange(1, 3))},
            }
        try:
            found = Preprocess.from_dict(value)
        except ArtefactError:
            continue
        assert Preprocess.from_dict(found.to_dict()) == found
        assert np.isfinite(found.normalise(np.zeros((1, 1, found.channels), np.uint8))).all()


@pytest.mark.parametrize(
    "change",
    [
        {"crop": 300},
        {"crop": 0},
        {"crop": None},
        {"resize": 5000},
        {"resize": "256"},
        {"resize": 256.0},
        {"stretch": 0.9},
        {"stretch": "1"},
        {"channels": 2},
        {"channels": "3"},
        {"interpolation": "nearest"},
        {"interpolation": ["bicubic"]},
        {"mean": 0.5},
        {"mean": (0.5, 0.5)},
        {"mean": None},
        {"mean": "abc"},
        {"std": (0.5, 0.5, float("nan"))},
        {"std": (0.5, 0.5, 0.0)},
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    named = [str(n) for n in value] if isinstance(value, tuple) else [str(value)]
    with refused(UsageError, name, *named):
        Preprocess(**{"resize": 256, "crop": 224} | change)


def test_mean_and_std_may_be_lists_or_arrays() -> None:
    """A Preprocess is a key of dictionaries and is written as JSON, whatever it was made of."""
    mean, std = [0.5, 0.4, 0.3], np.array([0.2, 0.2, 0.2])
    made = Preprocess(256, 224, mean=mean, std=std)  # type: ignore[arg-type]
    assert made == Preprocess(256, 224, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    assert hash(made) and json.loads(json.dumps(made.to_dict()))["std"] == [0.2, 0.2, 0.2]


@pytest.mark.parametrize("size", [0, -1, "64", None, 1.5, True, 5000])
def test_sizes_that_are_none(size: Any) -> None:
    with refused(UsageError, "size", repr(size)):
        Preprocess(256, 224).at(size)


@pytest.mark.parametrize("name", [None, 5, Path("resnet18")])
def test_of_takes_a_name(name: Any) -> None:
    with refused(UsageError, type(name).__name__):
        Preprocess.of(name)
