"""Grad-CAM, integrated gradients and occlusion, against closed forms and captum."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from settling import settled
from torch import Tensor, nn

from foveate import models
from foveate.catalogue import CATALOGUE
from foveate.data.preprocess import Preprocess
from foveate.errors import UsageError
from foveate.explanation.cam import grad_cam, last_map
from foveate.explanation.gradients import integrated_gradients
from foveate.explanation.masking import cells
from foveate.explanation.occlusion import occlusion
from foveate.explanation.randomisation import last_stage, randomised
from foveate.probe import Probe, pooled_width

# their last maps come of `stages`, of a method beside it, of a function, of branches, of no mean
FEW = ("resnet20", "mobilenet_v2", "squeezenet1_1", "densenet_bc_100_12", "lenet5", "nin_cifar")


def an_image(network: Any, side: int | None = None) -> Tensor:
    side = side or max(network.min_size, min(64, network.input_size))
    channels = next(p for p in network.parameters() if p.dim() == 4).shape[1]
    return torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_of_a_mean_and_a_linear_layer_it_is_the_weighted_map() -> None:
    """As the first paper on class activation maps has it (Zhou et al., arXiv:1512.04150)."""
    network: Any = settled("resnet20")
    x = an_image(network)
    with torch.no_grad():
        [last] = network.stages(x)[-1]
        positions = last.shape[1] * last.shape[2]
        expected = torch.einsum("kc,chw->khw", network.head.weight[:2] / positions, last).relu()
    for index, [found] in enumerate(grad_cam(network, (x,), [0, 1])):
        torch.testing.assert_close(found, expected[index], atol=1e-5, rtol=1e-4)
        assert found.max() > 0


def finds_maps(name: str) -> None:
    network: Any = models.build(name).eval()
    x = an_image(network)
    [[found]] = grad_cam(network, (x,), [1])
    with torch.no_grad():
        assert found.shape == last_map(network, x).shape[2:]
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("name", FEW)
def test_the_last_map_is_found(name: str) -> None:
    finds_maps(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(CATALOGUE) - set(FEW)))
def test_the_last_map_of_every_network_is_found(name: str) -> None:
    finds_maps(name)


def a_probe(mirror: bool) -> Any:
    torch.manual_seed(0)
    backbone: Any = models.build("nin_cifar").eval()
    return Probe(backbone, pooled_width(backbone, torch.zeros(1, 3, 32, 32)), 3, mirror).eval()


def test_the_map_of_a_mirror_image_is_turned_back() -> None:
    """An image and its mirror image are then explained by mirrored maps."""
    network = a_probe(mirror=True)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    [[found]], [[turned]] = (grad_cam(network, (view,), [0]) for view in (x, x.flip(3)))
    torch.testing.assert_close(found.flip(1), turned)
    assert found.max() > found.min()


class Aside(nn.Module):
    """Its logits come of no map that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def stages(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x).sin()]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean(dim=(2, 3)))


def test_a_network_whose_logits_come_of_other_maps_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Aside.*occlusion"):
        grad_cam(Aside(), (torch.randn(1, 3, 8, 8),), [0])


@pytest.mark.parametrize("plus", [False, True])
def test_beside_captum(plus: bool) -> None:
    """captum has Grad-CAM; Grad-CAM++ then has the same support where all slopes are positive."""
    captum = pytest.importorskip("captum.attr")
    network: Any = settled("resnet20")
    x = an_image(network)
    [[found]] = grad_cam(network, (x,), [3], plus)
    layer = network.layer3
    oracle = captum.LayerGradCam(network, layer)
    if not plus:
        expected = oracle.attribute(x, target=3, relu_attributions=True)[0, 0].detach()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
        return
    maps, slopes = [], []
    layer.register_forward_hook(lambda _, __, out: maps.append(out) or out.retain_grad())
    network(x)[0, 3].backward()
    [a], [g] = maps[0].detach(), maps[0].grad
    for k in range(len(a)):  # the paper's equations, position by position
        alpha = g[k] ** 2 / (2 * g[k] ** 2 + a[k].sum() * g[k] ** 3).where(
            g[k] != 0, torch.ones(())
        )
        slopes.append((alpha * g[k].clamp(min=0)).sum())
    expected = sum(w * m for w, m in zip(slopes, a, strict=True)).clamp(min=0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_integrated_gradients_sum_to_the_gain() -> None:
    network: Any = settled("resnet20")
    x = an_image(network, 32)
    [found], gain = integrated_gradients(network, (x,), 2, steps=24)
    with torch.no_grad():
        expected = float(network(x)[0, 2] - network(torch.zeros_like(x))[0, 2])
    assert gain == pytest.approx(expected, abs=1e-5)
    assert float(found.sum()) == pytest.approx(gain, abs=0.05 * abs(gain) + 1e-4)


def test_integrated_gradients_beside_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    network: Any = settled("resnet20")
    x = an_image(network, 32)
    [found], _ = integrated_gradients(network, (x,), 2, steps=20)
    expected = captum.IntegratedGradients(network).attribute(x, target=2, n_steps=20)
    torch.testing.assert_close(found, expected[0].sum(dim=0).float(), atol=1e-4, rtol=1e-3)


PREPROCESS = Preprocess(32, 32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def in_torch(network: Any) -> Any:
    def logits(images: Iterable[tuple[NDArray[np.uint8], ...]]) -> NDArray[np.float32]:
        with torch.no_grad():
            xs = [torch.from_numpy(PREPROCESS.normalise(view)) for (view,) in images]
            return np.asarray(network(torch.stack(xs)).numpy())

    return logits


def test_occlusion_beside_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    network: Any = settled("resnet20")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    [[found]] = occlusion(in_torch(network), (pixels,), [1], PREPROCESS, grid=4)
    x = torch.from_numpy(PREPROCESS.normalise(pixels[None]))
    grey = float(PREPROCESS.normalise(np.full((1, 1, 3), 128, np.uint8))[0, 0, 0])
    expected = captum.Occlusion(network).attribute(
        x, (3, 8, 8), strides=(3, 8, 8), target=1, baselines=grey
    )
    torch.testing.assert_close(
        torch.from_numpy(found), expected[0, 0, ::8, ::8].float(), atol=1e-4, rtol=1e-3
    )


def test_occlusion_hides_one_cell_of_one_view() -> None:
    """A classifier that adds up the brightness of two views loses the brightness of the cell."""
    rng = np.random.default_rng(0)
    views = tuple(rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (10, 6))

    def brightness(images: Iterable[tuple[NDArray[np.uint8], ...]]) -> NDArray[np.float32]:
        sums = [float(sum(view.astype(int).sum() for view in views)) for views in images]
        return np.array([[0, total] for total in sums], np.float32)

    [found] = occlusion(brightness, views, [1], PREPROCESS, grid=3)
    for view, values in zip(views, found, strict=True):
        place = cells(len(view), (3, 3))
        bright = view.astype(int).sum(axis=2) - 3 * 128
        expected = [bright[place == cell].sum() for cell in range(9)]
        np.testing.assert_array_equal(values.ravel(), expected)


def test_random_weights_begin_at_the_head() -> None:
    network: Any = settled("resnet20")
    before = {name: p.clone() for name, p in network.named_parameters()}
    changed = []
    for part, other in randomised(network, (an_image(network),)).items():
        changed.append(
            (part, {n.split(".")[0] for n, p in other.named_parameters() if (p != before[n]).any()})
        )
    assert changed == [("the head", {"fc"}), ("the last stage", {"fc", "layer3"})]
    for name, p in other.named_parameters():  # the same numbers, in another order
        assert torch.equal(p.flatten().sort().values, before[name].flatten().sort().values)


def test_the_last_stage_of_one_stage_is_all() -> None:
    network = Aside()
    found = last_stage(network, (torch.randn(1, 3, 8, 8),))
    assert {id(p) for p in found} == {id(p) for p in network.conv.parameters()}
