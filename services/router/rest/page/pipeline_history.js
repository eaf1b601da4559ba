// The last minutes as columns: what the router sent first, and what was added since. No document.

export const HISTORY_SECONDS = 300;

export class History {
  constructor() {
    this.clear();
  }

  clear() {
    this.model = null;
    this.at = [];
    this.rates = {};
    this.behind = {};
    this.freshness = [];
    this.deadLetters = [];
  }

  /** The time to ask the router from. */
  get since() {
    return this.at.at(-1) ?? 0;
  }

  /** Add an answer's samples; those of another model, or of a clock that ran back, begin anew. */
  add({ model_id: model, at: sampledAt, history }) {
    if ((this.model !== null && this.model !== model) || sampledAt < this.since) this.clear();
    this.model = model;
    // Something in between may answer with what was asked for before.
    const { since } = this;
    const isNew = (_, index) => history.at[index] > since;
    this.freshness.push(...history.freshness_seconds.filter(isNew));
    this.deadLetters.push(...history.dead_letters.filter(isNew));
    for (const name of ["rates", "behind"]) {
      for (const [stage, values] of Object.entries(history[name])) {
        (this[name][stage] ??= []).push(...values.filter(isNew));
      }
    }
    this.at.push(...history.at.filter(isNew));
    const first = this.at.findIndex((at) => at > this.since - HISTORY_SECONDS);
    if (first > 0) {
      for (const column of this.columns()) column.splice(0, first);
    }
  }

  /** By how much the topics of dead letters grew in these minutes. */
  get newDeadLetters() {
    const known = this.deadLetters.filter((one) => one !== null);
    return known.reduce((sum, one, index) => sum + Math.max(0, one - (known[index - 1] ?? one)), 0);
  }

  columns() {
    return [this.at, this.freshness, this.deadLetters, ...Object.values(this.rates), ...Object.values(this.behind)];
  }
}
