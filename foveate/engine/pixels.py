"""From pixels to what a network reads, inside the engine, so that no caller can do it otherwise."""

import torch
from torch import Tensor, nn

from foveate.data.preprocess import Preprocess


class FromPixels(nn.Module):
    """Pixels (N, H, W, C), uint8, of each view -> what a module makes of them, normalised (N, C, H,
    W).

    Args:
        module: reads normalised images.
        preprocess: gives the mean and std to normalise with.
        memory_format: of what the module reads; contiguous NCHW is what any forward can `view`.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocess: Preprocess,
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        super().__init__()
        self.module = module
        self.memory_format = memory_format
        self.mean = nn.Buffer(255 * torch.tensor(preprocess.mean).view(-1, 1, 1))
        self.std = nn.Buffer(255 * torch.tensor(preprocess.std).view(-1, 1, 1))

    def forward(self, pixels: Tensor, *more: Tensor) -> Tensor:
        result: Tensor = self.module(*map(self.normalised, (pixels, *more)))
        return result

    def normalised(self, pixels: Tensor) -> Tensor:
        """(N, H, W, C), uint8 -> (N, C, H, W)."""
        x = pixels.permute(0, 3, 1, 2).float().contiguous(memory_format=self.memory_format)
        return (x - self.mean) / self.std
