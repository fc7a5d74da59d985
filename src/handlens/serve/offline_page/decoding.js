// Choose the next token: always the likeliest; end at a stop, at the longest answer, or where it goes round in a loop.

const LONGEST_UNIT = 128;
const MIN_REPEATS = 6;
const MIN_TOKENS = 96;

// A loop is one piece of 1 to 128 tokens, said at least 6 times in a row without change, that covers 96 tokens or more.
export class LoopGuard {
  constructor() {
    this.ids = [];
    this.agreed = new Int32Array(LONGEST_UNIT);
  }

  push(id) {
    this.ids.push(id);
    let isLooping = false;
    for (let unit = 1; unit <= LONGEST_UNIT; unit += 1) {
      this.agreed[unit - 1] = this.ids[this.ids.length - 1 - unit] === id ? this.agreed[unit - 1] + 1 : 0;
      const covered = this.agreed[unit - 1] + unit;
      isLooping ||= covered >= MIN_TOKENS && covered >= MIN_REPEATS * unit;
    }
    return isLooping;
  }
}

// The likeliest token that may be said; of equals the first.
export function likeliest(logits, forbidden) {
  let best = -1;
  for (let id = 0; id < logits.length; id += 1) {
    if (forbidden.has(id)) continue;
    if (Number.isNaN(logits[id])) throw new Error("The language half gave no numbers; load this page again.");
    if (best < 0 || logits[id] > logits[best]) best = id;
  }
  return best;
}

// Yields ids. `step(id)` resolves to the logits after it. Returns why the answer ended: "stop", "length" or "loop".
export async function* generate(logits, step, { stops, forbidden, max_tokens }) {
  const guard = new LoopGuard();
  for (let count = 1; ; count += 1) {
    const id = likeliest(logits, forbidden);
    if (stops.has(id)) return "stop";
    yield id;
    if (guard.push(id)) return "loop";
    if (count === max_tokens) return "length";
    logits = await step(id);
  }
}
