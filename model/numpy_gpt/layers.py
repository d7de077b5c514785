"""Layers in NumPy, forward and backward by hand.

y, cache = f(x, ...), and dx, ... = f_backward(dy, cache): dy is the derivative of the loss by y, of
y's shape; dx, dW, ... are those by x, W, ... The rule behind all of them is the chain rule: dx is
the sum over y's entries of dy * (dy/dx). Letters: B batch, T time, C = d_model, V vocabulary; `...`
stands for any leading dimensions.
"""

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Cache = tuple[Any, ...]  # what the backward pass needs of the forward pass


def linear(x: Array, W: Array, b: Array | None = None) -> tuple[Array, Cache]:
    """y = x W^T + b: x (...,in), W (out,in), b (out,) -> y (...,out)."""
    y = x @ W.T
    return y if b is None else y + b, (x, W)


# exercise: linear-backward
def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """y_o = sum_i W_oi x_i + b_o, so dx = dy W, dW = dy^T x, db = dy, added up over `...`."""
    x, W = cache
    rows, dy_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return dy @ W, dy_rows.T @ rows, dy_rows.sum(0)


def embedding(ids: Array, W: Array) -> tuple[Array, Cache]:
    """Rows of W (V,C) by ids (...) -> (...,C)."""
    return W[ids], (ids, W.shape)


def embedding_backward(dy: Array, cache: Cache) -> Array:
    """A row gets the gradients of all positions that looked it up: dW (V,C)."""
    ids, shape = cache
    dW = np.zeros(shape, dy.dtype)
    np.add.at(dW, ids, dy)  # dW[ids] += dy would count an id that comes twice only once
    return dW


def convolve(e: Array, w: Array) -> Array:
    """x_t = sum_k w_k e_(t-k), in each dimension by itself: e (B,T,C), w (n,C) -> (B,T,C)."""
    x = e * w[0]
    for k in range(1, len(w)):
        x[:, k:] += e[:, :-k] * w[k]
    return x


def convolve_backward(dx: Array, e: Array, w: Array) -> tuple[Array, Array]:
    """de_(t-k) gets w_k dx_t, and w_k the sum of dx_t e_(t-k)."""
    de, dw = dx * w[0], np.zeros_like(w)
    dw[0] = (dx * e).sum((0, 1))
    for k in range(1, len(w)):
        de[:, :-k] += dx[:, k:] * w[k]
        dw[k] = (dx[:, k:] * e[:, :-k]).sum((0, 1))
    return de, dw


def softmax(x: Array) -> Array:
    """e^x / sum e^x over the last dimension; less the maximum it is the same, and stays finite."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# exercise: softmax-backward
def softmax_backward(dp: Array, p: Array) -> Array:
    """dp_i/dx_j = p_i (1[i=j] - p_j), so dx_j = p_j (dp_j - sum_i p_i dp_i)."""
    return p * (dp - (p * dp).sum(-1, keepdims=True))


# exercise: cross-entropy-numpy
def cross_entropy(logits: Array, targets: Array) -> tuple[float, Cache]:
    """Mean of -log p[target] in nats: logits (...,V), targets (...); a target of -1 does not count.

    Raises ValueError if none counts, or for a target below -1.
    """
    if (targets < -1).any():
        raise ValueError(f"target {targets.min()} is below -1; -1 marks one that does not count")
    counts = targets >= 0
    if not counts.any():
        raise ValueError("no target counts: all are -1")
    z = logits - logits.max(-1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
    picked = np.take_along_axis(logp, np.maximum(targets, 0)[..., None], -1)[..., 0]
    return float(-picked[counts].mean()), (logp, targets)


def cross_entropy_backward(cache: Cache) -> Array:
    """-log softmax(x)_t = -x_t + log sum e^x, so dx = p - 1[target], over how many count."""
    logp, targets = cache
    dx = np.exp(logp)
    counts = targets >= 0
    dx[counts, targets[counts]] -= 1
    return dx * counts[..., None] / int(counts.sum())  # int: NumPy's own would make it float64


def erf(x: Array) -> Array:
    """The error function, one number at a time: NumPy has none, so this is slow."""
    return np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x


def gelu(x: Array) -> tuple[Array, Cache]:
    """x Phi(x), Phi the normal distribution's: exact (Hendrycks & Gimpel 2016)."""
    phi = 0.5 * (1 + erf(x / math.sqrt(2)))
    return x * phi, (x, phi)


def gelu_backward(dy: Array, cache: Cache) -> Array:
    """(x Phi)' = Phi + x Phi', and Phi' is the bell e^(-x^2/2) / sqrt(2 pi)."""
    x, phi = cache
    bell = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return dy * (phi + x * bell)


def gelu_tanh(x: Array) -> tuple[Array, Cache]:
    """GPT-2's own: x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3)."""
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + t), (x, t)


def gelu_tanh_backward(dy: Array, cache: Cache) -> Array:
    """tanh' = 1 - tanh^2, times u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)."""
    x, t = cache
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return dy * 0.5 * (1 + t + x * (1 - t * t) * du)


def relu(x: Array) -> tuple[Array, Cache]:
    """max(0, x)."""
    return np.maximum(x, 0), (x,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """1 where x > 0, else 0: what was cut learns nothing."""
    (x,) = cache
    return dy * (x > 0)


def relu2(x: Array) -> tuple[Array, Cache]:
    """max(0, x)^2 (Primer, So et al. 2021)."""
    r = np.maximum(x, 0)
    return r * r, (r,)


def relu2_backward(dy: Array, cache: Cache) -> Array:
    """2 max(0, x)."""
    (r,) = cache
    return dy * 2 * r


def silu(x: Array) -> tuple[Array, Cache]:
    """x s with s = 1 / (1 + e^-x) = (1 + tanh(x/2)) / 2, the gate of SwiGLU."""
    s = 0.5 * (1 + np.tanh(0.5 * x))  # e^-x would overflow
    return x * s, (x, s)


def silu_backward(dy: Array, cache: Cache) -> Array:
    """s' = s (1 - s), so (x s)' = s + x s (1 - s)."""
    x, s = cache
    return dy * (s + x * s * (1 - s))


ACT = {  # by the setting `mlp`
    "gelu": (gelu, gelu_backward),
    "gelu_tanh": (gelu_tanh, gelu_tanh_backward),
    "relu": (relu, relu_backward),
    "relu2": (relu2, relu2_backward),
    "swiglu": (silu, silu_backward),
    "geglu": (gelu, gelu_backward),
}


def layer_norm(x: Array, g: Array, b: Array | None, eps: float) -> tuple[Array, Cache]:
    """y = n g + b with n = (x - mean) / sqrt(var + eps), over the last dimension."""
    centred = x - x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps)
    n = centred * scale
    return n * g if b is None else n * g + b, (n, scale, g)


# exercise: layer-norm-backward
def layer_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dx = (dn - mean(dn) - n mean(dn n)) / sqrt(var + eps), dn = dy g; also dg and db.

    n has mean 0 and length sqrt(C): x can change neither, so dn loses its parts along 1 and n.
    """
    n, scale, g = cache
    dn = dy * g
    dn_n = (dn * n).mean(-1, keepdims=True)
    dx = (dn - dn.mean(-1, keepdims=True) - n * dn_n) * scale
    rows = tuple(range(dy.ndim - 1))
    return dx, (dy * n).sum(rows), dy.sum(rows)


def rms_norm(x: Array, g: Array, eps: float) -> tuple[Array, Cache]:
    """y = n g with n = x / sqrt(mean(x^2) + eps): LayerNorm without the mean."""
    scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    n = x * scale
    return n * g, (n, scale, g)


def rms_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """dx = (dn - n mean(dn n)) / sqrt(mean(x^2) + eps), dn = dy g: the part along n is lost."""
    n, scale, g = cache
    dn = dy * g
    dx = (dn - n * (dn * n).mean(-1, keepdims=True)) * scale
    return dx, (dy * n).sum(tuple(range(dy.ndim - 1)))
