"""The options of augmentation, declared once for all verbs that have them; `given_parts` reads them
back."""

from typing import Annotated, Any, Literal

import typer

Policy = Annotated[
    Literal["none", "light", "standard", "strong"] | None,
    typer.Option("--augment", help="Augmentation policy [default: chosen from the data]"),
]
Hflip = Annotated[
    bool | None, typer.Option("--hflip/--no-hflip", help="Mirror every other image left to right.")
]
Vflip = Annotated[
    bool | None, typer.Option("--vflip/--no-vflip", help="Mirror every other image top to bottom.")
]
Crop = Annotated[
    Literal["none", "random", "resized"] | None,
    typer.Option(
        help="The middle; a square from anywhere; a rectangle of any size from anywhere, resized."
    ),
]
Padding = Annotated[
    float | None,
    typer.Option(help="How far a random square reaches outside, as a fraction of its side."),
]
CropArea = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="FROM TO", help="Resized crop: share of the image's area."),
]
CropRatio = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="FROM TO", help="Resized crop: width by height."),
]
Rotation = Annotated[float | None, typer.Option(help="Degrees at most, either way.")]
Translate = Annotated[
    float | None, typer.Option(help="At most, either way, as a fraction of the side.")
]
Scale = Annotated[
    float | None, typer.Option(help="At most, larger or smaller: 0.1 is 0.9 to 1.1 times.")
]
Shear = Annotated[float | None, typer.Option(help="Degrees at most, either way.")]
Brightness = Annotated[
    float | None, typer.Option(help="At most, more or less: 0.4 is 0.6 to 1.4 times.")
]
Contrast = Annotated[
    float | None, typer.Option(help="At most, more or less: 0.4 is 0.6 to 1.4 times.")
]
Saturation = Annotated[
    float | None, typer.Option(help="At most, more or less: 0.4 is 0.6 to 1.4 times.")
]
Hue = Annotated[
    float | None,
    typer.Option(help="At most, either way, in turns of the colour circle: up to 0.5."),
]
PcaColour = Annotated[
    float | None, typer.Option(help="PCA colour: sigma of the shift, 0.1 in the AlexNet paper.")
]
PcaFrom = Annotated[
    Literal["data", "imagenet"] | None,
    typer.Option(help="Components of the training images, or the published ones."),
]
Auto = Annotated[
    Literal["none", "trivial", "rand"] | None, typer.Option(help="TrivialAugment or RandAugment.")
]
Magnitude = Annotated[int | None, typer.Option(help="RandAugment's strength, 0 to 30 [default: 9]")]
Erasing = Annotated[float | None, typer.Option(help="Probability that a rectangle becomes noise.")]
Mixup = Annotated[float | None, typer.Option(help="alpha of mixup; 0 is off.")]
Cutmix = Annotated[float | None, typer.Option(help="alpha of CutMix; 0 is off.")]

FLIP = 0.5  # the probability that --hflip and --vflip stand for


def given_parts(context: typer.Context) -> dict[str, Any]:
    """The parts of an `Augmentation` that were given on the command line."""
    from dataclasses import fields

    from foveate.data.augment.policies import Augmentation

    names = [field.name for field in fields(Augmentation)]
    given = {name: value for name in names if (value := context.params.get(name)) is not None}
    return given | {name: FLIP * given[name] for name in ("hflip", "vflip") if name in given}


def given_augment(context: typer.Context) -> Any:
    """The policy and the parts that were given; None if none was."""
    policy, parts = context.params["augment"], given_parts(context)
    return (policy, parts) if parts else policy
