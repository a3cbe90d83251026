"""Networks from elsewhere: timm's, and plain modules.

A network of Foveate has `stages`, `embed`, `head`, `input_size` and `min_size`. One of timm's gets
them from `TimmNetwork`. A plain module (a class with a `forward`, an `nn.Sequential`) is taken as
it is: `inspect_module` finds out which images it reads and what it gives, `check_parts` which parts
it lacks. Nothing here imports timm: whoever has one of its modules has it installed.

>>> lenet = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 24 * 24, 10))
>>> inspect_module(lenet, num_classes=10).text
'1 channel (its first convolution), 28x28 pixels (the first size that fits), 10 outputs'
"""

import copy
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from foveate.models.network import missing_parts
from foveate.models.size import at_least
from foveate.models.summary import meta_twin
from foveate.models.surgery import first_convolution

# timm


class TimmNetwork(nn.Module):
    """A convolutional network of timm, with the parts that every network of Foveate has.

    The stages are those that timm itself names (its `feature_info`), so that a stem may be one of
    them; the last map is what the network's head reads, which may be one more. The logits are
    timm's own, to the bit.

    timm's module is kept whole under the name `timm`: in `state_dict()` each of its names begins
    with `timm.`, and a checkpoint of timm's loads with `network.timm.load_state_dict(...)`.

    Args:
        module: built by timm, with a last layer; with any weights, on any device.

    Attributes:
        in_channels: of the images.
        folding: pixels that become channels before the first convolution; 1 for most.
        input_size: side of the images that it was made for, pixels.
        min_size: side of the smallest image that it reads, pixels.

    Raises:
        ValueError: it is no module of timm; it gives no maps (a vision transformer); it has no last
            layer, or several, or does something else between `embed` and the last layer.

    >>> from timm import create_model
    >>> network = TimmNetwork(create_model("resnet18", num_classes=10))
    >>> network.head, network.input_size
    (Linear(in_features=512, out_features=10, bias=True), 224)
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        if not is_timm(module):
            raise ValueError(
                f"{kind(module)} is no network of timm: expected forward_intermediates, "
                "forward_features, forward_head, get_classifier and pretrained_cfg (timm >= 1.0.15)"
            )
        config: Any = module.pretrained_cfg
        self.timm: Any = module
        self.training = module.training
        self.head_path = head_path(module)
        self.input_size = int(config["input_size"][-1])
        twin: Any = meta_twin(module)
        channels = images_channels(twin, self.input_size)
        self.folding = channels_read(module) // channels
        self.extra_map = has_extra_map(twin, blank(channels, self.input_size))
        check_head(twin, self.head_path, blank(channels, self.input_size))
        self.min_size = smallest_side(twin, channels, self.input_size)

    @property
    def in_channels(self) -> int:
        return channels_read(self) // self.folding

    @property
    def head(self) -> nn.Module:
        return self.timm.get_submodule(self.head_path)

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the map at the end of each of timm's stages, and last the one that the
        head reads."""
        at_least(self, x)
        last, maps = self.timm.forward_intermediates(x)
        return [*(maps if self.extra_map else maps[:-1]), last]

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width), what the head reads. A convolutional head reads it as
        (N, width, 1, 1)."""
        at_least(self, x)
        features = self.timm.forward_features(x)
        return self.timm.forward_head(features, pre_logits=True).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        at_least(self, x)
        return self.timm(x)


SEARCHED = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256)  # sides, pixels
TIMM_PARTS = ("forward_intermediates", "forward_features", "forward_head", "get_classifier")


def is_timm(module: nn.Module) -> bool:
    """Whether it is a network of timm's, by what timm documents of all of them."""
    return isinstance(getattr(module, "pretrained_cfg", None), dict) and all(
        callable(getattr(module, part, None)) for part in TIMM_PARTS
    )


def adapt_timm(module: nn.Module) -> TimmNetwork:
    """A network of timm, with the parts of one of Foveate; what has them already is left as it is.

    Raises:
        ValueError: as `TimmNetwork`.
    """
    return module if isinstance(module, TimmNetwork) else TimmNetwork(module)


def head_path(module: nn.Module) -> str:
    """The name of the last layer in a module of timm."""
    config: Any = module.pretrained_cfg
    named = config.get("classifier")
    if not isinstance(named, str):
        raise ValueError(
            f"{kind(module)} has {len(named or ())} last layers, expected one: a distilled network "
            "averages two; choose a network with one head"
        )
    try:
        top = module.get_submodule(named)
    except AttributeError as error:
        raise ValueError(f"{kind(module)} has no layer '{named}', its last one in timm") from error
    layers = [name for name, layer in top.named_modules() if is_last_layer(layer)]
    if len(layers) != 1:
        raise ValueError(
            f"{kind(module)} has no last layer: '{named}' is {kind(top)}, expected one linear "
            "layer or 1x1 convolution; build it with num_classes of at least 1"
        )
    return f"{named}.{layers[0]}" if layers[0] else named


def is_last_layer(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    )


def images_channels(twin: Any, side: int) -> int:
    """How many channels a network without memory reads.

    As many as its first convolution, unless pixels are folded into channels before it.
    """
    usual = int(twin.pretrained_cfg["input_size"][0])
    tried = list(dict.fromkeys((channels_read(twin), usual)))
    errors = [attempt(twin, blank(channels, side)) for channels in tried]
    fits = [channels for channels, error in zip(tried, errors, strict=True) if error is None]
    if not fits:
        raise ValueError(f"{kind(twin)} does not run on images of {side}x{side}: {errors[-1]}")
    return fits[0]


def channels_read(module: nn.Module) -> int:
    """By the first convolution; ValueError if there is none."""
    first = first_convolution(module)
    if first is None:
        raise ValueError(
            f"{kind(module)} has no convolution that would say how many channels its images have; "
            "give channels=: 1 for grey, 3 for colour"
        )
    return first.in_channels


def has_extra_map(twin: Any, images: Tensor) -> bool:
    """Whether the head reads another map than the last stage's: a convolution widens it first.

    ValueError if there are no maps: (N, C, H, W) at the end, of the size of the last stage's.
    """
    with torch.no_grad():
        last, maps = twin.forward_intermediates(images)
    whole = all(isinstance(m, Tensor) and m.ndim == 4 for m in [last, *maps])
    if not whole or last.shape[2:] != maps[-1].shape[2:]:
        found = f"{tuple(last.shape)}" if isinstance(last, Tensor) else f"a {type(last).__name__}"
        raise ValueError(
            f"{kind(twin)} is no convolutional network: its head reads {found}, expected a map "
            "(N, C, H, W); a transformer has tokens instead, or channels last"
        )
    return bool(last.shape[1] != maps[-1].shape[1])


def check_head(twin: Any, path: str, images: Tensor) -> None:
    """ValueError unless all that has parameters runs in `embed`, except the head."""
    ran: set[str] = set()
    for name, layer in twin.named_modules():
        if name and next(layer.parameters(recurse=False), None) is not None:
            layer.register_forward_hook(lambda *_, name=name: ran.add(name))
    with torch.no_grad():
        twin(images)
        whole = frozenset(ran)
        ran.clear()
        twin.forward_head(twin.forward_features(images), pre_logits=True)
    if between := sorted(whole - ran - {path}):
        raise ValueError(
            f"{kind(twin)} does more than its last layer '{path}' after what that layer should "
            f"read: {', '.join(between)}; such a head cannot be replaced"
        )


def smallest_side(twin: Any, channels: int, usual: int) -> int:
    """Side of the smallest image that a network reads; most read a single pixel.

    Some read multiples of 32 alone, so that the search begins with such.
    """
    if twin.pretrained_cfg.get("fixed_input_size"):
        return usual
    too_small = 0
    for side in (*(s for s in SEARCHED if s < usual), usual):
        if attempt(twin, blank(channels, side)) is None:
            break
        too_small = side
    fits = side
    while too_small + 1 < fits:
        side = (too_small + fits) // 2
        if attempt(twin, blank(channels, side)) is None:
            fits = side
        else:
            too_small = side
    return fits


def attempt(module: Any, images: Tensor) -> Exception | None:
    """What goes wrong when a module reads images."""
    try:
        with torch.no_grad():
            module(images)
    except Exception as error:  # whatever a forward may raise
        return error
    return None


def blank(channels: int, side: int) -> Tensor:
    return torch.empty(2, channels, side, side, device="meta")


# Plain modules


SIDES = (28, 32, 64, 96, 224)  # of digits, of CIFAR, of small photos, of photos

# What a probe and a fine-tuning need of a network.
PARTS = {
    "stages": "stages(x), a list of the maps at the end of each stage, (N, C, H, W) each",
    "head": "head, its last layer, a module inside it",
}


@dataclass(frozen=True)
class Taken:
    """Which images a module reads, and what it gives.

    Args:
        channels: of an image.
        size: side of an image, pixels.
        outputs: numbers an image, one a class.
        text: all of it, and how it was found, for a person.
    """

    channels: int
    size: int
    outputs: int
    text: str = field(compare=False)


def inspect_module(
    module: nn.Module,
    num_classes: int,
    n: int = 2,
    channels: int | None = None,
    size: int | None = None,
    image_side: int | None = None,
) -> Taken:
    """Find out which images a module reads, by showing it some.

    A copy is shown noise, in evaluation, on the module's device. The module, its mode and its
    buffers, and the states of random number generators stay as they are.

    Args:
        module: images (N, C, H, W) -> logits (N, classes).
        num_classes: outputs that are expected.
        n: images at once, at least 2: with one, rows that are lost or mixed would not be noticed.
        channels: of the images; by default those of its first convolution.
        size: their side; by default its `input_size`, or the first side that fits of `image_side`,
            28, 32, 64, 96 and 224.
        image_side: of the images at hand, tried first.

    Raises:
        ValueError: no size fits, and what came of the last; it gives no (N, outputs) at the size
            given; outputs are not num_classes; there is no convolution and no `channels`; it cannot
            be copied; a lazy layer has not seen an image yet.

    >>> inspect_module(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), 2, channels=1, size=8).outputs
    2
    """
    assert n >= 2
    check_complete(module)
    if channels is None:
        channels, by = channels_read(module), " (its first convolution)"
    else:
        by = ""
    own = getattr(module, "input_size", None)
    if size is not None:
        sides, found = [size], ""
    elif isinstance(own, int):
        sides, found = [own], " (its input_size)"
    else:
        given = [] if image_side is None else [image_side]
        sides, found = list(dict.fromkeys([*given, *SIDES])), " (the first size that fits)"

    twin = duplicate(module).eval()
    parameter = next((p for p in twin.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    answer, error = "", None
    for side in sides:
        images = torch.rand(n, channels, side, side, generator=generator)
        with same_randomness(parameter.device):
            outputs, answer, error = run_once(twin, images.to(parameter))
        if outputs is not None:
            break
    else:
        tried = " or ".join(f"{side}x{side}" for side in sides)
        remedy = "give size=, channels=, or mend its forward"
        raise ValueError(
            f"{kind(module)} does not read {n} images of {channels} "
            f"{'channel' if channels == 1 else 'channels'} and {tried} pixels: at "
            f"{sides[-1]}x{sides[-1]} {answer}; {remedy}"
        ) from error
    if outputs != num_classes:
        raise ValueError(
            f"{kind(module)} gives {outputs} outputs, and there are {num_classes} classes; give "
            f"its last layer {num_classes} outputs"
        )
    text = (
        f"{channels} {'channel' if channels == 1 else 'channels'}{by}, {side}x{side} pixels"
        f"{found}, {outputs} outputs"
    )
    return Taken(channels, side, outputs, text)


def check_complete(module: nn.Module) -> None:
    """ValueError if there are layers that take their shape from the first images they see."""
    lazy = [name for name, parameter in module.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ValueError(
            f"{kind(module)} has lazy layers without a shape ({', '.join(lazy)}); show it a batch "
            "of images first: module(images)"
        )


def duplicate(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # whatever is in the user's module
        raise ValueError(
            f"{kind(module)} cannot be copied, which training has to do (copy.deepcopy: "
            f"{summary_of(error)}); keep no results of a forward in it"
        ) from error


def run_once(module: nn.Module, images: Tensor) -> tuple[int | None, str, Exception | None]:
    """How many outputs an image has; None, with what is wrong, if it is not (N, outputs)."""
    try:
        with torch.no_grad():
            output = module(images)
    except Exception as error:  # sizes that do not fit, or a mistake: who calls tells the two apart
        return None, f"it fails with {summary_of(error)}", error
    if not isinstance(output, Tensor):
        return None, f"it gives a {type(output).__name__}, expected a tensor (N, classes)", None
    if output.ndim != 2:
        return None, f"it gives {tuple(output.shape)}, expected (N, classes)", None
    if len(output) != len(images):
        return None, f"it gives {len(output)} rows for {len(images)} images", None
    return output.shape[1], "", None


@contextmanager
def same_randomness(device: torch.device) -> Iterator[None]:
    """Afterwards random numbers go on as if nothing had been drawn."""
    before = random.getstate()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(before)


def check_parts(module: nn.Module) -> None:
    """ValueError, with what to write, if a module lacks what a probe or a fine-tuning needs."""
    lacking = missing_parts(module)
    if missing := [part for part in PARTS if part in lacking]:
        raise ValueError(
            f"{kind(module)} cannot be probed or fine-tuned: it has no {' and no '.join(missing)}; "
            f"define {'; '.join(PARTS[part] for part in missing)}; or train it with the recipe "
            "scratch, which needs its forward alone"
        )


def check_stages(module: Any, channels: int, side: int) -> None:
    """ValueError unless `stages` gives maps, (N, C, H, W) each, in a list or a tuple, of images of
    this size. A copy is asked, in evaluation; the states of random number generators stay."""
    twin: Any = duplicate(module).eval()
    parameter = next((p for p in twin.parameters() if p.is_floating_point()), torch.empty(0))
    images = torch.zeros(2, channels, side, side).to(parameter)
    read = f"{kind(module)}.stages, shown 2 images of {channels} x {side}x{side} pixels,"
    try:
        with torch.no_grad(), same_randomness(parameter.device):
            maps = twin.stages(images)
    except Exception as error:  # whatever a user's code may raise
        raise ValueError(f"{read} fails with {summary_of(error)}") from error
    expected = "expected a list of maps, (2, C, H, W) each"
    if not isinstance(maps, (list, tuple)) or not maps:
        found = "nothing" if isinstance(maps, (list, tuple)) else f"a {type(maps).__name__}"
        raise ValueError(f"{read} gives {found}, {expected}")
    for i, each in enumerate(maps):
        if not isinstance(each, Tensor) or each.ndim != 4 or len(each) != 2:
            found = str(tuple(each.shape)) if isinstance(each, Tensor) else type(each).__name__
            raise ValueError(f"{read} gives {found} as map {i + 1}, {expected}")


def module_hash(module: nn.Module) -> str:
    """Hexadecimal SHA-256 of all tensors of a module: names, shapes, types and numbers.

    The same in every process, on every device, for every memory format. What a `forward` does with
    the tensors is no part of it.

    Raises:
        ValueError: a tensor has no numbers (it is on the meta device, or lazy).
    """
    check_complete(module)
    digest = hashlib.sha256()
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        if tensor.is_meta:
            raise ValueError(f"the tensor '{name}' is on the meta device and has no numbers")
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def kind(module: nn.Module) -> str:
    return type(module).__name__


def summary_of(error: Exception) -> str:
    """The class of an error and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")
