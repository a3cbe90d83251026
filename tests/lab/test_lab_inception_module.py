"""Of the experiment on the Inception module, what is exact."""

import pytest

from foveate.lab.bench import Bench
from foveate.lab.inception_module import PARTS, gradients, module_3a


def test_the_branches_of_3a() -> None:
    rows = module_3a()
    assert [row["channels"] for row in rows] == [64, 128, 32, 32]
    assert all(row["output"].endswith("x28x28") for row in rows)
    assert [row["field"] for row in rows] == [1, 3, 5, 3]
    assert [row["channels, no reduction"] for row in rows] == [64, 128, 32, 192]
    pixels = 28 * 28
    assert [row["MACs"] for row in rows] == [
        192 * 64 * pixels,
        (192 * 96 + 9 * 96 * 128) * pixels,
        (192 * 16 + 25 * 16 * 32) * pixels,
        192 * 32 * pixels,
    ]
    assert [row["MACs, no reduction"] for row in rows] == [
        192 * 64 * pixels,
        9 * 192 * 128 * pixels,
        25 * 192 * 32 * pixels,
        0,
    ]


@pytest.mark.parametrize("name", ["googlenet_2014", "googlenet"])
def test_auxiliary_losses_reach_only_the_layers_below_them(name: str, tmp_path: object) -> None:
    from pathlib import Path

    images = Bench(Path(str(tmp_path))).images(side=32, most=64)
    found = gradients(name, images, seed=0)
    above = PARTS.index("inception4e")
    assert found["all"][above:] == pytest.approx(found["last"][above:], rel=1e-5)
    assert all(a != b for a, b in zip(found["all"][:above], found["last"][:above], strict=True))
