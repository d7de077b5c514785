"""The loop of train.py in a page: windows of a text, loss, gradients, clipping, AdamW; and writing.

Letters: B windows of T ids.
"""

import math
from collections.abc import Iterator

import numpy as np

from model.config import GPTConfig
from model.numpy_gpt.decoder import forward, loss_and_gradients
from model.numpy_gpt.layers import Array, softmax
from model.numpy_gpt.optim import State, adamw, clip
from model.numpy_gpt.params import Params, shapes


def start(c: GPTConfig, rng: np.random.Generator) -> Params:
    """GPT-2's start: N(0, 0.02), gains 1, output projections / sqrt(2 n_layer). No biases here."""
    P = {name: np.ones(shape, np.float32) for name, shape in shapes(c).items()}
    for name in P:
        if P[name].ndim == 2:
            std = 0.02 / math.sqrt(2 * c.n_layer) if "proj" in name or "down" in name else 0.02
            P[name] = rng.normal(0, std, P[name].shape).astype(np.float32)
    return P


def windows(ids: Array, T: int, B: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """B windows of T ids from anywhere, and the same one position on: (B,T) each."""
    starts = rng.integers(0, len(ids) - T, B)
    rows = np.stack([ids[s : s + T + 1] for s in starts])
    return rows[:, :-1], rows[:, 1:]


def train(
    P: Params, c: GPTConfig, ids: Array, steps: int, lr: float, rng: np.random.Generator
) -> Iterator[float]:
    """Move P, in place, on 12 windows a step; each step yields its loss before the move.

    The rate rises over 10 steps, then falls in a straight line to a twentieth.
    """
    state: State = {}
    for step in range(1, steps + 1):
        x, y = windows(ids, c.block_size, 12, rng)
        loss, G = loss_and_gradients(P, c, x, y)
        yield loss
        clip(G, 1.0)
        adamw(P, G, state, step, lr=lr * min(1, step / 10, 1.05 - step / steps))


def write(P: Params, c: GPTConfig, ids: list[int], n: int, rng: np.random.Generator) -> list[int]:
    """Draw n more ids, each from softmax(logits / 0.8), reading the last block_size anew."""
    for _ in range(n):
        logits, _ = forward(P, c, np.array([ids[-c.block_size :]]))
        p = softmax(logits[0, -1].astype(np.float64) / 0.8)
        ids.append(int(rng.choice(len(p), p=p)))
    return ids
