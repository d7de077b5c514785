/* From logits to a token: temperature, top-k, top-p, in the order of model/generation/sampling.py,
   and the random numbers that PyTorch draws by the same seed. */
"use strict";

/** Which ids are kept and how likely each is drawn: logits -> Float64Array of probabilities.
    top_k (0: all) keeps the k most likely, exactly k; the temperature divides the logits, 0 takes
    the most likely; top_p keeps the smallest set of the likeliest whose mass reaches it. */
function probabilities(logits, { temperature = 1, top_k = 0, top_p = 1 } = {}) {
  const V = logits.length;
  const p = new Float64Array(V);
  // likeliest first, of equals the first id: the sort is stable
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
  if (temperature === 0) {
    p[order[0]] = 1;
    return p;
  }
  const kept = order.slice(0, top_k || V);
  let sum = 0;
  for (const i of kept) sum += p[i] = Math.exp((logits[i] - logits[order[0]]) / temperature);
  let mass = 0, left = 0;
  for (const i of kept) {
    p[i] /= sum;
    const before = mass;
    mass += p[i];
    // stays while the mass before it is short of top_p; 1 keeps all, though sums may round to 1
    if (before < top_p || top_p === 1) left += p[i];
    else p[i] = 0;
  }
  return p.map((x) => x / left);
}

/** Where u of [0,1) falls when probabilities are laid end to end. */
function draw(p, u) {
  let total = 0, end = 0;
  for (const x of p) total += x;
  for (let i = 0; i < p.length; i++) {
    end += p[i];
    if (end > total * u) return i;
  }
  return p.findLastIndex((x) => x > 0); // rounding left u * total beyond the last end
}

/** The Mersenne Twister MT19937 (Matsumoto & Nishimura 1998) as PyTorch's generator on a CPU seeds
    and reads it: `next()` gives the numbers of torch.rand, 24 bits each. */
class Uniforms {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed;
    for (let i = 1; i < 624; i++) {
      const s = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, s) + i;
    }
    this.used = 624;
  }

  /** Make the next 624 words. */
  twist() {
    const s = this.state;
    for (let i = 0; i < 624; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
      s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.used = 0;
  }

  next() {
    if (this.used === 624) this.twist();
    let y = this.state[this.used++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return (y & 0xffffff) / 0x1000000;
  }
}
