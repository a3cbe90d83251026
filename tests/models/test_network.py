"""The contract of a network, and the names under which the canon's are found."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import torch
from refusals import refused
from torch import Tensor, nn

from foveate import models
from foveate.models import MODELS, Network, as_network, missing_parts

PAPERS = sorted({MODELS[name].__module__ for name in MODELS})


class Small(nn.Module):
    """A network of somebody else's."""

    input_size = 32
    min_size = 2

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(8, 10)

    def stages(self, x: Tensor) -> list[Tensor]:
        return [torch.relu(self.conv(x))]

    def embed(self, x: Tensor) -> Tensor:
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


def without(part: str) -> nn.Module:
    """Small, and a part of the contract that is not what it should be."""
    wrong = {
        "input_size": 0,
        "min_size": "2",
        "stages": [],
        "embed": None,
        "forward": nn.Module.forward,
    }
    return type("Less", (Small,), {part: wrong[part]})()


@pytest.mark.parametrize("name", MODELS)
def test_every_network_of_the_canon_keeps_the_contract(name: str) -> None:
    with torch.device("meta"):
        network = models.build(name)
    assert isinstance(network, nn.Module)
    assert missing_parts(network) == [] and as_network(network) is network


def test_a_module_of_somebody_elses_is_a_network_too() -> None:
    module = Small()
    network: Network = as_network(module)
    assert network is module and network.input_size == 32
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("part", ["input_size", "min_size", "stages", "embed", "forward"])
def test_the_part_that_is_missing_is_named(part: str) -> None:
    module = without(part)
    assert missing_parts(module) == [part]
    with refused(TypeError, "Less", part):
        as_network(module)


def test_what_is_not_needed_may_be_missing() -> None:
    module = without("embed")
    assert as_network(module, "stages", "input_size") is module
    with refused(TypeError, "Less", "embed"):
        as_network(module, "stages", "embed")


def test_a_head_that_is_no_module_is_missing() -> None:
    module = Small()
    del module.head
    assert missing_parts(module) == ["head"]
    module.head = 3  # type: ignore[assignment]
    assert missing_parts(module) == ["head"]


def test_all_that_is_missing_is_named_in_the_order_of_the_contract() -> None:
    parts = ["input_size", "min_size", "head", "stages", "embed", "forward"]
    assert missing_parts(nn.Module()) == parts
    with refused(TypeError, "Module", ", ".join(parts)):
        as_network(nn.Module())
    contract = [name for name in vars(Network) if not name.startswith("_")]
    assert contract == [part for part in parts if part != "forward"]  # nn.Module calls that


@pytest.mark.parametrize("name", MODELS)
def test_a_builder_is_a_name_of_the_package(name: str) -> None:
    builder = getattr(models, name)
    assert builder is MODELS[name] and builder.__name__ == name and name in models.__all__
    assert list(inspect.signature(builder).parameters) == ["num_classes", "in_channels"]


@pytest.mark.parametrize("module", PAPERS)
def test_a_class_of_networks_is_a_name_of_the_package(module: str) -> None:
    paper = importlib.import_module(module)
    built = {
        inspect.signature(builder).return_annotation
        for builder in MODELS.values()
        if builder.__module__ == module
    }
    assert built
    for network in built:
        assert getattr(models, network.__name__) is network is getattr(paper, network.__name__)
        assert network.__name__ in models.__all__


def test_names() -> None:
    assert all(hasattr(models, name) for name in models.__all__)
    assert {"MODELS", "build", "replace_head", "set_in_channels", "summarise"} <= set(
        models.__all__
    )


CLASHES = [name for name in MODELS if MODELS[name].__module__ == f"foveate.models.{name}"]


def test_builders_win_over_their_files(python) -> None:  # type: ignore[no-untyped-def]
    """In whatever order and way the files are imported."""
    assert {"alexnet", "googlenet", "nin"} < set(CLASHES)
    files = [f"import foveate.models.{name}" for name in CLASHES]
    files += [f"from foveate.models.{name} import YEAR" for name in reversed(CLASHES)]
    files += [f"importlib.import_module('foveate.models.{name}')" for name in CLASHES]
    program = "; ".join(
        [
            "import importlib",
            *files,
            "from foveate import models",
            f"print([callable(getattr(models, name)) for name in {CLASHES}])",
        ]
    )
    assert python(program).strip() == str([True] * len(CLASHES))


def test_no_file_of_the_package_takes_a_builder_for_its_file() -> None:
    """`from foveate.models import alexnet` gives the builder: what is in its file comes from
    there."""
    for file in Path(models.__file__).parent.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "foveate.models":
                assert all(hasattr(models, alias.name) for alias in node.names)
            if isinstance(node, ast.Import):
                assert not any(
                    alias.asname and alias.name.removeprefix("foveate.models.") in CLASHES
                    for alias in node.names
                ), file
