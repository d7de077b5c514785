"""Attention in NumPy, forward and backward by hand, and the positions that it needs to be told.

Letters: B batch, T time, C = d_model, H heads, D = C/H, K heads of keys and values.
"""

import math

import numpy as np

from model.numpy_gpt.layers import Array, Cache, softmax, softmax_backward


def causal_mask(T: int, window: int = 0) -> Array:
    """Which positions each of T may attend to, (T,T) bool: itself and those before it.

    T=3 -> [[1, 0, 0], [1, 1, 0], [1, 1, 1]]; with a window the last `window` of them only.
    """
    back = np.arange(T)[:, None] - np.arange(T)
    return (back >= 0) & (back < (window or T))


def attention(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array, Cache]:
    """softmax(q k^T / sqrt(D)) v: q, k, v (...,T,D), mask (T,T) bool -> (...,T,D)."""
    score = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])  # (...,T,T)
    p = softmax(np.where(mask, score, -np.inf))
    return p @ v, (q, k, v, p)


# exercise: attention-backward
def attention_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """y = p v, p = softmax(s), s = q k^T / sqrt(D): each product by its other factor, transposed.

    Where the mask hides a key p is 0, and so is ds: softmax_backward multiplies by p.
    """
    q, k, v, p = cache
    dv = p.swapaxes(-1, -2) @ dy
    dp = dy @ v.swapaxes(-1, -2)
    ds = softmax_backward(dp, p) / math.sqrt(q.shape[-1])
    return ds @ k, ds.swapaxes(-1, -2) @ q, dv


def split_heads(x: Array, D: int) -> Array:
    """(B,T,n D) -> (B,n,T,D): a head is D neighbours of the last dimension."""
    B, T, width = x.shape
    return x.reshape(B, T, width // D, D).swapaxes(1, 2)


def join_heads(x: Array) -> Array:
    """(B,n,T,D) -> (B,T,n D), what undoes `split_heads`, and its backward."""
    B, n, T, D = x.shape
    return x.swapaxes(1, 2).reshape(B, T, n * D)


def repeat_heads(x: Array, times: int) -> Array:
    """(B,K,T,D) -> (B,K times,T,D): each head of keys serves so many of queries in a row."""
    return np.repeat(x, times, 1)


def repeat_heads_backward(dy: Array, times: int) -> Array:
    """A head that served several gets the sum of their gradients."""
    B, H, T, D = dy.shape
    return dy.reshape(B, H // times, times, T, D).sum(2)


def angles(T: int, D: int, theta: float = 10000.0) -> tuple[Array, Array]:
    """RoPE's cosines and sines, (T,D/2) each: pair i turns by theta^(-2i/D) a position."""
    angle = np.outer(np.arange(T), theta ** (-np.arange(0, D, 2) / D))
    return np.cos(angle), np.sin(angle)


def sinusoid(T: int, C: int) -> Array:
    """Section 3.5 of Attention Is All You Need, (T,C): sines in even columns, cosines in odd."""
    cos, sin = angles(T, C)
    return np.stack((sin, cos), -1).reshape(T, C)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """RoPE (Su et al. 2021): turn each pair (a, b) of x (...,T,D), its halves side by side."""
    a, b = np.split(x, 2, -1)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)


def rotate_backward(dy: Array, cos: Array, sin: Array) -> Array:
    """A rotation's transpose is its inverse: turn back."""
    return rotate(dy, cos, -sin)
