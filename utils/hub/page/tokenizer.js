/* Text <-> ids, as tok/ has it: byte-level BPE and characters. Special tokens in a text are plain
   text. Half a surrogate pair is no character: it becomes U+FFFD. */
"use strict";

/** A text without halves of surrogate pairs. */
const wellFormed = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

/** The inside of a character class from [first, last, first, last, ...]. */
function classOf(ranges) {
  const code = (i) => `\\u{${i.toString(16)}}`;
  let text = "";
  for (let i = 0; i < ranges.length; i += 2) text += `${code(ranges[i])}-${code(ranges[i + 1])}`;
  return text;
}

/** The patterns of tok/bpe/pretokenize.py by name. Letters (L), digits (N) and white space (S) come
    from Python, since a browser may know another version of Unicode, and its \s is another one.
    s and t of 's, 't and so on are of either case in some; \u017f is an s, too. */
function wordPattern(name, { letters, digits, spaces }) {
  if (name === "none") return /[^]+/gu;
  const [L, N, S] = [letters, digits, spaces].map(classOf);
  const any = "'(?:[sSdDmMtT\\u017f]|[lL][lL]|[vV][eE]|[rR][eE])";
  const word = `[^\\r\\n${L}${N}]?[${L}]+|[${N}]{1,3}| ?[^${S}${L}${N}]+[\\r\\n]*`;
  const blank = `[${S}]+(?![^${S}])`; // all but the last, which goes with the next word
  const sources = {
    gpt2: `'(?:[sdmt]|ll|ve|re)| ?[${L}]+| ?[${N}]+| ?[^${S}${L}${N}]+|${blank}|[${S}]+`,
    gpt2_digits:
      `[${N}]|'(?:[sdmt]|ll|ve|re)| ?[${L}]+| ?[^${S}${L}${N}]+` +
      `|[${S}]+(?![^${S}${N}])|[${S}]+`,
    gpt4: `${any}|${word}|[${S}]+$|[${S}]*[\\r\\n]|${blank}|[${S}]`,
    llama3: `${any}|${word}|[${S}]*[\\r\\n]+|${blank}|[${S}]+`,
  };
  return new RegExp(sources[name], "gu");
}

/** One id a character. */
class CharTokenizer {
  constructor({ chars, special }) {
    this.texts = [...chars];
    for (const [text, id] of special) this.texts[id] = text;
    this.ids = new Map(chars.map((c, i) => [c, i]));
  }

  /** Text -> ids. An Error for a character that training did not see. */
  encode(text) {
    return Array.from(wellFormed(text), (c) => {
      const id = this.ids.get(c);
      if (id !== undefined) return id;
      const code = c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      throw new Error(`“${c}” (U+${code}) was not in the text the model learnt from; leave it out`);
    });
  }

  /** Ids -> text. */
  decode(ids) {
    return ids.map((i) => this.texts[i]).join("");
  }

  /** Ids -> the text as far as it is certain, more ids to come. */
  decodeStream(ids) {
    return this.decode(ids);
  }
}

/** Words to UTF-8 bytes, bytes joined by merges, the earliest learnt first. Tokens have numbers of
    their own here: 0 to 255 are the bytes, merge k makes made[k]; ids[token] is its id. */
class BPETokenizer {
  constructor({ pattern, classes, merges, ids, special }) {
    this.pattern = wordPattern(pattern, classes);
    this.id = ids;
    this.rank = new Map(); // pair as a * size + b -> [rank, what it makes]
    this.size = ids.length;
    const bytes = Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)); // of each token
    merges.forEach(([a, b, made], k) => {
      this.rank.set(a * this.size + b, [k, made]);
      bytes[made] = Uint8Array.of(...bytes[a], ...bytes[b]);
    });
    this.bytes = [];
    ids.forEach((id, token) => {
      if (id !== null) this.bytes[id] = bytes[token];
    });
    for (const [text, id] of special) this.bytes[id] = new TextEncoder().encode(text);
    this.words = new Map(); // word -> ids, remembered
  }

  /** Text -> ids. An Error for a byte that the vocabulary has no token for. */
  encode(text) {
    const ids = [];
    for (const word of wellFormed(text).match(this.pattern) || []) {
      if (!this.words.has(word)) this.words.set(word, this.encodeWord(word));
      for (const id of this.words.get(word)) ids.push(id);
    }
    return ids;
  }

  /** A word -> ids: join the pair whose merge was learnt first, the leftmost of equals, again. */
  encodeWord(word) {
    const tokens = Array.from(new TextEncoder().encode(word));
    const found = (i) => this.rank.get(tokens[i] * this.size + tokens[i + 1]) || [Infinity, -1];
    const pairs = tokens.map((_, i) => found(i)); // the last one finds none
    for (;;) {
      let best = 0;
      for (let i = 1; i < pairs.length; i++) if (pairs[i][0] < pairs[best][0]) best = i;
      if (!pairs.length || pairs[best][0] === Infinity) break;
      tokens.splice(best, 2, pairs[best][1]);
      pairs.splice(best + 1, 1);
      pairs[best] = found(best);
      if (best > 0) pairs[best - 1] = found(best - 1);
    }
    return tokens.map((token) => {
      if (this.id[token] !== null) return this.id[token];
      throw new Error(`the vocabulary has no token for byte ${token} of “${word}”; leave it out`);
    });
  }

  /** Ids -> their bytes. */
  bytesOf(ids) {
    return Uint8Array.from(ids.flatMap((i) => [...this.bytes[i]]));
  }

  /** Ids -> text; bytes that are not UTF-8 become U+FFFD. */
  decode(ids) {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.bytesOf(ids));
  }

  /** Ids -> the text as far as it is certain: without the beginning of a character at its end. */
  decodeStream(ids) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return decoder.decode(this.bytesOf(ids), { stream: true });
  }
}

/** A tokenizer of either kind. */
const makeTokenizer = (data) =>
  data.kind === "char" ? new CharTokenizer(data) : new BPETokenizer(data);
