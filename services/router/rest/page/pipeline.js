// The live pipeline: asks the router about once a second and changes what differs.

import { element, say } from "./pipeline_draw.js";
import { Endpoints, Facts } from "./pipeline_facts.js";
import { History } from "./pipeline_history.js";
import { Stages } from "./pipeline_stages.js";
import { Timeline } from "./pipeline_timeline.js";
import { clockTime, summary } from "./pipeline_words.js";

const EVERY_MS = 1000;
const RETRY_MS = 2000;
const TIMEOUT_MS = 5000;
const READ_OUT_MS = 15_000;

let view = null;

/** Show the pipeline in an element, until ``unmount``. */
export function mount(parent) {
  unmount();
  view = new View(parent);
}

export function unmount() {
  view?.close();
  view = null;
}

class View {
  constructor(parent) {
    addStyles();
    this.history = new History();
    this.state = null;
    this.readOutAt = -Infinity;
    this.parts = [new Stages(), new Facts(), new Timeline(), new Endpoints()];
    this.status = element("p", { class: "status" }, "Asking the router …");
    this.readOut = element("p", { class: "read-out", "aria-live": "polite" });
    this.content = element("div", { class: "content", hidden: "" }, ...this.parts.map((one) => one.node));
    this.root = element(
      "div",
      { class: "pipeline-view" },
      element("header", {}, element("h1", {}, "Pipeline"), this.status),
      this.readOut,
      this.content,
    );
    parent.append(this.root);
    this.resumed = () => document.hidden || this.ask();
    document.addEventListener("visibilitychange", this.resumed);
    this.ask();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.request?.abort();
    document.removeEventListener("visibilitychange", this.resumed);
    for (const part of this.parts) part.close?.();
    this.root.remove();
  }

  async ask() {
    clearTimeout(this.timer);
    this.request?.abort();
    const request = (this.request = new AbortController());
    const timeout = setTimeout(() => request.abort(), TIMEOUT_MS);
    let wait = EVERY_MS;
    try {
      const state = await asked(this.history.since, request.signal);
      if (this.request !== request || this.closed) return;
      this.show(state);
    } catch (error) {
      if (this.request !== request || this.closed) return;
      this.lost(error);
      wait = RETRY_MS;
    } finally {
      clearTimeout(timeout);
    }
    // A page that nobody sees asks for nothing; it goes on as soon as it is seen.
    if (!document.hidden) this.timer = setTimeout(() => this.ask(), wait);
  }

  show(state) {
    this.state = state;
    this.history.add(state);
    this.content.hidden = false;
    this.root.classList.remove("stale");
    this.root.classList.toggle("incomplete", !state.coverage.complete);
    for (const part of this.parts) part.update(state, this.history);
    say(this.status, `Live, as of ${clockTime(state.now)}. Model ${state.model_id}.`);
    this.read(summary(state, this.history.newDeadLetters), READ_OUT_MS);
  }

  lost(error) {
    const before = this.state === null ? "" : ` What is shown is as of ${clockTime(this.state.now)}.`;
    const words = `${error instanceof Refused ? error.message : "The router does not answer."}${before} Trying again.`;
    this.root.classList.add("stale");
    say(this.status, words);
    this.read(words, 0);
  }

  /** Announce a text, but not more often than anybody could listen to. */
  read(text, atMostEveryMs) {
    const now = performance.now();
    if (now - this.readOutAt < atMostEveryMs || this.readOut.textContent === text) return;
    this.readOutAt = now;
    say(this.readOut, text);
  }
}

class Refused extends Error {}

async function asked(since, signal) {
  // The page's own fetch knows the API key.
  const send = window.shashin?.fetch ?? fetch;
  const response = await send(`/v1/pipeline?since=${since}`, { signal });
  if (response.ok) return response.json();
  let detail = `status ${response.status}`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // Not from the router but from something in front of it.
  }
  throw new Refused(`The router refuses: ${detail}.`);
}

function addStyles() {
  const { pathname, href } = new URL("pipeline.css", import.meta.url);
  const known = [...document.querySelectorAll("link[rel=stylesheet]")];
  if (known.some((link) => new URL(link.href).pathname === pathname)) return;
  document.head.append(element("link", { rel: "stylesheet", href }));
}
