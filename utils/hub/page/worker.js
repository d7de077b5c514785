/* What the page asks of the model, answered in a thread of its own, so that typing never waits.
   A message is {id, ask, ...arguments}; the answer {id, value} or {id, error}. */
"use strict";

const SLICE = 16; // tokens read at a time; in between, a newer message may make them useless
let model, known;
let numbers = {}; // random ones, of the last seed
let first = 0; // tokens of the text that the model reads no more
let surprises = []; // in bits, of the tokens at positions 1, 2, ... that were read
let lenses = []; // at each position that was asked for
let newest = 0; // the id of the last `read` that was asked for

/** Let messages come in. */
const pause = () => new Promise((done) => setTimeout(done));

/** Logits of the ids that the tokenizer knows; a model may have rows to spare. */
const knownLogits = (t, depth) => model.logits(t, depth).subarray(0, known);

/** The ids with the n largest values, largest first. */
function largest(values, n) {
  const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
  return order.slice(0, n);
}

/** How surprised the model is by a token at position t + 1, in bits: -log2 p. */
const bits = (t, id) => -Math.log2(softmax(Float64Array.from(knownLogits(t)))[id]);

/** How many tokens at the beginning two lists have in common. */
function common(a, b) {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  return n;
}

/** How many of n tokens the model leaves out, as model/generation/context.py has it: of a new text
    (before = null) the last block_size are read; of one that outgrows them the newest three
    quarters, anew; a model with a window and relative positions slides on. */
function beginning({ block_size, slides }, n, before) {
  if (before === null) return Math.max(0, n - block_size);
  if (slides || n - before <= block_size) return before;
  return n - Math.max(1, Math.floor((block_size * 3) / 4));
}

const answers = {
  /** Unpack the model; the answer is how far its logits are from those that PyTorch computed. */
  open({ header, weights }) {
    model = new Model(header.config, unpackTensors(header.tensors, bytesOf(weights)), header.rope);
    known = header.known;
    const { ids, logits } = header.check;
    model.read(ids);
    const mine = model.logits(ids.length - 1);
    const gap = Math.max(...logits.map((z, i) => Math.abs(z - mine[i])));
    model.forget(0);
    return gap;
  },

  /** Read a text with some heads ("layer,head") switched off; what was read is not read again. The
      answer is null if a newer text came, else `first`, the tokens that were left out, and
      `surprises`, in bits, of the others but the first. */
  async read({ id, ids, off, goesOn }) {
    first = beginning(model.config, ids.length, goesOn ? first : null);
    const context = ids.slice(first);
    const same = off.join() === [...model.off].join();
    model.off = new Set(off);
    model.forget(same ? common(context, model.ids) : 0);
    surprises.length = Math.min(surprises.length, Math.max(0, model.T - 1));
    lenses.length = Math.min(lenses.length, model.T);
    while (model.T < context.length) {
      model.read(context.slice(model.T, model.T + SLICE));
      postMessage({ id, progress: model.T / context.length });
      await pause();
      if (id !== newest) return null;
    }
    while (surprises.length < context.length - 1) {
      surprises.push(bits(surprises.length, context[surprises.length + 1]));
    }
    return { first, surprises };
  },

  /** The n likeliest tokens after position t, [id, p before, p after]; how many may be drawn. */
  next({ t, sampling, n }) {
    const logits = knownLogits(t);
    const before = probabilities(logits), after = probabilities(logits, sampling);
    const rows = largest(before, n).map((i) => [i, before[i], after[i]]);
    return { rows, kept: after.reduce((sum, p) => sum + (p > 0), 0) };
  },

  /** Draw the token that follows what was read, by the k-th random number of a seed. */
  step({ sampling, seed, k }) {
    if (numbers.seed !== seed) numbers = { seed, source: new Uniforms(seed), drawn: [] };
    while (numbers.drawn.length <= k) numbers.drawn.push(numbers.source.next());
    return draw(probabilities(knownLogits(model.T - 1), sampling), numbers.drawn[k]);
  },

  /** Attention of every head among the tokens from position `from` on: [layer][head] (n,n). */
  attention({ from }) {
    const { n_layer: L, n_head: H } = model.config, n = model.T - from;
    const one = (layer, head) => {
      const p = new Float32Array(n * n);
      for (let t = 0; t < n; t++) {
        p.set(model.attention(layer, head, from + t).subarray(from), t * n);
      }
      return p;
    };
    return Array.from({ length: L }, (_, l) => Array.from({ length: H }, (_, h) => one(l, h)));
  },

  /** The logit lens at positions t: for each depth, the n likeliest tokens as [id, p]. */
  lens({ positions, n }) {
    const depths = (t) => model.stream.map((_, depth) => {
      const p = softmax(Float64Array.from(knownLogits(t, depth)));
      return largest(p, n).map((i) => [i, p[i]]);
    });
    return positions.map((t) => (lenses[t] ??= depths(t)));
  },
};

onmessage = async ({ data }) => {
  if (data.ask === "read") newest = data.id;
  try {
    postMessage({ id: data.id, value: await answers[data.ask](data) });
  } catch (error) {
    postMessage({ id: data.id, error: error.message });
  }
};
