// The search view: what is searched for, and what was found.

import { newest, searchByPhoto, similarTo } from "./api.js";
import { cardOf } from "./cards.js";
import { Crop } from "./crop.js";
import { currentFilter, propose, watchFilters } from "./filters.js";
import { photoIn, readPhoto } from "./photos.js";
import { counted, incompleteness, lineOf, sentence } from "./words.js";

const PAGE = 24;
const MOST = { newest: 200, search: 1000 };
const PAUSE = 250; // milliseconds without a change, until it is searched for

const part = (id) => document.getElementById(id);
const view = part("search");
const crop = new Crop(part("stage"), part("crop"), () => {
  showButtons();
  later();
});

let photo = null;
let like = null;
let wanted = PAGE;
let current = null; // the request that is under way
let timer = 0;

/** Show what is like a listing, or without one the photo's hits, or what is new. */
export function showSearch(listingId) {
  like = listingId;
  wanted = PAGE;
  now();
}

export function leaveSearch() {
  clearTimeout(timer);
  current?.abort();
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(now, PAUSE);
}

function now() {
  clearTimeout(timer);
  const filter = currentFilter();
  part("filters-wait").hidden = Boolean(photo || like);
  if (filter) run(filter);
}

async function run(filter) {
  current?.abort();
  const request = new AbortController();
  current = request;
  const { signal } = request;
  showHeading();
  part("hits").setAttribute("aria-busy", "true");
  part("line").textContent = like || photo ? "Searching…" : "Loading…";
  part("problem").hidden = true;
  try {
    const query = { k: wanted, filter };
    let answer;
    if (like) answer = await similarTo(like, query, signal);
    else if (photo) answer = await searchByPhoto(photo.blob, { ...query, crop: crop.box ?? undefined }, signal);
    else answer = await newest(wanted, signal);
    if (!signal.aborted) show(answer);
  } catch (error) {
    if (error.name !== "AbortError" && !signal.aborted) showProblem(error);
  } finally {
    if (current === request) part("hits").setAttribute("aria-busy", "false");
  }
}

function show(answer) {
  const isSearch = answer.hits !== undefined;
  const found = answer.hits ?? answer.listings;
  const before = part("hits").children.length;
  const added = wanted > PAGE && found.length > before && before > 0;
  part("hits").replaceChildren(...found.map(cardOf));
  propose(found);
  part("line").textContent = isSearch ? lineOf(answer) : counted(found.length, "listing");
  showNotice("incomplete", incompleteness(answer));
  const notes = (answer.notes ?? []).map(sentence).join(" ");
  const none = isSearch ? "Nothing was found." : "Nothing is listed yet. What is published appears here.";
  showNotice("nothing", [found.length ? "" : none, notes].filter(Boolean).join(" "));
  part("more").hidden = found.length < wanted || wanted >= MOST[isSearch ? "search" : "newest"];
  if (added) part("hits").children[before].firstElementChild.focus();
}

function showProblem(error) {
  part("hits").replaceChildren();
  part("line").textContent = "";
  part("more").hidden = true;
  showNotice("incomplete", "");
  showNotice("nothing", "");
  part("problem-words").textContent = sentence(error.message);
  part("retry").hidden = error.retryable === false && error.status !== 401;
  part("problem").hidden = false;
}

function showNotice(id, words) {
  part(id).textContent = words;
  part(id).hidden = !words;
}

function showHeading() {
  let heading = "Newest listings";
  if (like) heading = `More like ${like}`;
  else if (photo) heading = crop.box ? "Found by a part of the photo" : "Found by photo";
  part("heading").textContent = heading;
  part("back").hidden = !like;
  part("back").textContent = photo ? "Back to the photo’s hits" : "Back to the newest";
}

function showButtons() {
  const canCrop = photo !== null && photo.width > 0;
  part("crop-begin").hidden = !canCrop || crop.box !== null;
  part("crop-clear").hidden = crop.box === null;
  part("crop-help").hidden = !canCrop;
}

async function take(file) {
  if (!file) return;
  const read = await readPhoto(file);
  forget();
  photo = read;
  const shown = read.width > 0;
  part("preview").src = shown ? URL.createObjectURL(read.blob) : "";
  part("stage").hidden = !shown;
  const words = `${read.name} is searched for as it is: this browser cannot show it.`;
  showNotice("file-name", shown ? "" : words);
  part("drop").hidden = true;
  part("photo").hidden = false;
  crop.reset(read.width || 1, read.height || 1);
  showButtons();
  search();
}

/** Search by the photo, also if what is like a listing is shown. */
function search() {
  wanted = PAGE;
  if (like) location.hash = "";
  else now();
}

function forget() {
  if (part("preview").src) URL.revokeObjectURL(part("preview").src);
  part("preview").removeAttribute("src");
  part("file").value = "";
  photo = null;
}

part("file").addEventListener("change", (event) => take(event.target.files[0]));
part("another").addEventListener("click", () => part("file").click());
part("remove").addEventListener("click", () => {
  forget();
  crop.reset(1, 1);
  part("drop").hidden = false;
  part("photo").hidden = true;
  part("file").focus();
  search();
});
part("crop-begin").addEventListener("click", () => {
  crop.set({ left: 0.2, top: 0.2, right: 0.8, bottom: 0.8 });
  part("crop").focus();
});
part("crop-clear").addEventListener("click", () => {
  crop.set(null);
  part("crop-begin").focus();
});
part("crop").addEventListener("cleared", () => part("crop-begin").focus());
part("retry").addEventListener("click", now);
part("more").addEventListener("click", () => {
  const most = MOST[like || photo ? "search" : "newest"];
  wanted = Math.min(wanted + PAGE, most);
  now();
});
watchFilters(() => {
  currentFilter();
  wanted = PAGE;
  if (like || photo) later();
});

document.addEventListener("paste", (event) => {
  const file = view.hidden ? undefined : photoIn(event.clipboardData);
  if (file) event.preventDefault();
  take(file);
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    if (view.hidden || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    view.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) view.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  view.classList.remove("dropping");
  if (view.hidden) return;
  event.preventDefault();
  take(photoIn(event.dataTransfer));
});

part("filters").open = matchMedia("(min-width: 56rem)").matches;
