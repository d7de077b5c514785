"""The whole decoder in NumPy: what `model.gpt.TinyGPT` computes, and its gradients, by hand.

P are the parameters by TinyGPT's names, G their gradients by the same names. Each part is a pair
of functions again: forward(x, P, ...) -> (y, cache), and backward(dy, cache, P, G) -> dx, which
adds to G. The backward pass is the forward pass read from its end. Letters: B batch, T time,
C = d_model, V vocabulary, D the width of a head.
"""

import math

import numpy as np

from model.config import GPTConfig
from model.numpy_gpt import attention as att
from model.numpy_gpt import layers as nn
from model.numpy_gpt.layers import Array, Cache
from model.numpy_gpt.params import Params


def dense(x: Array, P: Params, name: str) -> tuple[Array, Cache]:
    """A linear layer by name."""
    y, cache = nn.linear(x, P[f"{name}.weight"], P.get(f"{name}.bias"))
    return y, (name, cache)


def dense_backward(dy: Array, cache: Cache, P: Params, G: Params) -> Array:
    """Gradients of its weight and bias into G; gives dx."""
    name, inner = cache
    dx, dW, db = nn.linear_backward(dy, inner)
    add(G, P, {f"{name}.weight": dW, f"{name}.bias": db})
    return dx


def norm(x: Array, P: Params, name: str, c: GPTConfig) -> tuple[Array, Cache]:
    """LayerNorm or RMSNorm by name."""
    g, b = P[f"{name}.weight"], P.get(f"{name}.bias")
    if c.norm == "rmsnorm":
        y, cache = nn.rms_norm(x, g, c.norm_eps)
    else:
        y, cache = nn.layer_norm(x, g, b, c.norm_eps)
    return y, (name, c.norm, cache)


def norm_backward(dy: Array, cache: Cache, P: Params, G: Params) -> Array:
    """Gradients of its gain and bias into G; gives dx."""
    name, kind, inner = cache
    if kind == "rmsnorm":
        dx, dg = nn.rms_norm_backward(dy, inner)
        add(G, P, {f"{name}.weight": dg})
    else:
        dx, dg, db = nn.layer_norm_backward(dy, inner)
        add(G, P, {f"{name}.weight": dg, f"{name}.bias": db})
    return dx


def add(G: Params, P: Params, grads: Params) -> None:
    """Add gradients to G, of those parameters that P has: one used twice gets the sum."""
    for name, grad in grads.items():
        if name in P:
            G[name] = G[name] + grad if name in G else grad


def multi_head(x: Array, P: Params, name: str, c: GPTConfig) -> tuple[Array, Cache]:
    """Attention in every head, side by side, then a linear layer: x (B,T,C) -> (B,T,C)."""
    T, D, K = x.shape[1], c.head_size, c.kv_heads
    qkv, in_cache = dense(x, P, f"{name}.qkv")
    heads = att.split_heads(qkv, D)  # (B,H+2K,T,D)
    q, k, v = np.split(heads, (c.n_head, c.n_head + K), 1)
    norms = None
    if c.qk_norm:
        q, q_cache = norm(q, P, f"{name}.q_norm", c)
        k, k_cache = norm(k, P, f"{name}.k_norm", c)
        norms = q_cache, k_cache
    rope = None
    if c.pos == "rope":
        rope = [table.astype(x.dtype) for table in att.angles(T, D, c.rope_theta)]
        q, k = att.rotate(q, *rope), att.rotate(k, *rope)
    times = c.n_head // K
    k, v = att.repeat_heads(k, times), att.repeat_heads(v, times)
    y, core = att.attention(q, k, v, att.causal_mask(T, c.window))
    y, out_cache = dense(att.join_heads(y), P, f"{name}.proj")
    return y, (in_cache, norms, rope, times, core, out_cache, D)


def multi_head_backward(dy: Array, cache: Cache, P: Params, G: Params) -> Array:
    """The same steps from the last to the first."""
    in_cache, norms, rope, times, core, out_cache, D = cache
    dy = att.split_heads(dense_backward(dy, out_cache, P, G), D)
    dq, dk, dv = att.attention_backward(dy, core)
    dk, dv = att.repeat_heads_backward(dk, times), att.repeat_heads_backward(dv, times)
    if rope:
        dq, dk = att.rotate_backward(dq, *rope), att.rotate_backward(dk, *rope)
    if norms:
        dq = norm_backward(dq, norms[0], P, G)
        dk = norm_backward(dk, norms[1], P, G)
    heads = np.concatenate((dq, dk, dv), 1)
    return dense_backward(att.join_heads(heads), in_cache, P, G)


def mlp(x: Array, P: Params, name: str, c: GPTConfig) -> tuple[Array, Cache]:
    """down(act(up(x))), or gated down(act(gate(x)) * up(x)): x (B,T,C) -> (B,T,C)."""
    act = nn.ACT[c.mlp][0]
    up, up_cache = dense(x, P, f"{name}.up")
    if not c.gated:
        h, act_cache = act(up)
        y, down_cache = dense(h, P, f"{name}.down")
        return y, (c.mlp, up_cache, act_cache, down_cache, None)
    gate, gate_cache = dense(x, P, f"{name}.gate")
    a, act_cache = act(gate)
    y, down_cache = dense(a * up, P, f"{name}.down")
    return y, (c.mlp, up_cache, act_cache, down_cache, (gate_cache, a, up))


def mlp_backward(dy: Array, cache: Cache, P: Params, G: Params) -> Array:
    """A product's gradient goes to each factor times the other: d(a u) = da u + a du."""
    kind, up_cache, act_cache, down_cache, gated = cache
    act_backward = nn.ACT[kind][1]
    dh = dense_backward(dy, down_cache, P, G)
    if gated is None:
        return dense_backward(act_backward(dh, act_cache), up_cache, P, G)
    gate_cache, a, up = gated
    dx = dense_backward(act_backward(dh * up, act_cache), gate_cache, P, G)
    return dx + dense_backward(dh * a, up_cache, P, G)


def block(x: Array, P: Params, name: str, c: GPTConfig) -> tuple[Array, Cache]:
    """x + attention(norm(x)), then + mlp(norm(.)); with norm_at=post norm(x + sublayer(x))."""
    caches = []
    for sublayer, inner, n in ((multi_head, "attn", "norm1"), (mlp, "mlp", "norm2")):
        if c.norm_at == "pre":
            h, norm_cache = norm(x, P, f"{name}.{n}", c)
            y, cache = sublayer(h, P, f"{name}.{inner}", c)
            x = x + y
        else:
            y, cache = sublayer(x, P, f"{name}.{inner}", c)
            x, norm_cache = norm(x + y, P, f"{name}.{n}", c)
        caches += [norm_cache, cache]
    return x, (c.norm_at, *caches)


def block_backward(dx: Array, cache: Cache, P: Params, G: Params) -> Array:
    """A sum sends its gradient both ways: past the sublayer, and through it."""
    norm_at, norm1_cache, attn_cache, norm2_cache, mlp_cache = cache
    for sublayer_backward, inner, n in (
        (mlp_backward, mlp_cache, norm2_cache),
        (multi_head_backward, attn_cache, norm1_cache),
    ):
        if norm_at == "pre":
            dx = dx + norm_backward(sublayer_backward(dx, inner, P, G), n, P, G)
        else:
            dx = norm_backward(dx, n, P, G)
            dx = dx + sublayer_backward(dx, inner, P, G)
    return dx


def embed(idx: Array, P: Params, c: GPTConfig) -> tuple[Array, Cache]:
    """Tokens and where they stand: idx (B,T) -> (B,T,C)."""
    e, cache = nn.embedding(idx, P["tok_emb.weight"])
    x = nn.convolve(e, P["conv"]) if c.emb_conv else e
    if c.pos == "learned":
        x = x + P["pos_emb.weight"][: idx.shape[1]]
    if c.pos == "sinusoidal":
        x = math.sqrt(c.d_model) * x + att.sinusoid(*x.shape[1:]).astype(x.dtype)
    return x, (e, cache)


def embed_backward(dx: Array, cache: Cache, P: Params, G: Params, c: GPTConfig) -> None:
    """Positions add up over the batch, tokens wherever they stand."""
    e, inner = cache
    if c.pos == "learned":
        dW = np.zeros_like(P["pos_emb.weight"])
        dW[: dx.shape[1]] = dx.sum(0)
        G["pos_emb.weight"] = dW
    if c.pos == "sinusoidal":
        dx = math.sqrt(c.d_model) * dx
    if c.emb_conv:
        dx, G["conv"] = nn.convolve_backward(dx, e, P["conv"])
    add(G, P, {"tok_emb.weight": nn.embedding_backward(dx, inner)})


def forward(P: Params, c: GPTConfig, idx: Array) -> tuple[Array, Cache]:
    """Logits (B,T,V) of ids (B,T), and what `backward` needs.

    Raises ValueError if T is 0 or above block_size, or for an id below 0.
    """
    if not idx.shape[1]:
        raise ValueError("0 tokens; give one or more")
    if idx.shape[1] > c.block_size:
        raise ValueError(f"{idx.shape[1]} tokens exceed block_size={c.block_size}; crop them")
    if (idx < 0).any():  # NumPy would count from the end
        raise ValueError(f"id {idx.min()} is below 0; only targets may be -1")
    x, emb_cache = embed(idx, P, c)
    caches: list[Cache] = []
    for i in range(c.n_layer):
        x, cache = block(x, P, f"blocks.{i}", c)
        caches.append(cache)
    norm_cache = None
    if c.norm_at == "pre":
        x, norm_cache = norm(x, P, "norm", c)
    head = "tok_emb" if c.tie_weights else "head"
    logits, head_cache = dense(x, P, head)
    return logits, (emb_cache, caches, norm_cache, head_cache)


def backward(dlogits: Array, cache: Cache, P: Params, c: GPTConfig) -> Params:
    """The gradient of every parameter, by its name, from that of the logits (B,T,V)."""
    emb_cache, caches, norm_cache, head_cache = cache
    G: Params = {}
    dx = dense_backward(dlogits, head_cache, P, G)  # tied: the embedding's first share
    if norm_cache is not None:
        dx = norm_backward(dx, norm_cache, P, G)
    for inner in reversed(caches):
        dx = block_backward(dx, inner, P, G)
    embed_backward(dx, emb_cache, P, G, c)
    return G


def loss_and_gradients(P: Params, c: GPTConfig, idx: Array, y: Array) -> tuple[float, Params]:
    """The mean cross-entropy (nats) of targets y (B,T) after ids idx (B,T), and its gradients."""
    logits, cache = forward(P, c, idx)
    loss, loss_cache = nn.cross_entropy(logits, y)
    return loss, backward(nn.cross_entropy_backward(loss_cache), cache, P, c)
