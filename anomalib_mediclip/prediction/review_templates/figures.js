// Copyright (C) 2026 The anomalib-mediclip authors
// SPDX-License-Identifier: Apache-2.0

// Histogram of scores, counts at the threshold, and agreement with what is known.

const BINS = 40;

function count() {
  const counts = { anomalous: 0, normal: 0, unreadable: 0, truePositives: 0, falsePositives: 0, trueNegatives: 0, falseNegatives: 0 };
  for (const image of images) {
    const predicted = predictedLabel(image);
    if (predicted) counts[predicted] += 1;
    const known = reference(image);
    if (!known || image.score === null) continue;
    if (known === "anomalous") counts[predicted === "anomalous" ? "truePositives" : "falseNegatives"] += 1;
    else counts[predicted === "anomalous" ? "falsePositives" : "trueNegatives"] += 1;
  }
  return counts;
}

// Return the corners of the ROC curve: share of normal and share of anomalous images above each score.
function rocCurve() {
  const known = images.filter((image) => image.score !== null && reference(image)).sort((one, other) => other.score - one.score);
  const anomalous = known.filter((image) => reference(image) === "anomalous").length;
  const normal = known.length - anomalous;
  if (!anomalous || !normal) return null;
  const curve = [[0, 0]];
  let [above, alarms] = [0, 0];
  known.forEach((image, place) => {
    if (reference(image) === "anomalous") above += 1;
    else alarms += 1;
    const isLastOfItsScore = place + 1 === known.length || known[place + 1].score !== image.score;
    if (isLastOfItsScore) curve.push([alarms / normal, above / anomalous]);
  });
  return curve;
}

function areaUnder(curve) {
  return curve.slice(1).reduce((area, [x, y], place) => area + ((x - curve[place][0]) * (y + curve[place][1])) / 2, 0);
}

function share(part, whole) {
  return whole ? (part / whole).toFixed(3) : "–";
}

function drawHistogram() {
  const kinds = ["anomalous", "normal", "unknown"];
  const bins = Array.from({ length: BINS }, () => ({ anomalous: 0, normal: 0, unknown: 0 }));
  for (const image of images) {
    if (image.score === null) continue;
    const bin = Math.min(BINS - 1, Math.floor(((image.score - lowest) / (highest - lowest)) * BINS));
    bins[bin][reference(image) || "unknown"] += 1;
  }
  const tallest = Math.max(1, ...bins.map((bin) => bin.anomalous + bin.normal + bin.unknown));
  const bars = bins.flatMap((bin, x) => {
    let y = 1;
    return kinds.filter((kind) => bin[kind]).map((kind) => {
      const height = Math.max(0.03, bin[kind] / tallest);
      y -= height;
      return drawing("rect", { x: x + 0.05, y, width: 0.9, height, class: kind });
    });
  });
  document.getElementById("histogram").replaceChildren(...bars, drawing("line", { id: "cut", y1: -0.05, y2: 1 }));
}

function drawRoc() {
  const curve = rocCurve();
  const roc = document.getElementById("roc");
  roc.parentElement.hidden = !curve;
  document.getElementById("auroc").textContent = curve ? areaUnder(curve).toFixed(3) : "";
  const points = (curve || []).map(([x, y]) => `${(100 * x).toFixed(2)} ${(100 - 100 * y).toFixed(2)}`);
  roc.replaceChildren(
    drawing("rect", { width: 100, height: 100 }),
    drawing("path", { d: points.length ? `M${points.join("L")}` : "" }),
    drawing("circle", { id: "operating-point", r: 4 }),
  );
}

// Draw what depends on labels and marks.
function drawFigures() {
  const known = images.filter((image) => reference(image)).length;
  document.getElementById("quality").hidden = document.getElementById("legend").hidden = known === 0;
  document.getElementById("known").textContent = hasTruth
    ? `Against the labels of the data set: ${known}` : `Against your marks of normal and anomalous: ${known}`;
  drawHistogram();
  drawRoc();
  drawThreshold();
}

// Draw what depends on the threshold.
function drawThreshold() {
  const counts = count();
  const slider = document.getElementById("slider");
  const field = document.getElementById("threshold");
  const words = `${counts.anomalous} anomalous, ${counts.normal} normal${counts.unreadable ? `, ${counts.unreadable} unreadable` : ""}`;
  document.getElementById("counts").textContent = words;
  slider.value = state.threshold;
  slider.setAttribute("aria-valuetext", `${state.threshold}: ${words}`);
  if (document.activeElement !== field) field.value = state.threshold;
  const x = BINS * Math.max(0, Math.min(1, (state.threshold - lowest) / (highest - lowest)));
  const cut = document.getElementById("cut");
  cut.setAttribute("x1", x);
  cut.setAttribute("x2", x);
  drawAgreement(counts);
}

function drawAgreement({ truePositives, falsePositives, trueNegatives, falseNegatives }) {
  const texts = {
    "true-positives": truePositives, "false-positives": falsePositives,
    "true-negatives": trueNegatives, "false-negatives": falseNegatives,
    sensitivity: share(truePositives, truePositives + falseNegatives),
    specificity: share(trueNegatives, trueNegatives + falsePositives),
  };
  for (const [id, text] of Object.entries(texts)) document.getElementById(id).textContent = text;
  const point = document.getElementById("operating-point");
  point.setAttribute("cx", 100 * (falsePositives / Math.max(1, falsePositives + trueNegatives)));
  point.setAttribute("cy", 100 - 100 * (truePositives / Math.max(1, truePositives + falseNegatives)));
  document.getElementById("roc").setAttribute(
    "aria-label", `ROC curve, at sensitivity ${texts.sensitivity} and specificity ${texts.specificity}`);
}
