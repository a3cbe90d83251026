"""What each stage makes of an image, as numbers and as a drawing."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from foveate import models
from foveate.models.drawing import as_png
from foveate.models.maps import CELL, around, draw_maps, in_bytes, varied_maps


class Shades(nn.Module):
    """Its maps are the image times 1, 3 and 2."""

    input_size, min_size = 8, 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1, bias=False)
        self.conv.weight = nn.Parameter(torch.tensor([1.0, 3.0, 2.0]).reshape(3, 1, 1, 1))
        self.head = nn.Linear(3, 2)

    def stages(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x)]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x)[0].mean(dim=(2, 3)))


def test_maps_that_vary_most_come_first() -> None:
    image = torch.rand(1, 8, 8)
    stage, head = varied_maps(Shades().eval(), image)
    assert stage.channels == (1, 2, 0) and head.channels == ()
    assert torch.allclose(stage.maps, image * torch.tensor([3.0, 2.0, 1.0])[:, None, None])


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_every_stage_and_map_is_drawn(name: str, tmp_path: Path) -> None:
    network = models.build(name).eval()
    side = network.input_size if name == "lenet5" else 64
    channels = 1 if name == "lenet5" else 3
    stages = varied_maps(network, torch.rand(channels, side, side))
    pixels = torch.randint(256, (side, side, channels), dtype=torch.uint8)
    drawing = draw_maps(stages, pixels, name, "untrained")
    svg = str(drawing)
    for row in stages:
        assert f">{row.stage.name}<" in svg and f"{row.stage.parameters:,} parameters" in svg
    fields = len(stages) - 1
    assert svg.count("<image ") == 1 + channels + fields + sum(len(row.maps) for row in stages)
    drawing.save(tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as drawn:
        assert abs(drawn.width - 2 * drawing.width) <= 2


def test_images_are_the_maps() -> None:
    image = torch.rand(1, 8, 8)
    stages = varied_maps(Shades().eval(), image)
    pixels = (image * 255).round().byte().permute(1, 2, 0)
    files = re.findall(r"base64,([^\"]*)", str(draw_maps(stages, pixels, "Shades")))
    found = [np.asarray(Image.open(io.BytesIO(base64.b64decode(file)))) for file in files]
    assert np.array_equal(found[0], pixels[:, :, 0])
    expected = in_bytes(stages[0].maps)
    assert all(np.array_equal(a, b) for a, b in zip(found[3:], expected, strict=True))


def test_png_is_what_pillow_reads() -> None:
    for shape in ((5, 7), (5, 7, 3), (1, 1)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        file = as_png(pixels.tobytes(), shape[1], shape[0])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), pixels)


def test_a_receptive_field_stays_as_it_is() -> None:
    pixels = torch.zeros(9, 9, 1, dtype=torch.uint8)
    assert (around(pixels, (3, 5)) == 0).sum() == 15
    assert (around(pixels, (99, 99)) == 0).all() and (around(pixels, None) == 0).all()


def test_tiny_and_constant_maps_have_shades() -> None:
    maps = torch.stack([torch.linspace(0, 1e-40, 4), torch.full((4,), 7.0)]).reshape(2, 2, 2)
    assert in_bytes(maps).flatten().tolist() == [0, 85, 170, 255, 0, 0, 0, 0]
    assert CELL > 0
