// Text to token ids and back: byte-level BPE of one tokenizer.json. The same ids as the tokenizers library.

// Byte-level vocabularies write a printable byte as itself and the others from code point 256 on, in order.
function byteCharacters() {
  const isPrintable = (byte) => (byte >= 0x21 && byte < 0x7f) || (byte >= 0xa1 && byte < 0xad) || byte >= 0xae;
  const characters = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte += 1) {
    characters.push(String.fromCodePoint(isPrintable(byte) ? byte : next));
    if (!isPrintable(byte)) next += 1;
  }
  return characters;
}

const CHARACTERS = byteCharacters();
const BYTES = new Map(CHARACTERS.map((character, byte) => [character, byte]));

export class Tokenizer {
  // `file` is the content of tokenizer.json, `pattern` its word rule as a JavaScript expression.
  constructor(file, pattern) {
    this.ids = new Map(Object.entries(file.model.vocab));
    this.ranks = new Map(file.model.merges.map((pair, rank) => [Array.isArray(pair) ? pair.join(" ") : pair, rank]));
    this.ignoresMerges = Boolean(file.model.ignore_merges);
    this.specials = new Set();
    const names = [];
    for (const token of file.added_tokens) {
      this.ids.set(token.content, token.id);
      names.push(token.content);
      if (token.special) this.specials.add(token.id);
    }
    this.tokens = new Map([...this.ids].map(([token, id]) => [id, token]));
    this.added = new Set(names);
    // Of names that begin at one place the longest wins.
    const escaped = names.sort((one, other) => other.length - one.length).map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.marks = new RegExp(escaped.join("|") || "(?!)", "gu");
    this.words = new RegExp(pattern, "gu");
    this.known = new Map();
    this.encoder = new TextEncoder();
  }

  idOf(token) {
    const id = this.ids.get(token);
    if (id === undefined) throw new Error(`The tokenizer lacks the token '${token}'; these files do not belong together.`);
    return id;
  }

  // Ids, and for each where in the text its piece between marks begins; a mark is a piece of its own.
  encode(text) {
    const ids = [];
    const starts = [];
    const plain = (piece, start) => {
      for (const word of this.split(piece)) {
        for (const id of this.encodeWord(word)) {
          ids.push(id);
          starts.push(start);
        }
      }
    };
    let end = 0;
    for (const found of text.matchAll(this.marks)) {
      plain(text.slice(end, found.index), end);
      ids.push(this.ids.get(found[0]));
      starts.push(found.index);
      end = found.index + found[0].length;
    }
    plain(text.slice(end), end);
    return { ids, starts };
  }

  // Words, and what stands between words.
  split(piece) {
    const words = [];
    let end = 0;
    for (const found of piece.matchAll(this.words)) {
      words.push(piece.slice(end, found.index), found[0]);
      end = found.index + found[0].length;
    }
    return [...words, piece.slice(end)].filter(Boolean);
  }

  encodeWord(word) {
    const kept = this.known.get(word);
    if (kept) return kept;
    let parts = Array.from(this.encoder.encode(word), (byte) => CHARACTERS[byte]);
    if (this.ignoresMerges && this.ids.has(parts.join(""))) parts = [parts.join("")];
    for (;;) {
      let best = -1;
      let least = Infinity;
      for (let place = 0; place + 1 < parts.length; place += 1) {
        const rank = this.ranks.get(`${parts[place]} ${parts[place + 1]}`);
        if (rank !== undefined && rank < least) [best, least] = [place, rank];
      }
      if (best < 0) break;
      parts.splice(best, 2, parts[best] + parts[best + 1]);
    }
    const ids = parts.map((part) => this.idOf(part));
    this.known.set(word, ids);
    return ids;
  }

  // The bytes of a token; none for a mark that never belongs to an answer.
  bytesOf(id) {
    if (this.specials.has(id)) return new Uint8Array();
    const token = this.tokens.get(id) ?? "";
    if (this.added.has(token)) return this.encoder.encode(token);
    return Uint8Array.from(token, (character) => BYTES.get(character));
  }
}

// Ids that arrive one by one become text that never splits a character.
export class TextStream {
  constructor(tokenizer) {
    this.tokenizer = tokenizer;
    this.decoder = new TextDecoder();
  }

  push(id) {
    return this.decoder.decode(this.tokenizer.bytesOf(id), { stream: true });
  }
}
