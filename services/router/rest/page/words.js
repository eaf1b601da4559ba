// How things are said.

const TIERS = ["live", "hourly", "daily", "monthly"];
const DAY = 24 * 60 * 60 * 1000;

/** Return a price with its currency; empty if there is none. */
export function priceOf(price) {
  if (!price) return "";
  const amount = price.amount_minor / 10 ** decimalsOf(price.currency);
  return new Intl.NumberFormat(undefined, {
    style: "currency",
    currency: price.currency,
    currencyDisplay: "narrowSymbol",
    minimumFractionDigits: Number.isInteger(amount) ? 0 : undefined,
  }).format(amount);
}

/** Return how many decimals amounts of a currency have: 0 for yen, 2 for dollars. */
export function decimalsOf(currency) {
  return new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions()
    .maximumFractionDigits;
}

export function isNew(attributes) {
  const listed = Date.parse(attributes?.listed_at ?? "");
  return Date.now() - listed < DAY;
}

export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString()} ${count === 1 ? one : many}`;
}

/** Return a sentence of a message that begins in lower case. */
export function sentence(words) {
  const text = words.trim();
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** Return the facts of a search in one line. */
export function lineOf(answer) {
  const tiers = new Map();
  for (const { tier } of answer.hits) tiers.set(tier, (tiers.get(tier) ?? 0) + 1);
  const facts = [
    counted(answer.hits.length, "listing"),
    `${Math.round(answer.timings.total * 1000)} ms`,
    ...[...tiers].sort(byAge).map(([tier, count]) => `${tier} ${count}`),
    `${answer.endpoints} of ${counted(answer.endpoints_asked, "endpoint")} answered`,
    answer.coverage.complete ? "complete" : "incomplete",
  ];
  return facts.join(" · ");
}

function byAge([one], [other]) {
  return TIERS.indexOf(one) - TIERS.indexOf(other);
}

/** Return why an answer may lack listings; empty if it is complete. */
export function incompleteness(answer) {
  const { coverage, failed_endpoints: failed } = answer;
  const reasons = failed.map((one) => `${one.name} did not answer (${statusIn(one.error)})`);
  if (coverage && !coverage.complete) {
    const offsets = coverage.missing.reduce((sum, one) => sum + one.to_offset - one.from_offset, 0);
    if (offsets) reasons.push(`${counted(offsets, "record")} of the log could not be searched`);
    const unknown = coverage.unknown_partitions.length;
    if (unknown) reasons.push(`nothing is known of ${counted(unknown, "partition")} of the log`);
    if (coverage.end_unknown_seconds) {
      reasons.push(`the end of the log is unknown for ${Math.round(coverage.end_unknown_seconds)} s`);
    }
    if (!reasons.length) reasons.push("not everything that was listed could be searched");
  }
  return reasons.length ? `Some listings may be missing: ${reasons.join("; ")}.` : "";
}

/** Return the status of an error that begins with it, such as "DEADLINE_EXCEEDED: ...", in plain letters. */
function statusIn(error) {
  return error.split(":")[0].replaceAll("_", " ").toLowerCase();
}
