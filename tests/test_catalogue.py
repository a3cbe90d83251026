"""The catalogue says of every network what the built network shows."""

import sys

import pytest
import torch

from foveate import models
from foveate.catalogue import CATALOGUE, ENTRIES
from foveate.models import MODELS
from foveate.models.summary import summarise
from foveate.weights import WEIGHTS


def test_it_lists_every_network_once_in_the_order_of_the_canon() -> None:
    assert [entry.name for entry in ENTRIES] == list(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_figures(name: str) -> None:
    with torch.device("meta"):
        network = models.build(name)
    entry, summary = CATALOGUE[name], summarise(network)
    assert (entry.parameters, entry.macs) == (summary.parameters, summary.macs)
    assert entry.input_size == network.input_size
    assert entry.year == sys.modules[MODELS[name].__module__].YEAR


def test_weights_are_of_networks_that_exist() -> None:
    assert {weights.network for weights in WEIGHTS.values()} <= set(CATALOGUE)


def test_reading_it_imports_no_torch(python) -> None:  # type: ignore[no-untyped-def]
    assert python("import foveate.catalogue, sys; print('torch' in sys.modules)").strip() == "False"
