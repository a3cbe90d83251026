"""The slide's LeNet-5 is Foveate's."""

from pathlib import Path

import pytest
import torch

from foveate.lab.bench import Bench
from foveate.lab.lenet import LAYERS, OLD, TODAY, at_levels, difference, slide, tiled, trained


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 7)])
def test_slide_has_the_shapes_and_parameters_of_the_lecture(channels: int, classes: int) -> None:
    network, x = slide(channels, classes), torch.rand(2, channels, 28, 28)
    shapes = [tuple(x.shape[1:]) for layer in network if (x := layer(x)) is not None]
    assert [shapes[i] for i in (0, 2, 3, 5, 6)] == [
        (6, 28, 28),
        (6, 14, 14),
        (16, 10, 10),
        (16, 5, 5),
        (400,),
    ]
    assert [shape[0] for shape in shapes[7::2]] == [120, 84, classes]
    if (channels, classes) == (1, 10):
        assert sum(p.numel() for p in network.parameters()) == 61_706


def test_same_weights_give_the_same_logits_and_1998_its_code(tmp_path: Path) -> None:
    images = at_levels(Bench(tmp_path).images(most=100))
    assert difference(images) <= 1e-6
    assert float(images.x.min()) == pytest.approx(-0.1, abs=1e-5)
    assert float(images.x.max()) <= 1.1751

    found = trained(TODAY, images, 1, 0)
    assert [len(maps) for maps in found["maps"]] == [6, 6, 16, 16] and len(LAYERS) == 4
    drawn, code = trained(OLD, images, 1, 0)["F6"]
    assert len(drawn) == len(code) == 84 and set(code) == {-1, 1}


def test_tiles_lie_row_by_row() -> None:
    assert tiled(torch.arange(4.0).reshape(4, 1, 1).tolist(), 2)[1::3, 1::3].tolist() == [
        [0, 1],
        [2, 3],
    ]
