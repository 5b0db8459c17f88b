// Copyright (C) 2026 The anomalib-mediclip authors
// SPDX-License-Identifier: Apache-2.0

// Controls of the page.

const slider = document.getElementById("slider");
const thresholdField = document.getElementById("threshold");

function tell(text, isFailure = false) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.classList.toggle("failed", isFailure);
}

function tellIfNotSaved(isSaved) {
  if (!isSaved) tell("This browser keeps no marks for this page. Export review.csv before you close it.", true);
}

// Choose and sort again; the current image stays the current one while it is shown.
function showChosen() {
  const current = currentImage();
  state.shown = chooseShown();
  const place = current ? state.shown.indexOf(current) : -1;
  if (place >= 0) state.current = place;
  layOutGrid();
}

function showFromStart() {
  state.shown = [];
  state.current = 0;
  showChosen();
}

function drawAfterMarks() {
  if (!hasTruth) drawFigures();
  if (!view.open && (state.filters.mark || (state.filters.reference && !hasTruth))) showChosen();
  else refreshCards();
}

function setThreshold(threshold) {
  if (!Number.isFinite(threshold)) return;
  state.threshold = threshold;
  tellIfNotSaved(save());
  drawThreshold();
  const { predicted, reference: known } = state.filters;
  if (predicted || known === "wrong" || state.order === "nearest") showChosen();
  else refreshCards();
}

// The slider cannot hold every number; a threshold that it only shows must not be rounded to its steps.
slider.addEventListener("input", () => setThreshold(Number(slider.value)));
thresholdField.addEventListener("input", () => {
  if (thresholdField.value !== "") setThreshold(Number(thresholdField.value));
});
thresholdField.addEventListener("blur", drawThreshold);
document.getElementById("reset").addEventListener("click", () => setThreshold(facts.threshold));

for (const name of ["predicted", "reference", "mark"]) {
  document.getElementById(name).addEventListener("change", (event) => {
    state.filters[name] = event.target.value;
    showFromStart();
  });
}
document.getElementById("order").addEventListener("change", (event) => {
  state.order = event.target.value;
  showFromStart();
});
document.getElementById("tools").addEventListener("submit", (event) => event.preventDefault());

document.getElementById("export").addEventListener("click", () => {
  const rows = images.map((image) => ({ file: image.file, ...noteOf(image), score: image.digits, label: image.label }));
  const blob = new Blob([writeReview(rows, state.threshold, facts.run)], { type: "text/csv" });
  const link = element("a", { href: URL.createObjectURL(blob), download: "review.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  tell(`Exported ${images.length} rows, ${images.filter((image) => noteOf(image).mark).length} of them marked.`);
});

document.getElementById("restore").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  try {
    if (file) restore(readReview(await file.text()), file.name);
  } catch (error) {
    tell(`${file.name} is not restored. ${error.message}`, true);
  }
  event.target.value = "";
});

function restore(review, name) {
  if (review.run !== facts.run) {
    throw new Error("It is a review of another run: predictions.csv of that run is not the one of this page.");
  }
  const known = new Set(images.map((image) => image.file));
  const given = [...review.marks].filter(([, note]) => note.mark || note.comment);
  const marks = new Map(given.filter(([file]) => known.has(file)));
  const isLoss = [...state.marks].some(([file, note]) => JSON.stringify(note) !== JSON.stringify(marks.get(file)));
  if (isLoss && !window.confirm(`Replace the ${state.marks.size} marks and comments of this page by the ${marks.size} of ${name}?`)) return;
  state.marks = marks;
  state.threshold = review.threshold;
  tellIfNotSaved(save());
  drawFigures();
  showChosen();
  const strangers = given.length - marks.size;
  tell(`Restored ${marks.size} marks and comments, and the threshold ${review.threshold}.`
    + (strangers ? ` ${strangers} marked files are not in this run.` : ""), strangers > 0);
}

function preparePrint() {
  printing = true;
  layOutGrid();
  const left = state.shown.length - PRINTED;
  if (left > 0) tell(`Only the first ${PRINTED} images are printed; ${left} more are left out.`);
}

document.getElementById("print").addEventListener("click", async () => {
  preparePrint();
  await Promise.allSettled([...grid.querySelectorAll("img")].map((picture) => picture.decode()));
  window.print();
});
window.addEventListener("beforeprint", () => printing || preparePrint());
window.addEventListener("afterprint", () => {
  printing = false;
  layOutGrid();
});

window.addEventListener("scroll", () => requestAnimationFrame(drawGrid), { passive: true });
window.addEventListener("resize", layOutGrid);
window.addEventListener("storage", (event) => { // the page is open in another window too
  if (event.key !== storageKey) return;
  load();
  drawFigures();
  showChosen();
});

for (const part of document.querySelectorAll(".of-truth")) part.hidden = !hasTruth;
load();
Object.assign(slider, { min: lowest, max: highest, step: (highest - lowest) / 1000 });
document.getElementById("reset").textContent = `Reset to ${facts.threshold}`;
document.getElementById("summary").textContent =
  `${images.length} images in ${folder || "this run"}; run ${facts.run.slice(0, 12)}`;
drawFigures();
showChosen();
