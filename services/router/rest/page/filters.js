// The form of filters, as the filter of a request.

import { decimalsOf } from "./words.js";

const form = document.getElementById("filter-form");
const fields = form.elements;
const problem = document.getElementById("price-problem");
const shown = { categories: new Set(), brands: new Set() };

/** Call `changed` whenever the filter may have changed; `at once` if a choice is final. */
export function watchFilters(changed) {
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => changed());
  form.addEventListener("reset", () => setTimeout(changed)); // the fields are emptied after the event
}

/** Return the filter; null while it makes no sense, which the form then says. */
export function currentFilter() {
  const filter = {};
  const categories = entries(fields.category.value).map((one) => one.replace(/^\/+|\/+$/g, ""));
  if (categories.some(Boolean)) filter.category_prefixes = categories.filter(Boolean);
  const brands = entries(fields.brand.value);
  if (brands.length) filter.brands = brands;
  const prices = priceRange();
  if (prices === null) return null;
  if (prices) filter.prices = [prices];
  if (fields.days.value) {
    const since = new Date(Date.now() - Number(fields.days.value) * 24 * 60 * 60 * 1000);
    filter.listed = [{ since: since.toISOString() }];
  }
  document.getElementById("filters-set").textContent = Object.keys(filter).length || "";
  return filter;
}

/** Propose the categories, brands and currencies of listings that were shown. */
export function propose(listings) {
  for (const { attributes } of listings) {
    if (attributes?.category) {
      const path = attributes.category.split("/");
      path.forEach((_, end) => suggest("categories", path.slice(0, end + 1).join("/")));
    }
    if (attributes?.brand) suggest("brands", attributes.brand);
    const currency = attributes?.price?.currency;
    if (currency && ![...fields.currency.options].some((one) => one.value === currency)) {
      fields.currency.add(new Option(currency));
    }
  }
}

function suggest(list, value) {
  if (shown[list].has(value)) return;
  shown[list].add(value);
  const option = document.createElement("option");
  option.value = value;
  document.getElementById(list).append(option);
}

function entries(text) {
  return text.split(",").map((one) => one.trim()).filter(Boolean);
}

function priceRange() {
  const currency = fields.currency.value;
  const [low, high] = [fields.from, fields.to].map((field) => minorUnits(field, currency));
  const invalid = Number.isNaN(low) || Number.isNaN(high);
  problem.textContent = "";
  if (invalid) problem.textContent = "Prices are numbers, such as 1200 or 9.50.";
  else if (low !== undefined && high !== undefined && low > high) {
    problem.textContent = "The lowest price is above the highest one.";
  }
  if (problem.textContent) return null;
  if (low === undefined && high === undefined) return undefined;
  return { currency, min_minor: low, max_minor: high };
}

/** Return an amount in minor units, undefined if there is none, NaN if it is no number. */
function minorUnits(field, currency) {
  const text = field.value.trim().replace(/,/g, "");
  if (!text) return undefined;
  const amount = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
  return Math.round(amount * 10 ** decimalsOf(currency));
}
