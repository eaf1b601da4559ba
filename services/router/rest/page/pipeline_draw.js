// Elements, and lines over the last minutes in SVG. What is drawn stays, and only changes.

import { HISTORY_SECONDS } from "./pipeline_history.js";

const SVG = "http://www.w3.org/2000/svg";
const GAP_SECONDS = 4;

/** Return a new element with attributes and children. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Set a text only if it changes, so that a selection in it stays. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
}

/** Make a parent's children those of the items by key, in their order; existing ones are updated. */
export function keyed(parent, known, items, { key, make, update }) {
  const wanted = new Set();
  let before = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    wanted.add(name);
    let node = known.get(name);
    if (!node) known.set(name, (node = make(item)));
    if (node === before) before = before.nextElementSibling;
    else parent.insertBefore(node, before);
    update(node, item);
  }
  for (const [name, node] of known) {
    if (wanted.has(name)) continue;
    node.remove();
    known.delete(name);
  }
}

/** A line of values over the last minutes, broken where they are unknown. */
export class Line {
  constructor(label, { height = 36, floor = 1 } = {}) {
    this.height = height;
    this.floor = floor;
    this.area = shape("path", { class: "area" });
    this.line = shape("path", { class: "line" });
    this.svg = shape(
      "svg",
      {
        class: "spark",
        role: "img",
        "aria-label": label,
        viewBox: `0 0 ${HISTORY_SECONDS} ${height}`,
        preserveAspectRatio: "none",
      },
      this.area,
      this.line,
    );
  }

  /** Draw values at Unix seconds up to ``now``; returns the highest value. */
  draw(at, values, now) {
    const highest = Math.max(this.floor, ...values.map((value) => value ?? 0));
    const runs = [];
    let last = null;
    values.forEach((value, index) => {
      if (value === null || value === undefined) return;
      const x = HISTORY_SECONDS - (now - at[index]);
      if (x < 0) return;
      if (last === null || at[index] - last > GAP_SECONDS) runs.push([]);
      last = at[index];
      const y = this.height - 2 - (value / highest) * (this.height - 4);
      runs.at(-1).push([x.toFixed(1), y.toFixed(1)]);
    });
    // A value by itself is a short line.
    const lines = runs.map((run) => (run.length > 1 ? run : [run[0], [Number(run[0][0]) + 1.5, run[0][1]]]));
    set(this.line, { d: lines.map((run) => `M${run.map((p) => p.join(" ")).join("L")}`).join("") });
    set(this.area, {
      d: lines
        .map((run) => `M${run[0][0]} ${this.height}L${run.map((p) => p.join(" ")).join("L")}L${run.at(-1)[0]} ${this.height}Z`)
        .join(""),
    });
    return highest;
  }
}
