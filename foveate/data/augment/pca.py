"""PCA colour: the directions in which the colours of a set of images vary, and shifts along them.

Krizhevsky, Sutskever, Hinton. "ImageNet Classification with Deep Convolutional Neural Networks".
NIPS 2012; 4.1. Objects stay what they are when the light gets brighter or changes its colour.
Natural light varies mostly along the principal components of the images' colours, so that is where
an image may be shifted without becoming strange.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import ArtefactError, DataError

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class PcaColour:
    """Principal components of RGB pixel values from 0 to 1, the largest first.

    Args:
        eigenvalues: variance along each component.
        eigenvectors: three rows, red, green and blue; column i is component i, of length 1.

    Raises:
        ValueError: a negative variance; columns that are not orthonormal to two digits; a number
            that is not finite.
    """

    eigenvalues: Vector
    eigenvectors: tuple[Vector, Vector, Vector]

    def __post_init__(self) -> None:
        values, vectors = np.array(self.eigenvalues, float), np.array(self.eigenvectors, float)
        fits = values.shape == (3,) and vectors.shape == (3, 3) and (values >= 0).all()
        if not (
            fits
            and np.isfinite(values).all()
            and np.allclose(vectors.T @ vectors, np.eye(3), atol=0.01)
        ):
            raise ValueError(f"not the principal components of colours: {self}")

    def shift(self, alphas: Sequence[float]) -> Vector:
        """The paper's [p1 p2 p3] [a1 l1, a2 l2, a3 l3]': what is added to (red, green, blue), on
        values from 0 to 1."""
        parts = [alpha * value for alpha, value in zip(alphas, self.eigenvalues, strict=True)]
        red, green, blue = (
            sum(p * v for p, v in zip(parts, row, strict=True)) for row in self.eigenvectors
        )
        return red, green, blue

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Any) -> "PcaColour":
        """Read back what `to_dict` wrote; ArtefactError if it is anything else."""
        try:
            if set(value) != {"eigenvalues", "eigenvectors"}:
                raise KeyError("other fields than expected")
            red, green, blue = (vector(row) for row in value["eigenvectors"])
            return cls(vector(value["eigenvalues"]), (red, green, blue))
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ArtefactError(f"not a PcaColour: {value!r}") from error


def vector(numbers: Any) -> Vector:
    x, y, z = (float(number) for number in numbers)
    return x, y, z


# ImageNet's, as in Facebook's fb.resnet.torch (2016) and in most code since; the paper itself does
# not print them.
PAPER_PCA = PcaColour(
    eigenvalues=(0.2175, 0.0188, 0.0045),
    eigenvectors=(
        (-0.5675, 0.7192, 0.4009),
        (-0.5808, -0.0045, -0.8140),
        (-0.5836, -0.6948, 0.4203),
    ),
)


def fit_pca(images: Iterable[NDArray[np.uint8]]) -> PcaColour:
    """Principal components of the RGB values of all pixels of all images.

        covariance = sum over pixels of x x' / n - mean mean',   x = (red, green, blue) / 255

    Sums of whole numbers, so the order of the images does not matter, to the last bit. Images are
    read one by one.

    Args:
        images: each (H, W, 3), uint8.

    Raises:
        DataError: there is no image.

    Checked against numpy's own covariance in tests/data/test_colour.py.

    >>> fit_pca([np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8)]).eigenvalues
    (0.25, 0.0, 0.0)
    """
    n, total, products = 0, np.zeros(3), np.zeros((3, 3))
    for image in images:
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8, image.shape
        # whole numbers are exact up to 2^53: 10^11 pixels
        x = image.reshape(-1, 3).T.astype(np.float64, order="C")
        n += x.shape[1]
        total += x.sum(axis=1)
        products += x @ x.T
    if n == 0:
        raise DataError("there is no image to find the colours' principal components in")
    mean = total / n
    values, vectors = np.linalg.eigh((products / n - np.outer(mean, mean)) / 255**2)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    # A component and its opposite are the same; for the record to be, its first clear entry is
    # positive
    first = np.argmax(np.abs(vectors) > 0.1, axis=0)
    vectors = vectors * np.sign(vectors[first, range(3)])
    red, green, blue = (vector(row) for row in vectors)
    return PcaColour(vector(np.where(values < 1e-12, 0, values)), (red, green, blue))
