"""The graph of a network is what its forward does, whoever wrote it."""

from collections import Counter

import pytest
import torch
from refusals import refused
from torch import Tensor, nn

from foveate import models
from foveate.models.graph import Node, inputs, trace


def graph(name: str) -> list[Node]:
    with torch.device("meta"):
        network = models.build(name)
    channels = 1 if name.startswith("lenet") else 3
    return trace(network, (channels, network.input_size, network.input_size))


def counted(nodes: list[Node]) -> Counter[str]:
    """How often each operation happens, by the first word of its label; blocks are opened."""
    found: Counter[str] = Counter()
    for node in nodes:
        found += counted(node.inner) if node.inner else Counter([node.label.split()[0]])
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet_2012", {"conv": 5, "linear": 3, "+": 0, "concat": 0}),
        ("vgg16", {"conv": 13, "linear": 3, "max": 5}),
        ("resnet18", {"+": 8, "conv": 20}),
        ("resnet50", {"+": 16, "conv": 53}),
        ("resnet20", {"+": 9, "OptionA": 2}),
        ("plain20", {"+": 0}),
        ("googlenet", {"concat": 9, "+": 0}),
        ("inception_v3", {"concat": 11 + 2 * 2}),
        ("squeezenet1_0", {"concat": 8}),
        # each layer concatenates what it reads, and each block what it has
        ("densenet121", {"concat": 58 + 4, "conv": 120}),
        ("mobilenet_v2", {"+": 10, "depthwise": 17}),
        ("shufflenet_v1", {"channel": 16, "+": 13, "concat": 3}),
        ("shufflenet_v2_x1_0", {"channel": 16, "split": 13, "concat": 16, "+": 0}),
        ("efficientnet_b0", {"+": 9, "×": 16}),
    ],
)
def test_operations_are_those_of_the_paper(name: str, expected: dict[str, int]) -> None:
    found = counted(graph(name))
    assert {label: found[label] for label in expected} == expected


def test_a_dense_layer_reads_all_before_it() -> None:
    block = next(node for node in graph("densenet121") if node.label == "DenseBlock")
    assert inputs(block.inner) == [[-1, *range(i)] for i in range(7)]


def test_an_inception_module_has_four_branches() -> None:
    block = next(node for node in graph("googlenet") if node.label == "Inception")
    assert [node.label for node in block.inner][-1] == "concat"
    assert inputs(block.inner) == [[-1], [-1], [1], [-1], [3], [-1], [5], [0, 2, 4, 6]]


class UNet(nn.Module):
    """Down, up, and a map of each size from the one to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)])
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.shared = nn.Conv2d(8, 8, 1)
        self.answer = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        early = self.down[0](x).relu()
        late = self.down[1](nn.functional.max_pool2d(early, 2)).relu()
        late = self.shared(self.shared(late))
        both = torch.cat([early, self.up(late)], dim=1)
        unused = both.mean()  # noqa: F841  # an operation that leads nowhere
        return {"map": self.answer(both), "late": late}


def test_a_module_of_yours() -> None:
    nodes = trace(UNet(), (3, 8, 8))
    assert [node.label for node in nodes] == [
        "conv 3×3",
        "max pool 2×2 /2",
        "conv 3×3",
        "conv 1×1",
        "conv 1×1",
        "conv transposed 2×2 /2",
        "concat",
        "conv 1×1",
    ]
    assert inputs(nodes) == [[-1], [0], [1], [2], [3], [4], [0, 5], [6]]
    assert nodes[0].extras == ["ReLU"] and nodes[6].shape == (8, 8, 8)


def test_torch_transformers_are_blocks() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=4), nn.Flatten(2), nn.TransformerEncoder(layer, 2)
    )

    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.flat, self.encoder = network

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder(self.flat(self.patches(x)).transpose(1, 2))

    blocks = [node for node in trace(Vision(), (3, 16, 16)) if node.inner]
    assert [node.label for node in blocks] == ["TransformerEncoderLayer"] * 2
    extras = [extra for node in blocks[0].inner for extra in node.extras]
    assert extras == ["ReLU"] and blocks[0].inner[3].shape == (16, 32)
    found = counted(blocks[:1])
    assert found["+"] == 2 and found["MultiheadAttention"] == 1


class Deciding(nn.Module):
    """What it does hangs on a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Deciding())
    with refused(ValueError, "Sequential", "1 (Deciding)", "3x8x8"):
        trace(network, (3, 8, 8))
    with refused(ValueError, "Deciding"):
        trace(Deciding(), (3, 8, 8))
    with refused(ValueError, "Sequential", "0 (Conv2d)", "1x8x8"):
        trace(network, (1, 8, 8))


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(1, 2)


def test_an_answer_without_the_image_is_refused() -> None:
    with refused(ValueError, "Constant", "image"):
        trace(Constant(), (3, 8, 8))
    with refused(ValueError, "channels, height, width", "(3, 0, 8)"):
        trace(Constant(), (3, 0, 8))


def test_a_network_is_left_as_it_is() -> None:
    network = models.build("lenet5").train()
    before = {name: p.clone() for name, p in network.state_dict().items()}
    trace(network, (1, 28, 28))
    assert network.training and not network.c1._forward_hooks
    assert all(torch.equal(p, before[name]) for name, p in network.state_dict().items())
