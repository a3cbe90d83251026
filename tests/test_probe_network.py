"""Pooling against numpy by hand, and the Probe as a network."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foveate import models
from foveate.probe import EPSILON, JoinedProbe, PooledStages, Probe, centre, pool_stages, spread

INNER = 16 + 24 + 40 + 80 + 112 + 192 + 320  # channels of EfficientNet-Lite0's inner stages
WIDTH = 3 * INNER + 1280


def maps(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, 8, 12), (2, 5, 4, 6), (2, 4, 2, 3)]
    return [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]


def test_pooled_stages_by_hand() -> None:
    *inner, last = (m.numpy() for m in maps())

    def spread_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sqrt(np.sqrt(x.var(axis=(2, 3)) + EPSILON**2))

    def level_of(x: NDArray[np.float64], step: float = 0) -> NDArray[np.float64]:
        mean = x.mean(axis=(2, 3))
        return np.sign(mean) * (np.sqrt(np.abs(mean) + EPSILON) - np.sqrt(EPSILON) + step)

    halves = [inner[0][:, :, 2:6, 3:9], inner[1][:, :, 1:3, 1:4]]
    first = [*map(spread_of, inner), level_of(last, step=np.sqrt(EPSILON))]
    second = [*map(spread_of, inner), *map(spread_of, halves), *map(level_of, [*inner, last])]
    for pooling, expected in ((1, first), (2, second)):
        found = pool_stages(maps(), pooling).numpy()
        np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-12)
    assert (level_of(last) < 0).any() and (level_of(last) > 0).any()


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((7, 7), (1, 5), (1, 5)), ((1, 1), (0, 1), (0, 1)), ((2, 5), (0, 1), (1, 4))],
)
def test_the_centre_half(
    shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    x = torch.arange(shape[0] * shape[1]).reshape(1, 1, *shape)
    assert torch.equal(centre(x), x[:, :, slice(*rows), slice(*columns)])


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e4])
def test_gradients_are_finite_at_constant_maps(value: float) -> None:
    constant = [torch.full(m.shape, value, requires_grad=True) for m in maps(dtype=torch.float32)]
    pooled = pool_stages(constant)
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert all(m.grad is not None and m.grad.isfinite().all() for m in constant)


def test_spread_ignores_what_is_added_to_a_channel() -> None:
    x = maps()[0]
    torch.testing.assert_close(spread(x + 100), spread(x))
    torch.testing.assert_close(spread(16 * x), 4 * spread(x))


def test_the_first_pooling_ignores_the_order_of_pixels() -> None:
    turned = [m.flip(2, 3) for m in maps()]
    torch.testing.assert_close(pool_stages(turned, 1), pool_stages(maps(), 1))


def test_pooled_stages_reads_every_stage() -> None:
    network = models.build("efficientnet_lite0").eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        pooled = PooledStages(network)(x)
        assert pooled.shape == (2, WIDTH)
        assert torch.equal(pooled, pool_stages(network.stages(x)))


@pytest.fixture(scope="module", params=[True, False], ids=["mirror", "plain"])
def probe(request: pytest.FixtureRequest) -> Probe:
    torch.manual_seed(0)
    return Probe(models.build("efficientnet_lite0"), WIDTH, 4, mirror=request.param).eval()


def test_probe_keeps_the_contract_of_a_network(probe: Probe) -> None:
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert probe(x).shape == (2, 4) and probe(x[:1]).shape == (1, 4)
        assert torch.equal(probe.head(probe.embed(x)), probe(x))
        assert len(probe.stages(x)) == 8
        torch.testing.assert_close(probe(x)[:1], probe(x[:1]), rtol=1e-4, atol=1e-5)
    assert {name.split(".")[0] for name in probe.state_dict()} == {"backbone", "linear"}
    assert not any("classifier" in name for name in probe.state_dict())


def test_only_a_mirrored_probe_gives_the_mirror_image_the_same(probe: Probe) -> None:
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        same = torch.allclose(probe(x), probe(x.flip(3)), rtol=1e-4, atol=1e-5)
    assert same == probe.mirror


def test_a_mirrored_probe_averages_the_two_views(probe: Probe) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one, other = (pool_stages(probe.backbone.stages(view)) for view in (x, x.flip(3)))
        torch.testing.assert_close(probe.embed(x), (one + other) / 2 if probe.mirror else one)


def test_probe_learns(probe: Probe) -> None:
    probe.train()
    probe(torch.randn(3, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in probe.parameters())
    probe.eval().zero_grad()


# Several views, several backbones


def test_a_probe_of_several_views_reads_each_with_one_backbone() -> None:
    torch.manual_seed(0)
    probe = Probe(models.build("resnet20"), 2 * 208, 4).eval()
    views = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        alone = [pool_stages(probe.backbone.stages(view)) for view in views]
        assert torch.equal(probe.embed(*views), torch.cat(alone, dim=1))
        assert torch.equal(probe(*views), probe.head(torch.cat(alone, dim=1)))


def test_a_joined_probe_gives_each_backbone_its_own_views() -> None:
    torch.manual_seed(0)
    networks = [models.build("resnet20"), models.build("resnet32")]
    joined = JoinedProbe(networks, [2, 1], 3 * 208, 4).eval()
    views = [torch.randn(2, 3, side, side) for side in (32, 32, 48)]
    first, second = joined.backbones
    with torch.no_grad():
        pairs = ((first, views[0]), (first, views[1]), (second, views[2]))
        alone = [pool_stages(network.stages(view)) for network, view in pairs]
        assert torch.equal(joined.embed(*views), torch.cat(alone, dim=1))
        assert joined(*views).shape == (2, 4) and len(joined.stages(*views)) == 3 * len(
            networks[0].stages(views[0])
        )
    names = {name.split(".")[0] for name in joined.state_dict()}
    assert names == {"backbones", "linear"}
    joined.mirror = True
    with torch.no_grad():
        mirrored = joined(*(view.flip(3) for view in views))
        torch.testing.assert_close(joined(*views), mirrored, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="zip"):
        joined(views[0])
    joined.train()(*views).square().sum().backward()
    assert all(p.grad is not None for p in joined.parameters())
