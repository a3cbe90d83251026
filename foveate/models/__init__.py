"""The canon: one paper per file, every network under its name, in the order of their history.

>>> build("efficientnet_lite0", num_classes=10).head.out_features
10
"""

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn

from foveate.models import (
    alexnet,
    densenet,
    efficientnet,
    efficientnet_lite,
    googlenet,
    inception_v3,
    lenet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    nin,
    resnet,
    resnet_cifar,
    shufflenet_v1,
    shufflenet_v2,
    squeezenet,
    vgg,
)

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet5_1998": lenet.lenet5_1998,
    "lenet5": lenet.lenet5,
    "alexnet_2012": alexnet.alexnet_2012,
    "alexnet_one_tower": alexnet.alexnet_one_tower,
    "alexnet": alexnet.alexnet,
    "nin": nin.nin,
    "nin_cifar": nin.nin_cifar,
    "vgg11": vgg.vgg11,
    "vgg13": vgg.vgg13,
    "vgg16": vgg.vgg16,
    "vgg19": vgg.vgg19,
    "vgg11_bn": vgg.vgg11_bn,
    "vgg13_bn": vgg.vgg13_bn,
    "vgg16_bn": vgg.vgg16_bn,
    "vgg19_bn": vgg.vgg19_bn,
    "googlenet_2014": googlenet.googlenet_2014,
    "googlenet": googlenet.googlenet,
    "inception_v3": inception_v3.inception_v3,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "resnet50_v1": resnet.resnet50_v1,
    "resnet20": resnet_cifar.resnet20,
    "resnet32": resnet_cifar.resnet32,
    "resnet44": resnet_cifar.resnet44,
    "resnet56": resnet_cifar.resnet56,
    "resnet110": resnet_cifar.resnet110,
    "plain20": resnet_cifar.plain20,
    "plain56": resnet_cifar.plain56,
    "squeezenet1_0": squeezenet.squeezenet1_0,
    "squeezenet1_1": squeezenet.squeezenet1_1,
    "densenet121": densenet.densenet121,
    "densenet161": densenet.densenet161,
    "densenet169": densenet.densenet169,
    "densenet201": densenet.densenet201,
    "densenet_bc_100_12": densenet.densenet_bc_100_12,
    "mobilenet_v1": mobilenet_v1.mobilenet_v1,
    "mobilenet_v1_x0_25": mobilenet_v1.mobilenet_v1_x0_25,
    "mobilenet_v1_x0_5": mobilenet_v1.mobilenet_v1_x0_5,
    "mobilenet_v1_x0_75": mobilenet_v1.mobilenet_v1_x0_75,
    "mobilenet_v2": mobilenet_v2.mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3.mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet_v3.mobilenet_v3_large,
    "shufflenet_v1": shufflenet_v1.shufflenet_v1,
    "shufflenet_v1_g1": shufflenet_v1.shufflenet_v1_g1,
    "shufflenet_v1_g2": shufflenet_v1.shufflenet_v1_g2,
    "shufflenet_v1_g4": shufflenet_v1.shufflenet_v1_g4,
    "shufflenet_v1_g8": shufflenet_v1.shufflenet_v1_g8,
    "shufflenet_v2_x0_5": shufflenet_v2.shufflenet_v2_x0_5,
    "shufflenet_v2_x1_0": shufflenet_v2.shufflenet_v2_x1_0,
    "shufflenet_v2_x1_5": shufflenet_v2.shufflenet_v2_x1_5,
    "shufflenet_v2_x2_0": shufflenet_v2.shufflenet_v2_x2_0,
    "efficientnet_b0": efficientnet.efficientnet_b0,
    "efficientnet_b1": efficientnet.efficientnet_b1,
    "efficientnet_b2": efficientnet.efficientnet_b2,
    "efficientnet_b3": efficientnet.efficientnet_b3,
    "efficientnet_b4": efficientnet.efficientnet_b4,
    "efficientnet_b5": efficientnet.efficientnet_b5,
    "efficientnet_b6": efficientnet.efficientnet_b6,
    "efficientnet_b7": efficientnet.efficientnet_b7,
    "efficientnet_lite0": efficientnet_lite.efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite.efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite.efficientnet_lite2,
    "efficientnet_lite3": efficientnet_lite.efficientnet_lite3,
    "efficientnet_lite4": efficientnet_lite.efficientnet_lite4,
}


def build(name: str, num_classes: int | None = None, in_channels: int | None = None) -> nn.Module:
    """A network of the canon with random weights.

    Args:
        name: a key of MODELS.
        num_classes: outputs of the last layer; the paper's by default.
        in_channels: 3 for RGB, 1 for grey; the paper's by default.

    Raises:
        ValueError: no such network; the message has the nearest names.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(MODELS)}"
        raise ValueError(f"no network is called '{name}'; {hint}")
    given: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
    return MODELS[name](**{key: value for key, value in given.items() if value is not None})
