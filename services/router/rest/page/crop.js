// The box on the photo: drawn, moved and resized by pointer or keys. Boxes are shares of width and height.

const LEAST_PIXELS = 8; // that the router embeds
const STEP = 0.02;
const ARROWS = {
  ArrowLeft: [-STEP, 0],
  ArrowRight: [STEP, 0],
  ArrowUp: [0, -STEP],
  ArrowDown: [0, STEP],
};

const between = (value, low, high) => Math.min(Math.max(value, low), high);

/** Return a box moved by shares, within the photo. */
export function moved(box, dx, dy) {
  const right = between(dx, -box.left, 1 - box.right);
  const down = between(dy, -box.top, 1 - box.bottom);
  return {
    left: box.left + right,
    right: box.right + right,
    top: box.top + down,
    bottom: box.bottom + down,
  };
}

/** Return a box with some edges (of l, r, t, b) moved by shares; no smaller than `least` of each side. */
export function resized(box, edges, dx, dy, least) {
  const { left, right, top, bottom } = box;
  return {
    left: edges.includes("l") ? between(left + dx, 0, right - least.width) : left,
    right: edges.includes("r") ? between(right + dx, left + least.width, 1) : right,
    top: edges.includes("t") ? between(top + dy, 0, bottom - least.height) : top,
    bottom: edges.includes("b") ? between(bottom + dy, top + least.height, 1) : bottom,
  };
}

export class Crop {
  /** `changed` is called with the box, null for the whole photo, whenever it changes. */
  constructor(stage, element, changed) {
    this.stage = stage;
    this.element = element;
    this.changed = changed;
    this.box = null;
    this.least = { width: 0.02, height: 0.02 };
    stage.addEventListener("pointerdown", (event) => this.#begin(event));
    element.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Begin with a photo of that many pixels. */
  reset(width, height) {
    this.least = {
      width: between(LEAST_PIXELS / width, 0.02, 1),
      height: between(LEAST_PIXELS / height, 0.02, 1),
    };
    this.#show(null);
  }

  set(box) {
    this.#show(box);
    this.changed(box);
  }

  #show(box) {
    this.box = box;
    const { element } = this;
    element.hidden = box === null;
    this.stage.classList.toggle("cropped", box !== null);
    if (!box) return;
    const percent = (share) => `${(100 * share).toFixed(2)}%`;
    element.style.left = percent(box.left);
    element.style.top = percent(box.top);
    element.style.width = percent(box.right - box.left);
    element.style.height = percent(box.bottom - box.top);
    const words = (from, to) => `${Math.round(100 * from)} to ${Math.round(100 * to)}%`;
    element.setAttribute(
      "aria-label",
      `across ${words(box.left, box.right)}, down ${words(box.top, box.bottom)}`,
    );
  }

  #key(event) {
    const arrow = ARROWS[event.key];
    if (event.key === "Escape" || event.key === "Delete") {
      event.preventDefault();
      this.set(null);
      this.element.dispatchEvent(new Event("cleared"));
    } else if (arrow) {
      event.preventDefault();
      this.set(
        event.shiftKey ? resized(this.box, "rb", ...arrow, this.least) : moved(this.box, ...arrow),
      );
    }
  }

  #begin(event) {
    if (event.button !== 0) return;
    const start = this.#at(event);
    const before = this.box;
    const edges = event.target.dataset?.edges;
    let drawn = edges || event.target === this.element ? before : null;
    const far = 6 / this.stage.getBoundingClientRect().width;
    const move = (moving) => {
      const at = this.#at(moving);
      const [dx, dy] = [at.x - start.x, at.y - start.y];
      if (edges) drawn = resized(before, edges, dx, dy, this.least);
      else if (event.target === this.element) drawn = moved(before, dx, dy);
      else if (drawn || Math.hypot(dx, dy) > far) drawn = this.#drawn(start, at);
      if (drawn) this.#show(drawn);
    };
    const end = () => {
      this.stage.removeEventListener("pointermove", move);
      this.stage.removeEventListener("pointerup", end);
      this.stage.removeEventListener("pointercancel", end);
      if (drawn && drawn !== before) this.set(drawn);
    };
    this.stage.setPointerCapture(event.pointerId);
    this.stage.addEventListener("pointermove", move);
    this.stage.addEventListener("pointerup", end);
    this.stage.addEventListener("pointercancel", end);
    if (drawn) this.element.focus({ preventScroll: true });
    event.preventDefault();
  }

  #drawn(start, at) {
    const { width, height } = this.least;
    const left = between(Math.min(start.x, at.x), 0, 1 - width);
    const top = between(Math.min(start.y, at.y), 0, 1 - height);
    return {
      left,
      top,
      right: Math.max(left + width, Math.max(start.x, at.x)),
      bottom: Math.max(top + height, Math.max(start.y, at.y)),
    };
  }

  #at(event) {
    const shown = this.stage.getBoundingClientRect();
    return {
      x: between((event.clientX - shown.left) / shown.width, 0, 1),
      y: between((event.clientY - shown.top) / shown.height, 0, 1),
    };
  }
}
