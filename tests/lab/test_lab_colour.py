"""Colour shifting and PCA colour."""

import numpy as np
import torch

from foveate.data.augment.pca import fit_pca
from foveate.lab.colour import STEPS, along, as_bytes, cast


def test_a_step_along_a_component_is_one_standard_deviation_of_the_colours() -> None:
    photo = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.45
    pca = fit_pca([as_bytes(photo)])
    colours = as_bytes(photo).reshape(-1, 3) / 255
    for i in range(3):
        direction = np.array(pca.eigenvectors)[:, i]
        spread = (colours @ direction).std()
        moved = along(photo, pca, i) - photo
        expected = np.outer(STEPS, spread * direction)
        assert np.allclose(moved[:, :, 0, 0], expected, atol=1e-5)


def test_a_cast_multiplies_red_and_blue() -> None:
    grey = torch.full((3, 1, 1), 0.5)
    assert torch.equal(cast(grey, 0.0), grey)
    assert torch.allclose(cast(grey, 0.5).flatten(), torch.tensor([0.75, 0.5, 0.25]))
    assert float(cast(grey, 3.0).max()) == 1
