"""How good a model is: cross-entropy over a whole split, perplexity, bits per byte, and floors."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from data.loader import ordered_batches
from utils.device import Device


class Mean:
    """A running mean: `add` values, read `value`. NaN while empty."""

    def __init__(self, total: float = 0.0, count: int = 0):
        self.total, self.count = total, count

    def add(self, value: float, n: int = 1) -> None:
        """Count `value` n times."""
        self.total, self.count = self.total + value * n, self.count + n

    @property
    def value(self) -> float:
        """The mean so far."""
        return self.total / self.count if self.count else math.nan


def perplexity(loss: float) -> float:
    """exp(loss), loss in nats: how many equally likely tokens the model hesitates between."""
    return math.exp(loss) if loss < 700 else math.inf


@dataclass(frozen=True)
class Score:
    """Result over a split: summed nats, tokens predicted, and the bytes of text they stand for."""

    nats: float
    tokens: int
    bytes: int

    def __add__(self, other: "Score") -> "Score":
        """The score over both splits."""
        nats, tokens = self.nats + other.nats, self.tokens + other.tokens
        return Score(nats, tokens, self.bytes + other.bytes)

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def ppl(self) -> float:
        """Perplexity per token."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text: comparable across tokenizers, as loss and perplexity are not."""
        return self.nats / math.log(2) / self.bytes


@torch.no_grad()
def evaluate(model, tokens, n_bytes: int, batch_size: int, device: Device) -> Score:
    """Score the model on a whole split, in fixed order, each token but the first predicted once."""
    training = model.training
    model.eval()
    nats, count = 0.0, 0
    T = model.config.block_size
    for x, y in ordered_batches(tokens, block_size=T, batch_size=batch_size):
        with device.autocast():
            _, loss = model(x.to(device.device), y.to(device.device), loss_only=True)
        n = int((y >= 0).sum())
        nats, count = nats + loss.item() * n, count + n
    model.train(training)
    return Score(nats, count, n_bytes)


def evaluate_all(model, sources, batch_size: int, device: Device) -> tuple[Score, dict[str, Score]]:
    """Score every source's validation split: (all together, each by name)."""
    parts = {
        name: evaluate(model, source.val, source.meta["val_bytes"], batch_size, device)
        for name, source in sources.items()
    }
    first, *others = parts.values()
    return sum(others, first), parts


def uniform_floor(val, V: int, n_bytes: int) -> Score:
    """Score of knowing nothing: ln V a token. An untrained model starts here."""
    return Score(math.log(V) * (len(val) - 1), len(val) - 1, n_bytes)


def unigram_floor(train, val, V: int, n_bytes: int) -> Score:
    """Score of train's frequencies alone, by Laplace's rule: p(y) = (count + 1) / (N + V)."""
    p = unigram(train, V)
    return Score(float(-np.log(p[val[1:]]).sum()), len(val) - 1, n_bytes)


def bigram_floor(train, val, V: int, n_bytes: int) -> Score:
    """Score of pairs: p(y|x) = (c(xy) + n(x) p(y)) / (c(x) + n(x)), Witten and Bell 1991.

    c counts in train, n(x) is how many different tokens follow x there, p(y) is the unigram.
    """
    x, y = val[:-1], val[1:]
    seen, asked = (t[:-1].astype(np.int64) * V + t[1:] for t in (train, val))  # a number per pair
    pairs, c = np.unique(seen, return_counts=True)
    at = np.searchsorted(pairs, asked).clip(max=len(pairs) - 1)
    c_xy = np.where(pairs[at] == asked, c[at], 0)
    c_x = np.bincount(train[:-1], minlength=V)
    n = np.bincount(pairs // V, minlength=V)[x]
    p_y = unigram(train, V)[y]
    p = np.where(n > 0, (c_xy + n * p_y) / np.maximum(c_x[x] + n, 1), p_y)
    return Score(float(-np.log(p).sum()), len(y), n_bytes)


def unigram(train, V: int) -> np.ndarray:
    """Laplace-smoothed frequencies of the V tokens, (V,)."""
    return (np.bincount(train, minlength=V) + 1) / (len(train) + V)
