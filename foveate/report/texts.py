"""Every sentence of a report, in English and in Chinese."""

from string import Formatter
from typing import Any, Literal, get_args

from markupsafe import Markup

from foveate.errors import UsageError, printable
from foveate.report.texts_compared import COMPARED

Lang = Literal["en", "zh"]
LANGUAGES = get_args(Lang)

# by key: English, Chinese; what is in braces is filled in
TEXTS: dict[str, tuple[str, str]] = {
    # titles
    "title": ("Report of {run}", "{run} 的报告"),
    "title_evaluation": ("{run} measured on {data}", "{run} 在 {data} 上的评估"),
    "title_own": ("{run} measured on what it held back", "{run} 在保留图像上的评估"),
    "title_audit": ("Audit of {data}", "{data} 的数据检查"),
    "about": (
        "{images} images, {classes} classes, {model}, recipe {recipe}",
        "{images} 张图像，{classes} 个类别，{model}，方式 {recipe}",
    ),
    "about_audit": ("{images} images, {classes} classes", "{images} 张图像，{classes} 个类别"),
    "holds_images": (
        "Images of the data in this file: {n}. Share it with whom you would share those.",
        "本文件含有 {n} 张数据中的图像：只分享给可以看到这些图像的人。",
    ),
    "holds_names": (
        "This file holds no images, but names of files.",
        "本文件不含图像，但含有文件名。",
    ),
    "not_shown": (
        "Images that belong here and are not there any more, or cannot be read: {n}.",
        "应在此显示、但已不在原处或无法读取的图像：{n} 张。",
    ),
    "image_gone": ("image not there", "图像已不在"),
    # the answer
    "right_of_100": (
        "Of 100 new images like these, about {right} get the right class",
        "每 100 张类似的新图像中，约有 {right} 张分类正确",
    ),
    "labels_of_100": (
        "Of 100 new images like these, about {right} get exactly the right labels",
        "每 100 张类似的新图像中，约有 {right} 张的标签完全正确",
    ),
    "interval": (" (95 % interval {low} to {high})", "（95% 置信区间 {low} 至 {high}）"),
    "no_interval": (" (too few to say how sure)", "（数量太少，无法给出置信区间）"),
    "measured_on": (
        ", measured on {n} that it had not learnt from",
        "，依据 {n} 张未参与学习的图像",
    ),
    "measured_on_learnt": (
        ", measured on {n} that it had learnt from, which is no test of it",
        "，依据 {n} 张参与过学习的图像，因此不算测试",
    ),
    "confuses": (
        "; the commonest mistake is {true} taken for {predicted} ({n} of {of}).",
        "；最常见的错误是把 {true} 当作 {predicted}（{of} 张中有 {n} 张）。",
    ),
    "confuses_nothing": ("; it made no mistake among these.", "；在这些图像中没有出错。"),
    "worst_label": (
        "; the label it knows least is {name} (F1 {f1}).",
        "；掌握得最差的标签是 {name}（F1 为 {f1}）。",
    ),
    "unknown_accuracy": (
        "How good it is on new images is not known: {why}.",
        "它在新图像上的表现未知：{why}。",
    ),
    "why_one_group": (
        "all images of each class are of one group, so that none is new",
        "每个类别的图像都属于同一组，没有可作评判的新图像",
    ),
    "why_all_copies": (
        "all {n} test images are copies or other shots of images that it learnt from",
        "全部 {n} 张测试图像都是学习过的图像的副本或同一场景",
    ),
    "half_unjudged": (
        " Do not rely on it: only {judged} of {of} photos are of classes that can be judged.",
        "请勿依赖该数字：{of} 张照片中只有 {judged} 张属于可评判的类别。",
    ),
    "believe": (
        "Its percentages can be believed: they are off by {ece} points on the average, no more "
        "than chance explains",
        "它给出的百分比可信：平均偏差 {ece} 个百分点，未超出偶然范围",
    ),
    "too_sure": (
        "Its percentages are too high: it is right in {accuracy} and says {confidence} on the "
        "average",
        "它给出的百分比偏高：实际正确 {accuracy}，平均给出 {confidence}",
    ),
    "too_unsure": (
        "Its percentages are too low: it is right in {accuracy} and says {confidence} on the "
        "average",
        "它给出的百分比偏低：实际正确 {accuracy}，平均给出 {confidence}",
    ),
    "uneven": (
        "Its percentages are off by {ece} points on the average, more than chance explains",
        "它给出的百分比平均偏差 {ece} 个百分点，超出了偶然范围",
    ),
    "unchecked": (
        "Its percentages are off by {ece} points on the average",
        "它给出的百分比平均偏差 {ece} 个百分点",
    ),
    "percentages_unknown": (
        "Whether its percentages can be believed is not known",
        "它给出的百分比是否可信尚不清楚",
    ),
    "refuses": (
        "; it refuses {unknown} of things of a kind that it was never taught, and {false} of "
        "images of its own classes.",
        "；对从未学过的种类，它会拒绝 {unknown}；对自身类别的图像，它会误拒 {false}。",
    ),
    "refuses_unmeasured": (
        "; it refuses some images of other kinds, a share that could not be measured, and "
        "{false} of images of its own classes.",
        "；它会拒绝部分其他种类的图像，比例无法测得；对自身类别的图像，它会误拒 {false}。",
    ),
    "refuses_nothing": (
        "; it refuses nothing: an image of anything else gets one of its classes too.",
        "；它不会拒绝任何图像：无关的图像也会被归入某个类别。",
    ),
    "full_stop": (".", "。"),
    # figures
    "figures": ("The figures", "各项数字"),
    "measured": ("measured on", "评测对象"),
    "split_test": ("test split", "测试集"),
    "split_validation": ("validation split, which chose the epoch", "验证集（用于选择轮次）"),
    "split_out_of_fold": ("cross-validation over what was learnt from", "对学习图像的交叉验证"),
    "split_new": ("new images", "新图像"),
    "split_learnt_from": ("images that it learnt from: no test", "参与过学习的图像（不算测试）"),
    "without_copies": ("{split}, without {n} copies", "{split}（去掉 {n} 张副本）"),
    "images": ("images", "图像"),
    "groups": ("groups", "组"),
    "accuracy": ("accuracy", "准确率"),
    "labels_right": ("all labels right", "标签全对"),
    "interval95": ("95 % interval", "95% 置信区间"),
    "balanced": ("balanced", "平衡准确率"),
    "mean_ap": ("mean average precision", "平均精度均值"),
    "macro_f1": ("macro-F1", "宏平均 F1"),
    "ece": ("calibration error", "校准误差"),
    "not_judged": ("not judged", "未评判"),
    "accepted": (
        "{split}: {share} of the images are given a class, {accuracy} of these the right one.",
        "{split}：{share} 的图像得到类别，其中 {accuracy} 正确。",
    ),
    "point_recall": (
        "When this page was written, {name} was given from a probability of {threshold} on, for a "
        "recall of {asked}: on as many new images, {low} to {high} is to be expected. The figures "
        "on this page are those of the most probable class.",
        "写本页时，概率达到 {threshold} 即判为 {name}，以求召回率 {asked}："
        "在同样多的新图像上，预计为 {low} 至 {high}。本页的数字均按概率最高的类别计算。",
    ),
    "point_precision": (
        "When this page was written, {name} was given from a probability of {threshold} on, for a "
        "precision of {asked}: on as many new images, {low} to {high} is to be expected. The "
        "figures on this page are those of the most probable class.",
        "写本页时，概率达到 {threshold} 即判为 {name}，以求精确率 {asked}："
        "在同样多的新图像上，预计为 {low} 至 {high}。本页的数字均按概率最高的类别计算。",
    ),
    "among_copies": (
        "Among copies of these images the accuracy would be {accuracy}: {memory} points of it "
        "are memory.",
        "若在这些图像的副本上评测，准确率会是 {accuracy}：其中 {memory} 个百分点来自记忆。",
    ),
    "since": (
        "Since {run}: {before} before, {after} now, on {n} images that both judged; {better} "
        "newly right, {worse} newly wrong: {verdict}.",
        "与 {run} 相比：之前 {before}，现在 {after}（双方都评判过的 {n} 张图像）；"
        "新对 {better} 张，新错 {worse} 张：{verdict}。",
    ),
    "slice": (
        "Where {by} is {value}, it is right in {accuracy} of {n} images, elsewhere in {others}.",
        "当 {by} 为 {value} 时，{n} 张图像中正确 {accuracy}，其余为 {others}。",
    ),
    "within_noise": ("within noise", "在噪声范围内"),
    "beyond_noise": ("more than noise", "超出噪声"),
    # data
    "data": ("The data, and what is wrong with them", "数据及其问题"),
    "class": ("class", "类别"),
    "label": ("label", "标签"),
    "train": ("training", "训练"),
    "validation": ("validation", "验证"),
    "test": ("test", "测试"),
    "precision": ("precision", "精确率"),
    "recall": ("recall", "召回率"),
    "f1": ("F1", "F1"),
    "judged": ("judged", "评判"),
    "more_classes": (
        "The {n} classes with the lowest F1; metrics.json has all {of}.",
        "F1 最低的 {n} 个类别；全部 {of} 个见 metrics.json。",
    ),
    "no_problem": ("Nothing was found to be wrong with them.", "没有发现问题。"),
    "found_groups": (
        "{kind} (groups: {groups}, images: {images}) stay on one side of every split and fold; "
        "the largest group has {largest}, such as {file}.",
        "{kind}（{groups} 组，共 {images} 张）只出现在划分的一侧；最大的一组有 {largest} 张，例如 "
        "{file}。",
    ),
    "kind_copies": ("Copies", "副本"),
    "kind_burst": ("Bursts", "连拍"),
    "kind_occasion": ("Occasions", "同一场合"),
    "kind_given": ("Groups of the table", "表中给出的组"),
    "kind_other": ("Groups", "组"),
    "found_leaks": (
        "Test images that are copies or other shots of images that were learnt from: {n} of "
        "{of}, such as {file}; the figures are without them.",
        "测试图像中，学习过的图像的副本或同一场景：{of} 张中有 {n} 张，例如 {file}；各项数字已去掉"
        "它们。",
    ),
    "found_contradictions": (
        "Pairs of copies with two labels: {n}, such as {a} and {b}; keep the label that is right.",
        "标签不一致的副本：{n} 对，例如 {a} 与 {b}；请保留正确的标签。",
    ),
    "found_suspects": (
        "Labels that may be wrong: {n}, first {file} ({label}; {suggested} is {times} times as "
        "probable); foveate review shows them.",
        "可能有误的标签：{n} 个，首先是 {file}（现为 {label}；{suggested} 的可能性是其 {times} "
        "倍）；可用 foveate review 查看。",
    ),
    "found_bad": (
        "Images that cannot be read and were left out: {n}, such as {file}.",
        "无法读取而略去的图像：{n} 张，例如 {file}。",
    ),
    "found_ignored": (
        "Files that are no images and were left out: {n}, such as {file}.",
        "不是图像而略去的文件：{n} 个，例如 {file}。",
    ),
    "found_unjudged": (
        "Classes that were never judged, since all of their images are of one group: {n}, such "
        "as {name}; add photos from another occasion.",
        "因图像都属于同一组而从未评判的类别：{n} 个，例如 {name}；请补充其他场合的照片。",
    ),
    "found_alike": (
        "{a} and {b} look alike: {first} of {a} are taken for {b}, {second} of {b} for {a}.",
        "{a} 与 {b} 相似：{first} 的 {a} 被当作 {b}，{second} 的 {b} 被当作 {a}。",
    ),
    "found_faults": (
        "Images that may be bad ({kind}): {n}, such as {file}.",
        "可能有缺陷的图像（{kind}）：{n} 张，例如 {file}。",
    ),
    "fault_one_colour": ("one colour", "单一颜色"),
    "fault_blurred": ("blurred", "模糊"),
    "fault_dark": ("dark", "过暗"),
    "fault_overexposed": ("overexposed", "过曝"),
    "fault_tiny": ("tiny", "过小"),
    "fault_far_from_square": ("far from square", "过于狭长"),
    "fault_screenshot_or_text": ("screenshot or text", "截图或文字"),
    "fault_grey": ("grey", "灰度"),
    "suspects": ("Labels that may be wrong", "可能有误的标签"),
    "suggested": (
        "{label}; {suggested} is {times} times as probable",
        "{label}；{suggested} 的可能性是其 {times} 倍",
    ),
    "contradictions": ("Copies with two labels", "标签不一致的副本"),
    "groups_shown": ("The largest groups", "最大的组"),
    "leaks_shown": ("Images of two splits", "跨划分的图像"),
    "no_label": ("no label", "无标签"),
    # curves
    "curves": ("How it was learnt", "学习过程"),
    "curves_probe": (
        "The head was solved for penalties from strong to weak; the one with the lowest "
        "log-loss out of fold, {penalty}, is kept.",
        "分类头按惩罚由强到弱逐一求解；保留折外对数损失最低的一个（{penalty}）。",
    ),
    "curves_steps": (
        "{epochs} epochs; epoch {best} has the lowest validation loss and is kept.",
        "共 {epochs} 轮；第 {best} 轮的验证损失最低，予以保留。",
    ),
    "log_loss": ("log-loss", "对数损失"),
    "penalty": ("penalty", "惩罚"),
    "epoch": ("epoch", "轮次"),
    "of_training": ("training, augmented", "训练（增强后）"),
    "of_validation": ("validation", "验证"),
    # confusion
    "confusion": ("What it confuses", "混淆情况"),
    "confusion_about": (
        "Rows are the true classes, columns the answers; a cell's shade is its share of the "
        "row, its number counts images.",
        "行为真实类别，列为回答；单元格的深浅表示占该行的比例，数字为图像数。",
    ),
    "confusion_part": (
        "The {n} classes with the most mistakes, of {of}; metrics.json has all.",
        "错误最多的 {n} 个类别（共 {of} 个）；全部见 metrics.json。",
    ),
    "true_class": ("true class", "真实类别"),
    "answer": ("answer", "回答"),
    "of_images": ("{n} of {of}", "{of} 张中有 {n} 张"),
    "share": ("share", "比例"),
    "commonest": ("The commonest mistakes", "最常见的错误"),
    # mistakes
    "mistakes": ("The worst mistakes", "最严重的错误"),
    "mistakes_about": (
        "The wrong answers that were the surest, on the {split}. Some labels may be wrong instead.",
        "{split}上最有把握却答错的图像。其中有些可能是标签有误。",
    ),
    "no_mistakes": ("There are none.", "没有错误。"),
    "is_a": ("label {name}, given {p}", "标签 {name}，所得概率 {p}"),
    "taken_for": ("answer {name}, {p}", "回答 {name}，{p}"),
    "is_labels": ("labels {name}", "标签 {name}"),
    "given_labels": ("given {name}", "所给标签 {name}"),
    # calibration
    "calibration": ("Whether its percentages can be believed", "百分比是否可信"),
    "calibration_about": (
        "Each dot holds the images with a probability in one tenth; on the line, it is right "
        "as often as it says. Bars are 95 % intervals, and the columns below count images.",
        "每个点代表概率落在同一十分段内的图像；落在对角线上即说到做到。竖线为 95% 置信区间，下方"
        "的柱表示图像数。",
    ),
    "says": ("what it says", "它给出的概率"),
    "is_right": ("how often it is right", "实际正确的比例"),
    # refusal
    "refusal": ("What it refuses", "它会拒绝什么"),
    "refused_kinds": ("kinds that were never taught", "从未学过的种类"),
    "foreign_noise": ("noise", "噪声"),
    "foreign_text": ("text", "文字"),
    "foreign_flat_colour": ("flat colour", "纯色"),
    "foreign_scrambled_pieces": ("scrambled pieces", "打乱的碎块"),
    "refused_own": ("images of its own classes, wrongly", "自身类别的图像（误拒）"),
    "what": ("what", "对象"),
    "refused_share": ("refused", "拒绝比例"),
    # framing and plan
    "framing": ("What of an image it sees", "它看到图像的哪些部分"),
    "framing_about": (
        "{area} of the median image's area, framing {framing}, fit {fit}; passes of a "
        "prediction through {backbones}: {passes}.",
        "中位图像面积的 {area}，取景 {framing}，适配 {fit}；一次预测经过 {backbones} 的次数："
        "{passes}。",
    ),
    "unseen": (
        "{share} of an image's area is not seen: what shows there alone cannot be learnt.",
        "图像面积的 {share} 看不到：只出现在那里的东西无法学到。",
    ),
    "way": ("what was tried", "尝试的方式"),
    "views": ("views", "视图"),
    "photos": ("photos", "照片"),
    "difference": ("difference", "差异"),
    "chosen": ("chosen", "选用"),
    "yes": ("yes", "是"),
    "plan": ("What was learnt, and what was kept", "学了什么，保留了什么"),
    "plan_probe": (
        "The backbone {model} is frozen: its published weights are as they were. A linear head "
        "on its pooled stages was solved (penalty {penalty}, temperature {temperature}).",
        "主干 {model} 已冻结，保持发布时的权重。在其各阶段的池化特征上求解了线性分类头（惩罚 "
        "{penalty}，温度 {temperature}）。",
    ),
    "plan_steps": (
        "Which parts of {model} learnt, from the input to the head, and at which rate "
        "(temperature {temperature}):",
        "{model} 从输入到分类头，各部分是否学习及其学习率（温度 {temperature}）：",
    ),
    "part": ("part", "部分"),
    "parameters": ("parameters", "参数"),
    "rate": ("learning rate", "学习率"),
    "frozen": ("frozen", "冻结"),
    # reproduction
    "reproduce": ("How to get the same again", "如何复现"),
    "reproduce_about": (
        "The same data, seed and versions give the same numbers; the second command computes "
        "those of this run again.",
        "相同的数据、种子和版本会得到相同的数字；第二条命令重新计算本次运行的数字。",
    ),
    "seed": ("seed", "种子"),
    "engine": ("engine", "引擎"),
    "fingerprint": ("fingerprint of the data", "数据指纹"),
    "machine": ("machine", "机器"),
    "versions": ("versions", "版本"),
    "seconds": ("seconds", "耗时（秒）"),
    "notes": ("Notes of the run", "运行记录"),
    "notes_about": ("As they were printed.", "以下为运行时的原文（英文）。"),
    # audit
    "audit_accuracy": (
        "A probe would be right in {accuracy} of new images",
        "探针在新图像上的准确率约为 {accuracy}",
    ),
    "audit_unknown": (
        "No accuracy can be estimated, since too few images can be judged.",
        "可评判的图像太少，无法估计准确率。",
    ),
    "audit_memory": (
        "; among copies of these it would be {accuracy}: {memory} points are memory.",
        "；若在其副本上评测会是 {accuracy}：其中 {memory} 个百分点来自记忆。",
    ),
    "audit_leaks": (
        "Images of two splits: {n} have a copy or another shot in an earlier split, such as {file} "
        "of {of}; they are no test, so remove them from one of the two.",
        "跨划分的图像：{n} 张在更早的划分中有副本或同一场景，例如 {file} 与 {of}；它们不算测试，"
        "请从其中一处删除。",
    ),
    "audit_found": (
        "Kinds of problem that were found in the data: {n}.",
        "在数据中发现 {n} 类问题。",
    ),
    # explanations
    "map_exact": (
        "Maps: red speaks for the answer, blue against it. A region's value is what the answer's "
        "logit loses without it in the pooled features: exact for these, while each of them sees "
        "more of the image than its own place.",
        "热图：红色支持该回答，蓝色反对。每个区域的值，是在池化特征中去掉它后该回答的 logit "
        "所减少的量：对特征是精确的，但每个特征看到的范围大于其所在位置。",
    ),
    "map_gradcam": (
        "Maps: red speaks for the answer, blue against it, by Grad-CAM of the last stage.",
        "热图：红色支持该回答，蓝色反对（最后阶段的 Grad-CAM）。",
    ),
    "untrusted": (
        "this map failed its checks: it is not to be trusted",
        "此热图未通过检验，不可信",
    ),
    "neighbours": (
        "Small images: those of what it learnt from that it finds most alike.",
        "小图：学习过的图像中它认为最相似的。",
    ),
    "not_explained": ("The mistakes are not explained: {why}.", "未对错误作出解释：{why}。"),
    "not_compared": (
        "The most similar training images are not shown: {why}.",
        "未显示最相似的训练图像：{why}。",
    ),
    **COMPARED,
}


class Texts:
    """The sentences of one language.

    >>> Texts("en")("confuses_nothing")
    Markup('; it made no mistake among these.')
    """

    def __init__(self, lang: str):
        check_lang(lang)
        self.lang = lang
        self.place = LANGUAGES.index(lang)

    def __call__(self, key: str, **values: Any) -> Markup:
        """A sentence with its values, which are escaped; those that are text are isolated, so that
        a name that is written from right to left turns nothing else around."""
        text = TEXTS[key][self.place]
        given = {
            key: v if isinstance(v, (Markup, int)) else isolated(str(v))
            for key, v in values.items()
        }
        return Markup(text).format(**given) if given else Markup(text)


def check_lang(lang: Any) -> None:
    """UsageError unless a report can be had in it."""
    if lang not in LANGUAGES:
        raise UsageError(f"no language is called {lang!r}; expected {', '.join(LANGUAGES)}")


def isolated(name: str) -> Markup:
    """A name from a disk or a file as HTML: nothing in it is markup, a control character, or
    changes the direction of what follows.

    >>> isolated("<b>\\x1b")
    Markup('<bdi>&lt;b&gt;\\\\x1b</bdi>')
    """
    return Markup("<bdi>{}</bdi>").format(printable(name))


def fields_of(text: str) -> set[str]:
    """The names of what a sentence has filled in.

    >>> sorted(fields_of("{n} of {of}"))
    ['n', 'of']
    """
    return {name for _, name, _, _ in Formatter().parse(text) if name}
