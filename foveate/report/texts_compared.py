"""The sentences of the report of a comparison; `texts.TEXTS` has them too."""

COMPARED: dict[str, tuple[str, str]] = {
    "title_compared": ("Networks compared on {data}", "在 {data} 上比较网络"),
    "title_runs": ("Runs compared: {names}", "比较运行：{names}"),
    "about_compared": (
        "recipe {recipe}, trainings of each: {seeds}, on the same splits and folds; {n} images "
        "were judged by all",
        "方式 {recipe}，每个训练 {seeds} 次，划分与折相同；全部评判过的图像 {n} 张",
    ),
    "about_runs": (
        "{n} images were judged by all of them, none of which they had learnt from",
        "全部评判过的图像 {n} 张，均未参与学习",
    ),
    # the answer
    "right_most_often": (
        "{name} is right most often: in {accuracy} of new images",
        "{name} 的正确率最高：新图像中为 {accuracy}",
    ),
    "as_the_best": (
        "; {points} points are taken off for its being the best of {of}.",
        "；其中已扣除因“{of} 个中最好”而虚高的 {points} 个百分点。",
    ),
    "the_only_one": (". No other could be trained here.", "。此处没有其他可训练的模型。"),
    "none_told_apart": (
        "No two of them can be told apart on these {n} images: the differences are within noise.",
        "在这 {n} 张图像上，任意两者都无法区分：差异在噪声范围之内。",
    ),
    "not_told_from": (
        "It is not distinguishable from {names} on these {n} images.",
        "在这 {n} 张图像上，它与 {names} 无法区分。",
    ),
    "told_from": (
        "It is better than {names}, beyond chance.",
        "它优于 {names}，并非偶然。",
    ),
    "would_need": (
        "It would take about {needed} images to tell it from {name}.",
        "要把它与 {name} 区分开，大约需要 {needed} 张图像。",
    ),
    "fastest_of_these": (
        "Of these, {name} answers fastest: {ms} ms an image here.",
        "其中 {name} 回答最快：在本机每张 {ms} 毫秒。",
    ),
    "nothing_compared": (
        "None of them could be trained here.",
        "没有一个能在此训练。",
    ),
    "only_one": (
        "Only {name} could be trained here: there is nothing to compare it with.",
        "只有 {name} 能在此训练：没有可比较的对象。",
    ),
    "none_judged": (
        "No accuracy can be given: all images of each class are of one group, so that none is new.",
        "无法给出准确率：每个类别的图像都属于同一组，没有新的图像可供评判。",
    ),
    "left_out_row": ("{name} is not among them: {why}.", "{name} 不在其中（{why}）。"),
    # sections
    "candidates": ("The table", "总表"),
    "candidates_about": (
        "Figures of {split}. An accuracy with * is that of the best, before what is taken off for "
        "its being the best.",
        "各项数字取自{split}。带 * 的是最好者的准确率，尚未扣除因此而虚高的部分。",
    ),
    "from_cache": (
        "Features of {names} were in the cache; the seconds that these would take are estimated "
        "from the speed.",
        "{names} 的特征已在缓存中；其所需秒数按速度估算。",
    ),
    "network": ("network", "网络"),
    "run": ("run", "运行"),
    "recipe": ("recipe", "方式"),
    "own_accuracy": ("its own accuracy", "自身准确率"),
    "shared_accuracy": ("on the shared images", "在共同图像上"),
    "of_test": ("test split", "测试集准确率"),
    "refuses_both": ("refused: own / unknown", "拒绝：误拒 / 未知"),
    "latency": ("ms an image", "毫秒/张"),
    "throughput": ("images/s", "张/秒"),
    "size_mb": ("MB", "MB（大小）"),
    "gmacs": ("G MACs", "十亿次乘加"),
    "to_train": ("s to train", "训练秒数"),
    "front": ("Accuracy against time", "准确率与时间"),
    "front_about": (
        "On the line: those for which no other is both as accurate and as fast. Bars are 95 % "
        "intervals. Speed is measured on this machine, from an image's bytes to its answer.",
        "线上的网络：没有其他网络同时与之同样准确且同样快。竖线为 95% 置信区间。速度在本机测得，"
        "从图像字节到回答。",
    ),
    "pairs": ("Differences", "差异"),
    "pairs_about": (
        "Of paired results on the same images, whose groups count as one; p is corrected for the "
        "number of pairs (Holm).",
        "基于相同图像上的配对结果，同组图像算作一个；p 已按对数校正（Holm）。",
    ),
    "pair": ("pair", "比较"),
    "against_name": ("{first} against {second}", "{first} 对 {second}"),
    "points": ("points", "百分点"),
    "alone_right": ("right alone", "独自正确"),
    "p_corrected": ("p", "p 值"),
    "verdict": ("verdict", "结论"),
    "verdict_better": ("better", "更好"),
    "verdict_worse": ("worse", "更差"),
    "verdict_same": ("not distinguishable", "无法区分"),
    "verdict_needs": (
        "not distinguishable; {n} images would tell",
        "无法区分；{n} 张图像才能区分",
    ),
    "apart": ("{first} and {second}", "{first} 与 {second}"),
    "apart_about": (
        "Images that {first} alone has right: {a}; that {second} alone has right: {b}. "
        "comparison.json names all.",
        "只有 {first} 答对的图像：{a} 张；只有 {second} 答对的：{b} 张。全部见 comparison.json。",
    ),
    "right_alone": ("{name} alone is right", "只有 {name} 答对"),
    "other_says": ("{name}: {answer}", "{name}：{answer}"),
    "curves_compared": (
        "Log-loss on images that were not learnt from: of a probe by the penalty, out of fold; of "
        "others by the epoch, on the validation split.",
        "未参与学习的图像上的对数损失：探针按惩罚（折外），其他按轮次（验证集）。",
    ),
    "curves_first": (
        "The first {n} of {of} are drawn.",
        "只画出 {of} 个中的前 {n} 个。",
    ),
    "not_compared_rows": ("What could not be compared", "未能比较的"),
    "status": ("status", "状态"),
    "reason": ("reason", "原因"),
    "status_no_weights": ("no weights here", "本机没有权重"),
    "status_too_large": ("too large for this memory", "内存不足"),
    "status_over_budget": ("over the budget", "超出时间预算"),
    "status_failed": ("failed", "失败"),
}
