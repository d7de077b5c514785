/* A TinyGPT in plain JavaScript: token ids -> logits, attention, residual stream. It never touches
   the page, and gives what model/gpt.py gives.

   Letters: T tokens read so far, n tokens that are new, C = d_model, H heads of D dimensions,
   K heads of keys and values, V = vocab_size, L = n_layer. All tensors are Float32Arrays, row after
   row; sums are made in double precision, as JavaScript's numbers are. */
"use strict";

/** The error function by its series 2x/sqrt(pi) e^(-x^2) (1 + 2x^2/3 + (2x^2)^2/(3 5) + ...),
    whose terms are all positive, so nothing cancels (Abramowitz and Stegun, 7.1.6). */
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x); // nearer to 1 than a double can say
  let term = 1, sum = 1;
  for (let n = 3; term > sum * 1e-17; n += 2) {
    term *= (2 * x * x) / n;
    sum += term;
  }
  return ((2 * x) / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

const gelu = (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2));
const geluTanh = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
const ACT = {
  gelu: gelu, // x Phi(x)
  gelu_tanh: geluTanh, // GPT-2's own, by tanh
  relu: (x) => Math.max(0, x),
  relu2: (x) => Math.max(0, x) ** 2,
  swiglu: (x) => x / (1 + Math.exp(-x)), // x sigmoid(x)
  geglu: gelu,
};

/** The sum of a[i + j] b[k + j] over n values of j; four sums, so that none waits for another. */
function dot(a, i, b, k, n) {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, j = 0;
  for (; j + 3 < n; j += 4) {
    s0 += a[i + j] * b[k + j];
    s1 += a[i + j + 1] * b[k + j + 1];
    s2 += a[i + j + 2] * b[k + j + 2];
    s3 += a[i + j + 3] * b[k + j + 3];
  }
  for (; j < n; j++) s0 += a[i + j] * b[k + j];
  return s0 + s1 + s2 + s3;
}

/** x (n,cols) W^T + b for W (rows,cols) -> (n,rows); four rows of x share what is read of W. */
function linear(x, n, W, b, rows, cols) {
  const y = new Float32Array(n * rows);
  for (let r = 0; r < rows; r++) {
    const w = r * cols, bias = b ? b[r] : 0;
    let t = 0;
    for (; t + 3 < n; t += 4) {
      const x0 = t * cols, x1 = x0 + cols, x2 = x1 + cols, x3 = x2 + cols;
      let s0 = bias, s1 = bias, s2 = bias, s3 = bias;
      for (let c = 0; c < cols; c++) {
        const value = W[w + c];
        s0 += value * x[x0 + c];
        s1 += value * x[x1 + c];
        s2 += value * x[x2 + c];
        s3 += value * x[x3 + c];
      }
      y[t * rows + r] = s0;
      y[(t + 1) * rows + r] = s1;
      y[(t + 2) * rows + r] = s2;
      y[(t + 3) * rows + r] = s3;
    }
    for (; t < n; t++) y[t * rows + r] = dot(x, t * cols, W, w, cols) + bias;
  }
  return y;
}

/** Replace scores by their softmax. The largest is taken off first: e^x would overflow. */
function softmax(scores) {
  let most = -Infinity, sum = 0;
  for (let i = 0; i < scores.length; i++) most = Math.max(most, scores[i]);
  for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp(scores[i] - most);
  for (let i = 0; i < scores.length; i++) scores[i] /= sum;
  return scores;
}

/** Rows that are added one by one, in a Float32Array that doubles when it is full. */
class Rows {
  constructor(width) {
    this.width = width;
    this.data = new Float32Array(64 * width);
  }

  /** Put new rows from row `at` on. */
  put(at, rows) {
    const end = at * this.width + rows.length;
    if (end > this.data.length) {
      const more = new Float32Array(Math.max(end, 2 * this.data.length));
      more.set(this.data);
      this.data = more;
    }
    this.data.set(rows, at * this.width);
  }

  /** Row t, not copied. */
  row(t) {
    return this.data.subarray(t * this.width, (t + 1) * this.width);
  }
}

/** The model and all that it has computed of the tokens it has read: `read` adds tokens, and costs
    only those (keys and values of the others are kept); `forget` drops the last ones. */
class Model {
  /** `rope`: {frequencies, size} of rotary or sinusoidal positions, computed by Python. */
  constructor(config, tensors, rope) {
    const { d_model: C, n_head: H, n_layer: L } = config;
    this.config = config;
    this.w = tensors;
    this.rope = rope;
    this.D = config.head_dim || C / H;
    this.K = config.n_kv_head || H;
    this.T = 0;
    this.ids = [];
    this.off = new Set(); // heads that are switched off, as "layer,head"
    this.stream = Array.from({ length: L + 1 }, () => new Rows(C)); // before each block, and after
    this.q = Array.from({ length: L }, () => new Rows(H * this.D));
    this.k = Array.from({ length: L }, () => new Rows(this.K * this.D));
    this.v = Array.from({ length: L }, () => new Rows(this.K * this.D));
  }

  /** Drop all tokens but the first T. */
  forget(T) {
    this.T = Math.min(this.T, T);
    this.ids.length = this.T;
  }

  /** Read more tokens, at the positions that follow. An Error for more than the model has. */
  read(ids) {
    const { n_layer: L, block_size, slides } = this.config;
    if (!slides && this.T + ids.length > block_size) {
      throw new Error(`${this.T + ids.length} tokens exceed block_size=${block_size}; crop them`);
    }
    this.ids.push(...ids);
    let x = this.embed(ids);
    this.stream[0].put(this.T, x);
    for (let layer = 0; layer < L; layer++) {
      x = this.block(x, ids.length, layer);
      this.stream[layer + 1].put(this.T, x);
    }
    this.T += ids.length;
  }

  /** What the first block reads of the newest tokens: (n,C). */
  embed(ids) {
    const { d_model: C, pos } = this.config;
    const E = this.w["tok_emb.weight"];
    const x = new Float32Array(ids.length * C);
    for (let t = 0; t < ids.length; t++) {
      const at = this.T + t;
      for (let c = 0; c < C; c++) {
        let sum = this.mixed(E, at, c);
        if (pos === "learned") sum += this.w["pos_emb.weight"][at * C + c];
        if (pos === "sinusoidal") sum = Math.sqrt(C) * sum + this.wave(at, c);
        x[t * C + c] = sum;
      }
    }
    return x;
  }

  /** Embedding c of the token at a position; with emb_conv, sum_k conv_k e_(t-k). */
  mixed(E, at, c) {
    const { d_model: C, emb_conv } = this.config;
    if (!emb_conv) return E[this.ids[at] * C + c];
    let sum = 0;
    for (let k = 0; k < emb_conv && k <= at; k++) {
      sum += this.w.conv[k * C + c] * E[this.ids[at - k] * C + c];
    }
    return sum;
  }

  /** Column c of the sinusoidal table: sines in even columns, cosines in odd ones. */
  wave(at, c) {
    const angle = Math.fround(at * this.rope.frequencies[c >> 1]); // a float32 in PyTorch, too
    return c % 2 ? Math.cos(angle) : Math.sin(angle);
  }

  /** Block: attention, then MLP, each added to the residual stream x (n,C) -> (n,C). */
  block(x, n, layer) {
    const at = `blocks.${layer}.`;
    const post = this.config.norm_at === "post";
    const attend = (x) => this.attend(x, n, layer);
    const mlp = (x) => this.mlp(x, n, at + "mlp.");
    for (const [sublayer, norm] of [[attend, at + "norm1"], [mlp, at + "norm2"]]) {
      const y = sublayer(post ? x : this.norm(x, norm));
      for (let i = 0; i < y.length; i++) y[i] += x[i];
      x = post ? this.norm(y, norm) : y;
    }
    return x;
  }

  /** LayerNorm or RMSNorm of rows as long as its weight. */
  norm(x, name) {
    const weight = this.w[name + ".weight"], bias = this.w[name + ".bias"];
    const size = weight.length, y = new Float32Array(x.length);
    const centred = this.config.norm === "layernorm";
    for (let i = 0; i < x.length; i += size) {
      let mean = 0, square = 0;
      for (let c = 0; c < size && centred; c++) mean += x[i + c] / size;
      for (let c = 0; c < size; c++) square += (x[i + c] - mean) ** 2 / size;
      const scale = 1 / Math.sqrt(square + this.config.norm_eps);
      for (let c = 0; c < size; c++) {
        y[i + c] = (x[i + c] - mean) * scale * weight[c] + (bias ? bias[c] : 0);
      }
    }
    return y;
  }

  /** down(act(up(x))), or gated down(act(gate(x)) * up(x)). */
  mlp(x, n, at) {
    const C = this.config.d_model, act = ACT[this.config.mlp];
    const hidden = this.w[at + "up.weight"].length / C;
    const up = this.layer(x, n, at + "up", hidden, C);
    const gate = this.w[at + "gate.weight"] ? this.layer(x, n, at + "gate", hidden, C) : null;
    for (let i = 0; i < up.length; i++) up[i] = gate ? act(gate[i]) * up[i] : act(up[i]);
    return this.layer(up, n, at + "down", C, hidden);
  }

  /** A linear layer by its name. */
  layer(x, n, name, rows, cols) {
    return linear(x, n, this.w[name + ".weight"], this.w[name + ".bias"], rows, cols);
  }

  /** Self-attention of n new tokens x (n,C) over all that are read; switched-off heads add 0. */
  attend(x, n, layer) {
    const { d_model: C, n_head: H } = this.config, { D, K } = this;
    const at = `blocks.${layer}.attn.`;
    const qkv = this.layer(x, n, at + "qkv", (H + 2 * K) * D, C);
    for (let t = 0; t < n; t++) {
      const row = qkv.subarray(t * (H + 2 * K) * D, (t + 1) * (H + 2 * K) * D);
      this.q[layer].put(this.T + t, this.placed(row.slice(0, H * D), at + "q_norm", this.T + t));
      const k = row.slice(H * D, (H + K) * D);
      this.k[layer].put(this.T + t, this.placed(k, at + "k_norm", this.T + t));
      this.v[layer].put(this.T + t, row.subarray((H + K) * D));
    }
    const y = new Float32Array(n * H * D);
    for (let head = 0; head < H; head++) {
      if (this.off.has(`${layer},${head}`)) continue;
      const from = Math.floor(head / (H / K)) * D; // of the keys and values that the head shares
      for (let t = 0; t < n; t++) {
        const p = this.attention(layer, head, this.T + t);
        for (let s = 0; s < p.length; s++) {
          if (p[s] === 0) continue;
          const v = this.v[layer].data, start = s * K * D + from;
          for (let d = 0; d < D; d++) y[(t * H + head) * D + d] += p[s] * v[start + d];
        }
      }
    }
    return this.layer(y, n, at + "proj", C, H * D);
  }

  /** Queries or keys of one token: normalised if the model does that, rotated by its position. */
  placed(x, norm, at) {
    const D = this.D, { frequencies, size } = this.rope;
    if (this.config.qk_norm) x = this.norm(x, norm);
    if (this.config.pos !== "rope") return x;
    for (let i = 0; i < D / 2; i++) {
      const angle = Math.fround(at * frequencies[i]);
      const cos = size * Math.cos(angle), sin = size * Math.sin(angle);
      for (let h = 0; h < x.length; h += D) { // halves of each head, not neighbours
        const a = x[h + i], b = x[h + D / 2 + i];
        x[h + i] = a * cos - b * sin;
        x[h + D / 2 + i] = b * cos + a * sin;
      }
    }
    return x;
  }

  /** How much position t attends to each of 0 to t, in one head: softmax(q k^T / sqrt(D)). */
  attention(layer, head, t) {
    const { n_head: H, window } = this.config, { D, K } = this;
    const from = Math.floor(head / (H / K)) * D;
    const first = window ? Math.max(0, t - window + 1) : 0;
    const k = this.k[layer].data, q = this.q[layer].data, start = (t * H + head) * D;
    const scores = new Float32Array(t + 1 - first);
    for (let s = first; s <= t; s++) {
      scores[s - first] = dot(q, start, k, s * K * D + from, D) / Math.sqrt(D);
    }
    const p = new Float32Array(t + 1); // 0 outside of the window
    p.set(softmax(scores), first);
    return p;
  }

  /** Logits (V) at position t: after the last block, or (the logit lens) after an earlier one. */
  logits(t, depth = this.config.n_layer) {
    const { d_model: C, vocab_size: V, norm_at } = this.config;
    const x = this.stream[depth].row(t);
    const head = this.w["head.weight"] || this.w["tok_emb.weight"]; // tied
    return linear(norm_at === "pre" ? this.norm(x, "norm") : x, 1, head, null, V, C);
  }
}
