"""One loop that trains, short enough to be read in a lecture."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.data.augment import Augment
from foveate.lab.images import Images


@dataclass(frozen=True)
class Epoch:
    """Loss and accuracy on the images that were learnt from, in the mean over an epoch."""

    loss: float
    accuracy: float


def fit(
    network: nn.Module,
    images: Images,
    epochs: int,
    lr: float = 0.05,
    batch: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    augment: Callable[[Tensor], Tensor] = lambda x: x,
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, y: (x, y),
    stop: Callable[[Epoch], bool] = lambda epoch: False,
    constant: bool = False,
) -> list[Epoch]:
    """Train with stochastic gradient descent. The learning rate rises over the first tenth of the
    steps and falls to 0 along a cosine.

    Args:
        network: trained in place; its output is logits, or has the field `logits`.
        augment: changes a batch of images, (B, C, H, W).
        mix: changes a batch and its classes together; classes may become (B, classes), shares.
        stop: ends the training after an epoch.
        constant: keep the learning rate as it is instead.

    Returns:
        An Epoch for each. Training ends early where the loss is not finite.
    """
    steps = epochs * math.ceil(len(images.x) / batch)
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
    )

    def rate(step: int) -> float:
        rising = steps / 10
        return min((step + 1) / rising, (1 + math.cos(math.pi * step / steps)) / 2)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    history: list[Epoch] = []
    network.train()
    for _ in range(epochs):
        loss_sum = right = 0.0
        for rows in torch.split(torch.randperm(len(images.x)), batch):
            x, y = augment(images.x[rows]), images.y[rows]
            x, shares = mix(x, y)
            answer = network(x)
            logits = getattr(answer, "logits", answer)
            loss = F.cross_entropy(logits, shares)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            if not constant:
                schedule.step()
            loss_sum += float(loss.detach()) * len(rows)
            right += int((logits.argmax(dim=1) == y).sum())
        history.append(Epoch(loss_sum / len(images.x), right / len(images.x)))
        if stop(history[-1]) or not math.isfinite(history[-1].loss):
            break
    network.eval()
    return history


def variants(augment: Augment, images: Images) -> Callable[[Tensor], Tensor]:
    """An `Augment` as `fit` takes it: of a batch of standardised images, one variant each."""

    def change(x: Tensor) -> Tensor:
        pixels = (images.unit(x) * 255).round().byte()
        return images.standardised(torch.stack([augment(one) for one in pixels]).float() / 255)

    return change


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of the images whose class is the most probable one, in evaluation."""
    network.eval()
    answers = [network(part).argmax(dim=1) for part in torch.split(x, 256)]
    return float((torch.cat(answers) == y).float().mean())


@contextmanager
def watched(modules: list[nn.Module]) -> Iterator[list[Tensor]]:
    """The outputs of these modules, by their place in the list, as they are computed inside."""
    found: list[Tensor] = [torch.empty(0)] * len(modules)

    def keep(i: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            found[i] = output

        return hook

    handles = [module.register_forward_hook(keep(i)) for i, module in enumerate(modules)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
