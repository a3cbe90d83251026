"""Inception-v3 against torchvision's."""

import functools

import pytest
import torch
import torchvision
from refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.inception_v3 import (
    Figure5,
    Figure6,
    Figure7,
    Figure10,
    InceptionV3,
    SecondReduction,
    inception_v3,
)

ENDS = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")


@functools.cache
def meta_twin() -> InceptionV3:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return inception_v3().eval()


@functools.cache
def drawn() -> InceptionV3:
    """The network with random weights. To be read only."""
    torch.manual_seed(0)
    return inception_v3().eval()


def torchvisions(num_classes: int = 1000) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.inception_v3(
        weights=None,
        num_classes=num_classes,
        transform_input=False,
        init_weights=False,
        aux_logits=True,
        dropout=0.0,
    )


@functools.cache
def pair() -> tuple[nn.Module, InceptionV3]:
    """Torchvision's network, batch-norm statistics of one batch, and ours around its tensors. To be
    read only."""
    theirs = torchvisions().eval()
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.train().momentum = 1.0
    with torch.no_grad():
        theirs(torch.randn(4, 3, 107, 107))
    with torch.device("meta"):
        ours = inception_v3().eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return theirs.eval(), ours


def test_it_has_torchvisions_tensors_in_torchvisions_order() -> None:
    theirs, ours = pair()[0].state_dict(), meta_twin().state_dict()
    assert [(k, t.shape) for k, t in ours.items()] == [(k, t.shape) for k, t in theirs.items()]


@pytest.mark.parametrize("shape", [(1, 3, 75, 75), (3, 3, 80, 131), (1, 3, 299, 299)])
def test_it_gives_torchvisions_logits(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape)
    theirs, ours = pair()
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
        assert isinstance(found, Tensor) and expected.std() > 0
        assert torch.equal(found, expected)
        assert torch.equal(ours.head(ours.embed(x)), found)


def test_it_gives_torchvisions_gradients() -> None:
    """At 299 pixels, the least that torchvision's can be trained on."""
    theirs, ours = torchvisions(10).train(), inception_v3(10).train()
    ours.load_state_dict(theirs.state_dict())
    assert ours.dropout.p == 0.5
    ours.dropout.p = 0.0
    torch.manual_seed(1)
    x, labels = torch.randn(2, 3, 299, 299), torch.tensor([1, 9])
    outputs = theirs(x), ours(x)
    assert torch.equal(outputs[1].logits, outputs[0].logits)
    assert torch.equal(outputs[1].aux, outputs[0].aux_logits)
    for output in outputs:
        sum(
            w * F.cross_entropy(o, labels) for w, o in zip((1, 0.4), output, strict=True)
        ).backward()
    for (name, p), (_, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and p.grad.any()
        assert torch.equal(q.grad, p.grad), name
    for (name, p), (_, q) in zip(theirs.named_buffers(), ours.named_buffers(), strict=True):
        assert torch.equal(q, p), name  # the batch-norm statistics have moved alike


def test_it_drops_half_in_training() -> None:
    default = torchvision.models.inception_v3
    with torch.device("meta"):
        theirs = default(weights=None, transform_input=False, init_weights=False, aux_logits=True)
    assert meta_twin().dropout.p == theirs.dropout.p


def test_training_answers_by_name() -> None:
    with torch.device("meta"):
        output = inception_v3(num_classes=5, in_channels=1).train()(torch.zeros(2, 1, 75, 96))
    assert output._fields == ("logits", "aux")
    assert output.logits.shape == output.aux.shape == (2, 5)


def test_the_auxiliary_classifiers_last_layer_is_named() -> None:
    assert InceptionV3.AUXILIARY == ("AuxLogits.fc",)
    last = meta_twin().get_submodule("AuxLogits.fc")
    assert isinstance(last, nn.Linear) and last.out_features == 1000


@pytest.mark.parametrize(
    ("module", "c_in", "c_out", "side"),
    [
        (Figure5(192, 32), 192, 256, 35),
        (Figure10(288), 288, 768, 17),
        (Figure6(768, 128), 768, 768, 17),
        (SecondReduction(768), 768, 1280, 8),
        (Figure7(1280), 1280, 2048, 8),
    ],
)
def test_a_module_makes_the_maps_it_says(
    module: nn.Module, c_in: int, c_out: int, side: int
) -> None:
    halves = isinstance(module, (Figure10, SecondReduction))
    x = torch.zeros(1, c_in, *[2 * side + 1 if halves else side] * 2, device="meta")
    assert module.to("meta")(x).shape == (1, c_out, side, side)


def test_stages() -> None:
    network = meta_twin()
    x = torch.zeros(2, 3, network.input_size, network.input_size, device="meta")
    expected = [(64, 147, 147), (192, 71, 71), (288, 35, 35), (768, 17, 17), (2048, 8, 8)]
    assert [tuple(m.shape[1:]) for m in network.stages(x)] == expected
    assert network.input_size == 299 and network.embed(x).shape == (2, 2048)


def test_parameters() -> None:
    parameters = dict(meta_twin().named_parameters())
    auxiliary = sum(p.numel() for key, p in parameters.items() if key.startswith("AuxLogits"))
    n = sum(p.numel() for p in parameters.values())
    assert n == 27_161_264
    doc = inception_v3.__doc__ or ""
    assert f"{n:,} parameters at 1000 classes" in doc and f"uses {n - auxiliary:,} of them" in doc


def kernels(module: nn.Module) -> list[tuple[int, ...]]:
    return [m.kernel_size for m in module.modules() if isinstance(m, nn.Conv2d)]


def test_d1_the_stem_reaches_35_pixels_with_192_channels() -> None:
    network = meta_twin()
    stem = (network.Conv2d_3b_1x1, network.Conv2d_4a_3x3)
    assert [(m.conv.kernel_size[0], m.conv.out_channels) for m in stem] == [(1, 80), (3, 192)]
    sides: list[int] = []
    parts = [*stem, network.Mixed_5b]
    handles = [
        m.register_forward_pre_hook(lambda m, x: sides.append(x[0].shape[-1])) for m in parts
    ]
    network(torch.zeros(1, 3, 299, 299, device="meta"))
    for handle in handles:
        handle.remove()
    assert sides == [73, 73, 35]
    assert network.Mixed_5b.branch1x1.conv.in_channels == 192


def test_d2_the_second_branch_of_figure_5_is_5x5() -> None:
    modules = [m for m in meta_twin().modules() if isinstance(m, Figure5)]
    assert [kernels(m.branch5x5_2) for m in modules] == [[(5, 5)]] * 3


def test_d3_a_reduction_comes_before_four_and_before_two_modules() -> None:
    kinds = (Figure5, Figure10, Figure6, SecondReduction, Figure7)
    found = [type(m) for m in meta_twin().children() if isinstance(m, kinds)]
    assert found == [Figure5] * 3 + [Figure10] + [Figure6] * 4 + [SecondReduction] + [Figure7] * 2


def test_d4_the_second_reduction_has_long_filters() -> None:
    first, second = set(kernels(Figure10(8))), set(kernels(SecondReduction(8)))
    assert first == {(1, 1), (3, 3)} and second == {(1, 1), (3, 3), (1, 7), (7, 1)}


def test_d5_the_auxiliary_hidden_layer_is_linear_on_a_5x5_map() -> None:
    torch.manual_seed(1)
    hidden, x = drawn().AuxLogits.conv1, torch.randn(2, 128, 5, 5)
    with torch.no_grad():
        linear = F.linear(x.flatten(1), hidden.conv.weight.flatten(1))
        found = hidden.conv(x)
    assert found.shape == (2, 768, 1, 1)
    torch.testing.assert_close(found.flatten(1), linear, rtol=1e-4, atol=1e-4)


def test_d6_training_images_may_be_small() -> None:
    torch.manual_seed(1)
    auxiliary, x = drawn().AuxLogits, torch.randn(2, 768, 17, 18)
    with torch.no_grad():
        stretched = auxiliary(x[..., :3, :5])
        repeated = auxiliary(F.adaptive_avg_pool2d(x[..., :3, :5], 17))
        plain = auxiliary.fc(
            auxiliary.conv1(auxiliary.conv0(F.avg_pool2d(x, 5, stride=3))).mean(dim=(2, 3))
        )
        assert torch.equal(stretched, repeated)
        assert torch.equal(auxiliary(x), plain)  # as torchvision does, from 17x17 on
    with torch.device("meta"):
        theirs = torchvisions().train()
    with pytest.raises(RuntimeError):  # torch says why
        theirs(torch.zeros(2, 3, 298, 298, device="meta"))


def test_d7_weights_are_drawn_as_torchvision_does() -> None:
    network = drawn()
    for m in network.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            std = 0.001 if m is network.AuxLogits.fc else 0.1
            assert float(m.weight.detach().std()) == pytest.approx(std, rel=0.1)
            assert m.weight.detach().abs().max() <= 2


def test_smaller_images_are_refused() -> None:
    with torch.device("meta"):
        network = inception_v3()
    side, small = network.min_size, torch.zeros(2, 3, 75, 74, device="meta")
    assert side == 75
    assert network.train()(torch.zeros(2, 3, side, side, device="meta")).logits.shape == (2, 1000)
    named = ("InceptionV3", "75x75", "75x74")
    with refused(ValueError, *named):
        network(small)
    assert network.eval()(torch.zeros(1, 3, side, side + 3, device="meta")).shape == (1, 1000)
    for method in (network, network.stages, network.embed):
        with refused(ValueError, *named):
            method(small)
    network.min_size = 1
    # the limit is the network's
    with pytest.raises(RuntimeError, match=r"Kernel size can't be greater|too small"):
        network(small)


def test_a_later_layer_leaves_the_maps_alone() -> None:
    torch.manual_seed(1)
    network, kept = drawn(), list[Tensor]()
    handles = [
        network.get_submodule(end).register_forward_hook(lambda *call: kept.append(call[2].clone()))
        for end in ENDS
    ]
    with torch.no_grad():
        maps = network.stages(torch.randn(1, 3, 75, 96))
    for handle in handles:
        handle.remove()
    assert len(maps) == len(kept) == 5 and all(map(torch.equal, maps, kept))


def test_every_parameter_gets_a_gradient_from_small_images_too() -> None:
    torch.manual_seed(0)
    network = inception_v3(num_classes=7, in_channels=1).train()
    output = network(torch.randn(3, 1, 75, 96))
    torch.stack([F.cross_entropy(o, torch.tensor([0, 6, 3])) for o in output]).sum().backward()
    assert [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.isfinite().all()
    ] == []
