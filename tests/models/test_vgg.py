"""VGG against torchvision's. The linear layers have a half gigabyte of numbers: they are drawn once
and shared."""

import functools

import pytest
import torch
import torchvision
from refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models import vgg
from foveate.models.vgg import TABLE_1, VGG

PLAIN = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
NAMES = [*PLAIN, *(f"{name}_bn" for name in PLAIN)]
PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


def build(name: str) -> VGG:
    return getattr(vgg, name)()


@functools.cache
def meta_twin(name: str) -> tuple[nn.Module, VGG]:
    """Torchvision's network and ours without memory for their numbers. To be read only."""
    with torch.device("meta"):
        return getattr(torchvision.models, name)(weights=None).eval(), build(name).eval()


@pytest.fixture(scope="module")
def vgg11s() -> dict[str, Tensor]:
    """Torchvision's VGG-11 as seed 0 draws it. To be read only."""
    torch.manual_seed(0)
    return torchvision.models.vgg11(weights=None).state_dict()


def pair(name: str, vgg11s: dict[str, Tensor]) -> tuple[nn.Module, VGG]:
    """Torchvision's network and ours around the same tensors: convolutions of its own, linear
    layers of VGG-11."""
    torch.manual_seed(0)
    with torch.device("meta"):
        theirs, ours = getattr(torchvision.models, name)(weights=None), build(name)
    theirs.features.to_empty(device="cpu")
    for m in theirs.features:
        if isinstance(m, nn.BatchNorm2d):
            m.reset_parameters()
        elif isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
            nn.init.normal_(m.bias, std=0.1)
    state = {k: t for k, t in vgg11s.items() if k.startswith("classifier")}
    theirs.load_state_dict(theirs.features.state_dict(prefix="features.") | state, assign=True)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return theirs, ours


def settle(network: nn.Module, x: Tensor) -> nn.Module:
    """Set batch-norm statistics from one batch, so that nothing overflows or dies out; then
    evaluate."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.features.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


@pytest.mark.parametrize("name", NAMES)
def test_it_has_torchvisions_tensors_in_torchvisions_order(name: str) -> None:
    theirs, ours = (network.state_dict() for network in meta_twin(name))
    assert [(k, t.shape) for k, t in ours.items()] == [(k, t.shape) for k, t in theirs.items()]


@pytest.mark.parametrize("name", NAMES)
def test_it_drops_as_torchvision_does(name: str) -> None:
    theirs, ours = (network.classifier for network in meta_twin(name))
    assert [type(m) for m in ours] == [type(m) for m in theirs]
    assert [m.p for m in ours if isinstance(m, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_torchvisions_logits(name: str, vgg11s: dict[str, Tensor]) -> None:
    theirs, ours = pair(name, vgg11s)
    x = torch.randn(3, 3, 32, 64)
    settle(theirs, x)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    ours.eval()
    with torch.no_grad():
        for batch in (x, x[:1, :, :, :32]):
            expected, found = theirs(batch), ours(batch)
            assert expected.isfinite().all() and expected.std() > 0
            assert torch.equal(found, expected)
        assert torch.equal(ours.head(ours.embed(batch)), found)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_it_gives_torchvisions_gradients(name: str, vgg11s: dict[str, Tensor]) -> None:
    theirs, ours = pair(name, vgg11s)
    # parameters may be shared, statistics move
    own = {
        k: t.clone() if "running" in k or "num_batches" in k else t
        for k, t in theirs.state_dict().items()
    }
    ours.load_state_dict(own, assign=True)
    for network in (theirs, ours):
        network.train()
        for m in network.modules():
            if isinstance(m, nn.Dropout):
                m.p = 0.0
    x, labels = torch.randn(3, 3, 32, 64), torch.tensor([1, 10, 999])
    for network in (theirs, ours):
        F.cross_entropy(network(x), labels).backward()
    for (key, p), (_, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        assert torch.equal(q.grad, p.grad), key
    for (key, p), (_, q) in zip(theirs.named_buffers(), ours.named_buffers(), strict=True):
        assert torch.equal(q, p), key


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    n = PARAMETERS[name]
    assert sum(p.numel() for p in meta_twin(name)[1].parameters()) == n
    assert f"{n:,} parameters at 1000 classes" in (getattr(vgg, name).__doc__ or "")


@pytest.mark.parametrize("name", NAMES)
def test_the_name_counts_the_layers_with_weights(name: str) -> None:
    network = meta_twin(name)[1]
    weighted = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert name.removesuffix("_bn") == f"vgg{len(weighted)}"
    column = TABLE_1[PLAIN[name.removesuffix("_bn")]]
    assert [m.out_channels for m in weighted[:-3]] == [width for stage in column for width in stage]
    assert all(
        m.kernel_size == (3, 3) and m.stride == (1, 1) and m.padding == (1, 1)
        for m in weighted[:-3]
    )


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_those_of_table_1(name: str) -> None:
    network = meta_twin(name)[1]
    assert network.input_size == 224
    x = torch.zeros(2, 3, 224, 224, device="meta")
    assert [tuple(m.shape) for m in network.stages(x)] == [
        (2, 64, 112, 112),
        (2, 128, 56, 56),
        (2, 256, 28, 28),
        (2, 512, 14, 14),
        (2, 512, 7, 7),
    ]
    assert network.embed(x).shape == (2, 4096) and network(x).shape == (2, 1000)


@pytest.mark.parametrize("name", PLAIN)
def test_d1_batch_norm_stands_between_convolution_and_relu(name: str) -> None:
    plain = [type(m) for m in meta_twin(name)[1].features]
    assert set(plain) == {nn.Conv2d, nn.ReLU, nn.MaxPool2d}
    norms = [type(m) for m in meta_twin(f"{name}_bn")[1].features]
    after = [norms[i + 1 : i + 3] for i, kind in enumerate(norms) if kind is nn.Conv2d]
    assert after == [[nn.BatchNorm2d, nn.ReLU]] * plain.count(nn.Conv2d)
    assert [kind for kind in norms if kind is not nn.BatchNorm2d] == plain


def test_d2_any_size_from_32_pixels_on() -> None:
    network = meta_twin("vgg11")[1]
    for shape in ((32, 32), (32, 300), (224, 224), (250, 384)):
        assert network(torch.zeros(1, 3, *shape, device="meta")).shape == (1, 1000)
    last = torch.randn(2, 512, 7, 7)
    assert torch.equal(network.avgpool(last), last)  # what 224 pixels give is left as it is


def test_d3_it_begins_as_torchvisions_does(vgg11s: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    ours = build("vgg11").state_dict()
    for name, t in vgg11s.items():
        assert torch.equal(ours[name], t), name
    assert float(ours["classifier.3.weight"].std()) == pytest.approx(0.01, rel=0.01)
    assert float(ours["features.8.weight"].std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert not any(t.any() for name, t in ours.items() if name.endswith("bias"))


def test_d4_two_columns_are_left_out() -> None:
    assert list(TABLE_1) == ["A", "B", "D", "E"]
    for name in NAMES:
        parts = list(meta_twin(name)[1].modules())
        assert not any(isinstance(m, nn.LocalResponseNorm) for m in parts)  # A-LRN
        assert not any(isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) for m in parts)  # C


@pytest.mark.parametrize("name", ["vgg11", "vgg19_bn"])
def test_smaller_images_are_refused(name: str) -> None:
    network = meta_twin(name)[1]
    assert network.min_size == 32
    with refused(ValueError, "VGG", "32x32", "31x40"):
        network(torch.zeros(1, 3, 31, 40, device="meta"))
    # the limit is the network's, not the message's
    with pytest.raises(RuntimeError, match="too small"):
        network.features(torch.zeros(1, 3, 31, 31, device="meta"))


@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn"])
def test_a_later_layer_leaves_the_maps_alone(name: str) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        network = build(name)
    network.features.to_empty(device="cpu")
    for m in network.features:
        if isinstance(m, (nn.Conv2d, nn.BatchNorm2d)):
            m.reset_parameters()
    network.train()
    x = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        maps = iter(network.stages(x))
        for layer in network.features:
            x = layer(x.clone())
            if isinstance(layer, nn.MaxPool2d):
                assert torch.equal(next(maps), x) and x.std() > 0
    assert next(maps, None) is None
