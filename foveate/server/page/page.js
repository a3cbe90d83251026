// Drop, paste or photograph images; show what the classifier makes of them.

import { LANGUAGES, text } from "./texts.js";

const IMAGE = /\.(jpe?g|jpe|jfif|png|webp|gif|bmp|dib|tiff?|p[pgbn]m|heic|heif|avif)$/i;
const TOP = 5; // classes that are shown
const TOGETHER = 16; // images of a request
const LANES = 2; // requests at once
const SHOWN = 3; // names of what was left out

const at = (id) => document.getElementById(id);

const state = {
  lang: "en",
  token: "",
  model: null,
  one: null, // { file, row }
  many: null, // { files, rows, skipped }
  last: null, // what was given last
  stop: null, // an AbortController
};

// words

const t = (key, values) => text(state.lang, key, values);

const percent = (p) =>
  new Intl.NumberFormat(LANGUAGES[state.lang], { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(p);

function element(tag, content = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = content;
  if (className) made.className = className;
  return made;
}

function isolated(tag, name) {
  const made = document.createElement(tag);
  made.append(element("bdi", name));
  return made;
}

function speak(lang) {
  state.lang = lang;
  document.documentElement.lang = LANGUAGES[lang];
  try {
    localStorage.setItem("lang", lang);
  } catch {
    // a browser may keep nothing
  }
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = t(one.dataset.text);
  for (const one of document.querySelectorAll("[data-lang]")) one.setAttribute("aria-pressed", String(one.dataset.lang === lang));
  showModel();
  if (state.one) showOne();
  if (state.many) showMany();
}

function say(key, values) {
  at("status").textContent = key ? t(key, values) : "";
}

function fail(sentence) {
  at("error").textContent = sentence;
  at("error").hidden = !sentence;
}

// the server

class Refused extends Error {
  constructor(status, detail, seconds) {
    super(detail);
    this.status = status;
    this.seconds = seconds;
  }
}

async function ask(path, options = {}) {
  const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
  const answer = await fetch(path, { ...options, headers, cache: "no-store", signal: options.signal });
  if (answer.ok) return answer;
  let detail = answer.statusText;
  try {
    detail = (await answer.json()).detail || detail;
  } catch {
    // not from this server: the status has to do
  }
  throw new Refused(answer.status, detail, Number(answer.headers.get("Retry-After")) || 1);
}

function form(files) {
  const body = new FormData();
  for (const { file, name } of files) body.append("file", file, name);
  return body;
}

async function classify(files, top, signal) {
  for (;;) {
    try {
      const answer = await ask(`v1/predict?top=${top}`, { method: "POST", body: form(files), signal });
      return (await answer.json()).predictions;
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 503) throw error;
      say("waiting");
      await pause(error.seconds, signal);
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function meet() {
  try {
    state.model = await (await ask("v1/model")).json();
  } catch (error) {
    report(error);
    return false;
  }
  fail("");
  at("entrance").hidden = true;
  at("drop").hidden = false;
  showModel();
  return true;
}

function report(error) {
  if (error.name === "AbortError") {
    say("stopped");
    return;
  }
  say("");
  if (error instanceof Refused && error.status === 401) {
    at("entrance").hidden = false;
    at("drop").hidden = true;
    fail(state.token ? t("wrong_token") : "");
    at("token").focus();
  } else if (error instanceof Refused) {
    fail(t(error.status === 422 ? "unreadable" : "problem", { detail: error.message }));
  } else {
    fail(t("unreachable"));
    at("again").hidden = !state.last;
  }
}

// what is shown

function showModel() {
  const model = state.model;
  if (!model) return;
  const judged = model.metrics.test || model.metrics.out_of_fold;
  const values = { n: model.classes.length, model: model.model };
  at("about").textContent =
    judged && judged.accuracy != null ? t("accuracy", { ...values, percent: percent(judged.accuracy) }) : t("about", values);
}

function words(row) {
  if (row.error) return row.error;
  if (row.rejected) return t("none");
  if (state.model.task === "multilabel") return row.labels.join(", ") || t("no_label");
  return row.label;
}

function isUnsure(row) {
  return state.model.task !== "multilabel" && !row.rejected && row.top[0].probability < 0.5;
}

function showOne() {
  const { row, name } = state.one;
  at("answer").textContent = isUnsure(row) ? t("unsure", { label: words(row) }) : words(row);
  const reason = row.rejected === "foreign" ? "foreign" : row.rejected ? "unknown" : isUnsure(row) ? "unsure_reason" : "";
  at("reason").textContent = reason ? t(reason) : "";
  at("name").textContent = name;
  at("bars-title").textContent = t(row.rejected ? "bars_of_these" : "bars");
  at("bars").replaceChildren(
    ...row.top.map(({ label, probability }) => {
      const line = document.createElement("tr");
      const head = isolated("th", label);
      head.scope = "row";
      const bar = element("span", "", "bar");
      bar.append(element("i"));
      bar.firstChild.style.width = `${100 * probability}%`;
      head.append(bar);
      line.append(head, element("td", percent(probability), "number"));
      return line;
    }),
  );
  at("explain").hidden = !state.model.explains;
  at("near").hidden = !state.model.shows_training;
  if (!at("explained").hidden) showTrust();
}

function showTrust() {
  const { label, trusted } = state.one.explained;
  at("map").alt = t("map_alt", { label });
  at("trust").textContent = t(trusted ? "trusted" : "untrusted");
  at("trust").className = trusted ? "" : "bad";
}

function lineOf(name, row) {
  const line = document.createElement("tr");
  const head = isolated("th", name);
  head.scope = "row";
  const answer = isolated("td", words(row));
  if (row.error) answer.className = "bad";
  line.append(head, answer, element("td", row.error || row.rejected ? "" : percent(row.probability), "number"));
  return line;
}

function showMany() {
  const { files, rows, skipped } = state.many;
  at("many-title").textContent = t("many", { n: files.length });
  const refused = rows.filter((row) => row && row.rejected).length;
  const failed = rows.filter((row) => row && row.error).length;
  const all = rows.filter(Boolean).length;
  at("summary").textContent = t("summary", { answered: all - refused - failed, refused, failed });
  const names = skipped.slice(0, SHOWN).join(", ") + (skipped.length > SHOWN ? " …" : "");
  at("skipped").textContent = skipped.length ? t("skipped", { n: skipped.length, names }) : "";
  at("rows").replaceChildren(...rows.flatMap((row, i) => (row ? [lineOf(files[i].name, row)] : [])));
  at("save").disabled = all === 0;
}

// what is given

function clear() {
  fail("");
  state.stop?.abort();
  state.one = state.many = null;
  for (const id of ["one", "many", "explained", "neighbours", "again"]) at(id).hidden = true;
  URL.revokeObjectURL(at("shown").src);
  URL.revokeObjectURL(at("map").src);
}

// files: [{ file, name }]
async function take(files, skipped = []) {
  if (!state.model && !(await meet())) return;
  clear();
  state.last = [files, skipped];
  if (!files.length) {
    fail(t("nothing"));
    return;
  }
  const stop = (state.stop = new AbortController());
  at("stop").hidden = false;
  try {
    if (files.length === 1 && !skipped.length) await takeOne(files[0], stop.signal);
    else await takeMany(files, skipped, stop.signal);
  } catch (error) {
    if (state.stop === stop) report(error);
  } finally {
    if (state.stop === stop) at("stop").hidden = true;
  }
}

function oversize({ file, name }) {
  // room for the boundary and the name
  if (file.size + 2048 <= state.model.limits.bytes) return "";
  const megabytes = (n) => (n / 2 ** 20).toFixed(0);
  return t("too_large", { file: name, size: megabytes(file.size), most: megabytes(state.model.limits.bytes) });
}

async function takeOne(given, signal) {
  const large = oversize(given);
  if (large) {
    fail(large);
    return;
  }
  say("sending_one");
  const [row] = await classify([given], TOP, signal);
  state.one = { ...given, row };
  at("shown").src = URL.createObjectURL(given.file);
  showOne();
  at("one").hidden = false;
  say("done_one");
  at("answer").focus();
}

function batches(files) {
  const most = Math.min(TOGETHER, state.model.limits.images);
  const found = [];
  let batch = [];
  let bytes = 0;
  files.forEach((given, i) => {
    const size = given.file.size + 2048;
    if (batch.length && (batch.length === most || bytes + size > state.model.limits.bytes)) {
      found.push(batch);
      [batch, bytes] = [[], 0];
    }
    batch.push(i);
    bytes += size;
  });
  return batch.length ? [...found, batch] : found;
}

async function takeMany(files, skipped, signal) {
  const rows = files.map(() => null);
  state.many = { files, rows, skipped };
  const possible = [];
  files.forEach((given, i) => {
    const large = oversize(given);
    if (large) rows[i] = { file: given.name, error: large };
    else possible.push(i);
  });
  say("sending", { n: files.length });
  showMany();
  at("many").hidden = false;
  at("many-title").focus();
  const todo = batches(possible.map((i) => files[i])).map((batch) => batch.map((i) => possible[i]));
  const lane = async () => {
    for (let batch = todo.shift(); batch; batch = todo.shift()) {
      const found = await answers(batch.map((i) => files[i]), signal);
      batch.forEach((i, place) => (rows[i] = found[place]));
      if (signal.aborted) return;
      showMany();
      say("progress", { done: rows.filter(Boolean).length, n: files.length });
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  say("done", { n: files.length });
}

// rows of a batch; of a single image that cannot be read, a row too
async function answers(files, signal) {
  try {
    return await classify(files, state.model.classes.length, signal);
  } catch (error) {
    if (files.length === 1 && error instanceof Refused && error.status === 422) return [{ file: files[0].name, error: error.message }];
    throw error;
  }
}

function sorted(files) {
  const images = files.filter(({ file, name }) => file.type.startsWith("image/") || IMAGE.test(name));
  const others = files.filter((given) => !images.includes(given)).map(({ name }) => name);
  images.sort((a, b) => (a.name < b.name ? -1 : 1));
  return [images, others];
}

async function walk(entry, path = "") {
  const name = path + entry.name;
  if (entry.isFile) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), name }];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // a browser gives a hundred at once
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const one of some) found.push(...(await walk(one, `${name}/`)));
  }
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, name: file.name }));
  return (await Promise.all(entries.map((entry) => walk(entry)))).flat();
}

// explaining

async function withOne(path, key, show) {
  const one = state.one;
  say(key);
  fail("");
  try {
    const answer = await ask(path, { method: "POST", body: form([one]) });
    if (state.one !== one) return;
    await show(answer, one);
    say("done_one");
  } catch (error) {
    report(error);
  }
}

function explain() {
  const { row } = state.one;
  const label = row.rejected ? row.top[0].label : (row.labels[0] ?? row.top[0].label);
  at("explain").disabled = true;
  return withOne(`v1/explain?class=${encodeURIComponent(label)}`, "explaining", async (answer, one) => {
    one.explained = { label, trusted: answer.headers.get("Foveate-Trusted") === "true" };
    at("map").src = URL.createObjectURL(await answer.blob());
    showTrust();
    at("explained").hidden = false;
  }).finally(() => (at("explain").disabled = false));
}

function near() {
  return withOne("v1/neighbours", "sending_one", async (answer) => {
    const found = (await answer.json()).neighbours;
    at("nearest").replaceChildren(
      ...found.map(({ file, labels, similarity }) =>
        isolated("li", t("near_one", { file, labels: labels.join(", "), similarity: similarity.toFixed(2) })),
      ),
    );
    at("neighbours").hidden = false;
  });
}

// a table

function cell(value) {
  // a spreadsheet would compute what begins so
  const inert = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}

// as foveate predict --csv writes it
function table() {
  const { files, rows } = state.many;
  const classes = state.model.classes;
  const lines = [["file", "label", "probability", ...classes, "rejected", "error"]];
  rows.forEach((row, i) => {
    if (!row) return;
    const found = new Map(row.error ? [] : row.top.map((one) => [one.label, one.probability.toFixed(6)]));
    const label = row.error ? "" : row.rejected ? row.label : row.labels.join("|");
    const probability = row.error ? "" : row.probability.toFixed(6);
    const numbers = classes.map((name) => found.get(name) ?? "");
    lines.push([files[i].name, label, probability, ...numbers, row.rejected ?? "", row.error ?? ""]);
  });
  return `\ufeff${lines.map((line) => line.map(cell).join(",")).join("\r\n")}\r\n`;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

// from here on

function listen() {
  for (const id of ["files", "camera", "folder"]) {
    at(id).addEventListener("change", (event) => {
      const files = [...event.target.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
      event.target.value = ""; // the same again is a change, too
      if (files.length) take(...(id === "folder" ? sorted(files) : [files]));
    });
  }
  const drop = at("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(...sorted(await dropped(event.dataTransfer)));
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].map((file) => ({ file, name: file.name }));
    if (files.length) take(...sorted(files));
  });
  at("stop").addEventListener("click", () => state.stop.abort());
  at("again").addEventListener("click", () => take(...state.last));
  at("explain").addEventListener("click", explain);
  at("near").addEventListener("click", near);
  at("save").addEventListener("click", save);
  at("entrance").addEventListener("submit", (event) => {
    event.preventDefault();
    keep(at("token").value);
    meet();
  });
  for (const one of document.querySelectorAll("[data-lang]")) one.addEventListener("click", () => speak(one.dataset.lang));
}

function keep(token) {
  state.token = token;
  try {
    sessionStorage.setItem("token", token);
  } catch {
    // a browser may keep nothing
  }
}

function kept(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

function start() {
  // a fragment is never sent; it does not stay in the address either
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    keep(given);
    history.replaceState(null, "", location.pathname);
  } else state.token = kept("sessionStorage", "token") ?? "";
  listen();
  speak(kept("localStorage", "lang") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
  meet();
}

start();
