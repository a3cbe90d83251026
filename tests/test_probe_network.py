"""Pooling against numpy by hand, and the Probe as a network."""

import numpy as np
import pytest
import torch

from foveate import models
from foveate.probe import EPSILON, PooledStages, Probe, pool_stages, spread

WIDTH = 16 + 24 + 40 + 80 + 112 + 192 + 320 + 1280  # of EfficientNet-Lite0's stages


def maps(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, 8, 12), (2, 5, 4, 6), (2, 4, 2, 3)]
    return [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]


def test_pooled_stages_by_hand() -> None:
    first, second, last = (m.numpy() for m in maps())
    mean = last.mean(axis=(2, 3))
    expected = np.concatenate(
        [
            np.sqrt(np.sqrt(first.var(axis=(2, 3)) + EPSILON**2)),
            np.sqrt(np.sqrt(second.var(axis=(2, 3)) + EPSILON**2)),
            np.sign(mean) * np.sqrt(np.abs(mean) + EPSILON),
        ],
        axis=1,
    )
    np.testing.assert_allclose(pool_stages(maps()).numpy(), expected, rtol=1e-12)
    assert (mean < 0).any() and (mean > 0).any()


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


def test_pooling_ignores_the_order_of_pixels() -> None:
    torch.testing.assert_close(pool_stages([m.flip(2, 3) for m in maps()]), pool_stages(maps()))


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
