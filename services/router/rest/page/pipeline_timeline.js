// The tiers as lanes of shards over their age: now is at the right, and the scale is logarithmic.

import { element, keyed, say, set, shape } from "./pipeline_draw.js";
import { cells, table } from "./pipeline_stages.js";
import { count, counted, dateTime, duration, shardWords } from "./pipeline_words.js";

const NEAR_SECONDS = 30;
const TICKS = [60, 600, 3600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000];
const TICK_WORDS = ["1 min", "10 min", "1 h", "6 h", "1 day", "1 week", "30 days", "1 year"];
const TICK_WIDTH = 52;
const LANE_HEIGHT = 96;
const BAR_HEIGHT = 14;
const LEAST_WIDTH = 4;

export class Timeline {
  constructor() {
    this.lanes = element("div", { class: "lanes" });
    this.known = new Map();
    this.parts = new Map();
    this.axis = shape("svg", { class: "axis", "aria-hidden": "true", height: "20" });
    this.tooltip = element("div", { class: "tooltip", role: "tooltip", id: "pipeline-shard", hidden: "" });
    this.rows = element("tbody");
    this.rowNodes = new Map();
    this.frame = element("div", { class: "timeline" }, this.lanes, this.axis, this.tooltip);
    this.node = element(
      "section",
      { "aria-labelledby": "pipeline-tiers" },
      element("h2", { id: "pipeline-tiers" }, "Tiers and shards"),
      element(
        "p",
        { class: "hint" },
        "Each bar is a shard at its age; the pale end is its share of hidden rows. Point at one, or move with the arrow keys.",
      ),
      this.frame,
      element(
        "details",
        {},
        element("summary", {}, "Shards as a table"),
        table("Shards", ["Shard", "Tier", "From", "Length", "Rows", "Hidden", "Model", "Ranges", "Served by"], this.rows),
      ),
    );
    this.resized = new ResizeObserver(() => this.state && this.draw());
    this.resized.observe(this.frame);
  }

  close() {
    this.resized.disconnect();
  }

  update(state) {
    this.state = state;
    this.draw();
    const shards = state.tiers.flatMap(({ tier, shards }) => shards.map((one) => ({ tier, ...one })));
    cells(this.rows, this.rowNodes, shards, (one) => `${one.tier}/${one.shard_id}`, (one) => [
      one.shard_id,
      one.tier,
      one.bucket_start === null ? "–" : dateTime(one.bucket_start),
      one.bucket_seconds === null ? "open" : duration(one.bucket_seconds),
      count(one.rows),
      count(one.hidden_rows),
      one.model_id,
      one.ranges.map((r) => `${r.partition}: ${count(r.from_offset)}–${count(r.to_offset)}`).join(", "),
      one.served_by.join(", "),
    ]);
  }

  draw() {
    const { tiers, now } = this.state;
    keyed(this.lanes, this.known, tiers, {
      key: (tier) => tier.tier,
      make: (tier) => this.makeLane(tier),
      update: () => {},
    });
    const width = this.parts.get(tiers[0].tier).svg.getBoundingClientRect().width;
    if (width === 0) return; // not shown yet
    const starts = tiers.flatMap((tier) => tier.shards.map((one) => one.bucket_start ?? now));
    const oldest = Math.max(3600, now - Math.min(now, ...starts)) * 1.1;
    const x = (age) => width * (1 - Math.log1p(Math.max(0, age) / NEAR_SECONDS) / Math.log1p(oldest / NEAR_SECONDS));
    const ticks = visibleTicks(x, oldest);
    for (const tier of tiers) this.drawLane(tier, now, x, width, ticks);
    this.drawAxis(x, width, ticks);
    this.place();
  }

  makeLane({ tier }) {
    const svg = shape("svg", { role: "listbox", "aria-label": `Shards of the ${tier} tier`, "aria-orientation": "horizontal" });
    const parts = {
      svg,
      grid: shape("g", { class: "grid" }),
      bars: shape("g"),
      known: new Map(),
      words: element("p", {}),
      none: shape("text", { class: "none", x: "8", y: "20" }, "no shards"),
    };
    svg.append(parts.grid, parts.bars, parts.none);
    svg.addEventListener("keydown", (event) => this.move(event, parts));
    this.parts.set(tier, parts);
    return element("div", { class: "lane", "data-tier": tier }, element("div", { class: "name" }, element("h3", {}, tier), parts.words), svg);
  }

  drawLane(tier, now, x, width, ticks) {
    const parts = this.parts.get(tier.tier);
    const hidden = tier.hidden_rows ? `, ${count(tier.hidden_rows)} hidden` : "";
    say(parts.words, tier.shard_count ? `${counted(tier.shard_count, "shard")}, ${counted(tier.rows, "row")}${hidden}` : "");
    const placed = packed(tier.shards.map((one) => spanOf(one, now, x, width)));
    const rows = Math.max(1, ...placed.map((one) => one.row + 1));
    const step = Math.max(3, Math.min(BAR_HEIGHT + 3, LANE_HEIGHT / rows));
    const height = Math.max(32, rows * step + 10);
    set(parts.svg, { height, viewBox: `0 0 ${width} ${height}` });
    set(parts.none, { visibility: placed.length ? "hidden" : "visible" });
    parts.grid.replaceChildren(
      ...ticks.map(({ at }) => shape("line", { x1: at, x2: at, y1: 0, y2: height })),
    );
    keyed(parts.bars, parts.known, placed, {
      key: (one) => one.shard.shard_id,
      make: (one) => this.makeBar(one, tier.tier),
      update: (bar, one) => drawBar(bar, one, step),
    });
    const stop = [...parts.known.values()].find((bar) => bar.getAttribute("tabindex") === "0");
    if (!stop) parts.bars.lastElementChild?.setAttribute("tabindex", "0");
  }

  makeBar({ shard }, tier) {
    const bar = shape(
      "g",
      { class: "bar", role: "option", "aria-selected": "false", tabindex: "-1", "data-shard": shard.shard_id },
      shape("rect", { class: "all", rx: 2 }),
      shape("rect", { class: "visible", rx: 2 }),
    );
    const show = () => this.show(bar, tier, shard.shard_id);
    bar.addEventListener("pointerenter", show);
    bar.addEventListener("focus", show);
    bar.addEventListener("pointerleave", () => this.hide(bar));
    bar.addEventListener("blur", () => this.hide(bar));
    return bar;
  }

  drawAxis(x, width, ticks) {
    set(this.axis, { viewBox: `0 0 ${width} 20` });
    this.axis.replaceChildren(
      ...ticks.map(({ at, words }) => shape("text", { x: at, y: 14, "text-anchor": "middle" }, words)),
      shape("text", { x: width, y: 14, "text-anchor": "end" }, "now"),
    );
  }

  move(event, parts) {
    const bars = [...parts.bars.children];
    const at = bars.indexOf(document.activeElement);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: bars.length - 1 }[event.key];
    if (event.key === "Escape") this.tooltip.hidden = true;
    if (to === undefined || at < 0 || !bars[to]) return;
    event.preventDefault();
    bars[at].setAttribute("tabindex", "-1");
    bars[to].setAttribute("tabindex", "0");
    bars[to].focus();
  }

  show(bar, tier, shardId) {
    this.shown = { bar, tier, shardId };
    this.tooltip.hidden = false;
    bar.setAttribute("aria-selected", "true");
    this.place();
  }

  hide(bar) {
    bar.setAttribute("aria-selected", "false");
    if (this.shown?.bar !== bar) return;
    this.shown = null;
    this.tooltip.hidden = true;
  }

  /** Fill the tooltip with the shard as it is now, below its bar and within the frame. */
  place() {
    if (!this.shown) return;
    const { bar, tier, shardId } = this.shown;
    const shard = this.state.tiers.find((one) => one.tier === tier)?.shards.find((one) => one.shard_id === shardId);
    if (!shard || !bar.isConnected) {
      this.hide(bar);
      return;
    }
    const words = shardWords(shard);
    if (this.tooltip.innerText !== words.join("\n")) {
      this.tooltip.replaceChildren(...words.map((one) => element("div", {}, one)));
    }
    const frame = this.frame.getBoundingClientRect();
    const box = bar.getBoundingClientRect();
    const left = Math.min(box.left - frame.left, frame.width - this.tooltip.offsetWidth);
    this.tooltip.style.left = `${Math.max(0, left)}px`;
    this.tooltip.style.top = `${box.bottom - frame.top + 6}px`;
  }
}

function visibleTicks(x, oldest) {
  const ticks = [];
  let last = x(0) - 12;
  TICKS.forEach((seconds, index) => {
    const at = x(seconds);
    if (seconds > oldest || last - at < TICK_WIDTH || at < TICK_WIDTH / 2) return;
    ticks.push({ at: at.toFixed(1), words: TICK_WORDS[index] });
    last = at;
  });
  return ticks;
}

function spanOf(shard, now, x, width) {
  const start = shard.bucket_start ?? now;
  const end = shard.bucket_seconds === null ? now : start + shard.bucket_seconds;
  let left = x(now - start);
  const right = Math.max(x(now - end) - 1, left + LEAST_WIDTH);
  left -= Math.max(0, right - width); // stays inside where it is newest
  return { shard, left, right: Math.min(right, width), row: 0 };
}

/** Put each span into the first row where it overlaps no other one by more than a narrow bar. */
function packed(spans) {
  const ends = [];
  for (const span of spans) {
    let row = ends.findIndex((end) => end <= span.left + LEAST_WIDTH);
    if (row < 0) row = ends.length;
    ends[row] = span.right;
    span.row = row;
  }
  return spans;
}

function drawBar(bar, { shard, left, right, row }, step) {
  const width = right - left;
  const height = step > 5 ? step - 3 : step - 1;
  const shown = shard.rows ? 1 - shard.hidden_rows / shard.rows : 0;
  const box = { x: left.toFixed(1), y: (5 + row * step).toFixed(1), height: height.toFixed(1) };
  set(bar.children[0], { ...box, width: width.toFixed(1) });
  set(bar.children[1], { ...box, width: (width * shown).toFixed(1) });
  set(bar, { "aria-label": shardWords(shard).join(", ") });
  bar.classList.toggle("open", shard.bucket_seconds === null);
}
