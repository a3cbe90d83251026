"""ShuffleNet against the paper's Table 1 and against units written here with dense matrices."""

import functools

import pytest
import torch
from torch import Tensor, nn

from foveate import models
from foveate.models.shufflenet_v1 import StridedUnit, Unit, channel_shuffle

F = nn.functional
GROUPS = {
    "shufflenet_v1_g1": 1,
    "shufflenet_v1_g2": 2,
    "shufflenet_v1": 3,
    "shufflenet_v1_g4": 4,
    "shufflenet_v1_g8": 8,
}


@functools.cache
def meta_twin(name: str) -> nn.Module:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return getattr(models, name)().eval()


def settle(network: nn.Module, x: Tensor) -> nn.Module:
    """Set batch-norm statistics from one batch, so that nothing overflows or dies out; then
    evaluate."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()


def multiply_adds(network: nn.Module, side: int) -> int:
    """Of the convolutions and linear layers, for one image; the network has no memory for its
    numbers."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * output[0, 0].numel()

    hooks = [
        m.register_forward_hook(count)
        for m in network.modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
    ]
    network(torch.zeros(1, 3, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return total


def assert_stages_are_kept(network: nn.Module, ends: list[str], x: Tensor) -> None:
    """What stages() returns is what these submodules returned: nothing later has written over
    it."""
    copies = []
    hooks = [
        network.get_submodule(end).register_forward_hook(
            lambda m, inputs, output: copies.append(output.clone())
        )
        for end in ends
    ]
    maps = network.stages(x)
    for hook in hooks:
        hook.remove()
    assert len(maps) == len(copies) == len(ends)
    for found, expected in zip(maps, copies, strict=True):
        assert torch.equal(found, expected)


# Table 1: millions of multiply-adds. The parameters are counted by hand below.
@pytest.mark.parametrize(
    ("name", "millions", "count"),
    [
        ("shufflenet_v1_g1", 143, 1_531_936),
        ("shufflenet_v1_g2", 140, 1_733_848),
        ("shufflenet_v1", 137, 1_865_728),
        ("shufflenet_v1_g4", 133, 1_968_344),
        ("shufflenet_v1_g8", 137, 2_434_768),
    ],
)
def test_complexity_of_table_1(name: str, millions: int, count: int) -> None:
    network = meta_twin(name)
    assert multiply_adds(network, 224) / 1e6 == pytest.approx(millions, rel=0.015)
    assert sum(p.numel() for p in network.parameters()) == count == count_by_hand(GROUPS[name])


def count_by_hand(g: int) -> int:
    """Convolutions, two numbers a channel for each batch-norm, and the last layer."""
    total, c_in = 3 * 9 * 24 + 2 * 24, 24
    first = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}[g]
    for stage, units in enumerate((4, 8, 4)):
        c = first * 2**stage
        for unit in range(units):
            fresh = c if unit else c - c_in  # channels that the branch makes
            narrow, g_in = c // 4, 1 if stage == unit == 0 else g
            total += (
                c_in * narrow // g_in
                + 9 * narrow
                + narrow * fresh // g
                + 2 * (narrow + narrow + fresh)
            )
            c_in = c
    return total + c_in * 1000 + 1000


@pytest.mark.parametrize("name", GROUPS)
def test_table_1(name: str) -> None:
    network = meta_twin(name)
    x = torch.zeros(2, 3, network.input_size, network.input_size, device="meta")
    c = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}[GROUPS[name]]
    assert [tuple(m.shape) for m in network.stages(x)] == [
        (2, c, 28, 28),
        (2, 2 * c, 14, 14),
        (2, 4 * c, 7, 7),
    ]
    assert network.maxpool(network.conv1(x)).shape == (2, 24, 56, 56)
    stages = network.stage2, network.stage3, network.stage4
    assert [len(stage) for stage in stages] == [4, 8, 4]
    for stage in stages:
        assert [type(unit) for unit in stage] == [StridedUnit] + [Unit] * (len(stage) - 1)


@pytest.mark.parametrize("name", GROUPS)
def test_groups(name: str) -> None:
    g, network = GROUPS[name], meta_twin(name)
    units = [*network.stage2, *network.stage3, *network.stage4]
    assert [unit.branch.gconv1.groups for unit in units] == [1] + [
        g
    ] * 15  # the first of stage 2 is not grouped
    assert {unit.branch.gconv2.groups for unit in units} == {g}
    for stage in (network.stage2, network.stage3, network.stage4):
        c_out = stage[1].branch.gconv2.out_channels
        assert {unit.branch.gconv1.out_channels for unit in stage} == {c_out // 4}
        assert all(unit.branch.dwconv.groups == c_out // 4 for unit in stage)


@pytest.mark.parametrize(("groups", "n"), [(1, 6), (2, 3), (3, 4), (8, 5), (5, 1)])
def test_the_shuffle_sends_channel_j_of_group_i_to_place_j_times_g_plus_i(
    groups: int, n: int
) -> None:
    x = torch.randn(2, groups * n, 3, 4)
    for layout in (torch.contiguous_format, torch.channels_last):
        y = channel_shuffle(x.contiguous(memory_format=layout), groups)
        for i in range(groups):
            for j in range(n):
                assert torch.equal(y[:, j * groups + i], x[:, i * n + j])
    # shuffled by n it comes back
    assert torch.equal(channel_shuffle(channel_shuffle(x, groups), n), x)


def test_after_a_shuffle_every_group_hears_of_every_group() -> None:
    g, n = 3, 6
    first, second = nn.Conv2d(g * n, g * n, 1, groups=g), nn.Conv2d(g * n, g * n, 1, groups=g)
    for m in (first, second):
        nn.init.ones_(m.weight)
    x = torch.zeros(1, g * n, 1, 1)
    x[0, 0] = 1.0  # in the first group only
    silent = torch.zeros_like(x)
    with torch.no_grad():
        apart = second(first(x)) - second(first(silent))
        mixed = second(channel_shuffle(first(x), g)) - second(channel_shuffle(first(silent), g))
    assert apart[0, n:].abs().max() == 0
    assert mixed.abs().min() > 0


def dense(conv: nn.Conv2d) -> Tensor:
    """The weight of a grouped convolution as that of a full one: zeros where groups do not meet."""
    c_out, per_group = conv.weight.shape[:2]
    full = torch.zeros(c_out, conv.in_channels, *conv.kernel_size, dtype=conv.weight.dtype)
    for o in range(c_out):
        start = o // (c_out // conv.groups) * per_group
        full[o, start : start + per_group] = conv.weight.detach()[o]
    return full


def norm(m: nn.BatchNorm2d, x: Tensor) -> Tensor:
    scale = m.weight / (m.running_var + m.eps) ** 0.5
    return (x - m.running_mean[:, None, None]) * scale[:, None, None] + m.bias[:, None, None]


def by_hand(network: nn.Module, x: Tensor) -> Tensor:
    """Evaluation as section 3 of the paper tells it, with full convolutions and a permutation for
    the shuffle."""

    def unit_by_hand(unit: nn.Module, x: Tensor, stride: int) -> Tensor:
        b, g = unit.branch, unit.branch.groups
        y = norm(b.bn1, F.conv2d(x, dense(b.gconv1))).relu()
        y = torch.stack(
            [y[:, i * (y.shape[1] // g) + j] for j in range(y.shape[1] // g) for i in range(g)],
            dim=1,
        )
        y = norm(b.bn2, F.conv2d(y, dense(b.dwconv), stride=stride, padding=1))
        y = norm(b.bn3, F.conv2d(y, dense(b.gconv2)))
        if stride == 1:
            return (x + y).relu()
        # zeros around the map count in the average
        ones = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype) / 9
        return torch.cat(
            [F.conv2d(x, ones, stride=2, padding=1, groups=x.shape[1]), y], dim=1
        ).relu()

    x = norm(network.bn1, F.conv2d(x, network.conv1.weight, stride=2, padding=1)).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in (network.stage2, network.stage3, network.stage4):
        for i, unit in enumerate(stage):
            x = unit_by_hand(unit, x, stride=1 if i else 2)
    return x.mean(dim=(2, 3)) @ network.fc.weight.T + network.fc.bias


@pytest.mark.parametrize("name", ["shufflenet_v1", "shufflenet_v1_g1", "shufflenet_v1_g8"])
def test_logits_by_hand(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 3, 64, 45, dtype=torch.float64)
    network = settle(getattr(models, name)(num_classes=10).double(), x)
    with torch.no_grad():
        for images in (x, x[:1]):
            found = network(images)
            assert found.isfinite().all() and found.std() > 0
            torch.testing.assert_close(found, by_hand(network, images), rtol=1e-9, atol=1e-9)
            assert torch.equal(network.head(network.embed(images)), found)


def test_initial_numbers_are_hes_by_group() -> None:
    torch.manual_seed(0)
    for m in models.shufflenet_v1().modules():
        if isinstance(m, nn.Conv2d):
            fan_in = m.in_channels // m.groups * m.kernel_size[0] ** 2
            n = m.weight.numel()
            assert float(m.weight.detach().std()) == pytest.approx(
                (2 / fan_in) ** 0.5, rel=4 / n**0.5
            )


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = models.shufflenet_v1(num_classes=5).train()
    F.cross_entropy(network(torch.randn(3, 3, 64, 48)), torch.tensor([0, 1, 4])).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() and p.grad.any()
        for p in network.parameters()
    )


@pytest.mark.parametrize("name", ["shufflenet_v1", "shufflenet_v1_g1"])
@pytest.mark.parametrize("training", [True, False])
def test_stages_are_not_written_over(name: str, training: bool) -> None:
    network = getattr(models, name)(num_classes=5).train(training)
    assert_stages_are_kept(network, ["stage2", "stage3", "stage4"], torch.randn(2, 3, 64, 48))


def test_one_pixel_is_enough() -> None:
    network = models.shufflenet_v1(num_classes=5).eval()
    assert network.min_size == 1
    assert network(torch.randn(1, 3, 1, 1)).isfinite().all()
