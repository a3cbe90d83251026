"""GoogLeNet: torchvision's against torchvision, the paper's against the paper written out."""

import functools
import sys

import pytest
import torch
import torchvision
from refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.alexnet import ResponseNormalisation, alexnet_2012
from foveate.models.googlenet import (
    TABLE_1,
    Auxiliary,
    GoogLeNet,
    Inception,
    Outputs,
    Row,
    googlenet,
    googlenet_2014,
)

BUILDERS = {"googlenet": googlenet, "googlenet_2014": googlenet_2014}
NAMES = list(BUILDERS)
ENDS = ("conv1", "conv3", "inception3b", "inception4e", "inception5b")


@functools.cache
def meta_twin(name: str) -> GoogLeNet:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return BUILDERS[name]().eval()


@functools.cache
def drawn(name: str) -> GoogLeNet:
    """The network with random weights. To be read only."""
    torch.manual_seed(0)
    return BUILDERS[name]()


def torchvisions(num_classes: int = 1000) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.googlenet(
        weights=None,
        num_classes=num_classes,
        transform_input=False,
        init_weights=False,
        aux_logits=True,
    )


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
def pair() -> tuple[nn.Module, GoogLeNet]:
    """Torchvision's network and ours around its tensors. To be read only."""
    torch.manual_seed(0)
    theirs = settle(torchvisions(), torch.randn(4, 3, 96, 96))
    with torch.device("meta"):
        ours = googlenet().eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return theirs, ours


def without_dropout(network: nn.Module) -> nn.Module:
    for m in network.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    return network


def test_it_has_torchvisions_tensors_in_torchvisions_order() -> None:
    theirs, ours = pair()[0].state_dict(), meta_twin("googlenet").state_dict()
    assert [(k, t.shape) for k, t in ours.items()] == [(k, t.shape) for k, t in theirs.items()]


@pytest.mark.parametrize(
    "shape", [(1, 3, 96, 96), (3, 3, 64, 101), (1, 3, 15, 15), (1, 3, 224, 224)]
)
def test_it_gives_torchvisions_logits(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape)
    theirs, ours = pair()
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
        assert isinstance(found, Tensor) and expected.std() > 0
        assert torch.equal(found, expected)
        assert torch.equal(ours.head(ours.embed(x)), found)


def test_it_gives_torchvisions_gradients() -> None:
    theirs = without_dropout(torchvisions(10)).double().train()
    ours = without_dropout(googlenet(10)).double().train()
    ours.load_state_dict(theirs.state_dict())
    torch.manual_seed(1)
    x, labels = torch.randn(3, 3, 64, 96, dtype=torch.float64), torch.tensor([1, 0, 9])
    outputs = theirs(x), ours(x)
    assert torch.equal(outputs[1].logits, outputs[0].logits)
    assert torch.equal(outputs[1].aux2, outputs[0].aux_logits2)
    assert torch.equal(outputs[1].aux1, outputs[0].aux_logits1)
    for output in outputs:
        sum(
            w * F.cross_entropy(o, labels) for w, o in zip((1, 0.3, 0.3), output, strict=True)
        ).backward()
    for (name, p), (_, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and p.grad.any()
        assert torch.equal(q.grad, p.grad), name
    for (name, p), (_, q) in zip(theirs.named_buffers(), ours.named_buffers(), strict=True):
        assert torch.equal(q, p), name  # the batch-norm statistics have moved alike


def test_it_drops_as_torchvision_does() -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 3, 64, 64)
    theirs, ours = torchvisions(10).train(), googlenet(10).train()
    ours.load_state_dict(theirs.state_dict())
    outputs = []
    for network in (theirs, ours):
        torch.manual_seed(2)
        with torch.no_grad():
            outputs.append(network(x))
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def written_out(network: GoogLeNet, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Table 1 and Figure 3 in training without dropout, from the parameters in their order: logits,
    aux2, aux1."""
    every = {k: p.double() for k, p in network.state_dict().items()}
    trunk = iter([p for k, p in every.items() if not k.startswith(("aux", "fc"))])

    def conv(x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = next(trunk), next(trunk)
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2).relu()

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, stride=2, ceil_mode=True)

    def normalise(a: Tensor) -> Tensor:
        out, last = torch.empty_like(a), a.shape[1] - 1
        for i in range(a.shape[1]):
            neighbours = a[:, max(0, i - 2) : min(last, i + 2) + 1]
            out[:, i] = a[:, i] / (2 + 1e-4 * neighbours.square().sum(dim=1)) ** 0.75
        return out

    def inception(x: Tensor) -> Tensor:
        one, three, five = conv(x), conv(conv(x)), conv(conv(x))
        return torch.cat([one, three, five, conv(F.max_pool2d(x, 3, stride=1, padding=1))], dim=1)

    def auxiliary(x: Tensor, i: int) -> Tensor:
        p = {k.removeprefix(f"aux{i}."): t for k, t in every.items() if k.startswith(f"aux{i}.")}
        x = (
            F.conv2d(F.avg_pool2d(x, 5, stride=3), p["conv.conv.weight"], p["conv.conv.bias"])
            .relu()
            .flatten(1)
        )
        x = F.linear(x, p["fc1.weight"], p["fc1.bias"]).relu()
        return F.linear(x, p["fc2.weight"], p["fc2.bias"])

    x = normalise(pool(conv(x, stride=2)))
    x = pool(normalise(conv(conv(x))))
    x = pool(inception(inception(x)))
    x = in_4a = inception(x)
    x = in_4d = inception(inception(inception(x)))
    x = pool(inception(x))
    x = inception(inception(x))
    assert x.shape[1:] == (1024, 7, 7) and next(trunk, None) is None
    logits = F.linear(F.avg_pool2d(x, 7).flatten(1), every["fc.weight"], every["fc.bias"])
    return logits, auxiliary(in_4d, 2), auxiliary(in_4a, 1)


def test_the_papers_network_is_what_the_paper_says() -> None:
    torch.manual_seed(0)
    network = without_dropout(googlenet_2014(num_classes=20))
    x = 50 * torch.randn(1, 3, 224, 224)  # as large as pixels, so that normalisation tells
    with torch.no_grad():
        expected = written_out(network, x.double())
        found = network.train()(x)
        assert found._fields == ("logits", "aux2", "aux1")
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))
        evaluated = network.eval()(x)
        assert torch.equal(evaluated, found.logits)
        assert torch.equal(network.head(network.embed(x)), evaluated)


@pytest.mark.parametrize("name", NAMES)
def test_training_answers_by_name(name: str) -> None:
    network, x = drawn(name).train(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output = network(x)
    network.eval()
    assert isinstance(output, Outputs)
    assert [o.shape for o in (output.logits, output.aux2, output.aux1)] == [(2, 1000)] * 3


@pytest.mark.parametrize("name", NAMES)
def test_the_auxiliary_classifiers_last_layers_are_named(name: str) -> None:
    network = meta_twin(name)
    assert network.AUXILIARY == ("aux1.fc2", "aux2.fc2")
    layers = [network.get_submodule(path) for path in network.AUXILIARY]
    assert all(isinstance(m, nn.Linear) and m.out_features == 1000 for m in layers)


def test_an_inception_module_looks_in_four_ways() -> None:
    torch.manual_seed(1)
    module, x = Inception(192, TABLE_1["3a"]), torch.randn(1, 192, 28, 28)
    with torch.no_grad():
        found = module(x)
        branches = [
            branch(x) for branch in (module.branch1, module.branch2, module.branch3, module.branch4)
        ]
    assert [b.shape[1] for b in branches] == [64, 128, 32, 32]
    assert found.shape == (1, 256, 28, 28)
    assert torch.equal(found, torch.cat(branches, dim=1))
    convs = [
        (m.in_channels, m.out_channels, m.kernel_size[0])
        for m in module.modules()
        if isinstance(m, nn.Conv2d)
    ]
    assert convs == [
        (192, 64, 1),
        (192, 96, 1),
        (96, 128, 3),
        (192, 16, 1),
        (16, 32, 5),
        (192, 32, 1),
    ]


def test_table_1_has_the_papers_widths() -> None:
    widths = [row.ones + row.threes + row.fives + row.projected for row in TABLE_1.values()]
    assert widths == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert Row._fields == ("ones", "reduce3", "threes", "reduce5", "fives", "projected")


@pytest.mark.parametrize("name", NAMES)
def test_stages(name: str) -> None:
    network = meta_twin(name)
    x = torch.zeros(2, 3, network.input_size, network.input_size, device="meta")
    expected = [(64, 112, 112), (192, 56, 56), (480, 28, 28), (832, 14, 14), (1024, 7, 7)]
    assert [tuple(m.shape[1:]) for m in network.stages(x)] == expected
    assert network.input_size == 224 and network.embed(x).shape == (2, 1024)


@pytest.mark.parametrize(
    ("name", "n", "evaluated"),
    [("googlenet", 13_004_888, 6_624_904), ("googlenet_2014", 13_378_280, 6_998_552)],
)
def test_parameters(name: str, n: int, evaluated: int) -> None:
    parameters = dict(meta_twin(name).named_parameters())
    assert sum(p.numel() for p in parameters.values()) == n
    assert sum(p.numel() for key, p in parameters.items() if not key.startswith("aux")) == evaluated
    doc = BUILDERS[name].__doc__ or ""
    assert f"{n:,} parameters at 1000 classes" in doc and f"uses {evaluated:,} of them" in doc


def norms(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, ResponseNormalisation)]


def test_d1_response_normalisation_has_alexnets_constants() -> None:
    found = norms(meta_twin("googlenet_2014"))
    assert [(m.k, m.n, m.alpha, m.beta) for m in found] == [
        (2, 5, 1e-4, 0.75)
    ] * 2  # Figure 3 has two


def test_d2_auxiliary_classifiers_read_maps_of_any_size() -> None:
    torch.manual_seed(1)
    auxiliary = drawn("googlenet_2014").aux1
    assert isinstance(auxiliary, Auxiliary)
    for h, w in ((2, 2), (4, 5), (14, 14), (20, 21)):
        x = torch.randn(1, 512, h, w)
        at_14x14 = F.adaptive_avg_pool2d(x, 14)
        with torch.no_grad():
            assert auxiliary(x).shape == (1, 1000)
            assert torch.equal(auxiliary.pool(x), F.avg_pool2d(at_14x14, 5, stride=3))
        assert torch.equal(at_14x14, x) == ((h, w) == (14, 14))


def test_d3_the_papers_weights_are_drawn_by_hes_rule() -> None:
    for m in drawn("googlenet_2014").modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            assert float(m.weight.detach().std()) == pytest.approx(
                (2 / m.weight[0].numel()) ** 0.5, rel=0.1
            )
            assert not m.bias.any()


def test_d4_batch_norm_in_the_place_of_biases_and_response_normalisation() -> None:
    ours, papers = meta_twin("googlenet"), meta_twin("googlenet_2014")
    assert not norms(ours) and {m.eps for m in ours.modules() if isinstance(m, nn.BatchNorm2d)} == {
        1e-3
    }
    assert all(m.bias is None for m in ours.modules() if isinstance(m, nn.Conv2d))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in papers.modules())
    assert all(m.bias is not None for m in papers.modules() if isinstance(m, nn.Conv2d))


def test_d5_3x3_filters_in_the_place_of_5x5_ones() -> None:
    for name, side in (("googlenet", 3), ("googlenet_2014", 5)):
        modules = [m for m in meta_twin(name).modules() if isinstance(m, Inception)]
        assert len(modules) == 9
        assert {m.branch3[1].conv.kernel_size for m in modules} == {(side, side)}


def test_d6_the_last_maximum_is_smaller() -> None:
    pools = [
        [getattr(meta_twin(name), f"maxpool{i}").kernel_size for i in range(1, 5)] for name in NAMES
    ]
    assert pools == [[3, 3, 3, 2], [3, 3, 3, 3]]


def test_d7_less_dropout() -> None:
    drops = [(n.dropout.p, n.aux1.dropout.p, n.aux2.dropout.p) for n in map(meta_twin, NAMES)]
    assert drops == [(0.2, 0.7, 0.7), (0.4, 0.7, 0.7)]


def test_d8_auxiliary_classifiers_average_to_4x4() -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 512, 14, 14)
    found = drawn("googlenet").aux1.pool(x)
    assert torch.equal(found, F.adaptive_avg_pool2d(x, 4))
    assert not torch.allclose(found, F.avg_pool2d(x, 5, stride=3))
    assert drawn("googlenet").aux1.pool(x[..., :1, :3]).shape == (1, 512, 4, 4)


def test_d9_torchvisions_weights_are_narrow() -> None:
    for m in drawn("googlenet").modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            assert float(m.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
            assert float(m.weight.detach().mean()) == pytest.approx(0, abs=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_smaller_images_are_refused(name: str) -> None:
    with torch.device("meta"):
        network = BUILDERS[name]()
    side = network.min_size
    assert side == {"googlenet": 15, "googlenet_2014": 31}[name]
    small = torch.zeros(2, 3, side, side - 1, device="meta")
    assert network.train()(torch.zeros(2, 3, side, side, device="meta")).logits.shape == (2, 1000)
    named = ("GoogLeNet", f"{side}x{side}", f"{side}x{side - 1}")
    with refused(ValueError, *named):
        network(small)
    assert network.eval()(torch.zeros(1, 3, side, side + 3, device="meta")).shape == (1, 1000)
    for method in (network, network.stages, network.embed):
        with refused(ValueError, *named):
            method(small)
    network.min_size = 1
    # the limit is the network's, not the message's
    with pytest.raises(RuntimeError, match="too small"):
        network(small)


@pytest.mark.parametrize("name", NAMES)
def test_a_later_layer_leaves_the_maps_alone(name: str) -> None:
    torch.manual_seed(1)
    network, kept = drawn(name).eval(), list[Tensor]()
    handles = [
        network.get_submodule(end).register_forward_hook(lambda *call: kept.append(call[2].clone()))
        for end in ENDS
    ]
    with torch.no_grad():
        maps = network.stages(torch.randn(2, 3, 48, 64))
    for handle in handles:
        handle.remove()
    assert len(maps) == len(kept) == 5 and all(map(torch.equal, maps, kept))


@pytest.mark.parametrize("name", NAMES)
def test_classes_and_channels(name: str) -> None:
    network = BUILDERS[name](num_classes=7, in_channels=1)
    output = network.train()(torch.randn(2, 1, 48, 40))
    assert [o.shape for o in output] == [(2, 7)] * 3
    torch.stack([F.cross_entropy(o, torch.tensor([0, 6])) for o in output]).sum().backward()
    assert [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.isfinite().all()
    ] == []


def test_parameters_beside_alexnets() -> None:
    """In evaluation: the paper says 12 times fewer, its own table makes 8.7."""
    parameters = meta_twin("googlenet_2014").named_parameters()
    ours = sum(p.numel() for key, p in parameters if not key.startswith("aux"))
    with torch.device("meta"):
        alexnets = sum(p.numel() for p in alexnet_2012().parameters())
    docstring = sys.modules[GoogLeNet.__module__].__doc__ or ""
    assert f"{alexnets / ours:.1f}" == "8.7" and "8.7 times fewer parameters" in docstring
