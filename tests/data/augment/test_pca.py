import json
import math
from typing import Any

import numpy as np
import pytest
from refusals import refused

from foveate.data.augment.pca import PAPER_PCA, PrincipalComponents, fit_pca
from foveate.errors import ArtefactError, DataError


def images(n: int = 5) -> list[np.ndarray]:
    """Noise whose colours vary along a few slanted directions."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    sizes = rng.integers(1, 40, (n, 2))
    return [
        np.clip(rng.normal(0, 30, (h, w, 3)) @ mixing + 128, 0, 255).astype(np.uint8)
        for h, w in sizes
    ]


def test_fit_equals_numpy() -> None:
    given = images()
    found = fit_pca(given)
    pixels = np.concatenate([p.reshape(-1, 3) for p in given]) / 255
    covariance = np.cov(pixels.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    assert found.eigenvalues == pytest.approx(values[::-1], rel=1e-9)
    mine = np.array(found.eigenvectors)
    # the same axes, whatever their sign
    assert np.abs((mine * vectors[:, ::-1]).sum(axis=0)) == pytest.approx(1)
    np.testing.assert_allclose(mine @ np.diag(found.eigenvalues) @ mine.T, covariance, atol=1e-12)
    assert sorted(found.eigenvalues, reverse=True) == list(found.eigenvalues)


def test_fit_does_not_depend_on_the_order_nor_on_how_pixels_are_grouped() -> None:
    given = images()
    whole = np.concatenate([p.reshape(-1, 3) for p in given])[None]
    assert fit_pca(given) == fit_pca(given[::-1]) == fit_pca([whole])


def test_fit_of_grey_and_of_one_colour() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    found = fit_pca([grey])
    assert found.eigenvalues[1:] == (0, 0)
    assert [row[0] for row in found.eigenvectors] == pytest.approx([3**-0.5] * 3)
    assert fit_pca([np.full((4, 4, 3), 7, np.uint8)]).eigenvalues == (0, 0, 0)


def test_fit_of_nothing() -> None:
    with refused(DataError, "image"):
        fit_pca([])


def test_shift_is_the_papers_formula() -> None:
    alphas = np.random.default_rng(1).normal(0, 0.1, 3)
    expected = np.array(PAPER_PCA.eigenvectors) @ (alphas * np.array(PAPER_PCA.eigenvalues))
    assert PAPER_PCA.shift(alphas.tolist()) == pytest.approx(expected)
    assert PAPER_PCA.shift([0, 0, 0]) == (0, 0, 0)


def test_published_values() -> None:
    """Their trace is the variance of ImageNet's pixels, about 3 * 0.28^2: they are variances, on
    values from 0 to 1."""
    assert sum(PAPER_PCA.eigenvalues) == pytest.approx(3 * 0.28**2, rel=0.05)
    grey = np.array(PAPER_PCA.eigenvectors)[:, 0]
    # the first component is brightness
    assert np.abs(grey) == pytest.approx([3**-0.5] * 3, abs=0.02)


@pytest.mark.parametrize("pca", [PAPER_PCA, fit_pca(images())], ids=["paper", "fitted"])
def test_round_trip_through_json(pca: PrincipalComponents) -> None:
    assert PrincipalComponents.from_dict(json.loads(json.dumps(pca.to_dict()))) == pca


GOOD = json.loads(json.dumps(PAPER_PCA.to_dict()))


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        [],
        {},
        {**GOOD, "code": 1},
        {"eigenvalues": GOOD["eigenvalues"]},
        {**GOOD, "eigenvalues": [1, 2]},
        {**GOOD, "eigenvalues": [1, 2, -1]},
        {**GOOD, "eigenvalues": [1, 2, math.nan]},
        {**GOOD, "eigenvalues": [1, 2, math.inf]},
        {**GOOD, "eigenvalues": [1, 2, 10**400]},
        {**GOOD, "eigenvalues": 3},
        {**GOOD, "eigenvectors": [[1, 0, 0], [0, 1, 0]]},
        {**GOOD, "eigenvectors": [[1, 0, 0], [0, 1, 0], [0, 1, 0]]},
        {**GOOD, "eigenvectors": [[1, 0, 0], [0, 1, 0], [0, 0, "x"]]},
        {**GOOD, "eigenvectors": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]},
    ],
)
def test_from_dict_refuses(value: Any) -> None:
    with refused(ArtefactError, "PrincipalComponents"):
        PrincipalComponents.from_dict(value)


def test_what_is_no_basis_is_refused() -> None:
    with refused(ValueError, "principal components"):
        PrincipalComponents((1, 1, 1), ((1, 1, 0), (0, 1, 0), (0, 0, 1)))
