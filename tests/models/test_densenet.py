"""DenseNet against torchvision's, and the memory-saving forward against the plain one."""

import functools
from collections.abc import Callable

import pytest
import torch
import torchvision
from refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from foveate.models import recompute, resnet18
from foveate.models.densenet import (
    TABLE_1,
    Column,
    DenseBlock,
    DenseNet,
    Transition,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    densenet_bc_100_12,
)
from foveate.models.folding import folded
from foveate.models.recomputation import AtRest

BUILDERS: dict[str, Callable[..., DenseNet]] = {
    "densenet121": densenet121,
    "densenet161": densenet161,
    "densenet169": densenet169,
    "densenet201": densenet201,
    "densenet_bc_100_12": densenet_bc_100_12,
}
NAMES = list(BUILDERS)
PUBLISHED = NAMES[:4]


@functools.cache
def meta_twin(name: str) -> DenseNet:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return BUILDERS[name]().eval()


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


@functools.cache
def small() -> DenseNet:
    """The CIFAR network, random weights, statistics of a batch. To be read only."""
    torch.manual_seed(0)
    network = settle(densenet_bc_100_12(), torch.randn(4, 3, 32, 32))
    assert isinstance(network, DenseNet)
    return network


def tiny(saving: bool) -> DenseNet:
    """Two blocks, always with the same weights."""
    torch.manual_seed(0)
    network = DenseNet(Column(4, (2, 3), cifar=True), num_classes=10).train()
    return recompute(network) if saving else network


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_torchvisions_tensors_in_torchvisions_order(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(weights=None).state_dict()
    ours = meta_twin(name).state_dict()
    assert [(k, t.shape) for k, t in ours.items()] == [(k, t.shape) for k, t in theirs.items()]


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_gives_torchvisions_logits(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 3, 64, 45)
    theirs = settle(getattr(torchvision.models, name)(weights=None, num_classes=10), x)
    with torch.device("meta"):
        ours = BUILDERS[name](num_classes=10).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    with torch.no_grad():
        for images in (x, x[:1], torch.randn(1, 3, 96, 96)):
            expected, found = theirs(images), ours(images)
            assert expected.std() > 0
            assert torch.equal(found, expected)
            assert torch.equal(ours.head(ours.embed(images)), found)


@pytest.mark.parametrize("saving", [False, True])
def test_it_gives_torchvisions_gradients(saving: bool) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.densenet121(weights=None, num_classes=10).double().train()
    ours = densenet121(num_classes=10).double().train()
    ours = recompute(ours) if saving else ours
    ours.load_state_dict(theirs.state_dict())
    x, labels = torch.randn(3, 3, 48, 33, dtype=torch.float64), torch.tensor([1, 0, 9])
    for network in (theirs, ours):
        F.cross_entropy(network(x), labels).backward()
    for (name, p), (_, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and p.grad.any()
        assert torch.equal(q.grad, p.grad), name
    for (name, p), (_, q) in zip(theirs.named_buffers(), ours.named_buffers(), strict=True):
        assert torch.equal(q, p), name  # the batch-norm statistics have moved alike, and once


def steps(network: DenseNet, n: int, channels_last: bool = False) -> list[float]:
    """The losses of n training steps."""
    torch.manual_seed(3)
    optimiser, losses = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9), []
    for _ in range(n):
        x, labels = torch.randn(3, 3, 12, 9), torch.randint(10, (3,))
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(network(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("channels_last", [False, True])
def test_saving_memory_changes_no_number(channels_last: bool) -> None:
    """Losses, weights, running statistics and counts of batches, after several steps."""
    found = []
    for saving in (False, True):
        network = densenet_bc_100_12()
        network = recompute(network) if saving else network
        network.load_state_dict(small().state_dict())
        if channels_last:
            network = network.to(memory_format=torch.channels_last)
        found.append((steps(network.train(), 2, channels_last), network.state_dict()))
    (plain, expected), (saving, state) = found
    assert saving == plain
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor), key
    counts = {
        int(t) - int(small().state_dict()[k])
        for k, t in state.items()
        if k.endswith("num_batches_tracked")
    }
    assert counts == {2}


def test_saving_memory_works_on_a_partly_frozen_network() -> None:
    """Batch-norms of the first block evaluate, their parameters and the stem's are frozen."""
    found = []
    for saving in (False, True):
        network = tiny(saving)
        network.features[0].requires_grad_(False)
        for m in network.features[1].modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eval().requires_grad_(False)
        losses = steps(network, 2)
        found.append((losses, network.state_dict()))
    (plain, expected), (saving, state) = found
    assert saving == plain
    assert all(torch.equal(state[key], tensor) for key, tensor in expected.items())
    norms = "features.denseblock1.denselayer1.norm1", "features.denseblock2.denselayer1.norm1"
    assert [int(state[f"{norm}.num_batches_tracked"]) for norm in norms] == [0, 2]


def test_it_is_asked_for_and_changes_no_name() -> None:
    network = tiny(saving=False)
    tensors = {name: id(t) for name, t in network.state_dict(keep_vars=True).items()}
    holder = nn.Sequential(network)
    assert recompute(holder) is holder and recompute(holder) is holder  # twice is once
    assert {n: id(t) for n, t in network.state_dict(keep_vars=True).items()} == tensors
    assert isinstance(network, DenseNet)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        network(torch.randn(2, 3, 8, 8))
    saving = len(kept)
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        tiny(saving=False)(torch.randn(2, 3, 8, 8))
    assert saving < len(kept)


def test_other_networks_are_refused() -> None:
    with torch.device("meta"), refused(ValueError, "ResNet", "DenseNet"):
        recompute(resnet18())


def test_folded_batch_norms_have_no_statistics_to_keep() -> None:
    """Frozen norms, folded into the convolutions before them, leave identities behind."""
    network = tiny(saving=True)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    x = torch.randn(2, 3, 8, 8)
    twin = folded(network, (3, 8, 8))
    assert twin is not network
    torch.testing.assert_close(twin(x), network(x))
    twin(x).sum().backward()
    assert network.features[0].weight.grad.any()


def test_a_second_backward_pass_through_one_graph_leaves_the_statistics_alone() -> None:
    network = tiny(saving=True)
    loss = network(torch.randn(2, 3, 8, 8)).square().sum()
    state = {k: t.clone() for k, t in network.state_dict().items()}
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    loss.backward()
    assert all(torch.equal(network.state_dict()[k], t) for k, t in state.items())
    twice = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(first) == len(twice) and all(
        torch.allclose(b, 2 * a) for a, b in zip(first, twice, strict=True)
    )


def test_saving_memory_is_for_training() -> None:
    plain, saving = tiny(saving=False).eval(), tiny(saving=True).eval()
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    logits = saving(x)
    assert torch.equal(logits, plain(x))
    state = {k: t.clone() for k, t in saving.state_dict().items()}
    logits.sum().backward()
    assert x.grad is not None and x.grad.any()
    assert all(torch.equal(saving.state_dict()[k], t) for k, t in state.items())


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_norm_at_rest_normalises_and_remembers_nothing(momentum: float | None) -> None:
    torch.manual_seed(1)
    norm, x = nn.BatchNorm2d(3, momentum=momentum).train(), torch.randn(2, 3, 4, 5)
    expected = norm(x)
    state = {k: t.clone() for k, t in norm.state_dict().items()}
    with AtRest([norm]):
        assert torch.equal(norm(x), expected)
    with (
        pytest.raises(RuntimeError, match="stop"),
        AtRest([norm]),
    ):  # as when the recomputation ends early
        norm(x)
        raise RuntimeError("stop")
    assert norm.momentum == momentum and all(
        torch.equal(norm.state_dict()[k], t) for k, t in state.items()
    )
    norm(x)
    assert int(norm.num_batches_tracked) == 2


class Convolutions(TorchDispatchMode):
    """Counts the convolutions that run, not their gradients."""

    n = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.n += op is torch.ops.aten.convolution.default
        return op(*args, **(kwargs or {}))


def test_no_convolution_is_computed_twice() -> None:
    network = tiny(saving=True)
    with Convolutions() as counter:
        loss = network(torch.randn(2, 3, 8, 8)).sum()
        assert counter.n == 1 + 2 * 2 + 1 + 3 * 2
        loss.backward()
        assert counter.n == 1 + 2 * 2 + 1 + 3 * 2


def peak(network: nn.Module, x: Tensor) -> int:
    """Bytes that the tensors of a training step take at most."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        network(x).sum().backward()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def test_training_takes_less_than_half_of_torchvisions_memory() -> None:
    """Images large enough for the maps to outweigh the gradients of the weights."""
    x = torch.randn(4, 3, 128, 128)
    plain = peak(torchvision.models.densenet121(weights=None, num_classes=10).train(), x)
    saving = peak(recompute(densenet121(num_classes=10)).train(), x)
    assert saving <= 0.45 * plain


def test_a_layer_reads_all_maps_before_it() -> None:
    torch.manual_seed(1)
    block, x = DenseBlock(6, 3, growth=2).eval(), torch.randn(2, 6, 5, 4)
    with torch.no_grad():
        found = block(x)
        maps = x
        for layer in block.values():
            y = F.conv2d(layer.norm1(maps).relu(), layer.conv1.weight)
            y = F.conv2d(layer.norm2(y).relu(), layer.conv2.weight, padding=1)
            assert y.shape == (2, 2, 5, 4)
            maps = torch.cat([maps, y], dim=1)
    assert found.shape == (2, 12, 5, 4)
    torch.testing.assert_close(found, maps)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("densenet121", [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (1024, 7, 7)]),
        ("densenet161", [(384, 56, 56), (768, 28, 28), (2112, 14, 14), (2208, 7, 7)]),
        ("densenet169", [(256, 56, 56), (512, 28, 28), (1280, 14, 14), (1664, 7, 7)]),
        ("densenet201", [(256, 56, 56), (512, 28, 28), (1792, 14, 14), (1920, 7, 7)]),
        ("densenet_bc_100_12", [(216, 32, 32), (300, 16, 16), (342, 8, 8)]),
    ],
)
def test_stages(name: str, stages: list[tuple[int, int, int]]) -> None:
    network = meta_twin(name)
    assert network.input_size == (32 if "bc" in name else 224)
    x = torch.zeros(2, 3, network.input_size, network.input_size, device="meta")
    assert [tuple(m.shape[1:]) for m in network.stages(x)] == stages
    assert network.embed(x).shape == (2, stages[-1][0])


@pytest.mark.parametrize(
    ("name", "n", "classes"),
    [
        ("densenet121", 7_978_856, 1000),
        ("densenet161", 28_681_000, 1000),
        ("densenet169", 14_149_480, 1000),
        ("densenet201", 20_013_928, 1000),
        ("densenet_bc_100_12", 769_162, 10),
    ],
)
def test_parameters(name: str, n: int, classes: int) -> None:
    assert sum(p.numel() for p in meta_twin(name).parameters()) == n
    assert f"{n:,} parameters at {classes} classes" in (BUILDERS[name].__doc__ or "")


@pytest.mark.parametrize("name", NAMES)
def test_the_names_count_the_layers(name: str) -> None:
    """Convolutions, the last layer, and for the paper's "L" no pooling."""
    weighted = [m for m in meta_twin(name).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == int(name.removeprefix("densenet").removeprefix("_bc_").split("_")[0])


def test_the_cifar_network_is_the_papers() -> None:
    """Section 3: k = 12, three blocks of equal depth, 2k maps from a 3x3 convolution, theta =
    0.5."""
    network = meta_twin("densenet_bc_100_12")
    first = network.features[0]
    assert (first.out_channels, first.kernel_size, first.stride, first.padding) == (
        24,
        (3, 3),
        (1, 1),
        (1, 1),
    )
    blocks = [m for m in network.features if isinstance(m, DenseBlock)]
    assert [len(block) for block in blocks] == [16, 16, 16]
    assert {layer.conv1.out_channels for block in blocks for layer in block.values()} == {4 * 12}
    transitions = [m.conv for m in network.features if isinstance(m, Transition)]
    assert [(m.in_channels, m.out_channels) for m in transitions] == [(216, 108), (300, 150)]


def test_d1_a_relu_in_each_transition_and_behind_the_last_block() -> None:
    torch.manual_seed(1)
    transition, x = Transition(6, 3).eval(), torch.randn(2, 6, 4, 4)
    with torch.no_grad():
        nn.init.normal_(transition.norm.bias)
        expected = F.avg_pool2d(F.conv2d(transition.norm(x).relu(), transition.conv.weight), 2)
        assert torch.equal(transition(x), expected)
        x = torch.randn(2, 3, 16, 16)
        last = small().features(x)
        assert (last < 0).any() and torch.equal(small().stages(x)[-1], last.relu())
    assert isinstance(small().features[-1], nn.BatchNorm2d)


def test_d2_densenet161_grows_faster() -> None:
    assert {name: TABLE_1[name].growth for name in PUBLISHED} == dict(
        zip(PUBLISHED, (32, 48, 32, 32), strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_d3_no_dropout(name: str) -> None:
    assert not any(isinstance(m, nn.Dropout) for m in meta_twin(name).modules())


def test_d3_training_draws_no_random_numbers() -> None:
    network = tiny(saving=True)
    state = torch.get_rng_state()
    network(torch.ones(2, 3, 8, 8)).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_drawn_by_hes_rule() -> None:
    for m in small().modules():
        if isinstance(m, nn.Conv2d):
            assert float(m.weight.detach().std()) == pytest.approx(
                (2 / m.weight[0].numel()) ** 0.5, rel=0.1
            )
            assert m.bias is None
    assert not small().head.bias.any()


def test_min_sizes() -> None:
    assert {name: meta_twin(name).min_size for name in NAMES} == {
        **dict.fromkeys(PUBLISHED, 29),
        NAMES[4]: 4,
    }


@pytest.mark.parametrize("name", ["densenet121", "densenet_bc_100_12"])
def test_smaller_images_are_refused(name: str) -> None:
    network = meta_twin(name)
    side = network.min_size
    assert network(torch.zeros(1, 3, side, side + 3, device="meta")).shape == (
        1,
        network.head.out_features,
    )
    x = torch.zeros(1, 3, side, side - 1, device="meta")
    for method in (network, network.stages, network.embed):
        with refused(ValueError, "DenseNet", f"{side}x{side}", f"{side}x{side - 1}"):
            method(x)
    # the limit is the network's, not the message's
    with pytest.raises(RuntimeError, match="too small"):
        network.features(x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("saving", [False, True])
def test_a_later_layer_leaves_the_maps_alone(saving: bool, training: bool) -> None:
    torch.manual_seed(1)
    network, x = tiny(saving).train(training), torch.randn(2, 3, 16, 12)
    ends = [i for i, m in enumerate(network.features) if isinstance(m, DenseBlock)]
    maps = network.stages(x)
    for end, found in zip(ends[:-1], maps, strict=False):
        assert torch.equal(found, network.features[: end + 1](x))
    assert torch.equal(maps[-1], network.features(x).relu())


def test_classes_and_channels() -> None:
    network = densenet_bc_100_12(num_classes=7, in_channels=1).train()
    logits = network(torch.randn(2, 1, 9, 13))
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 6])).backward()
    assert [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()
    ] == []
