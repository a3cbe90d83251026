// The page: what is given, and what is shown.

const about = JSON.parse(document.getElementById("about").textContent);
const at = (id) => document.getElementById(id);
const SHOWN = 5; // classes of an image
const THUMBNAIL = 160; // pixels of a side
let classifier = null;
let results = []; // of all images since the page was opened, the latest first
let checked = null; // the rows of the check
let status = () => text("starting");
let queue = Promise.resolve();

// An element with text, attributes and children; text is never markup.
function make(tag, { text: content, ...attributes } = {}, children = []) {
  const element = document.createElement(tag);
  if (content !== undefined) element.textContent = content;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function say(what) {
  status = what;
  at("status").textContent = status();
}

function show() {
  document.documentElement.lang = language ? "zh" : "en";
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = text(element.dataset.text, { tolerance: about.checks.tolerance });
  }
  at("status").textContent = status();
  showAbout();
  showResults();
  showCheck();
}

function showAbout() {
  const { classes, thresholds, title, model, metrics, refusals, version, proof } = about;
  at("title").textContent = title;
  const lines = [text(thresholds ? "labels" : "classes", { n: classes.length, model })];
  for (const { split, share, ci, n } of metrics) {
    const values = { split: text(split), share: percent(share), interval: interval(ci), n };
    lines.push(text("accuracy", values));
  }
  if (refusals) {
    const { share, ci, wrong } = refusals;
    const [of, false_] = [percent(share, 0), percent(wrong, 0)];
    lines.push(text("refuses", { share: of, interval: interval(ci, 0), false: false_ }));
  } else if (!thresholds) {
    lines.push(text("knows_only"));
  }
  lines.push(text(proof.points === null ? "halved" : "int8", proof));
  lines.push(text("written", { version, size: about.size }));
  at("facts").replaceChildren(...lines.map((line) => make("li", { text: line })));
  at("names").textContent = classes.join(" · ");
}

function interval(ci, digits = 1) {
  return ci ? text("interval", { low: percent(ci[0], digits), high: percent(ci[1], digits) }) : "";
}

// Answers

function answerOf({ found, error }) {
  if (error) return text(error.message, error.values);
  if (found.rejected) return text("none");
  const names = found.answer.map((i) => about.classes[i]);
  if (about.thresholds) return names.join(", ") || text("no_label");
  const best = Math.max(...found.probabilities);
  return best < 0.5 ? text("unsure", { answer: names[0] }) : names[0];
}

function probabilityOf({ found }) {
  const i = about.thresholds || found.rejected ? ranked(found.probabilities)[0] : found.answer[0];
  return found.probabilities[i];
}

function bars(found) {
  const most = about.thresholds ? 2 * SHOWN : SHOWN;
  const lines = ranked(found.probabilities).slice(0, most).map((i) => {
    const share = found.probabilities[i];
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    const fill = make("span", { class: "fill" });
    fill.style.width = `${100 * share}%`;
    bar.append(fill);
    if (about.thresholds) {
      const mark = make("span", { class: "mark" });
      mark.style.left = `${100 * about.thresholds[i]}%`;
      bar.append(mark);
    }
    const given = found.answer.includes(i) ? "given" : "";
    const label = make("span", { class: "name", text: about.classes[i] });
    const number = make("span", { class: "share", text: percent(share) });
    return make("li", { class: given }, [label, number, bar]);
  });
  return make("ol", { class: "bars" }, lines);
}

function notes(found) {
  const lines = [];
  if (found.rejected) lines.push(text(found.rejected), text("if_one"));
  if (about.point) {
    const label = about.classes[about.point.positive];
    lines.push(text("by_point", { label, percent: percent(about.point.threshold) }));
  }
  if (about.thresholds) lines.push(text("by_thresholds"));
  return lines.map((line) => make("p", { text: line }));
}

function picture(result) {
  if (!result.thumbnail) return make("span", { class: "gone", text: "?", "aria-hidden": "true" });
  return make("img", { src: result.thumbnail, alt: "" });
}

function showResults() {
  const last = results[0];
  at("latest").hidden = !last;
  at("many").hidden = results.length < 2;
  at("save").hidden = !results.length;
  if (!last) return;
  const words = [make("h2", { text: answerOf(last), dir: "auto" })];
  words.push(make("p", { class: "file", text: last.name }));
  if (last.found) words.push(...notes(last.found), bars(last.found));
  at("latest").replaceChildren(picture(last), make("div", {}, words));
  at("rows").replaceChildren(...results.map(row));
}

function row(result) {
  const cells = [make("td", {}, [picture(result)])];
  cells.push(make("th", { scope: "row", text: result.name }));
  if (result.error) {
    cells.push(make("td", { class: "error", colspan: 3, text: answerOf(result) }));
  } else {
    const { found } = result;
    const next = ranked(found.probabilities).slice(0, 3).filter((i) => !found.answer.includes(i));
    const others = next.map((i) => `${about.classes[i]} ${percent(found.probabilities[i])}`);
    cells.push(make("td", { text: answerOf(result) }));
    cells.push(make("td", { class: "number", text: percent(probabilityOf(result)) }));
    cells.push(make("td", { text: others.join(", ") }));
  }
  return make("tr", {}, cells);
}

// Classify files, one after the other, and let the page be drawn in between.
function classifyAll(files) {
  queue = queue.then(async () => {
    if (!files.length) return say(() => text("nothing"));
    for (const [i, [name, file]] of files.entries()) {
      say(() => text("working", { done: i + 1, of: files.length }));
      await new Promise((drawn) => setTimeout(drawn));
      const result = await outcome(name, file);
      results.unshift(result);
      if (i % 10 === 0 || i === files.length - 1) showResults();
    }
    const last = results[0];
    if (files.length > 1) say(() => text("done", { of: files.length }));
    else say(() => text("one", { file: last.name, answer: answerOf(last) }));
  });
  return queue;
}

async function outcome(name, file) {
  try {
    const found = await classifier.classify(file);
    return { name, found, thumbnail: await thumbnail(file) };
  } catch (error) {
    if (error instanceof Unreadable) return { name, error };
    return { name, error: new Unreadable("failed", { reason: String(error.message || error) }) };
  }
}

async function thumbnail(file) {
  const options = { resizeHeight: THUMBNAIL, resizeQuality: "low" };
  const bitmap = await createImageBitmap(file, options);
  const width = Math.min(bitmap.width, 3 * THUMBNAIL);
  const canvas = make("canvas", { width, height: bitmap.height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const blob = await new Promise((made) => canvas.toBlob(made, "image/jpeg", 0.8));
  return URL.createObjectURL(blob);
}

// As `foveate predict --csv` writes it.
function table() {
  const lines = [["file", "label", "probability", ...about.classes, "rejected", "error"]];
  for (const result of [...results].reverse()) {
    const { name, found, error } = result;
    if (error) {
      lines.push([name, "", "", ...about.classes.map(() => ""), "", answerOf(result)]);
      continue;
    }
    const names = found.answer.map((i) => about.classes[i]);
    const label = found.rejected ? "none of these" : names.join("|");
    const numbers = found.probabilities.map((p) => p.toFixed(6));
    const best = probabilityOf(result).toFixed(6);
    lines.push([name, label, best, ...numbers, found.rejected ?? "", ""]);
  }
  return "\ufeff" + lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

function cell(value) {
  const plain = value.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?");
  return /[",]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

function save() {
  const link = make("a", { download: "predictions.csv" });
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv;charset=utf-8" }));
  link.click();
}

// The check

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function check() {
  at("check").disabled = true;
  const { images } = about.checks;
  const rows = [];
  for (const image of images) {
    const file = new File([bytesOf(image.data)], image.name, { type: image.type });
    const result = { ...(await outcome(image.name, file)), expected: image };
    if (result.found) compare(result, image);
    rows.push(result);
    checked = [...rows];
    showCheck();
  }
  at("check").disabled = false;
  return rows;
}

// Whether the answer is Python's: the same, but for a threshold that both are near to.
function compare(result, expected) {
  const { tolerance, measures } = about.checks;
  const { found } = result;
  result.gap = largest(found.probabilities, expected.probabilities);
  result.good = result.gap <= tolerance;
  found.measures?.forEach((value, i) => {
    const whole = Math.max(1, Math.abs(expected.measures[i]));
    result.good &&= Math.abs(value - expected.measures[i]) <= measures * whole;
  });
}

function largest(these, those) {
  return Math.max(...these.map((value, i) => Math.abs(value - those[i])));
}

function showCheck() {
  at("checked").hidden = !checked;
  if (!checked) return;
  const n = about.checks.images.length;
  const bad = checked.filter((row) => !row.good).length;
  const most = Math.max(...checked.map((row) => row.gap ?? 1)).toPrecision(2);
  const tolerance = about.checks.tolerance;
  const done = checked.length === n;
  at("verdict").textContent = !done
    ? text("working", { done: checked.length, of: n })
    : text(bad ? "check_bad" : "check_good", { n, bad, most, tolerance });
  at("verdict").dataset.good = done ? String(bad === 0) : "";
  at("verdict").dataset.most = most;
  at("check_rows").replaceChildren(
    ...checked.map((result) => {
      const theirs = { found: result.expected };
      const cells = [make("td", {}, [picture(result)])];
      cells.push(make("th", { scope: "row", text: result.name }));
      cells.push(make("td", { text: `${answerOf(theirs)} ${percent(probabilityOf(theirs), 3)}` }));
      const ours = result.found ? ` ${percent(probabilityOf(result), 3)}` : "";
      cells.push(make("td", { text: answerOf(result) + ours }));
      const gap = result.found ? result.gap.toExponential(1) : "";
      cells.push(make("td", { class: "number", text: gap }));
      const [kind, word] = result.good ? ["", "good"] : ["error", "bad"];
      cells.push(make("td", { class: kind, text: text(word) }));
      return make("tr", {}, cells);
    }),
  );
}

// What is given

const IMAGE = /\.(jpe?g|jpe|jfif|png|webp|gif|bmp|dib|tiff?|heic|heif|avif)$/i;

function named(file) {
  return [file.webkitRelativePath || file.name || "image", file];
}

function ofFolder(files) {
  const shown = files.filter(([name]) => !name.split("/").some((part) => part.startsWith(".")));
  return shown.filter(([name]) => IMAGE.test(name)).sort(([a], [b]) => (a < b ? -1 : 1));
}

// All files below what was dropped.
async function dropped(items) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) {
    return [...items].map((item) => item.getAsFile()).filter(Boolean).map(named);
  }
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((take, fail) => entry.file(take, fail));
      files.push([entry.fullPath.replace(/^\//, ""), file]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((take, fail) => reader.readEntries(take, fail));
      if (!some.length) return;
      for (const child of some) await walk(child);
    }
  };
  for (const entry of entries) await walk(entry);
  return ofFolder(files);
}

function listen() {
  const drop = at("drop");
  const stop = (event) => event.preventDefault();
  for (const name of ["dragover", "dragenter"]) {
    addEventListener(name, (event) => {
      stop(event);
      drop.classList.add("over");
    });
  }
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  addEventListener("drop", async (event) => {
    stop(event);
    drop.classList.remove("over");
    classifyAll(await dropped(event.dataTransfer.items));
  });
  addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].map(named);
    if (files.length) classifyAll(files);
  });
  for (const [button, input] of [["choose", "files"], ["folder", "below"]]) {
    at(button).addEventListener("click", () => at(input).click());
    at(input).addEventListener("change", ({ target }) => {
      const files = [...target.files].map(named);
      classifyAll(input === "below" ? ofFolder(files) : files);
      target.value = ""; // the same file may be chosen again
    });
  }
  at("camera").addEventListener("click", camera);
  at("save").addEventListener("click", save);
  at("check").addEventListener("click", check);
}

async function camera() {
  const video = at("video");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return say(() => text("no_camera", { reason: error.name }));
  }
  at("end").onclick = () => {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    at("viewer").hidden = true;
    at("camera").focus();
  };
  at("take").onclick = async () => {
    const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((made) => canvas.toBlob(made, "image/png"));
    if (blob) classifyAll([["camera.png", blob]]); // there is none before the first picture
  };
  video.srcObject = stream;
  at("viewer").hidden = false;
  at("take").focus();
  return video.play();
}

// Start

// A module with one instruction of SIMD, as the runtime has them.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0];
SIMD.push(65, 0, 253, 15, 253, 98, 11);

function lacking() {
  if (typeof WebAssembly !== "object") return "WebAssembly";
  if (!WebAssembly.validate(new Uint8Array(SIMD))) return "WebAssembly SIMD";
  if (typeof DecompressionStream !== "function") return "DecompressionStream";
  return typeof createImageBitmap === "function" ? "" : "createImageBitmap";
}

async function start() {
  at("language").addEventListener("click", () => {
    language = 1 - language;
    show();
  });
  show();
  const what = lacking();
  if (what) return say(() => text("lacks", { what }));
  try {
    classifier = await Classifier.load(about);
  } catch (error) {
    return say(() => text("broken", { reason: String(error.message || error) }));
  }
  for (const button of ["choose", "folder", "camera", "check"]) at(button).disabled = false;
  listen();
  globalThis.foveate = { classify: (file) => classifier.classify(file) }; // for scripts beside it
  say(() => text("ready"));
  if (location.hash === "#check") check();
  return undefined;
}

start();
