"""ShuffleNet V2 against torchvision's, number by number."""

import functools

import pytest
import torch
import torchvision
from torch import Tensor, nn

from foveate.models import shufflenet_v2
from foveate.models.shufflenet_v2 import TABLE_5, StridedUnit, Unit

COUNTS = dict(zip(TABLE_5, (1_366_792, 2_278_604, 3_503_624, 7_393_996), strict=True))


def torchvision_network(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(weights=None)


@functools.cache
def meta_twin(name: str) -> tuple[nn.Module, nn.Module]:
    """Torchvision's network and ours without memory for their numbers. To be read only."""
    with torch.device("meta"):
        return torchvision_network(name).eval(), getattr(shufflenet_v2, name)().eval()


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


def assert_equal_logits(theirs: nn.Module, ours: nn.Module, height: int, width: int) -> None:
    """In evaluation, with the same numbers in both, for one image and for three; head(embed(x)) is
    forward(x)."""
    x = torch.randn(3, 3, height, width)
    settle(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    ours.eval()
    with torch.no_grad():
        for images in (x, x[:1], torch.randn(1, 3, 32, 32)):
            expected, found = theirs(images), ours(images)
            assert expected.isfinite().all() and expected.std() > 0
            assert torch.equal(found, expected)
            assert torch.equal(ours.head(ours.embed(images)), found)


def assert_equal_gradients(theirs: nn.Module, ours: nn.Module, shape: tuple[int, ...]) -> None:
    """In training, with the same numbers in both: gradients and batch-norm statistics after one
    step."""
    theirs, ours = theirs.double().train(), ours.double().train()
    ours.load_state_dict(theirs.state_dict())
    x, labels = torch.randn(shape, dtype=torch.float64), torch.arange(shape[0])
    for network in (theirs, ours):
        nn.functional.cross_entropy(network(x), labels).backward()
    for (name, p), (_, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        torch.testing.assert_close(
            q.grad, p.grad, rtol=1e-9, atol=1e-12 * float(p.grad.abs().max()) + 1e-15, msg=name
        )
    for (name, p), (_, q) in zip(theirs.named_buffers(), ours.named_buffers(), strict=True):
        torch.testing.assert_close(q, p, msg=name)


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


@pytest.mark.parametrize("name", COUNTS)
def test_torchvisions_tensors_in_torchvisions_order(name: str) -> None:
    theirs, ours = meta_twin(name)
    expected = [(k, t.shape) for k, t in theirs.state_dict().items()]
    assert [(k, t.shape) for k, t in ours.state_dict().items()] == expected


@pytest.mark.parametrize(
    ("name", "parameters", "work"),
    [
        ("shufflenet_v2_x0_5", 1.4, 41),
        ("shufflenet_v2_x1_0", 2.3, 146),
        ("shufflenet_v2_x1_5", 3.5, 299),
        ("shufflenet_v2_x2_0", 7.4, 591),
    ],
)
def test_millions_of_table_5(name: str, parameters: float, work: int) -> None:
    _, ours = meta_twin(name)
    count = sum(p.numel() for p in ours.parameters())
    assert count == COUNTS[name]
    assert count / 1e6 == pytest.approx(parameters, abs=0.05)
    assert multiply_adds(ours, 224) / 1e6 == pytest.approx(work, rel=0.015)


@pytest.mark.parametrize("name", COUNTS)
def test_torchvisions_logits(name: str) -> None:
    torch.manual_seed(0)
    assert_equal_logits(torchvision_network(name), getattr(shufflenet_v2, name)(), 96, 65)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"])
def test_torchvisions_gradients(name: str) -> None:
    torch.manual_seed(0)
    assert_equal_gradients(
        torchvision_network(name), getattr(shufflenet_v2, name)(), (3, 3, 64, 80)
    )


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"])
def test_torchvisions_initial_numbers(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision_network(name).state_dict()
    torch.manual_seed(0)
    ours = getattr(shufflenet_v2, name)().state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", COUNTS)
def test_table_5(name: str) -> None:
    _, ours = meta_twin(name)
    x = torch.zeros(2, 3, ours.input_size, ours.input_size, device="meta")
    expected = zip(TABLE_5[name], (28, 14, 7, 7), strict=True)
    assert [tuple(m.shape) for m in ours.stages(x)] == [(2, c, side, side) for c, side in expected]
    assert ours.maxpool(ours.conv1(x)).shape == (2, 24, 56, 56)
    stages = ours.stage2, ours.stage3, ours.stage4
    assert [len(stage) for stage in stages] == [4, 8, 4]
    for stage in stages:
        assert [type(unit) for unit in stage] == [StridedUnit] + [Unit] * (len(stage) - 1)


def test_guidelines_in_the_unit() -> None:
    unit = Unit(8)
    convolutions = [m for m in unit.modules() if isinstance(m, nn.Conv2d)]
    assert {(m.in_channels, m.out_channels) for m in convolutions} == {
        (4, 4)
    }  # G1: as many out as in
    assert [m.groups for m in convolutions] == [1, 4, 1]  # G2: no groups, the depthwise one apart
    x = torch.randn(2, 8, 5, 6)
    with torch.no_grad():
        y = unit(x)
    # half the channels pass by untouched, into every second place
    assert torch.equal(y[:, 0::2], x[:, :4])


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"])
@pytest.mark.parametrize("training", [True, False])
def test_stages_are_not_written_over(name: str, training: bool) -> None:
    network = getattr(shufflenet_v2, name)(num_classes=5).train(training)
    assert_stages_are_kept(
        network, ["stage2", "stage3", "stage4", "conv5"], torch.randn(2, 3, 64, 48)
    )


def test_one_pixel_is_enough() -> None:
    network = shufflenet_v2.shufflenet_v2_x0_5(num_classes=5).eval()
    assert network.min_size == 1
    assert network(torch.randn(1, 3, 1, 1)).isfinite().all()
