"""The catalogue says of every network what the built network shows; its parameters and MACs:
tests/models/test_summary.py."""

import importlib
import inspect
import json
import re
import subprocess
import sys

import pytest
import torch
from refusals import absent

from foveate import models
from foveate.catalogue import (
    CATALOGUE,
    ENTRIES,
    NAMES,
    PAPERS,
    canonical,
    family_members,
    unknown_network,
)
from foveate.models import MODELS
from foveate.weights import WEIGHTS


def test_it_lists_every_network_once_in_the_order_of_the_canon() -> None:
    assert [entry.name for entry in ENTRIES] == list(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_entries(name: str) -> None:
    with torch.device("meta"):
        network = models.build(name)
    entry = CATALOGUE[name]
    assert entry.input_size == network.input_size
    assert MODELS[name].__module__ == f"foveate.models.{entry.file}"
    assert entry.paper is PAPERS[entry.file]
    assert (entry.year, entry.family) == (entry.paper.year, entry.paper.family)


@pytest.mark.parametrize("file", PAPERS)
def test_papers(file: str) -> None:
    """Year, title and reference are those that the paper's file says to its readers."""
    module, paper = importlib.import_module(f"foveate.models.{file}"), PAPERS[file]
    text = inspect.getdoc(module) or ""
    reference = re.search(r"^Paper   (.*?)(?=^\S)", text, re.MULTILINE | re.DOTALL)
    assert reference is not None and "\nIdea    " in text
    assert paper.year == module.YEAR
    assert paper.title == " ".join(text.partition("\n\n")[0].split())
    assert paper.reference == " ".join(reference[1].split())


def test_every_paper_has_networks() -> None:
    assert list(PAPERS) == list(dict.fromkeys(entry.file for entry in ENTRIES))


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["-OO"]], ids=["", "-OO"])
def test_the_program_needs_no_docstrings(options: list[str]) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *options, *arguments], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "efficientnet_b7" in run("-m", "foveate", "models")
    shown = run("-m", "foveate", "models", "resnet18")
    paper = CATALOGUE["resnet18"].paper
    assert "resnet18 (2015)" in shown and "arXiv:1512.03385" in shown
    assert paper.title in " ".join(shown.split())  # in lines of any width
    assert ("degradation" in shown and "  D1  " in shown) == (not options)
    found = json.loads(run("-m", "foveate", "models", "resnet18", "--json"))
    assert found["paper"] == {
        "family": paper.family,
        "year": paper.year,
        "title": paper.title,
        "reference": paper.reference,
    }
    program = "from foveate.models import build; import torch; network = build('lenet5').eval(); "
    program += "print(tuple(network(torch.zeros(2, 1, 28, 28)).shape))"
    assert run("-c", program).strip() == "(2, 10)"


def test_weights_are_of_networks_that_exist() -> None:
    assert {weights.network for weights in WEIGHTS.values()} <= set(CATALOGUE)


def test_reading_it_imports_no_torch(python) -> None:  # type: ignore[no-untyped-def]
    assert python("import foveate.catalogue, sys; print('torch' in sys.modules)").strip() == "False"


def test_names_as_papers_and_lectures_write_them() -> None:
    written = "LeNet-5 AlexNet VGG16 VGG-16 GoogLeNet ResNet-18 RESNET_50 DenseNet-121 MobileNetV1"
    written += (
        " MobileNet-V2 EfficientNet-B0 Inception-v3 NiN ShuffleNet-V1 ResNet50.v1 resnet50_v1"
    )
    ours = "lenet5 alexnet vgg16 vgg16 googlenet resnet18 resnet50 densenet121 mobilenet_v1"
    ours += " mobilenet_v2 efficientnet_b0 inception_v3 nin shufflenet_v1 resnet50.v1 resnet50_v1"
    assert [canonical(name) for name in written.split()] == ours.split()
    assert len(NAMES) == len(CATALOGUE)  # no two names are one when they are folded
    for other in ("timm:resnet18", "LeNet", "resnet", "", "resnet18 "[:-1] + "x"):
        assert canonical(other) == other


def test_families_are_listed() -> None:
    def names(name: str) -> list[str]:
        return [entry.name for entry in family_members(name)]

    assert names("LeNet") == ["lenet5_1998", "lenet5"]
    assert {"resnet18", "resnet110", "plain20"} <= set(names("ResNet"))
    for family in "VGG ResNet SqueezeNet DenseNet Inception GoogLeNet ShuffleNet MobileNet".split():
        assert names(family) and not absent(unknown_network(family), *names(family))
    assert names("ShuffleNet v2") == [n for n in CATALOGUE if n.startswith("shufflenet_v2")]
    assert names("xyz") == names("") == []
    assert not absent(unknown_network("ReNet-18"), "'ReNet-18'", "resnet18")
