"""The torch engine: where OpenVINO has no wheel, or a GPU does better."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from foveate.data.preprocess import Preprocess
from foveate.engine import Engine
from foveate.machine import device
from foveate.probe import PooledStages
from foveate.weights import pretrained


class TorchEngine:
    """Any module that reads normalised images, run in evaluation.

    Args:
        module: (n, C, H, W), float -> (n, outputs).
        preprocess: gives the mean and std to normalise with.
        threads: cores to use.
    """

    def __init__(self, module: torch.nn.Module, preprocess: Preprocess, threads: int):
        self.device = device()
        self.batch = 16 if self.device.type == "cpu" else 256
        self.module = module.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean = torch.tensor(preprocess.mean, device=self.device).view(-1, 1, 1)
        self.std = torch.tensor(preprocess.std, device=self.device).view(-1, 1, 1)
        self.threads = threads

    def run(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            for pixels in batches:
                x = (
                    torch.from_numpy(np.ascontiguousarray(pixels))
                    .to(self.device)
                    .permute(0, 3, 1, 2)
                )
                with torch.inference_mode():
                    output = self.module((x.float() / 255 - self.mean) / self.std)
                yield output.float().cpu().numpy()
        finally:
            torch.set_num_threads(before)


class TorchBackbone:
    """A pretrained backbone in torch, in f32."""

    def __init__(self, network: str, preprocess: Preprocess, threads: int):
        self.identity = f"torch {torch.__version__} {device().type} f32"
        self.network, self.preprocess, self.threads = network, preprocess, threads

    def start(self) -> None:
        pass  # nothing takes long: torch is already here

    def engine(self) -> Engine:
        module = PooledStages(pretrained(self.network))
        return TorchEngine(module, self.preprocess, self.threads)

    def cancel(self) -> None:
        pass
