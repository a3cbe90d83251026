// Every sentence of the page, in English and in Chinese; what is in braces is filled in.

export const TEXTS = {
  about: ["{n} classes, {model}", "{n} 个类别，{model}"],
  accuracy: [
    "{n} classes, {model}, right on {percent} of images that it had not learnt from",
    "{n} 个类别，{model}，在未参与学习的图像上准确率为 {percent}",
  ],
  token: ["Token of this server", "本服务器的令牌"],
  enter: ["Enter", "进入"],
  drop: ["Drop images or a folder here", "将图像或文件夹拖放到此处"],
  hint: ["Or paste an image, or choose:", "或者粘贴图像，或选择："],
  choose: ["Choose images", "选择图像"],
  photograph: ["Take a photo", "拍照"],
  choose_folder: ["Choose a folder", "选择文件夹"],
  stop: ["Stop", "停止"],
  again: ["Try again", "重试"],
  class: ["Class", "类别"],
  file: ["File", "文件"],
  answer: ["Answer", "结果"],
  probability: ["Probability", "概率"],
  bars: ["Calibrated probabilities", "校准后的概率"],
  bars_of_these: ["Calibrated probabilities, if it were one of these", "假如属于这些类别，校准后的概率"],
  explain: ["Show what speaks for it", "显示判断依据"],
  explaining: ["Explaining; this takes some seconds …", "正在解释，需要几秒钟……"],
  map_alt: [
    "The image, and a map of the parts that speak for {label} (red) and against it (blue)",
    "图像，以及支持（红色）和反对（蓝色）{label} 的区域图",
  ],
  trusted: ["This map passed its checks.", "该区域图通过了检验。"],
  untrusted: [
    "This map failed its checks: do not rely on it.",
    "该区域图未通过检验：请勿依赖它。",
  ],
  near: ["Nearest training images", "最接近的训练图像"],
  near_title: ["Nearest training images", "最接近的训练图像"],
  near_one: ["{file}: {labels}, similarity {similarity}", "{file}：{labels}，相似度 {similarity}"],
  save: ["Save as CSV", "保存为 CSV"],
  sending: ["Sending {n} images …", "正在发送 {n} 张图像……"],
  sending_one: ["Sending the image …", "正在发送图像……"],
  progress: ["{done} of {n} images", "已完成 {done} / {n} 张图像"],
  waiting: ["The server is busy; trying again …", "服务器繁忙，正在重试……"],
  done: ["Done: {n} images.", "完成：{n} 张图像。"],
  done_one: ["Done.", "完成。"],
  stopped: ["Stopped.", "已停止。"],
  none: ["None of these", "都不是"],
  foreign: [
    "It is unlike all images that the classifier learnt from.",
    "它与分类器学习过的所有图像都不同。",
  ],
  unknown: [
    "It seems to be of a kind that the classifier was never taught.",
    "它似乎属于分类器从未学过的类别。",
  ],
  unsure: ["Unsure: {label}", "不确定：{label}"],
  unsure_reason: [
    "The most probable class is more likely wrong than right.",
    "最可能的类别错误的可能性大于正确的可能性。",
  ],
  no_label: ["No label", "没有标签"],
  many: ["{n} images", "{n} 张图像"],
  summary: [
    "{answered} with a class, {refused} none of these, {failed} unreadable",
    "{answered} 张有类别，{refused} 张都不是，{failed} 张无法读取",
  ],
  skipped: ["Left out, not images: {n} ({names})", "已略过（不是图像）：{n} 个（{names}）"],
  nothing: ["There is no image in what was given.", "所给内容中没有图像。"],
  too_large: [
    "{file} has {size} MB, and the server takes {most} MB at once.",
    "{file} 有 {size} MB，服务器一次最多接受 {most} MB。",
  ],
  unreachable: [
    "The server cannot be reached. Check the connection, then try again.",
    "无法连接服务器。请检查网络后重试。",
  ],
  wrong_token: ["That is not the token of this server.", "令牌不正确。"],
  problem: ["{detail}", "服务器返回：{detail}"],
  unreadable: ["This image cannot be read: {detail}", "无法读取该图像：{detail}"],
  stays: ["Images go to this server alone, which keeps none.", "图像只发送到本服务器，且不会被保存。"],
  docs: ["For programs", "供程序使用"],
};

export const LANGUAGES = { en: "en", zh: "zh-Hans" };

export function text(lang, key, values = {}) {
  const sentence = TEXTS[key][lang === "zh" ? 1 : 0];
  return sentence.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}
