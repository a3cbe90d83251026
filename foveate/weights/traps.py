"""Traps: weights files whose tensors all fit, and whose results differ from the published ones.

A file does not record padding, epsilons, strides or the images' mean: they have to be inferred from
its origin. Each row is asserted in tests/weights/test_traps.py, against the library that it names.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

TORCHVISION, TIMM, MELAS = "torchvision", "timm", "efficientnet_pytorch"
FOVEATE, UNKNOWN = "foveate", "unknown"
PUBLISHED = "published"  # in `sources`: also a file that is byte-identical to a published one


class Trap(NamedTuple):
    """A sentence, and the files that it applies to.

    Args:
        networks: pattern of the whole name in MODELS.
        sources: the file's origin is one of these.
        says: the sentence; {n} is the network.
        file: pattern that the file's name contains, in lower case.
        but: pattern that it does not contain.
    """

    networks: str
    sources: tuple[str, ...]
    says: str
    file: str = ""
    but: str = "(?!)"  # matches nothing


ANY = (TORCHVISION, TIMM, MELAS, FOVEATE, UNKNOWN)
CAFFE = r"caffe|msra"
# In timm's names: made for TensorFlow's uneven padding, and for even padding. A file whose name has
# neither may be either.
TF, EVEN = r"tf_", r"(?<!tf_)efficientnet_(?:b\d|lite\d)|(?<!tf_)mobilenetv3"
SAME = "it was made for TensorFlow's uneven padding ('SAME') and batch-norm eps 1e-3"
AMBIGUOUS = "neither the tensors nor the file's name show which it is"

TRAPS = (
    Trap(
        "resnet50(_v1)?",
        (TORCHVISION, TIMM, UNKNOWN, FOVEATE),
        "resnet50 and resnet50_v1 have the same tensors and give other results: resnet50 strides "
        "in the 3x3 convolutions (v1.5: torchvision, timm), resnet50_v1 in the 1x1 before them "
        "(the paper, Caffe); the tensors do not show which one a file needs",
        but=CAFFE,
    ),
    Trap(
        "resnet50(_v1)?",
        ANY,
        "the file's name says that it comes from Caffe: then it needs resnet50_v1, which strides "
        "in the 1x1 convolutions, though resnet50 has the same tensors",
        file=CAFFE,
    ),
    Trap(
        "resnet(101|152)",
        ANY,
        "the file's name says that it comes from Caffe, whose {n} strides in the 1x1 convolutions; "
        "ours strides in the 3x3 (v1.5), so its results differ",
        file=CAFFE,
    ),
    Trap(
        "(resnet|vgg).*",
        ANY,
        "Caffe's networks expect blue, green, red from 0 to 255 minus a mean, not the RGB of our "
        "Preprocess",
        file=CAFFE,
    ),
    Trap(
        "(resnet|plain)(20|56)",
        ANY,
        "resnet20 and plain20, resnet56 and plain56 have the same tensors, since these shortcuts "
        "have none, and give other results",
    ),
    Trap(
        "googlenet|inception_v3",
        (TORCHVISION, TIMM, FOVEATE, UNKNOWN, PUBLISHED),
        "the published weights of {n} expect images normalised with mean 0.5 and std 0.5, as in "
        "their Preprocess; torchvision's own network takes images with ImageNet's mean and std and "
        "converts them inside (transform_input), ours does not: such images give other results",
        but="gluon",
    ),
    Trap(
        "inception_v3",
        ANY,
        "the file's name says gluon: then it expects images with ImageNet's mean and std, not 0.5",
        file="gluon",
    ),
    Trap(
        "efficientnet_b[0-4]",
        (TIMM,),
        f"{SAME} (timm's tf_{{n}}); ours pads evenly, with eps 1e-5: every tensor fits, and the "
        "results differ",
        file=TF,
    ),
    Trap(
        "efficientnet_b[5-7]",
        (TIMM,),
        f"{SAME} (timm's tf_{{n}}); ours pads evenly: every tensor fits, and the results differ",
        file=TF,
    ),
    Trap(
        "efficientnet_b[0-7]",
        (MELAS,),
        f"{SAME}, as all of efficientnet_pytorch's; ours pads evenly, with torchvision's eps (1e-5 "
        "up to b4): every tensor fits, and the results differ",
    ),
    Trap(
        "efficientnet_b[5-7]",
        (TIMM,),
        "timm's {n} has batch-norm eps 1e-5, ours torchvision's 1e-3: the results differ",
        file=EVEN,
    ),
    Trap(
        "efficientnet_b[0-7]",
        (TIMM, UNKNOWN),
        "{n} and timm's tf_{n} have the same tensors and give other results: the tf_ files need "
        "TensorFlow's uneven "
        f"padding and eps 1e-3; {AMBIGUOUS}",
        but=f"{TF}|{EVEN}",
    ),
    Trap(
        "efficientnet_lite[0-4]",
        (TIMM,),
        "timm's {n} (without tf_) pads evenly, with eps 1e-5 and ImageNet's mean; ours is the "
        "authors': TensorFlow's padding, eps 1e-3: every tensor fits, and the results differ",
        file=EVEN,
    ),
    Trap(
        "efficientnet_lite[0-4]",
        (TIMM, UNKNOWN),
        "timm's {n} and tf_{n} have the same tensors and give other results: only tf_{n} pads as "
        "ours and its "
        f"authors' do; {AMBIGUOUS}",
        but=f"{TF}|{EVEN}",
    ),
    Trap(
        "mobilenet_v3_(small|large)",
        (TIMM,),
        "timm's tf_mobilenetv3 needs TensorFlow's uneven padding; ours pads evenly: the results "
        "differ",
        file=TF,
    ),
    Trap(
        "mobilenet_v3_(small|large)",
        (TIMM,),
        "timm's mobilenetv3 has batch-norm eps 1e-5, ours torchvision's 1e-3: the results differ",
        file=EVEN,
    ),
    Trap(
        "mobilenet_v3_(small|large)",
        (TIMM, UNKNOWN),
        "timm's mobilenetv3 has batch-norm eps 1e-5, ours 1e-3, and its tf_mobilenetv3 needs "
        "TensorFlow's padding: the results differ",
        but=f"{TF}|{EVEN}",
    ),
    Trap(
        ".*",
        (TIMM,),
        "timm keeps the mean and std of a file's input in a table of its own, not in the file, and "
        "they are not always ImageNet's: (0.5, 0.5) for many",
    ),
)


def traps(network: str, source: str, file: str, published: bool) -> list[str]:
    """The sentences that apply to a file that fits a network."""
    name = file.lower()
    return [
        trap.says.format(n=network)
        for trap in TRAPS
        if re.fullmatch(trap.networks, network)
        and (PUBLISHED in trap.sources if published else source in trap.sources)
        and re.search(trap.file, name)
        and not re.search(trap.but, name)
    ]


def infinite(tensor: "Tensor") -> bool:
    """Whether any of its numbers is NaN or infinite, in float32."""
    return tensor.is_floating_point() and not bool(tensor.float().isfinite().all())


def bad_numbers(tensors: "dict[str, Tensor]") -> list[str]:
    """Problems of the values: not finite, no variance, statistics of a network never trained."""
    real = {
        name: t.float() if t.element_size() == 1 else t  # torch cannot compare 8-bit floats
        for name, t in tensors.items()
        if t.is_floating_point()
    }
    lost = [name for name, t in real.items() if infinite(t)]
    variances = {name: t for name, t in real.items() if name.endswith("running_var") and t.numel()}
    dead = [name for name, t in variances.items() if not t.any()]
    negative = [name for name, t in variances.items() if (t < 0).any()]
    means = [t for name, t in real.items() if name.endswith("running_mean")]
    sentences = {
        "{} tensors hold numbers that are not finite (NaN or infinity), so no result will be "
        "finite; first '{}'": lost,
        "{} batch-norms have a variance of 0 in every channel: they have seen no data; first "
        "'{}'": dead,
        "{} batch-norms have a negative variance, which has no square root; first '{}'": negative,
    }
    found = [text.format(len(names), names[0]) for text, names in sentences.items() if names]
    if (
        variances
        and all((t == 1).all() for t in variances.values())
        and not any(t.any() for t in means)
    ):
        found.append(
            "every batch-norm has the statistics of a new network (mean 0, variance 1): it was "
            "never trained, or the statistics were not saved"
        )
    return found
