"""Of the experiment on 1x1 convolutions, what is exact."""

import torch
import torch.nn.functional as F

from foveate.lab.one_by_one import KERNEL, collapsed, costs, mixture, mlpconv, shapes


def test_a_1x1_convolution_is_a_linear_layer_at_every_pixel() -> None:
    assert shapes() == {64: "64x28x28", 192: "192x28x28", 256: "256x28x28"}  # and asserts equality


def test_without_relus_an_mlpconv_is_one_filter() -> None:
    x, convolutions = torch.randn(2, 3, 9, 9), mlpconv(3, relu=False)[:5]
    bias = convolutions(torch.zeros_like(x))
    one = F.conv2d(x, collapsed(convolutions), padding=KERNEL // 2)
    torch.testing.assert_close(convolutions(x) - bias, one, atol=1e-5, rtol=1e-4)


def test_relus_add_no_parameter() -> None:
    numbers = [sum(p.numel() for p in mlpconv(3, relu).parameters()) for relu in (True, False)]
    assert numbers[0] == numbers[1]


def test_costs_of_bottlenecks() -> None:
    plain, narrow, five, reduced = costs().values()
    assert plain == (2 * 9 * 256 * 256 + 2 * 2 * 256, 2 * 9 * 256 * 256 * 56 * 56)
    assert narrow[1] == (256 * 64 + 9 * 64 * 64 + 64 * 256) * 56 * 56
    assert five == (25 * 192 * 32 + 32, 25 * 192 * 32 * 28 * 28)
    assert reduced[1] == (192 * 16 + 25 * 16 * 32) * 28 * 28


def test_a_mixture_is_of_the_maps_that_weigh_most() -> None:
    found = mixture(mlpconv(1, relu=True), torch.randn(1, 1, 8, 8))
    shares = [
        abs(w) * float(torch.tensor(m).std())
        for w, m in zip(found["weights"], found["maps"], strict=True)
    ]
    assert shares == sorted(shares, reverse=True)
