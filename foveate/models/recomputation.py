"""DenseNet in a third of the memory: training keeps neither the concatenations nor what the
batch-norms make of them, and computes them again in the backward pass.

Paper   Pleiss, Chen, Huang, Li, van der Maaten, Weinberger. "Memory-Efficient Implementation of
        DenseNets". 2017, arXiv:1707.06990.

Gradients and running statistics are those of the plain network, bit by bit; no convolution is
computed twice. A step of densenet121 takes 1.3 times as long (docs/LOG.md).

>>> from foveate.models import densenet121
>>> network = recompute(densenet121(num_classes=10))
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foveate.models.densenet import DenseLayer, DenseNet, Transition

Module = TypeVar("Module", bound=nn.Module)


def recompute(network: Module) -> Module:
    """Let a DenseNet save memory while it trains, in place.

    Its tensors, their names and its outputs stay as they are; in evaluation nothing is computed
    again.

    Args:
        network: a DenseNet, or a module that holds one.

    Returns:
        The network.

    Raises:
        ValueError: there is no DenseNet in it.
    """
    plain = [module for module in network.modules() if type(module) in SAVING]
    if not any(isinstance(module, DenseNet) for module in network.modules()):
        raise ValueError(
            f"{type(network).__name__} has nothing to compute again: it is no DenseNet and holds "
            "none"
        )
    for module in plain:
        module.__class__ = SAVING[type(module)]
    return network


class SavingDenseLayer(DenseLayer):
    """Keeps the maps that it reads, which are kept anyway, and what its bottleneck makes."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        if not self.training:
            return super().forward(maps)
        return again(self.grow, [self.norm2], again(self.reduce, [self.norm1], *maps))


class SavingTransition(Transition):
    """Keeps the map that it reads."""

    def reduce(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().reduce(x)
        return again(super().reduce, [self.norm], x)


class SavingDenseNet(DenseNet):
    """Of what comes before the first dense block it keeps the convolution's map."""

    def open(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().open(x)
        rest = self.features[1 : self.stem_end]
        return again(rest, rest, self.features[0](x))


SAVING: dict[type[nn.Module], type[nn.Module]] = {
    DenseLayer: SavingDenseLayer,
    Transition: SavingTransition,
    DenseNet: SavingDenseNet,
}


def again(part: Callable[..., Tensor], layers: Iterable[nn.Module], *inputs: Tensor) -> Tensor:
    """part(*inputs), of which nothing is kept but the inputs: the backward pass computes the rest
    again.

    A part that ends in a convolution stops before it then, for nothing reads its output: none is
    computed twice.

    Args:
        part: what to compute; it draws no random numbers.
        layers: those of its layers that may be batch-norms.
        inputs: what it reads.
    """
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    if not norms:  # folded: its ReLU works in place, on the input, and there is nothing to spare
        return part(*inputs)
    contexts = nullcontext(), AtRest(norms)  # the first time, and whenever it is computed again
    return checkpoint(
        part, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: contexts
    )


class AtRest:
    """Batch-norms leave their running statistics alone: they have moved for this batch already."""

    def __init__(self, norms: list[nn.BatchNorm2d]):
        self.norms = norms

    def __enter__(self) -> None:
        self.kept = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
