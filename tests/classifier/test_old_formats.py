"""Classifiers of older versions load, and predict what they predicted then; and what is new to the
format does."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from small_network import Small, images

from foveate.classifier import Classifier
from foveate.classifier.decision import Decision
from foveate.classifier.saving import ProbeBranch, save_probe
from foveate.heads import Head
from foveate.weights.starting_point import find_start

HERE = Path(__file__).parent


def test_format_1_is_read_with_the_first_pooling(tmp_path: Path) -> None:
    folder = shutil.copytree(HERE / "format_1", tmp_path / "classifier")
    card = json.loads((folder / "card.json").read_text())
    assert card["format"] == 1 and card["mirror"] and "pooling" not in card
    expected = json.loads((HERE / "format_1.json").read_text())["probabilities"]
    found = Classifier.load(folder)
    assert found.preprocess.framing == "whole" and len(found.preprocess.views) == 1
    pixels = [np.asarray(image) for image in images(46)[40:]]
    by_graph = found.predict_proba(pixels)
    assert np.abs(by_graph - expected).max() < 0.02  # bf16, where the processor has it
    network = found.network(Small)
    assert network.pooling == 1
    with torch.no_grad():
        inputs = torch.stack([found.preprocess(image) for image in images(46)[40:]])
        by_torch = network(inputs).double().softmax(1).numpy()
    np.testing.assert_allclose(by_torch, expected, atol=1e-5)


def test_two_sizes_of_a_network_of_ones_own_side_by_side(tmp_path: Path) -> None:
    """The graph has an input for each, mirrored within; the tensors give the same in torch."""
    torch.manual_seed(0)
    start = find_start(Small())
    sizes = [start.preprocess.at(size) for size in (24, 16)]
    branches = [ProbeBranch(start, size, mirror=True, log_loss=0.5) for size in sizes]
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 2 * (3 * 6 + 8))).astype(np.float32)
    none = np.zeros((1, 0))
    head = Head(weight, np.zeros(2, np.float32), 1e-3, 1.0, weight, (), none, none == 1)
    about = {"metrics": {}, "provenance": {}}
    found = save_probe(
        tmp_path / "c", branches, head, Decision(None), ("a", "b"), "openvino", about
    )
    assert [view.crop for view in found.preprocess.views] == [24, 16]
    pixels = [np.asarray(image) for image in images(8)]
    network = found.network(Small)
    with torch.no_grad():
        views = zip(*(found.preprocess(image) for image in images(8)), strict=True)
        by_torch = network(*map(torch.stack, views)).double().softmax(1).numpy()
    assert np.abs(found.predict_proba(pixels) - by_torch).max() < 0.05  # bf16
    turned = [np.ascontiguousarray(p[:, ::-1]) for p in pixels]
    np.testing.assert_allclose(found.predict_proba(turned), found.predict_proba(pixels), atol=0.03)
