// Listings as cards; each leads to what is like it.

import { showThumbnail } from "./thumbnails.js";
import { isNew, priceOf } from "./words.js";

/** Return the card of a hit, or of a new listing, which has no score. */
export function cardOf(hit) {
  const card = document.createElement("li");
  card.className = "card";
  const link = add(card, "a");
  link.href = similarHash(hit.listing_id);
  link.title = `More like ${hit.listing_id}`;
  add(link, "span", "unseen", "More like this: ");
  const frame = add(link, "span", "frame");
  showThumbnail(frame, hit);
  const { attributes } = hit;
  if (isNew(attributes)) add(frame, "span", "new", "New");
  add(link, "span", "price", priceOf(attributes?.price) || "No price");
  const what = [attributes?.brand, attributes?.category].filter(Boolean).join(" · ");
  add(link, "span", "what", what || hit.listing_id);
  const facts = add(link, "span", "facts");
  if (hit.score !== undefined) {
    const score = add(facts, "span", "score");
    score.title = "Cosine similarity: 1 is the same photo";
    add(score, "span", "unseen", "similarity ");
    score.append(hit.score.toFixed(3));
  }
  add(facts, "span", "tier", hit.tier);
  return card;
}

export function similarHash(listingId) {
  return `#/similar/${encodeURIComponent(listingId)}`;
}

function add(parent, name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  parent.append(element);
  return element;
}
