"""The torch engine: where OpenVINO has no wheel, or a GPU does better."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from foveate.data.preprocess import Preprocess
from foveate.engine import Engine, Pixels, each_view
from foveate.engine.pixels import FromPixels
from foveate.errors import ArtefactError, printable
from foveate.forking import torch_threads
from foveate.machine import device
from foveate.probe import PooledStages
from foveate.weights.starting_point import StartingPoint


class TorchEngine:
    """Any module that reads normalised images, run in evaluation.

    Args:
        module: (n, C, H, W), float, of each view -> (n, outputs).
        preprocess: gives the mean and std to normalise with.
        threads: cores to use.
        channels_last: the memory format that the module is given; else it is contiguous NCHW,
            which any forward can `view`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        preprocess: Preprocess,
        threads: int,
        channels_last: bool = True,
    ):
        self.device = device()
        self.batch = 16 if self.device.type == "cpu" else 256
        layout = torch.channels_last if channels_last else torch.contiguous_format
        module = module.eval().to(memory_format=layout)
        self.module = FromPixels(module, preprocess, layout).to(self.device)
        self.threads = threads

    def run(self, batches: Iterable[Pixels]) -> Iterator[NDArray[np.float32]]:
        with torch_threads(self.threads):
            for views in map(each_view, batches):
                xs = (torch.from_numpy(np.ascontiguousarray(v)).to(self.device) for v in views)
                try:
                    with torch.inference_mode():
                        rows = self.module(*xs).float().cpu().numpy()
                except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
                    # torch.OutOfMemoryError is a RuntimeError too, and no fault of the network
                    if isinstance(error, torch.OutOfMemoryError):
                        raise
                    reason = printable((str(error).strip().splitlines() or [repr(error)])[0][:200])
                    size = " and ".join("x".join(map(str, v.shape[1:])) for v in views)
                    raise ArtefactError(
                        f"the network cannot read images of {size}: {reason}"
                    ) from error
                if rows.ndim != 2 or len(rows) != len(views[0]):
                    raise ArtefactError(
                        f"the network gives {rows.shape} for {len(views[0])} images; expected a "
                        "row each"
                    )
                yield rows


class TorchBackbone:
    """A pretrained backbone in torch, in f32."""

    def __init__(self, start: StartingPoint, preprocess: Preprocess, threads: int):
        self.identity = f"torch {torch.__version__} {device().type} f32, 2"
        self.origin, self.preprocess, self.threads = start, preprocess, threads

    def start(self) -> None:
        pass  # nothing takes long: torch is already here

    def engine(self) -> Engine:
        module = PooledStages(self.origin.network())
        ours = self.origin.channels_last
        return TorchEngine(module, self.preprocess, self.threads, channels_last=ours)

    def cancel(self) -> None:
        pass
