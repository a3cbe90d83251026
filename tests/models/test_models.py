"""One contract for every network of the canon."""

import functools
import re
import sys
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from foveate import models
from foveate.models import MODELS

# Channels of the map at the end of each stage, from the papers' tables and the published networks.
CHANNELS = {
    "efficientnet_b0": (16, 24, 40, 80, 112, 192, 320, 1280),
    "efficientnet_b1": (16, 24, 40, 80, 112, 192, 320, 1280),
    "efficientnet_b2": (16, 24, 48, 88, 120, 208, 352, 1408),
    "efficientnet_b3": (24, 32, 48, 96, 136, 232, 384, 1536),
    "efficientnet_b4": (24, 32, 56, 112, 160, 272, 448, 1792),
    "efficientnet_b5": (24, 40, 64, 128, 176, 304, 512, 2048),
    "efficientnet_b6": (32, 40, 72, 144, 200, 344, 576, 2304),
    "efficientnet_b7": (32, 48, 80, 160, 224, 384, 640, 2560),
    "efficientnet_lite0": (16, 24, 40, 80, 112, 192, 320, 1280),
    "efficientnet_lite1": (16, 24, 40, 80, 112, 192, 320, 1280),
    "efficientnet_lite2": (16, 24, 48, 88, 120, 208, 352, 1280),
    "efficientnet_lite3": (24, 32, 48, 96, 136, 232, 384, 1280),
    "efficientnet_lite4": (24, 32, 56, 112, 160, 272, 448, 1280),
}
REDUCTIONS = dict.fromkeys(CHANNELS, (2, 4, 8, 16, 16, 32, 32, 32))


@functools.cache
def shapeless(name: str, *arguments: int) -> nn.Module:
    """The network without memory for its numbers: enough for whatever asks for shapes only. To be read only."""
    with torch.device("meta"):
        return models.build(name, *arguments).eval()


@pytest.fixture(scope="module", params=MODELS)
def network(request: pytest.FixtureRequest, batch: Tensor) -> Iterator[nn.Module]:
    """A network of five classes, random weights, batch-norm statistics of the batch: nothing overflows or dies out."""
    torch.manual_seed(0)
    net = models.build(request.param, num_classes=5)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    yield net.eval()
    del net


@pytest.fixture(scope="module")
def batch() -> Tensor:
    return torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("n", "height", "width"), [(1, 64, 64), (2, 64, 96), (1, 33, 47), (1, 1, 1)])
def test_logits_have_a_row_a_picture(name: str, n: int, height: int, width: int) -> None:
    x = torch.zeros(n, 3, height, width, device="meta")
    net = shapeless(name)
    assert net(x).shape == (n, 1000)
    assert net.embed(x).shape == (n, CHANNELS[name][-1])


@pytest.mark.parametrize("name", MODELS)
def test_stages_are_those_of_the_papers_table(name: str) -> None:
    maps = shapeless(name).stages(torch.zeros(2, 3, 64, 128, device="meta"))
    expected = [(2, c, 64 // r, 128 // r) for c, r in zip(CHANNELS[name], REDUCTIONS[name], strict=True)]
    assert [tuple(m.shape) for m in maps] == expected


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_is_the_one_in_the_docstring(name: str) -> None:
    stated = re.search(r"([\d,]+) parameters at 1000 classes", MODELS[name].__doc__ or "")
    assert stated is not None
    assert sum(p.numel() for p in shapeless(name).parameters()) == int(stated[1].replace(",", ""))


@pytest.mark.parametrize("name", MODELS)
def test_classes_and_channels(name: str) -> None:
    net = shapeless(name, 7, 1)
    assert net.head.out_features == 7
    assert net(torch.zeros(1, 1, 64, 64, device="meta")).shape == (1, 7)


@pytest.mark.parametrize("name", MODELS)
def test_every_paper_has_its_year(name: str) -> None:
    year = sys.modules[MODELS[name].__module__].YEAR
    assert isinstance(year, int) and 1989 <= year <= 2030


def test_rows_do_not_depend_on_their_batch(network: nn.Module, batch: Tensor) -> None:
    with torch.no_grad():
        together = network(batch)
        alone = torch.cat([network(row[None]) for row in batch])
    assert together.isfinite().all() and together.std(dim=0).min() > 0
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * float(together.abs().max()))


def test_head_reads_the_embedding_and_the_embedding_the_last_map(network: nn.Module, batch: Tensor) -> None:
    with torch.no_grad():
        embedded = network.embed(batch)
        assert torch.equal(network.head(embedded), network(batch))
        assert torch.equal(network.stages(batch)[-1].mean(dim=(2, 3)), embedded)
    assert any(child is network.head for child in network.modules())


def test_saved_and_loaded_again(network: nn.Module, batch: Tensor, request: pytest.FixtureRequest) -> None:
    with torch.device("meta"):
        twin = models.build(request.node.callspec.params["network"], 5).eval()
    twin.load_state_dict(load(save(network.state_dict())), assign=True)
    with torch.no_grad():
        assert torch.equal(twin(batch), network(batch))


def test_every_parameter_gets_a_finite_gradient(network: nn.Module, batch: Tensor) -> None:
    """Last of the tests on `network`: training moves the batch-norm statistics."""
    network.train()
    nn.functional.cross_entropy(network(batch), torch.tensor([0, 1, 4])).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    network.eval().zero_grad()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet_lite9", r"no network is called 'efficientnet_lite9'; did you mean efficientnet_lite\d or "),
        ("eficientnet_b0", "did you mean efficientnet_b0"),
        ("xyz", "no network is called 'xyz'; known: efficientnet_b0, .*efficientnet_lite4"),
        ("", "no network is called ''; known"),
    ],
)
def test_unknown_networks_are_refused_with_the_nearest_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.build(name)
