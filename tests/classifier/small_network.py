"""A network of a few hundred weights, and images for it: format_1/ is its classifier, written by
version 0.1 with the first pooling and mirror images."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import foveate


class Small(nn.Module):
    """Two convolutions and a linear head."""

    preprocess = foveate.Preprocess(16, 16, mean=(0.5,) * 3, std=(0.25,) * 3)
    input_size = 16

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, 2)

    def stages(self, x: Tensor) -> list[Tensor]:
        first = torch.relu(self.first(x))
        return [first, torch.relu(self.second(first))]

    def embed(self, x: Tensor) -> Tensor:
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits


def images(n: int) -> list[Image.Image]:
    """Of two kinds in turn: stripes upright and level, under noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :32]
    waves = [np.sin(x), np.sin(y)]
    noise = rng.normal(0, 60, (n, 24, 32, 3))
    pixels = [128 + 40 * waves[i % 2][:, :, None] + noise[i] for i in range(n)]
    return [Image.fromarray(np.clip(p, 0, 255).astype(np.uint8)) for p in pixels]
