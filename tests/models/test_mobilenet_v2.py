"""MobileNetV2 against torchvision's, number by number."""

import functools

import pytest
import torch
import torchvision
from torch import Tensor, nn

from foveate.models.mobilenet_v2 import InvertedResidual, mobilenet_v2


@functools.cache
def meta_twin() -> tuple[nn.Module, nn.Module]:
    """Torchvision's network and ours without memory for their numbers. To be read only."""
    with torch.device("meta"):
        return torchvision.models.mobilenet_v2(weights=None).eval(), mobilenet_v2().eval()


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


def test_torchvisions_tensors_in_torchvisions_order() -> None:
    theirs, ours = meta_twin()
    expected = [(k, t.shape) for k, t in theirs.state_dict().items()]
    assert [(k, t.shape) for k, t in ours.state_dict().items()] == expected


def test_parameters_and_multiply_adds() -> None:
    _, ours = meta_twin()
    assert sum(p.numel() for p in ours.parameters()) == 3_504_872  # the paper: 3.4 millions
    assert multiply_adds(ours, 224) / 1e6 == pytest.approx(300, abs=1)  # the paper's


@pytest.mark.parametrize(("height", "width"), [(96, 64), (65, 97)])
def test_torchvisions_logits(height: int, width: int) -> None:
    torch.manual_seed(0)
    assert_equal_logits(
        torchvision.models.mobilenet_v2(weights=None), mobilenet_v2(), height, width
    )


def test_torchvisions_gradients() -> None:
    torch.manual_seed(0)
    theirs, ours = torchvision.models.mobilenet_v2(weights=None, dropout=0.0), mobilenet_v2()
    ours.classifier[0].p = 0.0
    assert_equal_gradients(theirs, ours, (3, 3, 64, 48))


def test_torchvisions_initial_numbers() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2(weights=None).state_dict()
    torch.manual_seed(0)
    ours = mobilenet_v2().state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_d1_a_block_expands_only_where_t_is_not_one() -> None:
    _, ours = meta_twin()
    blocks = [m for m in ours.modules() if isinstance(m, InvertedResidual)]
    kernels = [
        [m.kernel_size[0] for m in block.modules() if isinstance(m, nn.Conv2d)] for block in blocks
    ]
    assert kernels == [[3, 1]] + [[1, 3, 1]] * 16


def test_d2_the_last_layer_is_the_papers_1x1_convolution() -> None:
    torch.manual_seed(0)
    network = mobilenet_v2(num_classes=7).eval()
    conv = nn.Conv2d(1280, 7, 1)
    conv.load_state_dict(
        {"weight": network.head.weight[:, :, None, None], "bias": network.head.bias}
    )
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = conv(network.stages(x)[-1].mean(dim=(2, 3), keepdim=True))  # (N, 7, 1, 1)
        torch.testing.assert_close(network(x), expected[:, :, 0, 0])


def test_d3_a_fifth_is_dropped_in_training_only() -> None:
    theirs, ours = meta_twin()
    assert isinstance(ours.classifier[0], nn.Dropout)
    assert ours.classifier[0].p == theirs.classifier[0].p == 0.2


def test_d4_depthwise_convolutions_start_narrow_for_torchs_fan_out_forgets_the_groups() -> None:
    """The authors' code draws all weights alike, with 0.09."""
    torch.manual_seed(0)
    widths = set()
    for m in mobilenet_v2().modules():
        if isinstance(m, nn.Conv2d):
            rule = (2 / (m.weight[0, 0].numel() * m.out_channels / m.groups)) ** 0.5
            found = float(m.weight.detach().std())
            near = 6 / m.weight.numel() ** 0.5
            assert found * m.groups**0.5 == pytest.approx(rule, rel=near)
            widths.add(round(found, 2))
    assert len(widths) > 3  # not alike


def test_bottlenecks_are_linear_and_shortcuts_join_equals() -> None:
    _, ours = meta_twin()
    for block in (m for m in ours.modules() if isinstance(m, InvertedResidual)):
        assert isinstance(block.conv[-1], nn.BatchNorm2d)
    adds = [block.adds for block in ours.features[1:18]]
    assert adds == [
        i not in (0, 1, 3, 6, 10, 13, 16) for i in range(17)
    ]  # the first of each row does not


def test_table_2() -> None:
    _, ours = meta_twin()
    maps = ours.stages(torch.zeros(2, 3, ours.input_size, ours.input_size, device="meta"))
    expected = [(16, 112), (24, 56), (32, 28), (64, 14), (96, 14), (160, 7), (320, 7), (1280, 7)]
    assert [tuple(m.shape) for m in maps] == [(2, c, side, side) for c, side in expected]


@pytest.mark.parametrize("training", [True, False])
def test_stages_are_not_written_over(training: bool) -> None:
    network = mobilenet_v2(num_classes=5).train(training)
    ends = [f"features.{i}" for i in (1, 3, 6, 10, 13, 16, 17, 18)]
    assert_stages_are_kept(network, ends, torch.randn(2, 3, 64, 48))


def test_one_pixel_is_enough() -> None:
    network = mobilenet_v2(num_classes=5).eval()
    assert network.min_size == 1
    assert network(torch.randn(1, 3, 1, 1)).isfinite().all()
