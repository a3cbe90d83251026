"""ResNet against torchvision's, number by number."""

import functools

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck

from foveate.models import resnet

COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50_v1": 25_557_032,
}
PUBLISHED = [name for name in COUNTS if name != "resnet50_v1"]


def torchvision_network(name: str) -> nn.Module:
    """Torchvision's; the strides of its ResNet-50 moved to where the paper has them for
    resnet50_v1."""
    network = getattr(torchvision.models, name.removesuffix("_v1"))(weights=None)
    if name == "resnet50_v1":
        for m in network.modules():
            if isinstance(m, TorchvisionBottleneck):
                m.conv1.stride, m.conv2.stride = m.conv2.stride, m.conv1.stride
    return network


@functools.cache
def meta_twin(name: str) -> tuple[nn.Module, nn.Module]:
    """Torchvision's network and ours without memory for their numbers. To be read only."""
    with torch.device("meta"):
        return torchvision_network(name).eval(), getattr(resnet, name)().eval()


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
    ours.load_state_dict(theirs.state_dict(), assign=True)
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
    assert sum(p.numel() for p in ours.parameters()) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("resnet18", 96, 64),
        ("resnet34", 96, 64),
        ("resnet50", 96, 64),
        ("resnet50_v1", 96, 64),
        ("resnet101", 33, 64),
        ("resnet152", 33, 64),
    ],
)
def test_torchvisions_logits(name: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        ours = getattr(resnet, name)()
    assert_equal_logits(torchvision_network(name), ours, height, width)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_gradients(name: str) -> None:
    torch.manual_seed(0)
    assert_equal_gradients(torchvision_network(name), getattr(resnet, name)(), (3, 3, 33, 40))


def test_torchvisions_initial_numbers() -> None:
    torch.manual_seed(0)
    theirs = torchvision_network("resnet18").state_dict()
    torch.manual_seed(0)
    ours = resnet.resnet18().state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("name", "stride_in_3x3"), [("resnet50", True), ("resnet101", True), ("resnet50_v1", False)]
)
def test_d1_where_a_bottleneck_strides(name: str, stride_in_3x3: bool) -> None:
    _, ours = meta_twin(name)
    for stage in (ours.layer2, ours.layer3, ours.layer4):
        strides = stage[0].conv1.stride[0], stage[0].conv2.stride[0], stage[0].conv3.stride[0]
        assert strides == ((1, 2, 1) if stride_in_3x3 else (2, 1, 1))
        assert all(
            m.stride == (1, 1)
            for block in stage[1:]
            for m in block.modules()
            if isinstance(m, nn.Conv2d)
        )


# The paper's Table 1 gives 1.8, 3.6, 3.8 (v1) billions; v1.5's are torchvision's.
@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("resnet18", 1.814),
        ("resnet34", 3.664),
        ("resnet50", 4.089),
        ("resnet101", 7.801),
        ("resnet152", 11.514),
        ("resnet50_v1", 3.858),
    ],
)
def test_multiply_adds(name: str, billions: float) -> None:
    assert multiply_adds(meta_twin(name)[1], 224) / 1e9 == pytest.approx(billions, abs=0.0005)


@pytest.mark.parametrize("name", COUNTS)
def test_table_1(name: str) -> None:
    _, ours = meta_twin(name)
    e = 1 if name in ("resnet18", "resnet34") else 4
    maps = ours.stages(torch.zeros(2, 3, ours.input_size, ours.input_size, device="meta"))
    assert [tuple(m.shape) for m in maps] == [
        (2, 64 * e, 56, 56),
        (2, 128 * e, 28, 28),
        (2, 256 * e, 14, 14),
        (2, 512 * e, 7, 7),
    ]
    # Layers with weights, shortcuts aside: the network's number.
    layers = [
        m
        for key, m in ours.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in key
    ]
    assert len(layers) == int(name.removesuffix("_v1").removeprefix("resnet"))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50_v1"])
@pytest.mark.parametrize("training", [True, False])
def test_stages_are_not_written_over(name: str, training: bool) -> None:
    network = getattr(resnet, name)(num_classes=5).train(training)
    ends = ["layer1", "layer2", "layer3", "layer4"]
    assert_stages_are_kept(network, ends, torch.randn(2, 3, 64, 48))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50_v1"])
def test_one_pixel_is_enough(name: str) -> None:
    network = getattr(resnet, name)(num_classes=5).eval()
    assert network.min_size == 1
    assert network(torch.randn(1, 3, 1, 1)).isfinite().all()
