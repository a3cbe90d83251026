"""What there is to choose from: a line per network of the canon, known without building it or
importing torch.

Every figure is checked against the built network, every paper against its file, in
tests/test_catalogue.py.
"""

import difflib
import re
from dataclasses import dataclass

SEE = "see: foveate models"


@dataclass(frozen=True)
class Paper:
    """One paper's file in foveate/models/.

    Args:
        family: what its networks are called together with those of related papers.
        year: in which the paper appeared.
        title: the network, and what is new about it.
        reference: authors, title, venue, arXiv number.
    """

    family: str
    year: int
    title: str
    reference: str


@dataclass(frozen=True)
class Entry:
    """One network of the canon.

    Args:
        name: in `foveate.models.MODELS`.
        file: a key of `PAPERS`: it is built in foveate/models/FILE.py.
        parameters: numbers that training changes, as built: with the paper's classes and its
            auxiliary classifiers.
        macs: multiply-accumulates of convolutions and linear layers for one image of its size.
        input_size: side of the images, pixels.
    """

    name: str
    file: str
    parameters: int
    macs: int
    input_size: int

    @property
    def paper(self) -> Paper:
        return PAPERS[self.file]

    @property
    def family(self) -> str:
        return self.paper.family

    @property
    def year(self) -> int:
        return self.paper.year


PAPERS = {
    "lenet": Paper(
        family="LeNet",
        year=1998,
        title=(
            "LeNet-5: convolution, subsampling and gradient learning read handwritten digits from "
            "the pixels."
        ),
        reference=(
            'LeCun, Bottou, Bengio, Haffner. "Gradient-Based Learning Applied to Document '
            'Recognition". Proceedings of the IEEE 86(11), 1998.'
        ),
    ),
    "alexnet": Paper(
        family="AlexNet",
        year=2012,
        title=(
            "AlexNet: large convolutional networks, trained on two GPUs, win ImageNet by a wide "
            "margin."
        ),
        reference=(
            'Krizhevsky, Sutskever, Hinton. "ImageNet Classification with Deep Convolutional '
            'Neural Networks". NIPS 2012. One tower: Krizhevsky. "One weird trick for '
            'parallelizing convolutional neural networks", arXiv:1404.5997.'
        ),
    ),
    "nin": Paper(
        family="NiN",
        year=2013,
        title=(
            "Network in Network: a small perceptron for each filter, an average for the linear "
            "layers."
        ),
        reference='Lin, Chen, Yan. "Network In Network". ICLR 2014, arXiv:1312.4400.',
    ),
    "vgg": Paper(
        family="VGG",
        year=2014,
        title="VGG: nothing but 3x3 convolutions, stacked deep.",
        reference=(
            'Simonyan, Zisserman. "Very Deep Convolutional Networks for Large-Scale Image '
            'Recognition". ICLR 2015, arXiv:1409.1556. The `_bn` networks add batch-norm (Ioffe, '
            "Szegedy, arXiv:1502.03167)."
        ),
    ),
    "googlenet": Paper(
        family="GoogLeNet",
        year=2014,
        title=(
            "GoogLeNet: filters of several sizes side by side, made affordable by 1x1 convolutions."
        ),
        reference=(
            'Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich. "Going '
            'Deeper with Convolutions". CVPR 2015, arXiv:1409.4842.'
        ),
    ),
    "inception_v3": Paper(
        family="Inception",
        year=2015,
        title=(
            "Inception-v3: large filters factorised into small ones, the saving spent on a better "
            "network."
        ),
        reference=(
            'Szegedy, Vanhoucke, Ioffe, Shlens, Wojna. "Rethinking the Inception Architecture for '
            'Computer Vision". CVPR 2016, arXiv:1512.00567.'
        ),
    ),
    "resnet": Paper(
        family="ResNet",
        year=2015,
        title=(
            "ResNet: residual blocks let a plain stack of convolutions grow past a hundred layers."
        ),
        reference=(
            'He, Zhang, Ren, Sun. "Deep Residual Learning for Image Recognition". CVPR 2016, '
            "arXiv:1512.03385."
        ),
    ),
    "resnet_cifar": Paper(
        family="ResNet",
        year=2015,
        title="ResNet for CIFAR-10: the paper's experiment on depth, with shortcuts and without.",
        reference=(
            'He, Zhang, Ren, Sun. "Deep Residual Learning for Image Recognition". CVPR 2016, '
            "arXiv:1512.03385, section 4.2."
        ),
    ),
    "squeezenet": Paper(
        family="SqueezeNet",
        year=2016,
        title=(
            "SqueezeNet: AlexNet's accuracy with fifty times fewer parameters, by squeezing the "
            "channels."
        ),
        reference=(
            'Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer. "SqueezeNet: AlexNet-level accuracy '
            'with 50x fewer parameters and <0.5MB model size". 2016, arXiv:1602.07360.'
        ),
    ),
    "densenet": Paper(
        family="DenseNet",
        year=2016,
        title=(
            "DenseNet: every layer reads the maps of all layers before it, so that none has to "
            "carry them on."
        ),
        reference=(
            'Huang, Liu, van der Maaten, Weinberger. "Densely Connected Convolutional Networks". '
            "CVPR 2017, arXiv:1608.06993."
        ),
    ),
    "mobilenet_v1": Paper(
        family="MobileNet",
        year=2017,
        title=(
            "MobileNet: filter each channel by itself, then mix the channels, for an eighth of "
            "the work."
        ),
        reference=(
            'Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam. "MobileNets: '
            'Efficient Convolutional Neural Networks for Mobile Vision Applications". '
            "arXiv:1704.04861, 2017."
        ),
    ),
    "mobilenet_v2": Paper(
        family="MobileNet",
        year=2018,
        title="MobileNetV2: inverted residuals, wide inside, narrow and linear where blocks meet.",
        reference=(
            'Sandler, Howard, Zhu, Zhmoginov, Chen. "MobileNetV2: Inverted Residuals and Linear '
            'Bottlenecks". CVPR 2018, arXiv:1801.04381.'
        ),
    ),
    "mobilenet_v3": Paper(
        family="MobileNet",
        year=2019,
        title=(
            "MobileNetV3: MobileNetV2's block with attention to channels, laid out by search, for "
            "phones."
        ),
        reference=(
            "Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam. "
            '"Searching for MobileNetV3". ICCV 2019, arXiv:1905.02244. The block is MobileNetV2\'s '
            "(arXiv:1801.04381) with squeeze-and-excitation (Hu et al., arXiv:1709.01507)."
        ),
    ),
    "shufflenet_v1": Paper(
        family="ShuffleNet",
        year=2017,
        title=(
            "ShuffleNet: 1x1 convolutions in groups, and a shuffle of channels so that the groups "
            "can talk."
        ),
        reference=(
            'Zhang, Zhou, Lin, Sun. "ShuffleNet: An Extremely Efficient Convolutional Neural '
            'Network for Mobile Devices". CVPR 2018, arXiv:1707.01083 (2017).'
        ),
    ),
    "shufflenet_v2": Paper(
        family="ShuffleNet",
        year=2018,
        title="ShuffleNet V2: fast by the clock, not only by the count of its multiply-adds.",
        reference=(
            'Ma, Zhang, Zheng, Sun. "ShuffleNet V2: Practical Guidelines for Efficient CNN '
            'Architecture Design". ECCV 2018, arXiv:1807.11164. The channel shuffle is '
            "ShuffleNet's (arXiv:1707.01083)."
        ),
    ),
    "efficientnet": Paper(
        family="EfficientNet",
        year=2019,
        title=(
            "EfficientNet: one searched block, scaled in depth, width and resolution by a single "
            "coefficient."
        ),
        reference=(
            'Tan, Le. "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks". '
            "ICML 2019, arXiv:1905.11946. The block is MobileNetV2's (Sandler et al., "
            "arXiv:1801.04381) with squeeze-and-excitation (Hu et al., arXiv:1709.01507)."
        ),
    ),
    "efficientnet_lite": Paper(
        family="EfficientNet",
        year=2020,
        title=(
            "EfficientNet-Lite: EfficientNet made of nothing but what phones and 8-bit arithmetic "
            "run well."
        ),
        reference=(
            'Liu. "Higher accuracy on vision models with EfficientNet-Lite". TensorFlow blog, '
            "March 2020; the code is in tensorflow/tpu. The network it starts from: Tan, Le. "
            '"EfficientNet", ICML 2019, arXiv:1905.11946.'
        ),
    ),
}

ENTRIES = (
    Entry("lenet5_1998", "lenet", 60_000, 415_680, 28),
    Entry("lenet5", "lenet", 61_706, 416_520, 28),
    Entry("alexnet_2012", "alexnet", 60_965_224, 724_406_816, 227),
    Entry("alexnet_one_tower", "alexnet", 62_378_344, 1_135_256_096, 224),
    Entry("alexnet", "alexnet", 61_100_840, 714_188_480, 224),
    Entry("nin", "nin", 7_595_176, 1_100_188_800, 224),
    Entry("nin_cifar", "nin", 966_986, 222_486_528, 32),
    Entry("vgg11", "vgg", 132_863_336, 7_609_090_048, 224),
    Entry("vgg13", "vgg", 133_047_848, 11_308_466_176, 224),
    Entry("vgg16", "vgg", 138_357_544, 15_470_264_320, 224),
    Entry("vgg19", "vgg", 143_667_240, 19_632_062_464, 224),
    Entry("vgg11_bn", "vgg", 132_868_840, 7_609_090_048, 224),
    Entry("vgg13_bn", "vgg", 133_053_736, 11_308_466_176, 224),
    Entry("vgg16_bn", "vgg", 138_365_992, 15_470_264_320, 224),
    Entry("vgg19_bn", "vgg", 143_678_248, 19_632_062_464, 224),
    Entry("googlenet_2014", "googlenet", 13_378_280, 1_582_671_872, 224),
    Entry("googlenet", "googlenet", 13_004_888, 1_498_376_192, 224),
    Entry("inception_v3", "inception_v3", 27_161_264, 5_713_216_096, 299),
    Entry("resnet18", "resnet", 11_689_512, 1_814_073_344, 224),
    Entry("resnet34", "resnet", 21_797_672, 3_663_761_408, 224),
    Entry("resnet50", "resnet", 25_557_032, 4_089_184_256, 224),
    Entry("resnet101", "resnet", 44_549_160, 7_801_405_440, 224),
    Entry("resnet152", "resnet", 60_192_808, 11_513_626_624, 224),
    Entry("resnet50_v1", "resnet", 25_557_032, 3_857_973_248, 224),
    Entry("resnet20", "resnet_cifar", 269_722, 40_551_040, 32),
    Entry("resnet32", "resnet_cifar", 464_154, 68_862_592, 32),
    Entry("resnet44", "resnet_cifar", 658_586, 97_174_144, 32),
    Entry("resnet56", "resnet_cifar", 853_018, 125_485_696, 32),
    Entry("resnet110", "resnet_cifar", 1_727_962, 252_887_680, 32),
    Entry("plain20", "resnet_cifar", 269_722, 40_551_040, 32),
    Entry("plain56", "resnet_cifar", 853_018, 125_485_696, 32),
    Entry("squeezenet1_0", "squeezenet", 1_248_424, 818_924_576, 224),
    Entry("squeezenet1_1", "squeezenet", 1_235_496, 349_151_936, 224),
    Entry("densenet121", "densenet", 7_978_856, 2_834_161_664, 224),
    Entry("densenet161", "densenet", 28_681_000, 7_727_907_072, 224),
    Entry("densenet169", "densenet", 14_149_480, 3_359_843_328, 224),
    Entry("densenet201", "densenet", 20_013_928, 4_291_365_888, 224),
    Entry("densenet_bc_100_12", "densenet", 769_162, 287_929_692, 32),
    Entry("mobilenet_v1", "mobilenet_v1", 4_231_976, 568_740_352, 224),
    Entry("mobilenet_v1_x0_25", "mobilenet_v1", 470_072, 41_030_272, 224),
    Entry("mobilenet_v1_x0_5", "mobilenet_v1", 1_331_592, 149_497_088, 224),
    Entry("mobilenet_v1_x0_75", "mobilenet_v1", 2_585_560, 325_400_448, 224),
    Entry("mobilenet_v2", "mobilenet_v2", 3_504_872, 300_774_272, 224),
    Entry("mobilenet_v3_small", "mobilenet_v3", 2_542_856, 56_510_400, 224),
    Entry("mobilenet_v3_large", "mobilenet_v3", 5_483_032, 216_589_760, 224),
    Entry("shufflenet_v1", "shufflenet_v1", 1_865_728, 137_460_672, 224),
    Entry("shufflenet_v1_g1", "shufflenet_v1", 1_531_936, 143_078_976, 224),
    Entry("shufflenet_v1_g2", "shufflenet_v1", 1_733_848, 140_836_512, 224),
    Entry("shufflenet_v1_g4", "shufflenet_v1", 1_968_344, 134_339_776, 224),
    Entry("shufflenet_v1_g8", "shufflenet_v1", 2_434_768, 138_365_952, 224),
    Entry("shufflenet_v2_x0_5", "shufflenet_v2", 1_366_792, 40_476_448, 224),
    Entry("shufflenet_v2_x1_0", "shufflenet_v2", 2_278_604, 144_907_992, 224),
    Entry("shufflenet_v2_x1_5", "shufflenet_v2", 3_503_624, 295_759_392, 224),
    Entry("shufflenet_v2_x2_0", "shufflenet_v2", 7_393_996, 583_253_464, 224),
    Entry("efficientnet_b0", "efficientnet", 5_288_548, 385_814_752, 224),
    Entry("efficientnet_b1", "efficientnet", 7_794_184, 686_802_832, 240),
    Entry("efficientnet_b2", "efficientnet", 9_109_994, 993_561_872, 260),
    Entry("efficientnet_b3", "efficientnet", 12_233_232, 1_827_141_392, 300),
    Entry("efficientnet_b4", "efficientnet", 19_341_616, 4_393_771_024, 380),
    Entry("efficientnet_b5", "efficientnet", 30_389_784, 10_266_384_752, 456),
    Entry("efficientnet_b6", "efficientnet", 43_040_704, 19_067_593_536, 528),
    Entry("efficientnet_b7", "efficientnet", 66_347_960, 37_745_884_192, 600),
    Entry("efficientnet_lite0", "efficientnet_lite", 4_652_008, 385_187_552, 224),
    Entry("efficientnet_lite1", "efficientnet_lite", 5_416_680, 600_185_232, 240),
    Entry("efficientnet_lite2", "efficientnet_lite", 6_092_072, 859_736_272, 260),
    Entry("efficientnet_lite3", "efficientnet_lite", 8_197_096, 1_383_321_872, 280),
    Entry("efficientnet_lite4", "efficientnet_lite", 13_006_568, 2_553_034_336, 300),
)
CATALOGUE = {entry.name: entry for entry in ENTRIES}


# Names as people write them


def folded(name: str) -> str:
    """A name without what papers, libraries and people write differently: case, hyphens,
    underscores, spaces.

    >>> folded("EfficientNet-B0"), folded("efficientnet_b0")
    ('efficientnetb0', 'efficientnetb0')
    """
    return re.sub(r"[-_\s]", "", name).lower()


NAMES = {folded(name): name for name in CATALOGUE}


def canonical(name: str) -> str:
    """The name of a network, or of a set of weights, as it is here; any other name as it was given.

    >>> canonical("ResNet-18"), canonical("MobileNetV2"), canonical("ResNet50.v1")
    ('resnet18', 'mobilenet_v2', 'resnet50.v1')
    """
    network, dot, older = name.partition(".")
    return f"{NAMES[folded(network)]}{dot}{older}" if folded(network) in NAMES else name


def family_members(name: str) -> list[Entry]:
    """The networks of a family, or those whose names begin so; none if there are none.

    >>> [entry.name for entry in family_members("LeNet")]
    ['lenet5_1998', 'lenet5']
    >>> [entry.name for entry in family_members("MobileNet-V3")]
    ['mobilenet_v3_small', 'mobilenet_v3_large']
    """
    wanted = folded(name)
    family = [entry for entry in ENTRIES if folded(entry.family) == wanted]
    return family or [e for e in ENTRIES if wanted and folded(e.name).startswith(wanted)]


def unknown_network(name: str) -> str:
    """What to say of a name that is no network's: the family of that name, or the nearest names."""
    if name.startswith("timm:"):
        return (
            f"'{name}' is a network of timm, which is not built here: foveate.train(data, "
            f"model={name!r}) takes it, as do find_lr and extract_features; to have it in hand: "
            f"timm.create_model({name.removeprefix('timm:')!r})"
        )
    if members := family_members(name):
        names = ", ".join(entry.name for entry in members)
        return f"'{name}' is not one network; there are {names}"
    folds = difflib.get_close_matches(folded(name), NAMES, n=3)
    near = " or ".join(NAMES[fold] for fold in folds)
    return f"no network is called '{name}'; {f'did you mean {near}?' if near else SEE}"
