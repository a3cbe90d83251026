// Every sentence of the page: English, Chinese. What is in braces is filled in.

const TEXTS = {
  intro: [
    "Drop images here, paste one, or choose them below. They stay on this device: this page is one file and asks no server for anything.",
    "把图像拖到这里、粘贴，或用下面的按钮选择。图像不会离开本设备：本页面只是一个文件，不连接任何服务器。",
  ],
  choose: ["Choose images", "选择图像"],
  folder: ["Choose a folder", "选择文件夹"],
  camera: ["Camera", "相机"],
  take: ["Take the photo", "拍照"],
  close: ["Close", "关闭"],
  language: ["中文", "English"],
  starting: ["Starting…", "正在启动…"],
  ready: ["Ready.", "就绪。"],
  working: ["{done} of {of} images…", "第 {done} 张，共 {of} 张…"],
  done: ["{of} images: done.", "{of} 张图像：完成。"],
  one: ["{file}: {answer}.", "{file}：{answer}。"],
  nothing: ["There are no images among these files.", "这些文件中没有图像。"],
  answers: ["Answers", "结果"],
  image: ["Image", "图像"],
  file: ["File", "文件"],
  answer: ["Answer", "结果"],
  probability: ["Probability", "概率"],
  others: ["Next", "其次"],
  save: ["Save as CSV", "另存为 CSV"],
  none: ["none of these", "以上都不是"],
  no_label: ["no label", "没有标签"],
  unsure: ["unsure: {answer}", "不确定：{answer}"],
  foreign: [
    "It is unlike all images that this classifier learnt from.",
    "它与本分类器学过的所有图像都不相像。",
  ],
  "unknown kind": [
    "It looks like a kind of thing that this classifier was never taught.",
    "它像是本分类器没有学过的一类事物。",
  ],
  if_one: ["If it were one of its classes:", "如果属于已知类别："],
  by_point: [
    "“{label}” is answered from {percent} on, whatever else is more probable.",
    "“{label}”的概率达到 {percent} 即作此回答，不论其他类别是否更可能。",
  ],
  by_thresholds: ["A label is given from the mark on its bar on.", "概率达到条上的标记即给出该标签。"],
  about: ["About this classifier", "关于本分类器"],
  classes: ["{n} classes, {model}.", "{n} 个类别，{model}。"],
  labels: [
    "{n} labels, of which an image may have any number, {model}.",
    "{n} 个标签，每张图像可有任意多个，{model}。",
  ],
  accuracy: [
    "{split}: accuracy {share}{interval} on {n} images.",
    "{split}：准确率 {share}{interval}，{n} 张图像。",
  ],
  interval: [" (95 % interval {low} to {high})", "（95% 置信区间 {low} 至 {high}）"],
  train: ["Training", "训练"],
  validation: ["Validation", "验证"],
  test: ["Test", "测试"],
  out_of_fold: ["Out of fold", "折外"],
  refuses: [
    "It answers none of these for {share}{interval} of a kind that was never taught, and for {false} of images of its classes.",
    "对没有学过的一类事物，它有 {share}{interval} 回答“以上都不是”；对已知类别的图像，误拒 {false}。",
  ],
  knows_only: [
    "An image of anything else gets one of its classes too.",
    "其他事物的图像也会被归入其中一个类别。",
  ],
  halved: [
    "Its weights are rounded to float16: the same class as the classifier's on {images} of {images} images, probabilities within {difference}.",
    "网络权重取 float16：在 {images} 张图像上类别全部与分类器相同，概率相差不超过 {difference}。",
  ],
  int8: [
    "Its weights are rounded to int8, which costs {points} points of accuracy; on {images} images probabilities differ from the classifier's by {difference} at most.",
    "网络权重取 int8，准确率损失 {points} 个百分点；在 {images} 张图像上，概率与分类器最多相差 {difference}。",
  ],
  written: ["Written by Foveate {version}, {size} MB.", "由 Foveate {version} 生成，{size} MB。"],
  check: ["Check", "自检"],
  check_about: [
    "Does this browser compute what Python computed when the page was made? These images go the same way as yours; each probability may differ by {tolerance}.",
    "本浏览器的计算是否与生成页面时的 Python 一致？下列图像与您的图像经过同样的处理；每个概率最多可相差 {tolerance}。",
  ],
  check_run: ["Run the check", "开始自检"],
  check_good: [
    "The same answer on {n} of {n} images; probabilities differ by {most} at most (allowed: {tolerance}).",
    "{n} 张图像的结果全部相同；概率最多相差 {most}（允许 {tolerance}）。",
  ],
  check_bad: [
    "{bad} of {n} images differ: this browser computes something else, and its answers are not the classifier's. Try another browser.",
    "{n} 张图像中有 {bad} 张不同：本浏览器的计算不一致，其结果不是本分类器的结果。请换用其他浏览器。",
  ],
  python: ["Python", "Python"],
  here: ["Here", "本页"],
  difference: ["Difference", "差"],
  good: ["same", "相同"],
  bad: ["differs", "不同"],
  licences: ["Licences", "许可"],
  // what cannot be read
  empty: ["The file is empty (0 bytes).", "文件为空（0 字节）。"],
  not_there: ["The file cannot be read: is it still there?", "无法读取文件：它还在吗？"],
  no_image: ["It is no image that this browser knows.", "本浏览器不认得这种图像。"],
  kind: [
    "It is {kind}, which browsers do not read: save it as JPEG or PNG.",
    "这是 {kind} 格式，浏览器无法读取：请另存为 JPEG 或 PNG。",
  ],
  cut: [
    "The end of the file is missing: copy it again from where it came from.",
    "文件末尾缺失：请从来源处重新复制。",
  ],
  damaged: [
    "The file is damaged, or of a variant that this browser does not read.",
    "文件已损坏，或是本浏览器不支持的变体。",
  ],
  too_many_bytes: [
    "It has {n} MB, more than the {most} MB that are read here: make it smaller.",
    "文件有 {n} MB，超过 {most} MB 的上限：请先缩小。",
  ],
  too_many_pixels: [
    "It has {width} x {height} pixels, more than the {most} million that are read here: make it smaller.",
    "图像有 {width} x {height} 像素，超过 {most} 百万的上限：请先缩小。",
  ],
  failed: ["It could not be classified: {reason}", "无法分类：{reason}"],
  no_camera: [
    "The camera cannot be used ({reason}): choose a photo instead.",
    "无法使用相机（{reason}）：请选择一张照片。",
  ],
  // what a browser lacks
  lacks: [
    "This browser lacks {what}, without which the classifier cannot run. Use Chrome or Edge 91, Firefox 113, Safari 16.4, or a later one.",
    "本浏览器缺少 {what}，分类器无法运行。请使用 Chrome 或 Edge 91、Firefox 113、Safari 16.4 或更新的版本。",
  ],
  broken: [
    "The classifier cannot be started: {reason}. Is the file whole? Copy it again.",
    "无法启动分类器：{reason}。文件是否完整？请重新复制。",
  ],
};

let language = (navigator.language || "en").toLowerCase().startsWith("zh") ? 1 : 0;

function text(key, values = {}) {
  return TEXTS[key][language].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)} %`;
}
