// Copyright (C) 2026 The anomalib-mediclip authors
// SPDX-License-Identifier: Apache-2.0

"use strict";

// review.csv as anomalib_mediclip/prediction/review.py reads and writes it.

const COLUMNS = ["file", "mark", "comment", "score", "label", "threshold", "run"];
const MARKS = ["normal", "anomalous", "unsure"];

// A cell that a spreadsheet takes for a formula gets an apostrophe, and so does one that begins with an apostrophe.
function escapeFormula(text) {
  return /^[=+\-@\t\n']/.test(text) ? `'${text}` : text;
}

function unescapeFormula(cell) {
  return cell.replace(/^'/, "");
}

function quoteCell(cell) {
  const text = cell.replaceAll("\r", "\\r");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function writeReview(rows, threshold, run) {
  const lines = rows.map(({ file, mark, comment, score, label }) =>
    [escapeFormula(file), mark, escapeFormula(comment), score, label, String(threshold), run]);
  return [COLUMNS, ...lines].map((cells) => `${cells.map(quoteCell).join(",")}\n`).join("");
}

function parseCsv(text) {
  const rows = [];
  const cells = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|\r|$)/y; // a cell, and what ends it
  for (let row = []; cells.lastIndex < text.length;) {
    const line = rows.length + 1;
    const found = cells.exec(text);
    if (!found) throw new Error(`Row ${line} is no CSV.`);
    row.push(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'));
    if (found[3] !== ",") {
      rows.push(row);
      row = [];
    } else if (cells.lastIndex === text.length) {
      rows.push([...row, ""]);
    }
  }
  return rows;
}

// Return threshold, run and the marks and comments by file; throw an Error that says what is wrong.
function readReview(text) {
  const [header, ...rows] = parseCsv(text.replace(/^\ufeff/, ""));
  const missing = COLUMNS.filter((column) => !(header || []).includes(column));
  if (missing.length) throw new Error(`There is no column ${missing.join(", ")}: this is no review.csv with commas.`);
  if (!rows.length) throw new Error("There are no rows.");
  const review = { marks: new Map(), threshold: null, run: null };
  rows.forEach((cells, index) => {
    if (cells.length !== header.length) throw new Error(`Row ${index + 2} has ${cells.length} fields, not ${header.length}.`);
    addRow(review, Object.fromEntries(header.map((column, place) => [column, cells[place]])), index + 2);
  });
  return review;
}

function addRow(review, row, line) {
  const file = unescapeFormula(row.file);
  const threshold = row.threshold.trim() === "" ? NaN : Number(row.threshold);
  if (!Number.isFinite(threshold)) throw new Error(`Row ${line}: threshold “${row.threshold}” is no number.`);
  if (review.run !== null && (threshold !== review.threshold || row.run !== review.run)) {
    throw new Error(`Row ${line} has another threshold or run than the rows before.`);
  }
  if (row.mark && !MARKS.includes(row.mark)) throw new Error(`Row ${line}: mark “${row.mark}” is unknown.`);
  const former = review.marks.get(file);
  if (former && former.mark && row.mark && former.mark !== row.mark) {
    throw new Error(`${file} is marked as ${former.mark} and as ${row.mark}. Leave one of the two rows.`);
  }
  review.threshold = threshold;
  review.run = row.run;
  const mark = row.mark || (former ? former.mark : "");
  const comment = unescapeFormula(row.comment) || (former ? former.comment : "");
  review.marks.set(file, { mark, comment });
}
