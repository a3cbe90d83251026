"""The CIFAR networks against stacks built here from torchvision's block and torch's layers."""

import functools

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from foveate.models import resnet_cifar
from foveate.models.resnet_cifar import DEPTHS, OptionA, Plain, Residual

COUNTS = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "plain20": 269_722,
    "plain56": 853_018,
}
MILLIONS = {
    "resnet20": 0.27,
    "resnet32": 0.46,
    "resnet44": 0.66,
    "resnet56": 0.85,
    "resnet110": 1.7,
}  # Table 6


class EverySecondPixel(nn.Module):
    """Option A as a product with a matrix: the old channels in the middle of twice as many."""

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[1]
        spread = torch.zeros(2 * c, c, dtype=x.dtype)
        spread[c // 2 : c // 2 + c] = torch.eye(c, dtype=x.dtype)
        return nn.functional.conv2d(x, spread[:, :, None, None], stride=2)


def reference(name: str) -> nn.Module:
    """An independent build: of torchvision's basic block for a residual network, of single layers
    for a plain one."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    c_in = 16
    for c in (16, 32, 64):
        for _ in range(DEPTHS[name]):
            stride = 1 if c == c_in else 2
            if name.startswith("resnet"):
                layers.append(
                    BasicBlock(c_in, c, stride, None if c == c_in else EverySecondPixel())
                )
            else:
                layers += [
                    nn.Conv2d(c_in, c, 3, stride, padding=1, bias=False),
                    nn.BatchNorm2d(c),
                    nn.ReLU(),
                ]
                layers += [nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU()]
            c_in = c
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def by_order(source: nn.Module, target: nn.Module) -> dict[str, Tensor]:
    """The source's tensors under the target's names; both list them in the order of the network."""
    theirs, ours = source.state_dict(), target.state_dict()
    assert [t.shape for t in theirs.values()] == [t.shape for t in ours.values()]
    return dict(zip(ours, theirs.values(), strict=True))


@functools.cache
def meta_twin(name: str) -> nn.Module:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return getattr(resnet_cifar, name)().eval()


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
def test_parameters_and_layers(name: str) -> None:
    network = meta_twin(name)
    count = sum(p.numel() for p in network.parameters())
    assert count == COUNTS[name]
    assert count / 1e6 == pytest.approx(MILLIONS[name.replace("plain", "resnet")], abs=0.03)
    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert (
        len(layers)
        == 6 * DEPTHS[name] + 2
        == int(name.removeprefix("resnet").removeprefix("plain"))
    )


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (21, 34)])
def test_logits_of_the_reference(name: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 3, height, width)
    theirs = settle(reference(name), x)
    ours = getattr(resnet_cifar, name)().eval()
    ours.load_state_dict(by_order(theirs, ours))
    with torch.no_grad():
        for images in (x, x[:1]):
            expected, found = theirs(images), ours(images)
            assert expected.isfinite().all() and expected.std() > 0
            torch.testing.assert_close(
                found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max())
            )
            assert torch.equal(ours.head(ours.embed(images)), found)


@pytest.mark.parametrize("name", ["resnet20", "plain20"])
def test_gradients_of_the_reference(name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = reference(name).double().train(), getattr(resnet_cifar, name)().double().train()
    ours.load_state_dict(by_order(theirs, ours))
    x, labels = torch.randn(3, 3, 32, 24, dtype=torch.float64), torch.tensor([0, 5, 9])
    for network in (theirs, ours):
        nn.functional.cross_entropy(network(x), labels).backward()
    for p, (key, q) in zip(theirs.parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        torch.testing.assert_close(
            q.grad, p.grad, rtol=1e-9, atol=1e-12 * float(p.grad.abs().max()) + 1e-15, msg=key
        )


def test_option_a_by_hand() -> None:
    x = torch.arange(2 * 4 * 5.0).reshape(1, 2, 4, 5) + 1
    y = OptionA(2, 4, stride=2)(x)
    assert y.shape == (1, 4, 2, 3)
    # where the paper is silent: half before, half after
    assert y[0, 0].eq(0).all() and y[0, 3].eq(0).all()
    assert y[0, 1].tolist() == [[1, 3, 5], [11, 13, 15]]
    assert y[0, 2].tolist() == [[21, 23, 25], [31, 33, 35]]
    assert not list(OptionA(16, 32, 2).parameters())


def test_shortcuts_only_where_the_name_says() -> None:
    kinds = [
        type(m)
        for m in meta_twin("resnet20").modules()
        if isinstance(m, (Residual, Plain, OptionA, nn.Identity))
    ]
    assert (
        kinds.count(Residual) == 9 and kinds.count(OptionA) == 2 and kinds.count(nn.Identity) == 7
    )
    kinds = [
        type(m)
        for m in meta_twin("plain20").modules()
        if isinstance(m, (Residual, Plain, OptionA, nn.Identity))
    ]
    assert kinds == [Plain] * 9


@pytest.mark.parametrize("depth", [20, 56])
def test_a_plain_network_has_the_tensors_of_the_residual_one(depth: int) -> None:
    residual, plain = (
        meta_twin(f"resnet{depth}").state_dict(),
        meta_twin(f"plain{depth}").state_dict(),
    )
    assert [(k, t.shape) for k, t in plain.items()] == [(k, t.shape) for k, t in residual.items()]


def test_without_its_branch_a_residual_block_is_its_shortcut() -> None:
    block = Residual(16, 16, 1).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 16, 5, 6)
    assert torch.equal(block(x), x.relu())


def test_initial_numbers_are_hes() -> None:
    torch.manual_seed(0)
    network = resnet_cifar.resnet20()
    for m in network.layer3.modules():
        if isinstance(m, nn.Conv2d):
            assert float(m.weight.detach().std()) == pytest.approx(
                (2 / (9 * m.out_channels)) ** 0.5, rel=0.05
            )
    # where the paper is silent: torch's own
    assert float(network.fc.weight.detach().abs().max()) <= 64**-0.5


@pytest.mark.parametrize("name", COUNTS)
def test_the_papers_stages(name: str) -> None:
    network = meta_twin(name)
    maps = network.stages(torch.zeros(2, 3, network.input_size, network.input_size, device="meta"))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


@pytest.mark.parametrize("name", ["resnet20", "plain20"])
@pytest.mark.parametrize("training", [True, False])
def test_stages_are_not_written_over(name: str, training: bool) -> None:
    network = getattr(resnet_cifar, name)().train(training)
    assert_stages_are_kept(network, ["layer1", "layer2", "layer3"], torch.randn(2, 3, 32, 24))


@pytest.mark.parametrize("name", ["resnet20", "plain20"])
def test_one_pixel_is_enough(name: str) -> None:
    network = getattr(resnet_cifar, name)().eval()
    assert network.min_size == 1
    assert network(torch.randn(1, 3, 1, 1)).isfinite().all()
