// Which view is shown: by the part of the address after #.

import { fetched } from "./api.js";
import { leaveSearch, showSearch } from "./search.js";

// For the pipeline view, which can also be mounted elsewhere: requests with the API key.
window.shashin = { fetch: fetched };

const SIMILAR = "#/similar/";
const search = document.getElementById("search");
const pipeline = document.getElementById("pipeline");
let mounted = null;

function route() {
  const { hash } = location;
  const inPipeline = hash === "#pipeline";
  search.hidden = inPipeline;
  pipeline.hidden = !inPipeline;
  mark("to-search", !inPipeline);
  mark("to-pipeline", inPipeline);
  if (inPipeline) {
    leaveSearch();
    showPipeline();
  } else {
    leavePipeline();
    showSearch(hash.startsWith(SIMILAR) ? idIn(hash) : null);
  }
}

function idIn(hash) {
  try {
    return decodeURIComponent(hash.slice(SIMILAR.length)) || null;
  } catch {
    return hash.slice(SIMILAR.length); // not written by this page
  }
}

function mark(id, isCurrent) {
  const link = document.getElementById(id);
  if (isCurrent) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

async function showPipeline() {
  let view;
  try {
    view = await import("./pipeline.js");
  } catch {
    const words = document.createElement("p");
    words.className = "nothing";
    words.textContent = "The view of the pipeline is not available on this router.";
    pipeline.replaceChildren(words);
    return;
  }
  if (pipeline.hidden || mounted) return;
  addStyles("/page/pipeline.css");
  mounted = view;
  view.mount(pipeline);
}

function leavePipeline() {
  mounted?.unmount();
  mounted = null;
}

function addStyles(path) {
  if (document.querySelector(`link[href="${path}"]`)) return;
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = path;
  document.head.append(link);
}

addEventListener("hashchange", () => {
  route();
  scrollTo(0, 0);
});
route();
