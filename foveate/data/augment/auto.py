"""TrivialAugment and RandAugment: one random operation of any strength, or two of one strength.

Müller, Hutter. "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation". ICCV 2021,
arXiv:2103.10158, Wide. Cubuk, Zoph, Shlens, Le. "RandAugment: Practical automated data
augmentation". NeurIPS 2020, arXiv:1909.13719.

Operations, strengths and pixels are torchvision's (bilinear, black outside), which
tests/data/augment/test_auto.py asserts; the random numbers are the image's own, where torchvision
draws them from torch's global state.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from foveate.data.augment.part import ImagePart, choice, number

if TYPE_CHECKING:
    from torch import Tensor

    from foveate.data.augment.streams import Numbers

MAGNITUDES = 31  # steps of RandAugment and TrivialAugment, from nothing to the most


class Operation(NamedTuple):
    """A change of an image, and how strong: a number whose meaning is the operation's own."""

    name: str
    strength: float


class Strengths(NamedTuple):
    """From the weakest to the strongest, in equal steps; `signed` ones go either way."""

    weakest: float
    strongest: float
    signed: bool


NAMES = (
    "Identity ShearX ShearY TranslateX TranslateY Rotate Brightness Color Contrast Sharpness "
    "Posterize Solarize AutoContrast Equalize"
).split()


def space(tilt: float, move: float, turn: float, colour: float, bits: int) -> dict[str, Strengths]:
    """The fourteen operations, by the strongest of each kind."""
    return {
        **dict.fromkeys(NAMES, Strengths(0, 0, False)),
        **dict.fromkeys(["ShearX", "ShearY"], Strengths(0, tilt, True)),  # tangent of the angle
        **dict.fromkeys(["TranslateX", "TranslateY"], Strengths(0, move, True)),
        "Rotate": Strengths(0, turn, True),  # degrees
        **dict.fromkeys(
            ["Brightness", "Color", "Contrast", "Sharpness"], Strengths(0, colour, True)
        ),
        "Posterize": Strengths(8, bits, False),
        "Solarize": Strengths(1, 0, False),  # fraction of white
    }


# moves in pixels, whatever the size
TRIVIAL = space(tilt=0.99, move=32, turn=135, colour=0.99, bits=2)
# moves as fractions of the side
RAND = space(tilt=0.3, move=150 / 331, turn=30, colour=0.9, bits=4)


@dataclass(frozen=True)
class Auto(ImagePart):
    """Operations that need no tuning.

    Args:
        auto: "trivial", one operation of random strength (TrivialAugment); "rand", two operations
            of one strength (RandAugment); "none".
        magnitude: RandAugment's strength, 0 to 30.
    """

    recorded = True
    uniforms = slice(33, 39)

    auto: Literal["none", "trivial", "rand"] = choice(
        "none", ("none", "trivial", "rand"), "TrivialAugment or RandAugment."
    )
    magnitude: int = number(
        9,
        0,
        MAGNITUDES - 1,
        "steps",
        "RandAugment's strength, 0 to 30 [default: 9]",
        whole=True,
        needs=("auto", "rand"),
    )

    @property
    def on(self) -> bool:
        return self.auto != "none"

    def describe(self) -> list[str]:
        if self.auto == "rand":
            return [f"RandAugment of magnitude {self.magnitude}"]
        return ["TrivialAugment"]

    def draw(self, numbers: "Numbers", shape: tuple[int, ...], size: int) -> tuple[Operation, ...]:
        return draw_operations(self.auto, self.magnitude, size, numbers.uniforms[self.uniforms])

    def render(self, x: "Tensor", drawn: tuple[Operation, ...]) -> "Tensor":
        import numpy as np
        import torch

        # most operations are faster plane by plane
        x = torch.from_numpy(np.ascontiguousarray(x.numpy()))
        for operation in drawn:
            x = apply(operation, x)
        return x


def draw_operations(
    auto: Literal["none", "trivial", "rand"], magnitude: int, size: int, u: list[float]
) -> tuple[Operation, ...]:
    """What is done to one image, by six random numbers in [0, 1): the operation, its step and its
    sign, twice."""
    if auto == "none":
        return ()
    if auto == "trivial":
        return (pick(TRIVIAL, u[0], int(u[1] * MAGNITUDES), u[2], 1),)
    return pick(RAND, u[0], magnitude, u[2], size), pick(RAND, u[3], magnitude, u[5], size)


def pick(
    strengths: dict[str, Strengths], which: float, step: int, sign: float, pixels: int
) -> Operation:
    """An operation of a space at a step; `pixels` is the unit of its moves."""
    import torch

    name = NAMES[int(which * len(NAMES))]
    weakest, strongest, signed = strengths[name]
    if name.startswith("Translate"):
        strongest *= pixels
    # rounded as torchvision rounds
    strength = float(torch.linspace(weakest, strongest, MAGNITUDES)[step])
    if name == "Posterize":
        strength = round(strength)
    return Operation(name, -strength if signed and sign < 0.5 else strength)


def apply(operation: Operation, x: "Tensor") -> "Tensor":
    """(C, H, W), uint8 -> the same shape and type. A name that is in neither space is a mistake of
    the programmer."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    name, strength = operation
    match name:
        case "ShearX":  # the paper's shear is a tangent, torchvision's an angle
            return bend(x, shear=[math.degrees(math.atan(strength)), 0.0], center=[0, 0])
        case "ShearY":
            return bend(x, shear=[0.0, math.degrees(math.atan(strength))], center=[0, 0])
        case "TranslateX":
            return bend(x, translate=[int(strength), 0])
        case "TranslateY":
            return bend(x, translate=[0, int(strength)])
        case "Rotate":
            return F.rotate(x, strength, interpolation=InterpolationMode.BILINEAR)
        case "Brightness":
            return F.adjust_brightness(x, 1 + strength)
        case "Color":
            return F.adjust_saturation(x, 1 + strength)
        case "Contrast":
            return F.adjust_contrast(x, 1 + strength)
        case "Sharpness":
            return F.adjust_sharpness(x, 1 + strength)
        case "Posterize":
            return F.posterize(x, int(strength))
        case "Solarize":
            return F.solarize(x, 255 * strength)
        case "AutoContrast":
            return F.autocontrast(x)
        case "Equalize":
            return F.equalize(x)
    assert name == "Identity", name
    return x


def bend(
    x: "Tensor",
    shear: list[float] | None = None,
    translate: list[int] | None = None,
    center: Any = None,
) -> "Tensor":
    """torchvision's affine transform, bilinear, of one kind."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    return F.affine(
        x,
        angle=0.0,
        translate=translate or [0, 0],
        scale=1.0,
        shear=shear or [0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        center=center,
    )
