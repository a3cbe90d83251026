"""PCA colour: the directions in which the colours of a set of images vary, and shifts along them.

Krizhevsky, Sutskever, Hinton. "ImageNet Classification with Deep Convolutional Neural Networks".
NIPS 2012; 4.1. Objects stay what they are when the light gets brighter or changes its colour.
Natural light varies mostly along the principal components of the images' colours, so that is where
an image may be shifted without becoming strange.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from foveate.data.augment.part import ON, ImagePart, choice, number
from foveate.errors import ArtefactError, DataError, ImageError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from foveate.data.augment.streams import Numbers
    from foveate.data.dataset import Dataset
    from foveate.data.image import Pixels
    from foveate.data.preprocess import Preprocess

Vector = tuple[float, float, float]

PCA_IMAGES = 500  # are enough to know the colours of any set
UNSHIFTED = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PrincipalComponents:
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
        # without numpy, since the published ones are made when the command line is loaded
        values, rows = self.eigenvalues, self.eigenvectors
        fits = len(values) == 3 and len(rows) == 3 and all(len(row) == 3 for row in rows)
        fits = fits and all(0 <= value < math.inf for value in values)
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)) if fits else ():
            fits = fits and abs(sum(row[i] * row[j] for row in rows) - (i == j)) <= 0.01
        if not fits:
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
    def from_dict(cls, value: Any) -> "PrincipalComponents":
        """Read back what `to_dict` wrote; ArtefactError if it is anything else."""
        try:
            if set(value) != {"eigenvalues", "eigenvectors"}:
                raise KeyError("other fields than expected")
            red, green, blue = (vector(row) for row in value["eigenvectors"])
            return cls(vector(value["eigenvalues"]), (red, green, blue))
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ArtefactError(f"not PrincipalComponents: {value!r}") from error


def vector(numbers: Any) -> Vector:
    x, y, z = (float(number) for number in numbers)
    return x, y, z


# ImageNet's, as in Facebook's fb.resnet.torch (2016) and in most code since; the paper does not
# print them.
PAPER_PCA = PrincipalComponents(
    eigenvalues=(0.2175, 0.0188, 0.0045),
    eigenvectors=(
        (-0.5675, 0.7192, 0.4009),
        (-0.5808, -0.0045, -0.8140),
        (-0.5836, -0.6948, 0.4203),
    ),
)


def fit_pca(images: "Iterable[NDArray[np.uint8]]") -> PrincipalComponents:
    """Principal components of the RGB values of all pixels of all images.

        covariance = sum over pixels of x x' / n - mean mean',   x = (red, green, blue) / 255

    Sums of whole numbers, so the order of the images does not matter, to the last bit. Images are
    read one by one.

    Args:
        images: each (H, W, 3), uint8.

    Raises:
        DataError: there is no image.

    Checked against numpy's own covariance in tests/data/augment/test_pca.py.

    >>> import numpy as np
    >>> fit_pca([np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8)]).eigenvalues
    (0.25, 0.0, 0.0)
    """
    import numpy as np

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
    # a component and its opposite are the same: the first clear entry is made positive
    first = np.argmax(np.abs(vectors) > 0.1, axis=0)
    vectors = vectors * np.sign(vectors[first, range(3)])
    red, green, blue = (vector(row) for row in vectors)
    return PrincipalComponents(vector(np.where(values < 1e-12, 0, values)), (red, green, blue))


def fit_to_dataset(
    dataset: "Dataset", rows: "NDArray[np.int64]", preprocess: "Preprocess", threads: int
) -> PrincipalComponents:
    """Principal components of at most PCA_IMAGES images, evenly spaced among `rows`, without those
    that cannot be read.

    Args:
        dataset: where the images are.
        rows: of the training images.
        preprocess: whose scale they are read at; three channels.
        threads: to decode in.

    Raises:
        DataError: none of the images can be read.
    """

    from foveate.data.dataset import evenly_spaced
    from foveate.data.decoding import for_training
    from foveate.data.workers import decode_ahead

    rule = for_training(preprocess, preprocess.resize)

    def decode_row(row: int) -> "Pixels":
        return rule.make(dataset.read(row), dataset.files[row])

    def images() -> "Iterator[Pixels]":
        chosen = [int(row) for row in evenly_spaced(rows, PCA_IMAGES)]
        for _, outcome in decode_ahead(
            chosen, decode_row, dataset.files.__getitem__, preprocess, threads
        ):
            if not isinstance(outcome, ImageError):
                yield outcome

    return fit_pca(images())


@dataclass(frozen=True)
class PcaColour(ImagePart):
    """Shift all colours of an image along the principal components.

    Args:
        pca_colour: standard deviation of the shift; 0.1 in the paper.
        pca_from: "data", components fitted to the training images; "imagenet", the published ones.
        pca: the components, once they are known. Not an option: `Augment.fit` fills it in.
    """

    recorded = True
    normals = slice(0, 3)
    planes = True

    pca_colour: float = number(
        0.0,
        0,
        1,
        "standard deviation",
        "PCA colour: sigma of the shift, 0.1 in the AlexNet paper.",
        coloured=True,
    )
    pca_from: Literal["data", "imagenet"] = choice(
        "data",
        ("data", "imagenet"),
        "Components of the training images, or the published ones.",
        needs=("pca_colour", ON),
    )
    pca: PrincipalComponents | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pca is not None and not isinstance(self.pca, PrincipalComponents):
            raise UsageError(f"pca must be PrincipalComponents, not {self.pca!r}")

    @property
    def on(self) -> bool:
        return bool(self.pca_colour)

    def describe(self) -> list[str]:
        of = {"data": "of the training images", "imagenet": "of ImageNet"}[self.pca_from]
        return [f"PCA colour {of}, sigma {self.pca_colour:g}"]

    @property
    def components(self) -> PrincipalComponents | None:
        """Fitted, or published; None while they are still to be fitted."""
        return self.pca or (PAPER_PCA if self.pca_from == "imagenet" else None)

    def fitted(self, components: PrincipalComponents) -> "PcaColour":
        return replace(self, pca=components)

    def known(self) -> PrincipalComponents:
        """The components; UsageError while they are still to be fitted."""
        if self.components is None:
            raise UsageError(
                "pca_colour needs the principal components of your images: call "
                "augment = augment.fit(dataset) first, or take pca_from='imagenet'"
            )
        return self.components

    def draw(self, numbers: "Numbers", shape: tuple[int, ...], size: int) -> Vector | None:
        alphas = [self.pca_colour * normal for normal in numbers.normals[self.normals]]
        shift = self.known().shift(alphas)
        return None if shift == UNSHIFTED else shift

    def render(self, x: "Tensor", drawn: Vector) -> "Tensor":
        import torch

        return x.add_(255 * torch.tensor(drawn)[:, None, None])
