"""The table of layers: published costs, depths in the papers' names, and that the network is left
alone."""

import functools
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from refusals import refused
from torch import Tensor, nn

from foveate import models
from foveate.catalogue import CATALOGUE
from foveate.models import MODELS
from foveate.models.summary import (
    Layer,
    Summary,
    as_text,
    kind,
    outermost,
    summarise,
    summarise_stages,
)

# Side of the images, and G multiply-accumulates that torchvision publishes for them.
PUBLISHED = {
    "alexnet": (224, 0.714),
    "densenet121": (224, 2.834),
    "densenet161": (224, 7.728),
    "densenet169": (224, 3.36),
    "densenet201": (224, 4.291),
    "efficientnet_b0": (224, 0.386),
    "efficientnet_b1": (240, 0.687),
    "efficientnet_b2": (288, 1.088),
    "efficientnet_b3": (300, 1.827),
    "efficientnet_b4": (380, 4.394),
    "efficientnet_b5": (456, 10.266),
    "efficientnet_b6": (528, 19.068),
    "efficientnet_b7": (600, 37.746),
    "googlenet": (224, 1.498),
    "inception_v3": (299, 5.713),
    "mobilenet_v2": (224, 0.301),
    "mobilenet_v3_large": (224, 0.217),
    "mobilenet_v3_small": (224, 0.057),
    "resnet18": (224, 1.814),
    "resnet34": (224, 3.664),
    "resnet50": (224, 4.089),
    "resnet101": (224, 7.801),
    "resnet152": (224, 11.514),
    "shufflenet_v2_x0_5": (224, 0.04),
    "shufflenet_v2_x1_0": (224, 0.145),
    "shufflenet_v2_x1_5": (224, 0.296),
    "shufflenet_v2_x2_0": (224, 0.583),
    "squeezenet1_0": (224, 0.819),
    "squeezenet1_1": (224, 0.349),
    "vgg11": (224, 7.609),
    "vgg11_bn": (224, 7.609),
    "vgg13": (224, 11.308),
    "vgg13_bn": (224, 11.308),
    "vgg16": (224, 15.47),
    "vgg16_bn": (224, 15.47),
    "vgg19": (224, 19.632),
    "vgg19_bn": (224, 19.632),
}
# Layers that the papers count, in their names or texts.
DEPTHS = {f"vgg{n}": n for n in (11, 13, 16, 19)}
DEPTHS |= {f"vgg{n}_bn": n for n in (11, 13, 16, 19)}
DEPTHS |= {f"resnet{n}": n for n in (18, 34, 50, 101, 152, 20, 32, 44, 56, 110)}
DEPTHS |= {f"densenet{n}": n for n in (121, 161, 169, 201)}
DEPTHS |= {
    "alexnet": 8,
    "alexnet_2012": 8,
    "googlenet_2014": 22,
    "inception_v3": 48,
    "plain56": 56,
    "mobilenet_v1": 28,
}

FIRST = {MODELS[name].__module__: name for name in reversed(MODELS)}  # of each file
LAST = {MODELS[name].__module__: name for name in MODELS}
FIRST_AND_LAST = sorted({*FIRST.values(), *LAST.values()})


@functools.cache
def meta_twin(name: str) -> nn.Module:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return models.build(name)


@functools.cache
def summary(name: str, side: int = 0) -> Summary:
    return summarise(meta_twin(name), (3, side, side) if side else None)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name in MODELS])
def test_work_is_torchvisions(name: str) -> None:
    side, published = PUBLISHED[name]
    macs = summary(name, 0 if side == meta_twin(name).input_size else side).macs / 1e9
    assert macs == pytest.approx(published, rel=1e-3, abs=0.0005)


@pytest.mark.parametrize("name", [name for name in DEPTHS if name in MODELS])
def test_depth_is_the_papers(name: str) -> None:
    assert summary(name).depth == DEPTHS[name]


# Depth, then receptive field / stride of each stage, in pixels of the image; "all": all of it.
FIELDS = {
    line.split()[0]: line
    for line in """
lenet5_1998 4: 6/2 16/4
lenet5 5: 6/2 16/4
alexnet_2012 8: 19/8 67/16 99/16 131/16 195/32
alexnet_one_tower 8: 19/8 67/16 99/16 131/16 195/32
alexnet 8: 19/8 67/16 99/16 131/16 195/32
nin 12: 19/8 67/16 131/32 195/32
nin_cifar 9: 7/2 19/4 27/4
vgg11 11: 4/2 10/4 30/8 70/16 150/32
vgg13 13: 6/2 16/4 36/8 76/16 156/32
vgg16 16: 6/2 16/4 44/8 100/16 212/32
vgg19 19: 6/2 16/4 52/8 124/16 268/32
vgg11_bn 11: 4/2 10/4 30/8 70/16 150/32
vgg13_bn 13: 6/2 16/4 36/8 76/16 156/32
vgg16_bn 16: 6/2 16/4 44/8 100/16 212/32
vgg19_bn 19: 6/2 16/4 52/8 124/16 268/32
googlenet_2014 22: 7/2 19/4 91/8 427/16 715/32
googlenet 22: 7/2 19/4 59/8 235/16 379/32
inception_v3 48: 11/2 23/4 127/8 927/16 1311/32
resnet18 18: 43/4 99/8 211/16 435/32
resnet34 34: 59/4 179/8 547/16 899/32
resnet50 50: 35/4 91/8 267/16 427/32
resnet101 101: 35/4 91/8 811/16 971/32
resnet152 152: 35/4 155/8 1291/16 1451/32
resnet50_v1 50: 35/4 99/8 291/16 483/32
resnet20 20: 15/1 37/2 81/4
resnet32 32: 23/1 61/2 137/4
resnet44 44: 31/1 85/2 193/4
resnet56 56: 39/1 109/2 249/4
resnet110 110: 75/1 217/2 501/4
plain20 20: 15/1 37/2 81/4
plain56 56: 39/1 109/2 249/4
squeezenet1_0 18: 7/2 35/4 107/8 155/16
squeezenet1_1 18: 3/2 23/4 63/8 207/16
densenet121 121: 59/4 255/8 1031/16 2071/32
densenet161 161: 59/4 255/8 1415/16 2967/32
densenet169 169: 59/4 255/8 1287/16 3351/32
densenet201 201: 59/4 255/8 1799/16 3863/32
densenet_bc_100_12 100: 35/1 100/2 230/4
mobilenet_v1 28: 7/2 19/4 43/8 219/16 315/32
mobilenet_v1_x0_25 28: 7/2 19/4 43/8 219/16 315/32
mobilenet_v1_x0_5 28: 7/2 19/4 43/8 219/16 315/32
mobilenet_v1_x0_75 28: 7/2 19/4 43/8 219/16 315/32
mobilenet_v2 53: 7/2 19/4 59/8 171/16 267/16 427/32 491/32 491/32
mobilenet_v3_small 54: all/4 all/8 all/16 all/16 all/32 all/32
mobilenet_v3_large 64: 7/2 19/4 all/8 all/16 all/16 all/32 all/32
shufflenet_v1 50: 63/8 303/16 527/32
shufflenet_v1_g1 50: 63/8 303/16 527/32
shufflenet_v1_g2 50: 63/8 303/16 527/32
shufflenet_v1_g4 50: 63/8 303/16 527/32
shufflenet_v1_g8 50: 63/8 303/16 527/32
shufflenet_v2_x0_5 51: 63/8 303/16 527/32 527/32
shufflenet_v2_x1_0 51: 63/8 303/16 527/32 527/32
shufflenet_v2_x1_5 51: 63/8 303/16 527/32 527/32
shufflenet_v2_x2_0 51: 63/8 303/16 527/32 527/32
efficientnet_b0 82: all/2 all/4 all/8 all/16 all/16 all/32 all/32 all/32
efficientnet_b1 116: all/2 all/4 all/8 all/16 all/16 all/32 all/32 all/32
efficientnet_b2 116: all/2 all/4 all/8 all/16 all/16 all/32 all/32 all/32
efficientnet_b3 131: all/2 all/4 all/8 all/16 all/16 all/32 all/32 all/32
efficientnet_b4 161: all/2 all/4 all/8 all/16 all/16 all/32 all/32 all/32
efficientnet_b5 195: all/2 all/4 all/8 all/16 all/16 all/32 all/32 all/32
efficientnet_b6 225: all/2 all/4 all/8 all/16 all/16 all/32 all/32 all/32
efficientnet_b7 274: all/2 all/4 all/8 all/16 all/16 all/32 all/32 all/32
efficientnet_lite0 50: 7/2 19/4 67/8 147/16 339/16 787/32 851/32 851/32
efficientnet_lite1 65: 7/2 27/4 107/8 219/16 475/16 1051/32 1115/32 1115/32
efficientnet_lite2 65: 7/2 27/4 107/8 219/16 475/16 1051/32 1115/32 1115/32
efficientnet_lite3 74: 7/2 27/4 107/8 251/16 571/16 1275/32 1339/32 1339/32
efficientnet_lite4 92: 7/2 35/4 147/8 323/16 707/16 1667/32 1731/32 1731/32
""".strip().splitlines()
}


def sides(sizes: tuple[int, int] | None) -> str:
    if sizes is None:
        return "all"
    return str(sizes[0]) if sizes[0] == sizes[1] else f"{sizes[0]}x{sizes[1]}"


def test_every_network_has_its_fields_here() -> None:
    assert list(FIELDS) == list(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_figures_of_every_network(name: str) -> None:
    """Of one summary, which takes a second: what the table above says, and the catalogue."""
    found = summary(name)
    stages = summarise_stages(meta_twin(name), found)[:-1]
    shown = " ".join(f"{sides(s.field)}/{sides(s.stride)}" for s in stages)
    assert f"{name} {found.depth}: {shown}" == FIELDS[name]
    entry = CATALOGUE[name]
    assert (entry.parameters, entry.macs) == (found.parameters, found.macs)


@pytest.mark.parametrize("name", FIRST_AND_LAST)
def test_figures_add_up(name: str) -> None:
    """Rows are counted from modules, the totals from operations and parameters: nothing is lost
    between them."""
    found, network = summary(name), meta_twin(name)
    assert found.size[1:] == (network.input_size, network.input_size)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert (found.idle > 0) == bool(getattr(network, "AUXILIARY", ()))
    leaves = [layer for layer in found.layers if not layer.block]
    for rows in (outermost(found.layers), leaves):
        assert sum(layer.parameters for layer in rows) == found.parameters - found.idle
        assert sum(layer.macs for layer in rows) == found.macs
    modules = dict(network.named_modules())
    for layer in leaves:
        assert layer.parameters == sum(p.numel() for p in modules[layer.name].parameters())


@pytest.mark.parametrize("name", FIRST_AND_LAST)
def test_stages_share_out_the_network(name: str) -> None:
    found, network = summary(name), meta_twin(name)
    *stages, head = summarise_stages(network, found)
    x = torch.zeros(1, *found.size, device="meta")
    with torch.no_grad():
        maps = network.eval().stages(x)
    assert [stage.shape for stage in stages] == [tuple(y.shape[1:]) for y in maps]
    assert [stage.name for stage in stages] == [f"stage {i + 1}" for i in range(len(maps))]
    assert (head.name, head.shape, head.field, head.stride) == ("head", found.shape, None, None)
    assert sum(stage.parameters for stage in (*stages, head)) == found.parameters - found.idle
    assert sum(stage.macs for stage in (*stages, head)) == found.macs
    last = network.head
    names = [name for name, module in network.named_modules() if module is last]
    assert names[0] in [layer.name for layer in head.layers]
    steps = [stage.stride[0] for stage in stages if stage.stride]
    assert steps == sorted(steps)


class Block(nn.Module):
    """A branch of two, a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.ReLU()
        )
        self.again = nn.Sequential(
            nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), bias=False), nn.Dropout()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.again(self.branch(x))


class Little(nn.Module):
    """By hand: 2 x 9 x 9 -> 4 x 4 x 4 -> 3 classes."""

    input_size, min_size = 9, 3

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=2)
        self.row = nn.Sequential(Block(4), nn.BatchNorm2d(4))
        self.pool = nn.MaxPool2d(2)
        self.auxiliary = nn.Linear(1, 1)
        self.head = nn.Linear(4, 3)

    def stages(self, x: Tensor) -> list[Tensor]:
        return [y := self.row(torch.relu(self.stem(x))), self.pool(y)]

    def forward(self, x: Tensor) -> Any:
        if self.training:
            raise AssertionError("a summary is one of the network in evaluation")
        return self.head(self.stages(x)[-1].mean(dim=(2, 3)))


ROWS = (
    Layer("stem", "Conv2d 3x3 /2", (4, 4, 4), 76, 16 * 72, (3, 3), (2, 2)),
    Layer("row", "Sequential", (4, 4, 4), 96, 16 * 84, (7, 11), (2, 2), block=True),
    Layer("row.0", "Block", (4, 4, 4), 88, 16 * 84, (7, 11), (2, 2), block=True),
    Layer("row.0.branch.0", "Conv2d 3x3 depthwise", (4, 4, 4), 40, 16 * 36, (7, 7), (2, 2)),
    Layer("row.0.again.0", "Conv2d 1x3", (4, 4, 4), 48, 16 * 48, (7, 11), (2, 2)),
    Layer("row.1", "BatchNorm2d", (4, 4, 4), 8, 0, (7, 11), (2, 2)),
    Layer("pool", "MaxPool2d 2x2 /2", (4, 2, 2), 0, 0, (9, 13), (4, 4)),
    Layer("head", "Linear", (3,), 15, 12, None, None),
)


def test_a_little_network_by_hand() -> None:
    found = summarise(Little())
    assert found.layers == ROWS
    assert found == Summary((2, 9, 9), (3,), ROWS, parameters=189, idle=2, macs=2508, depth=4)
    with pytest.raises(FrozenInstanceError):
        found.macs = 0  # type: ignore[misc]
    first, second, head = summarise_stages(Little())
    assert (first.layers, second.layers, head.layers) == (ROWS[:6], ROWS[6:7], ROWS[7:])
    assert (first.parameters, first.macs, first.field) == (172, 2496, (7, 11))
    assert outermost(ROWS) == [ROWS[0], ROWS[1], ROWS[6], ROWS[7]]


def test_text_for_people() -> None:
    assert as_text(summarise(Little())).splitlines() == [
        "layer         kind                  output  parameters   MACs   field  stride",
        "-----------------------------------------------------------------------------",
        "stem          Conv2d 3x3 /2          4x4x4          76  1,152       3       2",
        "row           Sequential             4x4x4          96  1,344    7x11       2",
        "  0           Block                  4x4x4          88  1,344    7x11       2",
        "    branch.0  Conv2d 3x3 depthwise   4x4x4          40    576       7       2",
        "    again.0   Conv2d 1x3             4x4x4          48    768    7x11       2",
        "  1           BatchNorm2d            4x4x4           8      0    7x11       2",
        "pool          MaxPool2d 2x2 /2       4x2x2           0      0    9x13       4",
        "head          Linear                     3          15     12  global       -",
        "-----------------------------------------------------------------------------",
        "189 parameters, 0.000 G MACs, 4 layers deep, images of 2x9x9; 2 of the parameters are for "
        "training only",
    ]


def test_the_network_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    network = models.build("efficientnet_lite0", num_classes=2).train()
    network.features[0].eval()
    network.features[8].requires_grad_(False)
    before = {
        name: (t, t.clone(), t.requires_grad)
        for name, t in network.state_dict(keep_vars=True).items()
    }
    modes = [m.training for m in network.modules()]
    summarise_stages(network, summarise(network, (3, 40, 50)))
    assert [m.training for m in network.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    after = network.state_dict(keep_vars=True)
    for name, (tensor, copied, learns) in before.items():
        assert after[name] is tensor and torch.equal(tensor, copied)
        assert tensor.requires_grad == learns and tensor.grad is None


def test_nothing_is_computed() -> None:
    """An image of four billion pixels: no machine's memory would do."""
    found = summarise(meta_twin("efficientnet_lite0"), (3, 2**16, 2**16))
    assert found.macs > 3e13
    assert found.layers[1].shape == (32, 2**15, 2**15)


def test_other_precisions_and_shapes() -> None:
    network = Little().to(torch.bfloat16)
    assert summarise(network, (2, 9, 9)).layers == ROWS
    assert summarise(network, (2, 30, 20)).layers[0].shape == (4, 14, 9)
    pool = summarise(nn.Sequential(nn.MaxPool2d(3, 1)), (1, 5, 6))  # nor need it have parameters
    assert pool.layers == (Layer("0", "MaxPool2d 3x3", (1, 3, 4), 0, 0, (3, 3), (1, 1)),)


@pytest.mark.parametrize(
    "size", [(3, 224), (3, 224, 0), (0, 224, 224), (1, 3, 224, 224), (3, -1, 9)]
)
def test_sizes_that_are_none(size: Any) -> None:
    with refused(ValueError, "channels, height, width"):
        summarise(Little(), size)


def test_groups_in_words() -> None:
    assert kind(nn.Conv2d(6, 12, 1, groups=3)) == "Conv2d 1x1 in 3 groups"
    assert kind(nn.Conv2d(6, 12, 1, groups=6)) == "Conv2d 1x1 depthwise"
    assert kind(nn.Conv2d(1, 12, (3, 5))) == "Conv2d 3x5"


def test_what_a_module_lacks_is_named() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert summarise(module, (3, 8, 8)).parameters == 112
    with refused(TypeError, "Sequential", "input_size"):
        summarise(module)
    with refused(TypeError, "Sequential", "stages"):
        summarise_stages(module, summarise(module, (3, 8, 8)))
