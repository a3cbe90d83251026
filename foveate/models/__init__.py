"""The canon: one paper per file, every network under its name, in the order of their history.

>>> lenet5(num_classes=10).head.out_features
10
>>> build("efficientnet_lite0", num_classes=10).head.out_features
10

As in torchvision, a builder that has its file's name (`alexnet`, `googlenet`, `inception_v3`,
`mobilenet_v1`, `mobilenet_v2`, `nin`, `shufflenet_v1`) is what `foveate.models` has under it; what
else is in such a file is imported from it: `from foveate.models.alexnet import ONE_TOWER`.
"""

import re
from difflib import get_close_matches

from torch import nn

from foveate.models.alexnet import AlexNet, AlexNetFixed, alexnet, alexnet_2012, alexnet_one_tower
from foveate.models.densenet import (
    DenseNet,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    densenet_bc_100_12,
)
from foveate.models.diagram import draw
from foveate.models.efficientnet import (
    EfficientNet,
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_b5,
    efficientnet_b6,
    efficientnet_b7,
)
from foveate.models.efficientnet_lite import (
    EfficientNetLite,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
    efficientnet_lite3,
    efficientnet_lite4,
)
from foveate.models.googlenet import GoogLeNet, googlenet, googlenet_2014
from foveate.models.inception_v3 import InceptionV3, inception_v3
from foveate.models.lenet import LeNet5, LeNet1998, lenet5, lenet5_1998
from foveate.models.mobilenet_v1 import (
    MobileNetV1,
    mobilenet_v1,
    mobilenet_v1_x0_5,
    mobilenet_v1_x0_25,
    mobilenet_v1_x0_75,
)
from foveate.models.mobilenet_v2 import MobileNetV2, mobilenet_v2
from foveate.models.mobilenet_v3 import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from foveate.models.network import Builder, Network, as_network, missing_parts
from foveate.models.nin import NiN, nin, nin_cifar
from foveate.models.recomputation import recompute
from foveate.models.resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet50_v1,
    resnet101,
    resnet152,
)
from foveate.models.resnet_cifar import (
    CifarResNet,
    plain20,
    plain56,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
)
from foveate.models.shufflenet_v1 import (
    ShuffleNetV1,
    shufflenet_v1,
    shufflenet_v1_g1,
    shufflenet_v1_g2,
    shufflenet_v1_g4,
    shufflenet_v1_g8,
)
from foveate.models.shufflenet_v2 import (
    ShuffleNetV2,
    shufflenet_v2_x0_5,
    shufflenet_v2_x1_0,
    shufflenet_v2_x1_5,
    shufflenet_v2_x2_0,
)
from foveate.models.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from foveate.models.summary import summarise
from foveate.models.surgery import replace_head, set_in_channels
from foveate.models.vgg import (
    VGG,
    vgg11,
    vgg11_bn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_bn,
    vgg19,
    vgg19_bn,
)

__all__ = [
    "MODELS",
    "VGG",
    "AlexNet",
    "AlexNetFixed",
    "Builder",
    "CifarResNet",
    "DenseNet",
    "EfficientNet",
    "EfficientNetLite",
    "GoogLeNet",
    "InceptionV3",
    "LeNet5",
    "LeNet1998",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "Network",
    "NiN",
    "ResNet",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "SqueezeNet",
    "alexnet",
    "alexnet_2012",
    "alexnet_one_tower",
    "as_network",
    "build",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet_bc_100_12",
    "draw",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
    "googlenet",
    "googlenet_2014",
    "inception_v3",
    "lenet5",
    "lenet5_1998",
    "missing_parts",
    "mobilenet_v1",
    "mobilenet_v1_x0_5",
    "mobilenet_v1_x0_25",
    "mobilenet_v1_x0_75",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "nin",
    "nin_cifar",
    "plain20",
    "plain56",
    "recompute",
    "replace_head",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet50_v1",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "set_in_channels",
    "shufflenet_v1",
    "shufflenet_v1_g1",
    "shufflenet_v1_g2",
    "shufflenet_v1_g4",
    "shufflenet_v1_g8",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "squeezenet1_1",
    "summarise",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
]

MODELS: dict[str, Builder] = {
    "lenet5_1998": lenet5_1998,
    "lenet5": lenet5,
    "alexnet_2012": alexnet_2012,
    "alexnet_one_tower": alexnet_one_tower,
    "alexnet": alexnet,
    "nin": nin,
    "nin_cifar": nin_cifar,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "vgg11_bn": vgg11_bn,
    "vgg13_bn": vgg13_bn,
    "vgg16_bn": vgg16_bn,
    "vgg19_bn": vgg19_bn,
    "googlenet_2014": googlenet_2014,
    "googlenet": googlenet,
    "inception_v3": inception_v3,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "resnet50_v1": resnet50_v1,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet44": resnet44,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "plain20": plain20,
    "plain56": plain56,
    "squeezenet1_0": squeezenet1_0,
    "squeezenet1_1": squeezenet1_1,
    "densenet121": densenet121,
    "densenet161": densenet161,
    "densenet169": densenet169,
    "densenet201": densenet201,
    "densenet_bc_100_12": densenet_bc_100_12,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v1_x0_25": mobilenet_v1_x0_25,
    "mobilenet_v1_x0_5": mobilenet_v1_x0_5,
    "mobilenet_v1_x0_75": mobilenet_v1_x0_75,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet_v3_large,
    "shufflenet_v1": shufflenet_v1,
    "shufflenet_v1_g1": shufflenet_v1_g1,
    "shufflenet_v1_g2": shufflenet_v1_g2,
    "shufflenet_v1_g4": shufflenet_v1_g4,
    "shufflenet_v1_g8": shufflenet_v1_g8,
    "shufflenet_v2_x0_5": shufflenet_v2_x0_5,
    "shufflenet_v2_x1_0": shufflenet_v2_x1_0,
    "shufflenet_v2_x1_5": shufflenet_v2_x1_5,
    "shufflenet_v2_x2_0": shufflenet_v2_x2_0,
    "efficientnet_b0": efficientnet_b0,
    "efficientnet_b1": efficientnet_b1,
    "efficientnet_b2": efficientnet_b2,
    "efficientnet_b3": efficientnet_b3,
    "efficientnet_b4": efficientnet_b4,
    "efficientnet_b5": efficientnet_b5,
    "efficientnet_b6": efficientnet_b6,
    "efficientnet_b7": efficientnet_b7,
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
    "efficientnet_lite3": efficientnet_lite3,
    "efficientnet_lite4": efficientnet_lite4,
}


def folded(name: str) -> str:
    """A name without what papers and libraries write differently, as in foveate.catalogue."""
    return re.sub(r"[-_\s]", "", name).lower()


def build(name: str, num_classes: int | None = None, in_channels: int | None = None) -> nn.Module:
    """A network of the canon with random weights.

    Args:
        name: a key of MODELS; case, hyphens and underscores make no difference.
        num_classes: outputs of the last layer; the paper's by default.
        in_channels: 3 for RGB, 1 for grey; the paper's by default.

    Raises:
        ValueError: no such network; the message has the nearest names.
    """
    names = {folded(known): known for known in MODELS}
    if folded(name) not in names:
        begun = [known for fold, known in names.items() if fold.startswith(folded(name))]
        near = begun or [names[fold] for fold in get_close_matches(folded(name), names, n=3)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(MODELS)}"
        raise ValueError(f"no network is called '{name}'; {hint}")
    given = {"num_classes": num_classes, "in_channels": in_channels}
    network = MODELS[names[folded(name)]](
        **{key: value for key, value in given.items() if value is not None}
    )
    assert isinstance(network, nn.Module)
    return network
