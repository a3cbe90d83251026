"""What there is to choose from: a line per network of the canon, known without building it or
importing torch.

Every figure is checked against the built network in tests/test_catalogue.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One network of the canon.

    Args:
        name: in `foveate.models.MODELS`.
        family: of its paper.
        year: in which the paper appeared.
        parameters: numbers that training changes, as built: with the paper's classes and its
            auxiliary classifiers.
        macs: multiply-accumulates of convolutions and linear layers for one image of its size.
        input_size: side of the images, pixels.
    """

    name: str
    family: str
    year: int
    parameters: int
    macs: int
    input_size: int


ENTRIES = (
    Entry("lenet5_1998", "LeNet", 1998, 60_000, 415_680, 28),
    Entry("lenet5", "LeNet", 1998, 61_706, 416_520, 28),
    Entry("alexnet_2012", "AlexNet", 2012, 60_965_224, 724_406_816, 227),
    Entry("alexnet_one_tower", "AlexNet", 2012, 62_378_344, 1_135_256_096, 224),
    Entry("alexnet", "AlexNet", 2012, 61_100_840, 714_188_480, 224),
    Entry("nin", "NiN", 2013, 7_595_176, 1_100_188_800, 224),
    Entry("nin_cifar", "NiN", 2013, 966_986, 222_486_528, 32),
    Entry("vgg11", "VGG", 2014, 132_863_336, 7_609_090_048, 224),
    Entry("vgg13", "VGG", 2014, 133_047_848, 11_308_466_176, 224),
    Entry("vgg16", "VGG", 2014, 138_357_544, 15_470_264_320, 224),
    Entry("vgg19", "VGG", 2014, 143_667_240, 19_632_062_464, 224),
    Entry("vgg11_bn", "VGG", 2014, 132_868_840, 7_609_090_048, 224),
    Entry("vgg13_bn", "VGG", 2014, 133_053_736, 11_308_466_176, 224),
    Entry("vgg16_bn", "VGG", 2014, 138_365_992, 15_470_264_320, 224),
    Entry("vgg19_bn", "VGG", 2014, 143_678_248, 19_632_062_464, 224),
    Entry("googlenet_2014", "GoogLeNet", 2014, 13_378_280, 1_582_671_872, 224),
    Entry("googlenet", "GoogLeNet", 2014, 13_004_888, 1_498_376_192, 224),
    Entry("inception_v3", "Inception", 2015, 27_161_264, 5_713_216_096, 299),
    Entry("resnet18", "ResNet", 2015, 11_689_512, 1_814_073_344, 224),
    Entry("resnet34", "ResNet", 2015, 21_797_672, 3_663_761_408, 224),
    Entry("resnet50", "ResNet", 2015, 25_557_032, 4_089_184_256, 224),
    Entry("resnet101", "ResNet", 2015, 44_549_160, 7_801_405_440, 224),
    Entry("resnet152", "ResNet", 2015, 60_192_808, 11_513_626_624, 224),
    Entry("resnet50_v1", "ResNet", 2015, 25_557_032, 3_857_973_248, 224),
    Entry("resnet20", "ResNet", 2015, 269_722, 40_551_040, 32),
    Entry("resnet32", "ResNet", 2015, 464_154, 68_862_592, 32),
    Entry("resnet44", "ResNet", 2015, 658_586, 97_174_144, 32),
    Entry("resnet56", "ResNet", 2015, 853_018, 125_485_696, 32),
    Entry("resnet110", "ResNet", 2015, 1_727_962, 252_887_680, 32),
    Entry("plain20", "ResNet", 2015, 269_722, 40_551_040, 32),
    Entry("plain56", "ResNet", 2015, 853_018, 125_485_696, 32),
    Entry("squeezenet1_0", "SqueezeNet", 2016, 1_248_424, 818_924_576, 224),
    Entry("squeezenet1_1", "SqueezeNet", 2016, 1_235_496, 349_151_936, 224),
    Entry("densenet121", "DenseNet", 2016, 7_978_856, 2_834_161_664, 224),
    Entry("densenet161", "DenseNet", 2016, 28_681_000, 7_727_907_072, 224),
    Entry("densenet169", "DenseNet", 2016, 14_149_480, 3_359_843_328, 224),
    Entry("densenet201", "DenseNet", 2016, 20_013_928, 4_291_365_888, 224),
    Entry("densenet_bc_100_12", "DenseNet", 2016, 769_162, 287_929_692, 32),
    Entry("mobilenet_v1", "MobileNet", 2017, 4_231_976, 568_740_352, 224),
    Entry("mobilenet_v1_x0_25", "MobileNet", 2017, 470_072, 41_030_272, 224),
    Entry("mobilenet_v1_x0_5", "MobileNet", 2017, 1_331_592, 149_497_088, 224),
    Entry("mobilenet_v1_x0_75", "MobileNet", 2017, 2_585_560, 325_400_448, 224),
    Entry("mobilenet_v2", "MobileNet", 2018, 3_504_872, 300_774_272, 224),
    Entry("mobilenet_v3_small", "MobileNet", 2019, 2_542_856, 56_510_400, 224),
    Entry("mobilenet_v3_large", "MobileNet", 2019, 5_483_032, 216_589_760, 224),
    Entry("shufflenet_v1", "ShuffleNet", 2017, 1_865_728, 137_460_672, 224),
    Entry("shufflenet_v1_g1", "ShuffleNet", 2017, 1_531_936, 143_078_976, 224),
    Entry("shufflenet_v1_g2", "ShuffleNet", 2017, 1_733_848, 140_836_512, 224),
    Entry("shufflenet_v1_g4", "ShuffleNet", 2017, 1_968_344, 134_339_776, 224),
    Entry("shufflenet_v1_g8", "ShuffleNet", 2017, 2_434_768, 138_365_952, 224),
    Entry("shufflenet_v2_x0_5", "ShuffleNet", 2018, 1_366_792, 40_476_448, 224),
    Entry("shufflenet_v2_x1_0", "ShuffleNet", 2018, 2_278_604, 144_907_992, 224),
    Entry("shufflenet_v2_x1_5", "ShuffleNet", 2018, 3_503_624, 295_759_392, 224),
    Entry("shufflenet_v2_x2_0", "ShuffleNet", 2018, 7_393_996, 583_253_464, 224),
    Entry("efficientnet_b0", "EfficientNet", 2019, 5_288_548, 385_814_752, 224),
    Entry("efficientnet_b1", "EfficientNet", 2019, 7_794_184, 686_802_832, 240),
    Entry("efficientnet_b2", "EfficientNet", 2019, 9_109_994, 993_561_872, 260),
    Entry("efficientnet_b3", "EfficientNet", 2019, 12_233_232, 1_827_141_392, 300),
    Entry("efficientnet_b4", "EfficientNet", 2019, 19_341_616, 4_393_771_024, 380),
    Entry("efficientnet_b5", "EfficientNet", 2019, 30_389_784, 10_266_384_752, 456),
    Entry("efficientnet_b6", "EfficientNet", 2019, 43_040_704, 19_067_593_536, 528),
    Entry("efficientnet_b7", "EfficientNet", 2019, 66_347_960, 37_745_884_192, 600),
    Entry("efficientnet_lite0", "EfficientNet", 2020, 4_652_008, 385_187_552, 224),
    Entry("efficientnet_lite1", "EfficientNet", 2020, 5_416_680, 600_185_232, 240),
    Entry("efficientnet_lite2", "EfficientNet", 2020, 6_092_072, 859_736_272, 260),
    Entry("efficientnet_lite3", "EfficientNet", 2020, 8_197_096, 1_383_321_872, 280),
    Entry("efficientnet_lite4", "EfficientNet", 2020, 13_006_568, 2_553_034_336, 300),
)
CATALOGUE = {entry.name: entry for entry in ENTRIES}
