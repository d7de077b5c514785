"""How good a model is: cross-entropy over a whole split, perplexity, bits per byte."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from data.loader import ordered_batches
from data.store import TokenDataset
from model import TinyGPT
from utils.device import Device
from utils.training.objective import Objective


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
def evaluate(
    model: TinyGPT,
    objective: Objective,
    tokens: np.ndarray,
    n_bytes: int,
    batch_size: int,
    device: Device,
) -> Score:
    """Score the model on a whole split, in fixed order, each token but the first predicted once."""
    training, total, count = model.training, 0.0, 0
    model.eval()
    T = model.config.block_size
    for batch in ordered_batches(tokens, block_size=T, batch_size=batch_size):
        with device.autocast():
            nats, n = objective(model, device.move(batch))
        if n:  # by way of the mean in float32, as before 0.2.0: its runs go on to the bit
            total, count = total + float((nats / n).float()) * int(n), count + int(n)
    model.train(training)
    return Score(total, count, n_bytes)


def evaluate_all(
    model: TinyGPT,
    objective: Objective,
    datasets: Mapping[str, TokenDataset],
    batch_size: int,
    device: Device,
) -> tuple[Score, dict[str, Score]]:
    """Score every source's validation split: (all together, each by name)."""
    parts = {
        name: evaluate(model, objective, d.val, d.meta["val_bytes"], batch_size, device)
        for name, d in datasets.items()
    }
    first, *others = parts.values()
    return sum(others, first), parts
