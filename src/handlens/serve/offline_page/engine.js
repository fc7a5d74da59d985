// See, then answer: both halves on ONNX Runtime Web. Pixels and a question in, text out; the steps of engine/answerer.py.

import { generate } from "./decoding.js";
import { keyPositions, positionIds, toPatches } from "./patches.js";
import { cut } from "./pixels.js";
import { buildPrompt } from "./prompt.js";
import { planSlices } from "./slicing.js";
import { TextStream, Tokenizer } from "./tokenizer.js";

// Prompt tokens computed at once.
const CHUNK = 512;
const BLOCK = 32;

export class Lens {
  // Opens the files of the folder `base`; `tell` hears of every file that has arrived.
  static async open(ort, base, tell = () => {}) {
    const load = async (name) => {
      const answer = await fetch(new URL(name, base));
      if (!answer.ok) throw new Error(`${name} did not arrive (status ${answer.status}). Load this page again.`);
      const bytes = new Uint8Array(await answer.arrayBuffer());
      tell(name, bytes.length);
      return bytes;
    };
    const parse = async (name) => JSON.parse(new TextDecoder().decode(await load(name)));
    ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
    ort.env.wasm.wasmPaths = new URL("runtime/", base).href;
    ort.env.logLevel = "error";
    const rules = await parse("model.json");
    const tokenizer = new Tokenizer(await parse("tokenizer.json"), rules.pattern);
    const rows = widenRows(await load("embeddings.bin"), rules.language);
    const start = async (name) => ort.InferenceSession.create(await load(name), { executionProviders: ["wasm"] });
    return new Lens(ort, rules, tokenizer, rows, await start("vision.onnx"), await start("language.onnx"));
  }

  constructor(ort, rules, tokenizer, rows, vision, language) {
    Object.assign(this, { ort, rules, tokenizer, rows, vision, language });
    this.stops = new Set(rules.template.stops.map((token) => tokenizer.idOf(token)));
    this.forbidden = new Set([...tokenizer.specials].filter((id) => !this.stops.has(id)));
    this.forget();
  }

  plan(width, height) {
    return planSlices(width, height, this.rules.slicing);
  }

  // Encodes the slices of a picture one by one; `tell` hears of each.
  async see(picture, tell = () => {}) {
    const plan = this.plan(picture.width, picture.height);
    const slices = cut(picture, plan);
    const { num_queries, width } = this.rules;
    const tokens = new Float32Array(slices.length * num_queries * width);
    for (const [place, slice] of slices.entries()) {
      tokens.set(await this.encode(slice), place * num_queries * width);
      await tell(place + 1, slices.length);
    }
    this.forget();
    return { plan, tokens };
  }

  async encode(slice) {
    const { Tensor } = this.ort;
    const { rows, columns, values } = toPatches(slice, this.rules.slicing.patch_px);
    const count = rows * columns;
    const { visual_tokens } = await this.vision.run({
      patches: new Tensor("float32", values, [count, values.length / count]),
      position_ids: new Tensor("int64", positionIds(rows, columns, this.rules.positions), [count]),
      key_positions: new Tensor("float32", keyPositions(rows, columns, this.rules.width), [count, this.rules.width]),
    });
    return visual_tokens.data;
  }

  // Yields {text, id}; returns why the answer ended. `rest` is awaited between tokens.
  async *answer(question, seen, { max_tokens = 256, rest = () => {} } = {}) {
    const prompt = buildPrompt(question, seen ? [seen.plan] : [], this.rules, this.tokenizer);
    const left = this.rules.language.max_positions - prompt.ids.length;
    if (left < 1) throw new Error(`The prompt has ${prompt.ids.length} tokens, the model has room for ${this.rules.language.max_positions}. Ask a shorter question.`);
    const first = await this.prefill(prompt, seen, rest);
    const stream = new TextStream(this.tokenizer);
    const step = async (id) => {
      await rest();
      return this.read(this.rows.subarray(id * this.rules.width, (id + 1) * this.rules.width));
    };
    const chosen = generate(first, step, { stops: this.stops, forbidden: this.forbidden, max_tokens: Math.min(max_tokens, left) });
    for (;;) {
      const { value, done } = await chosen.next();
      if (done) return value;
      yield { id: value, text: stream.push(value) };
    }
  }

  // Logits after a prompt. What it shares with the last one about the same picture is not computed again.
  async prefill({ ids, isVisual }, seen, rest) {
    const { width } = this.rules;
    const rows = new Float32Array(ids.length * width);
    let visual = 0;
    ids.forEach((id, place) => {
      const row = isVisual[place] ? seen.tokens.subarray(visual * width, (visual += 1) * width) : this.rows.subarray(id * width, (id + 1) * width);
      rows.set(row, place * width);
    });
    let shared = 0;
    while (shared < ids.length - 1 && this.known[shared] === ids[shared]) shared += 1;
    this.length = shared;
    this.known = [];
    let logits;
    for (let begin = shared; begin < ids.length; begin += CHUNK) {
      await rest();
      logits = await this.read(rows.subarray(begin * width, Math.min(begin + CHUNK, ids.length) * width));
    }
    this.known = ids;
    return logits;
  }

  // Computes the next tokens and keeps their keys and values; returns the logits after the last.
  async read(rows) {
    const { Tensor } = this.ort;
    const { width, language } = this.rules;
    const count = rows.length / width;
    const feeds = {
      embeddings: new Tensor("float32", rows, [count, width]),
      positions: new Tensor("int64", BigInt64Array.from({ length: count }, (_, place) => BigInt(this.length + place)), [count]),
    };
    for (const [name, kept] of this.cache) {
      feeds[`past.${name}`] = new Tensor("float32", kept.subarray(0, this.length * language.key_width), [this.length, language.key_width]);
    }
    const found = await this.language.run(feeds);
    for (const [name, kept] of this.cache) {
      this.cache.set(name, append(kept, found[`new.${name}`].data, this.length * language.key_width));
    }
    this.length += count;
    return found.logits.data;
  }

  forget() {
    const { num_layers } = this.rules.language;
    const names = Array.from({ length: num_layers }, (_, layer) => [`${layer}.key`, `${layer}.value`]).flat();
    this.cache = new Map(names.map((name) => [name, new Float32Array(0)]));
    this.known = [];
    this.length = 0;
  }
}

// Writes `fresh` at `place`; a buffer that is too small is copied to one of twice the size.
function append(kept, fresh, place) {
  const needed = place + fresh.length;
  if (kept.length < needed) {
    const larger = new Float32Array(Math.max(needed, 2 * kept.length));
    larger.set(kept.subarray(0, place));
    kept = larger;
  }
  kept.set(fresh, place);
  return kept;
}

// Rows of the embedding table, stored as llama.cpp's Q8_0: a scale in half precision, then 32 numbers of 8 bits.
function widenRows(bytes, { vocab_size, width }) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(vocab_size * width);
  for (let block = 0, from = 0; from < bytes.length; block += 1, from += BLOCK + 2) {
    const scale = halfToNumber(view.getUint16(from, true));
    for (let place = 0; place < BLOCK; place += 1) out[block * BLOCK + place] = scale * view.getInt8(from + 2 + place);
  }
  return out;
}

function halfToNumber(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return bits & 0x8000 ? -size : size;
}
