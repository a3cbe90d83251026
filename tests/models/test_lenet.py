"""LeNet-5: today's against the same layers in a row, the paper's against its own arithmetic, one
unit at a time."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.lenet import (
    BACKGROUND,
    RBF,
    TABLE_1,
    SparseConvolution,
    Subsampling,
    lenet5,
    lenet5_1998,
    squash,
)
from foveate.models.surgery import drop_head, replace_head

BOTH = [lenet5, lenet5_1998]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def plain(network: nn.Module) -> nn.Module:
    """LeNet-5 as lectures write it, with the network's parameters."""
    copy = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2, stride=2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2, stride=2)),
        *(
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        ),
    )
    copy.load_state_dict(dict(zip(copy.state_dict(), network.state_dict().values(), strict=True)))
    return copy


def by_hand(network: nn.Module, x: np.ndarray) -> np.ndarray:
    """Section II-B, one image (28, 28), one unit at a time: the distances to the ten codes."""
    p = {name: t.detach().double().numpy() for name, t in network.state_dict().items()}

    def f(a: np.ndarray) -> np.ndarray:
        return 1.7159 * np.tanh(2 / 3 * a)

    def convolve(maps: np.ndarray, kernels: list[np.ndarray]) -> np.ndarray:
        """The sum over maps of each map with its kernel."""
        side = maps.shape[1] - 4
        out = np.zeros((side, side))
        for i, j in np.ndindex(side, side):
            out[i, j] = sum(
                (m[i : i + 5, j : j + 5] * k).sum() for m, k in zip(maps, kernels, strict=True)
            )
        return out

    def subsample(maps: np.ndarray, layer: str) -> np.ndarray:
        total = maps[:, ::2, ::2] + maps[:, 1::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, 1::2]
        return f(
            total * p[f"{layer}.coefficient"][:, None, None] + p[f"{layer}.bias"][:, None, None]
        )

    field = np.full((1, 32, 32), -0.1)
    field[0, 2:30, 2:30] = x
    c1 = f(np.stack([convolve(field, list(p["c1.weight"][m])) + p["c1.bias"][m] for m in range(6)]))
    s2 = subsample(c1, "s2")
    kernels, c3 = iter(p["c3.weight"]), []
    for m in range(16):
        inputs = [i for i in range(6) if TABLE_1[i][m] == "X"]
        c3.append(convolve(s2[inputs], [next(kernels) for _ in inputs]) + p["c3.bias"][m])
    s4 = subsample(f(np.stack(c3)), "s4")
    c5 = f(p["c5.weight"] @ s4.ravel() + p["c5.bias"])
    f6 = f(p["f6.weight"] @ c5 + p["f6.bias"])
    return np.array([((f6 - code) ** 2).sum() for code in p["output.codes"]])


def test_todays_is_what_lectures_write(images: Tensor) -> None:
    torch.manual_seed(0)
    network = lenet5()
    with torch.no_grad():
        for x in (images, images[:1]):
            assert torch.equal(network(x), plain(network)(x))


def test_todays_gradients_are_what_lectures_get(images: Tensor) -> None:
    torch.manual_seed(0)
    network = lenet5()
    copy = plain(network)
    for net in (network, copy):
        F.cross_entropy(net(images), torch.tensor([3, 1, 4])).backward()
    for p, q in zip(copy.parameters(), network.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        assert torch.equal(p.grad, q.grad)


def test_the_papers_is_its_own_arithmetic(images: Tensor) -> None:
    torch.manual_seed(0)
    network = lenet5_1998().double()
    with torch.no_grad():
        found = network(images.double()).numpy()
    expected = [-by_hand(network, x[0].double().numpy()) for x in images]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_parameters_are_counted_as_in_the_paper() -> None:
    network = lenet5_1998()
    layers = {name: count(layer) for name, layer in network.named_children()}
    assert layers == {
        "c1": 156,
        "s2": 12,
        "c3": 1516,
        "s4": 32,
        "c5": 48_120,
        "f6": 10_164,
        "output": 0,
    }
    assert count(network) == 60_000
    assert count(lenet5()) == 61_706


def test_connections_are_counted_as_in_the_paper() -> None:
    """340,908: each unit's inputs and its bias, and what each output unit reads."""
    units = {
        "c1": (28 * 28 * 6, 26),
        "s2": (14 * 14 * 6, 5),
        "s4": (5 * 5 * 16, 5),
        "c5": (120, 401),
        "f6": (84, 121),
    }
    c3 = 10 * 10 * (25 * sum(row.count("X") for row in TABLE_1) + 16)
    assert c3 == 151_600
    assert sum(n * inputs for n, inputs in units.values()) + c3 + 10 * 84 == 340_908


def test_table_1_is_as_the_text_describes_it() -> None:
    """Six maps read three neighbours, six read four, three read four that are not neighbours, the
    last reads all."""
    columns = ["".join(row[j] for row in TABLE_1) for j in range(16)]
    assert len(set(columns)) == 16
    assert columns[:6] == [("XXX..." * 2)[6 - j : 12 - j] for j in range(6)]
    assert columns[6:12] == [("XXXX.." * 2)[6 - j : 12 - j] for j in range(6)]
    assert columns[12:] == ["XX.XX.", ".XX.XX", "X.XX.X", "XXXXXX"]
    assert [row.count("X") for row in TABLE_1] == [10] * 6


def test_c3_reads_only_what_the_table_connects() -> None:
    layer = SparseConvolution().eval()
    for i, row in enumerate(TABLE_1):
        x = torch.zeros(1, 6, 5, 5)
        x[0, i] = 1
        with torch.no_grad():
            changed = (layer(x) != layer(torch.zeros(1, 6, 5, 5))).flatten()
        assert "".join("X" if c else "." for c in changed.tolist()) == row


def test_subsampling_adds_four_and_learns_two_numbers_a_map() -> None:
    layer = Subsampling(2)
    assert count(layer) == 4
    with torch.no_grad():
        layer.coefficient.copy_(torch.tensor([0.5, -1.0]))
        layer.bias.copy_(torch.tensor([1.0, 2.0]))
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 2, 2, 2)
    assert layer(x).flatten().tolist() == [6.0, -8.0]


def test_the_squashing_function_passes_through_plus_and_minus_one() -> None:
    x = torch.tensor([-1e9, -1.0, 0.0, 1.0, 1e9], dtype=torch.float64)
    assert squash(x).tolist() == pytest.approx([-1.7159, -1, 0, 1, 1.7159], abs=1e-4)


@pytest.mark.parametrize("background", [BACKGROUND, 0.0])
def test_the_field_around_the_image_is_white_paper(background: float) -> None:
    """A blank page at the paper's level is blank to its edges, a page at another level has a
    frame."""
    torch.manual_seed(0)
    s2 = lenet5_1998().stages(torch.full((1, 1, 28, 28), background))[0]
    blank = bool(((s2 - s2[..., 7:8, 7:8]).abs() < 1e-6).all())
    assert blank == (background == -0.1)


def test_weights_begin_as_in_appendix_a() -> None:
    torch.manual_seed(0)
    network = lenet5_1998(in_channels=2)
    fan_in = {"c1": 50, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    for name, inputs in fan_in.items():
        drawn = torch.cat([p.detach().flatten() for p in network.get_submodule(name).parameters()])
        assert 0.7 * 2.4 / inputs < drawn.abs().max() <= 2.4 / inputs
    maps = [sum(row[j] == "X" for row in TABLE_1) for j in range(16)]
    assert Counter(maps) == {3: 6, 4: 9, 6: 1}
    for kernels, inputs in zip(network.c3.weight.detach().split(maps), maps, strict=True):
        assert 0.9 * 2.4 / (25 * inputs) < kernels.abs().max() <= 2.4 / (25 * inputs)
        assert kernels.mean().abs() < 0.3 * kernels.abs().max()


def test_d1_relus(images: Tensor) -> None:
    network = lenet5()
    assert (
        all((m >= 0).all() for m in network.stages(images)) and (network.embed(images) >= 0).all()
    )
    assert network.embed(images).max() > 0
    assert (lenet5_1998().embed(images) < 0).any()


def test_d2_plain_averages() -> None:
    network = lenet5()
    assert type(network.s2) is type(network.s4) is nn.AvgPool2d
    assert count(network.s2) == count(network.s4) == 0


def test_d3_c3_reads_all_maps() -> None:
    assert lenet5().c3.weight.shape == (16, 6, 5, 5)
    assert lenet5_1998().c3.weight.shape == (60, 5, 5)


def test_d4_the_output_is_linear() -> None:
    assert type(lenet5().head) is nn.Linear and count(lenet5().head) == 850
    assert type(lenet5_1998().head) is RBF


def test_d5_logits_are_minus_distances(images: Tensor) -> None:
    head = RBF(10)
    assert head(head.codes).argmax(dim=1).tolist() == list(range(10))
    assert head(head.codes).diagonal().tolist() == [0] * 10
    distances = torch.tensor([[3.0, 5.0, 0.5]])
    criterion = distances[0, 2] + torch.logsumexp(-distances[0], dim=0)  # equation 9, e^-j = 0
    assert F.cross_entropy(-distances, torch.tensor([2])) == pytest.approx(float(criterion))


def test_d6_codes_of_ten_classes_are_drawn_digits() -> None:
    codes = RBF(10).codes
    assert codes.shape == (10, 84) and set(codes.flatten().tolist()) == {-1.0, 1.0}
    one = [
        "".join("#" if pixel > 0 else "." for pixel in row) for row in codes[1].view(12, 7).tolist()
    ]
    assert one[:4] == ["...#...", "..##...", ".#.#...", "...#..."] and one[-1] == ".#####."
    apart = [int((codes[i] != codes[j]).sum()) for i in range(10) for j in range(i)]
    assert min(apart) >= 8


def test_d6_other_codes_are_the_bits_of_a_hash() -> None:
    codes = RBF(300).codes
    assert set(codes.flatten().tolist()) == {-1.0, 1.0}
    number = int.from_bytes(hashlib.sha256(b"257").digest(), "big") >> (256 - 84)
    assert "".join("1" if c > 0 else "0" for c in codes[257].tolist()) == f"{number:084b}"
    assert torch.equal(RBF(7).codes, codes[:7])  # a class keeps its code when others join
    assert torch.cdist(codes, codes, p=1).fill_diagonal_(84).min() / 2 >= 15  # pixels apart


def test_d7_c5_is_the_papers_convolution(images: Tensor) -> None:
    for build in BOTH:
        network = build()
        s4 = network.stages(images)[-1]
        as_convolution = F.conv2d(s4, network.c5.weight.view(120, 16, 5, 5), network.c5.bias)
        assert as_convolution.shape == (3, 120, 1, 1)
        torch.testing.assert_close(network.c5(s4.flatten(1)), as_convolution.flatten(1))


@pytest.mark.parametrize("build", BOTH)
def test_stages_are_those_of_figure_2(build, images: Tensor) -> None:
    assert [tuple(m.shape) for m in build().stages(images)] == [(3, 6, 14, 14), (3, 16, 5, 5)]


@pytest.mark.parametrize("build", BOTH)
def test_a_later_layer_leaves_the_maps_alone(build, images: Tensor) -> None:
    network = build()
    s2, s4 = network.stages(images)
    if build is lenet5:
        assert torch.equal(s2, network.s2(network.c1(images).relu()))
        assert torch.equal(s4, network.s4(network.c3(s2).relu()))
    else:
        assert torch.equal(s4, squash(network.s4(squash(network.c3(s2)))))


@pytest.mark.parametrize("build", BOTH)
def test_the_head_reads_the_embedding(build, images: Tensor) -> None:
    network = build().eval()
    assert network.embed(images).shape == (3, 84)
    assert torch.equal(network.head(network.embed(images)), network(images))


@pytest.mark.parametrize("build", BOTH)
@pytest.mark.parametrize("shape", [(27, 27), (29, 29), (28, 32), (32, 32)])
def test_other_sizes_are_refused(build, shape: tuple[int, int]) -> None:
    network = build()
    assert network.min_size == network.input_size == 28
    with refused(ValueError, "LeNet", "28x28", f"{shape[0]}x{shape[1]}"):
        network(torch.zeros(1, 1, *shape))


@pytest.mark.parametrize("build", BOTH)
def test_every_parameter_learns(build, images: Tensor) -> None:
    torch.manual_seed(0)
    network = build()
    F.cross_entropy(network(images), torch.tensor([3, 1, 4])).backward()
    assert [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


@pytest.mark.parametrize("build", BOTH)
def test_the_batch_may_have_any_size_in_a_graph(build, images: Tensor) -> None:
    network = build().eval()
    graph = torch.export.export(
        network, (images,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=9)},)
    )
    more = torch.randn(5, 1, 28, 28)
    torch.testing.assert_close(graph.module()(more), network(more))


def test_surgery_gives_the_papers_network_other_codes(images: Tensor) -> None:
    network = lenet5_1998().double()
    head = replace_head(network, 26).head
    assert isinstance(head, RBF) and (head.in_features, head.out_features) == (84, 26)
    assert head.codes.dtype == torch.float64
    assert network(images.double()).shape == (3, 26)
    assert torch.equal(replace_head(network, 10).head.codes, lenet5_1998().head.codes)
    with torch.device("meta"):
        assert lenet5_1998().head.with_outputs(3).codes.device.type == "meta"
    embedded = network.embed(images.double())
    assert torch.equal(drop_head(network)(images.double()), embedded)


def test_codes_are_saved_but_not_learned() -> None:
    network = lenet5_1998()
    assert "output.codes" in network.state_dict() and list(network.head.parameters()) == []
    with torch.device("meta"):
        twin = lenet5_1998()
    twin.load_state_dict(network.state_dict(), assign=True)
    x = torch.randn(1, 1, 28, 28)
    assert torch.equal(twin(x), network(x))
