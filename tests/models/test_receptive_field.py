"""Receptive fields, steps and depths against gradients: which pixels of the image can move a pixel
of the map?"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import models
from foveate.models import MODELS
from foveate.models.receptive_field import Follower
from foveate.models.summary import summarise, summarise_stages

BY_GRADIENT = [
    name
    for name in (
        "alexnet",
        "vgg11",
        "googlenet",
        "inception_v3",
        "resnet18",
        "resnet50",
        "resnet20",
        "squeezenet1_1",
        "densenet121",
        "mobilenet_v1",
        "mobilenet_v2",
        "shufflenet_v1",
        "shufflenet_v2_x0_5",
        "efficientnet_lite0",
    )
    if name in MODELS
]


def evened(network: nn.Module) -> nn.Module:
    """Every pixel that is looked at counts, none cancels out another: means for weights, nothing
    normalised.

    A network on the meta device gets memory for its convolutional part only.
    """
    network.double().eval()
    for m in network.modules():
        if isinstance(m, (nn.Conv2d, nn.BatchNorm2d)):
            m.to_empty(device="cpu")
        if isinstance(m, nn.Conv2d):
            nn.init.constant_(m.weight, 1 / m.weight[0].numel())
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.BatchNorm2d):
            m.reset_parameters()
    return network


def extent(y: Tensor, x: Tensor, pixel: tuple[int, int]) -> list[tuple[int, int]]:
    """First and last row, first and last column of `x` on which a pixel of `y` depends."""
    [gradient] = torch.autograd.grad(y[:, :, pixel[0], pixel[1]].sum(), x, retain_graph=True)
    felt = gradient[0].abs().sum(dim=0) > 0
    return [
        (int(line.nonzero()[0]), int(line.nonzero()[-1]))
        for line in (felt.any(dim=1), felt.any(dim=0))
    ]


@pytest.fixture
def averaging(monkeypatch: pytest.MonkeyPatch) -> None:
    """A maximum depends on one pixel at a time: an average over the same window instead."""

    def average(
        x: Tensor,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        dilation: int = 1,
        ceil_mode: bool = False,
        **_: bool,
    ) -> Tensor:
        assert dilation == 1
        return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)

    monkeypatch.setattr(F, "max_pool2d", average)


class Sum(nn.Module):
    """Branches added."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).sum(dim=0)


class Concatenation(Sum):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def conv(
    kernel: int | tuple[int, int], stride: int = 1, dilation: int = 1, c_in: int = 2, **more: int
) -> nn.Conv2d:
    return nn.Conv2d(c_in, 2, kernel, stride, dilation=dilation, **more)


def shuffle(x: Tensor) -> Tensor:
    return x.view(x.shape[0], 2, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], tuple[int, int]]] = {
    "stride": (lambda: nn.Sequential(conv(3, 2), conv(5, 3), conv(3)), (23, 23), (6, 6)),
    "dilation": (
        lambda: nn.Sequential(conv(3, dilation=4), conv(3, 2, dilation=3)),
        (15, 15),
        (2, 2),
    ),
    "two sides": (
        lambda: nn.Sequential(conv((1, 7)), conv((3, 1)), conv((3, 1), 2)),
        (5, 7),
        (2, 2),
    ),
    "padding": (
        lambda: nn.Sequential(conv(3, padding=1), conv(5, 2, padding=2), conv(2)),
        (9, 9),
        (2, 2),
    ),
    "depthwise": (
        lambda: nn.Sequential(conv(3, groups=2), conv(1), conv(3, 2, groups=2)),
        (5, 5),
        (2, 2),
    ),
    "pools": (
        lambda: nn.Sequential(nn.MaxPool2d(3, 2), nn.AvgPool2d(2), nn.MaxPool2d(2, 1, 1)),
        (9, 9),
        (4, 4),
    ),
    "ceiling": (lambda: nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), conv(3)), (7, 7), (2, 2)),
    "adaptive": (
        lambda: nn.Sequential(conv(3, padding=1), nn.AdaptiveAvgPool2d(15)),
        (6, 6),
        (4, 4),
    ),
    "shortcut": (
        lambda: Sum(nn.Sequential(conv(3, 2, padding=1), conv(3, padding=1)), conv(1, 2)),
        (7, 7),
        (2, 2),
    ),
    "branches": (
        lambda: nn.Sequential(Concatenation(conv(1), conv(5, padding=2)), conv(3, c_in=4)),
        (7, 7),
        (1, 1),
    ),
    # neither branch holds the other: pixels 0 to 2 of one, 1 to 4 of the other
    "askew": (
        lambda: Sum(Lambda(lambda x: F.avg_pool2d(x, 3, 1)[:, :, :-2, :-2]), Lambda(late)),
        (5, 5),
        (1, 1),
    ),
    "slice": (
        lambda: nn.Sequential(conv(3, 2), Lambda(lambda x: x[:, :, 1::2, -20:]), conv(2)),
        (7, 5),
        (4, 2),
    ),
    "pad": (
        lambda: nn.Sequential(Lambda(lambda x: F.pad(x, (1, 2, 0, 1))), conv(4, 2)),
        (4, 4),
        (2, 2),
    ),
    "shuffle": (
        lambda: nn.Sequential(conv(3), Lambda(shuffle), Lambda(lambda x: x.chunk(2, 1)[0])),
        (3, 3),
        (1, 1),
    ),
    "neighbours": (
        lambda: nn.Sequential(conv(3, 2), nn.LocalResponseNorm(2), nn.ReLU6()),
        (3, 3),
        (2, 2),
    ),
}


def late(x: Tensor) -> Tensor:
    return F.avg_pool2d(x[:, :, 1:, 1:], 4, 1)


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_against_gradients(name: str, averaging: None) -> None:
    make, field, step = SMALL[name]
    network = evened(make())
    x = torch.rand(1, 2, 60, 60, dtype=torch.float64, requires_grad=True)
    y, shapeless = network(x), torch.empty(1, 2, 60, 60, dtype=torch.float64, device="meta")
    with torch.no_grad(), Follower(shapeless) as follower:
        origin = follower.origin(network.to("meta")(shapeless))
    assert (origin.field(), origin.stride()) == (field, step)  # as worked out by hand
    for i in (y.shape[2] // 2, y.shape[2] // 2 + 1):
        for axis, (first, last) in zip(
            (origin.height, origin.width), extent(y, x, (i, i)), strict=True
        ):
            assert (i * axis.step + axis.first, i * axis.step + axis.last) == (first, last)


@pytest.mark.parametrize("name", BY_GRADIENT)
@pytest.mark.parametrize("upright", [True, False])
def test_stages_against_gradients(name: str, upright: bool, averaging: None) -> None:
    """A strip as long as the field and as narrow as the network allows is enough, and cheap: one
    side at a time."""
    with torch.device("meta"):
        network = models.build(name)
    stages = summarise_stages(network, summarise(network))[:-1]
    evened(network)
    fields, steps = [s.field for s in stages], [s.stride for s in stages]
    side = 0 if upright else 1
    long = max(f[side] for f in fields) + 4 * steps[-1][side]
    shape = (long, network.min_size) if upright else (network.min_size, long)
    x = 1e-6 * torch.rand(1, 3, *shape, dtype=torch.float64)  # small: ReLU6 must not saturate
    maps = network.stages(x.requires_grad_())
    for y, field, step in zip(maps, fields, steps, strict=True):
        middle = [n // 2 for n in y.shape[2:]]
        first, last = extent(y, x, (middle[0], middle[1]))[side]
        assert last - first + 1 == field[side]
        middle[side] += 1
        assert extent(y, x, (middle[0], middle[1]))[side][0] - first == step[side]


def test_everything_from_an_average_on() -> None:
    x = torch.empty(1, 2, 8, 8, device="meta")
    with torch.no_grad(), Follower(x) as follower, torch.device("meta"):
        y = conv(3, 2)(x)
        weight = y.mean(dim=(2, 3), keepdim=True)
        weighed = y * torch.sigmoid(conv(1)(weight))
        answer = nn.Linear(2, 5)(conv(3)(weighed).amax(dim=(2, 3), keepdim=True).flatten(1))
        flat = nn.Linear(18, 5)(y.flatten(1))
    assert follower.origin(y).field() == (3, 3)
    assert (follower.origin(weight).field(), follower.origin(weight).stride()) == (None, None)
    assert (follower.origin(weighed).field(), follower.origin(weighed).stride()) == (None, (2, 2))
    assert (follower.origin(answer).field(), follower.origin(answer).stride()) == (None, None)
    assert (follower.origin(flat).field(), follower.origin(flat).stride()) == (None, None)
    assert [follower.origin(t).depth for t in (y, weight, weighed, answer, flat)] == [1, 1, 2, 4, 2]
    assert follower.macs == 9 * 2 * 18 + 2 * 2 + 18 * 2 + 10 + 90


def test_an_average_over_channels_stays_where_it_is() -> None:
    x = torch.empty(1, 2, 8, 8, device="meta")
    with Follower(x) as follower:
        assert follower.origin(x.mean(dim=1, keepdim=True)).field() == (1, 1)
        assert follower.origin(x.mean()).field() is None


def test_uneven_adaptive_pooling_sees_at_most_its_largest_window() -> None:
    x = torch.empty(1, 1, 5, 8, device="meta")
    with Follower(x) as follower:
        origin = follower.origin(F.adaptive_avg_pool2d(x, 3))
    assert origin.field() == (3, 4)  # rows 0-1, 1-3, 3-4; columns 0-2, 2-5, 5-7


def test_what_cannot_be_followed_is_refused() -> None:
    x = torch.empty(1, 1, 4, 4, device="meta")
    with (
        Follower(x),
        pytest.raises(NotImplementedError, match="fields cannot be followed through aten"),
    ):
        F.interpolate(x, scale_factor=2)
    with (
        Follower(x),
        pytest.raises(AssertionError, match="transposed convolutions are in no network"),
    ):
        F.conv_transpose2d(x, torch.empty(1, 1, 2, 2, device="meta"))
