// Requests to the router that served the page; what it refuses is a Problem with its words.

import { askForKey, currentKey } from "./key.js";

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? `the router answered with status ${status}`);
    this.status = status;
    this.reason = document.reason ?? "";
    this.retryable = document.retryable ?? status >= 500;
  }
}

export function newest(limit, signal) {
  return answered(`/v1/listings/newest?limit=${limit}`, { signal });
}

export function searchByPhoto(photo, query, signal) {
  const form = new FormData();
  form.append("query", JSON.stringify(query));
  form.append("photo", photo, "photo");
  return answered("/v1/search", { method: "POST", body: form, signal });
}

const NO_PATH = /(^|\/)\.{1,2}(\/|$)/; // ids that a browser would resolve as a path

/** Search for what is like a listing. Only a search in JSON knows filters by price and time. */
export function similarTo(listingId, { k, filter }, signal) {
  if (filter.prices || filter.listed || NO_PATH.test(listingId)) {
    return answered("/v1/search", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ listing_id: listingId, k, filter }),
      signal,
    });
  }
  const wanted = new URLSearchParams({ k });
  for (const one of filter.category_prefixes ?? []) wanted.append("category_prefix", one);
  for (const one of filter.brands ?? []) wanted.append("brand", one);
  return answered(`/v1/listings/${encodeURIComponent(listingId)}/similar?${wanted}`, { signal });
}

/** Return the response of a path; asks for an API key if the router needs one. */
export async function fetched(path, options = {}) {
  for (;;) {
    const key = currentKey();
    const headers = { ...options.headers };
    if (key) headers.Authorization = `Bearer ${key}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, {
        detail: "the router cannot be reached: check that it runs, and the network",
        retryable: true,
      });
    }
    if (response.status !== 401) return response;
    const problem = await problemOf(response);
    if (!(await askForKey(problem.message, key))) throw problem;
    options.signal?.throwIfAborted();
  }
}

async function answered(path, options) {
  const response = await fetched(path, options);
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

async function problemOf(response) {
  try {
    return new Problem(response.status, await response.json());
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return new Problem(response.status, {}); // of something between the page and the router
  }
}
