// Coverage, freshness, dead letters and endpoints, in words and one line.

import { Line, element, keyed, say } from "./pipeline_draw.js";
import { cells, table } from "./pipeline_stages.js";
import { clockTime, count, counted, coverageWords, duration } from "./pipeline_words.js";

const SHOWN_EVERY_SECONDS = 10;

export class Facts {
  constructor() {
    this.coverage = element("ul", { class: "words" });
    this.coverageNodes = new Map();
    this.verdict = element("p", { class: "verdict" });
    this.letters = element("ul", { class: "words letters" });
    this.letterNodes = new Map();
    this.lettersVerdict = element("p", { class: "verdict" });
    this.freshness = element("p", { class: "verdict" });
    this.scale = element("span", { class: "scale" });
    this.line = new Line("Freshness over the last five minutes", { height: 48, floor: 0.1 });
    this.rows = element("tbody");
    this.rowNodes = new Map();
    this.node = element(
      "div",
      { class: "facts" },
      card("pipeline-coverage", "Coverage", this.verdict, this.coverage),
      card(
        "pipeline-freshness",
        "Freshness",
        this.freshness,
        element("div", { class: "plot" }, this.line.svg, this.scale),
        element("p", { class: "ends" }, element("span", {}, "5 min ago"), element("span", {}, "now")),
        element("details", {}, element("summary", {}, "As a table"), table("Freshness", ["Time", "Until searchable"], this.rows)),
      ),
      card("pipeline-letters", "Dead letters", this.lettersVerdict, this.letters),
    );
  }

  update(state, history) {
    say(this.verdict, state.coverage.complete ? "Complete" : "Incomplete");
    this.verdict.classList.toggle("good", state.coverage.complete);
    this.verdict.classList.toggle("bad", !state.coverage.complete);
    sentences(this.coverage, this.coverageNodes, coverageWords(state.coverage));
    this.updateFreshness(state, history);
    this.updateLetters(state.dead_letters, history.newDeadLetters);
  }

  updateFreshness({ freshness_seconds: seconds, now }, history) {
    const latest = seconds ?? [...history.freshness].reverse().find((one) => one !== null) ?? null;
    const words = latest === null ? "No event became searchable lately" : `${duration(latest)} from event to searchable`;
    say(this.freshness, seconds === null && latest !== null ? `Last: ${words}` : words);
    const highest = this.line.draw(history.at, history.freshness, now);
    say(this.scale, latest === null ? "" : duration(highest));
    const marks = [];
    history.at.forEach((at, index) => {
      if (marks.length && at - marks.at(-1).at < SHOWN_EVERY_SECONDS) return;
      marks.push({ at, value: history.freshness[index] });
    });
    cells(this.rows, this.rowNodes, marks, (one) => String(one.at), (one) => [
      clockTime(one.at),
      one.value === null ? "none became searchable" : duration(one.value),
    ]);
  }

  updateLetters(topics, added) {
    const total = topics.reduce((sum, one) => sum + one.records, 0);
    const verdict = topics.length === 0 ? "Unknown" : total === 0 ? "None" : `${count(total)} retained`;
    say(this.lettersVerdict, verdict);
    // What is retained may long be resolved; what is new is not.
    this.lettersVerdict.classList.toggle("bad", added > 0);
    this.lettersVerdict.classList.toggle("good", topics.length > 0 && total === 0);
    const words = topics.map(({ topic, records }) => `${topic}: ${counted(records, "record")}`);
    if (added > 0) words.unshift(`${count(added)} of them new in the last five minutes.`);
    if (topics.length === 0) words.push("No live tier could read the topics lately.");
    sentences(this.letters, this.letterNodes, words);
  }
}

export class Endpoints {
  constructor() {
    this.rows = element("tbody");
    this.rowNodes = new Map();
    this.node = element(
      "section",
      { "aria-labelledby": "pipeline-endpoints", class: "endpoints" },
      element("h2", { id: "pipeline-endpoints" }, "Endpoints"),
      table("Endpoints", ["Endpoint", "Tier", "State", "Shards", "Rows", "Hidden", "Model", "Address"], this.rows),
    );
  }

  update({ tiers, model_id: model }) {
    const endpoints = tiers.flatMap((tier) => tier.endpoints);
    cells(this.rows, this.rowNodes, endpoints, (one) => one.name, (one) => [
      one.name,
      one.tier || "–",
      stateOf(one, model),
      count(one.shards),
      count(one.rows),
      count(one.hidden_rows),
      one.model_id ?? "unknown",
      one.address,
    ]);
    for (const one of endpoints) {
      const state = this.rowNodes.get(one.name).children[2];
      state.className = one.ready ? "good" : otherModel(one, model) ? "" : "bad";
    }
  }
}

function otherModel(endpoint, model) {
  return !endpoint.ready && !endpoint.error && endpoint.model_id !== null && endpoint.model_id !== model;
}

function stateOf(endpoint, model) {
  if (endpoint.ready) return "ready";
  if (otherModel(endpoint, model)) return "holds another model, not searched";
  return endpoint.error ? `not ready: ${endpoint.error}` : "not ready";
}

function card(id, title, ...children) {
  return element("section", { "aria-labelledby": id, class: "fact" }, element("h2", { id }, title), ...children);
}

function sentences(list, known, words) {
  keyed(list, known, words.map((text, index) => ({ text, index })), {
    key: (one) => one.index,
    make: () => element("li"),
    update: (node, one) => say(node, one.text),
  });
}
