// Copyright (C) 2026 The anomalib-mediclip authors
// SPDX-License-Identifier: Apache-2.0

// One image in the whole window, with its layers.

const view = document.getElementById("view");
const OUTLINES = ["predicted", "true"];

function currentImage() {
  return state.shown[state.current];
}

function openView() {
  drawView();
  view.showModal();
  view.focus(); // not a button, which keys would press
}

function drawView() {
  const image = currentImage();
  const room = "(96vh - 5.5rem)";
  const stage = document.getElementById("stage");
  stage.hidden = !image.picture;
  stage.style.width = `min(100%, calc(${room} * ${image.width / Math.max(1, image.height)}))`;
  stage.style.aspectRatio = `${image.width} / ${image.height}`;
  document.getElementById("view-name").textContent = image.file;
  document.getElementById("reason").textContent = image.reason;
  setLayer("image", image.picture && pictureOf(image, ".jpg"));
  setLayer("map", image.layers.includes("map") && pictureOf(image, "_map.jpg"));
  for (const name of OUTLINES) setLayer(name, image.layers.includes(name) && pictureOf(image, `_${name}.svg`));
  document.getElementById("previous").setAttribute("aria-disabled", state.current === 0);
  document.getElementById("next").setAttribute("aria-disabled", state.current === state.shown.length - 1);
  document.getElementById("comment").value = noteOf(image).comment;
  drawWords(image);
  for (const place of [state.current + 1, state.current - 1]) {
    if (state.shown[place] && state.shown[place].picture) new Image().src = pictureOf(state.shown[place], ".jpg");
  }
}

function setLayer(name, source) {
  const layer = document.getElementById(`layer-${name}`);
  layer.hidden = !source;
  if (source) layer.src = source;
  else layer.removeAttribute("src");
  applyLayerControls();
}

function applyLayerControls() {
  document.getElementById("layer-map").style.opacity = document.getElementById("opacity").value;
  for (const name of OUTLINES) {
    document.getElementById(`layer-${name}`).style.visibility = document.getElementById(`show-${name}`).checked ? "" : "hidden";
  }
}

function drawWords(image) {
  const predicted = predictedLabel(image);
  document.getElementById("view-score").textContent = image.digits || "–";
  const field = document.getElementById("view-predicted");
  field.textContent = `${predicted || "–"}${isWrong(image) ? " (wrong)" : ""}`;
  field.className = `${predicted}-text`;
  document.getElementById("view-known").textContent = image.truth || "–";
  document.getElementById("view-place").textContent = `${state.current + 1} of ${state.shown.length}`;
  document.getElementById("layer-image").alt = `${nameOf(image)}, predicted ${predicted}`;
  for (const button of view.querySelectorAll("[data-mark]")) {
    button.setAttribute("aria-pressed", button.dataset.mark === noteOf(image).mark);
  }
}

function showOther(step) {
  const place = state.current + step;
  if (place < 0 || place >= state.shown.length) return;
  moveTo(place);
  drawView();
}

function toggleMark(mark) {
  const image = currentImage();
  tellIfNotSaved(setNote(image, { mark: noteOf(image).mark === mark ? "" : mark }));
  if (view.open) drawWords(image);
  drawAfterMarks();
}

// Mark the current image by a key; return whether the key is one of these.
function toggleMarkByKey(key) {
  const mark = { n: "normal", a: "anomalous", u: "unsure" }[key.toLowerCase()];
  if (mark) toggleMark(mark);
  return Boolean(mark);
}

view.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches("input[type='text']");
  if (isTyping && event.key === "Enter") event.target.blur();
  if (isTyping || (event.target.matches("input[type='range']") && event.key.startsWith("Arrow"))) return;
  if (event.key === "ArrowLeft") showOther(-1);
  else if (event.key === "ArrowRight") showOther(1);
  else if (!toggleMarkByKey(event.key)) return;
  event.preventDefault();
});

document.getElementById("layer-image").addEventListener("error", () => {
  document.getElementById("reason").textContent =
    "The picture is missing. Keep the folder “review” beside this page, or predict again.";
});
view.addEventListener("close", () => {
  showChosen(); // an image may no longer pass the filters
  grid.focus({ preventScroll: true });
});
view.addEventListener("click", (event) => {
  const button = event.target.closest("[data-mark]");
  if (button) toggleMark(button.dataset.mark);
});
document.getElementById("previous").addEventListener("click", () => showOther(-1));
document.getElementById("next").addEventListener("click", () => showOther(1));
document.getElementById("close").addEventListener("click", () => view.close());
document.getElementById("comment").addEventListener("input", (event) => {
  tellIfNotSaved(setNote(currentImage(), { comment: event.target.value }));
  refreshCards();
});
for (const id of ["opacity", "show-predicted", "show-true"]) {
  document.getElementById(id).addEventListener("input", applyLayerControls);
}
