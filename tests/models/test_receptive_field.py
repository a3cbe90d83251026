"""Receptive fields, steps and depths against gradients: which pixels of the image can move a pixel
of the map?"""

from collections.abc import Callable

import pytest
import torch
from refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import models
from foveate.models import MODELS
from foveate.models.receptive_field import Axis, Follower, Origin
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
    y, meta_twin = network(x), torch.empty(1, 2, 60, 60, dtype=torch.float64, device="meta")
    with torch.no_grad(), Follower(meta_twin) as follower:
        origin = follower.origin(network.to("meta")(meta_twin))
    assert (origin.field(), origin.stride()) == (field, step)  # as worked out by hand
    for i in (y.shape[2] // 2, y.shape[2] // 2 + 1):
        for axis, (first, last) in zip(
            (origin.height, origin.width), extent(y, x, (i, i)), strict=True
        ):
            assert (i * axis.step + axis.first, i * axis.step + axis.last) == (first, last)


@pytest.mark.slow
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


def followed(function: Callable[[Tensor], Tensor]) -> tuple[Origin, int]:
    """Origin and multiply-accumulates of what is made of two images of 3x16x12."""
    x = torch.empty(2, 3, 16, 12, device="meta")
    with torch.no_grad(), torch.device("meta"), Follower(x) as follower:
        return follower.origin(function(x)), follower.macs


def tokens(x: Tensor) -> Tensor:
    """(2, 3, 16, 12) -> (2, 35, 8): a map of 7x5, each pixel seeing 3x3 at stride 2."""
    return nn.Conv2d(3, 8, 3, stride=2)(x).flatten(2).transpose(1, 2)


def explicit_attention(x: Tensor) -> Tensor:
    q, k, v = nn.Linear(8, 24)(tokens(x)).chunk(3, dim=-1)
    weights = torch.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=-1)
    return (weights @ v).transpose(1, 2).reshape(2, 8, 7, 5)


def attention_of_heads(x: Tensor) -> Tensor:
    qkv = nn.Linear(8, 24)(tokens(x)).view(2, 35, 3, 2, 4).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(*qkv.unbind(0))
    return y.transpose(1, 2).reshape(2, 35, 8).transpose(1, 2).reshape(2, 8, 7, 5)


@pytest.mark.parametrize("attention", [explicit_attention, attention_of_heads])
def test_attention_sees_the_whole_image_and_costs_its_products(
    attention: Callable[[Tensor], Tensor],
) -> None:
    origin, macs = followed(attention)
    assert (origin.field(), origin.stride(), origin.depth) == (None, (2, 2), 2)
    n = 2 * 35
    assert macs == n * 8 * 27 + n * 24 * 8 + 2 * n * 35 * 8  # convolution, qkv, two products
    wider, _ = followed(lambda x: nn.Conv2d(8, 4, 3, stride=3)(attention(x)))
    assert (wider.field(), wider.stride(), wider.depth) == (None, (6, 6), 3)


def test_attention_within_rows_sees_rows() -> None:
    def rows(x: Tensor) -> Tensor:
        y = nn.Conv2d(3, 8, 3)(x).permute(0, 2, 3, 1).flatten(0, 1)  # (2 * 14, 10, 8)
        return torch.softmax(y @ y.transpose(1, 2), dim=-1) @ y

    origin, _ = followed(rows)
    assert origin.height == Axis(0, 2, 1) and origin.width.last == float("inf")


def channels_last(x: Tensor) -> Tensor:
    """As in ConvNeXt: norm and linear layer over channels."""
    y = nn.Conv2d(3, 8, 4, stride=4)(x).permute(0, 2, 3, 1)
    return nn.Linear(8, 5)(F.gelu(nn.LayerNorm(8)(y))).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("function", "field", "stride"),
    [
        (channels_last, (4, 4), (4, 4)),
        (lambda x: nn.Linear(8, 4)(tokens(x)), (3, 3), (2, 2)),
        (lambda x: torch.einsum("nchw,dc->ndhw", x, torch.empty(5, 3)), (1, 1), (1, 1)),
        (lambda x: nn.Conv1d(3, 2, 1)(x.flatten(2)), (1, 1), (1, 1)),
        (lambda x: torch.softmax(x, dim=1), (1, 1), (1, 1)),
        (lambda x: nn.LayerNorm([16, 12])(x), None, (1, 1)),
        (lambda x: nn.GroupNorm(1, 3)(x), None, (1, 1)),
        (lambda x: nn.BatchNorm2d(3).train()(x), None, (1, 1)),
        (lambda x: nn.BatchNorm2d(3).eval()(x), (1, 1), (1, 1)),
        (lambda x: x * x.mean(dim=2, keepdim=True), None, (1, 1)),
        (lambda x: F.adaptive_max_pool2d(x, 4), (4, 3), (4, 3)),
        (lambda x: x + x.new_zeros(16, 12), (1, 1), (1, 1)),
        (lambda x: nn.Linear(3, 4)(x.mean(dim=(2, 3))), None, None),
        (lambda x: torch.where(x > 0, x, torch.zeros(())), (1, 1), (1, 1)),
    ],
)
def test_operations(
    function: Callable[[Tensor], Tensor],
    field: tuple[int, int] | None,
    stride: tuple[int, int] | None,
) -> None:
    origin, _ = followed(function)
    assert (origin.field(), origin.stride()) == (field, stride)


def test_a_linear_layer_over_channels_against_gradients() -> None:
    torch.manual_seed(0)
    conv, norm, linear = nn.Conv2d(2, 8, 4, stride=4), nn.LayerNorm(8), nn.Linear(8, 5)
    x = torch.rand(1, 2, 20, 20, requires_grad=True)
    y = linear(F.gelu(norm(conv(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
    assert extent(y, x, (2, 3)) == [(8, 11), (12, 15)]


def late_write(x: Tensor) -> Tensor:
    """Into a tensor of which a view was taken before."""
    y = nn.Conv2d(3, 8, 3, padding=1)(x)
    view = y[:, :4]
    y += nn.Conv2d(3, 8, 5, padding=2)(x)
    return view


def written_view(x: Tensor) -> Tensor:
    y = nn.Conv2d(3, 8, 3, padding=1)(x)
    y[:, :4].add_(nn.Conv2d(3, 4, 5, padding=2)(x))
    return y


def written_constant(x: Tensor) -> Tensor:
    y = torch.zeros(2, 8, 16, 12)
    y[:, :3].add_(x)
    return y


def matrix_sum(x: Tensor) -> Tensor:
    return torch.addmm(x, x, torch.empty(12, 12))


def by_product(x: Tensor) -> Tensor:
    return torch.native_group_norm(x, None, None, 2, 3, 192, 1, 1e-5)[1] + 1


@pytest.mark.parametrize(
    ("operation", "function"),
    [
        ("upsample_nearest2d", lambda x: F.interpolate(x, scale_factor=2)),
        ("upsample_bilinear2d", lambda x: F.interpolate(x, (16, 12), mode="bilinear")),
        (
            "grid_sampler_2d",
            lambda x: F.grid_sample(x, torch.empty(2, 16, 12, 2), align_corners=False),
        ),
        ("roll", lambda x: x.roll(1, 2)),
        ("_fft_", lambda x: torch.fft.fft2(x)),
        ("flip", lambda x: x.flip(3)),
        ("pixel_shuffle", lambda x: F.pixel_shuffle(nn.Conv2d(3, 4, 1)(x), 2)),
        ("view", lambda x: x.view(2, 3, 4, 4, 12).transpose(2, 3)),
        ("reflection_pad2d", lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")),
        ("convolution", lambda x: nn.ConvTranspose2d(3, 3, 2, stride=2)(x)),
        ("convolution", lambda x: F.conv2d(x, x)),
        ("convolution", lambda x: nn.Conv1d(3, 2, 3)(x.flatten(2))),
        ("addmm", lambda x: matrix_sum(x.flatten(0, 2))),
        ("cat", lambda x: torch.cat([x, x], dim=2)),
        ("index", lambda x: x[:, :, [1, 2]]),
        ("select", lambda x: x[:, :, 3]),
        ("cumsum", lambda x: x.cumsum(2)),
        ("add", lambda x: x[:, :, :12] + x[:, :, :12].transpose(2, 3)),
        ("add", lambda x: x[:, :, ::2, ::2] + nn.Conv2d(3, 3, 1)(x)[:, :, :8, :6]),
        ("add", lambda x: x + F.avg_pool2d(x, (16, 12))),
        ("add_", late_write),
        ("add_", written_view),
        ("add_", written_constant),
        ("copy_", lambda x: torch.zeros(2, 3, 16, 12).copy_(x)),
        ("add", by_product),
    ],
)
def test_what_cannot_be_followed_is_refused(
    operation: str, function: Callable[[Tensor], Tensor]
) -> None:
    with refused(NotImplementedError, f"aten.{operation}"):
        followed(function)


def test_batches_of_different_meaning_are_not_multiplied() -> None:
    def product(x: Tensor) -> Tensor:
        of_images, of_channels = x.mean(dim=1), nn.Conv2d(3, 2, 1)(x).mean(dim=0)
        return of_images @ of_channels.transpose(1, 2)

    with refused(NotImplementedError, "aten.bmm"):
        followed(product)


def test_what_does_not_come_of_the_image_has_no_origin() -> None:
    with refused(NotImplementedError, "(2, 5)"):
        followed(lambda x: torch.zeros(2, 5))
