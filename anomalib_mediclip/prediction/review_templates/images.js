// Copyright (C) 2026 The anomalib-mediclip authors
// SPDX-License-Identifier: Apache-2.0

// The images of the run, what a person says of them, and which of them are shown.

const facts = JSON.parse(document.getElementById("facts").textContent); // run: SHA-256 of the table; threshold
const images = JSON.parse(document.getElementById("images").textContent).map(
  ([file, digits, label, truth, picture, width, height, layers, reason], place) => {
    const score = digits !== "" && Number.isFinite(Number(digits)) ? Number(digits) : null;
    return { file, digits: score === null ? "" : digits, score, label, truth, picture, width, height, layers, reason, place };
  },
);
const folder = commonFolder(images.map((image) => image.file));
const hasTruth = images.some((image) => image.truth);
const scores = images.map((image) => image.score).filter((score) => score !== null);
const lowest = scores.reduce((least, score) => Math.min(least, score), 0);
const highest = scores.reduce((most, score) => Math.max(most, score), 1);
const storageKey = `anomalib-mediclip-review-${facts.run}`;

const state = {
  threshold: facts.threshold,
  marks: new Map(), // {mark, comment} by file
  order: "descending",
  filters: { predicted: "", reference: "", mark: "" },
  shown: [],
  current: 0, // place in shown
};

function commonFolder(files) {
  let prefix = (files[0] || "").replace(/[^/]*$/, "");
  for (const file of files) {
    while (!file.startsWith(prefix)) prefix = prefix.replace(/[^/]*\/$/, "");
  }
  return prefix;
}

function nameOf(image) {
  return image.file.slice(folder.length);
}

function noteOf(image) {
  return state.marks.get(image.file) || { mark: "", comment: "" };
}

function predictedLabel(image) {
  if (image.score === null) return image.label;
  return image.score > state.threshold ? "anomalous" : "normal";
}

// What is known of an image: the label of the data set; of a folder without labels, the mark.
function reference(image) {
  if (hasTruth) return image.truth;
  const { mark } = noteOf(image);
  return mark === "unsure" ? "" : mark;
}

function isWrong(image) {
  const known = reference(image);
  return known !== "" && image.score !== null && known !== predictedLabel(image);
}

function passes(image) {
  const { predicted, reference: known, mark } = state.filters;
  if (predicted && predictedLabel(image) !== predicted) return false;
  if (known && (known === "wrong" ? !isWrong(image) : reference(image) !== known)) return false;
  return !mark || noteOf(image).mark === (mark === "none" ? "" : mark);
}

const orders = {
  descending: (one, other) => byScore(other, one),
  ascending: byScore,
  nearest: (one, other) => Math.abs(one.score - state.threshold) - Math.abs(other.score - state.threshold),
  name: () => 0,
};

function byScore(one, other) {
  return one.score - other.score;
}

// Choose and sort the images; those without a score come last, and equal ones stay in the order of the table.
function chooseShown() {
  const kept = images.filter(passes);
  if (state.order === "name") return kept;
  const scored = kept.filter((image) => image.score !== null).sort(orders[state.order]);
  return [...scored, ...kept.filter((image) => image.score === null)];
}

function setNote(image, change) {
  const note = { ...noteOf(image), ...change };
  if (note.mark || note.comment) state.marks.set(image.file, note);
  else state.marks.delete(image.file);
  return save();
}

// Keep threshold and marks in the browser; return whether it could.
function save() {
  try {
    localStorage.setItem(storageKey, JSON.stringify({ threshold: state.threshold, marks: [...state.marks] }));
    return true;
  } catch {
    return false;
  }
}

function load() {
  try {
    const { threshold, marks } = JSON.parse(localStorage.getItem(storageKey)) || { threshold: facts.threshold, marks: [] };
    state.threshold = threshold;
    state.marks = new Map(marks);
  } catch {
    // no storage, or nothing that this page has written
  }
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function drawing(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function pictureOf(image, ending) {
  return `${image.picture}${ending}`;
}
