"""The graph of a backbone gives torch's numbers, pooled at every stage."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from settling import settled

from foveate import weights
from foveate.engine import conversion
from foveate.engine.openvino import OpenVinoEngine
from foveate.probe import PooledStages
from foveate.weights import find_weights
from foveate.weights.starting_point import find_start

SIDE = 96  # pixels
# As different in their stages as the canon is. Whole networks of every paper:
# reliability/test_r16_graphs.py
NETWORKS = ("alexnet", "resnet18", "squeezenet1_1", "mobilenet_v3_small")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_gives_torchs_stages(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = settled(name)
    reference = PooledStages(copy.deepcopy(network)).eval()
    preprocess = find_weights(name).preprocess.at(SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = reference(torch.from_numpy(preprocess.normalise(pixels))).numpy()
    monkeypatch.setattr(weights, "pretrained", lambda key: network if key == name else None)
    path = conversion.backbone_graph(find_start(name), preprocess)
    assert path.is_relative_to(cache) and conversion.is_whole(path)
    for batch in (1, 3):
        engine = OpenVinoEngine(path, 1, "f32", batch)
        found = np.concatenate(list(engine.run(pixels[i : i + batch] for i in range(0, 6, batch))))
        assert found.shape == expected.shape
        # the square root of a small standard deviation amplifies what precision is lost before it
        assert np.abs(found - expected).max() <= 5e-3 * np.abs(expected).max()
        assert np.abs(found - expected).mean() <= 1e-4 * np.abs(expected).mean()
