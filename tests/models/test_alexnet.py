"""AlexNet: torchvision's against torchvision, the paper's against two towers written out."""

import functools

import numpy as np
import pytest
import torch
import torchvision
from refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.alexnet import (
    AlexNet,
    AlexNetFixed,
    ResponseNormalisation,
    alexnet,
    alexnet_2012,
    alexnet_one_tower,
)

BUILDERS = {
    "alexnet": alexnet,
    "alexnet_2012": alexnet_2012,
    "alexnet_one_tower": alexnet_one_tower,
}
FIXED = ["alexnet_2012", "alexnet_one_tower"]


@functools.cache
def meta_twin(name: str) -> nn.Module:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return BUILDERS[name]().eval()


@pytest.fixture(scope="module")
def torchvisions() -> nn.Module:
    """Torchvision's, drawn from seed 0. To be read only."""
    torch.manual_seed(0)
    return torchvision.models.alexnet(weights=None).eval()


@pytest.fixture(scope="module")
def papers() -> nn.Module:
    """The paper's network. To be read only."""
    torch.manual_seed(0)
    return alexnet_2012().eval()


def ours_with(state: dict[str, Tensor], name: str = "alexnet") -> nn.Module:
    """Our network around these very tensors."""
    with torch.device("meta"):
        network = BUILDERS[name]().eval()
    network.load_state_dict(state, assign=True)
    return network


def test_it_has_torchvisions_tensors_in_torchvisions_order(torchvisions: nn.Module) -> None:
    theirs, ours = torchvisions.state_dict(), meta_twin("alexnet").state_dict()
    assert [(k, t.shape) for k, t in ours.items()] == [(k, t.shape) for k, t in theirs.items()]


@pytest.mark.parametrize("shape", [(1, 3, 63, 63), (3, 3, 70, 128), (1, 3, 224, 224)])
def test_it_gives_torchvisions_logits(torchvisions: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape)
    ours = ours_with(torchvisions.state_dict())
    with torch.no_grad():
        expected, found = torchvisions(x), ours(x)
        assert expected.std() > 0
        assert torch.equal(found, expected)
        assert torch.equal(ours.head(ours.embed(x)), found)


def test_it_gives_torchvisions_gradients() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet(weights=None, num_classes=10, dropout=0.0).train()
    with torch.device("meta"):
        ours = alexnet(num_classes=10).train()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    for m in ours.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    x, labels = torch.randn(3, 3, 64, 96), torch.tensor([1, 0, 9])
    for network in (theirs, ours):
        F.cross_entropy(network(x), labels).backward()
    for (name, p), (_, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and p.grad.any()
        assert torch.equal(q.grad, p.grad), name


def half(x: Tensor, gpu: int) -> Tensor:
    return x.chunk(2, dim=1)[gpu]


def two_towers(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """Figure 2, each GPU by itself, in double precision; evaluation."""

    def conv(i: int, inputs: list[Tensor], **options: int) -> list[Tensor]:
        """On each GPU, half of layer i's kernels over that GPU's input."""
        weight, bias = p[f"features.{i}.0.weight"].chunk(2), p[f"features.{i}.0.bias"].chunk(2)
        return [F.conv2d(inputs[gpu], weight[gpu], bias[gpu], **options).relu() for gpu in range(2)]

    def normalise(towers: list[Tensor]) -> list[Tensor]:
        a = torch.cat(towers, dim=1)
        n_maps = a.shape[1]
        out = torch.empty_like(a)
        for i in range(n_maps):
            neighbours = a[:, max(0, i - 2) : min(n_maps - 1, i + 2) + 1]
            out[:, i] = a[:, i] / (2 + 1e-4 * neighbours.square().sum(dim=1)) ** 0.75
        return [half(out, 0), half(out, 1)]

    def pool(towers: list[Tensor]) -> list[Tensor]:
        return [F.max_pool2d(t, 3, stride=2) for t in towers]

    towers = pool(normalise(conv(0, [x, x], stride=4)))
    towers = pool(normalise(conv(1, towers, padding=2)))
    both = torch.cat(towers, dim=1)
    towers = conv(2, [both, both], padding=1)
    towers = conv(3, towers, padding=1)
    towers = pool(conv(4, towers, padding=1))
    x = torch.cat(towers, dim=1).flatten(1)
    for i in (0, 3):
        x = F.linear(x, p[f"classifier.{i}.weight"], p[f"classifier.{i}.bias"]).relu()
    return F.linear(x, p["classifier.6.weight"], p["classifier.6.bias"])


def test_the_papers_network_is_two_towers(papers: nn.Module) -> None:
    torch.manual_seed(1)
    # pixels as the paper feeds them, so that normalisation tells
    x = 100 * torch.randn(2, 3, 227, 227)
    with torch.no_grad():
        expected = two_towers({k: t.double() for k, t in papers.state_dict().items()}, x.double())
        found = papers(x)
        assert torch.equal(papers.head(papers.embed(x)), found)
    torch.testing.assert_close(
        found.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )


def test_the_papers_network_begins_as_section_5_says(papers: nn.Module) -> None:
    weighted = [m for m in papers.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for m in weighted:
        assert float(m.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert float(m.weight.detach().mean().abs()) < 3e-4
    assert [m.bias.unique().tolist() for m in weighted] == [[0], [1], [0], [1], [1], [1], [1], [0]]


def test_normalisation_is_the_papers_sum_not_a_mean() -> None:
    a = np.random.default_rng(0).uniform(0, 300, 8)
    found = ResponseNormalisation()(torch.tensor(a).view(1, 8, 1, 1)).flatten().numpy()
    near = [a[max(0, i - 2) : i + 3] for i in range(8)]
    np.testing.assert_allclose(
        found, [x / (2 + 1e-4 * (n**2).sum()) ** 0.75 for x, n in zip(a, near, strict=True)]
    )


def test_normalisation_is_torchs_with_alpha_times_n() -> None:
    a = 100 * torch.rand(2, 96, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)(a)
    torch.testing.assert_close(ResponseNormalisation()(a), expected)


@pytest.mark.parametrize(
    ("name", "n"),
    [("alexnet", 61_100_840), ("alexnet_2012", 60_965_224), ("alexnet_one_tower", 62_378_344)],
)
def test_parameters(name: str, n: int) -> None:
    assert sum(p.numel() for p in meta_twin(name).parameters()) == n
    assert f"{n:,} parameters at 1000 classes" in (BUILDERS[name].__doc__ or "")


@pytest.mark.parametrize(
    ("name", "side", "widths"),
    [
        ("alexnet", 224, (64, 192, 384, 256, 256)),
        ("alexnet_2012", 227, (96, 256, 384, 384, 256)),
        ("alexnet_one_tower", 224, (96, 256, 384, 384, 256)),
    ],
)
def test_stages_are_those_of_the_paper(name: str, side: int, widths: tuple[int, ...]) -> None:
    network, x = meta_twin(name), torch.zeros(2, 3, side, side, device="meta")
    assert network.input_size == side
    sides = (27, 13, 13, 13, 6)
    assert [tuple(m.shape) for m in network.stages(x)] == [
        (2, c, s, s) for c, s in zip(widths, sides, strict=True)
    ]
    assert network.embed(x).shape == (2, 4096) and network(x).shape == (2, 1000)
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert first(x).shape[2:] == (55, 55)


def test_d1_the_maps_of_the_paper_need_227_pixels() -> None:
    first = meta_twin("alexnet_2012").features[0][0]
    assert (first.kernel_size, first.stride, first.padding) == ((11, 11), (4, 4), (0, 0))
    assert first(torch.zeros(1, 3, 227, 227, device="meta")).shape[2:] == (55, 55)
    assert first(torch.zeros(1, 3, 224, 224, device="meta")).shape[2:] == (54, 54)


def test_d2_two_groups_and_a_normalisation_over_both() -> None:
    convs = [stage[0] for stage in meta_twin("alexnet_2012").features]
    assert [m.groups for m in convs] == [1, 2, 1, 2, 2]
    a = torch.full((1, 96, 1, 1), 10.0)
    b = a.clone()
    b[:, 48:] *= 2  # the second GPU's maps
    changed = ResponseNormalisation()(a) != ResponseNormalisation()(b)
    assert changed.flatten().nonzero().flatten().tolist() == list(range(46, 96))


@pytest.mark.parametrize("name", BUILDERS)
def test_d3_dropout_doubles_in_training(name: str) -> None:
    drops = [m for m in meta_twin(name).modules() if isinstance(m, nn.Dropout)]
    assert [m.p for m in drops] == [0.5, 0.5]
    torch.manual_seed(0)
    layer, ones = nn.Dropout(drops[0].p), torch.ones(1000)
    assert layer.train()(ones).unique().tolist() == [0, 2]
    assert torch.equal(layer.eval()(ones), ones)


@pytest.mark.parametrize("name", FIXED)
def test_d3_dropout_is_of_the_hidden_layers_outputs(name: str) -> None:
    kinds = [type(m) for m in meta_twin(name).classifier]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]


def test_d4_one_tower_is_what_lectures_draw() -> None:
    convs = [m for m in meta_twin("alexnet_one_tower").modules() if isinstance(m, nn.Conv2d)]
    assert [m.groups for m in convs] == [1] * 5
    assert [m.padding[0] for m in convs] == [2, 2, 1, 1, 1]
    assert not any(
        isinstance(m, ResponseNormalisation) for m in meta_twin("alexnet_one_tower").modules()
    )
    with torch.device("meta"):  # the layers in a row, in their order
        lecture = nn.Sequential(
            *(nn.Conv2d(3, 96, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(96, 256, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 384, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 10)),
        )
    torch.manual_seed(0)
    ours = alexnet_one_tower(num_classes=10).eval()
    lecture.load_state_dict(
        dict(zip(lecture.state_dict(), ours.state_dict().values(), strict=True)), assign=True
    )
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(ours(x), lecture.eval()(x))


def test_d5_the_single_tower_of_one_weird_trick() -> None:
    parts = list(meta_twin("alexnet").modules())
    convs = [m for m in parts if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [64, 192, 384, 256, 256]
    assert [m.groups for m in convs] == [1] * 5 and convs[0].padding == (2, 2)
    assert not any(isinstance(m, ResponseNormalisation) for m in parts)


def test_d6_dropout_comes_first(torchvisions: nn.Module) -> None:
    kinds = [type(m) for m in meta_twin("alexnet").classifier]
    assert kinds == [nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Linear]
    assert kinds == [type(m) for m in torchvisions.classifier]


def test_d7_any_size_from_63_pixels_on() -> None:
    network = meta_twin("alexnet")
    for shape in ((63, 63), (63, 500), (224, 224), (300, 260)):
        assert network(torch.zeros(1, 3, *shape, device="meta")).shape == (1, 1000)
    last = torch.randn(2, 256, 6, 6)
    assert torch.equal(network.avgpool(last), last)  # what 224 pixels give is left as it is


def test_d8_it_begins_as_torchvisions_does(torchvisions: nn.Module) -> None:
    torch.manual_seed(0)
    ours = alexnet()
    for (name, p), q in zip(torchvisions.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_smaller_images_are_refused() -> None:
    network = meta_twin("alexnet")
    assert (network.input_size, network.min_size) == (224, 63)
    with refused(ValueError, "AlexNet", "63x63", "100x62"):
        network(torch.zeros(1, 3, 100, 62, device="meta"))
    # the limit is the network's, not the message's
    with pytest.raises(RuntimeError, match="too small"):
        network.features(torch.zeros(1, 3, 62, 62, device="meta"))


@pytest.mark.parametrize("name", FIXED)
def test_other_sizes_are_refused(name: str) -> None:
    network = meta_twin(name)
    side = network.input_size
    assert network.min_size == side
    for shape in ((side - 1, side - 1), (side, side + 1)):
        with refused(ValueError, "AlexNet", f"{side}x{side}", f"{shape[0]}x{shape[1]}"):
            network(torch.zeros(1, 3, *shape, device="meta"))


@pytest.mark.parametrize("name", BUILDERS)
def test_a_later_layer_leaves_the_maps_alone(name: str) -> None:
    """The maps, and the same layers run again with a copy after each."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network: AlexNet | AlexNetFixed = BUILDERS[name]()
    network.features.to_empty(device="cpu")
    for p in network.features.parameters():
        nn.init.uniform_(p, -0.05, 0.05)
    x = torch.randn(1, 3, network.input_size, network.input_size)
    copies = [x]
    for layer in network.features.modules():
        if not isinstance(layer, nn.Sequential):
            copies.append(layer(copies[-1].clone()).clone())
    with torch.no_grad():
        maps = network.stages(x)
    assert all(any(m.shape == c.shape and torch.equal(m, c) for c in copies) for m in maps)
    assert all(m.std() > 0 for m in maps)
