"use strict";
const answers = [...document.querySelectorAll(".answer")];
const earlier = JSON.parse(document.querySelector("footer").dataset.earlier);
const button = document.getElementById("download");
let unsaved = false;

function field(answer) {
  return answer.querySelector("select, input");
}

function decided() {
  return answers.filter((answer) => field(answer).value.trim() !== "");
}

function cell(value) {
  return /[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value;
}

function table() {
  const lines = [["file", "label", "suggested", "probability", "gain_of_first_n", "correction"]];
  const seen = new Set();
  const write = (line) => {
    if (seen.has(line[0])) return; // its first line holds: decisions stand before earlier ones
    seen.add(line[0]);
    lines.push(line);
  };
  for (const answer of decided()) {
    const { label, suggested, probability } = answer.dataset;
    for (const file of JSON.parse(answer.dataset.files)) {
      write([file, label, suggested, probability, "", field(answer).value.trim()]);
    }
  }
  for (const [file, says] of earlier) write([file, "", "", "", "", says]);
  return "\ufeff" + lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

function update(event) {
  const changed = event.target.closest(".answer");
  for (const answer of answers) {
    // an image may stand here twice
    if (answer.dataset.files === changed.dataset.files) field(answer).value = event.target.value;
  }
  const n = new Set(decided().map((answer) => answer.dataset.files)).size;
  unsaved = true;
  document.getElementById("count").textContent = n ? n + " decided" : "nothing decided";
  button.disabled = n === 0;
  event.target.closest(".case").classList.toggle("decided", event.target.value.trim() !== "");
}

for (const answer of answers) {
  field(answer).addEventListener("change", update);
  answer.querySelector(".take")?.addEventListener("click", () => {
    field(answer).value = answer.dataset.suggested;
    field(answer).dispatchEvent(new Event("change"));
  });
}

button.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv;charset=utf-8" }));
  link.download = "corrections.csv";
  link.click();
  unsaved = false;
});

window.addEventListener("beforeunload", (event) => {
  if (unsaved && decided().length) event.preventDefault();
});
