"""The value of a region, against pooling what is really left of the maps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exportable import joined_probe, probe_of_views, small_classifier
from refusals import refused
from settling import settled
from torch import Tensor

from foveate.classifier import Classifier
from foveate.classifier.embedding import head_of
from foveate.data.preprocess import Preprocess
from foveate.engine import openvino
from foveate.engine.conversion import to_graph
from foveate.engine.openvino import Branch, OpenVinoMaps, attach_head, save_graph
from foveate.errors import ArtefactError
from foveate.explanation.exact import grid_of, lost_without, pooled, values_of
from foveate.explanation.maps import TorchMaps, map_source
from foveate.explanation.masking import logits_of
from foveate.models.surgery import drop_head
from foveate.probe import EPSILON, PooledStages, centre, pool_stages, pooled_width

SIDES = [(13, 11), (7, 6), (4, 3), (4, 3)]


def draw_maps(sides: list[tuple[int, int]] = SIDES) -> list[Tensor]:
    noise = torch.Generator().manual_seed(0)
    return [torch.randn(3 + i, *side, generator=noise).double() for i, side in enumerate(sides)]


def regions_of(sides: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    """(H, W), the number of the region in which each position's centre lies, one by one."""
    found = torch.zeros(sides, dtype=torch.int64)
    for y in range(sides[0]):
        for x in range(sides[1]):
            row, column = int((y + 0.5) / sides[0] * grid[0]), int((x + 0.5) / sides[1] * grid[1])
            found[y, x] = row * grid[1] + column
    return found


def pooled_by_hand(
    maps: list[Tensor], grid: tuple[int, int], region: int, pooling: int, turned: bool
) -> Tensor:
    """The pooled numbers when the positions of a region are taken out of the maps."""

    def kept(m: Tensor, half: bool) -> Tensor:
        regions = regions_of(tuple(m.shape[1:]), grid)
        regions = regions.flip(1) if turned else regions
        if half:
            m, regions = centre(m[None])[0], centre(regions[None, None])[0, 0]
        inside = regions == region
        return m[:, ~inside] if not bool(inside.all()) else m.flatten(1)  # (C, positions)

    def spread(x: Tensor) -> Tensor:
        return (x.var(dim=1, correction=0) + EPSILON**2).sqrt().sqrt()

    def level(x: Tensor, at_zero: float = 0.0) -> Tensor:
        mean = x.mean(dim=1)
        return mean.sign() * ((mean.abs() + EPSILON).sqrt() - (EPSILON**0.5 - at_zero))

    spreads = [spread(kept(m, half=False)) for m in maps[:-1]]
    if pooling == 1:
        return torch.cat([*spreads, level(kept(maps[-1], half=False), EPSILON**0.5)])
    halves = [spread(kept(m, half=True)) for m in maps[:-1]]
    return torch.cat([*spreads, *halves, *(level(kept(m, half=False)) for m in maps)])


@pytest.mark.parametrize("pooling", [1, 2])
@pytest.mark.parametrize("mirror", [False, True])
def test_values_are_those_of_maps_that_are_really_masked(pooling: int, mirror: bool) -> None:
    maps = draw_maps()
    mirrored = [m.flip(2).roll(1, 1) for m in maps] if mirror else None
    whole = pool_stages([m[None] for m in maps], pooling)[0]
    if mirrored is not None:
        whole = (whole + pool_stages([m[None] for m in mirrored], pooling)[0]) / 2
    weight = torch.randn(2, len(whole), generator=torch.Generator().manual_seed(1)).double()
    grid = (4, 3)
    expected = torch.zeros(2, *grid).double()
    for region in range(12):
        left = pooled_by_hand(maps, grid, region, pooling, turned=False)
        if mirrored is not None:
            left = (left + pooled_by_hand(mirrored, grid, region, pooling, turned=True)) / 2
        expected[:, region // 3, region % 3] = weight @ (whole - left)

    numbers = [m.numpy() for m in maps]
    turned = None if mirrored is None else [m.numpy() for m in mirrored]
    found = values_of(weight.numpy(), lost_without(numbers, turned, pooling))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.abs(found).min() > 1e-6  # all are of some worth


@pytest.mark.parametrize("pooling", [1, 2])
def test_pooled_numbers_are_the_probes(pooling: int) -> None:
    maps = draw_maps()
    expected = pool_stages([m[None] for m in maps], pooling)[0]
    np.testing.assert_allclose(pooled([m.numpy() for m in maps], pooling), expected, atol=1e-12)


def test_regions_are_the_positions_of_the_last_map_that_has_several() -> None:
    maps = [m.numpy() for m in draw_maps([(8, 8), (3, 2), (1, 1)])]
    assert grid_of(maps) == (3, 2)
    assert grid_of(maps[2:]) == (1, 1)


def test_a_map_of_one_position_is_left_as_it_is() -> None:
    maps = [m.numpy() for m in draw_maps([(4, 4), (1, 1)])]
    lost = lost_without(maps)
    channels = len(maps[1])
    assert not lost[-channels:].any()
    assert lost[:-channels].any(axis=(1, 2)).all()


@pytest.fixture(scope="module")
def two_views(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A probe of two views and of their mirror images, with a graph, computed in f32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino, "precision", lambda: "f32")
        return probe_of_views(tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A probe of two backbones and three views, with a graph, computed in f32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino, "precision", lambda: "f32")
        return joined_probe(tmp_path_factory.mktemp("joined"))


@pytest.mark.parametrize(("probe", "seen"), [("two_views", [2, 2]), ("joined", [1, 1, 1])])
def test_the_graph_gives_the_maps_that_the_network_has(
    probe: str, seen: list[int], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "precision", lambda: "f32")
    rng, classifier = np.random.default_rng(0), request.getfixturevalue(probe)
    squares = tuple(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in seen)
    source = map_source(classifier)
    assert isinstance(source, OpenVinoMaps)
    found, expected = source.of(squares), TorchMaps(classifier).of(squares)
    assert [[len(maps) for maps in view] for view in found] == [[3] * n for n in seen]
    for view, other in zip(found, expected, strict=True):
        for maps, others in zip(view, other, strict=True):
            for m, o in zip(maps, others, strict=True):
                np.testing.assert_allclose(m, o, atol=1e-4, rtol=1e-3)

    # and from these maps follow the logits
    head = head_of(classifier)
    features = np.concatenate([np.mean([pooled(m) for m in view], axis=0) for view in found])
    [logits] = logits_of(classifier, [squares])
    np.testing.assert_allclose(head.weight @ features + head.bias, logits, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_the_maps_of_other_networks_are_found_in_their_graphs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their stages end otherwise: in branches, in a product."""
    monkeypatch.setattr(openvino, "precision", lambda: "f32")
    torch.manual_seed(0)
    backbone: Any = drop_head(settled(name))
    side = max(64, backbone.min_size)
    graph = to_graph(PooledStages(backbone), Preprocess(side, side))
    width = pooled_width(backbone, torch.zeros(1, 3, side, side))
    head = np.ones((2, width), np.float32), np.zeros(2, np.float32)
    save_graph(attach_head([Branch(graph)], *head), tmp_path / "engine.xml")

    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    [[found]] = OpenVinoMaps(tmp_path / "engine.xml", [1], False, 1).of((pixels,))
    with torch.no_grad():
        normalised = Preprocess(side, side).normalise(pixels[None])
        expected = backbone.stages(torch.from_numpy(normalised))
    assert [m.shape for m in found] == [tuple(m.shape[1:]) for m in expected]
    for m, [o] in zip(found, expected, strict=True):
        np.testing.assert_allclose(m, o, atol=1e-3 * float(o.abs().max()))


def test_a_graph_that_is_no_probes(tmp_path: Path) -> None:
    """It is explained in torch; asked for its maps, it is refused."""
    classifier = small_classifier(tmp_path, "resnet20")
    with refused(ArtefactError, "engine.xml"):
        OpenVinoMaps(classifier.folder / "engine.xml", [1], False, 1)


def test_a_classifier_without_a_graph_is_explained_in_torch(tmp_path: Path) -> None:
    assert isinstance(map_source(probe_of_views(tmp_path, graph=False)), TorchMaps)
