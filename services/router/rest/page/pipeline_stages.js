// The stages as a row of figures, each with its rate over the last minutes.

import { Line, element, keyed, say } from "./pipeline_draw.js";
import { NAMES, count, duration, lag, meaning, rate } from "./pipeline_words.js";

const LATE_SECONDS = 10;

export class Stages {
  constructor() {
    this.list = element("ol", { class: "stages" });
    this.known = new Map();
    this.parts = new Map();
    this.rows = element("tbody");
    this.rowNodes = new Map();
    this.partitionRows = element("tbody");
    this.partitionNodes = new Map();
    this.node = element(
      "section",
      { "aria-labelledby": "pipeline-stages" },
      element("h2", { id: "pipeline-stages" }, "Stages"),
      this.list,
      element(
        "details",
        {},
        element("summary", {}, "Stages and partitions as tables"),
        table("Stages", ["Stage", "Topic", "Offsets", "Per second", "Behind", "Oldest waits"], this.rows),
        table("Partitions", ["Stage", "Partition", "Processed", "End", "Behind"], this.partitionRows),
      ),
    );
  }

  update(state, history) {
    keyed(this.list, this.known, state.stages, {
      key: (one) => one.stage,
      make: (one) => this.make(one),
      update: (_, one) => this.draw(one, history, state.now),
    });
    cells(this.rows, this.rowNodes, state.stages, (one) => one.stage, (one) => [
      NAMES[one.stage] ?? one.stage,
      one.topic ?? "unknown",
      count(one.processed),
      one.rate === null ? "unknown" : rate(one.rate),
      one.stage === "app" ? "–" : count(one.behind),
      one.waiting_seconds === null ? "–" : duration(one.waiting_seconds),
    ]);
    const partitions = state.stages.flatMap(({ stage, partitions }) =>
      partitions.map((one) => ({ stage, ...one })),
    );
    cells(
      this.partitionRows,
      this.partitionNodes,
      partitions,
      (one) => `${one.stage}/${one.partition}`,
      (one) => [NAMES[one.stage], String(one.partition), count(one.processed), count(one.end), count(one.behind)],
    );
  }

  make({ stage }) {
    const parts = {
      rate: element("span", { class: "figure" }),
      lag: element("p", { class: "lag" }),
      line: new Line(`${NAMES[stage] ?? stage}: rate over the last five minutes`),
    };
    this.parts.set(stage, parts);
    return element(
      "li",
      { "data-stage": stage },
      element("h3", {}, NAMES[stage] ?? stage),
      element("p", { class: "rate" }, parts.rate, element("span", { class: "unit" }, "/s")),
      element("p", { class: "meaning" }, meaning(stage)),
      parts.line.svg,
      parts.lag,
    );
  }

  draw(one, history, now) {
    const parts = this.parts.get(one.stage);
    say(parts.rate, rate(one.rate));
    say(parts.lag, one.stage === "app" ? `${count(one.processed)} in the log` : lag(one));
    parts.lag.classList.toggle("late", one.behind > 0 && one.waiting_seconds > LATE_SECONDS);
    parts.line.draw(history.at, history.rates[one.stage] ?? [], now);
  }
}

/** Return a table with a caption; it scrolls by itself where it is too wide. */
export function table(caption, names, body) {
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element("table", {}, element("caption", {}, caption), element("thead", {}, head), body),
  );
}

/** Make a table's rows those of the items, each with the texts of its cells; the first one is its header. */
export function cells(body, known, items, key, texts) {
  keyed(body, known, items, {
    key,
    make: (item) =>
      element("tr", {}, ...texts(item).map((_, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }))),
    update: (row, item) => texts(item).forEach((text, i) => say(row.children[i], text)),
  });
}
