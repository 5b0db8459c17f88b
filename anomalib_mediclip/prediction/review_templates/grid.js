// Copyright (C) 2026 The anomalib-mediclip authors
// SPDX-License-Identifier: Apache-2.0

// Grid of thumbnails; only those near the window are in the page, so that 10,000 scroll like ten.

const CARD = { width: 180, height: 242, gap: 8 }; // pixels: least width and height with the gap
const BEYOND = 2; // rows above and below the window that are in the page too
const PRINTED = 500;

const grid = document.getElementById("grid");
const cards = new Map(); // by place in state.shown
let printing = false;
let columns = 1;
let pitch = CARD.width; // from one card to the next in a row

// Bring the page up to date after the images, their order or the size of the window have changed.
function layOutGrid() {
  columns = Math.max(1, Math.floor(grid.clientWidth / CARD.width));
  pitch = grid.clientWidth / columns;
  grid.style.height = `${Math.ceil(state.shown.length / columns) * CARD.height}px`;
  document.getElementById("empty").hidden = state.shown.length > 0;
  state.current = Math.max(0, Math.min(state.current, state.shown.length - 1));
  for (const card of cards.values()) card.remove();
  cards.clear();
  drawGrid();
}

function drawGrid() {
  const wanted = placesInWindow();
  for (const [place, card] of cards) {
    if (!wanted.has(place)) {
      card.remove();
      cards.delete(place);
    }
  }
  for (const place of wanted) {
    if (!cards.has(place)) {
      cards.set(place, makeCard(place));
      grid.append(cards.get(place));
    }
  }
  if (state.shown.length) grid.setAttribute("aria-activedescendant", `card-${state.current}`);
  else grid.removeAttribute("aria-activedescendant");
}

function placesInWindow() {
  if (printing) return new Set(state.shown.slice(0, PRINTED).keys());
  const { top } = grid.getBoundingClientRect();
  const first = Math.max(0, Math.floor(-top / CARD.height) - BEYOND) * columns;
  const last = (Math.ceil((window.innerHeight - top) / CARD.height) + BEYOND) * columns;
  const places = new Set();
  for (let place = first; place < Math.min(last, state.shown.length); place += 1) places.add(place);
  if (state.shown.length) places.add(state.current);
  return places;
}

function makeCard(place) {
  const image = state.shown[place];
  const card = element("div", { id: `card-${place}`, className: "card" });
  card.setAttribute("role", "option");
  card.setAttribute("aria-posinset", place + 1);
  card.setAttribute("aria-setsize", state.shown.length);
  card.dataset.place = place;
  card.title = image.file;
  card.style.width = `${pitch - CARD.gap}px`;
  card.style.transform = `translate(${(place % columns) * pitch}px, ${Math.floor(place / columns) * CARD.height}px)`;
  card.append(element("div", { className: "picture" }, image.picture ? thumbnailOf(image) : "unreadable"));
  fillCard(card, image, place);
  return card;
}

function thumbnailOf(image) {
  const thumbnail = element("img", { src: pictureOf(image, "_thumbnail.jpg"), alt: "", decoding: "async" });
  thumbnail.addEventListener("error", () => thumbnail.replaceWith("picture is missing"));
  return thumbnail;
}

// Write what may change while a card is in the page.
function fillCard(card, image, place) {
  const predicted = predictedLabel(image);
  const known = reference(image);
  const { mark, comment } = noteOf(image);
  const score = image.score === null ? "" : image.score.toFixed(3);
  const label = [
    nameOf(image), score && `score ${score}`, predicted && `predicted ${predicted}`, known && `known ${known}`,
    isWrong(image) && "wrong", mark && `marked ${mark}`,
  ].filter(Boolean).join(", ");
  const content = JSON.stringify([label, comment, place === state.current]);
  if (card.dataset.content === content) return; // the slider asks for all cards in every frame
  card.dataset.content = content;
  card.replaceChildren(card.firstChild); // the picture stays
  card.append(
    element("span", { className: "name" }, element("bdi", { textContent: nameOf(image) })),
    element("span", { className: "facts" },
      element("span", { textContent: score }),
      element("span", { className: `${predicted}-text`, textContent: predicted })),
    element("span", { className: "facts" },
      element("span", { className: isWrong(image) ? "wrong" : "", textContent: wordsOnTruth(image, known) })),
    element("span", { className: "comment", textContent: comment }),
  );
  if (mark) card.append(element("span", { className: "marked", textContent: mark }));
  card.classList.toggle("current", place === state.current);
  card.setAttribute("aria-selected", place === state.current);
  card.setAttribute("aria-label", label);
}

function wordsOnTruth(image, known) {
  return [isWrong(image) ? "wrong" : "", hasTruth && known ? `known ${known}` : ""].filter(Boolean).join(": ");
}

function refreshCards() {
  for (const [place, card] of cards) fillCard(card, state.shown[place], place);
}

// Make another image the current one, and scroll to it.
function moveTo(place) {
  if (!state.shown.length) return;
  state.current = Math.max(0, Math.min(place, state.shown.length - 1));
  const bench = document.querySelector(".bench");
  const covered = getComputedStyle(bench).position === "sticky" ? bench.offsetHeight : 0;
  const top = grid.getBoundingClientRect().top + Math.floor(state.current / columns) * CARD.height;
  if (top < covered) window.scrollBy(0, top - covered - 8);
  else if (top + CARD.height > window.innerHeight) window.scrollBy(0, top + CARD.height - window.innerHeight + 8);
  drawGrid();
  refreshCards();
}

function stepOf(key) {
  const page = Math.max(1, Math.floor(window.innerHeight / CARD.height) - 1) * columns;
  return { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page,
    Home: -Infinity, End: Infinity }[key];
}

grid.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !state.shown.length) return;
  const step = stepOf(event.key);
  if (step !== undefined) moveTo(state.current + step);
  else if (event.key === "Enter" || event.key === " ") openView();
  else if (!toggleMarkByKey(event.key)) return;
  event.preventDefault();
});

grid.addEventListener("focus", () => {
  if (grid.matches(":focus-visible")) moveTo(state.current); // reached by a key: not hidden below the controls
});

grid.addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (!card) return;
  moveTo(Number(card.dataset.place));
  openView();
});
