"""Plain modules: what is found out about them, without leaving a trace; and whether OpenVINO takes
them. (timm's networks: tests/weights/test_timm.py.)"""

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refused
from torch import Tensor, nn

from foveate import models
from foveate.data.preprocess import Preprocess
from foveate.engine.conversion import to_graph
from foveate.engine.openvino import OpenVinoEngine
from foveate.models.adapters import (
    Taken,
    check_parts,
    inspect_module,
    is_timm,
    module_hash,
)


def lecture(num_classes: int = 10) -> nn.Sequential:
    """LeNet as a lecture writes it, for 28x28."""
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(2, stride=2),
        nn.Conv2d(6, 16, kernel_size=5),
        nn.Sigmoid(),
        nn.AvgPool2d(2, stride=2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.Sigmoid(),
        nn.Linear(84, num_classes),
    )


class Net(nn.Module):
    """As in torch's tutorial, for CIFAR's 32x32; `view(-1, ...)` mixes images of other sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(16 * 5 * 5, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.view(-1, 400))))


class Convolutional(nn.Module):
    """Any size; with batch-norm, dropout, a counter, noise, and `view(x.size(0), -1)`."""

    def __init__(self, noisy: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.MaxPool2d(2)
        )
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(8, 4)
        self.noisy = noisy
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.noisy:
            self.calls += 1
            x = x + torch.rand_like(x) * random.random()
        x = self.body(x)
        x = x.mean((2, 3), keepdim=True).view(x.size(0), -1)
        return self.last(self.drop(x))


# What a module reads


def test_the_lectures_lenet() -> None:
    taken = inspect_module(lecture(), 10)
    assert taken == Taken(channels=1, size=28, outputs=10, text="")
    assert all(word in taken.text for word in ("1 channel", "28x28", "10 outputs"))


@pytest.mark.parametrize(
    ("module", "classes", "given", "expected"),
    [
        (lecture(), 10, {"image_side": 224}, (1, 28)),
        (Net(), 10, {}, (3, 32)),
        (Net(), 10, {"image_side": 64}, (3, 32)),
        (Convolutional(), 4, {}, (3, 28)),
        (Convolutional(), 4, {"image_side": 48}, (3, 48)),
        (Convolutional(), 4, {"image_side": 48, "size": 40}, (3, 40)),
        (Convolutional(), 4, {"n": 5}, (3, 28)),
        (models.build("lenet5"), 10, {"image_side": 64}, (1, 28)),
        (models.build("resnet20"), 10, {"image_side": 64}, (3, 32)),
        (nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 2)), 2, {"channels": 1}, (1, 64)),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), 2, {"channels": 3, "size": 8}, (3, 8)),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(400, 2)),
            2,
            {"channels": 1, "image_side": 20},
            (1, 20),
        ),
        (Convolutional().double(), 4, {}, (3, 28)),
        (Convolutional().bfloat16(), 4, {}, (3, 28)),
    ],
)
def test_images_that_a_module_reads(
    module: nn.Module, classes: int, given: dict[str, Any], expected: tuple[int, int]
) -> None:
    taken = inspect_module(module, classes, **given)
    assert (taken.channels, taken.size, taken.outputs) == (*expected, classes)


def test_a_module_and_the_generators_stay_as_they_are() -> None:
    module = Convolutional(noisy=True)
    module.body.eval()
    modes = [m.training for m in module.modules()]
    before, drawn, own = module_hash(module), torch.get_rng_state(), random.getstate()
    inspect_module(module, 4)
    assert module_hash(module) == before
    assert [m.training for m in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), drawn) and random.getstate() == own
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


class Strange(nn.Module):
    """Gives what `give` makes of its map."""

    def __init__(self, give: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.give = give

    def forward(self, x: Tensor) -> Any:
        return self.give(self.conv(x))


def mistaken(x: Tensor) -> Tensor:
    return x.no_such_method()


@pytest.mark.parametrize(
    ("module", "given", "names"),
    [
        (Net(), {"size": 40}, ["Net", "40x40", "RuntimeError", "size="]),
        (Net(), {"size": 68}, ["68x68"]),
        (
            Strange(lambda x: x.flatten(2).mean(2).view(-1, 2)),
            {"size": 28},
            ["28x28", "4 rows", "2"],
        ),
        (Strange(lambda x: x.mean((0, 2, 3))[None]), {}, ["224x224", "1 rows", "2 images"]),
        (
            Strange(mistaken),
            {},
            ["Strange", "28x28", "224x224", "AttributeError", "no_such_method"],
        ),
        (Strange(lambda x: x), {}, ["(2, 4, 224, 224)", "(N, classes)"]),
        (Strange(lambda x: (x, x)), {}, ["tuple"]),
        (Strange(lambda x: x.mean((2, 3))), {"channels": 1}, ["1 channel", "RuntimeError"]),
        (Strange(lambda x: x.mean((2, 3))), {}, ["4 outputs", "10 classes"]),
        (nn.Linear(2, 10), {}, ["Linear", "channels="]),
        (nn.LazyConv2d(4, 3), {}, ["lazy", "weight", "batch"]),
    ],
)
def test_modules_that_do_not_fit(
    module: nn.Module, given: dict[str, Any], names: list[str]
) -> None:
    with refused(ValueError, *names):
        inspect_module(module, 10, **given)


def test_a_module_that_cannot_be_copied() -> None:
    module = lecture()
    module.kept = module(torch.zeros(1, 1, 28, 28))  # type: ignore[assignment]
    with refused(ValueError, "Sequential"):
        inspect_module(module, 10)


# What it lacks


@pytest.mark.parametrize(
    ("module", "missing"), [(lecture(), ("stages", "head")), (models.build("lenet5"), ())]
)
def test_parts_that_are_missing(module: nn.Module, missing: tuple[str, ...]) -> None:
    if missing:
        with refused(ValueError, *missing):
            check_parts(module)
    else:
        check_parts(module)


def test_a_head_is_a_module_inside() -> None:
    module = Net()
    module.stages = lambda x: [x]  # type: ignore[assignment]
    with refused(ValueError, "head"):
        check_parts(module)
    module.__dict__["head"] = nn.Linear(2, 2)  # nowhere in the module
    with refused(ValueError, "head"):
        check_parts(module)
    module.__dict__["head"] = module.fc2
    check_parts(module)


def test_what_is_timms() -> None:
    import timm

    assert is_timm(timm.create_model("test_resnet")) and not is_timm(models.build("resnet18"))


# Hash


HASHED = """
import torch
from torch import nn
from foveate.models.adapters import module_hash
torch.manual_seed(0)
m = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
print(module_hash(m))
"""


def test_the_hash_is_the_same_in_another_process() -> None:
    runs = [
        subprocess.check_output([sys.executable, "-c", HASHED], text=True).strip() for _ in range(2)
    ]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    assert set(runs) == {module_hash(module)}
    last: Any = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert module_hash(last) == runs[0] and module_hash(module.eval()) == runs[0]


def test_the_hash_holds_every_tensor() -> None:
    def fresh() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def changed(change: Any) -> str:
        module = fresh()
        with torch.no_grad():
            module = change(module) or module
        return module_hash(module)

    hashes = [
        module_hash(fresh()),
        changed(lambda m: m[0].bias.add_(1) is None),
        changed(lambda m: m[1].running_mean.add_(1) is None),
        changed(lambda m: m[1].num_batches_tracked.add_(1) is None),
        changed(lambda m: m.bfloat16()),
        changed(lambda m: nn.Sequential(m)),
        changed(lambda m: m.register_buffer("more", torch.zeros(1), persistent=False)),
    ]
    assert len(set(hashes)) == len(hashes)


def test_what_has_no_numbers_has_no_hash() -> None:
    with refused(ValueError, "'weight'", "meta"):
        module_hash(nn.Linear(2, 2, bias=False, device="meta"))
    with refused(ValueError, "lazy"):
        module_hash(nn.LazyLinear(2))


# OpenVINO


class Shortcut(nn.Module):
    """A batch-norm whose convolution is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.last((y + self.norm(y)).mean((2, 3)))


@pytest.mark.parametrize("module", [lecture(), Net(), Convolutional(), Shortcut()], ids=repr)
def test_openvino_agrees(module: nn.Module) -> None:
    torch.manual_seed(0)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -1, 1)
            nn.init.uniform_(m.running_var, 0.5, 2)
    outputs = 4 if isinstance(module, (Convolutional, Shortcut)) else 10
    taken = inspect_module(module, outputs)
    grey = taken.channels == 1
    preprocess = (
        Preprocess(taken.size, taken.size, channels=1, mean=(0.5,), std=(0.5,))
        if grey
        else Preprocess(taken.size, taken.size)
    )
    shape = 5, taken.size, taken.size, taken.channels
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(preprocess.normalise(pixels))).numpy()
    graph = to_graph(module, preprocess)
    engine = OpenVinoEngine(graph, threads=1, precision_hint="f32", batch=3)
    found = np.concatenate(list(engine.run([pixels[:3], pixels[3:]])))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def by_value(x: Tensor) -> Tensor:
    return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))


def by_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy().mean((2, 3)))


@pytest.mark.parametrize("give", [by_value, by_numpy])
def test_what_cannot_be_exported(give: Any) -> None:
    with pytest.raises(RuntimeError):  # of torch's, of several classes
        to_graph(Strange(give), Preprocess(32, 32))
