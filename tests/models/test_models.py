"""One contract for every network of the canon."""

import ast
import functools
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refused
from safetensors.torch import load, save
from torch import Tensor, nn

from foveate import models
from foveate.models import MODELS

Maps = tuple[tuple[int, int], ...]


def maps(sides: tuple[int, ...], *channels: int) -> Maps:
    return tuple(zip(channels, sides, strict=True))


# (channels, side) of the map at the end of each stage, for images of the network's own size: from
# the papers' tables and the published networks.
VGG = maps((112, 56, 28, 14, 7), 64, 128, 256, 512, 512)
BOTTLENECKS = maps((56, 28, 14, 7), 256, 512, 1024, 2048)
CIFAR = maps((32, 16, 8), 16, 32, 64)
MBCONV = (2, 4, 8, 16, 16, 32, 32, 32)


def mbconv(size: int, *channels: int) -> Maps:
    """EfficientNet's stages; each stride of 2 rounds up."""
    return tuple((c, -(-size // reduction)) for c, reduction in zip(channels, MBCONV, strict=True))


STAGES: dict[str, Maps] = {
    "lenet5_1998": maps((14, 5), 6, 16),
    "lenet5": maps((14, 5), 6, 16),
    "alexnet_2012": maps((27, 13, 13, 13, 6), 96, 256, 384, 384, 256),
    "alexnet_one_tower": maps((27, 13, 13, 13, 6), 96, 256, 384, 384, 256),
    "alexnet": maps((27, 13, 13, 13, 6), 64, 192, 384, 256, 256),
    "nin": maps((27, 13, 6, 6), 96, 256, 384, 1024),
    "nin_cifar": maps((16, 8, 8), 96, 192, 192),
    **dict.fromkeys("vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn".split(), VGG),
    "googlenet_2014": maps((112, 56, 28, 14, 7), 64, 192, 480, 832, 1024),
    "googlenet": maps((112, 56, 28, 14, 7), 64, 192, 480, 832, 1024),
    "inception_v3": maps((147, 71, 35, 17, 8), 64, 192, 288, 768, 2048),
    "resnet18": maps((56, 28, 14, 7), 64, 128, 256, 512),
    "resnet34": maps((56, 28, 14, 7), 64, 128, 256, 512),
    **dict.fromkeys("resnet50 resnet101 resnet152 resnet50_v1".split(), BOTTLENECKS),
    **dict.fromkeys("resnet20 resnet32 resnet44 resnet56 resnet110 plain20 plain56".split(), CIFAR),
    "squeezenet1_0": maps((109, 54, 27, 13), 96, 256, 512, 512),
    "squeezenet1_1": maps((111, 55, 27, 13), 64, 128, 256, 512),
    "densenet121": maps((56, 28, 14, 7), 256, 512, 1024, 1024),
    "densenet161": maps((56, 28, 14, 7), 384, 768, 2112, 2208),
    "densenet169": maps((56, 28, 14, 7), 256, 512, 1280, 1664),
    "densenet201": maps((56, 28, 14, 7), 256, 512, 1792, 1920),
    "densenet_bc_100_12": maps((32, 16, 8), 216, 300, 342),
    "mobilenet_v1": maps((112, 56, 28, 14, 7), 64, 128, 256, 512, 1024),
    "mobilenet_v1_x0_25": maps((112, 56, 28, 14, 7), 16, 32, 64, 128, 256),
    "mobilenet_v1_x0_5": maps((112, 56, 28, 14, 7), 32, 64, 128, 256, 512),
    "mobilenet_v1_x0_75": maps((112, 56, 28, 14, 7), 48, 96, 192, 384, 768),
    "mobilenet_v2": maps((112, 56, 28, 14, 14, 7, 7, 7), 16, 24, 32, 64, 96, 160, 320, 1280),
    "mobilenet_v3_small": maps((56, 28, 14, 14, 7, 7), 16, 24, 40, 48, 96, 576),
    "mobilenet_v3_large": maps((112, 56, 28, 14, 14, 7, 7), 16, 24, 40, 80, 112, 160, 960),
    "shufflenet_v1": maps((28, 14, 7), 240, 480, 960),
    "shufflenet_v1_g1": maps((28, 14, 7), 144, 288, 576),
    "shufflenet_v1_g2": maps((28, 14, 7), 200, 400, 800),
    "shufflenet_v1_g4": maps((28, 14, 7), 272, 544, 1088),
    "shufflenet_v1_g8": maps((28, 14, 7), 384, 768, 1536),
    "shufflenet_v2_x0_5": maps((28, 14, 7, 7), 48, 96, 192, 1024),
    "shufflenet_v2_x1_0": maps((28, 14, 7, 7), 116, 232, 464, 1024),
    "shufflenet_v2_x1_5": maps((28, 14, 7, 7), 176, 352, 704, 1024),
    "shufflenet_v2_x2_0": maps((28, 14, 7, 7), 244, 488, 976, 2048),
    "efficientnet_b0": mbconv(224, 16, 24, 40, 80, 112, 192, 320, 1280),
    "efficientnet_b1": mbconv(240, 16, 24, 40, 80, 112, 192, 320, 1280),
    "efficientnet_b2": mbconv(260, 16, 24, 48, 88, 120, 208, 352, 1408),
    "efficientnet_b3": mbconv(300, 24, 32, 48, 96, 136, 232, 384, 1536),
    "efficientnet_b4": mbconv(380, 24, 32, 56, 112, 160, 272, 448, 1792),
    "efficientnet_b5": mbconv(456, 24, 40, 64, 128, 176, 304, 512, 2048),
    "efficientnet_b6": mbconv(528, 32, 40, 72, 144, 200, 344, 576, 2304),
    "efficientnet_b7": mbconv(600, 32, 48, 80, 160, 224, 384, 640, 2560),
    "efficientnet_lite0": mbconv(224, 16, 24, 40, 80, 112, 192, 320, 1280),
    "efficientnet_lite1": mbconv(240, 16, 24, 40, 80, 112, 192, 320, 1280),
    "efficientnet_lite2": mbconv(260, 16, 24, 48, 88, 120, 208, 352, 1280),
    "efficientnet_lite3": mbconv(280, 24, 32, 48, 96, 136, 232, 384, 1280),
    "efficientnet_lite4": mbconv(300, 24, 32, 56, 112, 160, 272, 448, 1280),
}

# The smallest network of each family that learns eight images by heart, and at which rate.
SMALLEST = {
    "lenet5_1998": 1e-3,
    "lenet5": 3e-3,
    "alexnet": 1e-4,
    "nin_cifar": 1e-4,
    "vgg11_bn": 1e-4,
    "googlenet": 1e-3,
    "inception_v3": 1e-3,
    "resnet18": 1e-3,
    "resnet20": 1e-2,
    "plain20": 1e-2,
    "squeezenet1_1": 3e-4,
    "densenet_bc_100_12": 1e-2,
    "mobilenet_v1_x0_25": 1e-2,
    "mobilenet_v2": 3e-3,
    "mobilenet_v3_small": 3e-3,
    "shufflenet_v1_g8": 3e-3,
    "shufflenet_v2_x0_5": 3e-3,
    "efficientnet_b0": 3e-3,
    "efficientnet_lite0": 3e-3,
}
SEEDS = {
    "nin_cifar": 1,
    "squeezenet1_1": 3,
}  # with others a class's ReLU before the average is born dead


def side(name: str) -> int:
    """A small image that still fits: cheap enough to train on."""
    smallest, usual = meta_twin(name).min_size, meta_twin(name).input_size
    return usual if smallest == usual else max(64, -(-smallest // 32) * 32)


@functools.cache
def meta_twin(name: str, *arguments: int) -> nn.Module:
    """The network without memory for its numbers: enough for whatever asks for shapes only. To be
    read only."""
    with torch.device("meta"):
        return models.build(name, *arguments).eval()


def channels(name: str) -> int:
    return next(m.in_channels for m in meta_twin(name).modules() if isinstance(m, nn.Conv2d))


def flattens(name: str) -> bool:
    """Its linear layers read a map of one size only."""
    return meta_twin(name).min_size == meta_twin(name).input_size


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


def logits(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out.logits


@functools.cache
def images(name: str) -> Tensor:
    """Three small images, wider than high where the network allows it."""
    high = side(name)
    wide = high if flattens(name) else high + 32
    return torch.randn(3, channels(name), high, wide, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=MODELS)
def network(request: pytest.FixtureRequest) -> Iterator[nn.Module]:
    """A network of five classes, random weights, statistics of its batch. Kept for the tests of one
    name."""
    torch.manual_seed(0)
    net = settle(models.build(request.param, num_classes=5), images(request.param))
    yield net
    del net


@pytest.fixture
def batch(network: nn.Module, request: pytest.FixtureRequest) -> Tensor:
    return images(request.node.callspec.params["network"])


def test_every_network_has_its_stages_here() -> None:
    assert list(STAGES) == list(MODELS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("n", "taller", "wider"), [(1, 0, 0), (2, 0, 32), (1, 1, 15)])
def test_logits_have_a_row_an_image(name: str, n: int, taller: int, wider: int) -> None:
    net = meta_twin(name)
    if flattens(name):
        taller = wider = 0
    x = torch.zeros(
        n, channels(name), net.input_size + taller, net.input_size + wider, device="meta"
    )
    assert net(x).shape == (n, outputs(net.head))
    assert net.embed(x).shape == (n, inputs(net.head))


@pytest.mark.parametrize("name", MODELS)
def test_smallest_images(name: str) -> None:
    net = meta_twin(name)
    c, side = channels(name), net.min_size
    assert net(torch.zeros(1, c, side, side, device="meta")).shape == (1, outputs(net.head))
    if side > 1:
        with refused(ValueError, f"{side}x{side}", f"{side}x{side - 1}"):
            net(torch.zeros(1, c, side, side - 1, device="meta"))


@pytest.mark.parametrize("name", MODELS)
def test_stages_are_those_of_the_papers_table(name: str) -> None:
    net = meta_twin(name)
    maps = net.stages(torch.zeros(2, channels(name), net.input_size, net.input_size, device="meta"))
    assert [tuple(m.shape) for m in maps] == [(2, c, s, s) for c, s in STAGES[name]]


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_is_the_one_in_the_docstring(name: str) -> None:
    stated = re.search(
        r"([\d,]+) (?:trainable )?parameters at (\d+) classes", MODELS[name].__doc__ or ""
    )
    assert stated is not None
    assert outputs(meta_twin(name).head) == int(stated[2])
    trained = sum(p.numel() for p in meta_twin(name).parameters() if p.requires_grad)
    assert trained == int(stated[1].replace(",", ""))


@pytest.mark.parametrize("name", MODELS)
def test_classes_and_channels(name: str) -> None:
    net = meta_twin(name, 7, 2)
    assert outputs(net.head) == 7
    assert net(torch.zeros(1, 2, net.input_size, net.input_size, device="meta")).shape == (1, 7)


@pytest.mark.parametrize("name", MODELS)
def test_every_paper_has_its_year(name: str) -> None:
    year = sys.modules[MODELS[name].__module__].YEAR
    assert isinstance(year, int) and 1998 <= year <= 2020


@pytest.mark.parametrize(
    "file", sorted(Path(models.__file__).parent.glob("*.py")), ids=lambda file: file.stem
)
def test_a_paper_builds_on_older_papers_only(file: Path) -> None:
    tree = ast.parse(file.read_text())
    module = importlib.import_module(
        f"foveate.models.{file.stem}" if file.stem != "__init__" else "foveate.models"
    )
    if not hasattr(module, "YEAR"):
        return  # not a paper
    sources = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    papers = [
        m
        for m in sources
        if m.startswith("foveate.models.") and hasattr(importlib.import_module(m), "YEAR")
    ]
    assert all(importlib.import_module(paper).YEAR <= module.YEAR for paper in papers)


def test_rows_do_not_depend_on_their_batch(network: nn.Module, batch: Tensor) -> None:
    # in single precision deep random networks blow up what two orders of summing differ in
    network.double()
    small: Any = (
        network.input_size if network.min_size == network.input_size else max(32, network.min_size)
    )
    batch = batch[..., :small, :small]
    with torch.no_grad():
        together = network(batch.double())
        alone = torch.cat([network(row[None].double()) for row in batch])
    network.float()
    assert together.isfinite().all() and together.std(dim=0).max() > 0
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-7 * float(together.abs().max()))


def test_head_reads_the_embedding(network: nn.Module, batch: Tensor) -> None:
    with torch.no_grad():
        embedded = network.embed(batch)
        if isinstance(network.head, nn.Conv2d):  # it reads the map: see its own tests
            assert embedded.shape == (3, network.head.in_channels)
        else:
            assert torch.equal(network.head(embedded), network(batch))
    assert any(child is network.head for child in network.modules())


def test_stages_are_not_overwritten(network: nn.Module, batch: Tensor) -> None:
    """A later layer that works in place must not reach back into a map that was handed out."""
    with torch.no_grad():
        maps = network.stages(batch)
    assert len({m.data_ptr() for m in maps}) == len(maps)


def test_saved_and_loaded_again(
    network: nn.Module, batch: Tensor, request: pytest.FixtureRequest
) -> None:
    with torch.device("meta"):
        twin = models.build(request.node.callspec.params["network"], 5).eval()
    twin.load_state_dict(load(save(network.state_dict())), assign=True)
    with torch.no_grad():
        assert torch.equal(twin(batch), network(batch))


def test_every_parameter_gets_a_finite_gradient(network: nn.Module, batch: Tensor) -> None:
    """Last of the tests on `network`: training moves the batch-norm statistics."""
    network.train()
    out = network(batch)
    every = [out] if isinstance(out, Tensor) else list(out)
    sum(
        (nn.functional.cross_entropy(o, torch.tensor([0, 1, 4])) for o in every), torch.zeros(())
    ).backward()
    learning = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    assert [name for name, p in learning if p.grad is None or not p.grad.isfinite().all()] == []
    network.eval().zero_grad()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_of_each_family_learns_eight_images_by_heart(name: str) -> None:
    torch.manual_seed(SEEDS.get(name, 0))
    net = models.build(name, num_classes=4).train()
    for m in net.modules():
        if isinstance(m, nn.Dropout) or type(m).__name__ == "StochasticDepth":
            m.p = 0.0
    high = net.input_size if flattens(name) else max(32, net.min_size)
    # coarse, so that means differ
    x = nn.functional.interpolate(torch.randn(8, channels(name), 4, 4), (high, high))
    labels = torch.arange(8) % 4
    optimiser = torch.optim.Adam(net.parameters(), SMALLEST[name])
    for step in range(100):
        out = logits(net(x))
        loss = nn.functional.cross_entropy(out, labels)
        if step % 5 == 0 and bool((out.argmax(1) == labels).all()) and loss < 0.3:
            return
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pytest.fail(f"after 100 steps the loss is {float(loss.detach()):.3f}")


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("efficientnet_lite9", ["'efficientnet_lite9'", " efficientnet_lite4"]),
        ("eficientnet_b0", ["'eficientnet_b0'", " efficientnet_b0"]),
        ("resnet-51", ["'resnet-51'", " resnet50"]),
        ("resnet", ["'resnet'", " resnet18", " resnet152"]),
        ("xyz", ["'xyz'", " lenet5_1998", " efficientnet_lite4"]),
        ("", ["''", " lenet5_1998", " efficientnet_lite4"]),
    ],
)
def test_unknown_networks_are_refused_with_the_nearest_names(name: str, named: list[str]) -> None:
    with refused(ValueError, *named):
        models.build(name)


def outputs(head: nn.Module) -> int:
    return head.out_channels if isinstance(head, nn.Conv2d) else head.out_features


def inputs(head: nn.Module) -> int:
    return head.in_channels if isinstance(head, nn.Conv2d) else head.in_features
