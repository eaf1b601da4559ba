// Numbers and states of the pipeline in words. No document, no requests.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const NAMES = {
  app: "App",
  downloader: "Downloader",
  embedder: "Embedder",
  indexer: "Indexer",
  searchable: "Searchable",
};

const MEANINGS = {
  app: "events written",
  downloader: "events downloaded",
  embedder: "versions embedded",
  indexer: "versions indexed",
  searchable: "versions searchable",
};

export function meaning(stage) {
  return MEANINGS[stage] ?? "offsets processed";
}

export function count(number) {
  return number === null ? "unknown" : whole.format(number);
}

export function shortCount(number) {
  return number < 10_000 ? whole.format(number) : short.format(number);
}

export function counted(number, one, many = `${one}s`) {
  return `${whole.format(number)} ${number === 1 ? one : many}`;
}

export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return "–";
  return perSecond < 100 ? tenth.format(perSecond) : shortCount(perSecond);
}

export function duration(seconds) {
  if (seconds < 0.95) return `${whole.format(seconds * 1000)} ms`;
  if (seconds < 10) return `${tenth.format(seconds)} s`;
  if (seconds < 120) return `${whole.format(seconds)} s`;
  if (seconds < 7200) return `${whole.format(seconds / 60)} min`;
  if (seconds < 172_800) return `${whole.format(seconds / 3600)} h`;
  return `${whole.format(seconds / 86_400)} days`;
}

export function clockTime(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
}

export function dateTime(unixSeconds) {
  return `${new Date(unixSeconds * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

export function lag({ behind, waiting_seconds: seconds }) {
  if (behind === null) return "lag unknown";
  if (behind === 0) return "up to date";
  const waiting = seconds === null ? "" : `, ${duration(seconds)}`;
  return `${shortCount(behind)} behind${waiting}`;
}

export function range({ partition, from_offset: from, to_offset: to }) {
  return `partition ${partition}, offsets ${whole.format(from)} to ${whole.format(to)}`;
}

/** Return what coverage says, one sentence each. */
export function coverageWords(coverage) {
  const words = [];
  const offsets = coverage.missing.reduce((sum, one) => sum + one.to_offset - one.from_offset, 0);
  if (offsets > 0) {
    const named = coverage.missing.slice(0, 3).map(range).join("; ");
    const more = coverage.missing.length - 3;
    const others = more > 0 ? `; and ${counted(more, "more range")}` : "";
    words.push(`${counted(offsets, "offset is", "offsets are")} in no ready endpoint: ${named}${others}.`);
  }
  const unknown = coverage.unknown_partitions;
  if (unknown.length > 0) {
    const which = unknown.length === 1 ? "partition" : "partitions";
    words.push(`No live tier reports ${which} ${unknown.join(", ")}.`);
  }
  if (!coverage.complete && words.length === 0) words.push("No live tier has reported the log yet.");
  if (coverage.complete) {
    words.push("Everything that should be searchable is, from the horizon to the end of the log.");
  }
  if (coverage.end_unknown_seconds > 0) {
    words.push(`The end of the log could not be read for ${duration(coverage.end_unknown_seconds)}.`);
  }
  return words;
}

/** Return the whole state in a few sentences, for those who do not see the drawings. */
export function summary(state, newLetters) {
  const stages = Object.fromEntries(state.stages.map((one) => [one.stage, one]));
  const words = [
    state.coverage.complete ? "Coverage is complete." : "Coverage is incomplete.",
    `${rate(stages.app.rate)} events per second come in, ${rate(stages.searchable.rate)} become searchable.`,
  ];
  for (const { stage, ...figures } of state.stages) {
    if (figures.behind > 0) words.push(`${NAMES[stage]}: ${lag(figures)}.`);
  }
  if (state.freshness_seconds !== null) {
    words.push(`New listings are searchable after ${duration(state.freshness_seconds)}.`);
  }
  if (newLetters > 0) words.push(`${counted(newLetters, "new dead letter")} in the last minutes.`);
  const unready = state.tiers.flatMap((tier) => tier.endpoints).filter((one) => !one.ready);
  if (unready.length > 0) {
    words.push(`Not ready: ${unready.map((one) => one.name).join(", ")}.`);
  }
  return words.join(" ");
}

export function shardWords(shard) {
  const when =
    shard.bucket_start === null
      ? "no rows yet"
      : `${dateTime(shard.bucket_start)}, ${shard.bucket_seconds === null ? "open" : duration(shard.bucket_seconds)}`;
  const ranges = shard.ranges.slice(0, 4).map(range);
  if (shard.ranges.length > 4) ranges.push(counted(shard.ranges.length - 4, "more range"));
  return [
    shard.shard_id,
    when,
    `${counted(shard.rows, "row")}, ${whole.format(shard.hidden_rows)} hidden`,
    `model ${shard.model_id}`,
    ...ranges,
    `served by ${shard.served_by.join(", ")}`,
  ];
}
