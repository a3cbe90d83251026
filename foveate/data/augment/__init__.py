"""Augmentation: every epoch another variant of a training image, from random numbers of its own.

    image (H, W, C), uint8 ── draw ──> steps ── render ──> (C, size, size), uint8

`PARTS` lists the augmentations in the order in which they happen: crop and resize, flip, affine
(one resampling), brightness, contrast and saturation, hue, PCA colour, TrivialAugment or
RandAugment, erasing; and mixup or CutMix of whole batches. Each is one class in one file
(`part.py`). What lies outside an image is its mirror image; TrivialAugment and RandAugment alone
have black there, as published.

Loading this loads neither torch nor numpy: the command line reads the options of the parts.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from operator import index as index_of
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    SupportsIndex,
    TypedDict,
    TypeVar,
    Unpack,
)

from foveate.arguments import LARGEST, whole_number
from foveate.data.augment.auto import Auto
from foveate.data.augment.colour import Hue, Jitter
from foveate.data.augment.erasing import Erasing
from foveate.data.augment.geometry import Affine, Crop, Flip
from foveate.data.augment.mix import Mix, mixed_targets, mixed_tensors
from foveate.data.augment.part import ON, ImagePart, Option, Part
from foveate.data.augment.pca import PcaColour, PrincipalComponents, fit_to_dataset
from foveate.data.augment.streams import Numbers, batch_generator
from foveate.errors import ArtefactError, UsageError
from foveate.forking import torch_threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from foveate.data.dataset import Dataset
    from foveate.data.image import Pixels
    from foveate.data.preprocess import Preprocess

    Steps = list[tuple[ImagePart, Any]]

PARTS: tuple[type[Part], ...] = (
    Crop,
    Flip,
    Affine,
    Jitter,
    Hue,
    PcaColour,
    Auto,
    Erasing,
    Mix,
)
# A policy is a name for the options that differ from their defaults.
POLICIES: dict[str, dict[str, Any]] = {
    # the centre, at the scale that evaluation sees
    "none": {},
    # as in the AlexNet paper; with small images as in the ResNet paper's CIFAR experiments
    "light": {"crop": "random", "hflip": 0.5},
    # GoogLeNet's; its 8 % of the area suit a hundred epochs of a million images, not these
    "standard": {"crop": "resized", "crop_area": (0.35, 1.0), "hflip": 0.5},
    # torchvision's recipe of 2021
    "strong": {
        "crop": "resized",
        "crop_area": (0.35, 1.0),
        "hflip": 0.5,
        "auto": "trivial",
        "erasing": 0.1,
        "mixup": 0.2,
        "cutmix": 1.0,
    },
}
SIZE = 224  # side of the square where none is asked for

P = TypeVar("P", bound=Part)


class PolicyOptions(NamedTuple):
    """A policy and the options that differ from it, before the data are known: the command line's
    answer.

    Args:
        policy: a name, an `Augment`, or None for the policy that suits the data.
        options: of `Augment`; they always count.
    """

    policy: "str | Augment | None"
    options: dict[str, Any]


class Options(TypedDict, total=False):
    """The options of all parts, for type checkers; the parts explain them. A test compares."""

    crop: Literal["none", "random", "resized"]
    padding: float
    crop_area: tuple[float, float]
    crop_ratio: tuple[float, float]
    hflip: float
    vflip: float
    rotation: float
    translate: float
    scale: float
    shear: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    pca_colour: float
    pca_from: Literal["data", "imagenet"]
    auto: Literal["none", "trivial", "rand"]
    magnitude: int
    erasing: float
    mixup: float
    cutmix: float


class Augment:
    """Augment a training image: a policy's name, and any option of it in another way.

    An `Augment` is a transform for anyone's DataLoader, alone or in a `torchvision.transforms.v2`
    `Compose`; it never changes, can be pickled, and equals another with the same options.

    Args:
        policy: "none", the centre alone; "light", a random square and horizontal flips; "standard",
            35 to 100 % of the area, resized, and horizontal flips; "strong", TrivialAugment,
            erasing, mixup and CutMix as well.
        size: side in pixels of the square that comes out. Left out, it is 224, and in
            `foveate.train` what the network reads.
        crop: "none" the centre; "random" a square from anywhere, at the image's own scale;
            "resized" a rectangle of any size from anywhere, resized. The first two keep the scale:
            resize images before.
        padding: with crop "random", how far the square may reach outside, 0 to 1 of its side.
        crop_area: with crop "resized", the share of the area, from and to, above 0 and up to 1.
        crop_ratio: with crop "resized", width divided by height, from and to.
        hflip, vflip: probability of a horizontal and of a vertical flip, 0 to 1.
        rotation: at most, either way, 0 to 180 degrees.
        translate: at most, either way, along both axes, 0 to 1 of the side.
        scale: at most, larger or smaller, 0 to 0.9: 0.1 is 0.9 to 1.1 times.
        shear: at most, either way, 0 to 60 degrees.
        brightness, contrast, saturation: at most, more or less, 0 to 1: 0.4 is 0.6 to 1.4 times.
        hue: at most, either way, 0 to 0.5 turns of the colour circle.
        pca_colour: standard deviation of PCA colour's shift, 0 to 1; 0.1 in the AlexNet paper.
        pca_from: "data", components of your own images, which `fit` finds; "imagenet", the
            published ones.
        auto: "trivial" (TrivialAugment), "rand" (RandAugment) or "none".
        magnitude: with auto "rand", its strength, 0 to 30.
        erasing: probability that a rectangle becomes noise, 0 to 1.
        mixup, cutmix: alpha of the Beta distribution of the shares, 0 to 10; 0 is off. They act on
            batches: `batch`, `collate`.

    Raises:
        UsageError: no such policy or option; a value out of its range; an option that does not
            apply, since another one that it belongs to is off.

    Source: the papers are cited with each part. Checked against torchvision in
    tests/data/augment/.

    >>> import numpy as np
    >>> augment = Augment("standard", size=32, rotation=15)
    >>> augment
    Augment('standard', size=32, rotation=15)
    >>> augment(np.zeros((48, 64, 3), np.uint8)).shape
    torch.Size([3, 32, 32])
    """

    parts: tuple[Part, ...]
    size: int | None

    def __init__(
        self, policy: str = "none", *, size: int | None = None, **options: Unpack[Options]
    ) -> None:
        given = dict(options)
        check_policy(policy)
        check_names(given)
        self._take(made({**POLICIES[policy], **given}), size)
        check_needs(self, given)

    def _take(self, parts: tuple[Part, ...], size: int | None) -> None:
        size = None if size is None else whole_number("size", size, 1, LARGEST)
        active = tuple(part for part in parts if isinstance(part, ImagePart) and part.on)
        self.__dict__.update(parts=parts, size=size, active=active)

    def __call__(self, image: "Image.Image | NDArray[np.uint8] | Tensor") -> "Tensor":
        """Augment one image, with random numbers from torch's global generator.

        After `torch.manual_seed` they come again, and each worker of a DataLoader has its own.

        Args:
            image: a PIL image, which becomes RGB and upright as `foveate.load_image` makes it; an
                array, (H, W, 3), (H, W, 1) or (H, W), uint8; or a tensor, (3, H, W) or (1, H, W),
                uint8. It is not changed.

        Returns:
            (C, size, size), uint8, contiguous.

        Raises:
            UsageError: something else than such an image; a change of colour on one channel;
                `pca_colour` without components (call `fit` first).
            ImageError: a PIL image whose file is damaged.
        """
        import torch

        seed, epoch = torch.randint(2**63 - 1, (2,)).tolist()
        return self._apply(seed, epoch, 0, image)

    def at(
        self, seed: int, epoch: int, index: int
    ) -> "Callable[[Image.Image | NDArray[np.uint8] | Tensor], Tensor]":
        """The transform of one image in one epoch, whose random numbers are those of (seed, epoch,
        index) alone, as in Foveate's own training.

        >>> import numpy as np
        >>> image, augment = np.arange(192, dtype=np.uint8).reshape(8, 8, 3), Augment(hue=0.5)
        >>> bool((augment.at(0, 3, 7)(image) == augment.at(0, 3, 7)(image)).all())
        True
        """
        for name, value in (("seed", seed), ("epoch", epoch), ("index", index)):
            if not isinstance(value, SupportsIndex) or not 0 <= index_of(value) < 2**64:
                raise UsageError(f"{name} must be a whole number from 0 to 2^64 - 1, not {value!r}")
        return partial(self._apply, seed, epoch, index)

    @torch_threads()
    def _apply(self, seed: int, epoch: int, index: int, image: Any) -> "Tensor":
        pixels = as_pixels(image)
        self.check_channels(pixels.shape[2])
        steps = self.draw(seed, epoch, index, pixels.shape, self.size or SIZE)
        return render(pixels, steps).contiguous()

    def draw(self, seed: int, epoch: int, index: int, shape: tuple[int, ...], size: int) -> "Steps":
        """What happens to an image of this shape, (H, W, C): the parts that do something to it, in
        order, with what each has drawn."""
        numbers = Numbers(seed, epoch, index, *lengths(PARTS))
        drawn = ((part, part.draw(numbers, shape, size)) for part in self.active)
        return [(part, what) for part, what in drawn if what is not None]

    def fit(
        self,
        dataset: "Dataset",
        *,
        rows: "NDArray[np.int64] | None" = None,
        preprocess: "Preprocess | None" = None,
        threads: int | None = None,
    ) -> "Augment":
        """The same with PCA colour's components, fitted to at most 500 training images; or as it
        is, where PCA colour is off or fitted already.

        Args:
            dataset: from `foveate.load_dataset`.
            rows: of the training images; those of split "train" by default.
            preprocess: whose scale images are read at; by default the shorter side has 256 pixels
                for a size of 224.
            threads: to decode in; all cores by default.

        Raises:
            UsageError: something else than a `Dataset`; rows that it does not have; a number of
                threads below 1.
            DataError: none of the images can be read.
        """
        import numpy as np

        from foveate.data.dataset import Dataset, known_rows
        from foveate.data.preprocess import Preprocess
        from foveate.machine import cores_to_use

        if not isinstance(dataset, Dataset):
            raise UsageError(
                f"fit takes a Dataset, as foveate.load_dataset gives it, not {type(dataset)}"
            )
        if preprocess is not None and not isinstance(preprocess, Preprocess):
            raise UsageError(f"preprocess is a Preprocess or None, not {type(preprocess).__name__}")
        n = cores_to_use(threads)
        part = self.part(PcaColour)
        if not part.on or part.pca is not None:
            return self
        if part.components is not None:
            return self.with_components(part.components)
        if rows is None:
            rows = np.flatnonzero([split == "train" for split in dataset.splits])
        rows = known_rows(rows, len(dataset))
        size = self.size or SIZE
        preprocess = preprocess or Preprocess(min(round(size * 256 / 224), LARGEST), size)
        return self.with_components(fit_to_dataset(dataset, rows, preprocess, n))

    def with_components(self, components: PrincipalComponents) -> "Augment":
        """The same with these principal components for PCA colour: what `fit` finds."""
        parts = (p.fitted(components) if isinstance(p, PcaColour) else p for p in self.parts)
        return build(tuple(parts), self.size)

    @torch_threads()
    def batch(
        self, images: "Tensor", targets: "Tensor", num_classes: int
    ) -> "tuple[Tensor, Tensor]":
        """mixup or CutMix of a batch, and the shares of its labels.

        Random numbers come from torch's global generator. Where neither is on, the images stay as
        they are; targets have the same form all the same, so one loss does for both.

        Args:
            images: (N, C, H, W), uint8 or floating point, normalised or not. They are not changed.
            targets: (N,), whole numbers, the class of each image; or (N, num_classes), its shares
                or labels.
            num_classes: how many classes there are.

        Returns:
            The images in their own shape and type, and (N, num_classes), float32, which
            `torch.nn.CrossEntropyLoss` takes.

        Raises:
            UsageError: shapes, types or classes that do not fit.

        >>> import torch
        >>> images, targets = torch.zeros(2, 3, 8, 8), torch.tensor([0, 2])
        >>> Augment("strong").batch(images, targets, num_classes=3)[1].sum(dim=1)
        tensor([1., 1.])
        """
        import torch

        num_classes = whole_number("num_classes", num_classes, 1)
        check_batch(images, targets, num_classes)
        if targets.ndim == 1:
            targets = torch.nn.functional.one_hot(targets.long(), num_classes)
        targets = targets.float()
        part = self.part(Mix)
        if not part.on:
            return images, targets
        seed, epoch = torch.randint(2**63 - 1, (2,)).tolist()
        rng = batch_generator(seed, epoch, 0)
        height, width = images.shape[2:]
        mixture = part.draw(len(images), height, width, rng)
        return mixed_tensors(images, mixture), mixed_targets(targets, mixture)

    def collate(self, num_classes: int) -> "Callable[[list[Any]], tuple[Tensor, Tensor]]":
        """`batch` as the `collate_fn` of a DataLoader whose dataset gives (image, target)."""
        return partial(collated, self, whole_number("num_classes", num_classes, 1))

    def replace(self, *, size: int | None = None, **options: Unpack[Options]) -> "Augment":
        """The same with another size or other options; fitted components stay.

        Raises:
            UsageError: as for `Augment`.
        """
        given = dict(options)
        check_names(given)
        values = {**values_of(self), **given, "pca": self.part(PcaColour).pca}
        changed = build(made(values), self.size if size is None else size)
        check_needs(changed, given)
        return changed

    def unsized(self) -> "Augment":
        """The same without a size of its own."""
        return self if self.size is None else build(self.parts, None)

    def part(self, kind: type[P]) -> P:
        """One of the parts, by its class."""
        return next(part for part in self.parts if isinstance(part, kind))

    @property
    def policy(self) -> str:
        """The policy that it is, or that it differs least from."""
        values = values_of(self)
        differing = {
            name: sum(values[key] != value for key, value in {**defaults(PARTS), **options}.items())
            for name, options in POLICIES.items()
        }
        return min(differing, key=lambda name: differing[name])

    def check_fitted(self) -> None:
        """Raise UsageError where PCA colour is on and has no components."""
        if self.part(PcaColour).on:
            self.part(PcaColour).known()

    def check_channels(self, channels: int) -> None:
        """Raise UsageError where a change of colour is on and images have one channel."""
        if channels == 1:
            values = values_of(self)
            for name, option in options_of(PARTS).items():
                if option.coloured and values[name]:
                    raise UsageError(
                        f"{name} does not apply to images of one channel: they have no colour"
                    )

    def describe(self) -> list[str]:
        """What is done to an image, in phrases, in order.

        >>> Augment("standard").describe()
        ['a random 35 to 100 % of the area, 3:4 to 4:3, resized',
         'horizontal flip with probability 0.5']
        """
        return [phrase for part in self.parts if part.on for phrase in part.describe()]

    def to_dict(self) -> dict[str, Any]:
        """All options and the fitted components, for JSON; the size where one was given."""
        values: dict[str, Any] = {}
        for part in self.parts:
            if part.recorded or part.on:
                values |= {name: getattr(part, name) for name in part.options()}
            if isinstance(part, PcaColour):
                values["pca"] = part.pca and part.pca.to_dict()
        return values if self.size is None else {"size": self.size, **values}

    @classmethod
    def from_dict(cls, value: Any) -> "Augment":
        """Read back what `to_dict` wrote; ArtefactError if it is anything else."""
        try:
            values = dict(value)
            size = values.pop("size", None)
            recorded = {name for p in PARTS if p.recorded for name in p.options()} | {"pca"}
            if not recorded <= set(values) <= {*defaults(PARTS), "pca"}:
                raise KeyError("other options than expected")
            values["pca"] = values["pca"] and PrincipalComponents.from_dict(values["pca"])
            return build(made(values), size)
        except (TypeError, ValueError, KeyError, ArtefactError) as error:
            raise ArtefactError(f"not an Augment: {value!r}") from error

    def __getattr__(self, name: str) -> Any:
        """An option's value, such as `augment.rotation`."""
        for part in self.__dict__.get("parts", ()):
            if name in part.options():
                return getattr(part, name)
        raise AttributeError(f"an Augment has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"an Augment never changes: augment.replace({name}=...) is another")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Augment):
            return NotImplemented
        return (self.parts, self.size) == (other.parts, other.size)

    def __hash__(self) -> int:
        return hash((self.parts, self.size))

    def __repr__(self) -> str:
        expected = {**defaults(PARTS), **POLICIES[self.policy]}
        shown = [repr(self.policy)] + [f"size={self.size}"] * (self.size is not None)
        shown += [f"{n}={v!r}" for n, v in values_of(self).items() if v != expected[n]]
        fitted = self.part(PcaColour).pca is not None
        return f"Augment({', '.join(shown)}){'.fit(...)' if fitted else ''}"


def build(parts: tuple[Part, ...], size: int | None) -> Augment:
    """An Augment of these parts, whatever belongs to what: saved ones have all options."""
    augment = Augment.__new__(Augment)
    augment._take(parts, size)
    return augment


def made(values: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts with these options; a list, as JSON has it, stands for a pair."""
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return tuple(
        kind(**{n: v for n, v in values.items() if n in kind.__dataclass_fields__})
        for kind in PARTS
    )


def values_of(augment: Augment) -> dict[str, Any]:
    """The value of every option."""
    return {name: getattr(part, name) for part in augment.parts for name in part.options()}


@cache
def options_of(parts: tuple[type[Part], ...]) -> dict[str, Option]:
    """The options of all parts, by name, in order."""
    return {name: option for part in parts for name, option in part.options().items()}


@cache
def defaults(parts: tuple[type[Part], ...]) -> dict[str, Any]:
    """Of every option, its value where nobody asks."""
    return {name: p.__dataclass_fields__[name].default for p in parts for name in p.options()}


@cache
def lengths(parts: tuple[type[Part], ...]) -> tuple[int, int]:
    """How many uniform and normal numbers the recorded parts take: as far as their places reach.

    >>> lengths(PARTS)
    (62, 3)
    """
    drawing = [part for part in parts if issubclass(part, ImagePart)]
    return max(p.uniforms.stop for p in drawing), max(p.normals.stop for p in drawing)


def check_policy(name: Any) -> None:
    if not isinstance(name, str) or name not in POLICIES:
        raise UsageError(f"no augmentation policy {name!r}; there are {', '.join(POLICIES)}")


def check_names(given: Iterable[str]) -> None:
    """Raise UsageError unless all are options, with the nearest that is one."""
    from difflib import get_close_matches

    known = list(options_of(PARTS))
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"no augmentation option is called {name!r}; {hint}")


def check_needs(augment: Augment, given: Iterable[str]) -> None:
    """Raise UsageError if one of the given options belongs to another one that is off."""
    for name in given:
        needs = options_of(PARTS)[name].needs
        if needs is None:
            continue
        other, wanted = needs
        value = getattr(augment, other)
        if wanted == ON and not value:
            raise UsageError(f"{name} applies to {other} alone, which is off")
        if wanted not in (ON, value):
            raise UsageError(
                f"{name} applies to {other} {wanted!r} alone, and {other} is {value!r}"
            )


def as_pixels(image: Any) -> "Pixels":
    """An image of any kind that `Augment` takes -> (H, W, C), uint8."""
    import numpy as np
    import torch
    from PIL import Image

    from foveate.data.image import upright_rgb

    if isinstance(image, Image.Image):
        name = str(getattr(image, "filename", "")) or "(PIL image)"
        return np.asarray(upright_rgb(image, name))
    if isinstance(image, torch.Tensor):
        fits = image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] in (1, 3)
        if fits and image.numel():
            return image.permute(1, 2, 0).cpu().numpy()
        found = f"a tensor, {tuple(image.shape)}, {str(image.dtype).removeprefix('torch.')}"
    elif isinstance(image, np.ndarray):
        pixels = image[:, :, None] if image.ndim == 2 else image
        fits = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3)
        if fits and pixels.size:
            return pixels
        found = f"an array, {image.shape}, {image.dtype}"
    else:
        found = f"{type(image)}"
    raise UsageError(
        "Augment takes a PIL image, an array (H, W, 3) or (H, W) of uint8, or a tensor (3, H, W) "
        f"or (1, H, W) of uint8, not {found}"
    )


def render(pixels: "Pixels", steps: "Steps") -> "Tensor":
    """An image as its steps have it: (C, size, size), uint8, a tensor of its own memory, whose
    strides are whatever was fastest.

    Parts that work on planes of floating-point numbers stand beside each other, and are rounded
    once, after the last of them.
    """
    x: Any = pixels
    planes = False
    for part, drawn in steps:
        if part.planes != planes:
            x = to_planes(x) if part.planes else to_bytes(x)
            planes = part.planes
        x = part.render(x, drawn)
    return to_bytes(x) if planes else x


def to_planes(x: "Tensor") -> "Tensor":
    import torch

    return x.to(torch.float32, memory_format=torch.contiguous_format)


def to_bytes(planes: "Tensor") -> "Tensor":
    import numpy as np
    import torch

    # six times as fast as torch's
    return torch.from_numpy(planes.clamp_(0, 255).round_().numpy().astype(np.uint8))


def check_batch(images: Any, targets: Any, num_classes: int) -> None:
    """Raise UsageError unless a batch, its targets and the number of classes fit together."""
    import torch

    if not (
        isinstance(images, torch.Tensor)
        and images.ndim == 4
        and len(images)
        and (images.is_floating_point() or images.dtype == torch.uint8)
    ):
        raise UsageError(
            "a batch of images is a tensor (N, C, H, W), uint8 or floating point, not "
            f"{shape_of(images)}"
        )
    if not isinstance(targets, torch.Tensor) or targets.shape[:1] != images.shape[:1]:
        raise UsageError(f"targets must be a tensor of {len(images)}, not {shape_of(targets)}")
    whole = not targets.is_floating_point()
    if targets.ndim == 1 and whole:
        if int(targets.min()) < 0 or int(targets.max()) >= num_classes:
            raise UsageError(
                f"a target is out of range: {num_classes} classes are 0 to {num_classes - 1}"
            )
    elif tuple(targets.shape[1:]) != (num_classes,):
        raise UsageError(
            f"targets must be (N,) of whole numbers or (N, {num_classes}), not {shape_of(targets)}"
        )


def shape_of(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if hasattr(value, "dtype") else f"{type(value)}"


def collated(augment: Augment, num_classes: int, samples: "list[Any]") -> "tuple[Tensor, Tensor]":
    from torch.utils.data import default_collate

    images, targets = default_collate(samples)
    return augment.batch(images, targets, num_classes)
