"""MobileNet against timm's, number by number."""

import functools

import pytest
import timm
import torch
from timm.models.efficientnet import _gen_mobilenet_v1
from torch import Tensor, nn

from foveate import models
from foveate.models.mobilenet_v1 import Separable

ALPHA = {
    "mobilenet_v1": 1.0,
    "mobilenet_v1_x0_75": 0.75,
    "mobilenet_v1_x0_5": 0.5,
    "mobilenet_v1_x0_25": 0.25,
}
COUNTS = dict(zip(ALPHA, (4_231_976, 2_585_560, 1_331_592, 470_072), strict=True))


def timm_network(name: str) -> nn.Module:
    """timm publishes alpha 1; its builder makes the others."""
    if name == "mobilenet_v1":
        return timm.create_model("mobilenetv1_100", pretrained=False)
    return _gen_mobilenet_v1("mobilenetv1_100", ALPHA[name])


@functools.cache
def meta_twin(name: str) -> tuple[nn.Module, nn.Module]:
    """timm's network and ours without memory for their numbers. To be read only."""
    with torch.device("meta"):
        return timm_network(name).eval(), getattr(models, name)().eval()


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


@pytest.mark.parametrize("name", ALPHA)
def test_timms_tensors_in_timms_order(name: str) -> None:
    theirs, ours = meta_twin(name)
    expected = [(k, t.shape) for k, t in theirs.state_dict().items()]
    assert [(k, t.shape) for k, t in ours.state_dict().items()] == expected


# The paper's Table 6: millions of parameters and of multiply-adds.
@pytest.mark.parametrize(
    ("name", "parameters", "work"),
    [
        ("mobilenet_v1", 4.2, 569),
        ("mobilenet_v1_x0_75", 2.6, 325),
        ("mobilenet_v1_x0_5", 1.3, 149),
        ("mobilenet_v1_x0_25", 0.5, 41),
    ],
)
def test_table_6(name: str, parameters: float, work: int) -> None:
    _, ours = meta_twin(name)
    count = sum(p.numel() for p in ours.parameters())
    assert count == COUNTS[name]
    assert count / 1e6 == pytest.approx(parameters, abs=0.05)
    assert multiply_adds(ours, 224) / 1e6 == pytest.approx(work, abs=0.6)


@pytest.mark.parametrize("name", ALPHA)
def test_timms_logits(name: str) -> None:
    torch.manual_seed(0)
    assert_equal_logits(timm_network(name), getattr(models, name)(), 96, 65)


def test_timms_gradients() -> None:
    torch.manual_seed(0)
    assert_equal_gradients(timm_network("mobilenet_v1"), models.mobilenet_v1(), (3, 3, 64, 48))


def test_initial_numbers_are_timms_in_distribution() -> None:
    torch.manual_seed(0)
    theirs, ours = (
        timm_network("mobilenet_v1").state_dict(),
        models.mobilenet_v1().state_dict(),
    )
    for name, p in theirs.items():
        q = ours[name]
        if p.ndim > 1:
            assert float(q.std()) == pytest.approx(float(p.std()), rel=6 / p.numel() ** 0.5), name
            assert abs(float(q.mean())) < 5 * float(p.std()) / p.numel() ** 0.5
        else:
            assert torch.equal(q, p), name


def test_d1_the_activation_stops_at_six() -> None:
    block = Separable(2, 3, 1).eval()
    with torch.no_grad():
        for p in block.parameters():
            p.fill_(1.0)
        y = block(torch.full((1, 2, 5, 5), 100.0))
        assert torch.equal(y, torch.full((1, 3, 5, 5), 6.0))  # ReLU would leave thousands
        stem = models.mobilenet_v1_x0_25().eval()
        nn.init.constant_(stem.bn1.bias, 100.0)
        seen = []
        stem.blocks.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].max()))
        stem(torch.zeros(1, 3, 32, 32))
    assert seen == [6.0]


@pytest.mark.parametrize("name", ALPHA)
def test_d2_strides(name: str) -> None:
    _, ours = meta_twin(name)
    strides = [m.conv_dw.stride[0] for m in ours.modules() if isinstance(m, Separable)]
    assert strides == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]


@pytest.mark.parametrize("name", ALPHA)
def test_table_1(name: str) -> None:
    _, ours = meta_twin(name)
    maps = ours.stages(torch.zeros(2, 3, ours.input_size, ours.input_size, device="meta"))
    expected = [(64, 112), (128, 56), (256, 28), (512, 14), (1024, 7)]
    assert [tuple(m.shape) for m in maps] == [
        (2, int(ALPHA[name] * c), side, side) for c, side in expected
    ]
    convolutions = [m for m in ours.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == 28  # "MobileNet has 28 layers", the last one linear


@pytest.mark.parametrize("training", [True, False])
def test_stages_are_not_written_over(training: bool) -> None:
    network = models.mobilenet_v1_x0_25(num_classes=5).train(training)
    assert_stages_are_kept(network, [f"blocks.{i}" for i in range(5)], torch.randn(2, 3, 64, 48))


def test_one_pixel_is_enough() -> None:
    network = models.mobilenet_v1_x0_25().eval()
    assert network.min_size == 1
    assert network(torch.randn(1, 3, 1, 1)).isfinite().all()
